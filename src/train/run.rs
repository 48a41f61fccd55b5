//! One training run: epochs, validation, checkpoints and a record a person can read.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use super::batch::FilmPrediction;
use super::checkpoint::{self, CheckpointError};
use super::datasets::{DatasetError, LabelledFilm};
use super::loader::{Epoch, LoaderConfig, TrainingFilm, plain_batch};
use super::metrics::{CEPHALOGRAM_THRESHOLDS_MM, Summary, radial_errors_mm, summarise};
use super::preset::TrainConfig;
use super::schedule::linear_rate;
use crate::geometry::{Point, Size, nfdp_frame};
use crate::network::{Engine, EngineError};
use crate::radiograph::{Film, Limits, decode, reduction_factor};

/// Films a validation batch.
const VALIDATION_BATCH: usize = 4;

/// A run's folder and what it trains on.
#[derive(Debug)]
pub struct Run {
    /// Holds `config.toml`, `metrics.csv`, `last.safetensors` (everything) and `best.safetensors` (averaged weights).
    pub folder: PathBuf,
    /// What the run was told.
    pub config: TrainConfig,
    /// Films to learn from.
    pub train: Arc<Vec<TrainingFilm>>,
    /// Films to choose the checkpoint by.
    pub validation: Vec<TrainingFilm>,
    /// Millimetres a source pixel, the same for every film of the set.
    pub mm_per_px: f64,
    /// Threads that make batches.
    pub workers: usize,
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A film could not be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The run's folder could not be written.
    #[error("{path}: {source}")]
    Io {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The loss is no number any more.
    #[error("the loss is not finite in epoch {epoch} on films {films:?}; the last good state is {checkpoint}")]
    Diverged {
        /// The epoch, from 0.
        epoch: usize,
        /// The films of the batch.
        films: Vec<String>,
        /// Where to go on from.
        checkpoint: PathBuf,
    },
}

/// Decodes films and keeps them reduced for `frame`.
///
/// # Errors
/// When a film cannot be read or decoded; the first such film is named.
pub fn load(films: &[LabelledFilm], frame: Size) -> Result<Vec<TrainingFilm>, DatasetError> {
    films
        .par_iter()
        .map(|labelled| {
            let LabelledFilm { name, path, landmarks, visible, .. } = labelled;
            let bytes = fs::read(path).map_err(|source| DatasetError::Io { path: path.clone(), source })?;
            let radiograph = decode(&bytes, &Limits::default())
                .map_err(|e| DatasetError::Film { path: path.clone(), reason: e.to_string() })?;
            let film = Film::new(&radiograph, reduction_factor(radiograph.size, frame));
            Ok(TrainingFilm { name: name.clone(), film, landmarks: landmarks.clone(), visible: visible.clone() })
        })
        .collect()
}

impl Run {
    /// Trains from the engine's present state, or from the run's last checkpoint if `resume`.
    ///
    /// # Errors
    /// When the engine, a checkpoint or the folder fails, or the loss is no longer finite.
    pub fn train(&self, engine: &mut Engine, resume: bool) -> Result<(), RunError> {
        let mut first = 0;
        let mut best = f64::INFINITY;
        if resume {
            let (state, metadata) = checkpoint::read(&self.last())?;
            engine.load_state(&state)?;
            let number = |key: &str| metadata.get(key).and_then(|v| v.parse::<f64>().ok());
            first = number("epochs_done").unwrap_or(0.0) as usize;
            best = number("best_mre_mm").unwrap_or(f64::INFINITY);
        }
        let loader = LoaderConfig {
            seed: self.config.seed,
            frame: self.config.frame,
            batch: self.config.batch,
            augment: self.config.augment,
            workers: self.workers,
        };
        let started = Instant::now();
        let steps = self.train.len() / self.config.batch;
        let bar = progress(((self.config.epochs - first) * steps) as u64);
        for epoch in first..self.config.epochs {
            let began = Instant::now();
            let lr = linear_rate(self.config.lr, self.config.lr_end_factor, epoch, self.config.epochs);
            let batches = Epoch::start(Arc::clone(&self.train), loader, epoch)
                .map_err(|source| RunError::Io { path: self.folder.clone(), source })?;
            let (mut sum, mut films) = (0f64, 0usize);
            for loaded in batches {
                let losses = engine.step(&loaded.batch, lr)?;
                if losses.iter().any(|l| !l.is_finite()) {
                    let films = loaded.films.iter().map(|&i| self.train[i].name.clone()).collect();
                    return Err(RunError::Diverged { epoch, films, checkpoint: self.last() });
                }
                sum += losses.iter().map(|&l| f64::from(l)).sum::<f64>();
                films += losses.len();
                bar.inc(1);
            }
            let speed = films as f64 / began.elapsed().as_secs_f64();
            let done = epoch + 1;
            let keeps = done % self.config.validate_every == 0 || done == self.config.epochs;
            let summary = if keeps && !self.validation.is_empty() { Some(self.validate(engine)?) } else { None };
            let loss = sum / films.max(1) as f64;
            self.record(epoch, lr, loss, speed, started.elapsed(), summary.as_ref(), &bar)?;
            if keeps {
                // With nothing held out there is nothing to choose by: the latest weights count as the best.
                if summary.as_ref().is_none_or(|summary| summary.mre_mm < best) {
                    best = summary.map_or(best, |summary| summary.mre_mm);
                    checkpoint::write(&self.best(), &engine.weights()?, self.metadata(done, best))?;
                }
                checkpoint::write(&self.last(), &engine.state()?, self.metadata(done, best))?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The exact errors on the validation films, in source pixels and millimetres.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn validate(&self, engine: &mut Engine) -> Result<Summary, EngineError> {
        let mut errors = Vec::new();
        for films in self.validation.chunks(VALIDATION_BATCH) {
            let predictions = engine.predict(&plain_batch(films, self.config.frame))?;
            for (film, prediction) in films.iter().zip(&predictions) {
                let found = source_points(prediction, film.film.source, self.config.frame);
                errors.push(radial_errors_mm(&found, &film.landmarks, self.mm_per_px));
            }
        }
        Ok(summarise(&errors, &CEPHALOGRAM_THRESHOLDS_MM))
    }

    /// Everything of the last validated epoch.
    #[must_use]
    pub fn last(&self) -> PathBuf {
        self.folder.join("last.safetensors")
    }

    /// The averaged weights of the best validated epoch.
    #[must_use]
    pub fn best(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }

    fn metadata(&self, epochs_done: usize, best: f64) -> HashMap<String, String> {
        HashMap::from([
            ("epochs_done".into(), epochs_done.to_string()),
            ("best_mre_mm".into(), best.to_string()),
            ("config".into(), toml::to_string(&self.config).unwrap_or_default()),
        ])
    }

    #[expect(clippy::too_many_arguments, reason = "one column of the record each")]
    fn record(
        &self,
        epoch: usize,
        lr: f64,
        loss: f64,
        films_per_s: f64,
        elapsed: Duration,
        summary: Option<&Summary>,
        bar: &ProgressBar,
    ) -> Result<(), RunError> {
        let path = self.folder.join("metrics.csv");
        let io = |source| RunError::Io { path: path.clone(), source };
        let fresh = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
        if fresh {
            writeln!(file, "epoch,lr,loss,films_per_s,elapsed_s,val_mre_mm,val_sdr2_percent").map_err(io)?;
        }
        let measured = summary.map_or_else(|| ",".to_owned(), |s| format!("{:.4},{:.2}", s.mre_mm, s.sdr_percent[0].1));
        let seconds = elapsed.as_secs_f64();
        writeln!(file, "{epoch},{lr:.6e},{loss:.4},{films_per_s:.2},{seconds:.0},{measured}").map_err(io)?;
        let validated = summary.map_or_else(String::new, |s| format!(", validation: {s}"));
        let epochs = self.config.epochs;
        let line = format!("epoch {}/{epochs}: loss {loss:.3}, {films_per_s:.2} films/s{validated}", epoch + 1);
        if bar.is_hidden() {
            tracing::info!("{line}");
        } else {
            bar.println(line);
        }
        Ok(())
    }
}

/// Landmarks of a prediction in source pixels.
#[must_use]
pub fn source_points(prediction: &FilmPrediction, source: Size, frame: Size) -> Vec<Point> {
    let back = nfdp_frame(source, frame).inverse();
    let [w, h] = [frame.width, frame.height].map(f64::from);
    let point = |&[x, y]: &[f32; 2]| back.apply(Point::new((f64::from(x) + 0.5) * w, (f64::from(y) + 0.5) * h));
    prediction.mu.iter().map(point).collect()
}

/// Makes the run's folder and writes down what it was told.
///
/// # Errors
/// When the folder exists already: a run is never overwritten.
pub fn create_folder(folder: &Path, config: &TrainConfig) -> Result<(), RunError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::Io { path, source }
    };
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    fs::create_dir(folder).map_err(io(folder))?;
    let path = folder.join("config.toml");
    fs::write(&path, toml::to_string(config).unwrap_or_default()).map_err(io(&path))
}

fn progress(steps: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32} step {pos}/{len}, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style)
}
