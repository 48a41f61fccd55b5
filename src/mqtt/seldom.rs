//! What keeps failing is said seldom: once in five minutes for each cause (R15).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(300);
/// Causes remembered; an older one would be said again.
const CAUSES: usize = 16;

/// Which causes were said when.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    said: VecDeque<(String, Instant)>,
}

impl Seldom {
    /// Whether to say `cause` at `now`; if so it counts as said.
    pub(super) fn may_say(&mut self, cause: &str, now: Instant) -> bool {
        self.said.retain(|&(_, at)| now - at < INTERVAL);
        if self.said.iter().any(|(said, _)| said == cause) {
            return false;
        }
        if self.said.len() == CAUSES {
            self.said.pop_front();
        }
        self.said.push_back((cause.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once_in_five_minutes() {
        let start = Instant::now();
        let mut seldom = Seldom::default();
        let at = |s| start + Duration::from_secs(s);
        for (cause, s, say) in
            [("a", 0, true), ("a", 1, false), ("b", 2, true), ("a", 299, false), ("a", 300, true), ("b", 301, false)]
        {
            assert_eq!(seldom.may_say(cause, at(s)), say, "{cause} at {s} s");
        }
    }

    #[test]
    fn a_flood_of_causes_takes_no_more_memory() {
        let mut seldom = Seldom::default();
        let now = Instant::now();
        for n in 0..1000 {
            seldom.may_say(&n.to_string(), now);
        }
        assert_eq!(seldom.said.len(), CAUSES);
    }
}
