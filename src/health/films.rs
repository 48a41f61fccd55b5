//! The last films, as the status page lists them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::overlays::Overlays;
use super::view::FilmView;

/// How many films are remembered.
const FILMS: usize = 20;

/// The last films of this run; older ones are forgotten.
#[derive(Debug, Default)]
pub struct Films {
    /// Oldest first.
    ring: Mutex<VecDeque<FilmView>>,
}

impl Films {
    /// A film's way has ended.
    pub fn finished(&self, film: FilmView) {
        self.with(|ring| {
            if ring.len() == FILMS {
                ring.pop_front();
            }
            ring.push_back(film);
        });
    }

    /// The event with this number was delivered.
    pub fn delivered(&self, number: u64, now: SystemTime) {
        self.with(|ring| {
            if let Some(film) = ring.iter_mut().find(|film| film.number == number) {
                film.delivered = Some(now);
            }
        });
    }

    /// All of them, newest first, with whether `overlays` still has a picture.
    #[must_use]
    pub fn newest_first(&self, overlays: &Overlays) -> Vec<FilmView> {
        let films: Vec<FilmView> = self.with(|ring| ring.iter().rev().copied().collect());
        films.into_iter().map(|film| FilmView { picture: overlays.has(film.number), ..film }).collect()
    }

    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<FilmView>) -> T) -> T {
        // A party that panicked with the lock left the ring whole: every change is one push or one assignment.
        work(&mut self.ring.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::labels::FilmEnd;
    use super::super::view::StepTimes;
    use super::*;

    pub(in super::super) fn film(number: u64, finished: SystemTime) -> FilmView {
        FilmView {
            number,
            end: FilmEnd::Accepted,
            acquired: finished - Duration::from_millis(2_900),
            finished,
            delivered: None,
            steps: Some(StepTimes { decode_ms: 41.0, frame_ms: 9.0, inference_ms: 655.0 }),
            size_px: Some([1935, 2400]),
            landmarks: 19,
            picture: false,
        }
    }

    #[test]
    fn the_newest_stands_first_and_the_oldest_goes() {
        let films = Films::default();
        for number in 1..=25 {
            films.finished(film(number, SystemTime::now()));
        }
        let overlays = Overlays::new(20, 100);
        overlays.keep(24, vec![0]);
        let listed = films.newest_first(&overlays);
        assert_eq!(listed.iter().map(|film| film.number).collect::<Vec<_>>(), (6..=25).rev().collect::<Vec<_>>());
        let with_picture: Vec<_> = listed.iter().filter(|film| film.picture).map(|film| film.number).collect();
        assert_eq!(with_picture, [24]);
    }

    #[test]
    fn a_delivery_is_noted_at_its_film_and_forgotten_films_do_not_matter() {
        let films = Films::default();
        let now = SystemTime::now();
        films.finished(film(7, now));
        films.finished(film(8, now));
        films.delivered(7, now);
        films.delivered(1, now);
        let delivered: Vec<_> = films.newest_first(&Overlays::new(0, 0)).iter().map(|film| film.delivered).collect();
        assert_eq!(delivered, [None, Some(now)]);
    }
}
