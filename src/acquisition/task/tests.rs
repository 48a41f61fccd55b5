//! The task on real folders with real inotify; every wait is for a signal.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use redb::Database;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::acquisition::{AcquiredFilm, FilmId, Outcome, Refusal, RefusedFile};
use crate::config::{AfterPublish, MountRule};

mod folder;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

struct Station {
    folder: TempDir,
    database: Arc<Database>,
    ledger: Ledger,
    films: mpsc::Receiver<Acquired>,
    state: watch::Receiver<FolderState>,
    newest: watch::Receiver<Option<SystemTime>>,
    progress: watch::Receiver<Progress>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AcquisitionError>>,
    faults: Arc<Mutex<Vec<FolderFault>>>,
}

pub(in super::super) fn settings(folder: &Path) -> AcquisitionSettings {
    AcquisitionSettings {
        folder: folder.to_path_buf(),
        recursive: false,
        mount: MountRule::Remembered,
        rescan: HOUR,
        settle: Some(Duration::from_millis(5)),
        max_settle: HOUR,
        done_marker: None,
        after: AfterPublish::Keep,
        max_file_bytes: 1 << 20,
        max_pixels: 1 << 20,
        max_attempts: 3,
        remember: 90 * 24 * HOUR,
        pixel_spacing: None,
    }
}

fn memory() -> Arc<Database> {
    let backend = redb::backends::InMemoryBackend::new();
    Arc::new(Database::builder().create_with_backend(backend).expect("memory is there"))
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

impl Station {
    fn start(folder: TempDir, change: impl FnOnce(&mut AcquisitionSettings)) -> Self {
        Self::start_on(folder, memory(), change)
    }

    fn start_on(folder: TempDir, database: Arc<Database>, change: impl FnOnce(&mut AcquisitionSettings)) -> Self {
        let mut settings = settings(folder.path());
        change(&mut settings);
        let ledger = Ledger::open(Arc::clone(&database)).expect("a store");
        let (out, films) = mpsc::channel(1);
        let (state_sender, state) = watch::channel(FolderState::Starting);
        let shutdown = CancellationToken::new();
        let faults: Arc<Mutex<Vec<FolderFault>>> = Arc::default();
        let (newest_sender, newest) = watch::channel(None);
        let count = {
            let faults = Arc::clone(&faults);
            move |fault| faults.lock().expect("nobody panicked").push(fault)
        };
        let observer = FolderObserver::new(count, newest_sender);
        let task = Folder::new(settings, ledger.clone(), out, state_sender, observer);
        let progress = task.progress.subscribe();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { task.run(&Pulse::new("the folder"), &token).await });
        Self { folder, database, ledger, films, state, newest, progress, shutdown, task, faults }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("writable");
    }

    async fn next(&mut self) -> Acquired {
        timeout(LIMIT, self.films.recv()).await.expect("something comes in time").expect("the task runs")
    }

    async fn film(&mut self) -> AcquiredFilm {
        match self.next().await {
            Acquired::Film(film) => film,
            other => panic!("a film was expected, not {other:?}"),
        }
    }

    async fn refused(&mut self) -> RefusedFile {
        match self.next().await {
            Acquired::Refused(file) => file,
            other => panic!("a refusal was expected, not {other:?}"),
        }
    }

    /// The next film is the one of `bytes`; it is finished.
    async fn takes(&mut self, bytes: &[u8]) {
        let film = self.film().await;
        assert_eq!(film.source.film, FilmId::of(bytes), "another film came");
        assert_eq!(film.bytes, bytes);
        self.finish(&film.source, Outcome::Done { sequence: 1 });
    }

    /// No film came before this one.
    async fn nothing_but(&mut self, name: &str) {
        let sentinel = jpeg(name);
        self.write(name, &sentinel);
        self.takes(&sentinel).await;
    }

    fn finish(&self, source: &FilmSource, outcome: Outcome) {
        let tx = self.database.begin_write().expect("writable");
        self.ledger.finish(&tx, source, outcome, SystemTime::now()).expect("writable");
        tx.commit().expect("writable");
    }

    async fn progress(&mut self, done: impl FnMut(&Progress) -> bool) {
        timeout(LIMIT, self.progress.wait_for(done)).await.expect("in time").expect("the task runs");
    }

    async fn state(&mut self, wanted: impl FnMut(&FolderState) -> bool) -> FolderState {
        *timeout(LIMIT, self.state.wait_for(wanted)).await.expect("in time").expect("the task runs")
    }

    /// How often a fault was told.
    fn heard(&self, fault: FolderFault) -> usize {
        self.faults.lock().expect("nobody panicked").iter().filter(|heard| **heard == fault).count()
    }

    async fn watching(&mut self) {
        self.state(|state| matches!(state, FolderState::Watching { .. })).await;
    }

    async fn stop(self) -> (TempDir, Arc<Database>) {
        self.shutdown.cancel();
        timeout(LIMIT, self.task).await.expect("it stops in time").expect("no panic").expect("no error");
        (self.folder, self.database)
    }
}

/// A film as far as the gate can tell.
fn jpeg(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE0];
    bytes.extend((text.len() as u16 + 2).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend([0xFF, 0xD9]);
    bytes
}

#[tokio::test]
async fn films_present_at_start_and_those_that_come_are_handed_out() {
    let folder = temporary();
    for (name, seconds) in [("new", 2_000_000_000), ("old", 100)] {
        fs::write(folder.path().join(name), jpeg(name)).expect("writable");
        let file = fs::File::options().write(true).open(folder.path().join(name)).expect("writable");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).expect("settable");
    }
    let mut station = Station::start(folder, |_| {});
    let mut seen = [station.film().await, station.film().await].map(|film| film.acquired);
    seen.sort();
    assert_eq!(seen, [100, 2_000_000_000].map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s)));
    let mut station = Station::start(temporary(), |_| {});
    station.watching().await;
    for name in ["a", "b", "c"] {
        station.nothing_but(name).await;
    }
    station.stop().await;
}

#[tokio::test]
async fn the_newest_film_is_in_sight_until_the_pipeline_is_through_with_it() {
    let mut station = Station::start(temporary(), |_| {});
    station.watching().await;
    assert_eq!(*station.newest.borrow(), None);
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let lay = |station: &Station, name: &str, seconds| {
        let part = station.folder.path().with_extension(name);
        fs::write(&part, jpeg(name)).expect("writable");
        fs::File::options().write(true).open(&part).expect("writable").set_modified(at(seconds)).expect("settable");
        fs::rename(part, station.path(name)).expect("one file system");
    };
    lay(&station, "old", 100);
    let old = station.film().await;
    lay(&station, "new", 200);
    timeout(LIMIT, station.newest.wait_for(|newest| *newest == Some(at(200)))).await.expect("seen").expect("it runs");
    let new = station.film().await;
    station.finish(&new.source, Outcome::Done { sequence: 1 });
    drop(new);
    timeout(LIMIT, station.newest.wait_for(|newest| *newest == Some(at(100))))
        .await
        .expect("through")
        .expect("it runs");
    station.finish(&old.source, Outcome::Done { sequence: 2 });
    drop(old);
    timeout(LIMIT, station.newest.wait_for(Option::is_none)).await.expect("through").expect("it runs");
    station.stop().await;
}

#[tokio::test]
async fn the_same_bytes_under_two_names_are_one_film() {
    let mut station = Station::start(temporary(), |_| {});
    station.watching().await;
    let bytes = jpeg("film");
    station.write("a", &bytes);
    let film = station.film().await;
    // The second copy comes while the first is in the pipeline, the third after that is finished.
    let before = station.progress.borrow().examinations;
    station.write("b", &bytes);
    station.progress(|p| p.examinations > before).await;
    station.finish(&film.source, Outcome::Done { sequence: 1 });
    drop(film);
    let before = station.progress.borrow().examinations;
    station.write("c", &bytes);
    station.progress(|p| p.examinations > before).await;
    station.nothing_but("d").await;
    // Nor after a restart, when all three names are there from the start.
    let (folder, database) = station.stop().await;
    let mut station = Station::start_on(folder, database, |_| {});
    station.watching().await;
    station.nothing_but("e").await;
}

#[tokio::test]
async fn a_half_written_film_waits_and_is_handed_out_once_when_whole() {
    let mut station = Station::start(temporary(), |_| {});
    station.watching().await;
    let whole = jpeg("a film that is written slowly");
    for length in [0, 1, 5, 20, whole.len() - 1] {
        let before = station.progress.borrow().examinations;
        station.write("slow", &whole[..length]);
        station.progress(|p| p.examinations > before).await;
    }
    station.nothing_but("quick").await;
    station.write("slow", &whole);
    station.takes(&whole).await;
    station.nothing_but("last").await;
}

#[tokio::test]
async fn a_film_that_stays_incomplete_is_refused_once() {
    let mut station = Station::start(temporary(), |s| s.max_settle = Duration::from_millis(100));
    station.watching().await;
    let whole = jpeg("film");
    station.write("cut", &whole[..whole.len() - 1]);
    let file = station.refused().await;
    assert_eq!(file.why, Refusal::Incomplete { why: "the JPEG has no end-of-image marker" });
    assert!(!file.source.is_unread());
    assert_eq!(file.source.film, FilmId::of(&whole[..whole.len() - 1]));
    station.finish(&file.source, Outcome::Refused { sequence: 1 });
    drop(file);
    station.nothing_but("next").await;
    let (folder, database) = station.stop().await;
    let mut station = Station::start_on(folder, database, |s| s.max_settle = Duration::from_millis(100));
    station.watching().await;
    station.nothing_but("after a restart").await;
    // Completed after all, it is a new film.
    station.write("cut", &whole);
    station.takes(&whole).await;
}

#[tokio::test]
async fn a_pre_allocated_film_waits_and_a_black_one_is_taken_in_the_end() {
    let mut station = Station::start(temporary(), |s| s.max_settle = Duration::from_millis(100));
    // A bitmap of 64 x 64 whose last 1024 bytes are black.
    let mut black = b"BM".to_vec();
    black.extend([0; 8]);
    for number in [54u32, 40, 64, 64, 1 | 8 << 16] {
        black.extend(number.to_le_bytes());
    }
    black.extend([0; 24]);
    black.extend([9; 3072]);
    black.extend([0; 1024]);
    station.watching().await;
    station.write("black", &black);
    station.takes(&black).await;
    assert!(station.progress.borrow().examinations >= 2, "held, and taken at the last look");
}

#[tokio::test]
async fn a_film_renamed_into_place_is_taken_under_its_last_name() {
    let mut station = Station::start(temporary(), |_| {});
    station.watching().await;
    station.write("film.part", &jpeg("film"));
    station.nothing_but("other").await;
    fs::rename(station.path("film.part"), station.path("film.jpg")).expect("renamable");
    let film = station.film().await;
    assert_eq!(film.source.path, Path::new("film.jpg"));
}

#[tokio::test]
async fn a_film_counts_once_its_marker_is_there() {
    let mut station = Station::start(temporary(), |s| s.done_marker = Some(".done".to_owned()));
    station.watching().await;
    station.write("film", &jpeg("film"));
    let before = station.progress.borrow().looks;
    station.write("other.done", b"");
    station.progress(|p| p.looks > before).await;
    station.write("other", &jpeg("other"));
    station.takes(&jpeg("other")).await;
    station.write("film.done", b"");
    station.takes(&jpeg("film")).await;
}

#[tokio::test]
async fn films_in_new_sub_folders_are_found() {
    let mut station = Station::start(temporary(), |s| s.recursive = true);
    station.watching().await;
    fs::create_dir_all(station.path("day/room")).expect("writable");
    station.write("day/room/film", &jpeg("film"));
    station.takes(&jpeg("film")).await;
    station.write("day/room/next", &jpeg("next"));
    station.takes(&jpeg("next")).await;
}

#[tokio::test]
async fn links_and_special_files_are_passed_over() {
    let outside = temporary();
    fs::write(outside.path().join("secret"), jpeg("secret")).expect("writable");
    let folder = temporary();
    std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("a.png")).expect("writable");
    std::os::unix::fs::symlink(outside.path(), folder.path().join("b.png")).expect("writable");
    fs::create_dir(folder.path().join("c.png")).expect("writable");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("d.png"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("writable");
    let mut station = Station::start(folder, |s| s.recursive = true);
    station.watching().await;
    station.nothing_but("film.png").await;
    let rounds = station.progress.borrow().rounds;
    assert_eq!(station.heard(FolderFault::Special), usize::try_from(rounds).expect("few"), "one for each round");
}

#[tokio::test]
async fn an_oversize_file_is_refused_once_and_delays_no_other() {
    let short = Duration::from_millis(5);
    let mut station = Station::start(temporary(), |s| (s.rescan, s.max_settle) = (short, short));
    station.watching().await;
    let huge = fs::File::create(station.path("huge")).expect("writable");
    huge.set_len(1 << 40).expect("sparse files are supported");
    let file = station.refused().await;
    assert_eq!(file.why, Refusal::TooLarge { bytes: 1 << 40, limit: 1 << 20 });
    assert!(file.source.is_unread());
    // While the refusal is held by the pipeline, films go on.
    station.nothing_but("film").await;
    station.finish(&file.source, Outcome::Refused { sequence: 1 });
    drop(file);
    let rounds = station.progress.borrow().rounds;
    station.progress(|p| p.rounds > rounds + 5).await;
    station.nothing_but("next").await;
}

#[tokio::test]
async fn an_oversize_file_that_still_grows_is_refused_by_nobody() {
    let mut station = Station::start(temporary(), |s| s.rescan = Duration::from_millis(5));
    station.watching().await;
    let growing = fs::File::create(station.path("growing")).expect("writable");
    for burst in 1..=8_u64 {
        let seen = station.progress.borrow().examinations;
        growing.set_len(burst << 30).expect("sparse files are supported");
        // It settles between the bursts and is looked at.
        station.progress(|p| p.examinations > seen).await;
    }
    station.nothing_but("film").await;
}

#[tokio::test]
async fn an_unfinished_film_is_handed_out_again_and_exhausted_in_the_end() {
    let folder = temporary();
    fs::write(folder.path().join("film"), jpeg("film")).expect("writable");
    let mut station = Station::start(folder, |_| {});
    for attempts in 0..2 {
        let film = station.film().await;
        assert_eq!(film.attempts, attempts);
        let boot = u64::from(attempts) + 1;
        assert!(station.ledger.count_attempt(film.source.film, boot, SystemTime::now()).expect("writable"));
        // Dropped unfinished: given back by the pipeline.
    }
    // The third attempt ends with the process.
    let film = station.film().await;
    assert!(station.ledger.count_attempt(film.source.film, 3, SystemTime::now()).expect("writable"));
    let (folder, database) = station.stop().await;
    drop(film);
    let mut station = Station::start_on(folder, database, |_| {});
    match station.next().await {
        Acquired::Exhausted(film) => {
            assert_eq!((film.attempts, film.bytes.as_slice()), (3, jpeg("film").as_slice()));
            station.finish(&film.source, Outcome::Quarantined { sequence: 1 });
        }
        other => panic!("its attempts are used up, but: {other:?}"),
    }
    station.nothing_but("next").await;
}

#[tokio::test]
async fn a_processed_film_is_deleted_or_moved_where_the_settings_say_so() {
    let target = temporary();
    for after in [AfterPublish::Delete, AfterPublish::Move(target.path().to_path_buf())] {
        let mut station = Station::start(temporary(), |s| s.after = after.clone());
        station.watching().await;
        station.write("film", &jpeg("film"));
        let film = station.film().await;
        assert!(station.path("film").exists());
        station.finish(&film.source, Outcome::Done { sequence: 1 });
        drop(film);
        station.progress(|p| p.applications == 1).await;
        assert!(!station.path("film").exists(), "{after:?}");
        // The same film again: done before, it only has to go.
        station.write("again", &jpeg("film"));
        station.progress(|p| p.applications == 2).await;
        assert!(!station.path("again").exists(), "{after:?}");
        station.nothing_but("next").await;
    }
    assert_eq!(fs::read(target.path().join("film")).expect("readable"), jpeg("film"));
}

#[tokio::test]
async fn a_full_pipeline_holds_films_back_and_loses_none() {
    let mut station = Station::start(temporary(), |_| {});
    station.watching().await;
    let films: Vec<_> = (0..30).map(|i| jpeg(&format!("film {i}"))).collect();
    for (i, film) in films.iter().enumerate() {
        station.write(&format!("{i:02}"), film);
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in &films {
        let film = station.film().await;
        station.finish(&film.source, Outcome::Done { sequence: 1 });
        assert!(seen.insert(film.source.film), "handed out twice");
    }
    station.nothing_but("last").await;
}

#[tokio::test]
async fn the_task_ends_when_nobody_takes_films() {
    let mut station = Station::start(temporary(), |_| {});
    station.watching().await;
    station.films.close();
    station.write("film", &jpeg("film"));
    let result = timeout(LIMIT, station.task).await.expect("in time").expect("no panic");
    assert!(matches!(result, Err(AcquisitionError::PipelineGone)), "{result:?}");
}
