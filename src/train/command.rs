//! The command line of `landmark-train`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

use super::TrainConfig;
use super::datasets::Truth;

/// Trains, evaluates and exports landmark localizers.
#[derive(Debug, Parser)]
#[command(name = "landmark-train", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network (needs the feature `torch`).
    Train(TrainArgs),
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

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// With the chain of what went wrong.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Train(args) => args.run(),
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
        bail!(
            "this landmark-train was built without its engine. Get LibTorch with `pip install torch==2.11.0`, set \
             LIBTORCH to its folder (<site-packages>/torch) and build with `--features torch`"
        )
    }

    #[cfg(feature = "torch")]
    fn run(self) -> anyhow::Result<()> {
        use super::datasets::{IsbiSplit, hold_out, isbi};
        use super::{Run, checkpoint, create_folder, load};
        use crate::landmark::CEPHALOGRAM_NAMES;
        use crate::network::{Engine, EngineOptions, NfdpConfig};

        /// The scale of every film of the ISBI set.
        const ISBI_MM_PER_PX: f64 = 0.1;

        let config = self.config()?;
        let (train, validation) = hold_out(isbi(&self.data, IsbiSplit::Train, self.truth)?, config.hold_out_every);
        tracing::info!("{} films train, {} validate; decoding", train.len(), validation.len());
        let (train, validation) = (load(&train, config.frame)?, load(&validation, config.frame)?);
        let model = NfdpConfig { landmarks: CEPHALOGRAM_NAMES.len(), heatmap_relu: config.heatmap_relu };
        let options =
            EngineOptions { seed: config.seed, threads: self.threads, average_decay: config.average_decay };
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
