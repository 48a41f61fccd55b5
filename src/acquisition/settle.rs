//! When a file is read: pure, fed with sightings and times; the driver owns the timers.
//!
//! A file is due once its identity (size, times, inode) has stayed the same for `pause` (R4b). What the examination
//! then says decides: taken, held until it changes or `patience` has passed (R4c), or tried again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::identity::FileIdentity;

/// Up to this many ready files are handed out oldest first; of more, every second one is the newest, so that a fresh
/// film does not wait behind all that came while the daemon was away.
const LINE: usize = 4;
/// The longest pause between two tries of a file that cannot be read.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(300);

/// The files that were seen and are neither taken nor refused yet.
///
/// It is asked after every event in the folder, and the folder may hold ten thousand files: no question costs more
/// than its answer.
#[derive(Debug)]
pub struct Settle {
    pause: Duration,
    patience: Duration,
    files: HashMap<Arc<Path>, Candidate>,
    /// The files in [`Phase::Waiting`], the next to fall due first.
    waiting: BTreeSet<(Instant, Arc<Path>)>,
    /// The files in [`Phase::Ready`] by their modification time, the oldest first.
    ready: BTreeSet<(i64, Arc<Path>)>,
    /// The same files by the time they came or changed and, of those that came together, by their modification time.
    arrivals: BTreeSet<(Instant, i64, Arc<Path>)>,
    /// Whose turn it is while many are ready.
    newest_next: bool,
}

/// A file that should be examined now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its path below the folder.
    pub path: PathBuf,
    /// The state that settled.
    pub file: FileIdentity,
    /// It has been unchanged for `patience`: it is taken or refused now, not held again.
    pub last: bool,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    file: FileIdentity,
    seen: Instant,
    changed: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Examined at the earliest then.
    Waiting { until: Instant },
    /// That time came, and there was no room for it yet.
    Ready,
    /// Handed out by [`Settle::due`].
    Examining,
}

impl Settle {
    /// No file seen yet; `pause` before a file is read, `patience` before an incomplete one is given up.
    #[must_use]
    pub fn new(pause: Duration, patience: Duration) -> Self {
        Self {
            pause,
            patience: patience.max(pause),
            files: HashMap::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            arrivals: BTreeSet::new(),
            newest_next: false,
        }
    }

    /// Changes the pause for files seen from now on: the folder turned out to lie on another file system.
    pub fn set_pause(&mut self, pause: Duration) {
        self.pause = pause;
        self.patience = self.patience.max(pause);
    }

    /// The file at `path` was seen in this state.
    pub fn sighted(&mut self, path: &Path, file: FileIdentity, now: Instant) {
        let changed = Candidate { file, seen: now, changed: now, phase: Phase::Waiting { until: now + self.pause } };
        match self.files.get_mut(path) {
            Some(known) if known.file == file => known.seen = now,
            _ => {
                self.forget(path);
                let path: Arc<Path> = path.into();
                self.waiting.insert((now + self.pause, Arc::clone(&path)));
                self.files.insert(path, changed);
            }
        }
    }

    /// The file is taken, refused, known already, or gone.
    pub fn forget(&mut self, path: &Path) {
        if let Some((path, candidate)) = self.files.remove_entry(path) {
            self.unlist(&path, &candidate);
        }
    }

    /// The folder is gone, and so are all its files.
    pub fn clear(&mut self) {
        self.files.clear();
        self.waiting.clear();
        self.ready.clear();
        self.arrivals.clear();
    }

    /// A scan that began at `started` went through the whole folder and met only `present`.
    pub fn only(&mut self, present: &HashSet<PathBuf>, started: Instant) {
        // What was seen after it began may be newer than the scan.
        let gone = |path: &Path, candidate: &Candidate| candidate.seen < started && !present.contains(path);
        let gone: Vec<Arc<Path>> = self
            .files
            .iter()
            .filter(|(path, candidate)| gone(path, candidate))
            .map(|(path, _)| Arc::clone(path))
            .collect();
        gone.iter().for_each(|path| self.forget(path));
    }

    /// Whether the file is still in the state that was handed out by [`Settle::due`].
    #[must_use]
    pub fn is_examining(&self, path: &Path, file: &FileIdentity) -> bool {
        self.files.get(path).is_some_and(|known| known.file == *file && known.phase == Phase::Examining)
    }

    /// The examination found it incomplete: it is looked at again when it changes, or for the last time when
    /// `patience` has passed.
    pub fn hold(&mut self, path: &Path) {
        if let Some(candidate) = self.files.get(path) {
            self.wait(path, candidate.changed + self.patience);
        }
    }

    /// The examination failed for a reason that may pass: it is tried again, the later the longer this lasts, and for
    /// the last time when `patience` has passed.
    pub fn retry(&mut self, path: &Path, now: Instant) {
        if let Some(candidate) = self.files.get(path) {
            let waited = now.saturating_duration_since(candidate.changed);
            let again = now + self.pause.max(waited / 4).min(MAX_RETRY_PAUSE.max(self.pause));
            let last = candidate.changed + self.patience;
            self.wait(path, if now < last { again.min(last) } else { again });
        }
    }

    /// Hands out at most `files` files of together at most `bytes` bytes that are due: the oldest film first or, while
    /// many are due, the oldest and the latest to come in turn.
    ///
    /// `cost` says how many of its bytes a file of some size will take. A file too large for what is left of `bytes`
    /// does not hold up the smaller ones behind it (R11).
    pub fn due(&mut self, now: Instant, files: usize, mut bytes: u64, cost: impl Fn(u64) -> u64) -> Vec<Due> {
        while let Some((_, path)) = self.waiting.first().filter(|(until, _)| *until <= now).cloned() {
            self.set_phase(&path, Phase::Ready);
        }
        let mut taken: Vec<Arc<Path>> = Vec::new();
        let mut oldest = self.ready.iter().map(|(_, path)| path);
        let mut newest = self.arrivals.iter().rev().map(|(.., path)| path);
        while taken.len() < files {
            let is_line = self.ready.len() - taken.len() <= LINE;
            let path = if self.newest_next && !is_line { newest.next() } else { oldest.next() };
            // A line at its end held every file, handed out or too large.
            let Some(path) = path else { break };
            let size = self.files.get(path).filter(|_| !taken.contains(path)).map(|known| known.file.size);
            let Some(left) = size.and_then(|size| bytes.checked_sub(cost(size))) else { continue };
            bytes = left;
            self.newest_next = !self.newest_next;
            taken.push(Arc::clone(path));
        }
        taken.into_iter().filter_map(|path| self.take(&path, now)).collect()
    }

    /// When the next file falls due; of those that are due already and found no room nothing is said.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// How many files are waiting or being examined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether no file is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn take(&mut self, path: &Arc<Path>, now: Instant) -> Option<Due> {
        self.set_phase(path, Phase::Examining);
        let known = self.files.get(path)?;
        Some(Due { path: path.to_path_buf(), file: known.file, last: now >= known.changed + self.patience })
    }

    fn wait(&mut self, path: &Path, until: Instant) {
        if let Some((path, _)) = self.files.get_key_value(path) {
            let path = Arc::clone(path);
            self.set_phase(&path, Phase::Waiting { until });
        }
    }

    /// Moves a file from the list of its old phase to that of the new one.
    fn set_phase(&mut self, path: &Arc<Path>, phase: Phase) {
        let Some(candidate) = self.files.get_mut(path) else { return };
        let before = *candidate;
        candidate.phase = phase;
        match phase {
            Phase::Waiting { until } => drop(self.waiting.insert((until, Arc::clone(path)))),
            Phase::Ready => {
                self.ready.insert((before.file.mtime_ns, Arc::clone(path)));
                self.arrivals.insert((before.changed, before.file.mtime_ns, Arc::clone(path)));
            }
            Phase::Examining => {}
        }
        if before.phase != phase {
            self.unlist(path, &before);
        }
    }

    fn unlist(&mut self, path: &Arc<Path>, candidate: &Candidate) {
        match candidate.phase {
            Phase::Waiting { until } => drop(self.waiting.remove(&(until, Arc::clone(path)))),
            Phase::Ready => {
                self.ready.remove(&(candidate.file.mtime_ns, Arc::clone(path)));
                self.arrivals.remove(&(candidate.changed, candidate.file.mtime_ns, Arc::clone(path)));
            }
            Phase::Examining => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);
    const PATIENCE: Duration = Duration::from_secs(60);

    fn file(size: u64) -> FileIdentity {
        FileIdentity { inode: 7, size, mtime_ns: 1000, ctime_ns: 1000 }
    }

    fn due(settle: &mut Settle, at: Instant) -> Vec<(String, bool)> {
        let due = settle.due(at, 10, 1000, |size| size);
        due.into_iter().map(|due| (due.path.display().to_string(), due.last)).collect()
    }

    #[derive(Clone, Copy)]
    enum Step {
        /// The file is seen with this size.
        See(u64),
        /// The examination ends so.
        Hold,
        Retry,
        Forget,
        /// Nothing is due.
        Quiet,
        /// The file is due, for the last time or not.
        Due(bool),
    }

    #[test]
    fn a_file_is_due_once_it_stayed_the_same() {
        use Step::{Due, Forget, Hold, Quiet, Retry, See};
        for (name, steps) in [
            ("unchanged", vec![(0, See(5)), (1, See(5)), (1, Quiet), (2, Due(false)), (9, Quiet)]),
            ("grown meanwhile", vec![(0, See(5)), (1, See(6)), (2, Quiet), (3, Due(false))]),
            ("never the same for long enough", (0..90).flat_map(|s| [(s, See(s)), (s, Quiet)]).collect()),
            (
                "a slow writer pauses now and then",
                vec![
                    (0, See(1)),
                    (2, Due(false)),
                    (2, Hold),
                    (3, See(2)),
                    (4, Quiet),
                    (5, Due(false)),
                    (5, Hold),
                    (70, See(3)),
                    (72, Due(false)),
                ],
            ),
            (
                "incomplete for ever",
                vec![
                    (0, See(5)),
                    (2, Due(false)),
                    (3, Hold),
                    (59, See(5)),
                    (59, Quiet),
                    (60, Due(true)),
                    (60, Forget),
                    (61, Quiet),
                ],
            ),
            (
                "unreadable for a while",
                vec![
                    (0, See(5)),
                    (2, Due(false)),
                    (2, Retry),
                    (3, Quiet),
                    (4, Due(false)),
                    (40, Retry),
                    (49, Quiet),
                    (50, Due(false)),
                    (59, Retry),
                    (60, Due(true)),
                    (60, Retry),
                    (74, Quiet),
                    (75, Due(true)),
                ],
            ),
            ("changed while examined", vec![(0, See(5)), (2, Due(false)), (3, See(6)), (4, Quiet), (5, Due(false))]),
            ("gone and back", vec![(0, See(5)), (1, Forget), (1, See(5)), (2, Quiet), (3, Due(false))]),
            ("unchanged for long before the first look", vec![(0, See(5)), (99, Due(true))]),
        ] {
            let start = Instant::now();
            let mut settle = Settle::new(PAUSE, PATIENCE);
            let path = Path::new("film");
            for (i, (second, step)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_secs(second);
                match step {
                    See(size) => settle.sighted(path, file(size), now),
                    Hold => settle.hold(path),
                    Retry => settle.retry(path, now),
                    Forget => settle.forget(path),
                    Quiet => assert_eq!(due(&mut settle, now), [], "{name}, step {i} at {second} s"),
                    Due(last) => {
                        let wanted = [("film".to_owned(), last)];
                        assert!(settle.next().is_some_and(|next| next <= now), "{name}, step {i} at {second} s");
                        assert_eq!(due(&mut settle, now), wanted, "{name}, step {i} at {second} s");
                    }
                }
            }
        }
    }

    #[test]
    fn the_oldest_film_comes_first_and_a_huge_one_holds_up_none() {
        let now = Instant::now();
        let mut settle = Settle::new(Duration::ZERO, PATIENCE);
        for (path, size, mtime_ns) in [("late", 10, 30), ("huge", 900, 20), ("early", 200, 10), ("over", 9000, 5)] {
            settle.sighted(Path::new(path), FileIdentity { mtime_ns, ..file(size) }, now);
        }
        // A file over the limit is not read and so costs nothing.
        let cost = |size| if size > 1000 { 0 } else { size };
        let names = |due: Vec<Due>| due.into_iter().map(|due| due.path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(settle.due(now, 1, 1000, cost)), ["over"]);
        assert_eq!(names(settle.due(now, 9, 1000, cost)), ["early", "late"]);
        assert_eq!(names(settle.due(now, 9, 1000, cost)), ["huge"]);
        assert_eq!(settle.next(), None);
    }

    #[test]
    fn a_fresh_film_waits_behind_few_however_many_are_there() {
        let start = Instant::now();
        let mut settle = Settle::new(Duration::ZERO, PATIENCE);
        let name = |i: i64| format!("film-{i:03}");
        for i in 0..200 {
            settle.sighted(Path::new(&name(i)), FileIdentity { mtime_ns: i, ..file(1) }, start);
        }
        assert_eq!(due(&mut settle, start).len(), 10);
        // A copy of an old film that comes later is fresh too.
        let later = start + Duration::from_secs(1);
        settle.sighted(Path::new("fresh"), FileIdentity { mtime_ns: -5, ..file(1) }, later);
        let mut taken = Vec::new();
        while let [one] = &settle.due(later, 1, 1000, |size| size)[..] {
            taken.push(one.path.display().to_string());
        }
        let place = |wanted: &str| taken.iter().position(|path| path == wanted);
        assert!(place("fresh") <= Some(1), "{:?}", &taken[..4]);
        // The oldest five and the newest five are gone; the rest is taken from both ends, and the last in line.
        let ends: Vec<_> = taken.iter().filter(|path| *path != "fresh").take(4).map(String::as_str).collect();
        assert!(
            [["film-005", "film-194", "film-006", "film-193"], ["film-194", "film-005", "film-193", "film-006"]]
                .contains(&[ends[0], ends[1], ends[2], ends[3]]),
            "{ends:?}"
        );
        assert_eq!(taken.len(), 191, "every film is taken once");
        assert!(taken[191 - LINE..].is_sorted(), "{:?}", &taken[191 - LINE..]);
        assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 191);
    }

    #[test]
    fn ten_thousand_files_without_room_for_them_cost_nothing() {
        let start = Instant::now();
        let mut settle = Settle::new(Duration::ZERO, PATIENCE);
        for i in 0..10_000_i64 {
            settle.sighted(Path::new(&format!("film-{i}")), FileIdentity { mtime_ns: 10_000 - i, ..file(1) }, start);
        }
        assert_eq!(due(&mut settle, start).len(), 10, "as many as asked for, out of all");
        // Each of these would take a millisecond and more if it went through all files.
        let asked = Instant::now();
        let looked_at = std::cell::Cell::new(0);
        for _ in 0..10_000 {
            assert!(settle.due(start, 0, 1000, |size| size).is_empty());
            assert_eq!(settle.next(), None);
            settle.due(start, 1, 1000, |size| {
                looked_at.set(looked_at.get() + 1);
                size
            });
        }
        assert_eq!((looked_at.get(), settle.len()), (9_990, 10_000), "each file was weighed once, when it was taken");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }

    #[test]
    fn a_full_scan_drops_what_it_did_not_meet_unless_it_was_seen_later() {
        let start = Instant::now();
        let mut settle = Settle::new(PAUSE, PATIENCE);
        settle.sighted(Path::new("gone"), file(1), start);
        settle.sighted(Path::new("there"), file(1), start);
        settle.sighted(Path::new("new"), file(1), start + Duration::from_secs(2));
        settle.only(&HashSet::from([PathBuf::from("there")]), start + Duration::from_secs(1));
        assert_eq!(settle.len(), 2);
        assert_eq!(due(&mut settle, start + Duration::from_secs(9)).len(), 2);
    }

    #[test]
    fn only_the_state_handed_out_is_being_examined() {
        let now = Instant::now();
        let mut settle = Settle::new(Duration::ZERO, PATIENCE);
        let path = Path::new("film");
        settle.sighted(path, file(5), now);
        assert!(!settle.is_examining(path, &file(5)));
        assert_eq!(due(&mut settle, now).len(), 1);
        assert!(settle.is_examining(path, &file(5)));
        settle.sighted(path, file(6), now);
        assert!(!settle.is_examining(path, &file(5)) && !settle.is_examining(path, &file(6)));
    }
}
