//! The command line of `landmark-train`.

mod bench;
mod data;
mod evaluate;
mod export;
mod source;
mod train;

use std::io::IsTerminal;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use self::bench::BenchArgs;
use self::data::DataArgs;
use self::evaluate::{CompareArgs, EvaluateArgs};
use self::export::{AgreeArgs, ExportArgs};
use self::train::{ResumeArgs, TrainArgs};
use super::{Machine, Precision, TrainConfig};
use crate::geometry::Frame;
#[cfg(feature = "torch")]
use crate::network::{Engine, EngineError, EngineOptions};
/// What is said where the engine is needed and was not built.
#[cfg(not(feature = "torch"))]
const NO_ENGINE: &str = "this landmark-train was built without its engine. Get LibTorch with `pip install \
                         torch==2.11.0`, set LIBTORCH to its folder (<site-packages>/torch) and build with `--features \
                         torch`";

/// Trains, evaluates and exports landmark localizers.
#[derive(Debug, Parser)]
#[command(name = "landmark-train", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at a data set before a night is spent on it.
    Data(DataArgs),
    /// Train a network (needs the feature `torch`).
    Train(TrainArgs),
    /// Go on with a run that was stopped, killed or not, to the same end (needs the feature `torch`).
    Resume(ResumeArgs),
    /// Measure a bundle on a test set.
    Evaluate(EvaluateArgs),
    /// Say whether one evaluation is better than another on the same films, or only luckier.
    Compare(CompareArgs),
    /// Say how fast films are trained here, and where the time goes (needs the feature `torch`).
    Bench(BenchArgs),
    /// Make a bundle of a run's best weights.
    Export(ExportArgs),
    /// Compare a bundle's network with the trained one it was made of, in pixels (needs the feature `torch`).
    Agree(AgreeArgs),
}

/// How an engine computes, for every subcommand that trains.
#[derive(Clone, Copy, Debug, Args)]
struct EngineArgs {
    /// Threads of one operation, 1 where not said: the number of physical cores that are free.
    #[arg(long)]
    threads: Option<usize>,
    /// Threads that make batches, 1 where not said.
    #[arg(long)]
    workers: Option<usize>,
    /// bf16 convolutions, which a GPU is faster with; where not said, `auto`: bf16 on a GPU and f32 on a CPU.
    #[arg(long, value_enum)]
    precision: Option<Precision>,
}

impl EngineArgs {
    /// What is said, and what is not as `before`.
    fn over(self, before: Machine) -> Machine {
        Machine {
            threads: self.threads.unwrap_or(before.threads),
            workers: self.workers.unwrap_or(before.workers),
            precision: self.precision.unwrap_or(before.precision),
        }
    }
}

/// A fresh engine for what `config` says, and `landmarks`.
#[cfg(feature = "torch")]
fn engine(machine: Machine, config: &TrainConfig, landmarks: usize) -> Result<Engine, EngineError> {
    let TrainConfig { seed, flow, average_decay, .. } = *config;
    let Machine { threads, precision, .. } = machine;
    let options = EngineOptions { seed, flow, threads, average_decay, bf16: precision.bf16() };
    Engine::new(config.architecture(landmarks), options)
}

/// The preset called `name`.
fn preset(name: &str) -> anyhow::Result<TrainConfig> {
    TrainConfig::preset(name)
        .with_context(|| format!("there is no preset {name:?}; there are {:?}", TrainConfig::PRESETS))
}

/// `frame`, or a square one of the side that was asked for.
fn with_side(frame: Frame, side: Option<u32>) -> Frame {
    side.map_or(frame, |side| Frame { width: side, height: side, ..frame })
}

fn progress(films: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32} film {pos}/{len}, {eta} left");
    ProgressBar::new(films as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// With the chain of what went wrong.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Data(args) => args.run(),
            Command::Train(args) => args.run(),
            Command::Resume(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Evaluate(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Export(args) => args.run(),
            Command::Agree(args) => args.run(),
        }
    }
}
