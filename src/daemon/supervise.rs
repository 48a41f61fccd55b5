//! Supervision: the parties that run, what ends them, and the graceful stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::accelerate::Accelerate;
use super::canary::Canary;
use super::condition::ConditionBoard;
use super::disk::{DiskWatch, Gate};
use super::reload::{is_same_device, renew};
use super::restraint::Restraint;
use super::start::{PANICKED, Reloads, Serving, State};
use super::visible::Visible;
use super::worker::{Worker, WorkerError};
use super::{archive, service_manager, starts, watchdog};
use crate::acquisition::{self, FolderState};
use crate::health::Stage;
use crate::mqtt::{LinkState, Publisher};
use crate::pulse::Pulse;
use crate::report::{Info, Origin};

/// How the parties ended, where they did not fail.
pub(super) enum Ended {
    /// As told, for good.
    Stopped,
    /// For these, which take over now.
    Renewed(Box<Serving>),
}

/// What ends the parties.
enum Cause {
    Asked,
    Early(anyhow::Error),
    Renewed(Box<Serving>),
}

/// Runs the folder, the worker and the publisher until `shutdown`, until one of them ends early, or until others are
/// to take over; then lets what is in hand be finished.
pub(super) async fn supervise(
    serving: Serving,
    state: &State,
    condition: &Arc<ConditionBoard>,
    visible: &Arc<Visible>,
    links: &watch::Sender<LinkState>,
    reloads: &mut Reloads,
    shutdown: &CancellationToken,
) -> anyhow::Result<Ended> {
    let Serving { settings, topics, analyst, golden, candidate, rolled_back, mut safe_until } = serving;
    let State { store, outbox, ledger, quarantine, attempt_mark, bundles: _, waiting: _ } = state;
    condition.serves(analyst.model().clone(), safe_until.is_some(), rolled_back.is_some());
    let mut pulses = vec![(Stage::Store, store.pulse().clone())];
    let mut pulse = |stage, name| {
        let pulse = Pulse::new(name);
        pulses.push((stage, pulse.clone()));
        pulse
    };
    let info = Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        site: settings.site.site.clone(),
        device: settings.site.device.clone(),
        epoch: store.epoch().to_owned(),
        model: analyst.model().clone(),
        landmarks: analyst.landmark_names().to_vec(),
    };
    let hand_over = CancellationToken::new();
    let publisher = Publisher {
        settings: settings.mqtt.clone(),
        require_subscriber: settings.result.require_subscriber,
        fresh: settings.result.fresh,
        topics: topics.clone(),
        boot_id: store.boot_id(),
        info,
        outbox: Arc::clone(outbox),
        pulse: pulse(Stage::Publisher, "the publisher"),
        observer: visible.observer(),
        hand_over: hand_over.clone(),
    };

    // Two stops in a row: the folder and the worker first, and only when nothing is appended any more the publisher.
    let (no_more_films, no_more_events) = (CancellationToken::new(), CancellationToken::new());
    let gate = Arc::new(Gate::default());
    let (film_sender, film_receiver) = mpsc::channel(1);
    let (newest_sender, newest) = watch::channel(None);
    let restraint = Restraint {
        condition: condition.subscribe(),
        newest,
        fresh: settings.result.fresh,
        pause: settings.daemon.throttled_pause,
    };
    let _accelerated = Accelerate {
        settings: settings.inference.clone(),
        state: settings.state.directory.clone(),
        processor: analyst.model().backend.clone(),
        is_safe: safe_until.is_some(),
        candidate,
        condition: Arc::clone(condition),
        visible: Arc::clone(visible),
        shutdown: no_more_films.clone(),
    }
    .start();
    let worker = Worker {
        analyst,
        canary: Canary::new(golden, settings.daemon.canary, Instant::now()),
        database: Arc::clone(store.database()),
        ledger: ledger.clone(),
        outbox: Arc::clone(outbox),
        quarantine: quarantine.clone(),
        attempt_mark: Arc::clone(attempt_mark),
        origin: Origin::new(&topics),
        config_hash: settings.hash(),
        room: store.room().clone(),
        gate: Arc::clone(&gate),
        restraint,
        condition: Arc::clone(condition),
        visible: Arc::clone(visible),
        pulse: pulse(Stage::Worker, "the worker"),
        shutdown: no_more_films.clone(),
    };
    let (folder_sender, folder) = watch::channel(FolderState::Starting);
    let drain = settings.daemon.drain;

    let mut intake = JoinSet::new();
    intake.spawn(party("the folder", {
        let (mut settings, stop) = (settings.acquisition.clone(), no_more_films.clone());
        if safe_until.is_some() {
            // Whatever was begun and not finished is a suspect (R36).
            settings.max_attempts = 1;
        }
        let run = acquisition::run(
            settings,
            ledger.clone(),
            film_sender,
            folder_sender,
            visible.folder_observer(newest_sender),
            pulse(Stage::Folder, "the folder"),
            stop,
        );
        async { Ok(run.await?) }
    }));
    intake.spawn(party("the worker", on_own_thread(worker, film_receiver)));
    intake.spawn({
        let (condition, stop, folder) = (Arc::clone(condition), no_more_films.clone(), folder.clone());
        async move {
            condition.follow_folder(folder, stop).await;
            Ok(())
        }
    });
    let disk = DiskWatch {
        settings: settings.state.clone(),
        room: store.room().clone(),
        gate,
        condition: Arc::clone(condition),
        visible: Arc::clone(visible),
    };
    intake.spawn(party("the look at the disk", disk.run(no_more_films.clone())));
    let archive = archive::keep_bounded(Arc::clone(outbox), settings.state.clone(), no_more_films.clone());
    intake.spawn(party("the archive", archive));
    let path = settings.acquisition.folder.display().to_string();
    intake.spawn(tell_ready(folder.clone(), path.clone(), no_more_films.clone()));
    let mut delivery = JoinSet::new();
    delivery.spawn(party("the publisher", {
        let run = publisher.run(condition.subscribe(), links.clone(), no_more_events.clone(), drain);
        async { Ok(run.await?) }
    }));
    visible.watches(pulses.clone(), settings.daemon.budget, &settings.site);
    let pulses: Vec<_> = pulses.into_iter().map(|(_, pulse)| pulse).collect();
    store.room().excuses(pulses.clone());
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(watchdog::run(pulses, settings.daemon.budget)));

    let cause = loop {
        let mut is_calm = false;
        let new = tokio::select! {
            // First: a stop ends waits for room on the disk, and parties with them.
            biased;
            () = shutdown.cancelled() => break Cause::Asked,
            error = early_end(&mut intake) => break Cause::Early(error),
            error = early_end(&mut delivery) => break Cause::Early(error),
            Some(new) = reloads.recv() => new,
            () = calm(safe_until) => {
                info!("ten quiet minutes: safe mode ends");
                is_calm = true;
                Ok(settings.clone())
            }
        };
        service_manager::reloading();
        let renewed = tokio::select! {
            () = shutdown.cancelled() => break Cause::Asked,
            renewed = renew(&settings, new, state) => renewed,
        };
        match renewed {
            Ok(mut renewed) => {
                // A new configuration is no reason to trust the films again.
                renewed.safe_until = safe_until.filter(|_| !is_calm);
                break Cause::Renewed(renewed);
            }
            Err(why) => {
                let remark = if is_calm {
                    error!("safe mode goes on, since the model cannot be loaded anew: {why}");
                    safe_until = Some(Instant::now() + Duration::from_secs(starts::WINDOW_S));
                    "safe mode goes on"
                } else {
                    error!("the configuration was read again and is not taken, the old one stays in force: {why}");
                    condition.config_rejected();
                    "the new configuration is wrong, the old one holds"
                };
                let now = *folder.borrow();
                if let Some(text) = in_words(now, &path) {
                    service_manager::ready(&format!("{text}; {remark}"));
                }
            }
        }
    };

    match &cause {
        Cause::Renewed(_) => info!("the configuration was read again and is taken over"),
        Cause::Asked | Cause::Early(_) => service_manager::stopping(),
    }
    no_more_films.cancel();
    let intake_ended = within(drain, "a film in hand", join_all(&mut intake)).await;
    match &cause {
        Cause::Renewed(next) if is_same_device(&settings, &next.settings) => hand_over.cancel(),
        _ => no_more_events.cancel(),
    }
    // The publisher keeps the drain's deadline itself; the margin is for its goodbye.
    let delivery_ended = within(drain + Duration::from_secs(2), "the broker", join_all(&mut delivery)).await;
    match cause {
        Cause::Early(error) => Err(error),
        Cause::Asked if store.room().refused() => {
            warn!("stopped while the disk was full; nothing is lost, it goes on at the next start");
            Ok(Ended::Stopped)
        }
        Cause::Asked => {
            intake_ended.unwrap_or(Ok(()))?;
            delivery_ended.unwrap_or(Ok(()))?;
            Ok(Ended::Stopped)
        }
        Cause::Renewed(serving) => {
            // Two workers at once could publish a film twice: a new process is the way out.
            let late = || anyhow!("a party did not make way for the new configuration");
            intake_ended.ok_or_else(late)??;
            delivery_ended.ok_or_else(late)??;
            Ok(Ended::Renewed(serving))
        }
    }
}

/// The end of safe mode, if there is one.
async fn calm(safe_until: Option<Instant>) {
    match safe_until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The worker on a thread of its own, as a future that ends with it.
async fn on_own_thread(worker: Worker, films: mpsc::Receiver<acquisition::Acquired>) -> anyhow::Result<()> {
    let (done, ended) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("landmarks".into())
        .spawn(move || {
            // The supervisor may have given up waiting; there is nobody else to tell.
            let _ = done.send(worker.run(films, &runtime));
        })
        .context("no thread for the worker")?;
    match ended.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(WorkerError::Panicked.into()),
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

/// The result, or nothing and a warning when the deadline passes: what is left is on disk and goes on at the next
/// start.
async fn within<T>(deadline: Duration, what: &str, work: impl Future<Output = T>) -> Option<T> {
    let done = timeout(deadline, work).await.ok();
    if done.is_none() {
        warn!("stopping without waiting longer for {what}; nothing is lost, it goes on at the next start");
    }
    done
}

/// Tells the service manager once the first round through the folder is done, or the folder is known to be missing.
async fn tell_ready(
    mut folder: watch::Receiver<FolderState>,
    path: String,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        state = folder.wait_for(|state| *state != FolderState::Starting) => {
            let text = state.ok().and_then(|state| in_words(*state, &path));
            if let Some(text) = text {
                info!("{text}");
                service_manager::ready(&text);
            }
        }
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// What the service manager is told of the folder, once there is something to tell.
fn in_words(state: FolderState, path: &str) -> Option<String> {
    match state {
        FolderState::Starting => None,
        FolderState::Watching { filesystem, .. } => Some(format!("watching {path} ({filesystem})")),
        FolderState::Missing { .. } | FolderState::Unresponsive { .. } => {
            Some(format!("{path} is missing; waiting for it"))
        }
    }
}

#[cfg(test)]
mod tests;
