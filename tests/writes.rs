//! How much the real daemon writes to the disk (R42): 64 KiB an exposure, and nothing while it is idle.
//!
//! The kernel counts: `write_bytes` of `/proc/PID/io`, what the process caused to be sent to the storage.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "its crash points and late films are for other tests")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "DICOM identifiers are for other tests")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "its certificates are for the tests of TLS")]
mod mosquitto;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use daemon::{Daemon, Home};
use films::{Kind, film, sha256};
use landmarkd::acquisition::{FileIdentity, FilmId, FilmSource, Ledger, Outcome};
use landmarkd::outbox::Outbox;
use landmarkd::report::{Draft, EventId, EventKind};
use landmarkd::store::Store;
use mosquitto::Mosquitto;

const LIMIT_BYTES: u64 = 64 * 1024;
/// New tables and a young database cost more, once.
const WARM_UP: u32 = 8;
const MEASURED: u32 = 16;
/// Exposures of a busy day, and what is kept of them.
const DAY: u32 = 200;
const ARCHIVED: u32 = 30 * DAY;
const REMEMBERED: u32 = 90 * DAY;

/// What a process has sent to the storage.
fn written(pid: &str) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("ours");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("Linux counts it");
    line.parse().expect("a number")
}

/// Whether the kernel counts what is written where tests have their files; in memory it does not.
fn is_counted(home: &Home) -> bool {
    let before = written("self");
    let file = home.path("probe");
    fs::write(&file, vec![1; 1 << 20]).and_then(|()| fs::File::open(&file)?.sync_all()).expect("the folder is ours");
    let counted = written("self") - before >= 1 << 20;
    if !counted {
        assert!(std::env::var_os("CI").is_none(), "the temporary folder is in memory: set TMPDIR to one on a disk");
        println!("skipped: the temporary folder is in memory, where writes are not counted");
    }
    counted
}

/// Deflates to as much as a result with 19 landmarks.
fn text(n: u32) -> Vec<u8> {
    (0..48_u32).flat_map(|line| sha256([n.to_le_bytes(), line.to_le_bytes()].concat()).into_bytes()).collect()
}

/// A device that has run for months: 30 days of results in its archive, and 90 of films in its ledger.
fn grown_old(home: &Home) {
    let store = Store::open(&home.state(), None).expect("an empty directory");
    let outbox = Outbox::open(&store).expect("an empty store");
    let ledger = Ledger::open(Arc::clone(store.database())).expect("an empty store");
    let now = SystemTime::now();
    let tx = store.database().begin_write().expect("writable");
    for n in 0..REMEMBERED {
        let file = FileIdentity { inode: u64::from(n), size: 1, mtime_ns: i64::from(n), ctime_ns: 0 };
        let path = format!("2026/{:03}/IMG{n:08}.dcm", n / DAY).into();
        let source = FilmSource { film: FilmId::of(&n.to_le_bytes()), path, file };
        ledger.finish(&tx, &source, Outcome::Done { sequence: n.into() }, now).expect("writable");
    }
    for n in 0..ARCHIVED {
        let id = EventId::of_result(&n.to_string(), "m", "c");
        let draft = Draft { kind: EventKind::Result, id, acquired: now, body: text(n) };
        outbox.append(&tx, &draft).expect("writable");
    }
    tx.commit().expect("writable");
    for n in 1..=ARCHIVED {
        outbox.acknowledge(EventKind::Result, n.into()).expect("writable");
    }
    outbox.save().expect("writable");
}

/// Films one after the other, as they come; the bytes that one costs.
fn cost(home: &Home, daemon: &mut Daemon, first: u32) -> u64 {
    let mut start = 0;
    for n in 0..WARM_UP + MEASURED {
        if n == WARM_UP {
            start = written(&daemon.pid());
        }
        home.drop_film(&format!("{n}.png"), &film(Kind::Png, n));
        daemon.until_said(&format!("landmarks, event {};", first + n + 1));
    }
    (written(&daemon.pid()) - start) / u64::from(MEASURED)
}

#[tokio::test]
async fn an_exposure_writes_at_most_64_kib_and_an_idle_daemon_nothing() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut costs = Vec::new();
    let _subscriber = broker.subscribe("xr/#", &[]).await;
    for (what, first, port) in [
        ("with a broker", 0, broker.port()),
        ("with a broker, after months", ARCHIVED, broker.port()),
        // Nobody listens on the discard port of the loopback.
        ("without a broker", 0, 9),
    ] {
        let home = Home::new(port);
        if !is_counted(&home) {
            return;
        }
        home.configure("[acquisition]\nrescan_s = 1\n");
        if first > 0 {
            grown_old(&home);
        }
        let mut daemon = home.start();
        let each = cost(&home, &mut daemon, first);
        println!("{what}: {each} bytes written for an exposure");
        costs.push((what, each));

        // The last film's result may still be on its way to the broker.
        daemon.says_nothing_for(Duration::from_secs(1));
        let before = written(&daemon.pid());
        daemon.says_nothing_for(Duration::from_secs(4));
        assert_eq!(written(&daemon.pid()) - before, 0, "{what}: idle, with a round through the folder each second");
        assert_eq!(daemon.stopped().code(), Some(0));
    }
    assert!(costs.iter().all(|(_, each)| *each <= LIMIT_BYTES), "bytes written for an exposure: {costs:?}");
}
