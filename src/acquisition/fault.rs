//! A lasting fault is logged once in a while, and counted always (R15).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The least time between two log lines about one cause.
pub const FAULT_LOG_INTERVAL: Duration = Duration::from_secs(300);

/// How often each cause occurred, and when it was last told.
#[derive(Debug)]
pub struct FaultLog<C> {
    interval: Duration,
    causes: HashMap<C, Entry>,
}

#[derive(Debug)]
struct Entry {
    total: u64,
    untold: u64,
    told: Instant,
}

impl<C: Eq + Hash> FaultLog<C> {
    /// Nothing has happened yet; one line per cause and `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, causes: HashMap::new() }
    }

    /// Counts a fault; if it is time to log it, how often it occurred since it was last logged, this time included.
    pub fn occurred(&mut self, cause: C, now: Instant) -> Option<u64> {
        let interval = self.interval;
        let mut first = false;
        let entry = self.causes.entry(cause).or_insert_with(|| {
            first = true;
            Entry { total: 0, untold: 0, told: now }
        });
        entry.total += 1;
        entry.untold += 1;
        if !first && now.saturating_duration_since(entry.told) < interval {
            return None;
        }
        entry.told = now;
        Some(std::mem::take(&mut entry.untold))
    }

    /// How often `cause` occurred in all.
    #[must_use]
    pub fn total(&self, cause: &C) -> u64 {
        self.causes.get(cause).map_or(0, |entry| entry.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_fault_is_told_once_per_interval_and_counted_always() {
        let start = Instant::now();
        let mut log = FaultLog::new(Duration::from_secs(300));
        for (second, cause, expected) in [
            (0, "missing", Some(1)),
            (30, "missing", None),
            (30, "denied", Some(1)),
            (299, "missing", None),
            (300, "missing", Some(3)),
            (301, "missing", None),
            (2000, "missing", Some(2)),
        ] {
            assert_eq!(log.occurred(cause, start + Duration::from_secs(second)), expected, "{cause} at {second} s");
        }
        assert_eq!((log.total(&"missing"), log.total(&"denied"), log.total(&"never")), (6, 1, 0));
    }
}
