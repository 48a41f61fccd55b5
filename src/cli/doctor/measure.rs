//! The network on the golden film, again and again, with an eye on the machine meanwhile.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::bench::Percentiles;
use crate::inference::Localizer;
use crate::landmark::Landmark;
use crate::radiograph::Radiograph;
use crate::report::ThrottleCause;
use crate::telemetry::{Prober, Root};

/// Between two looks at the machine.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// A network's runs on one film.
pub(super) struct Runs {
    /// What it found, the last time.
    pub(super) landmarks: Vec<Landmark>,
    pub(super) facts: RunFacts,
}

/// What is told of them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RunFacts {
    /// What computed.
    pub(super) backend: String,
    /// How often; once more before that does not count.
    pub(super) runs: u16,
    /// The network alone, in milliseconds.
    pub(super) latency_ms: Percentiles,
    pub(super) machine: Load,
}

/// The machine while it worked; what it does not tell is absent.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Load {
    /// How often it was looked at.
    pub(super) looks: u32,
    /// What the module drew on average, in milliwatts.
    pub(super) mean_mw: Option<u64>,
    /// The most that it drew.
    pub(super) most_mw: Option<u64>,
    /// Its hottest place at its hottest, in degrees Celsius.
    pub(super) hottest_c: Option<f64>,
    /// Why it slowed itself down.
    pub(super) throttled_by: BTreeSet<ThrottleCause>,
    #[serde(skip)]
    sum_mw: (u64, u64),
}

/// Localizes the film `runs` times, and says before each that it begins.
///
/// # Errors
/// The network's own words.
pub(super) fn measure(
    localizer: &mut Localizer,
    film: &Radiograph,
    runs: u16,
    root: &Root,
    begins: impl Fn(),
) -> Result<Runs, String> {
    let (stop, stopped) = channel::<()>();
    thread::scope(|scope| {
        let watch = thread::Builder::new().spawn_scoped(scope, move || {
            let (mut prober, mut load) = (Prober::new(root.clone()), Load::default());
            loop {
                load.add(&mut prober);
                if stopped.recv_timeout(LOOK_PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return load;
                }
            }
        });
        let ran = run(localizer, film, runs, begins);
        drop(stop);
        // Without the thread nothing is known of the machine meanwhile.
        let machine = watch.ok().and_then(|watch| watch.join().ok()).unwrap_or_default();
        let (landmarks, times_ms) = ran?;
        let (backend, latency_ms) = (localizer.backend().to_owned(), Percentiles::of(&times_ms));
        Ok(Runs { landmarks, facts: RunFacts { backend, runs, latency_ms, machine } })
    })
}

fn run(
    localizer: &mut Localizer,
    film: &Radiograph,
    runs: u16,
    begins: impl Fn(),
) -> Result<(Vec<Landmark>, Vec<f64>), String> {
    begins();
    let mut landmarks = localizer.localize(film).map_err(|e| e.to_string())?.landmarks;
    let mut times_ms = Vec::new();
    for _ in 0..runs {
        begins();
        let found = localizer.localize(film).map_err(|e| e.to_string())?;
        times_ms.push(found.inference_time.as_secs_f64() * 1e3);
        landmarks = found.landmarks;
    }
    Ok((landmarks, times_ms))
}

impl Load {
    fn add(&mut self, prober: &mut Prober) {
        let machine = prober.look();
        self.looks += 1;
        if let Some(input) = machine.drawn_mw() {
            self.sum_mw = (self.sum_mw.0 + input, self.sum_mw.1 + 1);
            self.mean_mw = Some(self.sum_mw.0 / self.sum_mw.1);
            self.most_mw = self.most_mw.max(Some(input));
        }
        if let Some(hottest) = machine.hottest() {
            self.hottest_c = Some(self.hottest_c.map_or(hottest.celsius, |before| before.max(hottest.celsius)));
        }
        self.throttled_by.extend(machine.throttled_by);
    }
}

/// How far two networks' landmarks lie apart on the same film, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Agreement {
    /// Half of the landmarks are not farther apart.
    pub(super) median_px: f64,
    /// None is farther apart.
    pub(super) most_px: f64,
}

impl Agreement {
    /// Between landmarks in the same order; `None` where one has more than the other, or none.
    pub(super) fn of(one: &[Landmark], other: &[Landmark]) -> Option<Self> {
        if one.len() != other.len() || one.is_empty() {
            return None;
        }
        let distances: Vec<_> = std::iter::zip(one, other).map(|(a, b)| a.point.distance(b.point)).collect();
        let most_px = distances.iter().copied().fold(0.0, f64::max);
        Some(Self { median_px: Percentiles::of(&distances).p50, most_px })
    }
}

/// How long something took, and what came of it.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;

    fn at(points: &[(f64, f64)]) -> Vec<Landmark> {
        let landmark = |&(x, y): &(f64, f64)| Landmark {
            name: "n".to_owned(),
            point: Point::new(x, y),
            sigma_px: [1.0, 1.0],
            radius95_px: None,
            score: 1.0,
        };
        points.iter().map(landmark).collect()
    }

    #[test]
    fn networks_agree_by_the_distance_of_their_landmarks() {
        let (one, other) = (at(&[(0.0, 0.0), (5.0, 5.0), (9.0, 0.0)]), at(&[(0.3, 0.4), (5.0, 5.0), (9.0, 2.0)]));
        let agreement = Agreement::of(&one, &other).expect("as many");
        assert!((agreement.median_px - 0.5).abs() < 1e-12 && (agreement.most_px - 2.0).abs() < 1e-12, "{agreement:?}");
        assert_eq!(Agreement::of(&one, &other[1..]), None);
        assert_eq!(Agreement::of(&[], &[]), None);
    }
}
