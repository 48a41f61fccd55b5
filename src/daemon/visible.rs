//! What the daemon shows of itself over HTTP: counted where it happens, put together when somebody asks (R45).

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use words::{accelerator, event, folder, folder_fault, trouble};

use crate::acquisition::FolderObserver;
use crate::analysis::Analysis;
use crate::config::{HealthSettings, SiteSettings};
use crate::health::{
    AcceleratorFault, BrokerView, Code, Connection, DiskView, FaultCause, FilmEnd, FilmView, Films, Health,
    HealthServer, HttpOptions, Look, Metrics, ModelView, Overlays, Stage, StageView, StatusView, Step, StepTimes,
    Trouble, to_png,
};
use crate::mqtt::{LinkEvent, LinkObserver, LinkState};
use crate::overlay;
use crate::pulse::Pulse;
use crate::report::{Condition, EventKind};
use crate::telemetry::Machine;

/// Long side of a picture on the status page.
const PICTURE_PX: u32 = 1000;
/// A port that is in use is tried again after this.
const LISTEN_AGAIN: Duration = Duration::from_secs(60);

/// One in an `Arc` for all parties, for the whole run.
pub(super) struct Visible {
    pub(super) metrics: Arc<Metrics>,
    films: Films,
    overlays: Arc<Overlays>,
    /// To the thread that draws; none where no pictures are wanted.
    pictures: Option<SyncSender<(u64, Analysis)>>,
    /// Whether there is disk enough to make them.
    draws: AtomicBool,
    disk: Mutex<Option<DiskView>>,
    machine: Mutex<Option<Machine>>,
    /// Whether the backlog waits because the machine throttles.
    pausing: AtomicBool,
    waiting: Mutex<Waiting>,
    started: SystemTime,
    stages: Mutex<Stages>,
}

/// The backlog waits while this lives.
pub(super) struct Pausing<'a> {
    visible: &'a Visible,
    since: Instant,
}

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.visible.metrics.throttle_pause.add(self.since.elapsed());
        self.visible.pausing.store(false, Ordering::Relaxed);
    }
}

/// Events that wait for the broker, as far as it is known without asking the disk.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Those that waited at the start.
    pub(super) left_over: u64,
    /// When the oldest of these was acquired.
    pub(super) since: Option<SystemTime>,
    /// Those of this run, by number.
    queued: BTreeMap<u64, SystemTime>,
}

impl Waiting {
    /// `left_over` events waited at the start, the oldest for a film acquired at `since`.
    pub(super) const fn new(left_over: u64, since: Option<SystemTime>) -> Self {
        Self { left_over, since, queued: BTreeMap::new() }
    }

    fn delivered(&mut self, sequence: u64) {
        if self.queued.remove(&sequence).is_none() {
            self.left_over = self.left_over.saturating_sub(1);
        }
    }

    fn tell(&self, metrics: &Metrics) {
        let oldest = if self.left_over > 0 { self.since } else { self.queued.values().next().copied() };
        metrics.queue_is(self.left_over + self.queued.len() as u64, oldest);
    }
}

/// What must not hang, and how long it may take; new ones with every configuration.
#[derive(Default)]
struct Stages {
    pulses: Vec<(Stage, Pulse)>,
    budget: Duration,
    site: Option<SiteSettings>,
}

impl Visible {
    pub(super) fn new(settings: &HealthSettings, waiting: Waiting) -> Self {
        let metrics = Arc::new(Metrics::default());
        let shown = settings.listen.is_some();
        let overlays = Arc::new(Overlays::new(if shown { settings.overlays } else { 0 }, settings.overlays_bytes));
        let pictures = (shown && settings.overlays > 0).then(|| draw_pictures(&metrics, &overlays)).flatten();
        waiting.tell(&metrics);
        Self {
            metrics,
            films: Films::default(),
            overlays,
            pictures,
            draws: AtomicBool::new(true),
            disk: Mutex::default(),
            machine: Mutex::default(),
            pausing: AtomicBool::new(false),
            waiting: Mutex::new(waiting),
            started: SystemTime::now(),
            stages: Mutex::default(),
        }
    }

    /// From now on these must not hang for longer than `budget`.
    pub(super) fn watches(&self, pulses: Vec<(Stage, Pulse)>, budget: Duration, site: &SiteSettings) {
        *lock(&self.stages) = Stages { pulses, budget, site: Some(site.clone()) };
    }

    /// An event is about to become durable; told before, because a fast broker may have it before this thread goes on.
    pub(super) fn queueing(&self, sequence: u64) {
        let mut waiting = lock(&self.waiting);
        waiting.queued.insert(sequence, SystemTime::now());
        waiting.tell(&self.metrics);
    }

    /// It did not become durable.
    pub(super) fn not_queued(&self, sequence: u64) {
        let mut waiting = lock(&self.waiting);
        waiting.queued.remove(&sequence);
        waiting.tell(&self.metrics);
    }

    /// It is durable: its film's way has ended.
    pub(super) fn queued(&self, kind: EventKind, took: Duration) {
        self.metrics.events_queued[event(kind)].add();
        self.metrics.steps[Step::Commit].observe(took);
    }

    /// A film has a result.
    pub(super) fn accepted(&self, sequence: u64, acquired: SystemTime, analysis: Analysis) {
        let timing = &analysis.result.timing;
        let steps =
            StepTimes { decode_ms: timing.decode_ms, frame_ms: timing.frame_ms, inference_ms: timing.inference_ms };
        for (step, ms) in
            [(Step::Decode, steps.decode_ms), (Step::Frame, steps.frame_ms), (Step::Inference, steps.inference_ms)]
        {
            self.metrics.steps[step].observe(Duration::from_secs_f64((ms / 1e3).max(0.0)));
        }
        let size = analysis.radiograph.size;
        self.ended(FilmView {
            steps: Some(steps),
            size_px: Some([size.width, size.height]),
            landmarks: u32::try_from(analysis.landmarks.len()).unwrap_or(u32::MAX),
            ..film(sequence, FilmEnd::Accepted, acquired)
        });
        // A film never waits for its picture: while one is drawn, the next goes without.
        let pictures = self.pictures.as_ref().filter(|_| self.draws.load(Ordering::Relaxed));
        if pictures.is_some_and(|pictures| pictures.try_send((sequence, analysis)).is_err()) {
            self.metrics.faults[FaultCause::Picture].add();
        }
    }

    /// A film has none.
    pub(super) fn refused(&self, sequence: u64, end: FilmEnd, acquired: SystemTime) {
        self.ended(film(sequence, end, acquired));
    }

    /// The state's disk is so; without `plenty` of it there are no pictures.
    pub(super) fn disk(&self, view: DiskView, plenty: bool) {
        self.metrics.state_free_bytes.set(view.free_bytes as f64);
        *lock(&self.disk) = Some(view);
        if self.draws.swap(plenty, Ordering::Relaxed) && !plenty {
            self.overlays.clear();
        }
    }

    /// The golden film was tried: how far its worst landmark was off, where it had any.
    pub(super) fn canary(&self, off_px: Option<f64>) {
        match off_px {
            Some(off_px) => self.metrics.canary_px.set(off_px),
            None => self.metrics.canary_px.forget(),
        }
    }

    /// The GPU does not compute, for this reason.
    pub(super) fn accelerator_failed(&self, cause: AcceleratorFault) {
        self.metrics.accelerator_faults[cause].add();
    }

    /// The disk refused a film, which waits.
    pub(super) fn store_failed(&self) {
        self.metrics.faults[FaultCause::Store].add();
    }

    /// The machine is so.
    pub(super) fn machine(&self, machine: Machine) {
        *lock(&self.machine) = Some(machine);
    }

    /// From now on, until what it returns is dropped, the backlog waits because the machine throttles.
    pub(super) fn pausing(&self) -> Pausing<'_> {
        self.metrics.throttle_pauses.add();
        self.pausing.store(true, Ordering::Relaxed);
        Pausing { visible: self, since: Instant::now() }
    }

    /// Hears of the folder's faults, and has `newest` kept.
    pub(super) fn folder_observer(&self, newest: watch::Sender<Option<SystemTime>>) -> FolderObserver {
        let metrics = Arc::clone(&self.metrics);
        FolderObserver::new(move |fault| metrics.faults[folder_fault(fault)].add(), newest)
    }

    fn ended(&self, film: FilmView) {
        self.metrics.films[film.end].add();
        self.films.finished(film);
    }

    /// Hears of the broker.
    pub(super) fn observer(self: &Arc<Self>) -> LinkObserver {
        let visible = Arc::clone(self);
        LinkObserver::new(move |event| visible.hear(event))
    }

    fn hear(&self, what: LinkEvent) {
        let metrics = &self.metrics;
        match what {
            LinkEvent::Made => metrics.connections[Connection::Made].add(),
            LinkEvent::Failed => metrics.connections[Connection::Failed].add(),
            LinkEvent::Lost => metrics.connections[Connection::Lost].add(),
            LinkEvent::Acknowledged { code } => metrics.pubacks[Code::of(code)].add(),
            LinkEvent::Delivered { kind, sequence, took } => {
                metrics.events_published[event(kind)].add();
                metrics.steps[Step::Publish].observe(took);
                self.films.delivered(sequence, SystemTime::now());
                let mut waiting = lock(&self.waiting);
                waiting.delivered(sequence);
                waiting.tell(metrics);
            }
        }
    }

    fn look(&self, condition: &Condition, link: &LinkState, stopping: bool) -> StatusView {
        let mut troubles: BTreeSet<Trouble> = condition.reasons.iter().copied().map(trouble).collect();
        troubles.extend(link.hold.map(|hold| trouble(hold.reason())));
        troubles.extend(link.client_id_taken.then_some(Trouble::ClientIdTaken));
        // Without a connection there is nobody to tell it to but here.
        if link.error.is_some() {
            troubles.insert(Trouble::BrokerAway);
        }
        self.metrics.broker_connected.set(f64::from(u8::from(link.connected)));
        let now = Instant::now();
        let stages = lock(&self.stages);
        let view = |(stage, pulse): &(Stage, Pulse)| StageView {
            stage: *stage,
            busy_for: pulse.busy_for(now),
            budget: stages.budget,
        };
        StatusView {
            time: SystemTime::now(),
            version: env!("CARGO_PKG_VERSION"),
            site: stages.site.as_ref().map(|site| site.site.clone()).unwrap_or_default(),
            device: stages.site.as_ref().map(|site| site.device.clone()).unwrap_or_default(),
            started: self.started,
            stopping,
            troubles,
            folder: folder(condition.folder),
            broker: BrokerView { connected: link.connected, session: link.session },
            queue: self.metrics.queue(),
            counts: self.metrics.counts(),
            films: self.films.newest_first(&self.overlays),
            model: condition.model.as_ref().map(|model| ModelView {
                name: model.name.clone(),
                version: model.version.clone(),
                sha256: model.sha256.clone(),
                backend: model.backend.clone(),
                accelerator: condition.accelerator.as_ref().map(accelerator),
            }),
            disk: *lock(&self.disk),
            machine: lock(&self.machine).clone(),
            pausing: self.pausing.load(Ordering::Relaxed),
            stages: stages.pulses.iter().map(view).collect(),
        }
    }
}

/// Serves until it is dropped. A port that cannot be had holds up no film: it is told, and tried again.
pub(super) async fn serve(
    visible: Arc<Visible>,
    settings: HealthSettings,
    condition: watch::Receiver<Condition>,
    link: watch::Receiver<LinkState>,
    shutdown: CancellationToken,
) {
    let Some(listen) = settings.listen else { return };
    let look: Look = {
        let visible = Arc::clone(&visible);
        Arc::new(move || {
            let (condition, link) = (condition.borrow().clone(), link.borrow().clone());
            visible.look(&condition, &link, shutdown.is_cancelled())
        })
    };
    let health = Health { metrics: Arc::clone(&visible.metrics), overlays: Arc::clone(&visible.overlays), look };
    let options = HttpOptions { listen, host_name: settings.host_name };
    let mut told = false;
    loop {
        match HealthServer::bind(&options, health.clone()).await {
            Ok(server) => {
                info!("the status page is at http://{}/", server.address());
                return server.serve(std::future::pending()).await;
            }
            Err(why) if !told => {
                told = true;
                let cause = std::error::Error::source(&why).map(ToString::to_string).unwrap_or_default();
                error!("no status page and no metrics: {why}: {cause}; choose another health.listen, or free the port");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// A thread that draws what it is sent; it ends with the last sender. None where no thread can be had.
fn draw_pictures(metrics: &Arc<Metrics>, overlays: &Arc<Overlays>) -> Option<SyncSender<(u64, Analysis)>> {
    let (sender, pictures) = sync_channel::<(u64, Analysis)>(1);
    let (metrics, overlays) = (Arc::clone(metrics), Arc::clone(overlays));
    let thread = std::thread::Builder::new().name("pictures".into()).spawn(move || {
        while let Ok((sequence, Analysis { result, radiograph, landmarks, .. })) = pictures.recv() {
            let title = format!("{} {}", result.model.name, result.model.version);
            let picture = overlay::draw(&radiograph, &landmarks, result.image.spacing, &title);
            match to_png(&picture, PICTURE_PX) {
                Ok(png) => overlays.keep(sequence, png),
                Err(_) => metrics.faults[FaultCause::Picture].add(),
            }
        }
    });
    match thread {
        Ok(_) => Some(sender),
        Err(why) => {
            error!("no pictures on the status page: {why}");
            None
        }
    }
}

/// Every change is one assignment, so that a party that panicked left it whole.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn film(number: u64, end: FilmEnd, acquired: SystemTime) -> FilmView {
    FilmView {
        number,
        end,
        acquired,
        finished: SystemTime::now(),
        delivered: None,
        steps: None,
        size_px: None,
        landmarks: 0,
        picture: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::FolderState;

    const LONG_AGO: SystemTime = SystemTime::UNIX_EPOCH;

    fn visible() -> Visible {
        let listen = Some("127.0.0.1:0".parse().expect("an address"));
        Visible::new(
            &HealthSettings { listen, host_name: None, overlays: 0, overlays_bytes: 0 },
            Waiting::new(2, Some(LONG_AGO)),
        )
    }

    #[test]
    fn the_queue_grows_with_events_and_shrinks_with_answers() {
        let visible = visible();
        assert_eq!(visible.metrics.queue().length, 2);
        assert_eq!(visible.metrics.queue().oldest, Some(LONG_AGO));
        visible.queueing(7);
        visible.not_queued(7);
        assert_eq!(visible.metrics.queue().length, 2, "the disk refused it");
        visible.queueing(7);
        visible.queued(EventKind::Result, Duration::from_millis(3));
        visible.refused(7, FilmEnd::Decode, SystemTime::UNIX_EPOCH);
        assert_eq!(visible.metrics.queue().length, 3);
        let delivered = |sequence| LinkEvent::Delivered { kind: EventKind::Error, sequence, took: Duration::ZERO };
        for (sequence, left) in [(5, 2), (6, 1), (7, 0), (8, 0)] {
            visible.hear(delivered(sequence));
            assert_eq!(visible.metrics.queue().length, left);
            let oldest = visible.metrics.queue().oldest;
            assert_eq!((oldest == Some(LONG_AGO), oldest.is_some()), (left == 2, left > 0), "{oldest:?}");
        }
        let view = visible.look(&Condition::default(), &LinkState::default(), false);
        assert!(view.films[0].delivered.is_some() && view.films[0].end == FilmEnd::Decode);
        assert_eq!(view.counts.quarantined, 1);
    }

    #[test]
    fn a_broker_that_is_away_and_a_stage_that_hangs_are_seen() {
        let visible = visible();
        let worker = Pulse::new("the worker");
        let site = SiteSettings { site: "clinic".to_owned(), device: "ceph".to_owned() };
        visible.watches(vec![(Stage::Worker, worker.clone())], Duration::ZERO, &site);
        let away = LinkState { error: Some("refused".to_owned()), ..LinkState::default() };
        let condition = Condition { folder: FolderState::Watching, ..Condition::default() };
        let view = visible.look(&condition, &away, false);
        assert!(view.troubles.contains(&Trouble::BrokerAway) && view.is_ready() && view.is_healthy());
        assert_eq!((view.site.as_str(), view.device.as_str()), ("clinic", "ceph"));
        let _film = worker.busy();
        std::thread::sleep(Duration::from_millis(2));
        let view = visible.look(&condition, &LinkState { connected: true, ..LinkState::default() }, false);
        assert!(!view.is_healthy() && view.troubles.is_empty());
    }
}
