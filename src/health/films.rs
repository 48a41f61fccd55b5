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
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Oldest first.
    ring: VecDeque<FilmView>,
    /// Deliveries of events whose film is not in the ring: a fast broker answers before the film is noted.
    early: VecDeque<(u64, SystemTime)>,
}

impl Films {
    /// A film's way has ended.
    pub fn finished(&self, mut film: FilmView) {
        self.with(|Known { ring, early }| {
            if let Some(&(_, when)) = early.iter().find(|(number, _)| *number == film.number) {
                film.delivered = Some(when);
            }
            if ring.len() == FILMS {
                ring.pop_front();
            }
            ring.push_back(film);
        });
    }

    /// The event with this number was delivered.
    pub fn delivered(&self, number: u64, now: SystemTime) {
        self.with(|Known { ring, early }| {
            if let Some(film) = ring.iter_mut().find(|film| film.number == number) {
                film.delivered = Some(now);
                return;
            }
            if early.len() == FILMS {
                early.pop_front();
            }
            early.push_back((number, now));
        });
    }

    /// All of them, newest first, with whether `overlays` still has a picture.
    #[must_use]
    pub fn newest_first(&self, overlays: &Overlays) -> Vec<FilmView> {
        let films: Vec<FilmView> = self.with(|known| known.ring.iter().rev().copied().collect());
        films.into_iter().map(|film| FilmView { picture: overlays.has(film.number), ..film }).collect()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        // A party that panicked with the lock left the ring whole: every change is one push or one assignment.
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
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

    #[test]
    fn a_delivery_that_is_faster_than_its_film_is_not_lost() {
        let films = Films::default();
        let now = SystemTime::now();
        films.delivered(3, now);
        films.finished(film(3, now));
        films.finished(film(4, now));
        let delivered: Vec<_> = films.newest_first(&Overlays::new(0, 0)).iter().map(|film| film.delivered).collect();
        assert_eq!(delivered, [None, Some(now)]);
    }
}
