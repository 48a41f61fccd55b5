//! One training run: epochs, validation, checkpoints, and going on where a killed one stood.
//!
//! A run's folder holds `config.toml` (what it was told), `films.toml` (where its films lie), `machine.toml` (threads and
//! precision), `last.safetensors` (everything a continued run needs), `best.safetensors` (the averaged weights of the best
//! validated epoch) and its record. `last` is there from the first moment on: a run that is killed and continued takes
//! the same steps with the same films as one that is not, and on the same number of CPU threads ends with the same bits.
//! Whatever a kill left half done after `last` was written, the continued run does again. What is saved has been tried:
//! the loss that its weights give is finite.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::batch::FilmPrediction;
use super::checkpoint::{self, CheckpointError, FILMS_FILE, SET_SHA256};
use super::cobb::Angles;
use super::datasets::{DatasetError, LabelledFilm, Source};
use super::loader::{Epoch, LoadedBatch, LoaderConfig, LoaderError, TrainingFilm, plain_batch};
use super::machine::Machine;
use super::metrics::{Summary, radial_errors, summarise};
use super::preset::TrainConfig;
use super::record::{EpochRecord, Record};
use super::schedule::linear_rate;
use crate::geometry::{Frame, LengthUnit, Point, Size};
use crate::measure::MeasureSet;
use crate::network::{Engine, EngineError};
use crate::radiograph::{Film, Limits, decode, reduction_factor};

/// Films a validation batch.
const VALIDATION_BATCH: usize = 4;
const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";
/// In a checkpoint's metadata.
const BEST_SO_FAR: &str = "best_validation";
/// The file that holds what a run was told.
pub const CONFIG_FILE: &str = "config.toml";
/// The file that says with how many threads and how precisely a run computes.
pub const MACHINE_FILE: &str = "machine.toml";

/// A run's folder and what it trains on.
#[derive(Debug)]
pub struct Run {
    /// See the module's description.
    pub folder: PathBuf,
    /// What the run was told.
    pub config: TrainConfig,
    /// Where its films lie.
    pub source: Source,
    /// [`Source::films_sha256`] of all films, those that validate among them.
    pub set_sha256: String,
    /// Names of the landmarks, in the network's order.
    pub landmarks: Vec<String>,
    /// Films to learn from.
    pub train: Arc<Vec<TrainingFilm>>,
    /// Films to choose the checkpoint by.
    pub validation: Vec<TrainingFilm>,
    /// Of the validation's errors.
    pub unit: LengthUnit,
    /// Distances at which detections are counted, in `unit`.
    pub thresholds: Vec<f64>,
    /// Threads and precision.
    pub machine: Machine,
    /// Within an epoch, the longest time between two checkpoints.
    pub checkpoint_interval: Duration,
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
    /// The run's folder is there already.
    #[error(
        "{path} exists, and a run is never overwritten; name another --out, or go on with it by `landmark-train resume`"
    )]
    Exists {
        /// Which folder.
        path: PathBuf,
    },
    /// The checkpoint belongs to another set of films.
    #[error("{path}: the run was trained on {expected} films, there are {found} now; go on with the same data")]
    Films {
        /// The checkpoint.
        path: PathBuf,
        /// Then.
        expected: usize,
        /// Now.
        found: usize,
    },
    /// The checkpoint belongs to other landmarks.
    #[error("{path}: the films now carry the landmarks {found}, not those the run was trained on")]
    Landmarks {
        /// The checkpoint.
        path: PathBuf,
        /// Now.
        found: String,
    },
    /// The checkpoint belongs to the same films with other labels.
    #[error(
        "{path}: the films' names, landmarks, sizes or scales are not those that the run was trained on; put them back, or start a new run from its best.safetensors by --init"
    )]
    Labels {
        /// The checkpoint.
        path: PathBuf,
    },
    /// Another process trains here.
    #[error("{path}: another landmark-train works on this run; wait for its end, or stop it")]
    Busy {
        /// The run's folder.
        path: PathBuf,
    },
    /// Batches are missing.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The landmarks have no sides to exchange.
    #[error("{0}")]
    Mirror(String),
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

/// Where a run stands: what is beside the engine's state in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Position {
    /// The epoch that is being trained, from 0.
    epoch: usize,
    /// Its steps done.
    step: usize,
    /// Sum of its films' losses.
    loss: f64,
    /// Its films so far.
    films: usize,
    /// The best validation so far, by [`Run::choice`].
    best: f64,
}

impl Position {
    const START: Self = Self { epoch: 0, step: 0, loss: 0.0, films: 0, best: f64::INFINITY };

    /// Text that gives back every bit: Rust prints the shortest number that reads as the same.
    fn metadata(self, run: &Run) -> HashMap<String, String> {
        let Self { epoch, step, loss, films, best } = self;
        HashMap::from([
            ("epoch".into(), epoch.to_string()),
            ("step".into(), step.to_string()),
            ("loss".into(), loss.to_string()),
            ("films".into(), films.to_string()),
            (BEST_SO_FAR.into(), best.to_string()),
            ("training_films".into(), run.train.len().to_string()),
            ("films_sha256".into(), run.films_sha256()),
            (SET_SHA256.into(), run.set_sha256.clone()),
            ("landmarks".into(), run.landmarks.join(",")),
            ("config".into(), toml::to_string(&run.config).unwrap_or_default()),
        ])
    }

    fn read(path: &Path, metadata: &HashMap<String, String>) -> Result<Self, CheckpointError> {
        fn value<T: std::str::FromStr>(
            path: &Path,
            metadata: &HashMap<String, String>,
            key: &str,
        ) -> Result<T, CheckpointError> {
            let found = metadata.get(key);
            found.and_then(|text| text.parse().ok()).ok_or_else(|| CheckpointError::Format {
                path: path.to_owned(),
                reason: format!("its metadata says {found:?} of `{key}`, a number was expected"),
            })
        }
        Ok(Self {
            epoch: value(path, metadata, "epoch")?,
            step: value(path, metadata, "step")?,
            loss: value(path, metadata, "loss")?,
            films: value(path, metadata, "films")?,
            // Older runs chose otherwise, under another key: what they call the best is not compared with.
            best: if metadata.contains_key(BEST_SO_FAR) { value(path, metadata, BEST_SO_FAR)? } else { f64::INFINITY },
        })
    }
}

/// Decodes films and keeps them reduced for `frame`; `done` is called after each.
///
/// # Errors
/// When a film cannot be read or decoded; the first such film is named.
pub fn load(films: &[LabelledFilm], frame: Frame, done: impl Fn() + Sync) -> Result<Vec<TrainingFilm>, DatasetError> {
    films
        .par_iter()
        .map(|labelled| {
            let LabelledFilm { name, path, landmarks, visible, mm_per_px, .. } = labelled;
            let bytes = fs::read(path).map_err(|source| DatasetError::Io { path: path.clone(), source })?;
            let radiograph = decode(&bytes, &Limits::default())
                .map_err(|e| DatasetError::Film { path: path.clone(), reason: e.to_string() })?;
            let film = Film::new(&radiograph, reduction_factor(radiograph.size, frame));
            done();
            Ok(TrainingFilm {
                name: name.clone(),
                film,
                landmarks: landmarks.clone(),
                visible: visible.clone(),
                mm_per_px: *mm_per_px,
            })
        })
        .collect()
}

impl Run {
    /// Makes the run's folder with the engine's present state in it, whole or not at all.
    ///
    /// # Errors
    /// When the folder exists already: a run is never overwritten.
    pub fn create(&self, engine: &Engine) -> Result<(), RunError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RunError::Io { path, source }
        };
        if self.folder.exists() {
            return Err(RunError::Exists { path: self.folder.clone() });
        }
        let parent = self.folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(io(parent))?;
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let temporary = parent.join(format!(".{name}.{}.tmp", std::process::id()));
        fs::create_dir(&temporary).map_err(io(&temporary))?;
        for (file, text) in [
            (CONFIG_FILE, toml::to_string(&self.config)),
            (FILMS_FILE, toml::to_string(&self.source)),
            (MACHINE_FILE, toml::to_string(&self.machine)),
        ] {
            let path = temporary.join(file);
            let text = text.map_err(|e| std::io::Error::other(e.to_string())).map_err(io(&path))?;
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            });
            written.map_err(io(&path))?;
        }
        // The checkpoint's writing syncs the folder with them.
        checkpoint::write(&temporary.join(LAST), &engine.state()?, Position::START.metadata(self))?;
        fs::rename(&temporary, &self.folder).map_err(io(&self.folder))?;
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(io(parent))
    }

    /// Trains from where the run's last checkpoint stands to the last epoch.
    ///
    /// # Errors
    /// When the engine, a checkpoint or the folder fails, or the loss is no longer finite.
    pub fn train(&self, engine: &mut Engine) -> Result<(), RunError> {
        let io = |source| RunError::Io { path: self.folder.clone(), source };
        // Until the end of this function; a killed process holds no lock.
        let lock = File::open(self.folder.join(CONFIG_FILE)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RunError::Busy { path: self.folder.clone() }),
            // Not every file system of a network can lock.
            Err(TryLockError::Error(why)) => tracing::debug!("no lock on {}: {why}", self.folder.display()),
        }
        let (state, metadata) = checkpoint::read(&self.last())?;
        engine.load_state(&state)?;
        drop(state);
        let mut at = Position::read(&self.last(), &metadata)?;
        let names = self.landmarks.join(",");
        if metadata.get("landmarks").is_some_and(|then| *then != names) {
            return Err(RunError::Landmarks { path: self.last(), found: names });
        }
        let expected = metadata.get("training_films").and_then(|n| n.parse().ok()).unwrap_or(self.train.len());
        if expected != self.train.len() {
            return Err(RunError::Films { path: self.last(), expected, found: self.train.len() });
        }
        if metadata.get("films_sha256").is_some_and(|then| *then != self.films_sha256()) {
            return Err(RunError::Labels { path: self.last() });
        }
        let TrainConfig { epochs, batch, lr, lr_end_factor, validate_every, .. } = self.config;
        let loader = LoaderConfig {
            seed: self.config.seed,
            frame: self.config.frame,
            batch,
            augment: self.config.augment,
            partners: self.config.mirror_partners(&self.landmarks).map_err(RunError::Mirror)?,
            workers: self.machine.workers,
        };
        let steps = self.train.len() / batch;
        let steps_left = (epochs.saturating_sub(at.epoch) * steps).saturating_sub(at.step);
        let mut record =
            Record::open(&self.folder, at.epoch, at.epoch * steps + at.step, epochs, steps_left).map_err(io)?;
        let started = Instant::now();
        let mut saved = Instant::now();
        while at.epoch < epochs {
            let began = (Instant::now(), at.films);
            let lr = linear_rate(lr, lr_end_factor, at.epoch, epochs);
            let mut batches = Epoch::start(Arc::clone(&self.train), loader.clone(), at.epoch, at.step).map_err(io)?;
            let mut latest = None;
            for loaded in batches.by_ref() {
                let losses = engine.step(&loaded.batch, lr)?;
                self.finite(&losses, &loaded, at.epoch)?;
                at.loss += losses.iter().map(|&l| f64::from(l)).sum::<f64>();
                at.films += losses.len();
                at.step += 1;
                record.step();
                if saved.elapsed() >= self.checkpoint_interval && at.step < steps {
                    self.finite(&engine.trial(&loaded.batch)?, &loaded, at.epoch)?;
                    self.save(engine, at)?;
                    saved = Instant::now();
                }
                latest = Some(loaded);
            }
            batches.finish()?;
            if let Some(loaded) = latest {
                self.finite(&engine.trial(&loaded.batch)?, &loaded, at.epoch)?;
            }
            let films_per_s = (at.films - began.1) as f64 / began.0.elapsed().as_secs_f64();
            let done = at.epoch + 1;
            let validates = done % validate_every == 0 || done == epochs;
            let summary = if validates && !self.validation.is_empty() { Some(self.validate(engine)?) } else { None };
            record
                .epoch(&EpochRecord {
                    epoch: at.epoch,
                    steps: done * steps,
                    lr,
                    loss: at.loss / at.films.max(1) as f64,
                    films_per_s,
                    elapsed_s: started.elapsed().as_secs_f64(),
                    validation: summary.as_ref(),
                })
                .map_err(io)?;
            at = Position { epoch: done, best: at.best, ..Position::START };
            // With nothing held out there is nothing to choose by: the latest weights count as the best.
            if validates && summary.as_ref().is_none_or(|summary| self.choice(summary) < at.best) {
                at.best = summary.map_or(at.best, |summary| self.choice(&summary));
                checkpoint::write(&self.best(), &engine.weights()?, at.metadata(self))?;
            }
            if validates || saved.elapsed() >= self.checkpoint_interval {
                self.save(engine, at)?;
                saved = Instant::now();
            }
        }
        record.finish();
        Ok(())
    }

    /// The exact errors on the validation films.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn validate(&self, engine: &mut Engine) -> Result<Summary, EngineError> {
        let (mut errors, mut angles) = (Vec::new(), Vec::new());
        for films in self.validation.chunks(VALIDATION_BATCH) {
            let predictions = engine.predict(&plain_batch(films, self.config.frame))?;
            for (film, prediction) in films.iter().zip(&predictions) {
                let size = film.film.source;
                let found = source_points(prediction, size, self.config.frame);
                let scale = self.unit.per_px(film.mm_per_px);
                errors.push(radial_errors(&found, &film.landmarks, &film.visible, scale));
                if film.visible.iter().all(|&visible| visible) {
                    angles.extend(Angles::of(&self.landmarks, &film.landmarks, &found, size));
                }
            }
        }
        Ok(summarise(&errors, self.unit, &self.thresholds, &angles))
    }

    /// What an epoch is chosen by, the less the better: of spines the error of their angles, which they are measured for,
    /// else the mean radial error.
    fn choice(&self, summary: &Summary) -> f64 {
        if self.landmarks == MeasureSet::SpineAasce2019.landmarks() {
            // Without a single angle it is the worst epoch, and still better than none.
            summary.smape_percent.unwrap_or(f64::MAX)
        } else {
            summary.mre
        }
    }

    /// # Errors
    /// When a loss on these films is no number.
    fn finite(&self, losses: &[f32], loaded: &LoadedBatch, epoch: usize) -> Result<(), RunError> {
        if losses.iter().all(|loss| loss.is_finite()) {
            return Ok(());
        }
        let films = loaded.films.iter().map(|&i| self.train[i].name.clone()).collect();
        Err(RunError::Diverged { epoch, films, checkpoint: self.last() })
    }

    /// Of every film's name, size, scale and landmarks, bit for bit; not of its pixels.
    fn films_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for TrainingFilm { name, film, landmarks, visible, mm_per_px } in self.train.iter().chain(&self.validation) {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update([film.source.width, film.source.height].map(u32::to_le_bytes).concat());
            hash.update(mm_per_px.unwrap_or_default().to_le_bytes());
            for (Point { x, y }, visible) in landmarks.iter().zip(visible) {
                hash.update([x.to_le_bytes(), y.to_le_bytes()].concat());
                hash.update([u8::from(*visible)]);
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Everything a continued run needs.
    #[must_use]
    pub fn last(&self) -> PathBuf {
        self.folder.join(LAST)
    }

    /// The averaged weights of the best validated epoch.
    #[must_use]
    pub fn best(&self) -> PathBuf {
        self.folder.join(BEST)
    }

    fn save(&self, engine: &Engine, at: Position) -> Result<(), RunError> {
        Ok(checkpoint::write(&self.last(), &engine.state()?, at.metadata(self))?)
    }
}

/// Landmarks of a prediction in source pixels.
#[must_use]
pub fn source_points(prediction: &FilmPrediction, source: Size, frame: Frame) -> Vec<Point> {
    let back = frame.place(source).inverse();
    let [w, h] = [frame.width, frame.height].map(f64::from);
    let point = |&[x, y]: &[f32; 2]| back.apply(Point::new((f64::from(x) + 0.5) * w, (f64::from(y) + 0.5) * h));
    prediction.mu.iter().map(point).collect()
}
