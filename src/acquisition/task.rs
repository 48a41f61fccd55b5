//! The task that watches the folder and hands out its films.
//!
//! One loop owns all state and never blocks: rounds, looks and examinations run on blocking threads as jobs, at most
//! one round and [`MAX_FILES`] examinations at a time, so a file or server that hangs holds up no other (R11).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::examine::{Examined, examine};
use super::fault::{FAULT_LOG_INTERVAL, FaultLog};
use super::filesystem::WatchMode;
use super::film::{Acquired, InFlight};
use super::identity::{FileIdentity, FilmSource};
use super::ledger::{Ledger, LedgerError};
use super::open::FolderIdentity;
use super::settle::{Due, Settle};
use super::survey::{Sorted, Survey, SurveyError, look, survey};
use super::watch::{Hint, Watcher};
use crate::config::AcquisitionSettings;
use crate::disposition::Disposition;
use crate::pulse::Pulse;

/// Files read at once or waiting, read, for the pipeline.
const MAX_FILES: usize = 4;
/// They may hold this many times `max_file_bytes` together.
const MAX_FILE_SHARES: u64 = 2;
/// A round that takes longer than this says that the folder does not answer.
const STALLED: Duration = Duration::from_secs(60);
/// The longest pause before a missing folder is looked for again.
pub(super) const MISSING_PAUSE: Duration = Duration::from_secs(5);
/// The ledger is pruned this often.
pub(super) const PRUNE_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// How the folder is, for the status topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderState {
    /// The first round is under way.
    Starting,
    /// All is well; set once the first round is through.
    Watching {
        /// How films are noticed.
        mode: WatchMode,
        /// The kind of file system: "local", "nfs", ..
        filesystem: &'static str,
    },
    /// The folder is not there, is not ours to list, or lacks what should be mounted on it (R16).
    Missing {
        /// When that was first noticed.
        since: SystemTime,
    },
    /// A round has been waiting for the file system for a minute.
    Unresponsive {
        /// When the round began.
        since: SystemTime,
    },
}

/// Lasting faults of the folder, each logged and counted on its own (R15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FolderFault {
    /// It is not there, or what should be mounted on it is not; once a look.
    Missing,
    /// Its file system does not answer; once a minute.
    Unresponsive,
    /// Some of its files or folders cannot be looked at; once a round.
    Round,
    /// Links and special files lie in it and are passed over; once a round.
    Special,
    /// A file cannot be read; once a try.
    Unreadable,
    /// A processed film can be neither moved nor deleted; once a try.
    After,
    /// The ledger cannot be read or written.
    Ledger,
    /// The kernel's events cannot be had: films are found by rounds alone.
    Events,
}

/// Whoever counts the folder's faults and knows of the newest film; called on the folder's own task, so it must not
/// wait.
#[derive(Clone)]
pub struct FolderObserver {
    fault: Arc<dyn Fn(FolderFault) + Send + Sync>,
    newest: watch::Sender<Option<SystemTime>>,
}

impl FolderObserver {
    /// Calls `fault` each time one occurs, and keeps in `newest` when the newest film in sight was acquired: from the
    /// first look at its file until the pipeline is through with it.
    pub fn new(fault: impl Fn(FolderFault) + Send + Sync + 'static, newest: watch::Sender<Option<SystemTime>>) -> Self {
        Self { fault: Arc::new(fault), newest }
    }
}

impl std::fmt::Debug for FolderObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FolderObserver")
    }
}

/// The folder can no longer be watched.
#[derive(Debug, thiserror::Error)]
pub enum AcquisitionError {
    /// The ledger is broken.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Nobody takes films any more.
    #[error("the pipeline is gone")]
    PipelineGone,
    /// A job panicked; with what words is not told, they may quote a file (R31).
    #[error("a look at the folder panicked")]
    Panicked,
}

impl From<JoinError> for AcquisitionError {
    fn from(_: JoinError) -> Self {
        Self::Panicked
    }
}

impl AcquisitionError {
    /// What it asks the daemon to do.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::Fatal
    }
}

/// Watches the folder until `shutdown`, handing out each whole film once through `out` and telling how it is in
/// `state`; `observer` hears of every fault, and `pulse` is for the watchdog.
///
/// Films handed out stay the pipeline's; a stop waits for none of them. Jobs that hang in the file system are left to
/// their threads: the runtime should be shut down with a time limit.
///
/// # Errors
/// [`AcquisitionError`], all of them fatal: whatever the folder and its files do is dealt with here.
pub async fn run(
    settings: AcquisitionSettings,
    ledger: Ledger,
    out: mpsc::Sender<Acquired>,
    state: watch::Sender<FolderState>,
    observer: FolderObserver,
    pulse: Pulse,
    shutdown: CancellationToken,
) -> Result<(), AcquisitionError> {
    Folder::new(settings, ledger, out, state, observer).run(&pulse, &shutdown).await
}

pub(super) struct Folder {
    pub(super) settings: Arc<AcquisitionSettings>,
    pub(super) ledger: Ledger,
    pub(super) settle: Settle,
    pub(super) in_flight: Arc<InFlight>,
    /// Read, and waiting for room in `out`.
    pub(super) ready: VecDeque<Acquired>,
    pub(super) jobs: JoinSet<Job>,
    /// Files and bytes of the examinations under way.
    pub(super) reading: (usize, u64),
    pub(super) watcher: Option<Watcher>,
    pub(super) watched: Option<FolderIdentity>,
    pub(super) next_round: Instant,
    pub(super) earliest_round: Instant,
    /// When the round under way began.
    pub(super) round: Option<(Instant, SystemTime)>,
    /// Something happened during the round that it may have missed.
    pub(super) another_round: bool,
    pub(super) next_prune: Instant,
    pub(super) faults: FaultLog<FolderFault>,
    pub(super) state: watch::Sender<FolderState>,
    observer: FolderObserver,
    /// What was done so far, for those who wait for it.
    pub(super) progress: watch::Sender<Progress>,
    out: mpsc::Sender<Acquired>,
}

/// Finished jobs by their kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) rounds: u64,
    pub(super) looks: u64,
    pub(super) examinations: u64,
    pub(super) applications: u64,
}

/// What a blocking thread did.
pub(super) enum Job {
    Surveyed(Box<Result<Survey, SurveyError>>),
    Looked(Result<Sorted, SurveyError>),
    Examined(Due, Result<Examined, LedgerError>),
    Applied(std::io::Result<bool>),
}

impl Folder {
    pub(super) fn new(
        settings: AcquisitionSettings,
        ledger: Ledger,
        out: mpsc::Sender<Acquired>,
        state: watch::Sender<FolderState>,
        observer: FolderObserver,
    ) -> Self {
        let pause = settings.settle.unwrap_or(Duration::from_secs(2));
        let start = now();
        Self {
            settle: Settle::new(pause, settings.max_settle),
            settings: Arc::new(settings),
            ledger,
            in_flight: Arc::default(),
            ready: VecDeque::new(),
            jobs: JoinSet::new(),
            reading: (0, 0),
            watcher: None,
            watched: None,
            next_round: start,
            earliest_round: start,
            round: None,
            another_round: false,
            next_prune: start,
            faults: FaultLog::new(FAULT_LOG_INTERVAL),
            state,
            observer,
            progress: watch::Sender::new(Progress::default()),
            out,
        }
    }

    /// `pulse` is busy while the loop turns. A file or server that hangs is none of it: a restart would not mend it.
    pub(super) async fn run(mut self, pulse: &Pulse, shutdown: &CancellationToken) -> Result<(), AcquisitionError> {
        let mut turn = pulse.busy();
        loop {
            self.start_round();
            self.start_examinations();
            self.tell_newest();
            let wake = tokio::time::Instant::from_std(self.wake());
            drop(turn);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                sent = send_first(&self.out, &mut self.ready), if !self.ready.is_empty() => sent?,
                Some(job) = self.jobs.join_next() => self.finished(job?)?,
                hint = next_hint(&mut self.watcher) => self.hinted(hint),
                returned = self.in_flight.returned() => self.look_at(returned.into_iter().map(|s| s.path).collect()),
                () = tokio::time::sleep_until(wake) => self.check_round(),
            }
            turn = pulse.busy();
        }
    }

    fn start_round(&mut self) {
        if self.round.is_some() || now() < self.next_round {
            return;
        }
        self.round = Some((now(), SystemTime::now()));
        self.another_round = false;
        let watched = self.watched.zip(self.watcher.as_ref().map(Watcher::inotify));
        let prune = now() >= self.next_prune;
        let (settings, ledger) = (Arc::clone(&self.settings), self.ledger.clone());
        self.jobs.spawn_blocking(move || Job::Surveyed(Box::new(survey(&settings, &ledger, watched, prune))));
    }

    /// Asks for a round soon: as soon as one is allowed, and after the one under way.
    pub(super) fn round_soon(&mut self) {
        self.another_round = true;
        self.next_round = self.next_round.min(self.earliest_round.max(now()));
    }

    fn start_examinations(&mut self) {
        let (reading, bytes) = self.reading;
        let waiting: u64 = self.ready.iter().map(Acquired::bytes_held).sum();
        let files = MAX_FILES.saturating_sub(reading + self.ready.len());
        let limit = self.settings.max_file_bytes;
        let bytes = limit.saturating_mul(MAX_FILE_SHARES).saturating_sub(bytes + waiting);
        for due in self.settle.due(now(), files, bytes, |size| cost(size, limit)) {
            self.reading.0 += 1;
            self.reading.1 += cost(due.file.size, limit);
            let (settings, ledger) = (Arc::clone(&self.settings), self.ledger.clone());
            let in_flight = Arc::clone(&self.in_flight);
            self.jobs.spawn_blocking(move || {
                let verdict = examine(&settings, &ledger, &in_flight, &due);
                Job::Examined(due, verdict)
            });
        }
    }

    /// Looks at some files, whatever they are: new, changed, gone, or done.
    pub(super) fn look_at(&mut self, paths: Vec<PathBuf>) {
        let (settings, ledger) = (Arc::clone(&self.settings), self.ledger.clone());
        self.jobs.spawn_blocking(move || Job::Looked(look(&settings, &ledger, paths)));
    }

    /// Records that the file holds a film which ended before, and looks at what is to become of it.
    pub(super) fn know(&mut self, source: FilmSource) {
        let (settings, ledger) = (Arc::clone(&self.settings), self.ledger.clone());
        self.jobs.spawn_blocking(move || {
            let known = ledger.know(std::slice::from_ref(&source)).map_err(SurveyError::from);
            Job::Looked(known.and_then(|()| look(&settings, &ledger, [source.path])))
        });
    }

    fn hinted(&mut self, hint: std::io::Result<Hint>) {
        match hint {
            Ok(Hint::Files(files)) => self.look_at(files.into_iter().collect()),
            Ok(Hint::Everything) => self.round_soon(),
            Err(error) => {
                // The next round makes a new inotify object.
                self.watcher = None;
                self.round_soon();
                self.fault(FolderFault::Events, &error);
            }
        }
    }

    fn tell_newest(&self) {
        let newest = self.settle.newest().map(FileIdentity::modified).max(self.in_flight.newest());
        self.observer.newest.send_if_modified(|told| std::mem::replace(told, newest) != newest);
    }

    fn check_round(&mut self) {
        if let Some((started, since)) = self.round
            && now() >= started + STALLED
        {
            self.tell(FolderState::Unresponsive { since });
            self.fault(FolderFault::Unresponsive, &"the file system does not answer");
        }
    }

    fn wake(&self) -> Instant {
        let now = now();
        let round = match self.round {
            Some((started, _)) if now < started + STALLED => started + STALLED,
            Some(_) => now + STALLED,
            None => self.next_round,
        };
        // One that fell due since the last look is in the past: the loop turns at once. What is due and was looked at
        // waits for room, which a job or the pipeline makes, and is not named here.
        self.settle.next().map_or(round, |due| due.min(round))
    }

    pub(super) fn tell(&self, state: FolderState) {
        self.state.send_if_modified(|told| {
            let lasting = matches!((&*told, &state), (FolderState::Missing { .. }, FolderState::Missing { .. }));
            let news = *told != state && !lasting;
            if news {
                *told = state;
            }
            news
        });
    }

    pub(super) fn fault(&mut self, fault: FolderFault, what: &dyn std::fmt::Display) {
        (self.observer.fault)(fault);
        if let Some(times) = self.faults.occurred(fault, now()) {
            let total = self.faults.total(&fault);
            match fault {
                FolderFault::Missing | FolderFault::Unresponsive | FolderFault::Ledger => {
                    tracing::error!(?fault, times, total, "acquisition: {what}");
                }
                _ => tracing::warn!(?fault, times, total, "acquisition: {what}"),
            }
        }
    }
}

/// Bytes that examining a file of some size holds: one over the limit is not read.
pub(super) fn cost(size: u64, limit: u64) -> u64 {
    if size > limit { 0 } else { size }
}

/// The runtime's clock, which tests can stop.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Hands out the first ready film once there is room for it; safe to drop while waiting.
async fn send_first(out: &mpsc::Sender<Acquired>, ready: &mut VecDeque<Acquired>) -> Result<(), AcquisitionError> {
    let permit = out.reserve().await.map_err(|_| AcquisitionError::PipelineGone)?;
    if let Some(acquired) = ready.pop_front() {
        permit.send(acquired);
    }
    Ok(())
}

async fn next_hint(watcher: &mut Option<Watcher>) -> std::io::Result<Hint> {
    match watcher {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(super) mod tests;
