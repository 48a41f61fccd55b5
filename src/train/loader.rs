//! Augmented batches, made on their own threads; what they hold does not depend on how many threads there are.

use std::sync::Arc;
use std::thread::JoinHandle;

use chacha20::ChaCha8Rng;
use crossbeam_channel::{Receiver, bounded};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::augment::AugmentConfig;
use super::batch::Batch;
use crate::geometry::{Frame, Point, Size};
use crate::radiograph::Film;

/// Batches that may wait for the engine.
const READY_BATCHES: usize = 2;

/// A film in memory with its true landmarks.
#[derive(Clone, Debug)]
pub struct TrainingFilm {
    /// Its name in the data set.
    pub name: String,
    /// Reduced for the frame it is trained in.
    pub film: Film,
    /// In source pixels.
    pub landmarks: Vec<Point>,
    /// Which of them are known.
    pub visible: Vec<bool>,
    /// The side of a source pixel, where it is known.
    pub mm_per_px: Option<f64>,
}

/// What a loader yields: a batch and which films it holds.
#[derive(Debug)]
pub struct LoadedBatch {
    /// For the engine.
    pub batch: Batch,
    /// Indices into the films.
    pub films: Vec<usize>,
}

/// How batches are drawn.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Of shuffling and augmentation.
    pub seed: u64,
    /// The network's input.
    pub frame: Frame,
    /// Films a batch; the rest of an epoch that does not fill one is left out of it.
    pub batch: usize,
    /// Ranges of the augmentation.
    pub augment: AugmentConfig,
    /// The landmark that each becomes on a mirrored film; `None` where no film is mirrored.
    pub partners: Option<Arc<[usize]>>,
    /// Threads.
    pub workers: usize,
}

/// One epoch's batches, in an order and with an augmentation that follow from (seed, epoch, film) alone.
#[derive(Debug)]
pub struct Epoch {
    batches: Receiver<LoadedBatch>,
    producer: JoinHandle<()>,
}

/// The thread that makes batches ended before the epoch did.
#[derive(Debug, thiserror::Error)]
#[error("the making of batches failed; a fault of landmark-train, which its words above tell more of")]
pub struct LoaderError;

impl Epoch {
    /// Starts making the batches of `epoch`, without the first `skipped` ones.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        films: Arc<Vec<TrainingFilm>>,
        config: LoaderConfig,
        epoch: usize,
        skipped: usize,
    ) -> std::io::Result<Self> {
        let (sender, batches) = bounded(READY_BATCHES);
        let producer = std::thread::Builder::new().name("loader".into()).spawn(move || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(config.workers.max(1)).build();
            let order = shuffled(films.len(), config.seed, epoch);
            for chosen in order.chunks_exact(config.batch).skip(skipped) {
                let make = || training_batch(&films, chosen, &config, epoch);
                let batch = pool.as_ref().map_or_else(|_| make(), |pool| pool.install(make));
                if sender.send(LoadedBatch { batch, films: chosen.to_vec() }).is_err() {
                    return; // The run ended early; nobody waits for the rest.
                }
            }
        })?;
        Ok(Self { batches, producer })
    }

    /// To be called once no batch comes any more.
    ///
    /// # Errors
    /// When batches are missing, because the thread that makes them panicked.
    pub fn finish(self) -> Result<(), LoaderError> {
        drop(self.batches);
        self.producer.join().map_err(|_| LoaderError)
    }
}

impl Iterator for Epoch {
    type Item = LoadedBatch;

    fn next(&mut self) -> Option<LoadedBatch> {
        self.batches.recv().ok()
    }
}

/// The films without augmentation, as the device sees them.
#[must_use]
pub fn plain_batch(films: &[TrainingFilm], frame: Frame) -> Batch {
    let mut batch = Batch { frame: frame.size(), pixels: Vec::new(), targets: Vec::new(), visible: Vec::new() };
    for film in films {
        let map = frame.place(film.film.source);
        batch.pixels.extend(film.film.warp(&map, frame.size()).pixels);
        push_targets(&mut batch, film, None, |p| map.apply(p));
    }
    batch
}

fn training_batch(films: &[TrainingFilm], chosen: &[usize], config: &LoaderConfig, epoch: usize) -> Batch {
    let frame = config.frame;
    let drawn: Vec<(Vec<u8>, _)> = chosen
        .par_iter()
        .map(|&index| {
            let mut rng = film_rng(config.seed, epoch, index);
            let augmentation = config.augment.draw(&mut rng, films[index].film.source, frame);
            let mut pixels = Vec::with_capacity(frame.size().area() as usize);
            augmentation.render(&films[index].film, frame.size(), &mut pixels);
            (pixels, augmentation)
        })
        .collect();
    let mut batch = Batch { frame: frame.size(), pixels: Vec::new(), targets: Vec::new(), visible: Vec::new() };
    for (&index, (pixels, augmentation)) in chosen.iter().zip(drawn) {
        batch.pixels.extend(pixels);
        let partners = augmentation.mirrored.and(config.partners.as_deref());
        push_targets(&mut batch, &films[index], partners, |p| augmentation.apply(p));
    }
    batch
}

/// The film's landmarks in the batch's frame; of a mirrored one, in the place of each its partner of the other side.
fn push_targets(batch: &mut Batch, film: &TrainingFilm, partners: Option<&[usize]>, to_frame: impl Fn(Point) -> Point) {
    for landmark in 0..film.landmarks.len() {
        let landmark = partners.map_or(landmark, |partners| partners[landmark]);
        let visible = film.visible[landmark];
        let p = to_frame(film.landmarks[landmark]);
        let Size { width, height } = batch.frame;
        batch.targets.push((p.x / f64::from(width) - 0.5) as f32);
        batch.targets.push((p.y / f64::from(height) - 0.5) as f32);
        batch.visible.push(if visible && batch.frame.contains(p) { 1.0 } else { 0.0 });
    }
}

fn shuffled(films: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..films).collect();
    order.shuffle(&mut film_rng(seed, epoch, usize::MAX));
    order
}

/// A generator of its own for each (seed, epoch, film).
fn film_rng(seed: u64, epoch: usize, film: usize) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(epoch as u64).to_le_bytes());
    key[16..24].copy_from_slice(&(film as u64).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::{Format, Radiograph};

    fn films(n: u32) -> Arc<Vec<TrainingFilm>> {
        let size = Size::new(60, 80);
        let film = |i: u32| {
            let pixels = (0..size.area() as u32).map(|p| (p * 13 + i * 997) as u16).collect();
            let radiograph = Radiograph::gray(Format::Png, size, pixels);
            TrainingFilm {
                name: i.to_string(),
                film: Film::new(&radiograph, 1),
                landmarks: vec![Point::new(5.0, 70.0), Point::new(30.0, 40.0)],
                visible: vec![true, true],
                mm_per_px: None,
            }
        };
        Arc::new((0..n).map(film).collect())
    }

    fn config(workers: usize) -> LoaderConfig {
        let augment = AugmentConfig::default();
        LoaderConfig { seed: 7, frame: Frame::new(64, 64), batch: 3, augment, partners: None, workers }
    }

    #[test]
    fn the_batches_do_not_depend_on_the_number_of_threads() {
        let run = |workers| -> Vec<_> {
            let epoch = Epoch::start(films(10), config(workers), 4, 0).expect("a thread");
            epoch.map(|b| (b.films, b.batch.pixels, b.batch.targets, b.batch.visible)).collect()
        };
        assert_eq!(run(1), run(4));
    }

    #[test]
    fn a_continued_epoch_is_the_rest_of_the_whole_one() {
        let run = |skipped| -> Vec<_> {
            let epoch = Epoch::start(films(10), config(2), 1, skipped).expect("a thread");
            epoch.map(|b| (b.films, b.batch.pixels)).collect()
        };
        assert_eq!(run(1), run(0)[1..]);
        assert_eq!(run(3), []);
    }

    #[test]
    fn an_epoch_that_breaks_off_is_an_error_and_no_short_epoch() {
        let mut whole = Epoch::start(films(10), config(1), 0, 0).expect("a thread");
        assert_eq!(whole.by_ref().count(), 3);
        assert!(whole.finish().is_ok());
        // No share of films; a configuration with it is refused before.
        let augment = AugmentConfig { crop_probability: 1.5, ..AugmentConfig::default() };
        let mut broken = Epoch::start(films(10), LoaderConfig { augment, ..config(1) }, 0, 0).expect("a thread");
        assert_eq!(broken.by_ref().count(), 0);
        assert!(broken.finish().is_err());
    }

    #[test]
    fn an_epoch_shows_each_film_at_most_once_and_epochs_differ() {
        let epoch = |n| -> Vec<usize> {
            Epoch::start(films(10), config(1), n, 0).expect("a thread").flat_map(|b| b.films).collect()
        };
        let first = epoch(0);
        let mut seen = first.clone();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((first.len(), seen.len()), (9, 9));
        assert_ne!(first, epoch(1));
    }

    #[test]
    fn on_a_mirrored_film_the_left_landmark_is_the_right_one() {
        let plain = AugmentConfig {
            crop_probability: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            scale: [1.0, 1.0],
            rotation_deg: 0.0,
            shift: 0.0,
            ..AugmentConfig::default()
        };
        let batch = |mirror| {
            let augment = AugmentConfig { mirror, ..plain };
            let config = LoaderConfig { augment, partners: Some([1, 0].into()), ..config(1) };
            training_batch(&films(1), &[0], &config, 0)
        };
        let (plain, mirrored) = (batch(0.0), batch(1.0));
        let x = |batch: &Batch, landmark: usize| (batch.targets[2 * landmark] + 0.5) * 64.0;
        let y = |batch: &Batch, landmark: usize| batch.targets[2 * landmark + 1];
        for (left, right) in [(0, 1), (1, 0)] {
            assert!((x(&mirrored, left) - (63.0 - x(&plain, right))).abs() < 1e-4);
            assert_eq!(y(&mirrored, left), y(&plain, right));
        }
        let row = |batch: &Batch| batch.pixels[64 * 30..64 * 31].to_vec();
        let mut reversed = row(&mirrored);
        reversed.reverse();
        assert_eq!(reversed, row(&plain));
        assert_ne!(row(&mirrored), row(&plain));
    }

    #[test]
    fn a_landmark_outside_the_frame_has_no_weight() {
        let mut batch =
            Batch { frame: Size::new(64, 64), pixels: Vec::new(), targets: Vec::new(), visible: Vec::new() };
        push_targets(&mut batch, &films(1)[0], None, |p| Point::new(p.x * 2.0, p.y));
        assert_eq!(batch.visible, [0.0, 1.0]);
        assert!((batch.targets[2] - (60.0 / 64.0 - 0.5)).abs() < 1e-6);
    }
}
