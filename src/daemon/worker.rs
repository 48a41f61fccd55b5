//! The thread that owns the network: one film after another, from the folder's hand into the outbox.

use std::error::Error;
use std::io;
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use redb::Database;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::canary::{Canary, Verdict};
use super::condition::ConditionBoard;
use super::disk::Gate;
use super::restraint::Restraint;
use super::visible::Visible;
use crate::acquisition::{
    Acquired, AcquiredFilm, AttemptMark, FAULT_LOG_INTERVAL, FaultLog, FilmSource, Ledger, LedgerError, Outcome,
    Quarantine, QuarantineError, Reason, Refusal, RefusedFile,
};
use crate::analysis::{Analysis, Analyst};
use crate::crash_point;
use crate::disposition::Disposition;
use crate::health::FilmEnd;
use crate::outbox::{Outbox, OutboxError};
use crate::pulse::Pulse;
use crate::report::{Draft, EventId, FilmError, Origin, ReportError, Stage};
use crate::store::{DiskRoom, is_full};

/// How long the worker rests after the disk refused it, before it takes the next film.
const REST_AFTER_FAULT: Duration = Duration::from_secs(1);

/// Everything a film needs on its way; one thread owns it.
pub(super) struct Worker {
    pub(super) analyst: Analyst,
    pub(super) canary: Canary,
    pub(super) database: Arc<Database>,
    pub(super) ledger: Ledger,
    pub(super) outbox: Arc<Outbox>,
    pub(super) quarantine: Quarantine,
    pub(super) attempt_mark: Arc<AttemptMark>,
    pub(super) origin: Origin,
    /// Part of every event's id (R27).
    pub(super) config_hash: String,
    pub(super) room: DiskRoom,
    /// Closed while there is no room for a result.
    pub(super) gate: Arc<Gate>,
    /// Has the backlog wait while the machine throttles.
    pub(super) restraint: Restraint,
    pub(super) condition: Arc<ConditionBoard>,
    pub(super) visible: Arc<Visible>,
    /// Busy with a film; to wait for one is no work.
    pub(super) pulse: Pulse,
    pub(super) shutdown: CancellationToken,
}

/// Why a film could not be finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error("the event cannot be written")]
    Report(#[from] ReportError),
    #[error("the state cannot be written")]
    Store(#[source] Box<redb::Error>),
    #[error("the attempt cannot be marked on the disk")]
    Mark(#[source] io::Error),
    #[error("the model fails: {0}")]
    Model(String),
    #[error("the golden film was off twice in a row, so results may be wrong: {0}")]
    Canary(String),
    #[error("the thread panicked")]
    Panicked,
}

impl WorkerError {
    fn store(error: impl Into<redb::Error>) -> Self {
        Self::Store(Box::new(error.into()))
    }

    /// Whether the bundle is the first suspect.
    pub(super) const fn is_the_models(&self) -> bool {
        matches!(self, Self::Model(_) | Self::Canary(_) | Self::Panicked)
    }

    /// What refused: the cause of a log line, however many films meet it (R15).
    const fn kind(&self) -> Discriminant<Self> {
        std::mem::discriminant(self)
    }

    /// The disk or our state refused, not the film: its attempt must not count, whether or not the daemon goes on.
    const fn is_of_the_disk(&self) -> bool {
        match self {
            Self::Ledger(_) | Self::Outbox(_) | Self::Quarantine(_) | Self::Store(_) | Self::Mark(_) => true,
            Self::Report(_) | Self::Model(_) | Self::Canary(_) | Self::Panicked => false,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::Ledger(error) => error.disposition(),
            Self::Outbox(error) => error.disposition(),
            Self::Quarantine(error) => error.disposition(),
            Self::Store(error) if matches!(**error, redb::Error::Io(_)) => Disposition::Retry,
            Self::Mark(_) => Disposition::Retry,
            Self::Store(_) | Self::Report(_) | Self::Model(_) | Self::Canary(_) | Self::Panicked => Disposition::Fatal,
        }
    }
}

impl Worker {
    /// Takes films until the folder has no more to give or a stop is asked for.
    ///
    /// A film that is dropped unfinished is handed out again by the folder, now or after the next start. While none
    /// comes, the golden film is tried when it is due; `runtime` keeps the time.
    pub(super) fn run(mut self, mut films: mpsc::Receiver<Acquired>, runtime: &Handle) -> Result<(), WorkerError> {
        let mut faults = FaultLog::new(FAULT_LOG_INTERVAL);
        loop {
            let next = match self.canary.due() {
                // A film that is there comes first, however long the golden one is due.
                Some(due) => runtime.block_on(async { timeout_at(due, films.recv()).await }),
                None => Ok(films.blocking_recv()),
            };
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            let acquired = match next {
                Ok(Some(acquired)) => acquired,
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.try_golden()?;
                    continue;
                }
            };
            if !self.gate.pass(&self.shutdown) {
                return Ok(());
            }
            self.spare_the_machine(&acquired, runtime);
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            let busy = self.pulse.busy();
            crash_point::reach("film.received");
            let taken = match acquired {
                Acquired::Film(film) => self.film(&film),
                Acquired::Exhausted(film) => self.exhausted(&film),
                Acquired::Refused(file) => self.refused(&file),
            };
            drop(busy);
            let Err(fault) = taken else { continue };
            if fault.disposition() != Disposition::Retry {
                return Err(fault);
            }
            self.visible.store_failed();
            // By what refused, not by the words: they may name this film's entry in the quarantine.
            if let Some(times) = faults.occurred(fault.kind(), Instant::now()) {
                let cause = chain(&fault).join(": ");
                warn!("a film must wait, it stays in the folder and is tried again ({times} times so far): {cause}");
            }
            std::thread::sleep(REST_AFTER_FAULT);
        }
    }

    /// Waits before a film of the backlog while the machine throttles; the film is in hand and not begun.
    fn spare_the_machine(&mut self, acquired: &Acquired, runtime: &Handle) {
        let Acquired::Film(film) = acquired else { return };
        if self.restraint.applies(film.acquired) {
            let _pausing = self.visible.pausing();
            runtime.block_on(self.restraint.pause(film.acquired, &self.shutdown));
        }
    }

    /// Nothing of it leaves but what the status says.
    fn try_golden(&mut self) -> Result<(), WorkerError> {
        let busy = self.pulse.busy();
        let mut tried = self.analyst.try_golden(&self.canary.golden);
        let mut allowed_px = self.analyst.tolerance_px();
        if !tried.as_ref().is_ok_and(|off_px| *off_px <= allowed_px)
            && self.analyst.fall_back("it does not read the golden film as it should")
        {
            // Is it the GPU alone?
            tried = self.analyst.try_golden(&self.canary.golden);
            allowed_px = self.analyst.tolerance_px();
        }
        drop(busy);
        let verdict = self.canary.judge(tried, allowed_px, tokio::time::Instant::now());
        let (off_px, fails) = match &verdict {
            Verdict::Well { off_px } => (Some(*off_px), false),
            Verdict::Failed { off_px, .. } | Verdict::GiveUp { off_px, .. } => (*off_px, true),
        };
        self.visible.canary(off_px);
        self.condition.canary(fails);
        match verdict {
            Verdict::Well { off_px } => debug!("the golden film is within {off_px:.3} px"),
            Verdict::Failed { why, .. } => {
                error!(
                    "the golden film is not read as it should be, so results may be wrong: {why}; if it happens again \
                     the daemon ends, and its next start loads the network anew"
                );
            }
            Verdict::GiveUp { why, .. } => {
                error!("the golden film is not read as it should be again: {why}; the daemon ends to be started anew");
                return Err(WorkerError::Canary(why));
            }
        }
        Ok(())
    }

    fn film(&mut self, film: &AcquiredFilm) -> Result<(), WorkerError> {
        self.room.wait_for(|| self.attempt_mark.begin(film.source.film)).map_err(WorkerError::Mark)?;
        self.attempt(film, film.attempts + 1).inspect_err(|fault| {
            if fault.is_of_the_disk()
                && let Err(error) = self.attempt_mark.clear()
            {
                let name = film.source.film.to_string();
                error!("the disk takes nothing at all, so film {} may have one attempt less: {error}", short(&name));
            }
        })
    }

    fn attempt(&mut self, film: &AcquiredFilm, attempts: u32) -> Result<(), WorkerError> {
        let analysis = match self.analyst.analyse(&film.bytes) {
            Ok(analysis) => analysis,
            Err(error) if error.disposition() == Disposition::Reject => {
                return self.quarantine_film(film, error.stage(), chain(&error), attempts);
            }
            Err(error) => return Err(WorkerError::Model(chain(&error).join(": "))),
        };
        crash_point::reach("film.analysed");
        let Analysis { result, .. } = &analysis;
        let id = EventId::of_result(&result.image.sha256, &result.model.sha256, &self.config_hash);
        match self.origin.result(id, result, film.acquired, SystemTime::now()) {
            Ok(draft) => {
                let sequence = self.commit(&draft, &film.source, |sequence| Outcome::Done { sequence })?;
                let timing = &result.timing;
                info!(
                    "film {}: {} landmarks, event {sequence}; decoded in {:.0} ms, framed in {:.0} ms, localized in \
                     {:.0} ms",
                    short(&result.image.sha256),
                    result.landmarks.len(),
                    timing.decode_ms,
                    timing.frame_ms,
                    timing.inference_ms
                );
                self.visible.accepted(sequence, film.acquired, analysis);
                Ok(())
            }
            Err(error) => self.quarantine_film(film, Stage::Report, chain(&error), attempts),
        }
    }

    fn exhausted(&self, film: &AcquiredFilm) -> Result<(), WorkerError> {
        let why = format!("the daemon ended {} times while it worked on this film", film.attempts);
        self.quarantine_film(film, Stage::Crash, vec![why], film.attempts)
    }

    fn quarantine_film(
        &self,
        film: &AcquiredFilm,
        stage: Stage,
        errors: Vec<String>,
        attempts: u32,
    ) -> Result<(), WorkerError> {
        let message = errors.join(": ");
        let mut reason = Reason::new(film.source.film, stage, errors, attempts, film.acquired);
        let model = self.analyst.model();
        reason.model = Some(format!("{} {}", model.name, model.version));
        let put = || self.quarantine.put(film.source.film, &film.bytes, &reason);
        let entry = self.room.wait_while(|error| is_full(&error.source), put)?;
        let name = film.source.film.to_string();
        let refusal = FilmError { image_sha256: Some(name.clone()), stage, message: message.clone(), attempts };
        let sequence =
            self.refuse(&refusal, &name, &film.source, film.acquired, |sequence| Outcome::Quarantined { sequence })?;
        warn!("film {}: refused as event {sequence}, kept in {}: {message}", short(&name), entry.display());
        self.visible.refused(sequence, quarantined(stage), film.acquired);
        Ok(())
    }

    fn refused(&self, file: &RefusedFile) -> Result<(), WorkerError> {
        let name = file.source.film.to_string();
        let image_sha256 = (!file.source.is_unread()).then(|| name.clone());
        let message = file.why.to_string();
        let refusal = FilmError { image_sha256, stage: Stage::Read, message: message.clone(), attempts: 0 };
        let outcome = |sequence| Outcome::Refused { sequence };
        let sequence = self.refuse(&refusal, &name, &file.source, file.acquired, outcome)?;
        warn!("film {}: refused as event {sequence}: {message}", short(&name));
        let end = match file.why {
            Refusal::Incomplete { .. } => FilmEnd::Incomplete,
            Refusal::TooLarge { .. } => FilmEnd::TooLarge,
            Refusal::Unreadable => FilmEnd::Unreadable,
        };
        self.visible.refused(sequence, end, file.acquired);
        Ok(())
    }

    fn refuse(
        &self,
        refusal: &FilmError,
        name: &str,
        source: &FilmSource,
        acquired: SystemTime,
        outcome: impl FnOnce(u64) -> Outcome,
    ) -> Result<u64, WorkerError> {
        let id = EventId::of_error(name, &self.analyst.model().sha256, &self.config_hash);
        let draft = self.origin.error(id, refusal, acquired, SystemTime::now())?;
        self.commit(&draft, source, outcome)
    }

    /// The event, its sequence number and the film's end become durable together, or not at all (R17).
    fn commit(
        &self,
        draft: &Draft,
        source: &FilmSource,
        outcome: impl FnOnce(u64) -> Outcome,
    ) -> Result<u64, WorkerError> {
        let (now, began) = (SystemTime::now(), Instant::now());
        let tx = self.database.begin_write().map_err(WorkerError::store)?;
        let sequence = self.outbox.append(&tx, draft)?;
        self.ledger.finish(&tx, source, outcome(sequence), now)?;
        crash_point::reach("event.appended");
        self.visible.queueing(sequence);
        crash_point::step("film.commit", || tx.commit())
            .map_err(WorkerError::store)
            .inspect_err(|_| self.visible.not_queued(sequence))?;
        self.visible.queued(draft.kind, began.elapsed());
        self.outbox.wake();
        self.condition.film_finished(now);
        Ok(sequence)
    }
}

/// Why a film is kept in the quarantine.
const fn quarantined(stage: Stage) -> FilmEnd {
    match stage {
        // A film is read before it gets here; what fails then is its bytes.
        Stage::Read | Stage::Decode => FilmEnd::Decode,
        Stage::Inference => FilmEnd::Inference,
        Stage::Report => FilmEnd::Report,
        Stage::Crash => FilmEnd::Crash,
    }
}

/// An error and its causes, outermost first.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts
}

/// The start of a digest: enough to find a film by, in a log line.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the worker panicked; the daemon stops and its service manager starts it again");
        }
    }
}
