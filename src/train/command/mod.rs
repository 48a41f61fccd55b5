//! The command line of `landmark-train`.

mod data;
mod evaluate;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use self::data::DataArgs;
use self::evaluate::{CompareArgs, EvaluateArgs};
use super::datasets::{IsbiSplit, Truth, hold_out_groups, isbi};
use super::publish::{Publication, publish};
use super::{TrainConfig, Weights, checkpoint};
#[cfg(feature = "torch")]
use crate::landmark::CEPHALOGRAM_NAMES;
#[cfg(feature = "torch")]
use crate::model::Bundle;
use crate::model::Training;

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
    /// Measure a bundle on a test set.
    Evaluate(EvaluateArgs),
    /// Say whether one evaluation is better than another on the same films, or only luckier.
    Compare(CompareArgs),
    /// Make a bundle of a run's best weights.
    Export(ExportArgs),
    /// Compare a bundle's network with the trained one it was made of, in pixels (needs the feature `torch`).
    Agree(AgreeArgs),
}

/// What `landmark-train train` is told.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The data set's root, in the layout of ISBI 2015.
    #[arg(long)]
    data: PathBuf,
    /// The run's folder; it must not exist, unless the run is resumed.
    #[arg(long)]
    out: PathBuf,
    /// A preset by name.
    #[arg(long, default_value = "ceph", conflicts_with = "config")]
    preset: String,
    /// A TOML file with every key of a preset.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Side of the square input in pixels.
    #[arg(long)]
    size: Option<u32>,
    /// Films a step.
    #[arg(long)]
    batch: Option<usize>,
    /// Epochs of the whole run.
    #[arg(long)]
    epochs: Option<usize>,
    /// Learning rate of the first epoch.
    #[arg(long)]
    lr: Option<f64>,
    /// Of weights, order and augmentation.
    #[arg(long)]
    seed: Option<u64>,
    /// Every nth training film validates; 0 trains on all.
    #[arg(long)]
    hold_out_every: Option<usize>,
    /// Whether logits are clamped at zero before the softmax, as in the paper's code.
    #[arg(long)]
    heatmap_relu: Option<bool>,
    /// A safetensors file to start from: a run's `best.safetensors`, or a torchvision ResNet-18, whole or in part.
    #[arg(long)]
    init: Option<PathBuf>,
    /// Go on from the run's last checkpoint.
    #[arg(long)]
    resume: bool,
    /// Whose landmarks are learnt.
    #[arg(long, value_enum, default_value = "mean")]
    truth: Truth,
    /// Threads of one operation.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Threads that make batches.
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

/// What `landmark-train export` is told.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The run's folder.
    #[arg(long)]
    run: PathBuf,
    /// The data set's root, in the layout of ISBI 2015: for the golden film and the figures of the card.
    #[arg(long)]
    data: PathBuf,
    /// The bundle's directory, named after the bundle; an older bundle there is replaced.
    #[arg(long)]
    out: PathBuf,
    /// `major.minor.patch` of the bundle.
    #[arg(long)]
    bundle_version: String,
    /// Where the weights started, for the card.
    #[arg(long)]
    initialisation: String,
    /// How it was trained, for the card: commands, hardware, duration.
    #[arg(long)]
    procedure: String,
}

/// What `landmark-train agree` is told.
#[derive(Debug, Args)]
pub struct AgreeArgs {
    /// The bundle's directory.
    #[arg(long)]
    bundle: PathBuf,
    /// The run's folder.
    #[arg(long)]
    run: PathBuf,
    /// The data set's root, in the layout of ISBI 2015.
    #[arg(long)]
    data: PathBuf,
    /// How many films of Test1 are compared.
    #[arg(long, default_value_t = 20)]
    films: usize,
}

/// A run's best weights and what the run was told.
fn best_of(run: &Path) -> anyhow::Result<(Weights, TrainConfig)> {
    let path = run.join("best.safetensors");
    let (weights, metadata) = checkpoint::read(&path)?;
    let config = metadata.get("config").with_context(|| format!("{}: no `config` in it", path.display()))?;
    let config = toml::from_str(config).with_context(|| format!("{}", path.display()))?;
    Ok((weights, config))
}

impl AgreeArgs {
    #[cfg(not(feature = "torch"))]
    fn run(self) -> anyhow::Result<()> {
        let Self { bundle, run, .. } = self;
        bail!("comparing {} with {}: {NO_ENGINE}", bundle.display(), run.display())
    }

    #[cfg(feature = "torch")]
    fn run(self) -> anyhow::Result<()> {
        use crate::inference::TractDetector;
        use crate::network::{Engine, EngineOptions, NfdpConfig};

        let bundle = Bundle::open(&self.bundle)?;
        let (weights, config) = best_of(&self.run)?;
        let landmarks = bundle.manifest().landmarks.len();
        let mut detector = TractDetector::new(bundle.network(), bundle.manifest().network.frame, landmarks)?;
        let model = NfdpConfig { landmarks, heatmap_relu: config.heatmap_relu };
        let mut engine = Engine::new(model, EngineOptions { seed: 0, threads: 1, average_decay: 0.0 })?;
        engine.load_weights(&weights)?;
        let mut films = isbi(&self.data, IsbiSplit::Test1, Truth::Mean)?;
        films.truncate(self.films);
        let super::Agreement { mean_px, max_px } = super::agree(&mut engine, &mut detector, &films)?;
        println!(
            "{} films: the frame's landmarks differ by {mean_px:.4} px on average, {max_px:.4} px at most",
            films.len()
        );
        Ok(())
    }
}

impl ExportArgs {
    fn run(self) -> anyhow::Result<()> {
        let (weights, config) = best_of(&self.run)?;
        let name = self.out.file_name().and_then(|name| name.to_str()).context("--out has no name")?;
        let (train, validation) =
            hold_out_groups(isbi(&self.data, IsbiSplit::Train, Truth::Mean)?, config.hold_out_every);
        let mut tests = Vec::new();
        for truth in [Truth::Mean, Truth::Challenge] {
            let films = isbi(&self.data, IsbiSplit::Test1, truth)?;
            tests.push((IsbiSplit::Test1.words().to_owned(), truth.words().to_owned(), films));
        }
        let training = Training {
            data: "ISBI 2015 lateral cephalograms, training films, mean of both readers".to_owned(),
            films: u32::try_from(train.len())?,
            initialisation: self.initialisation.clone(),
            procedure: self.procedure.clone(),
        };
        let publication = Publication {
            name,
            version: &self.bundle_version,
            weights: &weights,
            config: &config,
            training,
            atlas_films: &train,
            validation: &validation,
            tests: &tests,
        };
        publish(&self.out, &publication)?;
        println!("{}", self.out.display());
        Ok(())
    }
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
            Command::Evaluate(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Export(args) => args.run(),
            Command::Agree(args) => args.run(),
        }
    }
}

impl TrainArgs {
    fn config(&self) -> anyhow::Result<TrainConfig> {
        let mut config = if self.resume {
            let path = self.out.join("config.toml");
            let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("{}", path.display()))?
        } else if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("{}", path.display()))?
        } else {
            match TrainConfig::preset(&self.preset) {
                Some(preset) => preset,
                None => bail!("there is no preset {:?}; there is `ceph`", self.preset),
            }
        };
        if let Some(size) = self.size {
            config.frame = crate::geometry::Size::new(size, size);
        }
        config.batch = self.batch.unwrap_or(config.batch);
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.lr = self.lr.unwrap_or(config.lr);
        config.seed = self.seed.unwrap_or(config.seed);
        config.hold_out_every = self.hold_out_every.unwrap_or(config.hold_out_every);
        config.heatmap_relu = self.heatmap_relu.unwrap_or(config.heatmap_relu);
        config.check().map_err(anyhow::Error::msg)?;
        Ok(config)
    }

    #[cfg(not(feature = "torch"))]
    fn run(self) -> anyhow::Result<()> {
        self.config()?;
        bail!(NO_ENGINE)
    }

    #[cfg(feature = "torch")]
    fn run(self) -> anyhow::Result<()> {
        use super::datasets::ISBI_MM_PER_PX;
        use super::{Run, create_folder, load};
        use crate::network::{Engine, EngineOptions, NfdpConfig};

        let config = self.config()?;
        let (train, validation) =
            hold_out_groups(isbi(&self.data, IsbiSplit::Train, self.truth)?, config.hold_out_every);
        tracing::info!("{} films train, {} validate; decoding", train.len(), validation.len());
        let (train, validation) = (load(&train, config.frame)?, load(&validation, config.frame)?);
        let model = NfdpConfig { landmarks: CEPHALOGRAM_NAMES.len(), heatmap_relu: config.heatmap_relu };
        let options = EngineOptions { seed: config.seed, threads: self.threads, average_decay: config.average_decay };
        let mut engine = Engine::new(model, options)?;
        tracing::info!("computing on {} with {} threads", engine.device(), self.threads);
        if let Some(path) = self.init.as_ref().filter(|_| !self.resume) {
            let (weights, _) = checkpoint::read(path)?;
            let given = weights.len();
            // torchvision names the backbone's tensors without a prefix.
            let torchvision = weights.contains_key("conv1.weight");
            let weights = if torchvision {
                weights.into_iter().map(|(name, array)| (format!("backbone.{name}"), array)).collect()
            } else {
                weights
            };
            let taken = engine.load_weights(&weights)?;
            let missing: Vec<&str> = engine.layout().map(|(n, _)| n).filter(|n| !weights.contains_key(*n)).collect();
            tracing::info!("{}: {} of {given} tensors taken; not in it: {missing:?}", path.display(), taken.len());
        }
        if !self.resume {
            create_folder(&self.out, &config)?;
        }
        let run = Run {
            folder: self.out.clone(),
            config,
            train: train.into(),
            validation,
            mm_per_px: ISBI_MM_PER_PX,
            workers: self.workers,
        };
        Ok(run.train(&mut engine, self.resume)?)
    }
}
