//! How fast films are trained on this machine, and where the time goes.

use std::sync::Arc;
use std::time::Instant;

use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use serde::Serialize;

use super::loader::{Epoch, LoaderConfig, TrainingFilm};
use super::machine::Machine;
use super::preset::TrainConfig;
use super::run::RunError;
use crate::geometry::{Point, Size};
use crate::network::{Engine, StepTimes};
use crate::radiograph::{Film, Format, Radiograph, reduction_factor};

/// Steps that are made before the clock runs: the first ones allocate and choose kernels.
const WARM_UP: usize = 2;
/// Films that are augmented by hand for the time of one.
const AUGMENTED: usize = 8;

/// Figures of one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingSpeed {
    /// "cpu" or "cuda".
    pub device: &'static str,
    /// Threads of one operation.
    pub threads: usize,
    /// Threads that make batches.
    pub workers: usize,
    /// Films a step.
    pub batch: usize,
    /// Frame columns and rows.
    pub frame: Size,
    /// Steps that were timed.
    pub steps: usize,
    /// Films a second, everything included.
    pub films_per_s: f64,
    /// Reading and decoding a film, on one thread; once a run. Only with films at hand.
    pub load_ms_per_film: Option<f64>,
    /// Drawing and rendering an augmented frame, on one thread, beside the engine.
    pub augment_ms_per_film: f64,
    /// Waiting for the next batch: above a few per cent of a step, more workers are needed.
    pub wait_ms_per_step: f64,
    /// From the batch to the loss.
    pub forward_ms_per_step: f64,
    /// To the gradients.
    pub backward_ms_per_step: f64,
    /// Optimiser and moving average.
    pub update_ms_per_step: f64,
}

/// Films of noise, as large as a cephalogram, with `landmarks` landmarks each.
#[must_use]
pub fn noise_films(count: usize, landmarks: usize, config: &TrainConfig) -> Vec<TrainingFilm> {
    let size = Size::new(1935, 2400);
    let film = |i: usize| {
        let pixels = (0..size.area()).map(|p| (p * 40_503 + 977 * i as u64) as u16).collect();
        let radiograph = Radiograph::gray(Format::Png, size, pixels);
        let point = |k: usize| Point::new(300.0 + (k * 61 % 1300) as f64, 300.0 + (k * 97 % 1700) as f64);
        TrainingFilm {
            name: format!("noise {i}"),
            film: Film::new(&radiograph, reduction_factor(size, config.frame)),
            landmarks: (0..landmarks).map(point).collect(),
            visible: vec![true; landmarks],
            mm_per_px: None,
        }
    };
    (0..count).map(film).collect()
}

/// Trains `steps` steps on `films`, whose landmarks become `partners` where they are mirrored, and says how fast;
/// `load_ms` is passed through.
///
/// # Errors
/// When the engine fails or no thread can be started.
pub fn training_speed(
    engine: &mut Engine,
    films: Vec<TrainingFilm>,
    partners: Option<Arc<[usize]>>,
    config: &TrainConfig,
    machine: Machine,
    steps: usize,
    load_ms_per_film: Option<f64>,
) -> Result<TrainingSpeed, RunError> {
    let augment_ms_per_film = augment_ms(&films, config);
    let Machine { threads, workers, .. } = machine;
    let batch = config.batch;
    let loader = LoaderConfig { seed: 0, frame: config.frame, batch, augment: config.augment, partners, workers };
    let films = Arc::new(films);
    let (mut made, mut sums, mut waited, mut started) = (0, StepTimes::default(), 0.0, Instant::now());
    let mut epoch = 0;
    'all: loop {
        let mut batches = Epoch::start(Arc::clone(&films), loader.clone(), epoch, 0)
            .map_err(|source| RunError::Io { path: "loader".into(), source })?;
        loop {
            let asked = Instant::now();
            let Some(loaded) = batches.next() else { break };
            let wait = asked.elapsed().as_secs_f64();
            let (_, times) = engine.timed_step(&loaded.batch, 1e-5)?;
            made += 1;
            if made == WARM_UP {
                started = Instant::now();
            } else if made > WARM_UP {
                waited += wait;
                sums.forward += times.forward;
                sums.backward += times.backward;
                sums.update += times.update;
            }
            if made == WARM_UP + steps {
                break 'all;
            }
        }
        epoch += 1;
    }
    let ms = |seconds: f64| 1e3 * seconds / steps as f64;
    Ok(TrainingSpeed {
        device: engine.device(),
        threads,
        workers,
        batch,
        frame: config.frame.size(),
        steps,
        films_per_s: (steps * batch) as f64 / started.elapsed().as_secs_f64(),
        load_ms_per_film,
        augment_ms_per_film,
        wait_ms_per_step: ms(waited),
        forward_ms_per_step: ms(sums.forward),
        backward_ms_per_step: ms(sums.backward),
        update_ms_per_step: ms(sums.update),
    })
}

fn augment_ms(films: &[TrainingFilm], config: &TrainConfig) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut pixels = Vec::new();
    let started = Instant::now();
    for film in films.iter().cycle().take(AUGMENTED) {
        pixels.clear();
        let augmentation = config.augment.draw(&mut rng, film.film.source, config.frame);
        augmentation.render(&film.film, config.frame.size(), &mut pixels);
    }
    1e3 * started.elapsed().as_secs_f64() / AUGMENTED as f64
}

impl std::fmt::Display for TrainingSpeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, threads, workers, batch, frame, steps, films_per_s, .. } = self;
        writeln!(
            f,
            "{films_per_s:.2} films/s on {device}: {threads} threads, {workers} workers, frame {frame}, batch {batch}, \
             {steps} steps\n"
        )?;
        for (what, value, of) in [
            ("load", self.load_ms_per_film, "film, once a run"),
            ("augment", Some(self.augment_ms_per_film), "film, beside the engine"),
            ("wait for a batch", Some(self.wait_ms_per_step), "step"),
            ("forward", Some(self.forward_ms_per_step), "step"),
            ("backward", Some(self.backward_ms_per_step), "step"),
            ("update", Some(self.update_ms_per_step), "step"),
        ] {
            if let Some(value) = value {
                writeln!(f, "{what:<18}{value:>10.1} ms a {of}")?;
            }
        }
        Ok(())
    }
}
