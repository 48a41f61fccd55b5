//! The ledger in memory, and on disk where a crash is played.

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    UNIX_EPOCH + 20_000 * DAY
}

fn ledger() -> Ledger {
    let backend = redb::backends::InMemoryBackend::new();
    let database = Database::builder().create_with_backend(backend).expect("memory is there");
    Ledger::open(Arc::new(database)).expect("an empty store")
}

fn source(name: &str, bytes: &[u8]) -> FilmSource {
    let file = FileIdentity { inode: 7, size: bytes.len() as u64, mtime_ns: -3, ctime_ns: 4 };
    FilmSource { film: FilmId::of(bytes), path: PathBuf::from(name), file }
}

fn finish(ledger: &Ledger, source: &FilmSource, outcome: Outcome, at: SystemTime) {
    let tx = ledger.database.begin_write().expect("writable");
    ledger.finish(&tx, source, outcome, at).expect("writable");
    tx.commit().expect("writable");
}

fn record(ledger: &Ledger, film: FilmId) -> Option<FilmRecord> {
    ledger.snapshot().expect("readable").film(film).expect("readable")
}

fn known(ledger: &Ledger, source: &FilmSource) -> bool {
    let found = ledger.snapshot().expect("readable").known(&source.path, &source.file).expect("readable");
    found.is_some_and(|(found, _)| found == *source)
}

#[test]
fn attempts_survive_a_crash() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("state.redb");
    let film = FilmId::of(b"film");
    for boot in 1..=3 {
        // Each round is a process that dies after it has counted how the one before ended.
        let database = Database::create(&path).expect("writable");
        let ledger = Ledger::open(Arc::new(database)).expect("a store");
        assert!(ledger.count_attempt(film, boot, now()).expect("writable"));
        assert!(!ledger.count_attempt(film, boot, now()).expect("writable"), "twice");
    }
    let ledger = Ledger::open(Arc::new(Database::create(&path).expect("writable"))).expect("a store");
    let expected = FilmRecord { state: FilmState::Attempting, attempts: 3, last_seen: now() };
    assert_eq!(record(&ledger, film), Some(expected));
}

#[test]
fn a_film_ends_with_the_callers_transaction_or_not_at_all() {
    let ledger = ledger();
    let source = source("a.png", b"film");
    assert!(ledger.count_attempt(source.film, 1, now()).expect("writable"));
    let tx = ledger.database.begin_write().expect("writable");
    ledger.finish(&tx, &source, Outcome::Done { sequence: 9 }, now()).expect("writable");
    tx.abort().expect("abortable");
    assert_eq!(record(&ledger, source.film).map(|r| r.state), Some(FilmState::Attempting));
    assert!(!known(&ledger, &source));

    for outcome in
        [Outcome::Done { sequence: 9 }, Outcome::Refused { sequence: 10 }, Outcome::Quarantined { sequence: 11 }]
    {
        finish(&ledger, &source, outcome, now());
        let expected = FilmRecord { state: FilmState::Ended(outcome), attempts: 1, last_seen: now() };
        assert!(!ledger.count_attempt(source.film, 2, now()).expect("readable"), "it has ended");
        assert_eq!(record(&ledger, source.film), Some(expected));
        assert!(known(&ledger, &source));
    }
}

#[test]
fn a_file_is_known_only_unchanged_and_with_an_ended_film() {
    let ledger = ledger();
    let (first, second) = (source("a.png", b"film"), source("b.png", b"film"));
    ledger.know(std::slice::from_ref(&first)).expect("writable");
    assert!(!known(&ledger, &first), "its film was never seen");
    assert!(ledger.count_attempt(first.film, 1, now()).expect("writable"));
    assert!(!known(&ledger, &first), "its film has not ended");
    finish(&ledger, &first, Outcome::Done { sequence: 1 }, now());
    assert!(known(&ledger, &first));
    assert!(!known(&ledger, &second));
    ledger.know(std::slice::from_ref(&second)).expect("writable");
    assert!(known(&ledger, &second));
    let touched = FilmSource { file: FileIdentity { mtime_ns: 5, ..first.file }, ..first };
    assert!(!known(&ledger, &touched));
}

#[test]
fn a_file_that_could_not_be_read_is_refused_but_not_known() {
    let ledger = ledger();
    let file = source("a.png", b"film").file;
    let unread = FilmSource::unread(Path::new("a.png"), &file);
    finish(&ledger, &unread, Outcome::Refused { sequence: 1 }, now());
    assert_eq!(record(&ledger, unread.film).map(|r| r.state), Some(FilmState::Ended(Outcome::Refused { sequence: 1 })));
    assert!(!known(&ledger, &unread));
}

#[test]
fn a_film_in_the_folder_outlives_its_age_and_others_do_not() {
    let ledger = ledger();
    let (stays, leaves) = (source("a.png", b"stays"), source("b.png", b"leaves"));
    for source in [&stays, &leaves] {
        finish(&ledger, source, Outcome::Done { sequence: 1 }, now());
    }
    let stale = |film, at| record(&ledger, film).expect("on record").is_stale(at);
    assert!(!stale(stays.film, now() + DAY / 2));
    for day in 1..=40 {
        let at = now() + DAY * day;
        assert!(stale(stays.film, at), "day {day}");
        ledger.sight(&[stays.film], at).expect("writable");
        let forgotten = ledger.prune(at, 30 * DAY).expect("writable");
        assert_eq!(forgotten, usize::from(day == 31), "day {day}");
    }
    assert!(known(&ledger, &stays));
    assert!(!known(&ledger, &leaves));
    assert_eq!(record(&ledger, leaves.film), None);
    // The file's entry went with its film: were the film back, the file would be read again.
    finish(&ledger, &source("c.png", b"leaves"), Outcome::Done { sequence: 2 }, now());
    assert!(!known(&ledger, &leaves));
}

#[test]
fn a_clock_before_1970_forgets_nothing() {
    let ledger = ledger();
    let film = source("a.png", b"film");
    finish(&ledger, &film, Outcome::Done { sequence: 1 }, UNIX_EPOCH);
    assert_eq!(ledger.prune(UNIX_EPOCH + DAY, 30 * DAY).expect("writable"), 0);
    assert!(!record(&ledger, film.film).expect("on record").is_stale(UNIX_EPOCH - DAY));
}

#[test]
fn a_film_that_is_forgotten_is_new_and_its_neighbour_is_not() {
    let ledger = ledger();
    let (refused, kept, done) = (source("a.png", b"a"), source("b.png", b"b"), source("c.png", b"c"));
    finish(&ledger, &kept, Outcome::Quarantined { sequence: 2 }, now());
    finish(&ledger, &refused, Outcome::Refused { sequence: 1 }, now());
    finish(&ledger, &done, Outcome::Done { sequence: 3 }, now());
    let without = |ledger: &Ledger| ledger.snapshot().expect("readable").without_result().expect("readable");
    assert_eq!(
        without(&ledger),
        [(1, refused.film, Outcome::Refused { sequence: 1 }), (2, kept.film, Outcome::Quarantined { sequence: 2 }),]
    );
    assert_eq!(ledger.snapshot().expect("readable").count().expect("readable"), (3, 3));
    assert!(ledger.forget(refused.film).expect("writable"));
    assert!(!ledger.forget(refused.film).expect("writable"), "it is gone");
    assert!(!known(&ledger, &refused) && known(&ledger, &kept) && known(&ledger, &done));
    assert_eq!(record(&ledger, refused.film), None);
    assert_eq!(without(&ledger), [(2, kept.film, Outcome::Quarantined { sequence: 2 })]);
}

#[test]
fn a_crash_makes_only_the_last_few_files_unknown_and_what_is_known_is_not_written_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("state.redb");
    let opened = || Ledger::open(Arc::new(Database::create(&path).expect("writable"))).expect("a store");
    let ledger = opened();
    let films: Vec<_> = (0..20).map(|n: u8| source(&format!("{n}.png"), &[n])).collect();
    for film in &films {
        finish(&ledger, film, Outcome::Done { sequence: 1 }, now());
        assert!(known(&ledger, film));
    }
    let before = std::fs::read(&path).expect("there");
    ledger.know(&films).expect("nothing to do");
    assert!(std::fs::read(&path).expect("there") == before, "known files are written again");
    drop(ledger);
    let ledger = opened();
    let unknown = films.iter().filter(|film| !known(&ledger, film)).count();
    assert_eq!(unknown, 20 % UNSAVED_FILES);
    ledger.know(&films).expect("writable");
    assert!(films.iter().all(|film| known(&ledger, film)));
}
