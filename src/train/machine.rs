//! How a run uses the machine it runs on: kept with it, so that it goes on with the same last bits.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How convolutions are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 on a GPU, f32 on a CPU.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Products in bfloat16, weights and statistics in single precision.
    Bf16,
}

impl Precision {
    /// Whether features are bfloat16; `None` where the engine decides by its device.
    #[must_use]
    pub const fn bf16(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(false),
            Self::Bf16 => Some(true),
        }
    }
}

/// Threads and precision; of the results they change the last bits at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Threads of one operation.
    pub threads: usize,
    /// Threads that make batches.
    pub workers: usize,
    /// How convolutions are computed.
    pub precision: Precision,
}

impl Default for Machine {
    /// Every processor that this process may use; a quarter as many make batches, beside a GPU with nothing else to do.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, workers: threads.div_ceil(4), precision: Precision::default() }
    }
}
