//! The golden film through the live path, now and then, while there is nothing else to do.
//!
//! A network that was right when the daemon started can go wrong while it runs: a bit of its weights flips, a driver
//! misbehaves, a processor fails. Nobody looks at the landmarks of a device that runs unattended, so it looks itself, at
//! a film of which it knows where they are. Nothing of it is published, queued or remembered.

use std::time::Duration;

use tokio::time::Instant;

use crate::analysis::{AnalysisError, Golden};

/// After a failure the next try comes no later than this: results may be wrong until then.
const AGAIN: Duration = Duration::from_secs(60);
/// So many failures in a row, and the daemon ends: the next start loads the network anew, or another one.
const FAILURES: u32 = 2;

/// When the golden film is tried next, and how it went before.
pub(super) struct Canary {
    pub(super) golden: Golden,
    interval: Option<Duration>,
    due: Option<Instant>,
    failures: u32,
}

/// What a try came to.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// All is well, within so many pixels.
    Well { off_px: f64 },
    /// It is not; what is wrong, and how far off the worst landmark was where there was one.
    Failed { off_px: Option<f64>, why: String },
    /// It was not again, and will not be by itself.
    GiveUp { off_px: Option<f64>, why: String },
}

impl Canary {
    /// Tries `golden` every `interval`, first when one has passed after `now`; without an interval never.
    pub(super) fn new(golden: Golden, interval: Option<Duration>, now: Instant) -> Self {
        Self { golden, interval, due: interval.map(|interval| now + interval), failures: 0 }
    }

    /// When the next try is to be made, if there is to be one.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Judges a try that ended `now`: how far off the worst landmark was and may be, in pixels of the film.
    pub(super) fn judge(&mut self, tried: Result<f64, AnalysisError>, allowed_px: f64, now: Instant) -> Verdict {
        let (off_px, why) = match tried {
            Ok(off_px) if off_px <= allowed_px => {
                self.failures = 0;
                self.due = self.interval.map(|interval| now + interval);
                return Verdict::Well { off_px };
            }
            Ok(off_px) => {
                let why = format!("a landmark is {off_px:.2} px from where it should be, {allowed_px} px are allowed");
                (Some(off_px), why)
            }
            Err(error) => (None, error.to_string()),
        };
        self.failures += 1;
        self.due = self.interval.map(|interval| now + interval.min(AGAIN));
        if self.failures < FAILURES { Verdict::Failed { off_px, why } } else { Verdict::GiveUp { off_px, why } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::inference::{InferenceError, SELF_TEST_TOLERANCE_PX};

    const HOUR: Duration = Duration::from_secs(3600);

    fn canary(interval: Option<Duration>, now: Instant) -> Canary {
        Canary::new(Golden::new(Vec::new(), Size::new(1, 1), Vec::new()), interval, now)
    }

    #[test]
    fn one_failure_is_told_and_two_in_a_row_are_the_end() {
        let start = Instant::now();
        let mut canary = canary(Some(HOUR), start);
        assert_eq!(canary.due(), Some(start + HOUR));
        let at = |n| start + n * HOUR;
        assert_eq!(
            canary.judge(Ok(SELF_TEST_TOLERANCE_PX), SELF_TEST_TOLERANCE_PX, at(1)),
            Verdict::Well { off_px: SELF_TEST_TOLERANCE_PX }
        );
        assert_eq!(canary.due(), Some(at(2)));
        let failed = canary.judge(Ok(0.51), SELF_TEST_TOLERANCE_PX, at(2));
        let why = "a landmark is 0.51 px from where it should be, 0.5 px are allowed".to_owned();
        assert_eq!(failed, Verdict::Failed { off_px: Some(0.51), why });
        assert_eq!(canary.due(), Some(at(2) + AGAIN), "soon");
        assert!(matches!(canary.judge(Ok(0.1), SELF_TEST_TOLERANCE_PX, at(2) + AGAIN), Verdict::Well { .. }));
        assert_eq!(canary.due(), Some(at(3) + AGAIN), "it was a passing fault");
        assert!(matches!(canary.judge(Ok(f64::NAN), SELF_TEST_TOLERANCE_PX, at(4)), Verdict::Failed { .. }));
        let broken = InferenceError::NotFinite { backend: "tract-cpu", landmark: 3 };
        let Verdict::GiveUp { off_px, why } = canary.judge(Err(broken.into()), SELF_TEST_TOLERANCE_PX, at(5)) else {
            panic!("twice in a row")
        };
        assert!(off_px.is_none() && why.contains("landmark 3"), "{why}");
    }

    #[test]
    fn a_short_interval_is_not_stretched_and_none_is_never() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut short = canary(Some(second), start);
        assert!(matches!(short.judge(Ok(9.0), SELF_TEST_TOLERANCE_PX, start), Verdict::Failed { .. }));
        assert_eq!(short.due(), Some(start + second));
        assert_eq!(canary(None, start).due(), None);
    }
}
