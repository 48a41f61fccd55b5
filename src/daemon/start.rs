//! Getting ready: the settings, the state, the model and its self-test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::accelerate::Candidate;
use super::bundles::{Bundles, Chosen};
use super::condition::ConditionBoard;
use super::supervise::{Ended, supervise};
use super::visible::{self, Visible, Waiting};
use super::worker::WorkerError;
use super::{disk, machine, starts};
use crate::acquisition::{AttemptMark, Ledger, Quarantine, QuarantineError};
use crate::analysis::{Analyst, AnalystOptions, Golden};
use crate::config::Settings;
use crate::inference::{Localizer, SELF_TEST_TOLERANCE_PX};
use crate::model::{Bundle, End, RolledBack};
use crate::mqtt::{self, LinkState};
use crate::outbox::Outbox;
use crate::report::{EventKind, Topics};
use crate::store::{DiskRoom, Store, is_full};
use crate::telemetry::Root;

/// A panic's own words may quote a film (R31); the journal has its place in the source.
pub(super) const PANICKED: &str = "a part of the daemon panicked";

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The settings or the model bundle cannot serve; starting again will not help until a person acts.
    #[error("{0:#}")]
    Unfit(anyhow::Error),
    /// A party failed while running; the service manager starts us again.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// Each time the configuration is read again: the new settings, or in words what is wrong with them.
pub type Reloads = mpsc::Receiver<Result<Settings, String>>;

/// Runs until `shutdown`, then finishes what is in hand under `settings.daemon.drain`.
///
/// Whatever comes from `reloads` replaces the settings, or is refused and the old ones stay (R37).
///
/// # Errors
/// [`DaemonError::Unfit`] before anything runs; [`DaemonError::Failed`] when a party ends early.
pub async fn run(settings: Settings, mut reloads: Reloads, shutdown: CancellationToken) -> Result<(), DaemonError> {
    let prepared = prepare(&settings).map_err(DaemonError::Unfit)?;
    let room = DiskRoom::patient(&settings.state.directory);
    let _attended = AbortOnDropHandle::new(tokio::spawn(disk::attend(room.clone(), shutdown.clone())));
    let opened = tokio::task::spawn_blocking({
        let (settings, room) = (settings.clone(), room.clone());
        move || open(&settings, room)
    });
    let state = match opened.await.map_err(|_| DaemonError::Failed(anyhow!(PANICKED)))? {
        Ok(state) => state,
        // It waited for room until it was to stop.
        Err(_) if room.refused() => return Ok(()),
        Err(error) => return Err(DaemonError::Failed(error)),
    };
    // Dropped before the state, whose last words must not wait for room.
    let _ended = disk::GiveUp(room);
    let run = starts::begin(state.store.database());
    let mut serving = match ready(settings, prepared, &state).await {
        Ok(serving) => serving,
        Err(error) => {
            if matches!(error, DaemonError::Unfit(_)) {
                // The service manager does not start us again: no loop.
                starts::end_cleanly(state.store.database(), run);
            }
            return Err(error);
        }
    };
    if run.is_safe {
        error!(
            "safe mode: the daemon ended again and again; a film it ended on goes to the quarantine without another \
             try, until ten minutes have passed quietly"
        );
        serving.safe_until = Some(Instant::now() + Duration::from_secs(starts::WINDOW_S));
    }
    let condition = Arc::new(ConditionBoard::new(serving.analyst.model().clone()));
    // One for the whole run: connections are counted through (R26).
    let links = watch::Sender::new(LinkState::default());
    let visible = Arc::new(Visible::new(&serving.settings.health, Waiting::new(state.waiting.0, state.waiting.1)));
    let _machine = machine::watch(Root::of_this_machine(), Arc::clone(&condition), Arc::clone(&visible));
    let _server = AbortOnDropHandle::new(tokio::spawn(visible::serve(
        Arc::clone(&visible),
        serving.settings.health.clone(),
        condition.subscribe(),
        links.subscribe(),
        shutdown.clone(),
    )));
    loop {
        let ended = supervise(serving, &state, &condition, &visible, &links, &mut reloads, &shutdown).await;
        match ended {
            Ok(Ended::Stopped) => {
                starts::end_cleanly(state.store.database(), run);
                state.note(End::Clean).await;
                return Ok(());
            }
            Ok(Ended::Renewed(renewed)) => serving = *renewed,
            Err(error) => {
                // What is not noted counts against the bundle.
                if !error.downcast_ref().is_some_and(WorkerError::is_the_models) {
                    state.note(End::Clean).await;
                }
                return Err(DaemonError::Failed(error));
            }
        }
    }
}

/// Settings that may be run, and the model that has passed its self-test under them.
pub(super) struct Serving {
    pub(super) settings: Settings,
    pub(super) topics: Topics,
    pub(super) analyst: Analyst,
    /// To try the analyst with while it serves.
    pub(super) golden: Golden,
    /// For the GPU to take over from the analyst's processor.
    pub(super) candidate: Candidate,
    /// The installed bundle that was taken out of service for this one.
    pub(super) rolled_back: Option<RolledBack>,
    /// Safe mode holds until then.
    pub(super) safe_until: Option<Instant>,
}

/// What must be right before anything starts.
pub(super) struct Prepared {
    topics: Topics,
}

/// What survives a restart, and is kept when the configuration is read again.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) outbox: Arc<Outbox>,
    pub(super) ledger: Ledger,
    pub(super) quarantine: Quarantine,
    pub(super) attempt_mark: Arc<AttemptMark>,
    pub(super) bundles: Arc<Bundles>,
    /// How many events waited at the start, and when the oldest of them was acquired.
    pub(super) waiting: (u64, Option<SystemTime>),
}

impl State {
    /// Notes how the run with the present bundle ended.
    async fn note(&self, end: End) {
        let bundles = Arc::clone(&self.bundles);
        // Where it cannot be run the process is going away, and the run counts as one that died.
        let _noted = tokio::task::spawn_blocking(move || bundles.ended(end)).await;
    }
}

/// Blocking: it reads the broker's files.
pub(super) fn prepare(settings: &Settings) -> anyhow::Result<Prepared> {
    let topics = Topics::new(&settings.site.site, &settings.site.device)?;
    mqtt::check(&settings.mqtt)?;
    Ok(Prepared { topics })
}

/// Blocking: it reads and writes the state.
pub(super) fn open(settings: &Settings, room: DiskRoom) -> anyhow::Result<State> {
    let directory = &settings.state.directory;
    let store = Store::open_in(room.clone(), directory, settings.result.token_key_file.as_deref())?;
    let outbox = Arc::new(Outbox::open(&store)?);
    let ledger = Ledger::open(Arc::clone(store.database()))?;
    let quarantine =
        room.wait_while(|error: &QuarantineError| is_full(&error.source), || Quarantine::open(directory))?;
    let attempt_mark = room
        .wait_for(|| AttemptMark::open(directory, store.boot()))
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    if let Some(film) = attempt_mark.settle(&ledger, SystemTime::now())? {
        warn!("the daemon ended while it worked on film {}: that is an attempt", &film.to_string()[..12]);
    }
    let waiting = outbox.len()?;
    info!("state in {}: epoch {}, {waiting} events wait for the broker", directory.display(), store.epoch());
    let heads = [outbox.head(EventKind::Result)?, outbox.head(EventKind::Error)?];
    let since = heads.into_iter().flatten().map(|head| head.draft.acquired).min();
    let (attempt_mark, bundles, waiting) = (Arc::new(attempt_mark), Arc::default(), (waiting, since));
    Ok(State { store, outbox, ledger, quarantine, attempt_mark, bundles, waiting })
}

/// Chooses the bundle and has its network pass the self-test, off the runtime's threads; its bytes are then let go.
///
/// Where an installed bundle fails here although it passed in a process of its own, the one before it takes its place.
///
/// # Errors
/// [`DaemonError::Failed`] where no installed bundle can serve; [`DaemonError::Unfit`] where the only one there is
/// cannot.
pub(super) async fn ready(settings: Settings, prepared: Prepared, state: &State) -> Result<Serving, DaemonError> {
    let Prepared { topics } = prepared;
    let mut chosen = choose(&settings, state).await?;
    loop {
        let Chosen { bundle, directory, installed, rolled_back } = chosen;
        let error = match load(bundle, directory, &settings, &state.store).await {
            Ok((analyst, golden, candidate)) => {
                if installed.is_none() {
                    state.note(End::Clean).await;
                }
                return Ok(Serving { settings, topics, analyst, golden, candidate, rolled_back, safe_until: None });
            }
            Err(error) => error,
        };
        let Some(id) = installed else { return Err(error) };
        let failed = || End::SelfTestFailed { reason: error.to_string() };
        state.note(failed()).await;
        chosen = choose(&settings, state).await?;
        if chosen.installed == Some(id) {
            // There is no way back, and it would fail again.
            state.note(failed()).await;
            return Err(match error {
                DaemonError::Unfit(error) | DaemonError::Failed(error) => DaemonError::Failed(error),
            });
        }
    }
}

async fn choose(settings: &Settings, state: &State) -> Result<Chosen, DaemonError> {
    let (bundles, settings) = (Arc::clone(&state.bundles), settings.clone());
    let chosen = tokio::task::spawn_blocking(move || bundles.choose(&settings)).await;
    chosen.map_err(|_| DaemonError::Failed(anyhow!(PANICKED)))?
}

async fn load(
    bundle: Bundle,
    directory: PathBuf,
    settings: &Settings,
    store: &Store,
) -> Result<(Analyst, Golden, Candidate), DaemonError> {
    let options = AnalystOptions {
        max_pixels: settings.acquisition.max_pixels,
        pixel_spacing: settings.acquisition.pixel_spacing,
        norms: settings.measures.clone(),
        token_key: store.token_key().clone(),
    };
    let state = settings.state.directory.clone();
    let tried = tokio::task::spawn_blocking(move || {
        let (guard, handover) = Candidate::guard(&state);
        let localizer = Localizer::new(&bundle)?.over(guard);
        let mut analyst = Analyst::with_localizer(localizer, &bundle, options);
        let golden = Golden::of(&bundle);
        let reference = analyst.find_golden(&golden)?;
        let off_px = golden.off_px(&reference);
        if off_px.is_nan() || off_px > SELF_TEST_TOLERANCE_PX {
            return Err(anyhow!(
                "the self-test failed: on the bundle's golden film a landmark is {off_px:.2} px from where it should \
                 be, {SELF_TEST_TOLERANCE_PX} px are allowed; reinstall the model bundle"
            ));
        }
        let model = analyst.model();
        info!("{} {} on {}: self-test within {off_px:.3} px", model.name, model.version, model.backend);
        let candidate = Candidate::new(handover, &bundle, directory, golden.clone(), reference);
        drop(bundle);
        return_freed_memory();
        Ok((analyst, golden, candidate))
    });
    tried.await.map_err(|_| DaemonError::Failed(anyhow!(PANICKED)))?.map_err(DaemonError::Unfit)
}

/// Gives the system back what loading a network has freed: its file, its graph and its plain kernels, about a hundred
/// megabytes that the allocator would keep for ever.
fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "glibc has no other door to this")]
    // SAFETY: malloc_trim has no preconditions and may be called from any thread (malloc_trim(3), "MT-Safe").
    unsafe {
        libc::malloc_trim(0);
    }
}
