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
    /// All files by their modification time, the oldest first.
    times: BTreeSet<(i64, Arc<Path>)>,
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
            times: BTreeSet::new(),
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
                self.times.insert((file.mtime_ns, Arc::clone(&path)));
                self.files.insert(path, changed);
            }
        }
    }

    /// The file is taken, refused, known already, or gone.
    pub fn forget(&mut self, path: &Path) {
        if let Some((path, candidate)) = self.files.remove_entry(path) {
            self.unlist(&path, &candidate);
            self.times.remove(&(candidate.file.mtime_ns, path));
        }
    }

    /// The folder is gone, and so are all its files.
    pub fn clear(&mut self) {
        self.files.clear();
        self.waiting.clear();
        self.ready.clear();
        self.arrivals.clear();
        self.times.clear();
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

    /// The file that was modified last, of those that are waiting or being examined.
    #[must_use]
    pub fn newest(&self) -> Option<&FileIdentity> {
        let (_, path) = self.times.last()?;
        self.files.get(path).map(|known| &known.file)
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
mod tests;
