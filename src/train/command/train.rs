//! `landmark-train train` and `resume`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::EngineArgs;
use super::source::SourceArgs;
use crate::train::TrainConfig;
#[cfg(feature = "torch")]
use {
    crate::geometry::LengthUnit,
    crate::network::Engine,
    crate::train::datasets::Source,
    crate::train::{CONFIG_FILE, FILMS_FILE, MACHINE_FILE, Machine, Run, initial_weights, load, plain_batch},
    std::time::Duration,
};

/// Films whose statistics stand for those that a bundle's normalization was folded by.
#[cfg(feature = "torch")]
const UNFOLDING_FILMS: usize = 12;

/// What `landmark-train train` is told.
#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    films: SourceArgs,
    /// The run's folder; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// A preset by name: `ceph`, `hand`, `spine` or `spine-regression`.
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
    /// Every nth group of films (a patient, a case) validates; 0 trains on all, and makes no bundle.
    #[arg(long)]
    hold_out_every: Option<usize>,
    /// Whether logits are clamped at zero before the softmax, as in the paper's code.
    #[arg(long)]
    heatmap_relu: Option<bool>,
    /// What to start from: a run's `best.safetensors`, or a bundle's directory.
    #[arg(long, conflicts_with = "pretrained")]
    init: Option<PathBuf>,
    /// A torchvision ResNet-18 for the backbone, whole or in part: `.safetensors` or `.pth`.
    #[arg(long)]
    pretrained: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// What `landmark-train resume` is told.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The run's folder; its own configuration and films hold.
    run: PathBuf,
    #[command(flatten)]
    machine: MachineArgs,
}

/// What has no part in the result but its speed (and, threads and precision, its last bits, so that a run keeps them).
#[derive(Clone, Copy, Debug, Args)]
struct MachineArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Within a long epoch, minutes between two checkpoints.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    checkpoint_minutes: f64,
}

fn minutes(text: &str) -> Result<f64, String> {
    // A year: what is longer, infinity among it, is no length of time that a clock counts.
    let allowed = 0.0..=525_600.0;
    let minutes = text.parse().ok().filter(|minutes| allowed.contains(minutes));
    minutes.ok_or_else(|| "expected 0 to 525600 minutes".to_owned())
}

fn toml_file<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{}", path.display()))
}

impl TrainArgs {
    fn config(&self) -> anyhow::Result<TrainConfig> {
        let mut config: TrainConfig = match &self.config {
            Some(path) => toml_file(path)?,
            None => super::preset(&self.preset)?,
        };
        config.frame = super::with_side(config.frame, self.size);
        config.batch = self.batch.unwrap_or(config.batch);
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.lr = self.lr.unwrap_or(config.lr);
        config.seed = self.seed.unwrap_or(config.seed);
        config.hold_out_every = self.hold_out_every.unwrap_or(config.hold_out_every);
        config.heatmap_relu = self.heatmap_relu.unwrap_or(config.heatmap_relu);
        let told = config.check().map_err(anyhow::Error::msg);
        match &self.config {
            Some(path) => told.with_context(|| format!("{}", path.display()))?,
            None => told?,
        }
        Ok(config)
    }

    #[cfg(not(feature = "torch"))]
    pub(super) fn run(self) -> anyhow::Result<()> {
        self.config()?;
        bail!(super::NO_ENGINE)
    }

    #[cfg(feature = "torch")]
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.config()?;
        if self.out.exists() {
            bail!(
                "{} exists, and a run is never overwritten; name another --out, or go on with it by `landmark-train \
                 resume`",
                self.out.display()
            );
        }
        let mut source = self.films.source();
        // The run may be gone on with from any folder.
        source.root = source.root.canonicalize().with_context(|| format!("{}", source.root.display()))?;
        if let Some(labels) = &mut source.labels {
            *labels = labels.canonicalize().with_context(|| format!("{}", labels.display()))?;
        }
        let MachineArgs { engine, checkpoint_minutes } = self.machine;
        let machine = engine.over(Machine::default());
        let (run, mut engine) = prepare(config, source, self.out.clone(), machine, checkpoint_minutes)?;
        if let Some(path) = self.init.as_ref().or(self.pretrained.as_ref()) {
            start_from(path, self.pretrained.is_some(), &run, &mut engine)?;
        }
        run.create(&engine)?;
        Ok(run.train(&mut engine)?)
    }
}

impl ResumeArgs {
    #[cfg(not(feature = "torch"))]
    pub(super) fn run(self) -> anyhow::Result<()> {
        bail!("going on with {}: {}", self.run.display(), super::NO_ENGINE)
    }

    #[cfg(feature = "torch")]
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config: TrainConfig = toml_file(&self.run.join(CONFIG_FILE))?;
        config
            .check()
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{}", self.run.join(CONFIG_FILE).display()))?;
        let source = toml_file(&self.run.join(FILMS_FILE))?;
        let MachineArgs { engine, checkpoint_minutes } = self.machine;
        let machine = engine.over(machine_of(&self.run)?);
        let (run, mut engine) = prepare(config, source, self.run, machine, checkpoint_minutes)?;
        Ok(run.train(&mut engine)?)
    }
}

/// What the run in `folder` computes with; runs of before it was kept had one thread unless more were named.
#[cfg(feature = "torch")]
fn machine_of(folder: &Path) -> anyhow::Result<Machine> {
    let path = folder.join(MACHINE_FILE);
    if path.exists() { toml_file(&path) } else { Ok(Machine { threads: 1, workers: 1, ..Machine::default() }) }
}

/// Reads and decodes the films and makes an engine with fresh weights.
#[cfg(feature = "torch")]
fn prepare(
    config: TrainConfig,
    source: Source,
    folder: PathBuf,
    machine: Machine,
    checkpoint_minutes: f64,
) -> anyhow::Result<(Run, Engine)> {
    let (dataset, validation) = source.training(config.hold_out_every)?;
    for note in &dataset.notes {
        tracing::warn!("{note}");
    }
    config.mirror_partners(&dataset.landmarks).map_err(anyhow::Error::msg)?;
    if config.hold_out_every == 0 {
        tracing::warn!(
            "no film is held out (hold_out_every = 0): the last epoch counts as the best, and the run makes no bundle, whose \
             sigma needs films that were not learnt"
        );
    }
    let films = dataset.films.len();
    if films < config.batch {
        bail!("{films} films train, fewer than a batch of {}; lower `batch`", config.batch);
    }
    tracing::info!("{films} films train, {} validate; decoding", validation.len());
    let set_sha256 = source.films_sha256(dataset.films.iter().chain(&validation));
    let unit = LengthUnit::of(dataset.films.iter().chain(&validation));
    let progress = super::Progress::over(films + validation.len());
    let load = |films: &[_]| load(films, config.frame, || progress.step());
    let (train, validation) = (load(&dataset.films)?, load(&validation)?);
    progress.finish();
    let engine = super::engine(machine, &config, dataset.landmarks.len())?;
    tracing::info!("computing on {} with {} threads", engine.device(), machine.threads);
    let run = Run {
        folder,
        landmarks: dataset.landmarks,
        train: train.into(),
        validation,
        unit,
        thresholds: unit.thresholds(source.layout).to_vec(),
        machine,
        checkpoint_interval: Duration::from_secs_f64(60.0 * checkpoint_minutes),
        source,
        set_sha256,
        config,
    };
    Ok((run, engine))
}

/// Takes what fits from a run, a bundle or a torchvision file, and says what did not.
#[cfg(feature = "torch")]
fn start_from(path: &Path, backbone_alone: bool, run: &Run, engine: &mut Engine) -> anyhow::Result<()> {
    let initial = initial_weights(path, &run.config.architecture(run.landmarks.len()))?;
    let taken = engine.load_weights(&initial.weights)?;
    let fresh: Vec<&str> = engine
        .layout()
        .map(|(name, _)| name)
        .filter(|name| !taken.iter().any(|t| t == name))
        .filter(|name| !backbone_alone || name.starts_with("backbone."))
        .collect();
    let unused: Vec<&String> = initial.weights.keys().filter(|name| !taken.contains(name)).collect();
    tracing::info!(
        "{}: {} of {} tensors taken; initialised afresh: {fresh:?}; not used: {unused:?}",
        path.display(),
        taken.len(),
        initial.weights.len() + initial.skipped.len()
    );
    if !initial.skipped.is_empty() {
        tracing::info!("of another type than a float, skipped: {:?}", initial.skipped);
    }
    if taken.is_empty() {
        bail!("{} holds no tensor that fits this network", path.display());
    }
    if initial.folded {
        // The deployed network has its normalization folded in: take it out again, by what films give.
        let films = &run.train[..run.train.len().min(UNFOLDING_FILMS)];
        engine.unfold(&plain_batch(films, run.config.frame))?;
    }
    Ok(())
}
