//! What became of the daemon's last runs, and whether the bundle that served is to blame for it.

use serde::{Deserialize, Serialize};

use super::selection::{Moment, Selection};

/// The format of the file this build reads and writes.
pub(super) const FORMAT: u32 = 1;
/// Runs that are remembered: more than any policy counts, few enough for a page.
const REMEMBERED: usize = 32;

/// The last runs of the daemon on installed bundles, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    format: u32,
    runs: Vec<Run>,
}

/// One run of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The [`Selection::generation`] it ran under.
    pub generation: u64,
    /// When it began.
    pub started: Moment,
    /// How it ended.
    pub end: End,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case", deny_unknown_fields)]
pub enum End {
    /// It is running, or nothing could be written any more: killed, crashed, hung, or the power went.
    Unknown,
    /// Stopped by a person or the service manager, or for a reason that is none of the bundle's.
    Clean,
    /// The bundle could not be loaded, or missed its golden film.
    SelfTestFailed {
        /// In words.
        reason: String,
    },
}

/// When a bundle is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// So many unclean ends ..
    pub unclean: usize,
    /// .. of runs that began within so many seconds of the switch to it.
    pub window_s: u64,
}

/// Three unclean ends of runs that began within a day of the switch (R43).
impl Default for Policy {
    fn default() -> Self {
        Self { unclean: 3, window_s: 86_400 }
    }
}

/// Why a bundle is to be taken out of service; its text completes "because ..".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The daemon died under it.
    #[error("the daemon ended uncleanly {count} times in {hours} h after the switch to it", hours = window_s / 3600)]
    Unclean {
        /// How often.
        count: usize,
        /// The policy's window.
        window_s: u64,
    },
    /// It failed at a start.
    #[error("it failed at a start: {reason}")]
    SelfTest {
        /// In words.
        reason: String,
    },
}

impl Default for Runs {
    fn default() -> Self {
        Self { format: FORMAT, runs: Vec::new() }
    }
}

impl Runs {
    /// The runs that are remembered, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Run] {
        &self.runs
    }

    /// Whether this build wrote it.
    pub(super) const fn is_readable(&self) -> bool {
        self.format == FORMAT
    }

    /// Notes that a run begins; until it is noted how it ended, it counts as one that died.
    pub fn begin(&mut self, generation: u64, started: Moment) {
        self.runs.push(Run { generation, started, end: End::Unknown });
        let surplus = self.runs.len().saturating_sub(REMEMBERED);
        self.runs.drain(..surplus);
    }

    /// Notes how the last run ended; nothing changes where no run has begun.
    pub fn end(&mut self, end: End) {
        if let Some(run) = self.runs.last_mut() {
            run.end = end;
        }
    }

    /// Whether the last run under a generation is not known to have gone well, or there was none: then the bundle is
    /// tried out of process before it is loaded.
    #[must_use]
    pub fn leave_doubt(&self, generation: u64) -> bool {
        self.runs.last().is_none_or(|run| run.generation != generation || run.end != End::Clean)
    }
}

/// Whether the active bundle is to be taken out of service, judged at the start of the daemon, `now`, before the new
/// run is noted.
///
/// A run counts as unclean when nothing was noted about its end and the machine did not go down with it: a power cut
/// is not the bundle's fault. Only runs under the present switch count, so a bundle never answers for another's.
#[must_use]
pub fn judge(selection: &Selection, runs: &Runs, now: &Moment, policy: Policy) -> Option<Fault> {
    let runs = runs.all();
    let ours = |run: &Run| run.generation == selection.generation;
    if let Some(Run { end: End::SelfTestFailed { reason }, .. }) = runs.last().filter(|run| ours(run)) {
        return Some(Fault::SelfTest { reason: reason.clone() });
    }
    // What came after a run: the next one's start, or this moment.
    let after = runs.iter().skip(1).map(|run| &run.started).chain([now]);
    let died = |(run, after): &(&Run, &Moment)| {
        ours(run)
            && run.end == End::Unknown
            && run.started.boot == after.boot
            && run.started.seconds_since(&selection.since) <= policy.window_s
    };
    let count = runs.iter().zip(after).filter(died).count();
    (count >= policy.unclean).then_some(Fault::Unclean { count, window_s: policy.window_s })
}

#[cfg(test)]
mod tests {
    use super::super::identity::BundleId;
    use super::*;

    const POLICY: Policy = Policy { unclean: 3, window_s: 3600 };

    fn at(boot: &str, up_s: u64) -> Moment {
        Moment { boot: boot.to_owned(), up_s, unix_s: 1_000_000 + up_s }
    }

    /// The second bundle, switched to at second 100 of boot `a`.
    fn selection() -> Selection {
        let id = |version| BundleId::new("ceph", version).expect("sound");
        let first = Selection::activate(None, id("1.0.0"), at("a", 1));
        Selection::activate(Some(&first), id("2.0.0"), at("a", 100))
    }

    fn runs(of: &[(u64, &str, u64, End)]) -> Runs {
        let mut runs = Runs::default();
        for (generation, boot, up_s, end) in of {
            runs.begin(*generation, at(boot, *up_s));
            runs.end(end.clone());
        }
        runs
    }

    #[test]
    fn three_unclean_ends_are_the_bundles_fault_and_two_are_not() {
        let two = [(2, "a", 110, End::Unknown), (2, "a", 120, End::Unknown)];
        assert_eq!(judge(&selection(), &runs(&two), &at("a", 130), POLICY), None);
        let three = [two.to_vec(), vec![(2, "a", 3700, End::Unknown)]].concat();
        let fault = Some(Fault::Unclean { count: 3, window_s: 3600 });
        assert_eq!(judge(&selection(), &runs(&three), &at("a", 9000), POLICY), fault, "the last began in the window");
        let late = [two.to_vec(), vec![(2, "a", 3701, End::Unknown)]].concat();
        assert_eq!(judge(&selection(), &runs(&late), &at("a", 9000), POLICY), None, "and this one did not");
    }

    #[test]
    fn clean_ends_and_those_under_another_switch_do_not_count() {
        let unclean = End::Unknown;
        let history = [
            (1, "a", 10, unclean.clone()),
            (1, "a", 20, unclean.clone()),
            (1, "a", 30, unclean.clone()),
            (2, "a", 110, unclean.clone()),
            (2, "a", 120, End::Clean),
            (2, "a", 130, unclean),
        ];
        assert_eq!(judge(&selection(), &runs(&history), &at("a", 140), POLICY), None);
    }

    #[test]
    fn a_run_that_went_down_with_the_machine_does_not_count() {
        let cuts: Vec<_> = ["a", "b", "c", "d"].map(|boot| (2, boot, 200, End::Unknown)).into();
        assert_eq!(judge(&selection(), &runs(&cuts), &at("e", 10), POLICY), None);
        let loops = [cuts, vec![(2, "e", 10, End::Unknown), (2, "e", 20, End::Unknown)]].concat();
        assert_eq!(judge(&selection(), &runs(&loops), &at("f", 5), POLICY), None, "one crash and a power cut");
        let loops = [loops, vec![(2, "e", 30, End::Unknown)]].concat();
        assert!(judge(&selection(), &runs(&loops), &at("e", 40), POLICY).is_some(), "three crashes in the same boot");
    }

    #[test]
    fn one_failed_self_test_at_the_last_start_is_enough() {
        let failed = End::SelfTestFailed { reason: "off by 9 px".to_owned() };
        let fault = Some(Fault::SelfTest { reason: "off by 9 px".to_owned() });
        assert_eq!(judge(&selection(), &runs(&[(2, "a", 110, failed.clone())]), &at("b", 1), POLICY), fault);
        let mended = [(2, "a", 110, failed.clone()), (2, "a", 120, End::Clean)];
        assert_eq!(judge(&selection(), &runs(&mended), &at("a", 130), POLICY), None);
        assert_eq!(judge(&selection(), &runs(&[(1, "a", 90, failed)]), &at("a", 110), POLICY), None, "another's");
    }

    #[test]
    fn only_the_last_runs_are_remembered() {
        let mut runs = Runs::default();
        runs.end(End::Clean);
        assert_eq!(runs.all(), []);
        (0..100).for_each(|up_s| runs.begin(1, at("a", up_s)));
        assert_eq!(runs.all().len(), REMEMBERED);
        assert_eq!(runs.all()[REMEMBERED - 1].started.up_s, 99);
    }

    #[test]
    fn a_bundle_is_in_doubt_until_a_run_under_it_ended_well() {
        assert!(Runs::default().leave_doubt(1));
        assert!(runs(&[(1, "a", 1, End::Clean)]).leave_doubt(2), "a new switch");
        assert!(runs(&[(1, "a", 1, End::Unknown)]).leave_doubt(1));
        assert!(!runs(&[(1, "a", 1, End::Clean)]).leave_doubt(1));
    }
}
