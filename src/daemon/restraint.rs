//! What the worker leaves to the machine while that slows itself down.
//!
//! A machine that is too hot or draws too much lowers its clocks until it has recovered; work that never ends keeps it
//! there, and every film takes longer than it need. So while it throttles, the *backlog* is worked with pauses: films
//! that were acquired longer ago than `result.fresh_s`, whose events are historical anyway. A *fresh* film is never
//! delayed: as long as one is in sight, from the first look at its file until it is finished, there are no pauses, also
//! none for films that stand before it.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::report::Condition;

/// Whether and how long the worker pauses.
pub(super) struct Restraint {
    /// Says whether the machine throttles.
    pub(super) condition: watch::Receiver<Condition>,
    /// When the newest film in sight was acquired.
    pub(super) newest: watch::Receiver<Option<SystemTime>>,
    /// Films no older than this are fresh.
    pub(super) fresh: Duration,
    /// Before each film of the backlog.
    pub(super) pause: Duration,
}

impl Restraint {
    /// Whether a film that was acquired then waits now.
    pub(super) fn applies(&self, acquired: SystemTime) -> bool {
        let now = SystemTime::now();
        let is_fresh = |time: SystemTime| is_fresh(time, self.fresh, now);
        let throttles = !self.condition.borrow().throttled_by.is_empty();
        throttles && !self.pause.is_zero() && !is_fresh(acquired) && !self.newest.borrow().is_some_and(is_fresh)
    }

    /// Waits for the pause, or until a fresh film is in sight, the machine has recovered, or `stop`.
    pub(super) async fn pause(&mut self, acquired: SystemTime, stop: &CancellationToken) {
        let pause = sleep(self.pause);
        tokio::pin!(pause);
        while self.applies(acquired) {
            // Either sender is gone only with the daemon.
            tokio::select! {
                () = &mut pause => return,
                () = stop.cancelled() => return,
                changed = self.condition.changed() => if changed.is_err() { return },
                changed = self.newest.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// As `report` has it for events: a time that lies ahead is fresh.
fn is_fresh(time: SystemTime, fresh: Duration, now: SystemTime) -> bool {
    now.duration_since(time).map_or(true, |age| age <= fresh)
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::report::ThrottleCause;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Case {
        condition: watch::Sender<Condition>,
        newest: watch::Sender<Option<SystemTime>>,
        restraint: Restraint,
        old: SystemTime,
    }

    fn case(throttles: bool) -> Case {
        let mut condition = Condition::default();
        if throttles {
            condition.throttled_by.insert(ThrottleCause::CpuHeat);
        }
        let (condition, newest) = (watch::Sender::new(condition), watch::Sender::new(None));
        let restraint = Restraint {
            condition: condition.subscribe(),
            newest: newest.subscribe(),
            fresh: Duration::from_secs(300),
            pause: HOUR,
        };
        Case { condition, newest, restraint, old: SystemTime::now() - HOUR }
    }

    #[test]
    fn only_the_backlog_of_a_machine_that_throttles_waits() {
        let Case { newest, mut restraint, old, condition } = case(true);
        let now = SystemTime::now();
        assert!(restraint.applies(old));
        assert!(!restraint.applies(now) && !restraint.applies(now + HOUR));
        newest.send_replace(Some(old));
        assert!(restraint.applies(old), "what is in sight is no fresher");
        newest.send_replace(Some(now));
        assert!(!restraint.applies(old), "a fresh film stands behind it");
        newest.send_replace(None);
        restraint.pause = Duration::ZERO;
        assert!(!restraint.applies(old), "switched off");
        restraint.pause = HOUR;
        condition.send_modify(|condition| condition.throttled_by.clear());
        assert!(!restraint.applies(old), "it has recovered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_by_itself_and_with_its_reason() {
        let stop = CancellationToken::new();
        let Case { mut restraint, old, .. } = case(false);
        restraint.pause(old, &stop).await;
        let Case { mut restraint, old, newest, condition } = case(true);
        let began = Instant::now();
        restraint.pause(old, &stop).await;
        assert!(began.elapsed() >= HOUR, "the whole pause");
        // Far below the pause, which would otherwise pass in no time here.
        let soon = HOUR / 2;
        let (mut pausing, later) = (Box::pin(restraint.pause(old, &stop)), HOUR / 4);
        assert!(timeout(later, &mut pausing).await.is_err());
        newest.send_replace(Some(SystemTime::now() - HOUR));
        assert!(timeout(later / 2, &mut pausing).await.is_err(), "another old one");
        newest.send_replace(Some(SystemTime::now()));
        timeout(soon, pausing).await.expect("a fresh one");
        newest.send_replace(None);
        let mut pausing = Box::pin(restraint.pause(old, &stop));
        assert!(timeout(later, &mut pausing).await.is_err());
        condition.send_modify(|condition| condition.throttled_by.clear());
        timeout(soon, pausing).await.expect("it has recovered");
        condition.send_modify(|condition| condition.throttled_by = [ThrottleCause::OverCurrent].into());
        let mut pausing = Box::pin(restraint.pause(old, &stop));
        assert!(timeout(later, &mut pausing).await.is_err());
        stop.cancel();
        timeout(soon, pausing).await.expect("a stop");
    }
}
