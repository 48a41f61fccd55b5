//! Delivered events once more: what a device answers to whom, and a subscriber that is complete although its broker
//! lost everything.

#[path = "support/device.rs"]
#[expect(dead_code, reason = "restarts and large films are for the tests of a broker that fails")]
mod device;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "other tests stop it, and let its certificates expire")]
mod mosquitto;
#[path = "support/reference.rs"]
mod reference;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use device::{ALL, Device, ERROR, RESULT, STATUS, next_on, sequence, status_with};
use landmarkd::outbox::ArchiveLimits;
use landmarkd::report::schema;
use mosquitto::{Authority, Mosquitto, Subscriber};
use reference::{Ended, Reference};
use serde_json::{Value, json};

const REPLAY: &str = "xr/v1/clinic/ceph-1/cmd/replay";
const PING: &str = "xr/v1/clinic/ceph-1/cmd/ping";
const REPLAY_ANSWER: &str = "xr/v1/clinic/ceph-1/cmd/replay/answer";
const PING_ANSWER: &str = "xr/v1/clinic/ceph-1/cmd/ping/answer";

/// A device that can be asked.
fn device(broker: &Mosquitto) -> Device {
    let mut device = Device::new(broker.port());
    device.settings.commands = true;
    device
}

fn numbers(ended: &Ended) -> Vec<u64> {
    ended.events.iter().map(sequence).collect()
}

fn publish(broker: &Mosquitto, topic: &str, payload: &str, response_topic: Option<&str>) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-V", "mqttv5", "-q", "1", "-h", "127.0.0.1", "-p"]).arg(broker.port().to_string());
    command.args(["-t", topic, "-m", payload]);
    if let Some(response_topic) = response_topic {
        command.args(["-D", "publish", "response-topic", response_topic]);
    }
    assert!(command.status().expect("mosquitto-clients are installed").success());
}

fn request(epoch: &str, from: u64, to: u64) -> String {
    json!({"epoch": epoch, "from": from.to_string(), "to": to.to_string()}).to_string()
}

/// Everything until a replay's last answer: its events, and its answers.
async fn replayed(subscriber: &mut Subscriber) -> (Vec<Value>, Vec<Value>) {
    let (mut events, mut answers) = (Vec::new(), Vec::new());
    loop {
        let (topic, document) = subscriber.next().await;
        if [RESULT, ERROR].contains(&topic.as_str()) {
            events.push(document);
        } else if topic == REPLAY_ANSWER {
            let ends = document["state"] != "accepted";
            answers.push(document);
            if ends {
                return (events, answers);
            }
        }
    }
}

/// Mosquitto acknowledges what it then loses: with its database goes what it kept for a session that is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_is_complete_although_the_broker_lost_its_database() {
    let Some(mut broker) = Mosquitto::start(|_| String::new()) else { return };
    let device = device(&broker);
    let mut reference = Reference::new();
    let run = reference.start(broker.port(), 100, &[]);
    let running = device.run();
    device.append_all(0..100);
    let ended = run.ended().await;
    assert_eq!((ended.code, numbers(&ended)), (Some(0), (1..=100).collect()), "{}", ended.words);

    device.append_all(100..200);
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"), "the session is a subscriber");
    broker.lose_everything();
    broker.restart();
    let running = device.run();
    device.append_all(200..210);
    let ended = reference.start(broker.port(), 210, &[]).ended().await;
    println!("{}", ended.words);
    assert_eq!((ended.code, numbers(&ended)), (Some(0), (101..=210).collect()), "{}", ended.words);
    assert!(ended.events[..100].iter().all(|event| event["historical"] == true));
    running.stop().await;
}

/// Mosquitto acknowledges what it then drops, when it has more for a session that is away than it may keep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_is_complete_although_the_brokers_quota_was_exceeded() {
    let Some(broker) = Mosquitto::start(|_| "max_queued_messages 10".to_owned()) else { return };
    let device = device(&broker);
    let mut reference = Reference::new();
    let run = reference.start(broker.port(), 1, &[]);
    let running = device.run();
    device.append_all(0..1);
    assert_eq!(run.ended().await.code, Some(0));
    // The last of them too: nothing above it shows that they are gone.
    device.append_all(1..100);
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"), "all were acknowledged");
    let running = device.run();
    let ended = reference.start(broker.port(), 100, &[]).ended().await;
    println!("{}", ended.words);
    assert_eq!((ended.code, numbers(&ended)), (Some(0), (2..=100).collect()), "{}", ended.words);
    let late = ended.events.iter().filter(|event| event["historical"] == true).count();
    assert!(late >= 60, "the broker dropped most of them: {late}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_subscriber_says_what_is_gone_for_good_and_forgets_nothing_when_it_is_killed() {
    let home = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(home.path(), "broker");
    let password = home.path().join("password");
    std::fs::write(&password, "right\n").expect("writable");
    let secured = |directory: &Path| {
        let path = directory.join("passwords");
        let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&path).args(["archive", "right"]).status();
        assert!(made.expect("part of mosquitto").success());
        let tls = landmarkd_tls(&authority);
        format!("listener {} 127.0.0.1\n{tls}\nallow_anonymous true\npassword_file {}", tls_port(), path.display())
    };
    let Some(broker) = Mosquitto::start(secured) else { return };
    let device = device(&broker);
    let mut listener = broker.subscribe(STATUS, &[]).await;
    let mut results = broker.subscribe(RESULT, &[]).await;
    let running = device.run();
    device.append_all(0..20);
    for number in 1..=20 {
        assert_eq!(sequence(&next_on(&mut results, RESULT).await), number);
    }
    status_with(&mut listener, |status| status["queue_length"] == 0).await;
    forget_oldest(&device, 5);
    let arguments = ["--ca", path(&authority.ca), "--username", "archive", "--password-file", path(&password)];
    let mut reference = Reference::new();
    let run = reference.start(tls_port(), 30, &arguments);
    // The replay is under way when it is killed.
    while sequence(&next_on(&mut results, RESULT).await) < 12 {}
    let killed = run.kill();
    device.append_all(20..30);
    let ended = reference.start(tls_port(), 30, &arguments).ended().await;
    assert_eq!(ended.code, Some(1), "{}", ended.words);
    assert!(ended.words.contains("missing: [1, 2, 3, 4, 5]"), "{}", ended.words);
    let mut all = numbers(&killed);
    all.extend(numbers(&ended));
    let again = all.windows(2).filter(|pair| pair[0] >= pair[1]).count();
    assert!(again <= 1, "printed twice after the crash: one event at most: {all:?}");
    all.dedup();
    assert_eq!(all, (6..=30).collect::<Vec<_>>(), "{} {}", killed.words, ended.words);
    running.stop().await;
}

/// One port for the test that needs a second listener.
fn tls_port() -> u16 {
    static PORT: std::sync::OnceLock<u16> = std::sync::OnceLock::new();
    *PORT.get_or_init(|| {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
        listener.and_then(|listener| listener.local_addr()).expect("a port").port()
    })
}

fn landmarkd_tls(Authority { ca, certificate, key }: &Authority) -> String {
    format!("cafile {}\ncertfile {}\nkeyfile {}", ca.display(), certificate.display(), key.display())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// As if they had been delivered long ago.
fn forget_oldest(device: &Device, count: u64) {
    for _ in 0..count {
        let size = device.outbox.archive_size().expect("readable");
        let limits = ArchiveLimits { age: Duration::MAX, bytes: size.bytes - 1 };
        assert_eq!(device.outbox.prune_archive(SystemTime::now(), &limits).expect("writable"), 1);
    }
}

#[tokio::test]
async fn a_request_is_answered_and_a_hostile_one_does_no_harm() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    // Not the requests themselves, some of which are no JSON.
    let answers = ["-t", "xr/v1/clinic/ceph-1/cmd/+/answer", "-t", "archive/answers"];
    let mut subscriber = broker.subscribe("xr/v1/clinic/ceph-1/+", &answers).await;
    let device = device(&broker);
    let mut running = device.run();
    device.append_all(0..5);
    device.append_error(5);
    let mut ids = Vec::new();
    while ids.len() < 6 {
        let (topic, event) = subscriber.next().await;
        if [RESULT, ERROR].contains(&topic.as_str()) {
            assert_eq!(event["historical"], false);
            ids.push(event["id"].clone());
        }
    }
    status_with(&mut subscriber, |status| status["queue_length"] == 0).await;
    forget_oldest(&device, 2);
    let epoch = device.store.epoch();
    let schemas = schema();

    for (from, to, first, reason) in [(4, 6, 4, Value::Null), (1, 99, 3, json!("pruned"))] {
        publish(&broker, REPLAY, &request(epoch, from, to), None);
        let (events, answers) = replayed(&mut subscriber).await;
        let states: Vec<&Value> = answers.iter().map(|answer| &answer["state"]).collect();
        assert_eq!(states, ["accepted", "done"], "{answers:?}");
        assert_eq!((&answers[0]["reason"], &answers[1]["sent"]), (&reason, &json!(6 - first + 1)));
        assert_eq!(events.iter().map(sequence).collect::<Vec<_>>(), (first..=6).collect::<Vec<_>>());
        for event in &events {
            assert_eq!((&event["id"], &event["historical"]), (&ids[sequence(event) as usize - 1], &json!(true)));
        }
        for answer in &answers {
            assert_eq!(answer["oldest"], "00000000000000000003", "{answer}");
            jsonschema::validate(&schemas.replay_answer, answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
        }
    }

    let deep = "[".repeat(4000);
    let long = request(&"x".repeat(5000), 1, 2);
    for (payload, reason) in [
        (request(epoch, 1, 2).as_str(), "pruned"),
        (&request(epoch, 7, 9), "not_yet"),
        (&request(epoch, 0, 9), "range"),
        (&request(epoch, 5, 4), "range"),
        (&request("0123", 3, 4), "unknown_epoch"),
        ("", "malformed"),
        ("{", "malformed"),
        ("null", "malformed"),
        (&deep, "malformed"),
        (&long, "malformed"),
        ("\u{7f}\u{1}Doe^Jane", "malformed"),
        (r#"{"epoch":"e","from":1,"to":2}"#, "malformed"),
    ] {
        publish(&broker, REPLAY, payload, None);
        let (events, answers) = replayed(&mut subscriber).await;
        assert_eq!(events, [] as [Value; 0]);
        let answer = &answers[0];
        assert_eq!((&answer["state"], &answer["reason"]), (&json!("refused"), &json!(reason)), "{payload}");
        assert_eq!((&answer["epoch"], &answer["last"]), (&json!(epoch), &json!("00000000000000000006")));
        assert!(!answer.to_string().contains("Doe"), "{answer}");
    }

    // A request is answered with the device's rights, not the asker's.
    for topic in [STATUS, RESULT, "xr/v1/clinic/ceph-2/cmd/replay/answer"] {
        publish(&broker, REPLAY, &request(epoch, 3, 3), Some(topic));
        let (events, answers) = replayed(&mut subscriber).await;
        assert_eq!((events.len(), &answers[0]["reason"]), (0, &json!("response_topic")), "{topic}");
    }
    for (topic, own) in [("archive/answers", "archive/answers"), (PING_ANSWER, PING_ANSWER)] {
        publish(&broker, PING, "", Some(topic).filter(|_| topic != PING_ANSWER));
        let answer = next_on(&mut subscriber, own).await;
        jsonschema::validate(&schemas.ping_answer, &answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
        assert_eq!((&answer["epoch"], &answer["last"]), (&json!(epoch), &json!("00000000000000000006")));
        assert_eq!(answer["boot_id"], device.store.boot_id());
    }
    assert_eq!(running.until("connected", |link| link.connected).await.session, 1, "nothing ended the connection");
    running.stop().await;
}

#[tokio::test]
async fn one_replay_at_a_time_takes_its_time_and_lets_new_events_pass() {
    const DELIVERED: u64 = 100;
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut subscriber = broker.subscribe(ALL, &[]).await;
    let device = device(&broker);
    let running = device.run();
    device.append_all(0..DELIVERED as usize);
    while sequence(&next_on(&mut subscriber, RESULT).await) < DELIVERED {}
    let epoch = device.store.epoch();
    publish(&broker, REPLAY, &request(epoch, 1, DELIVERED), None);
    let start = Instant::now();
    assert_eq!(next_on(&mut subscriber, REPLAY_ANSWER).await["state"], "accepted");
    publish(&broker, REPLAY, &request(epoch, 1, DELIVERED), None);
    device.append_all(DELIVERED as usize..DELIVERED as usize + 10);
    let (events, answers) = replayed(&mut subscriber).await;
    assert_eq!((&answers[0]["state"], &answers[0]["reason"]), (&json!("refused"), &json!("busy")));
    let (more, answers) = replayed(&mut subscriber).await;
    let took = start.elapsed();
    assert_eq!((&answers[0]["state"], &answers[0]["sent"]), (&json!("done"), &json!(DELIVERED)));
    let heard: Vec<&Value> = events.iter().chain(&more).collect();
    let late = heard.iter().filter(|event| event["historical"] == true).map(|event| sequence(event));
    assert_eq!(late.collect::<Vec<_>>(), (1..=DELIVERED).collect::<Vec<_>>());
    let live = heard.iter().filter(|event| event["historical"] == false).map(|event| sequence(event));
    assert_eq!(live.collect::<Vec<_>>(), (DELIVERED + 1..=DELIVERED + 10).collect::<Vec<_>>());
    let last_live = heard.iter().rposition(|event| event["historical"] == false).expect("ten of them");
    assert!(last_live < heard.len() / 2, "the new ones came at once, not at {last_live} of {}", heard.len());
    println!("{DELIVERED} events again in {took:.1?}");
    assert!(took >= Duration::from_millis(20) * (DELIVERED as u32 - 1), "{took:?}");
    running.stop().await;
}

/// A replay that nobody would hear is not sent into the void.
#[tokio::test]
async fn a_replay_without_a_subscriber_ends_and_says_so() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut answers = broker.subscribe(REPLAY_ANSWER, &[]).await;
    let device = device(&broker);
    let running = device.run();
    let mut results = broker.subscribe(RESULT, &[]).await;
    device.append_all(0..3);
    while sequence(&next_on(&mut results, RESULT).await) < 3 {}
    drop(results);
    publish(&broker, REPLAY, &request(device.store.epoch(), 1, 3), None);
    assert_eq!(next_on(&mut answers, REPLAY_ANSWER).await["state"], "accepted");
    let end = next_on(&mut answers, REPLAY_ANSWER).await;
    assert_eq!((&end["state"], &end["reason"]), (&json!("ended"), &json!("no_subscriber")));
    running.stop().await;
}

/// `landmarkd replay` with the configuration of the device.
async fn cli(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landmarkd"));
    command.arg("replay").arg("--config").arg(config).args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANDMARKD_")) {
        command.env_remove(name);
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    output.expect("the program is built with its tests")
}

#[tokio::test]
async fn an_operator_asks_by_the_command_line() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let home = tempfile::tempdir().expect("a directory");
    let config = home.path().join("landmarkd.toml");
    let text = format!(
        "[site]\nname = \"clinic\"\ndevice = \"ceph-1\"\n[acquisition]\nfolder = \"/srv/films\"\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = {}\n",
        broker.port()
    );
    std::fs::write(&config, text).expect("writable");
    let mut results = broker.subscribe(RESULT, &[]).await;
    let mut device = Device::new(broker.port());
    device.append_all(0..4);
    let running = device.run();
    while sequence(&next_on(&mut results, RESULT).await) < 4 {}
    let output = cli(&config, &["--from", "1", "--to", "4"]).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{words}");
    assert!(words.contains("mqtt.commands = true"), "{words}");
    running.stop().await;

    device.settings.commands = true;
    let mut running = device.run();
    running.until("connected", |link| link.connected).await;
    forget_oldest(&device, 1);
    let epoch = device.store.epoch().to_owned();
    for (arguments, code, expected) in [
        (
            ["--from", "2", "--to", "3", "--epoch", &epoch].as_slice(),
            0,
            format!("events 2 to 3 of epoch {epoch} come again\ndone: 2 of events 2 to 3 were sent"),
        ),
        (&["--from", "1", "--to", "9"], 0, "come again: what lies below 2 is gone for good\ndone: 3 of".to_owned()),
        (&["--from", "1", "--to", "1"], 66, "refused: what lies below 2 is gone for good\n".to_owned()),
        (&["--from", "5", "--to", "6"], 64, "refused: the last number so far is 4\n".to_owned()),
        (&["--from", "2", "--to", "3", "--epoch", "x"], 64, format!("refused: this device counts in epoch {epoch}")),
    ] {
        let output = cli(&config, arguments).await;
        let (out, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out} {words}");
        assert!(out.contains(&expected), "{arguments:?}: {out}");
    }
    let again: Vec<u64> = {
        let mut heard = Vec::new();
        while heard.len() < 5 {
            heard.push(sequence(&next_on(&mut results, RESULT).await));
        }
        heard
    };
    assert_eq!(again, [2, 3, 2, 3, 4]);
    assert_eq!(running.until("connected", |link| link.connected).await.session, 1, "the daemon was not thrown out");
    running.stop().await;
}
