//! Whether a stage of the daemon still gets on with its work: what the watchdog looks at (R35).
//!
//! A stage marks what it does as [`Busy`] while it does it. Waiting for a film, the broker or a timer is no work, so
//! an idle stage is a healthy one, and so is one that waits for a broker that never answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The work of one stage, as far as the time goes; its clones are the same pulse.
#[derive(Clone, Debug)]
pub struct Pulse {
    stage: &'static str,
    work: Arc<Mutex<Work>>,
}

/// Work under way; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "the work ends at once when this is dropped"]
pub struct Busy {
    work: Arc<Mutex<Work>>,
    number: u64,
}

/// A stage that is longer at a piece of work than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// The stage's name, for the journal.
    pub stage: &'static str,
    /// For how long it has been at it.
    pub busy: Duration,
}

/// Pieces of work under way by number; a lower number began no later.
#[derive(Debug, Default)]
struct Work {
    last: u64,
    under_way: BTreeMap<u64, Instant>,
}

impl Pulse {
    /// An idle stage.
    #[must_use]
    pub fn new(stage: &'static str) -> Self {
        Self { stage, work: Arc::default() }
    }

    /// A piece of work begins.
    pub fn busy(&self) -> Busy {
        self.busy_since(Instant::now())
    }

    fn busy_since(&self, now: Instant) -> Busy {
        let mut work = lock(&self.work);
        work.last += 1;
        let number = work.last;
        work.under_way.insert(number, now);
        drop(work);
        Busy { work: Arc::clone(&self.work), number }
    }

    /// What is under way begins now: it waited for something that is no work, and has its whole budget again.
    pub fn begin_anew(&self) {
        let now = Instant::now();
        lock(&self.work).under_way.values_mut().for_each(|since| *since = now);
    }

    /// For how long the oldest piece of work under way has gone on at `now`; `None` while the stage is idle.
    #[must_use]
    pub fn busy_for(&self, now: Instant) -> Option<Duration> {
        lock(&self.work).under_way.first_key_value().map(|(_, since)| now.saturating_duration_since(*since))
    }

    /// Whether some piece of work has gone on for longer than `budget` at `now`; the oldest, if so.
    #[must_use]
    pub fn late(&self, budget: Duration, now: Instant) -> Option<Late> {
        let busy = self.busy_for(now)?;
        (busy > budget).then_some(Late { stage: self.stage, busy })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.work).under_way.remove(&self.number);
    }
}

/// Nothing panics while it holds the lock half-way through a change.
fn lock(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(60);

    #[test]
    fn a_stage_is_late_only_while_it_works_beyond_its_budget() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let pulse = Pulse::new("the worker");
        assert_eq!(pulse.late(BUDGET, at(1_000_000)), None, "idle for ever is healthy");
        let film = pulse.busy_since(at(100));
        assert_eq!(pulse.late(BUDGET, at(160)), None, "within the budget");
        let late = Late { stage: "the worker", busy: Duration::from_secs(61) };
        assert_eq!(pulse.late(BUDGET, at(161)), Some(late));
        drop(film);
        assert_eq!(pulse.late(BUDGET, at(162)), None, "it came through after all");
        let _next = pulse.busy_since(at(162));
        assert_eq!(pulse.late(BUDGET, at(200)), None, "each piece of work has the whole budget");
    }

    #[test]
    fn of_several_pieces_of_work_the_oldest_counts() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let pulse = Pulse::new("the folder");
        let hung = pulse.busy_since(at(0));
        for s in 1..=100 {
            drop(pulse.clone().busy_since(at(s)));
        }
        let young = pulse.busy_since(at(90));
        assert_eq!(pulse.late(BUDGET, at(100)).map(|late| late.busy), Some(Duration::from_secs(100)));
        drop(hung);
        assert_eq!(pulse.late(BUDGET, at(100)), None);
        drop(young);
    }

    #[test]
    fn what_begins_anew_has_its_whole_budget() {
        let pulse = Pulse::new("the store");
        let now = Instant::now();
        let _busy = pulse.busy_since(now.checked_sub(2 * BUDGET).expect("the machine runs for minutes"));
        assert!(pulse.late(BUDGET, now).is_some());
        pulse.begin_anew();
        assert_eq!(pulse.late(BUDGET, now + BUDGET), None);
    }

    #[test]
    fn a_panic_ends_the_work() {
        let pulse = Pulse::new("the worker");
        let inner = pulse.clone();
        let panicked = std::thread::spawn(move || {
            let _busy = inner.busy();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.join().is_err());
        assert_eq!(pulse.late(BUDGET, Instant::now() + 2 * BUDGET), None);
    }
}
