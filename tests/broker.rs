//! What a broker, a network and a clock can do to a device: a real Mosquitto, a proxy before it that cuts and swallows,
//! SIGKILL and SIGSTOP. Nothing is lost by any of it, and the device says what is wrong.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/clock.rs"]
mod clock;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "its crash points and late films are for other tests")]
mod daemon;
#[path = "support/device.rs"]
#[expect(dead_code, reason = "refusals are for the tests of topics")]
mod device;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "DICOM identifiers are for other tests")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "it loses its database in the tests of replay")]
mod mosquitto;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/reference.rs"]
#[expect(dead_code, reason = "it is killed in the tests of replay")]
mod reference;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "probes after a restart are for other tests")]
mod witness;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemon::Home;
use device::{ALL, Device, ERROR, INFO, PATIENCE, RESULT, STATUS, draft, next_on, sequence, status_with};
use films::{Kind, film, sha256};
use landmarkd::config::TlsSettings;
use mosquitto::{Authority, Mosquitto, Subscriber};
use proxy::{Mode, Proxy};
use reference::Reference;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval, timeout};
use witness::Witness;

fn plain_broker() -> Option<Mosquitto> {
    Mosquitto::start(|_| String::new())
}

/// The numbers on the result topic as a subscriber hears them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    seen: BTreeSet<u64>,
    repeated: usize,
    out_of_order: usize,
}

impl Tally {
    fn hear(&mut self, number: u64) {
        if self.seen.contains(&number) {
            self.repeated += 1;
            return;
        }
        self.out_of_order += usize::from(self.seen.last().is_some_and(|&last| number < last));
        self.seen.insert(number);
    }

    async fn hear_all(&mut self, subscriber: &mut Subscriber, count: usize) {
        while self.seen.len() < count {
            self.hear(sequence(&next_on(subscriber, RESULT).await));
        }
    }
}

/// A broker that is killed with SIGKILL every 2.5 s and comes back at once, while so many results are produced, the
/// last with the tenth kill.
async fn kill_while_producing(broker: &mut Mosquitto, device: &Device, results: usize) {
    const TICKS: usize = 250;
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0..TICKS {
        ticks.tick().await;
        block_in_place(|| {
            device.append_all(tick * results / TICKS..(tick + 1) * results / TICKS);
            if tick % 25 == 24 {
                broker.restart();
            }
        });
    }
}

/// Mosquitto acknowledges before it saves (its issue 1855): what is lost on its way to a persistent session is seen as
/// a gap, and had again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_subscriber_has_two_thousand_results_in_order_of_a_broker_killed_ten_times() {
    const RESULTS: usize = 2000;
    let Some(mut broker) = plain_broker() else { return };
    let mut device = Device::new(broker.port());
    device.settings.commands = true;
    let mut reference = Reference::new();
    let run = reference.start(broker.port(), RESULTS, &[]);
    let mut running = device.run();
    kill_while_producing(&mut broker, &device, RESULTS).await;
    let ended = run.ended().await;
    let numbers: Vec<u64> = ended.events.iter().map(sequence).collect();
    let unique: BTreeSet<&str> = ended.events.iter().filter_map(|event| event["id"].as_str()).collect();
    let in_order = numbers.windows(2).filter(|pair| pair[0] >= pair[1]).count();
    println!("a persistent session with replay: {} of {RESULTS}, {in_order} out of order", unique.len());
    println!("{}", ended.words);
    assert_eq!(ended.code, Some(0), "{}", ended.words);
    assert_eq!(numbers, (1..=RESULTS as u64).collect::<Vec<_>>());
    assert_eq!(unique.len(), RESULTS);
    let sessions = running.until("connected", |link| link.connected).await.session;
    assert!(sessions > 10, "the kills were felt: {sessions} sessions");
}

/// A subscriber whose session ends with its connection has nothing on the broker that could be lost: what comes while
/// it is away is held by the device (PUBACK reason 16).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_subscriber_has_two_thousand_results_of_a_broker_killed_ten_times() {
    const RESULTS: usize = 2000;
    let Some(mut broker) = plain_broker() else { return };
    let mut subscriber = broker.subscribe(RESULT, &[]).await;
    let device = Device::new(broker.port());
    let mut running = device.run();
    let mut tally = Tally::default();
    tokio::join!(kill_while_producing(&mut broker, &device, RESULTS), tally.hear_all(&mut subscriber, RESULTS));
    println!(
        "a plain session: {} of {RESULTS}, {} repeated, {} out of order",
        tally.seen.len(),
        tally.repeated,
        tally.out_of_order
    );
    assert_eq!(tally.seen, (1..=RESULTS as u64).collect());
    assert_eq!(tally.out_of_order, 0);
    let sessions = running.until("connected", |link| link.connected).await.session;
    assert!(sessions > 10, "the kills were felt: {sessions} sessions");
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"));
}

/// 30 days of 200 films without a broker, a restart after the fifteenth day and another while they are delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_without_a_broker_is_delivered_in_order_through_restarts() {
    const DAYS: usize = 30;
    const FILMS: usize = 200;
    let Some(broker) = plain_broker() else { return };
    let mut device = Device::new(broker.port());
    for day in 0..DAYS {
        if day == DAYS / 2 {
            device = device.reopened();
        }
        block_in_place(|| device.append_all(day * FILMS..(day + 1) * FILMS));
    }
    let mut subscriber = broker.subscribe(RESULT, &[]).await;
    let running = device.run();
    let mut tally = Tally::default();
    tally.hear_all(&mut subscriber, DAYS * FILMS / 2).await;
    running.task.abort();
    assert!(running.task.await.is_err_and(|ended| ended.is_cancelled()));
    let device = device.reopened();
    let waiting = device.outbox.len().expect("readable") as usize;
    assert!((1..DAYS * FILMS).contains(&waiting), "{waiting} wait");
    let running = device.run();
    tally.hear_all(&mut subscriber, DAYS * FILMS).await;
    println!("{} results, {} repeated by the restart", tally.seen.len(), tally.repeated);
    assert_eq!(tally.seen, (1..=(DAYS * FILMS) as u64).collect());
    assert_eq!(tally.out_of_order, 0);
    // A restart takes back fewer than eight acknowledgements, and the packet under way.
    assert!(tally.repeated <= 8, "{} repeated", tally.repeated);
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"));
}

#[tokio::test]
async fn a_half_open_link_is_found_within_two_keep_alives_and_nothing_is_lost() {
    let Some(broker) = plain_broker() else { return };
    let proxy = Proxy::before(broker.port()).await;
    let mut subscriber = broker.subscribe(ALL, &[]).await;
    let mut device = Device::new(proxy.port());
    device.settings.ack_timeout = Duration::from_secs(60);
    let mut running = device.run();
    status_with(&mut subscriber, |status| status["state"] == "online").await;
    running.until("connected", |link| link.connected).await;
    proxy.set(Mode::Swallow);
    let start = Instant::now();
    device.append(0);
    let lost = running.until("lost", |link| !link.connected).await;
    let found_after = start.elapsed();
    assert!(lost.error.is_some_and(|words| words.contains("ping")));
    assert!(found_after <= 2 * device.settings.keep_alive + Duration::from_secs(1), "{found_after:?}");
    println!("found after {found_after:.1?}, keep-alive {:?}", device.settings.keep_alive);
    proxy.set(Mode::Pass);
    assert_eq!(sequence(&next_on(&mut subscriber, RESULT).await), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_of_packets_loses_nothing() {
    const RESULTS: usize = 100;
    let Some(broker) = plain_broker() else { return };
    let proxy = Proxy::before(broker.port()).await;
    let mut subscriber = broker.subscribe(RESULT, &[]).await;
    let device = Device::new(proxy.port());
    device.append_all(0..RESULTS);
    proxy.set(Mode::CutAfter(30_000));
    let running = device.run();
    let mut tally = Tally::default();
    tally.hear_all(&mut subscriber, RESULTS).await;
    assert_eq!(tally.out_of_order, 0);
    let connects = proxy.connects();
    println!("{RESULTS} results over {connects} connections, {} repeated", tally.repeated);
    assert!(connects > 5, "{connects} connections");
    proxy.set(Mode::Pass);
    running.stop().await;
    assert!(device.outbox.is_empty().expect("readable"));
}

#[tokio::test]
async fn what_the_broker_finds_too_large_becomes_a_refusal_and_the_next_flows() {
    for (what, limit) in [
        // Told at the connection, so it is never sent.
        ("told", "max_packet_size 6000"),
        // Kept to itself until a message is there, and then told by a reason code that a PUBACK must not have.
        ("found out", "message_size_limit 6000"),
    ] {
        let Some(broker) = Mosquitto::start(|_| limit.to_owned()) else { return };
        let proxy = Proxy::before(broker.port()).await;
        let mut subscriber = broker.subscribe(ALL, &[]).await;
        let device = Device::new(proxy.port());
        for (n, landmarks) in [(0, 19), (1, 100), (2, 19)] {
            device.append_draft(&draft(n, landmarks));
        }
        let running = device.run();
        assert_eq!(sequence(&next_on(&mut subscriber, RESULT).await), 1, "{what}");
        let refusal = next_on(&mut subscriber, ERROR).await;
        assert_eq!((sequence(&refusal), &refusal["data"]["stage"]), (2, &json!("report")), "{what}");
        let words = refusal["data"]["message"].as_str().expect("words");
        assert!(words.contains("the broker takes"), "{what}: {words}");
        assert_eq!(sequence(&next_on(&mut subscriber, RESULT).await), 3, "{what}");
        running.stop().await;
        assert_eq!(device.outbox.quarantined().expect("readable").len(), 1, "{what}");
        assert!(device.outbox.is_empty().expect("readable"), "{what}");
        assert_eq!(proxy.connects(), if what == "told" { 1 } else { 2 }, "{what}");
    }
}

/// What the journal says on this thread, while the guard lives.
fn listen_to_the_journal() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let journal = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&journal);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(Arc::clone(&lines))).finish();
    (journal, tracing::subscriber::set_default(subscriber))
}

/// Each has something to deliver whenever it is connected, which must not make it come back sooner.
#[tokio::test]
async fn two_devices_with_one_client_id_give_the_broker_peace_and_say_what_is_wrong() {
    const FIGHT_S: u64 = 20;
    const MAX_BACKOFF: Duration = Duration::from_secs(8);
    let Some(broker) = plain_broker() else { return };
    let (journal, _listening) = listen_to_the_journal();
    let proxy = Proxy::before(broker.port()).await;
    let mut subscriber = broker.subscribe(ALL, &[]).await;
    let mut devices = [Device::new(proxy.port()), Device::new(proxy.port())];
    devices.iter_mut().for_each(|device| device.settings.max_backoff = MAX_BACKOFF);
    let [mut first, second] = [devices[0].run(), devices[1].run()];
    let mut films = interval(Duration::from_millis(100));
    for n in 0..FIGHT_S as usize * 10 {
        films.tick().await;
        devices.iter().for_each(|device| device.append(n));
    }
    let connects = proxy.connects();
    println!("{connects} connections in {FIGHT_S} s, longest pause {MAX_BACKOFF:?}");
    // Without a bound there are four a second; drawn from 0 to ever more, and at most 8 s, it is about ten for each.
    assert!((4..=40).contains(&connects), "{connects} connections in {FIGHT_S} s");
    let told = status_with(&mut subscriber, |status| status["reasons"] == json!(["client_id_taken"]));
    timeout(PATIENCE, told).await.expect("subscribers are told");
    let said = String::from_utf8(journal.lock().expect("no panic").clone()).expect("text");
    let loud = said.lines().filter(|line| line.contains("ERROR")).collect::<Vec<_>>();
    assert_eq!(loud.len(), 2, "one of each device: {said}");
    assert!(loud.iter().all(|line| line.contains("mqtt.client_id of its own")), "{loud:?}");
    assert!(said.lines().count() <= 10, "{said}");

    second.task.abort();
    let healed = first.until("healed", |link| link.connected && !link.client_id_taken).await;
    assert_eq!(healed.error, None);
    status_with(&mut subscriber, |status| status["state"] == "online" && status["queue_length"] == 0).await;
    first.stop().await;
    assert!(devices[0].outbox.is_empty().expect("readable"));
}

#[tokio::test]
async fn a_broker_that_is_away_is_asked_seldom() {
    const AWAY_S: u64 = 12;
    let Some(broker) = plain_broker() else { return };
    let proxy = Proxy::before(broker.port()).await;
    proxy.set(Mode::Refuse);
    let mut device = Device::new(proxy.port());
    device.settings.max_backoff = Duration::from_secs(2);
    device.append(0);
    let mut running = device.run();
    let away = running.link.wait_for(|link| link.connected);
    assert!(timeout(Duration::from_secs(AWAY_S), away).await.is_err(), "nobody answers");
    let connects = proxy.connects();
    println!("{connects} attempts in {AWAY_S} s, longest pause 2 s");
    // One a second on average; fewer than 4 or more than 36 of evenly drawn pauses is less likely than 1 in a million.
    assert!((4..=36).contains(&connects), "{connects} attempts in {AWAY_S} s");
    proxy.set(Mode::Pass);
    let mut subscriber = broker.subscribe(RESULT, &[]).await;
    assert_eq!(sequence(&next_on(&mut subscriber, RESULT).await), 1);
    running.stop().await;
}

#[tokio::test]
async fn who_subscribes_late_gets_status_and_info_and_no_old_result() {
    let Some(broker) = plain_broker() else { return };
    let mut early = broker.subscribe(ALL, &[]).await;
    let device = Device::new(broker.port());
    device.append(0);
    device.append_error(1);
    let running = device.run();
    assert_eq!(sequence(&next_on(&mut early, ERROR).await), 2);
    status_with(&mut early, |status| status["queue_length"] == 0).await;
    let mut late = broker.subscribe(ALL, &[]).await;
    device.append(2);
    let mut topics = BTreeSet::new();
    let first = loop {
        let (topic, document) = late.next().await;
        if [RESULT, ERROR].contains(&topic.as_str()) {
            break document;
        }
        topics.insert(topic);
    };
    assert_eq!(sequence(&first), 3, "what came before was not kept on the broker");
    assert_eq!(topics, BTreeSet::from([INFO, STATUS].map(str::to_owned)));
    running.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_named_with_the_clock() {
    let home = tempfile::tempdir().expect("a directory");
    let stale = Authority::expired(home.path(), "stale");
    let Some(broker) = Mosquitto::start(|_| tls_lines(&stale)) else { return };
    let mut device = Device::new(broker.port());
    device.settings.tls = Some(TlsSettings { ca_file: Some(stale.ca.clone()), client: None });
    let mut running = device.run();
    let words = running.until("refused", |link| link.error.is_some()).await.error.expect("refused");
    assert!(words.contains("the broker's certificate has expired") && words.contains("the clock"), "{words}");
    running.stop().await;
}

fn tls_lines(authority: &Authority) -> String {
    format!(
        "cafile {}\ncertfile {}\nkeyfile {}",
        authority.ca.display(),
        authority.certificate.display(),
        authority.key.display()
    )
}

#[tokio::test]
async fn a_device_without_the_time_reads_films_says_why_it_is_not_connected_and_delivers_when_it_knows() {
    let folder = tempfile::tempdir().expect("a directory");
    let clock = folder.path().join("clock");
    let time = [("FAKETIME_TIMESTAMP_FILE", clock.clone().into()), ("FAKETIME_NO_CACHE", "1".into())];
    let Some(environment) = clock::told(time) else { return };
    let authority = Authority::new(folder.path(), "broker");
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
    let second = |_: &Path| format!("listener {port} 127.0.0.1\n{}", tls_lines(&authority));
    let Some(broker) = Mosquitto::start(second) else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(port);
    home.configure(&format!("[mqtt]\ntls = true\nca_file = {:?}\n", authority.ca));
    fs::write(&clock, "@1970-01-02 00:00:00\n").expect("writable");
    let mut daemon = home.start_in(&environment);
    daemon.until_said(
        "the broker's certificate is not valid yet (NotValidYet): the clock of this machine says 1970-01-02",
    );
    let bytes = film(Kind::Png, 1);
    home.drop_film("film.png", &bytes);
    daemon.until_said(&format!("film {}", &sha256(&bytes)[..12]));
    assert_eq!(witness.on("status").count(), 0, "nothing can be told yet");
    fs::write(&clock, "+0\n").expect("writable");
    witness.result_of(&sha256(&bytes)).await;
    let birth = witness.on("status").next().expect("it was born");
    assert_eq!((&birth["state"], &birth["queue_length"]), (&json!("online"), &json!(1)));
    assert!(daemon.stopped().success());
}

#[tokio::test]
async fn films_flow_while_the_broker_hangs() {
    let Some(broker) = plain_broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let mut daemon = home.start();
    witness.idle(1).await;
    broker.signal(Signal::STOP);
    let films: Vec<Vec<u8>> = (1..=3).map(|number| film(Kind::Png, number)).collect();
    for (number, bytes) in films.iter().enumerate() {
        home.drop_film(&format!("{number}.png"), bytes);
        daemon.until_said(&format!("film {}", &sha256(bytes)[..12]));
    }
    broker.signal(Signal::CONT);
    for bytes in &films {
        witness.result_of(&sha256(bytes)).await;
    }
    let numbers: BTreeSet<u64> = witness.events().into_iter().map(witness::sequence).collect();
    assert_eq!(numbers, BTreeSet::from([1, 2, 3]));
    assert!(daemon.stopped().success());
}
