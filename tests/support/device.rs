//! A device without its films: a state directory, an outbox to fill by hand, and the real publisher.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use landmarkd::config::MqttSettings;
use landmarkd::mqtt::{LinkObserver, LinkState, MqttError, Publisher};
use landmarkd::outbox::Outbox;
use landmarkd::pulse::Pulse;
use landmarkd::report::{
    Condition, Draft, EventId, FilmError, FilmResult, ImageInfo, Info, LandmarkResult, ModelInfo, Origin, Stage,
    Timing, Topics,
};
use landmarkd::store::Store;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::mosquitto::Subscriber;

/// Far beyond anything a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const ALL: &str = "xr/v1/clinic/ceph-1/#";
pub(crate) const RESULT: &str = "xr/v1/clinic/ceph-1/result";
pub(crate) const ERROR: &str = "xr/v1/clinic/ceph-1/error";
pub(crate) const INFO: &str = "xr/v1/clinic/ceph-1/info";
pub(crate) const STATUS: &str = "xr/v1/clinic/ceph-1/status";

/// A device with its state directory.
pub(crate) struct Device {
    home: TempDir,
    pub(crate) store: Store,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) settings: MqttSettings,
}

/// Its publisher while it runs.
pub(crate) struct Running {
    pub(crate) link: watch::Receiver<LinkState>,
    _condition: watch::Sender<Condition>,
    shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), MqttError>>,
}

pub(crate) fn model() -> ModelInfo {
    let text = |s: &str| s.to_owned();
    ModelInfo { name: text("ceph19-nfdp"), version: text("1"), sha256: "b".repeat(64), backend: text("tract-cpu") }
}

pub(crate) fn topics() -> Topics {
    Topics::new("clinic", "ceph-1").expect("valid")
}

pub(crate) fn film(n: usize) -> FilmResult {
    film_with(n, 19)
}

/// The `n`-th film with so many landmarks: about 100 bytes each.
pub(crate) fn film_with(n: usize, landmarks: usize) -> FilmResult {
    let landmark = |i: usize| LandmarkResult {
        name: format!("landmark_{i}"),
        x_px: i as f64 / 3.0,
        y_px: n as f64,
        x_mm: None,
        y_mm: None,
        sigma_px: [1.5, 2.5],
        radius95_px: None,
        radius95_mm: None,
        score: 0.9,
    };
    FilmResult {
        image: ImageInfo {
            sha256: format!("{n:064x}"),
            format: "jpeg".to_owned(),
            width_px: 1935,
            height_px: 2400,
            spacing: None,
            dicom: None,
        },
        landmarks: (0..landmarks).map(landmark).collect(),
        measures: Vec::new(),
        model: model(),
        timing: Timing { decode_ms: 1.0, frame_ms: 1.0, inference_ms: 1.0 },
    }
}

fn open(home: &TempDir) -> (Store, Arc<Outbox>) {
    let store = Store::open(home.path(), None).expect("usable");
    let outbox = Arc::new(Outbox::open(&store).expect("usable"));
    (store, outbox)
}

/// The event of the `n`-th film with so many landmarks.
pub(crate) fn draft(n: usize, landmarks: usize) -> Draft {
    let id = EventId::of_result(&format!("{n:064x}"), "m", "c");
    let now = SystemTime::now();
    Origin::new(&topics()).result(id, &film_with(n, landmarks), now, now).expect("small")
}

impl Device {
    pub(crate) fn new(port: u16) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let (store, outbox) = open(&home);
        let settings = MqttSettings {
            host: "127.0.0.1".to_owned(),
            port,
            client_id: "ceph-1".to_owned(),
            tls: None,
            allow_plaintext: false,
            credentials: None,
            keep_alive: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(10),
            max_backoff: Duration::from_millis(200),
            max_packet_bytes: 256 * 1024,
            commands: false,
        };
        Self { home, store, outbox, settings }
    }

    pub(crate) fn append(&self, n: usize) {
        self.append_draft(&draft(n, 19));
    }

    /// Queues these films in one transaction.
    pub(crate) fn append_all(&self, films: impl IntoIterator<Item = usize>) {
        let tx = self.store.database().begin_write().expect("open");
        for n in films {
            self.outbox.append(&tx, &draft(n, 19)).expect("appended");
        }
        tx.commit().expect("written");
        self.outbox.wake();
    }

    /// The same device after a restart of its machine.
    pub(crate) fn reopened(self) -> Self {
        let Self { home, store, outbox, settings } = self;
        drop(store);
        // What a publisher that was aborted had begun to write is written first.
        while Arc::strong_count(&outbox) > 1 {
            std::thread::yield_now();
        }
        drop(outbox);
        let (store, outbox) = open(&home);
        Self { home, store, outbox, settings }
    }

    pub(crate) fn append_error(&self, n: usize) {
        let id = EventId::of_error(&format!("{n:064x}"), "m", "c");
        let error =
            FilmError { image_sha256: None, stage: Stage::Decode, message: "cut short".to_owned(), attempts: 1 };
        let now = SystemTime::now();
        let draft = Origin::new(&topics()).error(id, &error, now, now).expect("small");
        self.append_draft(&draft);
    }

    pub(crate) fn append_draft(&self, draft: &Draft) {
        let tx = self.store.database().begin_write().expect("open");
        self.outbox.append(&tx, draft).expect("appended");
        tx.commit().expect("written");
        self.outbox.wake();
    }

    pub(crate) fn run(&self) -> Running {
        let publisher = Publisher {
            settings: self.settings.clone(),
            require_subscriber: true,
            fresh: Duration::from_secs(300),
            topics: topics(),
            boot_id: self.store.boot_id(),
            info: Info {
                version: "0".to_owned(),
                site: "clinic".to_owned(),
                device: "ceph-1".to_owned(),
                epoch: self.store.epoch().to_owned(),
                model: model(),
                landmarks: (0..19).map(|i| format!("landmark_{i}")).collect(),
            },
            outbox: Arc::clone(&self.outbox),
            pulse: Pulse::new("the publisher"),
            observer: LinkObserver::default(),
            hand_over: CancellationToken::new(),
        };
        let (condition, seen) = watch::channel(Condition::default());
        let (told, link) = watch::channel(LinkState::default());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(publisher.run(seen, told, shutdown.clone(), Duration::from_secs(20)));
        Running { link, _condition: condition, shutdown, task }
    }
}

impl Running {
    pub(crate) async fn until(&mut self, what: &str, is: impl FnMut(&LinkState) -> bool) -> LinkState {
        let state = timeout(PATIENCE, self.link.wait_for(is)).await;
        state.unwrap_or_else(|_| panic!("never {what}")).expect("the publisher runs").clone()
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.expect("it stops").expect("no panic").expect("no error");
    }
}

/// The next document on a topic; other topics do not keep a test waiting for ever.
pub(crate) async fn next_on(subscriber: &mut Subscriber, topic: &str) -> Value {
    let listening = async {
        loop {
            let (found, payload) = subscriber.next().await;
            if found == topic {
                return payload;
            }
        }
    };
    timeout(PATIENCE, listening).await.unwrap_or_else(|_| panic!("nothing came on {topic}"))
}

pub(crate) async fn status_with(subscriber: &mut Subscriber, is: impl Fn(&Value) -> bool) -> Value {
    loop {
        let status = next_on(subscriber, STATUS).await;
        if is(&status) {
            return status;
        }
    }
}

pub(crate) fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().expect("an event").parse().expect("a number")
}
