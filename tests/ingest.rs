//! What a folder may do to the daemon: real mounts that hang, go and come, floods of files, slow and hostile writers.
//!
//! The daemon is the real one, and so is Mosquitto. Each test runs in mount and process namespaces of its own.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "its crash points are for other tests")]
mod daemon;
#[path = "support/films.rs"]
mod films;
#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "its certificates are for the tests of TLS")]
mod mosquitto;
#[path = "support/namespace.rs"]
mod namespace;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "an idle daemon is for other tests")]
mod witness;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use daemon::Home;
use films::{Kind, film, sha256};
use hostile::{Random, bombs, mutated};
use image::ImageFormat;
use mosquitto::Mosquitto;
use namespace::{Mount, memory, open_files, process};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant as Moment, interval_at};
use witness::Witness;

/// A film that comes while everything else goes wrong has its result within this.
const FRESH: Duration = Duration::from_secs(30);
/// The daemon holds no more, whatever lies in the folder.
const MAX_RESIDENT_BYTES: u64 = 768 << 20;

fn broker() -> Option<Mosquitto> {
    Mosquitto::start(|_| String::new())
}

/// A film appears whole, as a good writer does it.
fn put(folder: &Path, name: impl AsRef<OsStr>, bytes: &[u8]) {
    let partial = folder.join(".partial");
    fs::write(&partial, bytes).expect("writable");
    fs::rename(partial, folder.join(name.as_ref())).expect("one folder");
}

fn folder(home: &Home, name: &str) -> PathBuf {
    let path = home.path(name);
    fs::create_dir(&path).expect("the folder is ours");
    path
}

fn is_missing(status: &Value) -> bool {
    status["folder"] == "missing" && status["reasons"] == json!(["folder_missing"]) && status["state"] == "degraded"
}

fn last_status(witness: &Witness) -> &Value {
    witness.on("status").last().expect("a birth")
}

async fn missing(witness: &mut Witness) {
    witness.until("the missing folder", |witness| witness.on("status").last().is_some_and(is_missing)).await;
}

async fn online(witness: &mut Witness) {
    let is_online = |status: &Value| status["state"] == "online" && status["folder"] != "unknown";
    witness.until("online", |witness| witness.on("status").last().is_some_and(is_online)).await;
}

/// A free port, told to nobody else.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// How often a fault was counted.
fn faults(address: SocketAddr, cause: &str) -> u64 {
    let mut stream = TcpStream::connect(address).expect("the metrics are served");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    let series = format!("landmarkd_faults_total{{cause=\"{cause}\"}} ");
    let value = answer.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("{series}: {answer}")).parse().expect("a number")
}

#[tokio::test]
async fn a_folder_whose_server_hangs_is_told_and_holds_up_nothing_else() {
    if !namespace::inside("a_folder_whose_server_hangs_is_told_and_holds_up_nothing_else", &["bindfs"]) {
        return;
    }
    let Some(mut broker) = broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let page = free();
    home.configure(&format!("[health]\nlisten = \"{page}\""));
    let behind = folder(&home, "behind");
    let share = Mount::fuse(&behind, &home.films());
    let mut daemon = home.start();
    online(&mut witness).await;
    assert_eq!(last_status(&witness)["folder"], "polling", "no inotify over FUSE");
    let films: Vec<_> = (0..3).map(|number| film(Kind::Png, number)).collect();
    put(&home.films(), "0.png", &films[0]);
    witness.result_of(&sha256(&films[0])).await;

    // A result waits for the broker while the folder hangs.
    broker.kill();
    put(&home.films(), "1.png", &films[1]);
    daemon.until_said("event 2");
    share.signal_server(Signal::STOP);
    let hung = Instant::now();
    broker.restart();
    witness.is_back(&broker).await;
    witness.result_of(&sha256(&films[1])).await;
    assert!(hung.elapsed() < Duration::from_secs(55), "delivery waited for the folder");
    missing(&mut witness).await;
    println!("a folder that hangs was told after {:.0?}", hung.elapsed());
    assert!(faults(page, "folder_unresponsive") >= 1);

    put(&behind, "2.png", &films[2]);
    share.signal_server(Signal::CONT);
    witness.result_of(&sha256(&films[2])).await;
    online(&mut witness).await;

    // Nor does a stop wait for a server that hangs.
    share.signal_server(Signal::STOP);
    daemon.signal(Signal::TERM);
    daemon.until_said("stop");
    let offline = |status: &Value| status["state"] == "offline";
    let asked = Instant::now();
    witness.until("the goodbye", |witness| witness.on("status").last().is_some_and(offline)).await;
    assert_eq!(daemon.ended().code(), Some(0));
    println!("a stop while the folder hangs took {:.1?}", asked.elapsed());
    // What the killed broker had not acknowledged comes again, and is the same event.
    let results: BTreeSet<_> = witness.on("result").map(|event| event["id"].as_str()).collect();
    assert_eq!((results.len(), witness.on("error").count()), (3, 0));
}

#[tokio::test]
async fn a_share_that_is_gone_is_missing_until_it_is_back() {
    if !namespace::inside("a_share_that_is_gone_is_missing_until_it_is_back", &["bindfs"]) {
        return;
    }
    let Some(broker) = broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let page = free();
    home.configure(&format!("[acquisition]\nrescan_s = 1\n[health]\nlisten = \"{page}\""));
    let behind = folder(&home, "behind");
    let films: Vec<_> = (0..3).map(|number| film(Kind::Png, number)).collect();
    let share = Mount::fuse(&behind, &home.films());
    let daemon = home.start();
    put(&behind, "0.png", &films[0]);
    witness.result_of(&sha256(&films[0])).await;

    drop(share);
    // Whoever saves into the empty mount point now saves to a disk that nobody looks at.
    put(&home.films(), "stray.png", &films[1]);
    missing(&mut witness).await;
    assert!(faults(page, "folder_missing") >= 1);
    assert_eq!(daemon.stopped().code(), Some(0));

    // It is known after a restart too.
    let daemon = home.start();
    let second = |status: &Value| is_missing(status) && status["boot_id"].as_str().is_some_and(|id| id.ends_with("-2"));
    witness.until("the missing folder", |witness| witness.on("status").last().is_some_and(second)).await;
    put(&behind, "2.png", &films[2]);
    let share = Mount::fuse(&behind, &home.films());
    let back = Instant::now();
    witness.result_of(&sha256(&films[2])).await;
    println!("a film on a share that is back had its result after {:.1?}", back.elapsed());
    online(&mut witness).await;
    assert_eq!(witness.on("result").count(), 2, "the stray film is none of the share's");

    // Until a person says that films come here now.
    drop(share);
    missing(&mut witness).await;
    home.configure("[acquisition]\nmount = \"ignored\"");
    daemon.signal(Signal::HUP);
    witness.result_of(&sha256(&films[1])).await;
    online(&mut witness).await;
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!((witness.on("result").count(), witness.on("error").count()), (3, 0));
}

#[tokio::test]
async fn films_on_every_kind_of_mount_are_found_and_a_lost_mount_is_missed() {
    if !namespace::inside("films_on_every_kind_of_mount_are_found_and_a_lost_mount_is_missed", &[]) {
        return;
    }
    let Some(broker) = broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    home.configure("[acquisition]\nrescan_s = 1\nmount = \"required\"");
    let disk = folder(&home, "disk");
    let _disk = Mount::new(&["-t", "tmpfs"], "disk", &disk);
    for name in ["lower", "upper", "work", "plain"] {
        fs::create_dir(disk.join(name)).expect("the disk is ours");
    }
    let layers = ["lower", "upper", "work"].map(|name| format!("{name}dir={}", disk.join(name).display())).join(",");
    let daemon = home.start();
    missing(&mut witness).await;
    for (number, (kind, source, arguments)) in (0..).zip([
        ("a disk", "disk".as_ref(), &["-t", "tmpfs"][..]),
        ("an overlay", OsStr::new("overlay"), &["-t", "overlay", "-o", &layers]),
        ("a bind mount", disk.join("plain").as_os_str(), &["--bind"]),
        ("a read-only disk", "disk".as_ref(), &["-t", "tmpfs"]),
    ]) {
        let films = [film(Kind::Png, 2 * number), film(Kind::Png, 2 * number + 1)];
        if kind == "an overlay" {
            // It lies in the lower layer.
            put(&disk.join("lower"), "a.png", &films[0]);
        }
        let mount = Mount::new(arguments, source, &home.films());
        if kind != "an overlay" {
            put(&home.films(), "a.png", &films[0]);
        }
        if kind == "a read-only disk" {
            mount.make_read_only();
        }
        witness.result_of(&sha256(&films[0])).await;
        online(&mut witness).await;
        if kind != "a read-only disk" {
            put(&home.films(), "b.png", &films[1]);
            witness.result_of(&sha256(&films[1])).await;
        }
        drop(mount);
        missing(&mut witness).await;
    }
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!((witness.on("result").count(), witness.on("error").count()), (7, 0));
}

#[tokio::test]
async fn lost_events_and_a_replaced_folder_hide_no_film() {
    if !namespace::inside("lost_events_and_a_replaced_folder_hide_no_film", &[]) {
        return;
    }
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("Linux");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit > 100_000 {
        assert!(std::env::var_os("CI").is_none(), "{limit} events fit into the queue here, too many to lose one");
        println!("skipped: {limit} events fit into the queue here");
        return;
    }
    let Some(broker) = broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    // No round comes by itself in the time of this test.
    home.configure("[acquisition]\nrescan_s = 3600");
    let daemon = home.start();
    online(&mut witness).await;
    assert_eq!(last_status(&witness)["folder"], "watching");

    daemon.signal(Signal::STOP);
    let name = |number: usize| home.films().join(format!(".{number}"));
    fs::write(name(0), b"").expect("writable");
    // Two events each, no two alike.
    (0..limit / 2 + 1).for_each(|number| fs::rename(name(number), name(number + 1)).expect("one folder"));
    let lost = film(Kind::Png, 0);
    put(&home.films(), "lost.png", &lost);
    daemon.signal(Signal::CONT);
    let start = Instant::now();
    witness.result_of(&sha256(&lost)).await;
    println!("a film whose event was lost among {limit} others had its result after {:.1?}", start.elapsed());

    let (inside, later) = (film(Kind::Png, 1), film(Kind::Png, 2));
    let other = folder(&home, "other");
    put(&other, "inside.png", &inside);
    fs::rename(home.films(), home.path("old")).expect("one file system");
    fs::rename(other, home.films()).expect("one file system");
    witness.result_of(&sha256(&inside)).await;
    put(&home.films(), "later.png", &later);
    witness.result_of(&sha256(&later)).await;
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!((witness.on("result").count(), witness.on("error").count()), (3, 0));
}

/// Small films, each of its own bytes: a number in a comment (COM) behind the start marker.
fn small_films() -> impl Fn(u32) -> Vec<u8> {
    let golden = image::load_from_memory(bundle::open().golden()).expect("the bundle is checked");
    let mut jpeg = Cursor::new(Vec::new());
    golden.thumbnail(200, 250).to_luma8().write_to(&mut jpeg, ImageFormat::Jpeg).expect("a Vec takes everything");
    let jpeg = jpeg.into_inner();
    move |number| [&jpeg[..2], &[0xFF, 0xFE, 0, 6], &number.to_be_bytes(), &jpeg[2..]].concat()
}

#[tokio::test]
async fn a_fresh_film_beside_ten_thousand_old_ones_has_its_result_in_time() {
    const OLD: u32 = 10_000;
    if !namespace::inside("a_fresh_film_beside_ten_thousand_old_ones_has_its_result_in_time", &[]) {
        return;
    }
    let Some(broker) = broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let film = small_films();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for number in 0..OLD {
        let path = home.films().join(format!("{number:05}.jpg"));
        fs::write(&path, film(number)).expect("writable");
        let file = File::options().write(true).open(path).expect("ours");
        file.set_modified(hour_ago + Duration::from_millis(number.into())).expect("ours");
    }
    put(&home.films(), "fresh.jpg", &film(OLD));
    let start = Instant::now();
    let daemon = home.start();
    witness.result_of(&sha256(film(OLD))).await;
    let (from_start, pid) = (start.elapsed(), process("landmarkd", None));
    assert!(from_start < FRESH, "a fresh film among old ones waited {from_start:?}");
    // The backlog is worked off from its old end at the same time.
    witness.result_of(&sha256(film(0))).await;
    let mut slowest = Duration::ZERO;
    for number in 1..=3 {
        let dropped = Instant::now();
        put(&home.films(), format!("fresh-{number}.jpg"), &film(OLD + number));
        witness.result_of(&sha256(film(OLD + number))).await;
        slowest = slowest.max(dropped.elapsed());
    }
    assert!(slowest < FRESH, "a film that came later waited {slowest:?}");
    let done = witness.on("result").count();
    let resident = memory(pid, "VmHWM");
    println!(
        "with {OLD} old films: the fresh one after {from_start:.1?} from the start, later ones within {slowest:.1?}; {done} \
         results so far, {} MiB at most",
        resident >> 20
    );
    assert!(done < 1000, "the backlog must be there still for this to say anything");
    assert!(resident < MAX_RESIDENT_BYTES, "{resident} bytes");
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!(witness.on("error").count(), 0);
}

#[tokio::test]
async fn films_that_are_written_slowly_have_one_result_each() {
    if !namespace::inside("films_that_are_written_slowly_have_one_result_each", &[]) {
        return;
    }
    let Some(broker) = broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    home.configure("[acquisition]\nsettle_ms = 200");
    let daemon = home.start();
    online(&mut witness).await;
    let mut writers = Vec::new();
    let mut films = Vec::new();
    // Pauses that the daemon sees a growing file through, and pauses in which it settles and is looked into.
    for (place, pause_ms) in (0..).zip([40, 450]) {
        for (number, kind) in (10 * place..).zip(Kind::ALL) {
            let bytes = film(kind, number);
            let mut file = File::create(home.films().join(format!("{number}.{}", kind.name()))).expect("writable");
            films.push(sha256(&bytes));
            writers.push(tokio::spawn(async move {
                let pause = Duration::from_millis(pause_ms);
                let mut pieces = interval_at(Moment::now(), pause);
                for piece in bytes.chunks((bytes.len() / 12).max(1024)) {
                    pieces.tick().await;
                    file.write_all(piece).expect("there is room");
                }
            }));
        }
    }
    for writer in writers {
        writer.await.expect("no writer fails");
    }
    for film in &films {
        witness.result_of(film).await;
    }
    // Whatever was taken too early would have come before this.
    let last = film(Kind::Png, 99);
    put(&home.films(), "last.png", &last);
    witness.result_of(&sha256(&last)).await;
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!((witness.on("result").count(), witness.on("error").count()), (films.len() + 1, 0));
}

#[tokio::test]
async fn what_is_no_film_is_passed_over_or_refused_once() {
    if !namespace::inside_without_privilege_over_files("what_is_no_film_is_passed_over_or_refused_once") {
        return;
    }
    let Some(broker) = broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let page = free();
    home.configure(&format!(
        "[acquisition]\nmax_settle_s = 2\nrescan_s = 1\nmax_file_mib = 16\n[health]\nlisten = \"{page}\""
    ));
    let films = home.films();
    let outside = folder(&home, "outside");
    put(&outside, "secret.png", &film(Kind::Png, 0));
    symlink(outside.join("secret.png"), films.join("link.png")).expect("writable");
    symlink(&outside, films.join("way.png")).expect("writable");
    symlink("loop-b.png", films.join("loop-a.png")).expect("writable");
    symlink("loop-a.png", films.join("loop-b.png")).expect("writable");
    fs::create_dir(films.join("folder.png")).expect("writable");
    let pipe = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, films.join("pipe.png"), pipe.0, pipe.1, 0).expect("writable");
    let _socket = UnixListener::bind(films.join("socket.png")).expect("writable");
    // Sparse: nothing of it could be read in time.
    File::create(films.join("huge.dcm")).and_then(|file| file.set_len(2 << 30)).expect("sparse files are supported");
    let closed = film(Kind::Png, 1);
    fs::write(films.join("closed.png"), &closed).expect("writable");
    fs::set_permissions(films.join("closed.png"), PermissionsExt::from_mode(0o000)).expect("ours");
    let odd = [(&b"line\nbreak \x1b[2J.png"[..], film(Kind::Png, 2)), (b"not \xff\xfe UTF-8", film(Kind::Dicom, 3))];
    for (name, bytes) in &odd {
        put(&films, OsStr::from_bytes(name), bytes);
    }
    put(&films.join("folder.png"), "inner.png", &film(Kind::Png, 4));

    let mut daemon = home.start();
    for film in [&odd[0].1, &odd[1].1, &film(Kind::Png, 4)] {
        witness.result_of(&sha256(film)).await;
    }
    // It rests for longer than a film needs to settle, and is never whole in the eyes of its writer.
    let growing = File::create(films.join("growing.dcm")).expect("writable");
    let mut bursts = interval_at(Moment::now(), Duration::from_millis(400));
    for burst in 1..=10_u64 {
        bursts.tick().await;
        growing.set_len((2 << 30) + (burst << 20)).expect("sparse files are supported");
    }
    let why = |witness: &Witness, words: &str| {
        witness.on("error").filter(|event| event["data"]["message"].as_str().is_some_and(|m| m.contains(words))).count()
    };
    witness.until("three refusals", |witness| witness.on("error").count() >= 3).await;
    assert!(faults(page, "film_unreadable") >= 1 && faults(page, "folder_special") >= 1);

    // Once it can be read, it is.
    fs::set_permissions(films.join("closed.png"), PermissionsExt::from_mode(0o644)).expect("ours");
    witness.result_of(&sha256(&closed)).await;
    // Three rounds later nothing was refused again.
    let before = faults(page, "folder_special");
    let mut looks = interval_at(Moment::now(), Duration::from_millis(200));
    while faults(page, "folder_special") < before + 3 {
        looks.tick().await;
    }
    let last = film(Kind::Png, 9);
    put(&films, "last.png", &last);
    witness.result_of(&sha256(&last)).await;
    assert_eq!((why(&witness, "bytes"), why(&witness, "permission"), witness.on("error").count()), (2, 1, 3));
    assert_eq!(witness.on("result").count(), 5);
    daemon.signal(Signal::TERM);
    daemon.until_said("stop");
    assert_eq!(daemon.ended().code(), Some(0));
}

/// Good films go in between bad files; what became of all, and what it cost.
struct Flood {
    home: Home,
    witness: Witness,
    good: Vec<String>,
    bad: BTreeSet<String>,
}

impl Flood {
    fn new(broker: &Mosquitto, witness: Witness) -> Self {
        let home = Home::new(broker.port());
        home.configure("[acquisition]\nmax_settle_s = 1\nrescan_s = 1");
        Self { home, witness, good: Vec::new(), bad: BTreeSet::new() }
    }

    /// How many of the bad files had an answer: a result or a refusal.
    fn answered(witness: &Witness, bad: &BTreeSet<String>) -> (usize, usize) {
        let unique = |of: BTreeSet<&str>| of.into_iter().filter(|film| bad.contains(*film)).count();
        let results = witness.on("result").filter_map(|event| event["data"]["image"]["sha256"].as_str()).collect();
        let refusals = witness.on("error").filter_map(|event| event["data"]["image_sha256"].as_str()).collect();
        (unique(results), unique(refusals))
    }

    /// Drops some bad files and a good film behind them, and waits until all have an answer.
    async fn wave(&mut self, bad: &[(String, Vec<u8>)]) {
        for (name, bytes) in bad {
            put(&self.home.films(), name, bytes);
            self.bad.insert(sha256(bytes));
        }
        let number = u32::try_from(self.good.len()).expect("few");
        let good = film(Kind::ALL[number as usize % Kind::ALL.len()], 1000 + number);
        put(&self.home.films(), format!("good-{number}"), &good);
        self.witness.result_of(&sha256(&good)).await;
        self.good.push(sha256(&good));
        let bad = &self.bad;
        let all = |witness: &Witness| {
            let (results, refusals) = Self::answered(witness, bad);
            results + refusals >= bad.len()
        };
        self.witness.until("an answer to every bad file", all).await;
    }

    /// All the files in waves: each has one answer, and the daemon that gives them is one and the same.
    async fn run(mut self, what: &str, files: &[(String, Vec<u8>)], wave: usize) -> Toll {
        let daemon = self.home.start();
        online(&mut self.witness).await;
        let pid = process("landmarkd", None);
        let half = files.len().div_ceil(2);
        let mut measured = Vec::new();
        for files in [&files[..half], &files[half..]] {
            for files in files.chunks(wave) {
                self.wave(files).await;
            }
            measured.push((memory(pid, "VmRSS"), open_files(pid)));
        }
        let [(first, files_first), (second, files_second)] = measured[..] else { panic!("two halves") };
        let peak = memory(pid, "VmHWM");
        let (results, refusals) = Self::answered(&self.witness, &self.bad);
        println!(
            "{what}: {} files ({} different) and {} good films between them: {results} results, {refusals} refusals; \
             {} MiB and {files_first} open files after the first half, {} MiB and {files_second} after the second, {} \
             MiB at most",
            files.len(),
            self.bad.len(),
            self.good.len(),
            first >> 20,
            second >> 20,
            peak >> 20
        );
        assert_eq!(results + refusals, self.bad.len(), "one answer each");
        for good in &self.good {
            assert_eq!(self.witness.results_of(good).count(), 1, "{good}");
        }
        let events: BTreeSet<_> = self.witness.events().into_iter().map(|event| event["id"].as_str()).collect();
        assert_eq!(events.len(), self.witness.events().len(), "no event comes twice");
        let boots: BTreeSet<_> = self.witness.on("status").map(|status| status["boot_id"].as_str()).collect();
        assert_eq!(boots.len(), 1, "the daemon was restarted");
        assert!(files_second <= files_first + 1, "{files_first} open files became {files_second}");
        assert!(peak < MAX_RESIDENT_BYTES, "{peak} bytes");
        assert_eq!(daemon.stopped().code(), Some(0));
        Toll { results, refusals, resident: [first, second], witness: self.witness }
    }
}

/// What a flood came to.
struct Toll {
    results: usize,
    refusals: usize,
    /// After either half of the files.
    resident: [u64; 2],
    witness: Witness,
}

impl Toll {
    /// `slack` is for the allocator, and must be less than what the files of the second half hold.
    fn assert_that_nothing_is_kept(&self, slack: u64) {
        let [first, second] = self.resident;
        assert!(second < first + slack, "the memory grew from {first} to {second} bytes");
    }
}

#[tokio::test]
async fn files_that_unfold_to_far_more_than_a_film_are_refused_in_little_memory() {
    if !namespace::inside("files_that_unfold_to_far_more_than_a_film_are_refused_in_little_memory", &[]) {
        return;
    }
    let Some(broker) = broker() else { return };
    let witness = Witness::new(&broker).await;
    let bombs = bombs();
    let files: Vec<_> = bombs.iter().map(|(what, _, bytes)| ((*what).to_owned(), bytes.clone())).collect();
    let toll = Flood::new(&broker, witness).run("bombs", &files, 4).await;
    for (what, is_film, bytes) in &bombs {
        assert_eq!(toll.witness.results_of(&sha256(bytes)).count(), usize::from(*is_film), "{what}");
    }
}

#[tokio::test]
async fn every_film_between_mutated_ones_is_published() {
    const SEED: u64 = 20_261_121;
    const MUTANTS: usize = 120;
    if !namespace::inside("every_film_between_mutated_ones_is_published", &[]) {
        return;
    }
    let Some(broker) = broker() else { return };
    let witness = Witness::new(&broker).await;
    println!("seed {SEED}");
    let mut random = Random::new(SEED);
    let originals: Vec<_> = (0..4).map(|number| film(Kind::Dicom, number)).collect();
    let mutants: Vec<_> = (0..MUTANTS)
        .map(|number| (format!("mutant-{number}.dcm"), mutated(&originals[number % originals.len()], &mut random)))
        .collect();
    let toll = Flood::new(&broker, witness).run("mutated DICOM", &mutants, 20).await;
    let bytes: usize = mutants.iter().skip(MUTANTS / 2).map(|(_, bytes)| bytes.len()).sum();
    toll.assert_that_nothing_is_kept(bytes as u64 / 2);
    assert!(toll.results > 0 && toll.refusals > MUTANTS / 10, "mutations that change nothing prove nothing");
}

#[tokio::test]
async fn every_film_between_the_bad_files_of_a_collection_is_published() {
    let Some(data) = std::env::var_os("LANDMARKD_TEST_DATA") else {
        println!("skipped: LANDMARKD_TEST_DATA names no folder with bad-images/ and dicom/");
        return;
    };
    if !namespace::inside("every_film_between_the_bad_files_of_a_collection_is_published", &[]) {
        return;
    }
    let Some(broker) = broker() else { return };
    let witness = Witness::new(&broker).await;
    let mut files = Vec::new();
    for folder in ["bad-images", "dicom"] {
        let Ok(entries) = fs::read_dir(Path::new(&data).join(folder)) else { continue };
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("listed").path()).filter(|p| p.is_file()).collect();
        paths.sort();
        for (number, path) in paths.iter().enumerate() {
            files.push((format!("{folder}-{number}"), fs::read(path).expect("readable")));
        }
    }
    assert!(!files.is_empty(), "LANDMARKD_TEST_DATA has neither bad-images/ nor dicom/");
    // Once more, each with a byte behind it that makes it another file: what the allocator keeps of the largest film it has
    // by the first half, so that a second half like it shows what is kept for ever.
    let again = files.iter().map(|(name, bytes)| (format!("again-{name}"), [&bytes[..], &[0]].concat()));
    let files: Vec<_> = files.iter().cloned().chain(again.collect::<Vec<_>>()).collect();
    Flood::new(&broker, witness).run("the collection", &files, 30).await.assert_that_nothing_is_kept(32 << 20);
}
