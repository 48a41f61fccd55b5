//! A subscriber with a persistent session that remembers all it hears of the device `ceph-1` of the site `clinic`.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::mosquitto::{Mosquitto, Subscriber};

/// The device's topics begin so.
const DEVICE: &str = "xr/v1/clinic/ceph-1/";
/// What the test itself says below the device's topics.
const PROBE: &str = "probe";
/// Far beyond anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// The subscriber and what it heard.
pub(crate) struct Witness {
    subscriber: Subscriber,
    heard: Vec<(String, Value)>,
}

impl Witness {
    /// Subscribes.
    pub(crate) async fn new(broker: &Mosquitto) -> Self {
        let session = ["-c", "-x", "3600", "-i", "witness"];
        Self { subscriber: broker.subscribe(&format!("{DEVICE}#"), &session).await, heard: Vec::new() }
    }

    /// The documents heard on one of the device's topics, in the order they came.
    pub(crate) fn on<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Value> {
        self.heard.iter().filter(move |(heard, _)| heard == topic).map(|(_, document)| document)
    }

    /// Results and refusals, in the order they came.
    pub(crate) fn events(&self) -> Vec<&Value> {
        let is_event = |topic: &str| matches!(topic, "result" | "error");
        self.heard.iter().filter(|(topic, _)| is_event(topic)).map(|(_, document)| document).collect()
    }

    /// Listens until what was heard is enough.
    pub(crate) async fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let listening = async {
            while !enough(self) {
                let (topic, document) = self.subscriber.next().await;
                let topic = topic.strip_prefix(DEVICE).expect("only these are subscribed to").to_owned();
                self.heard.push((topic, document));
            }
        };
        let heard = timeout(PATIENCE, listening).await;
        assert!(heard.is_ok(), "waited {PATIENCE:?} for {what}; heard {:?}", self.outline());
    }

    /// Listens until the daemon in its `start`-th run, counted from 1, says that it is online and has nothing to send.
    pub(crate) async fn idle(&mut self, start: u64) {
        let run = format!("-{start}");
        let idle = |status: &Value| {
            let boot = status["boot_id"].as_str().expect("a status");
            boot.ends_with(&run) && status["state"] == "online" && status["queue_length"] == 0
        };
        self.until(&format!("run {start}"), |witness| witness.on("status").any(idle)).await;
    }

    /// Listens until there is a result of the film with this SHA-256.
    pub(crate) async fn result_of(&mut self, film: &str) {
        self.until(&format!("the result of {film}"), |witness| witness.results_of(film).next().is_some()).await;
    }

    /// The results of the film with this SHA-256, repeated ones included.
    pub(crate) fn results_of<'a>(&'a self, film: &'a str) -> impl Iterator<Item = &'a Value> {
        self.on("result").filter(move |event| event["data"]["image"]["sha256"] == film)
    }

    /// Listens until the subscriber, whose broker was restarted, is connected again.
    pub(crate) async fn is_back(&mut self, broker: &Mosquitto) {
        let before = self.on(PROBE).count();
        let port = broker.port().to_string();
        let published = Command::new("mosquitto_pub")
            .args(["-V", "mqttv5", "-q", "1", "-h", "127.0.0.1", "-p", &port, "-m", "{}", "-t"])
            .arg(format!("{DEVICE}{PROBE}"))
            .status();
        assert!(published.expect("mosquitto-clients are installed").success());
        self.until("the probe", |witness| witness.on(PROBE).count() > before).await;
    }

    fn outline(&self) -> Vec<String> {
        let line = |(topic, document): &(String, Value)| match document["sequence"].as_str() {
            Some(sequence) => format!("{topic} {}", sequence.trim_start_matches('0')),
            None => format!("{topic} {}", document["state"]),
        };
        self.heard.iter().map(line).collect()
    }
}

/// The number of an event.
pub(crate) fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().and_then(|digits| digits.parse().ok()).expect("20 digits")
}
