//! The command line of `landmark-train`.

mod bench;
mod data;
mod evaluate;
mod export;
mod source;
mod train;

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::bench::BenchArgs;
use self::data::DataArgs;
use self::evaluate::{CompareArgs, EvaluateArgs};
use self::export::{AgreeArgs, ExportArgs};
use self::train::{ResumeArgs, TrainArgs};
#[cfg(feature = "torch")]
use super::Machine;
use super::{Precision, TrainConfig};
use crate::geometry::Frame;
#[cfg(feature = "torch")]
use crate::network::{Engine, EngineError, EngineOptions};
/// What is said where the engine is needed and was not built.
#[cfg(not(feature = "torch"))]
const NO_ENGINE: &str = "this landmark-train was built without its engine. Get LibTorch with `pip install \
                         torch==2.11.0`, set LIBTORCH to its folder (<site-packages>/torch) and build with `--features \
                         torch`";

/// Without a terminal, the time between two lines about how far it has come.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);

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
    /// Threads of one operation; where not said, as many as there are processors. Beside other work name fewer: they
    /// wait for each other.
    #[arg(long)]
    threads: Option<usize>,
    /// Threads that make batches; where not said, one for four processors.
    #[arg(long)]
    workers: Option<usize>,
    /// bf16 convolutions, which a GPU is faster with; where not said, `auto`: bf16 on a GPU and f32 on a CPU.
    #[arg(long, value_enum)]
    precision: Option<Precision>,
}

#[cfg(feature = "torch")]
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

/// How far a walk over films has come: a bar on a terminal, else a line now and then.
struct Progress {
    bar: ProgressBar,
    /// When the last line was written; without it there is a bar.
    plain: Option<Mutex<Instant>>,
}

impl Progress {
    fn over(films: usize) -> Self {
        let bar = ProgressBar::new(films as u64);
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            return Self { bar, plain: Some(Mutex::new(Instant::now())) };
        }
        let style = ProgressStyle::with_template("{bar:32} film {pos}/{len}, {eta} left");
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())), plain: None }
    }

    /// One film more is done.
    fn step(&self) {
        self.bar.inc(1);
        let Some(plain) = &self.plain else { return };
        let mut last = plain.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= PLAIN_INTERVAL {
            *last = Instant::now();
            let (done, films) = (self.bar.position(), self.bar.length().unwrap_or_default());
            tracing::info!("film {done}/{films}, {} s left", self.bar.eta().as_secs());
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
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
