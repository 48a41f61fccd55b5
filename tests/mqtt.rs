//! The publisher against a real Mosquitto: what no broker of ours could prove.

#[path = "support/mosquitto.rs"]
mod mosquitto;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use landmarkd::config::{CredentialSettings, MqttSettings, TlsSettings};
use landmarkd::mqtt::{Hold, LinkState, MqttError, Publisher};
use landmarkd::outbox::Outbox;
use landmarkd::pulse::Pulse;
use landmarkd::report::{
    Condition, EventId, FilmError, FilmResult, ImageInfo, Info, LandmarkResult, ModelInfo, Origin, Stage, Timing,
    Topics, schema,
};
use landmarkd::store::Store;
use mosquitto::{Authority, Mosquitto, Subscriber};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
const ALL: &str = "xr/v1/clinic/ceph-1/#";
const RESULT: &str = "xr/v1/clinic/ceph-1/result";
const ERROR: &str = "xr/v1/clinic/ceph-1/error";
const INFO: &str = "xr/v1/clinic/ceph-1/info";
const STATUS: &str = "xr/v1/clinic/ceph-1/status";

/// A device with its state directory.
struct Device {
    _home: TempDir,
    store: Store,
    outbox: Arc<Outbox>,
    settings: MqttSettings,
}

/// Its publisher while it runs.
struct Running {
    link: watch::Receiver<LinkState>,
    _condition: watch::Sender<Condition>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), MqttError>>,
}

fn model() -> ModelInfo {
    let text = |s: &str| s.to_owned();
    ModelInfo { name: text("ceph19-nfdp"), version: text("1"), sha256: "b".repeat(64), backend: text("tract-cpu") }
}

fn topics() -> Topics {
    Topics::new("clinic", "ceph-1").expect("valid")
}

fn film(n: usize) -> FilmResult {
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
        landmarks: (0..19).map(landmark).collect(),
        measures: Vec::new(),
        model: model(),
        timing: Timing { decode_ms: 1.0, frame_ms: 1.0, inference_ms: 1.0 },
    }
}

impl Device {
    fn new(port: u16) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(home.path(), None).expect("usable");
        let outbox = Arc::new(Outbox::open(&store).expect("usable"));
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
        };
        Self { _home: home, store, outbox, settings }
    }

    fn append(&self, n: usize) {
        let id = EventId::of_result(&format!("{n:064x}"), "m", "c");
        let now = SystemTime::now();
        let draft = Origin::new(&topics()).result(id, &film(n), now, now).expect("small");
        self.append_draft(&draft);
    }

    fn append_error(&self, n: usize) {
        let id = EventId::of_error(&format!("{n:064x}"), "m", "c");
        let error =
            FilmError { image_sha256: None, stage: Stage::Decode, message: "cut short".to_owned(), attempts: 1 };
        let now = SystemTime::now();
        let draft = Origin::new(&topics()).error(id, &error, now, now).expect("small");
        self.append_draft(&draft);
    }

    fn append_draft(&self, draft: &landmarkd::report::Draft) {
        let tx = self.store.database().begin_write().expect("open");
        self.outbox.append(&tx, draft).expect("appended");
        tx.commit().expect("written");
        self.outbox.wake();
    }

    fn run(&self) -> Running {
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
            observer: landmarkd::mqtt::LinkObserver::default(),
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
    async fn until(&mut self, what: &str, is: impl FnMut(&LinkState) -> bool) -> LinkState {
        let state = timeout(PATIENCE, self.link.wait_for(is)).await;
        state.unwrap_or_else(|_| panic!("never {what}")).expect("the publisher runs").clone()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.expect("it stops").expect("no panic").expect("no error");
    }
}

async fn next_on(subscriber: &mut Subscriber, topic: &str) -> Value {
    loop {
        let (found, payload) = subscriber.next().await;
        if found == topic {
            return payload;
        }
    }
}

async fn status_with(subscriber: &mut Subscriber, is: impl Fn(&Value) -> bool) -> Value {
    loop {
        let status = next_on(subscriber, STATUS).await;
        if is(&status) {
            return status;
        }
    }
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().expect("an event").parse().expect("a number")
}

fn write_private(path: &Path, content: &str) -> PathBuf {
    fs::write(path, content).expect("writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
    path.to_owned()
}

#[tokio::test]
async fn events_reach_a_persistent_session_in_order_and_as_the_schema_says() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let session = ["-c", "-x", "3600", "-i", "archive"];
    let mut subscriber = broker.subscribe(ALL, &session).await;
    let device = Device::new(broker.port());
    let running = device.run();
    device.append(0);
    device.append_error(1);
    let schemas = schema();
    let valid = |schema: &Value, document: &Value| jsonschema::validate(schema, document).map_err(|e| e.to_string());
    assert_eq!(valid(&schemas.status, &next_on(&mut subscriber, STATUS).await), Ok(()));
    assert_eq!(valid(&schemas.info, &next_on(&mut subscriber, INFO).await), Ok(()));
    let result = next_on(&mut subscriber, RESULT).await;
    assert_eq!(valid(&schemas.result, &result), Ok(()));
    assert_eq!(result["data"], serde_json::to_value(film(0)).expect("JSON"));
    let error = next_on(&mut subscriber, ERROR).await;
    assert_eq!(valid(&schemas.error, &error), Ok(()));
    assert_eq!((sequence(&result), sequence(&error)), (1, 2));

    drop(subscriber);
    for n in 2..22 {
        device.append(n);
    }
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"), "a persistent session is a subscriber");
    let mut subscriber = broker.subscribe(ALL, &session).await;
    for expected in 3..=22 {
        assert_eq!(sequence(&next_on(&mut subscriber, RESULT).await), expected);
    }
}

#[tokio::test]
async fn reason_16_holds_a_result_until_somebody_subscribes() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut status = broker.subscribe(STATUS, &[]).await;
    let device = Device::new(broker.port());
    device.append(0);
    let mut running = device.run();
    running.until("held", |link| link.hold == Some(Hold::NoSubscriber { alarm: false })).await;
    status_with(&mut status, |status| status["reasons"] == json!(["no_subscriber"])).await;
    assert_eq!(device.outbox.len().expect("readable"), 1);
    let mut results = broker.subscribe(RESULT, &[]).await;
    assert_eq!(sequence(&next_on(&mut results, RESULT).await), 1);
    status_with(&mut status, |status| status["state"] == "online" && status["queue_length"] == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_topic_the_access_list_denies_is_told_and_the_others_flow() {
    let acl = |directory: &Path| {
        let path = directory.join("acl");
        let topics = ["status", "info", "error"].map(|last| format!("topic write xr/v1/clinic/ceph-1/{last}\n"));
        fs::write(&path, format!("topic read #\n{}", topics.concat())).expect("writable");
        format!("acl_file {}", path.display())
    };
    let Some(broker) = Mosquitto::start(acl) else { return };
    let mut subscriber = broker.subscribe(ALL, &[]).await;
    let device = Device::new(broker.port());
    device.append(0);
    device.append_error(1);
    let mut running = device.run();
    assert_eq!(sequence(&next_on(&mut subscriber, ERROR).await), 2);
    running.until("rejected", |link| link.hold == Some(Hold::Rejected { code: 135 })).await;
    running.stop().await;
    assert_eq!(device.outbox.len().expect("readable"), 1);
}

#[tokio::test]
async fn the_password_is_read_again_when_the_broker_refuses_it() {
    let passwords = |directory: &Path| {
        let path = directory.join("passwords");
        let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&path).args(["device", "right"]).status();
        assert!(made.expect("part of mosquitto").success());
        format!("allow_anonymous false\npassword_file {}", path.display())
    };
    let Some(broker) = Mosquitto::start(passwords) else { return };
    let mut device = Device::new(broker.port());
    let home = tempfile::tempdir().expect("a directory");
    let password_file = write_private(&home.path().join("password"), "wrong\n");
    device.settings.credentials =
        Some(CredentialSettings { username: "device".to_owned(), password_file: password_file.clone() });
    let mut running = device.run();
    let refused = running.until("refused", |link| link.error.is_some()).await.error.expect("refused");
    assert!(refused.contains("NotAuthorized") && !refused.contains("wrong"), "{refused}");
    write_private(&password_file, "right\n");
    running.until("connected", |link| link.connected).await;
    running.stop().await;
}

#[tokio::test]
async fn tls_connects_to_a_broker_our_authority_signed_and_to_no_other() {
    let home = tempfile::tempdir().expect("a directory");
    let ours = Authority::new(home.path(), "ours");
    let theirs = Authority::new(home.path(), "theirs");
    let tls = |_: &Path| {
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
            ours.ca.display(),
            ours.certificate.display(),
            ours.key.display()
        )
    };
    let Some(broker) = Mosquitto::start(tls) else { return };
    let with = |ca: &Path, client: Option<&Authority>| {
        let mut device = Device::new(broker.port());
        let client = client.map(|client| (client.certificate.clone(), client.key.clone()));
        device.settings.tls = Some(TlsSettings { ca_file: Some(ca.to_owned()), client });
        device
    };
    for (what, device, reason) in [
        ("a broker of another authority", with(&theirs.ca, Some(&ours)), "UnknownIssuer"),
        ("a client of another authority", with(&ours.ca, Some(&theirs)), ""),
        ("a client without a certificate", with(&ours.ca, None), ""),
    ] {
        let mut running = device.run();
        let refused = running.until("refused", |link| link.error.is_some()).await;
        assert!(!refused.connected && refused.error.is_some_and(|words| words.contains(reason)), "{what}");
        running.stop().await;
    }
    let device = with(&ours.ca, Some(&ours));
    let mut running = device.run();
    running.until("connected", |link| link.connected).await;
    running.stop().await;
}

#[tokio::test]
async fn a_device_that_dies_is_offline_by_its_last_will() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut status = broker.subscribe(STATUS, &[]).await;
    let device = Device::new(broker.port());
    let running = device.run();
    let birth = status_with(&mut status, |status| status["state"] == "online").await;
    running.task.abort();
    let will = status_with(&mut status, |status| status["state"] == "offline").await;
    assert_eq!((&will["session"], &will["boot_id"]), (&birth["session"], &birth["boot_id"]));
    let mut late = broker.subscribe(STATUS, &[]).await;
    assert_eq!(next_on(&mut late, STATUS).await["state"], "offline", "it is retained");
}

/// Mosquitto acknowledges before it saves (its issue 1855): what it queues for a session that is away is lost when it
/// dies in between, whatever the publisher does. So it is killed while the session is there and has nearly all.
#[tokio::test]
async fn three_hundred_results_survive_a_broker_that_is_killed_again_and_again() {
    const RESULTS: usize = 300;
    const AHEAD: usize = 5;
    let Some(mut broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut subscriber = broker.subscribe(RESULT, &["-c", "-x", "3600", "-i", "archive"]).await;
    let device = Device::new(broker.port());
    let mut running = device.run();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut kills = [30, 100, 170, 240].into_iter().peekable();
    let mut films = 0..RESULTS;
    films.by_ref().take(AHEAD).for_each(|n| device.append(n));
    while seen.len() < RESULTS {
        let event = next_on(&mut subscriber, RESULT).await;
        if seen.insert(event["id"].as_str().expect("an event").to_owned()) {
            found.push(sequence(&event) as usize);
            films.by_ref().take(1).for_each(|n| device.append(n));
        }
        if kills.next_if(|&n| seen.len() >= n).is_some() {
            broker.restart();
        }
    }
    assert_eq!(found, (1..=RESULTS).collect::<Vec<_>>());
    let sessions = running.until("connected", |link| link.connected).await.session;
    assert!(sessions > 4, "the kills were felt: {sessions} sessions");
    running.stop().await;
}
