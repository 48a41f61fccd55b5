//! The publisher against the loopback broker and its faults: each test is one promise of the daemon.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::loopback_broker::{Delivered, Faults, LoopbackBroker, Subscriber};
use super::*;
use crate::config::MqttSettings;
use crate::outbox::Outbox;
use crate::pulse::Pulse;
use crate::report::{Condition, Draft, EventId, EventKind, Info, ModelInfo, Reason, Topics};
use crate::store::Store;

/// Far beyond anything these tests wait for: they end by events, not by this.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn settings(port: u16) -> MqttSettings {
    MqttSettings {
        host: "127.0.0.1".to_owned(),
        port,
        client_id: "ceph-1".to_owned(),
        tls: None,
        allow_plaintext: false,
        credentials: None,
        keep_alive: Duration::from_secs(5),
        ack_timeout: Duration::from_secs(10),
        max_backoff: Duration::from_millis(50),
        max_packet_bytes: 256 * 1024,
        commands: true,
    }
}

/// A device with its state, and its publisher while it runs.
struct Device {
    _home: TempDir,
    store: Store,
    outbox: Arc<Outbox>,
    settings: MqttSettings,
    require_subscriber: bool,
    hand_over: CancellationToken,
}

struct Running {
    condition: watch::Sender<Condition>,
    link: watch::Receiver<LinkState>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), MqttError>>,
}

impl Device {
    fn new(broker: &LoopbackBroker) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(home.path(), None).expect("usable");
        let outbox = Arc::new(Outbox::open(&store).expect("usable"));
        Self {
            _home: home,
            store,
            outbox,
            settings: settings(broker.port()),
            require_subscriber: true,
            hand_over: CancellationToken::new(),
        }
    }

    /// Queues the result or error of film `n`, with `padding` bytes more than it needs.
    fn append(&self, kind: EventKind, n: u32, padding: usize) {
        let id = EventId::of_result(&n.to_string(), "m", "c");
        let padding = "x".repeat(padding);
        let body = format!(r#"{{"source":"/xr/v1/s/d","data":{{"n":{n},"padding":"{padding}"}}}}"#).into_bytes();
        let tx = self.store.database().begin_write().expect("open");
        let draft = Draft { kind, id, acquired: SystemTime::now(), body };
        self.outbox.append(&tx, &draft).expect("appended");
        tx.commit().expect("written");
        self.outbox.wake();
    }

    fn run(&self, drain: Duration) -> Running {
        self.run_from(0, drain)
    }

    /// After so many connections of this run.
    fn run_from(&self, session: u64, drain: Duration) -> Running {
        let publisher = Publisher {
            settings: self.settings.clone(),
            require_subscriber: self.require_subscriber,
            fresh: Duration::from_secs(300),
            topics: Topics::new("s", "d").expect("valid"),
            boot_id: self.store.boot_id(),
            info: Info {
                version: "0".to_owned(),
                site: "s".to_owned(),
                device: "d".to_owned(),
                epoch: self.store.epoch().to_owned(),
                model: ModelInfo {
                    name: "n".to_owned(),
                    version: "1".to_owned(),
                    sha256: "b".repeat(64),
                    backend: "tract-cpu".to_owned(),
                },
                landmarks: vec!["sella".to_owned()],
            },
            outbox: Arc::clone(&self.outbox),
            pulse: Pulse::new("the publisher"),
            observer: LinkObserver::default(),
            hand_over: self.hand_over.clone(),
        };
        let (condition, seen) = watch::channel(Condition::default());
        let (told, link) = watch::channel(LinkState { session, ..LinkState::default() });
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(publisher.run(seen, told, shutdown.clone(), drain));
        Running { condition, link, shutdown, task }
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

async fn next(subscriber: &mut Subscriber) -> Delivered {
    timeout(PATIENCE, subscriber.next()).await.expect("a message").expect("the broker lives")
}

/// The next message as JSON that `is` wanted.
async fn next_json(subscriber: &mut Subscriber, mut is: impl FnMut(&Value) -> bool) -> Value {
    loop {
        let message: Value = serde_json::from_slice(&next(subscriber).await.payload).expect("JSON");
        if is(&message) {
            return message;
        }
    }
}

async fn numbers(subscriber: &mut Subscriber, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let message = next_json(subscriber, |_| true).await;
        numbers.push(message["sequence"].as_str().expect("an event").parse().expect("a number"));
    }
    numbers
}

const LONG: Duration = Duration::from_secs(20);
const RESULT: &str = "xr/v1/s/d/result";
const ERROR: &str = "xr/v1/s/d/error";
const STATUS: &str = "xr/v1/s/d/status";

#[tokio::test]
async fn results_and_errors_arrive_in_the_order_of_their_numbers_and_leave_the_outbox() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let mut events = broker.subscribe("xr/v1/s/d/+");
    let device = Device::new(&broker);
    for n in 0..10 {
        device.append(if n % 4 == 1 { EventKind::Error } else { EventKind::Result }, n, 0);
    }
    let running = device.run(LONG);
    device.append(EventKind::Result, 10, 0);
    let mut found = Vec::new();
    let mut topics = Vec::new();
    while found.len() < 11 {
        let Delivered { topic, payload, .. } = next(&mut events).await;
        let message: Value = serde_json::from_slice(&payload).expect("JSON");
        if let Some(sequence) = message["sequence"].as_str() {
            found.push(sequence.parse::<u64>().expect("a number"));
            assert_eq!(message["historical"], Value::Bool(false));
        }
        topics.push(topic);
    }
    assert_eq!(found, (1..=11).collect::<Vec<_>>());
    assert_eq!(topics[..2], [STATUS, "xr/v1/s/d/info"].map(str::to_owned), "the birth comes first");
    assert_eq!(topics.iter().filter(|topic| *topic == ERROR).count(), 3);
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"));
}

#[tokio::test]
async fn a_result_without_a_subscriber_waits_for_one() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let device = Device::new(&broker);
    device.append(EventKind::Result, 0, 0);
    let mut running = device.run(LONG);
    running.until("held", |link| link.hold == Some(Hold::NoSubscriber { alarm: false })).await;
    assert_eq!(device.outbox.len().expect("readable"), 1);
    let mut status = broker.subscribe(STATUS);
    let held = next_json(&mut status, |status| status["reasons"] == serde_json::json!(["no_subscriber"])).await;
    assert_eq!((&held["state"], &held["queue_length"]), (&"degraded".into(), &1.into()));
    let mut results = broker.subscribe(RESULT);
    assert_eq!(numbers(&mut results, 1).await, [1]);
    running.until("released", |link| link.hold.is_none()).await;
    next_json(&mut status, |status| status["state"] == "online" && status["queue_length"] == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn without_the_need_of_a_subscriber_an_accepted_result_is_delivered() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let device = Device { require_subscriber: false, ..Device::new(&broker) };
    device.append(EventKind::Result, 0, 0);
    let running = device.run(LONG);
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"));
}

#[tokio::test]
async fn a_refused_topic_is_kept_while_the_others_flow() {
    for reason in [PubAckReason::NotAuthorized, PubAckReason::QuotaExceeded, PubAckReason::PayloadFormatInvalid] {
        let broker = LoopbackBroker::start().await.expect("a port");
        broker.set_faults(Faults { answers: vec![(RESULT.to_owned(), reason)], ..Faults::default() });
        let mut errors = broker.subscribe(ERROR);
        let mut results = broker.subscribe(RESULT);
        let mut status = broker.subscribe(STATUS);
        let device = Device::new(&broker);
        device.append(EventKind::Result, 0, 0);
        device.append(EventKind::Error, 1, 0);
        let running = device.run(LONG);
        assert_eq!(numbers(&mut errors, 1).await, [2]);
        next_json(&mut status, |status| status["reasons"] == serde_json::json!(["rejected"])).await;
        broker.set_faults(Faults::default());
        assert_eq!(numbers(&mut results, 1).await, [1]);
        next_json(&mut status, |status| status["state"] == "online").await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_swallowed_acknowledgement_rebuilds_the_connection_and_sends_the_head_again() {
    let broker = LoopbackBroker::start().await.expect("a port");
    broker.set_faults(Faults { swallow_pubacks: Some((RESULT.to_owned(), 2)), ..Faults::default() });
    let mut results = broker.subscribe(RESULT);
    let mut device = Device::new(&broker);
    device.settings.ack_timeout = Duration::from_millis(200);
    device.append(EventKind::Result, 0, 0);
    device.append(EventKind::Result, 1, 0);
    let mut running = device.run(LONG);
    assert_eq!(numbers(&mut results, 4).await, [1, 1, 1, 2]);
    assert_eq!(running.until("connected", |link| link.connected).await.session, 3);
    running.stop().await;
}

#[tokio::test]
async fn a_message_the_broker_takes_not_becomes_a_refusal_and_the_next_flows() {
    let broker = LoopbackBroker::start().await.expect("a port");
    broker.set_faults(Faults { max_packet_bytes: Some(2000), ..Faults::default() });
    let (mut results, mut errors) = (broker.subscribe(RESULT), broker.subscribe(ERROR));
    let device = Device::new(&broker);
    device.append(EventKind::Result, 0, 5000);
    device.append(EventKind::Result, 1, 0);
    let running = device.run(LONG);
    assert_eq!(numbers(&mut results, 1).await, [2]);
    let refusal = next_json(&mut errors, |_| true).await;
    assert_eq!((&refusal["sequence"], &refusal["data"]["stage"]), (&"00000000000000000001".into(), &"report".into()));
    assert!(refusal["data"]["message"].as_str().is_some_and(|words| words.contains("the broker takes 2000")));
    running.stop().await;
    assert_eq!(broker.connections(), 1, "the broker was never asked");
    assert_eq!(device.outbox.quarantined().expect("readable").len(), 1);
}

#[tokio::test]
async fn the_own_limit_holds_too_and_an_error_that_does_not_fit_waits() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let mut errors = broker.subscribe(ERROR);
    let mut device = Device::new(&broker);
    device.settings.max_packet_bytes = 1500;
    device.append(EventKind::Error, 0, 5000);
    let mut running = device.run(LONG);
    running.until("held", |link| link.hold == Some(Hold::Rejected { code: 149 })).await;
    running.stop().await;
    assert_eq!(device.outbox.len().expect("readable"), 1);
    device.settings.max_packet_bytes = 100_000;
    let running = device.run(LONG);
    assert_eq!(numbers(&mut errors, 1).await, [1]);
    running.stop().await;
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    let broker = LoopbackBroker::start().await.expect("a port");
    broker.set_faults(Faults { refuse_connect: Some(ConnectReturnCode::NotAuthorized), ..Faults::default() });
    let mut results = broker.subscribe(RESULT);
    let device = Device::new(&broker);
    device.append(EventKind::Result, 0, 0);
    let mut running = device.run(LONG);
    let state = running.until("refused", |link| link.session >= 3).await;
    assert!(!state.connected && state.error.is_some_and(|words| words.contains("NotAuthorized")));
    broker.set_faults(Faults::default());
    assert_eq!(numbers(&mut results, 1).await, [1]);
    running.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_away_for_an_hour_is_asked_seldom() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let mut device = Device::new(&broker);
    drop(broker);
    device.settings.max_backoff = Duration::from_secs(60);
    tokio::time::pause();
    let mut running = device.run(LONG);
    let hour = timeout(Duration::from_secs(3600), running.link.wait_for(|link| link.connected)).await.is_err();
    assert!(hour, "nobody listens");
    let attempts = running.link.borrow().session;
    // 30 s each on average once the longest pause is reached.
    assert!((60..200).contains(&attempts), "{attempts} attempts in an hour");
    running.task.abort();
}

#[tokio::test]
async fn a_half_open_link_is_found_within_twice_the_keep_alive() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let mut device = Device::new(&broker);
    device.settings.ack_timeout = Duration::from_secs(60);
    let mut running = device.run(LONG);
    let mut status = broker.subscribe(STATUS);
    next_json(&mut status, |status| status["state"] == "online").await;
    running.until("connected", |link| link.connected).await;
    broker.set_faults(Faults { mute: true, ..Faults::default() });
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let state = running.until("lost", |link| !link.connected).await;
    let found_after = start.elapsed();
    let rounding = Duration::from_millis(10);
    assert!(found_after <= 2 * device.settings.keep_alive + rounding, "{found_after:?}");
    assert!(state.error.is_some_and(|words| words.contains("ping")));
    tokio::time::resume();
    running.task.abort();
}

#[tokio::test]
async fn a_stop_says_stopping_then_offline_and_a_drop_leaves_it_to_the_will() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let mut status = broker.subscribe(STATUS);
    let device = Device::new(&broker);
    let running = device.run(LONG);
    let birth = next_json(&mut status, |_| true).await;
    assert_eq!((&birth["state"], &birth["session"]), (&"online".into(), &1.into()));
    running.stop().await;
    let words = [next_json(&mut status, |_| true).await, next_json(&mut status, |_| true).await];
    assert_eq!(words.map(|status| status["state"].clone()), ["stopping", "offline"]);
    let retained = next(&mut broker.subscribe(STATUS)).await;
    assert!(retained.retained && String::from_utf8_lossy(&retained.payload).contains("offline"));

    let running = device.run(LONG);
    next_json(&mut status, |status| status["state"] == "online").await;
    running.task.abort();
    let will = next_json(&mut status, |_| true).await;
    assert_eq!((&will["state"], &will["session"]), (&"offline".into(), &1.into()));
    assert_eq!(will["boot_id"], device.store.boot_id());
}

#[tokio::test]
async fn the_next_publisher_takes_over_without_a_goodbye_of_this_one() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let mut status = broker.subscribe(STATUS);
    let mut results = broker.subscribe(RESULT);
    let mut device = Device::new(&broker);
    let running = device.run(LONG);
    next_json(&mut status, |status| status["state"] == "online").await;
    device.hand_over.cancel();
    timeout(PATIENCE, running.task).await.expect("it leaves").expect("no panic").expect("no error");
    let session = running.link.borrow().session;
    device.hand_over = CancellationToken::new();
    device.append(EventKind::Result, 0, 0);
    let next = device.run_from(session, LONG);
    let birth = next_json(&mut status, |_| true).await;
    assert_eq!((&birth["state"], &birth["session"]), (&"online".into(), &2.into()), "nothing was said in between");
    assert_eq!(numbers(&mut results, 1).await, [1]);
    next.stop().await;
}

#[tokio::test]
async fn a_publisher_that_waits_for_a_dead_broker_makes_way_at_once() {
    let broker = LoopbackBroker::start().await.expect("a port");
    broker.set_faults(Faults { mute: true, ..Faults::default() });
    let device = Device::new(&broker);
    let running = device.run(Duration::from_secs(3600));
    device.hand_over.cancel();
    timeout(PATIENCE, running.task).await.expect("it leaves").expect("no panic").expect("no error");
}

#[tokio::test]
async fn a_change_of_condition_is_told() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let mut status = broker.subscribe(STATUS);
    let device = Device::new(&broker);
    let running = device.run(LONG);
    next_json(&mut status, |status| status["state"] == "online").await;
    running.condition.send_modify(|condition| {
        condition.reasons.insert(Reason::FolderMissing);
    });
    let told = next_json(&mut status, |_| true).await;
    assert_eq!((&told["state"], &told["reasons"]), (&"degraded".into(), &serde_json::json!(["folder_missing"])));
    running.stop().await;
}

#[tokio::test]
async fn a_stop_gives_a_held_result_one_more_try_and_then_leaves() {
    let broker = LoopbackBroker::start().await.expect("a port");
    let device = Device::new(&broker);
    device.append(EventKind::Result, 0, 0);
    let mut running = device.run(Duration::from_secs(3600));
    running.until("held", |link| link.hold.is_some()).await;
    let mut results = broker.subscribe(RESULT);
    running.stop().await;
    assert_eq!(numbers(&mut results, 1).await, [1]);
    assert!(device.outbox.is_empty().expect("readable"));

    drop(results);
    device.append(EventKind::Result, 1, 0);
    let running = device.run(Duration::from_secs(3600));
    running.stop().await;
    assert_eq!(device.outbox.len().expect("readable"), 1, "kept for the next start");
}

#[tokio::test]
async fn a_stop_ends_at_the_deadline_whatever_the_broker_does() {
    let broker = LoopbackBroker::start().await.expect("a port");
    broker.set_faults(Faults { mute: true, ..Faults::default() });
    let device = Device::new(&broker);
    device.append(EventKind::Result, 0, 0);
    let running = device.run(Duration::from_millis(50));
    running.stop().await;
    assert_eq!(device.outbox.len().expect("readable"), 1);
}
