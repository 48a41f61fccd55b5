//! Start, supervision and the graceful stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::condition::ConditionBoard;
use super::service_manager;
use super::watchdog;
use super::worker::Worker;
use crate::acquisition::{self, FolderState, Ledger, Quarantine};
use crate::analysis::{Analyst, AnalystOptions};
use crate::config::Settings;
use crate::health;
use crate::inference::SELF_TEST_TOLERANCE_PX;
use crate::model::Bundle;
use crate::mqtt::{self, LinkState, Publisher};
use crate::outbox::Outbox;
use crate::pulse::Pulse;
use crate::report::{Info, Origin, Topics};
use crate::store::Store;

/// A panic's own words may quote a film (R31); the journal has its place in the source.
const PANICKED: &str = "a part of the daemon panicked";

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

/// Runs until `shutdown`, then finishes what is in hand under `settings.daemon.drain`.
///
/// # Errors
/// [`DaemonError::Unfit`] before anything runs; [`DaemonError::Failed`] when a party ends early.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), DaemonError> {
    let prepared = prepare(&settings).map_err(DaemonError::Unfit)?;
    let state = tokio::task::spawn_blocking({
        let settings = settings.clone();
        move || open(&settings)
    });
    let state = state.await.map_err(|_| DaemonError::Failed(anyhow!(PANICKED)))?.map_err(DaemonError::Failed)?;
    let Prepared { bundle, topics } = prepared;
    let analyst = ready_analyst(&settings, bundle, &state.store).await?;
    supervise(settings, topics, state, analyst, shutdown).await.map_err(DaemonError::Failed)
}

/// What must be right before anything starts.
struct Prepared {
    bundle: Bundle,
    topics: Topics,
}

/// What survives a restart.
struct State {
    store: Store,
    outbox: Arc<Outbox>,
    ledger: Ledger,
    quarantine: Quarantine,
}

fn prepare(settings: &Settings) -> anyhow::Result<Prepared> {
    let bundle = Bundle::open(&settings.model.directory)?;
    let topics = Topics::new(&settings.site.site, &settings.site.device)?;
    mqtt::check(&settings.mqtt)?;
    Ok(Prepared { bundle, topics })
}

fn open(settings: &Settings) -> anyhow::Result<State> {
    let directory = &settings.state.directory;
    let store = Store::open(directory, settings.result.token_key_file.as_deref())?;
    let outbox = Arc::new(Outbox::open(&store)?);
    let ledger = Ledger::open(Arc::clone(store.database()))?;
    let quarantine = Quarantine::open(directory)?;
    let waiting = outbox.len()?;
    info!("state in {}: epoch {}, {waiting} events wait for the broker", directory.display(), store.epoch());
    Ok(State { store, outbox, ledger, quarantine })
}

async fn supervise(
    settings: Settings,
    topics: Topics,
    state: State,
    analyst: Analyst,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let State { store, outbox, ledger, quarantine } = state;
    let condition = Arc::new(ConditionBoard::new(analyst.model().clone()));
    let mut pulses = vec![store.pulse().clone()];
    let mut pulse = |stage| {
        pulses.push(Pulse::new(stage));
        pulses[pulses.len() - 1].clone()
    };
    let info = Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        site: settings.site.site.clone(),
        device: settings.site.device.clone(),
        epoch: store.epoch().to_owned(),
        model: analyst.model().clone(),
        landmarks: analyst.landmark_names().to_vec(),
    };
    let publisher = Publisher {
        settings: settings.mqtt.clone(),
        require_subscriber: settings.result.require_subscriber,
        fresh: settings.result.fresh,
        topics: topics.clone(),
        boot_id: store.boot_id(),
        info,
        outbox: Arc::clone(&outbox),
        pulse: pulse("the publisher"),
    };

    // Two stops in a row: the folder and the worker first, and only when nothing is appended any more the publisher.
    let (no_more_films, no_more_events) = (CancellationToken::new(), CancellationToken::new());
    let worker = Worker {
        analyst,
        database: Arc::clone(store.database()),
        ledger: ledger.clone(),
        outbox,
        quarantine,
        origin: Origin::new(&topics),
        config_hash: settings.hash(),
        condition: Arc::clone(&condition),
        pulse: pulse("the worker"),
        shutdown: no_more_films.clone(),
    };
    let (film_sender, film_receiver) = mpsc::channel(1);
    let (folder_sender, folder_receiver) = watch::channel(FolderState::Starting);
    let link_sender = watch::Sender::new(LinkState::default());
    let drain = settings.daemon.drain;

    let mut intake = JoinSet::new();
    intake.spawn(party("the folder", {
        let (settings, stop) = (settings.acquisition.clone(), no_more_films.clone());
        let run = acquisition::run(settings, ledger, film_sender, folder_sender, pulse("the folder"), stop);
        async { Ok(run.await?) }
    }));
    intake.spawn(party("the worker", on_own_thread(worker, film_receiver)));
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(watchdog::run(pulses, settings.daemon.budget)));
    let mut delivery = JoinSet::new();
    delivery.spawn(party("the publisher", {
        let run = publisher.run(condition.subscribe(), link_sender, no_more_events.clone(), drain);
        async { Ok(run.await?) }
    }));
    delivery.spawn({
        let (condition, stop) = (Arc::clone(&condition), no_more_events.clone());
        let folder = folder_receiver.clone();
        async move {
            condition.follow_folder(folder, stop).await;
            Ok(())
        }
    });
    delivery.spawn(tell_ready(folder_receiver, settings.acquisition.folder.display().to_string(), shutdown.clone()));

    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = early_end(&mut intake) => Some(ended),
        ended = early_end(&mut delivery) => Some(ended),
    };
    service_manager::stopping();
    no_more_films.cancel();
    let intake_result = within(drain, "a film in hand", join_all(&mut intake)).await;
    no_more_events.cancel();
    // The publisher keeps the drain's deadline itself; the margin is for its goodbye.
    let delivery_result = within(drain + Duration::from_secs(2), "the broker", join_all(&mut delivery)).await;
    match ended {
        Some(error) => Err(error),
        None => intake_result.and(delivery_result),
    }
}

/// Loads the network and tries it on the golden film, off the runtime's threads; the bundle's bytes are then let go.
async fn ready_analyst(settings: &Settings, bundle: Bundle, store: &Store) -> Result<Analyst, DaemonError> {
    let options = AnalystOptions {
        max_pixels: settings.acquisition.max_pixels,
        pixel_spacing: settings.acquisition.pixel_spacing,
        token_key: store.token_key().clone(),
    };
    let tried = tokio::task::spawn_blocking(move || {
        let mut analyst = Analyst::new(&bundle, options)?;
        let off_px = analyst.self_test(&bundle)?;
        if off_px > SELF_TEST_TOLERANCE_PX {
            return Err(anyhow!(
                "the self-test failed: on the bundle's golden film a landmark is {off_px:.2} px from where it should \
                 be, {SELF_TEST_TOLERANCE_PX} px are allowed; reinstall the model bundle"
            ));
        }
        match health::gpus() {
            Ok(gpus) => gpus.iter().for_each(|gpu| info!("found {gpu}; the network runs on the CPU")),
            Err(reason) => info!("no GPU: {reason}"),
        }
        let model = analyst.model();
        info!("{} {} on {}: self-test within {off_px:.3} px", model.name, model.version, model.backend);
        drop(bundle);
        return_freed_memory();
        Ok(analyst)
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

/// The worker on a thread of its own, as a future that ends with it.
async fn on_own_thread(worker: Worker, films: mpsc::Receiver<acquisition::Acquired>) -> anyhow::Result<()> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("landmarks".into())
        .spawn(move || {
            // The supervisor may have given up waiting; there is nobody else to tell.
            let _ = done.send(worker.run(films));
        })
        .context("no thread for the worker")?;
    match ended.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(anyhow!("the thread panicked")),
    }
}

async fn party(name: &'static str, run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    run.await.with_context(|| format!("{name} failed"))
}

/// Resolves when a party ends although nobody asked for a stop; parties whose work is done may end well.
async fn early_end(parties: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    loop {
        match parties.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return error,
            Some(Err(_)) => return anyhow!(PANICKED),
            None => return anyhow!("every party ended although no stop was asked for"),
        }
    }
}

async fn join_all(parties: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut first = Ok(());
    while let Some(ended) = parties.join_next().await {
        first = first.and(ended.unwrap_or_else(|_| Err(anyhow!(PANICKED))));
    }
    first
}

/// The result, or a warning when the deadline passes: what is left is on disk and goes on at the next start.
async fn within(deadline: Duration, what: &str, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    timeout(deadline, work).await.unwrap_or_else(|_| {
        warn!("stopping without waiting longer for {what}; nothing is lost, it goes on at the next start");
        Ok(())
    })
}

/// Tells the service manager once the first round through the folder is done, or the folder is known to be missing.
async fn tell_ready(
    mut folder: watch::Receiver<FolderState>,
    path: String,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        state = folder.wait_for(|state| *state != FolderState::Starting) => {
            if let Ok(state) = state {
                let text = match *state {
                    FolderState::Watching { filesystem, .. } => format!("watching {path} ({filesystem})"),
                    _ => format!("{path} is missing; waiting for it"),
                };
                info!("{text}");
                service_manager::ready(&text);
            }
        }
        () = shutdown.cancelled() => {}
    }
    Ok(())
}
