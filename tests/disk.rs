//! The disk fills up and is freed again (R41): the real daemon with its state on a small file system of its own.

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
#[path = "support/page.rs"]
mod page;
#[path = "support/small_disk.rs"]
mod small_disk;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "idle runs are for other tests")]
mod witness;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use daemon::{Daemon, Home};
use films::{Kind, film, sha256};
use mosquitto::Mosquitto;
use page::{get, until};
use serde_json::Value;
use small_disk::SmallDisk;
use witness::{Witness, sequence};

/// Of the state's disk, in MiB.
const SIZE: u32 = 24;

/// A device whose state is on a disk of 24 MiB, 1 of them ballast.
fn device(broker: &Mosquitto, lines: &str) -> Option<(Home, SmallDisk)> {
    let home = Home::new(broker.port());
    home.configure(&format!("[state]\nballast_mib = 1\n{lines}"));
    let disk = SmallDisk::mount(&home.state(), SIZE)?;
    Some((home, disk))
}

/// Listens until the last status has exactly these reasons.
async fn reasons(witness: &mut Witness, reasons: &[&str]) {
    let expected = Value::from(reasons.to_vec());
    let last = |witness: &Witness| witness.on("status").last().is_some_and(|status| status["reasons"] == expected);
    witness.until(&format!("the reasons {reasons:?}"), last).await;
}

/// Every film has one result, numbered without a gap, and nothing was quarantined or refused.
fn all_is_well(witness: &Witness, disk: &SmallDisk, films: &[Vec<u8>]) {
    for film in films {
        // An acknowledgement that found no room is not on the disk: its event comes again, with the same number.
        let numbers: BTreeSet<u64> = witness.results_of(&sha256(film)).map(sequence).collect();
        assert_eq!(numbers.len(), 1);
    }
    let numbers: BTreeSet<u64> = witness.events().into_iter().map(sequence).collect();
    assert_eq!(numbers, (1..=films.len() as u64).collect());
    assert_eq!(witness.on("error").count(), 0);
    let quarantine = disk.path("quarantine");
    assert_eq!(fs::read_dir(quarantine).expect("it is there").count(), 0);
}

/// It still is the process that was started.
fn lives(daemon: &Daemon) {
    let program = fs::read_link(Path::new("/proc").join(daemon.pid()).join("exe")).expect("it runs");
    assert!(program.ends_with("landmarkd"), "{}", program.display());
}

#[tokio::test]
async fn a_device_low_on_disk_says_so_then_takes_no_film_and_goes_on_alone() {
    let Some(mut broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let Some((home, disk)) = device(&broker, "warn_free_mib = 12\nstop_free_mib = 6\n") else { return };
    let films: Vec<_> = (0..4).map(|n| film(Kind::Png, n)).collect();
    let mut daemon = home.start_through(&disk.enter());
    home.drop_film("0.png", &films[0]);
    witness.result_of(&sha256(&films[0])).await;
    assert_eq!(fs::metadata(disk.path("ballast")).expect("it is there").len(), 1 << 20);

    disk.fill_to(9 << 10);
    reasons(&mut witness, &["disk_low"]).await;
    home.drop_film("1.png", &films[1]);
    witness.result_of(&sha256(&films[1])).await;

    // One result waits for a broker that is away, and then there is no room for films.
    broker.kill();
    home.drop_film("2.png", &films[2]);
    daemon.until_said("landmarks, event 3;");
    disk.fill_to(3 << 10);
    daemon.until_said("has no room for films");
    home.drop_film("3.png", &films[3]);
    broker.restart();
    daemon.until_said("connected to the broker");
    witness.is_back(&broker).await;
    witness.result_of(&sha256(&films[2])).await;
    reasons(&mut witness, &["disk_full"]).await;
    daemon.says_nothing_for(Duration::from_secs(3));
    assert_eq!(witness.results_of(&sha256(&films[3])).count(), 0, "there is no room for it");

    disk.free();
    witness.result_of(&sha256(&films[3])).await;
    reasons(&mut witness, &[]).await;
    lives(&daemon);
    assert_eq!(daemon.stopped().code(), Some(0));
    all_is_well(&witness, &disk, &films);
}

/// Where the status page has pictures of films, the newest film first.
fn pictures(page: SocketAddr) -> Vec<String> {
    let (status, body) = get(page, "/");
    assert_eq!(status, 200);
    let html = String::from_utf8(body).expect("text");
    let links = html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links.filter(|link| link.starts_with("/overlays/")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_device_low_on_disk_shows_no_pictures_until_there_is_room_again() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let page = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let lines = format!("warn_free_mib = 12\nstop_free_mib = 6\n[health]\nlisten = \"{page}\"\noverlays = 5\n");
    let Some((home, disk)) = device(&broker, &lines) else { return };
    let films: Vec<_> = (0..3).map(|n| film(Kind::Png, n)).collect();
    let mut daemon = home.start_through(&disk.enter());
    daemon.until_said("the status page is at");
    home.drop_film("0.png", &films[0]);
    witness.result_of(&sha256(&films[0])).await;
    until("the first film is drawn", || !pictures(page).is_empty());
    let [before] = &pictures(page)[..] else { panic!("one film, one picture") };
    assert_eq!(get(page, before).0, 200);

    disk.fill_to(9 << 10);
    reasons(&mut witness, &["disk_low"]).await;
    assert_eq!((get(page, before).0, pictures(page)), (404, Vec::new()), "those that were there are gone");
    home.drop_film("1.png", &films[1]);
    witness.result_of(&sha256(&films[1])).await;

    disk.free();
    reasons(&mut witness, &[]).await;
    home.drop_film("2.png", &films[2]);
    witness.result_of(&sha256(&films[2])).await;
    until("the last film is drawn", || !pictures(page).is_empty());
    // They are drawn one after another: one of the film before it would be there by now.
    assert_eq!(pictures(page), ["/overlays/3.png"]);
    assert_eq!(get(page, "/overlays/3.png").0, 200);
    assert_eq!([before, "/overlays/2.png"].map(|picture| get(page, picture).0), [404, 404]);
    assert_eq!(daemon.stopped().code(), Some(0));
    all_is_well(&witness, &disk, &films);
}

/// Does something while whatever becomes free on the disk, the ballast too, is taken at once.
fn while_full(disk: &SmallDisk, act: impl FnOnce()) {
    disk.fill_to(0);
    let (done, until_done) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while until_done.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                disk.fill_to(0);
            }
        });
        act();
        drop(done);
    });
}

#[tokio::test]
async fn a_disk_that_fills_up_in_the_middle_of_films_costs_none_of_them() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    // No ladder: only what happens when a write finds no room.
    let Some((home, disk)) = device(&broker, "warn_free_mib = 0\nstop_free_mib = 0\n") else { return };
    let films: Vec<_> = (0..24).map(|n| film(Kind::Png, n)).collect();
    let drop_films = |numbers: std::ops::Range<usize>| {
        numbers.for_each(|n| home.drop_film(&format!("{n}.png"), &films[n]));
    };
    let mut daemon = home.start_through(&disk.enter());
    drop_films(0..1);
    witness.result_of(&sha256(&films[0])).await;
    while_full(&disk, || {
        drop_films(1..12);
        daemon.until_said("is full: waiting for room");
        daemon.until_said("has no room for films");
    });
    assert!(!disk.path("ballast").exists(), "it is thrown off first");
    reasons(&mut witness, &["disk_full"]).await;
    lives(&daemon);
    disk.free();
    daemon.until_said("there is enough space on the disk");
    for film in &films[..12] {
        witness.result_of(&sha256(film)).await;
    }
    reasons(&mut witness, &[]).await;
    lives(&daemon);

    // Full again, and a stop in the middle of a film: it waits for nothing, and the next run reads the film.
    while_full(&disk, || {
        drop_films(12..24);
        daemon.until_said("has no room for films");
        assert_eq!(daemon.stopped().code(), Some(0), "a stop while it waits for room");
    });
    disk.free();
    let daemon = home.start_through(&disk.enter());
    for film in &films[12..] {
        witness.result_of(&sha256(film)).await;
    }
    assert_eq!(daemon.stopped().code(), Some(0));
    all_is_well(&witness, &disk, &films);
}

#[tokio::test]
async fn a_start_on_a_full_disk_waits_for_room_or_a_stop() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let Some((home, disk)) = device(&broker, "warn_free_mib = 2\nstop_free_mib = 1\n") else { return };
    disk.fill_to(0);
    let films = [film(Kind::Png, 0)];
    home.drop_film("0.png", &films[0]);
    let mut daemon = home.start_through(&disk.enter());
    daemon.until_said("is full: waiting for room");
    assert_eq!(daemon.stopped().code(), Some(0), "a stop while it waits for room");

    let mut daemon = home.start_through(&disk.enter());
    daemon.until_said("is full: waiting for room");
    disk.free();
    witness.result_of(&sha256(&films[0])).await;
    lives(&daemon);
    assert_eq!(daemon.stopped().code(), Some(0));
    all_is_well(&witness, &disk, &films);
}
