//! The daemon killed before and after every fsync, rename and commit, and at the moments between them: whatever comes
//! next finds each film once, and nothing lost (R10, R17).
//!
//! A walk has a home, a broker and a witness of its own. It brings about what its steps need, starts the daemon to be
//! killed at one of them, starts it again, and then looks at what the subscriber heard and at what the state holds.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/clock.rs"]
mod clock;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "films that are still written and late ones are for other tests")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "DICOM identifiers are for other tests")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "other tests stop it, and let its certificates expire")]
mod mosquitto;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "probes after a restart are for other tests")]
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use daemon::Home;
use films::{Kind, film, sha256};
use landmarkd::acquisition::{FilmId, FilmState, Ledger, Outcome, quarantined_films};
use landmarkd::crash_point::{MOMENTS, STEPS};
use landmarkd::outbox::Outbox;
use landmarkd::store::Store;
use mosquitto::Mosquitto;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::process::Signal;
use witness::{Witness, sequence};

const SIGKILL: i32 = 9;
/// Far beyond anything a test waits for.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
/// Less than a result has, more than a refusal.
const SMALL_PACKETS: &str = "max_packet_size 2000";

/// What brings the daemon to its points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Walk {
    /// The first start, in a state directory that is not there.
    First,
    /// A film on its way to a subscriber.
    Film,
    /// The start after a crash in the middle of a film.
    Again,
    /// A film that no decoder takes.
    Undecodable,
    /// A result that is larger than the broker takes.
    TooLarge,
    /// A film that leaves the folder, is moved within its file system or to another one.
    Delete,
    Move,
    MoveAcross,
    /// A film that comes once more, under another name.
    Copy,
    /// The first start after a year, with a film that is gone and one that is still there.
    Year,
    /// A folder that is on a share.
    Share,
    /// An event and a film that a person has tried again.
    RetryEvent,
    RetryFilm,
    /// A stop that was asked for.
    Stop,
}

/// What a point is met on; a point without a walk fails the test.
fn walk_of(step: &str) -> Walk {
    match step {
        "store.identity" | "store.rename" | "store.directory" | "store.start" | "outbox.open" | "ledger.open"
        | "attempt.file" | "ballast.taken" | "starts.recorded" => Walk::First,
        "film.received" | "attempt.marked" | "film.analysed" | "event.appended" | "film.commit"
        | "event.acknowledged" | "event.removed" => Walk::Film,
        "attempt.counted" => Walk::Again,
        "quarantine.file" | "quarantine.entry" | "quarantine.rename" | "quarantine.directory" => Walk::Undecodable,
        "outbox.refused" | "outbox.acknowledged" => Walk::TooLarge,
        "after.delete" => Walk::Delete,
        "after.move" => Walk::Move,
        "after.copy" | "after.directory" | "after.remove" => Walk::MoveAcross,
        "ledger.known" => Walk::Copy,
        "ledger.sighted" | "ledger.pruned" | "outbox.pruned" => Walk::Year,
        "ledger.share" => Walk::Share,
        "outbox.retried" => Walk::RetryEvent,
        "ledger.forgotten" => Walk::RetryFilm,
        "outbox.saved" | "starts.clean" => Walk::Stop,
        other => panic!("{other}: say in tests/crash.rs what brings the daemon there"),
    }
}

/// Every point of a walk, as `LANDMARKD_CRASH_POINT` names it.
fn points(walk: Walk) -> Vec<String> {
    let sides = |step: &str| [format!("{step}.before"), format!("{step}.after")];
    let steps = STEPS.into_iter().filter(|step| walk_of(step) == walk).flat_map(sides);
    let moments = MOMENTS.into_iter().filter(|moment| walk_of(moment) == walk).map(str::to_owned);
    moments.chain(steps).collect()
}

#[test]
fn every_point_is_on_a_walk() {
    let walks: BTreeMap<Walk, Vec<&str>> = STEPS.into_iter().chain(MOMENTS).fold(BTreeMap::new(), |mut walks, step| {
        walks.entry(walk_of(step)).or_default().push(step);
        walks
    });
    assert_eq!(walks.len(), 14, "{walks:?}");
    let all: BTreeSet<String> = walks.keys().flat_map(|&walk| points(walk)).collect();
    assert_eq!(all.len(), 2 * STEPS.len() + MOMENTS.len());
}

/// A film as it lies in the folder.
struct Film {
    name: &'static str,
    bytes: Vec<u8>,
    end: End,
}

/// What must have become of it.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Result,
    /// Quarantined or refused: at least one error event.
    Refusal,
    /// Its result was sent in an earlier year.
    Forgotten,
}

/// A device with a broker and a subscriber of its own.
struct Scene {
    home: Home,
    _broker: Mosquitto,
    witness: Witness,
    films: Vec<Film>,
}

impl Scene {
    async fn new(broker_lines: &'static str) -> Option<Self> {
        let broker = Mosquitto::start(|_| broker_lines.to_owned())?;
        let witness = Witness::new(&broker).await;
        Some(Self { home: Home::new(broker.port()), _broker: broker, witness, films: Vec::new() })
    }

    fn drop_film(&mut self, name: &'static str, bytes: Vec<u8>, end: End) {
        self.home.drop_film(name, &bytes);
        self.films.push(Film { name, bytes, end });
    }

    /// Runs the daemon until it has told the end of every film.
    async fn run(&mut self) {
        self.run_in(&[]).await;
    }

    async fn run_in(&mut self, environment: &[(&str, OsString)]) {
        let mut daemon = self.home.start_in(environment);
        // A stop that came before it minds signals would be a kill.
        daemon.until_said("self-test within");
        self.told().await;
        assert_eq!(daemon.stopped().code(), Some(0));
    }

    async fn told(&mut self) {
        for film in &self.films {
            let digest = sha256(&film.bytes);
            match film.end {
                End::Result => self.witness.result_of(&digest).await,
                End::Refusal => {
                    let heard = |witness: &Witness| witness.on("error").any(|e| e["data"]["image_sha256"] == *digest);
                    self.witness.until("a refusal", heard).await;
                }
                End::Forgotten => {}
            }
        }
    }

    /// Starts the daemon, which must die at the point.
    fn crash(&self, point: &str, environment: &[(&str, OsString)]) {
        let mut environment = environment.to_vec();
        environment.push(("LANDMARKD_CRASH_POINT", point.into()));
        let status = self.home.start_in(&environment).ended();
        assert_eq!(status.signal(), Some(SIGKILL), "{point} was not reached: {status}");
    }

    /// What must hold in the end, wherever the crash was.
    fn check(&self, point: &str) {
        let mut ids: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        let mut of_film: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for event in self.witness.events() {
            let id = event["id"].as_str().expect("an id");
            ids.entry(sequence(event)).or_default().insert(id);
            if event["type"].as_str().is_some_and(|of| of.contains("result")) {
                of_film.entry(event["data"]["image"]["sha256"].as_str().expect("a film")).or_default().insert(id);
            }
        }
        assert!(ids.values().all(|ids| ids.len() == 1), "{point}: a number for two events: {ids:?}");
        assert!(of_film.values().all(|ids| ids.len() == 1), "{point}: two ids for a film: {of_film:?}");

        let store = Store::open(&self.home.state(), None).expect("sound");
        let outbox = Outbox::open(&store).expect("sound");
        assert_eq!(outbox.len().expect("sound"), 0, "{point}: events wait");
        let last = outbox.last().expect("sound");
        assert_eq!(ids.keys().copied().collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>(), "{point}: gaps");

        let ledger = Ledger::open(Arc::clone(store.database())).expect("sound").snapshot().expect("sound");
        for film in self.films.iter().filter(|film| film.end != End::Forgotten) {
            let record = ledger.film(FilmId::of(&film.bytes)).expect("sound");
            let record = record.unwrap_or_else(|| panic!("{point}: {} is not on record", film.name));
            let digest = sha256(&film.bytes);
            match (film.end, record.state) {
                (End::Result, FilmState::Ended(Outcome::Done { sequence: number })) => {
                    let heard = self.witness.results_of(&digest).any(|event| sequence(event) == number);
                    assert!(heard, "{point}: nobody heard event {number}");
                }
                (End::Refusal, FilmState::Ended(Outcome::Quarantined { .. })) => {
                    let kept = quarantined_films(&self.home.state()).expect("readable");
                    assert!(kept.iter().any(|kept| kept.reason.sha256 == digest), "{point}: {digest} is not kept");
                }
                // The event was too large; the film itself ended well.
                (End::Refusal, FilmState::Ended(Outcome::Done { .. })) => {
                    assert!(self.witness.on("error").any(|event| event["data"]["image_sha256"] == *digest), "{point}");
                }
                (_, state) => panic!("{point}: {} is {state:?}", film.name),
            }
        }
        let unfinished =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".unfinished-"));
        let quarantine = self.home.state().join("quarantine");
        let left = fs::read_dir(&quarantine).expect("it was made").filter_map(Result::ok);
        assert!(!left.into_iter().any(|entry| unfinished(&entry.path())), "{point}: an unfinished entry is left");
    }
}

/// A film whose structure is whole and whose pixels cannot be decoded.
fn undecodable() -> Vec<u8> {
    let mut bytes = film(Kind::Png, 9);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    bytes
}

/// Walks past a film of this end: killed at each point in turn, after the crashes `before` it, then run to the end with
/// another film.
async fn past(walk: Walk, broker_lines: &'static str, (bytes, end): (Vec<u8>, End), before: &[&str]) {
    for point in points(walk) {
        let Some(mut scene) = Scene::new(broker_lines).await else { return };
        scene.drop_film("a.png", bytes.clone(), end);
        before.iter().for_each(|before| scene.crash(before, &[]));
        scene.crash(&point, &[]);
        if broker_lines.is_empty() {
            scene.drop_film("b.png", film(Kind::Png, 2), End::Result);
        }
        scene.run().await;
        scene.check(&point);
        // The subscriber may have had it and the outbox not have known.
        let twice = matches!(&*point, "event.acknowledged" | "event.removed");
        let times = scene.witness.results_of(&sha256(&bytes)).count();
        assert_eq!(times, if end != End::Result { 0 } else { 1 + usize::from(twice) }, "{point}");
    }
}

#[tokio::test]
async fn the_first_start() {
    past(Walk::First, "", (film(Kind::Png, 1), End::Result), &[]).await;
}

#[tokio::test]
async fn a_film_on_its_way() {
    past(Walk::Film, "", (film(Kind::Png, 1), End::Result), &[]).await;
}

#[tokio::test]
async fn the_start_after_a_crash_in_a_film() {
    past(Walk::Again, "", (film(Kind::Png, 1), End::Result), &["film.analysed"]).await;
}

#[tokio::test]
async fn a_film_that_goes_to_quarantine() {
    past(Walk::Undecodable, "", (undecodable(), End::Refusal), &[]).await;
}

#[tokio::test]
async fn an_event_that_the_broker_does_not_take() {
    past(Walk::TooLarge, SMALL_PACKETS, (film(Kind::Png, 1), End::Refusal), &[]).await;
}

/// Where the film lies in the end: its name in `folder`, and its bytes.
async fn films_leave(walk: Walk, folder: Option<PathBuf>) {
    for point in points(walk) {
        let Some(mut scene) = Scene::new("").await else { return };
        let bytes = film(Kind::Png, 1);
        scene.home.configure(&match &folder {
            None => "[acquisition]\nafter = \"delete\"\n".to_owned(),
            Some(folder) => format!("[acquisition]\nafter = \"move\"\nafter_folder = {folder:?}\n"),
        });
        scene.drop_film("a.png", bytes.clone(), End::Result);
        scene.crash(&point, &[]);
        scene.run().await;
        scene.check(&point);
        // What the crash left behind goes when the film is met again.
        let mut daemon = scene.home.start();
        daemon.until_said("self-test within");
        gone(&scene.home.films().join("a.png"));
        assert_eq!(daemon.stopped().code(), Some(0));
        let Some(folder) = &folder else { continue };
        let mut moved: Vec<PathBuf> = fs::read_dir(folder).expect("there").map(|e| e.expect("there").path()).collect();
        // A copy that the crash cut off from its source may lie beside the whole one; it is never in its place.
        assert!(moved.iter().any(|path| fs::read(path).is_ok_and(|moved| moved == bytes)), "{point}: {moved:?}");
        moved.drain(..).for_each(|path| fs::remove_file(path).expect("ours"));
    }
}

/// Waits until there is no such file in its folder.
fn gone(path: &Path) {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("a wake-up");
    let folder = path.parent().expect("it lies in a folder");
    inotify::add_watch(&inotify, folder, WatchFlags::DELETE | WatchFlags::MOVED_FROM).expect("a folder");
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(&inotify, &mut buffer);
    // Watched first, looked at then: what goes in between is not missed.
    while path.exists() {
        let mut ready = [PollFd::new(&inotify, PollFlags::IN)];
        let came = poll(&mut ready, Some(&PATIENCE)).expect("a wake-up");
        assert!(came > 0, "{} is still there", path.display());
        while events.next().is_ok() {}
    }
}

#[tokio::test]
async fn a_film_that_is_deleted_after() {
    films_leave(Walk::Delete, None).await;
}

#[tokio::test]
async fn a_film_that_is_moved_after() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    films_leave(Walk::Move, Some(folder.path().to_owned())).await;
}

#[tokio::test]
async fn a_film_that_is_moved_to_another_file_system_after() {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let folder = tempfile::tempdir_in("/dev/shm").expect("a temporary folder in memory");
    if device(folder.path()) == device(&std::env::temp_dir()) {
        assert!(std::env::var_os("CI").is_none(), "/dev/shm is no file system of its own");
        println!("skipped: /dev/shm is no file system of its own");
        return;
    }
    films_leave(Walk::MoveAcross, Some(folder.path().to_owned())).await;
}

#[tokio::test]
async fn a_film_that_comes_again_under_another_name() {
    for point in points(Walk::Copy) {
        let Some(mut scene) = Scene::new("").await else { return };
        let bytes = film(Kind::Png, 1);
        scene.drop_film("a.png", bytes.clone(), End::Result);
        scene.run().await;
        scene.home.drop_film("b.png", &bytes);
        scene.crash(&point, &[]);
        scene.drop_film("c.png", film(Kind::Png, 2), End::Result);
        scene.run().await;
        scene.check(&point);
        assert_eq!(scene.witness.results_of(&sha256(&bytes)).count(), 1, "{point}");
    }
}

#[tokio::test]
async fn a_start_after_a_year() {
    let Some(later) = clock::told([("FAKETIME", "+400d".into())]) else { return };
    for point in points(Walk::Year) {
        let Some(mut scene) = Scene::new("").await else { return };
        scene.home.configure("[acquisition]\nrescan_s = 1\nremember_days = 30\n[state]\narchive_days = 1\n");
        scene.drop_film("stays.png", film(Kind::Png, 1), End::Result);
        scene.drop_film("goes.png", film(Kind::Png, 2), End::Result);
        scene.run().await;
        fs::remove_file(scene.home.films().join("goes.png")).expect("it is there");
        scene.films[1].end = End::Forgotten;
        scene.crash(&point, &later);
        scene.drop_film("new.png", film(Kind::Png, 3), End::Result);
        scene.run_in(&later).await;
        scene.check(&point);
        assert_eq!(scene.witness.results_of(&sha256(&scene.films[0].bytes)).count(), 1, "{point}");
    }
}

#[tokio::test]
async fn a_folder_on_a_share() {
    let installed = Command::new("bindfs").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !installed {
        assert!(std::env::var_os("CI").is_none(), "bindfs is missing: install bindfs");
        println!("skipped: bindfs is not installed");
        return;
    }
    for point in points(Walk::Share) {
        let Some(mut scene) = Scene::new("").await else { return };
        scene.home.configure("[acquisition]\nrescan_s = 1\n");
        let behind = scene.home.path("behind");
        fs::create_dir(&behind).expect("ours");
        let mounted = Command::new("bindfs").arg(&behind).arg(scene.home.films()).status();
        if !mounted.expect("installed").success() {
            assert!(std::env::var_os("CI").is_none(), "bindfs cannot mount here");
            println!("skipped: bindfs cannot mount here");
            return;
        }
        let _mount = Mounted(scene.home.films());
        let bytes = film(Kind::Png, 1);
        fs::write(behind.join("a.png"), &bytes).expect("ours");
        scene.films.push(Film { name: "a.png", bytes, end: End::Result });
        scene.crash(&point, &[]);
        scene.run().await;
        scene.check(&point);
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // The folder below is removed next; a mount that stays would keep it.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// `landmarkd spool retry`, killed at a point.
fn retry(home: &Home, sequence: &str, point: &str) {
    let status = Command::new(env!("CARGO_BIN_EXE_landmarkd"))
        .args(["spool", "retry", sequence, "--config"])
        .arg(home.config())
        .env("LANDMARKD_CRASH_POINT", point)
        .stdout(Stdio::null())
        .status()
        .expect("the program is built with its tests");
    assert_eq!(status.signal(), Some(SIGKILL), "{point} was not reached: {status}");
}

#[tokio::test]
async fn an_event_that_is_sent_again_by_hand() {
    for point in points(Walk::RetryEvent) {
        let Some(mut scene) = Scene::new(SMALL_PACKETS).await else { return };
        scene.drop_film("a.png", film(Kind::Png, 1), End::Refusal);
        scene.run().await;
        retry(&scene.home, "1", &point);
        let daemon = scene.home.start();
        scene.witness.idle(2).await;
        assert_eq!(daemon.stopped().code(), Some(0));
        let numbers = scene.witness.events().len();
        assert_eq!(numbers, if point.ends_with("before") { 1 } else { 2 }, "{point}");
        scene.check(&point);
    }
}

#[tokio::test]
async fn a_film_that_is_tried_again_by_hand() {
    for point in points(Walk::RetryFilm) {
        let Some(mut scene) = Scene::new("").await else { return };
        scene.drop_film("a.png", undecodable(), End::Refusal);
        scene.run().await;
        retry(&scene.home, "1", &point);
        scene.drop_film("b.png", film(Kind::Png, 2), End::Result);
        scene.run().await;
        scene.check(&point);
    }
}

#[tokio::test]
async fn a_stop() {
    for point in points(Walk::Stop) {
        let Some(mut scene) = Scene::new("").await else { return };
        scene.drop_film("a.png", film(Kind::Png, 1), End::Result);
        let daemon = scene.home.start_to_crash_at(&point);
        scene.witness.idle(1).await;
        scene.told().await;
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended().signal(), Some(SIGKILL), "{point} was not reached");
        scene.drop_film("b.png", film(Kind::Png, 2), End::Result);
        scene.run().await;
        scene.check(&point);
    }
}
