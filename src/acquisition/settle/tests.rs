//! Sightings and times in, files that are due out.

use super::*;

const PAUSE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

fn file(size: u64) -> FileIdentity {
    FileIdentity { inode: 7, size, mtime_ns: 1000, ctime_ns: 1000 }
}

fn due(settle: &mut Settle, at: Instant) -> Vec<(String, bool)> {
    let due = settle.due(at, 10, 1000, |size| size);
    due.into_iter().map(|due| (due.path.display().to_string(), due.last)).collect()
}

#[test]
fn the_newest_file_is_known_whatever_becomes_of_it() {
    let (start, mut settle) = (Instant::now(), Settle::new(PAUSE, PATIENCE));
    let of = |mtime_ns| FileIdentity { mtime_ns, ..file(1) };
    let newest = |settle: &Settle| settle.newest().map(|file| file.mtime_ns);
    assert_eq!(newest(&settle), None);
    for (path, mtime_ns, expected) in [("a", 20, 20), ("b", 10, 20), ("c", 30, 30), ("c", 5, 20), ("d", 20, 20)] {
        settle.sighted(Path::new(path), of(mtime_ns), start);
        assert_eq!(newest(&settle), Some(expected), "{path} of {mtime_ns}");
    }
    assert_eq!(settle.due(start + PAUSE, 10, 1000, |size| size).len(), 4);
    settle.hold(Path::new("a"));
    assert_eq!(newest(&settle), Some(20), "examined or held");
    settle.forget(Path::new("a"));
    settle.forget(Path::new("d"));
    assert_eq!(newest(&settle), Some(10));
    settle.clear();
    assert_eq!(newest(&settle), None);
}

#[derive(Clone, Copy)]
enum Step {
    /// The file is seen with this size.
    See(u64),
    /// The examination ends so.
    Hold,
    Retry,
    Forget,
    /// Nothing is due.
    Quiet,
    /// The file is due, for the last time or not.
    Due(bool),
}

#[test]
fn a_file_is_due_once_it_stayed_the_same() {
    use Step::{Due, Forget, Hold, Quiet, Retry, See};
    for (name, steps) in [
        ("unchanged", vec![(0, See(5)), (1, See(5)), (1, Quiet), (2, Due(false)), (9, Quiet)]),
        ("grown meanwhile", vec![(0, See(5)), (1, See(6)), (2, Quiet), (3, Due(false))]),
        ("never the same for long enough", (0..90).flat_map(|s| [(s, See(s)), (s, Quiet)]).collect()),
        (
            "a slow writer pauses now and then",
            vec![
                (0, See(1)),
                (2, Due(false)),
                (2, Hold),
                (3, See(2)),
                (4, Quiet),
                (5, Due(false)),
                (5, Hold),
                (70, See(3)),
                (72, Due(false)),
            ],
        ),
        (
            "incomplete for ever",
            vec![
                (0, See(5)),
                (2, Due(false)),
                (3, Hold),
                (59, See(5)),
                (59, Quiet),
                (60, Due(true)),
                (60, Forget),
                (61, Quiet),
            ],
        ),
        (
            "unreadable for a while",
            vec![
                (0, See(5)),
                (2, Due(false)),
                (2, Retry),
                (3, Quiet),
                (4, Due(false)),
                (40, Retry),
                (49, Quiet),
                (50, Due(false)),
                (59, Retry),
                (60, Due(true)),
                (60, Retry),
                (74, Quiet),
                (75, Due(true)),
            ],
        ),
        ("changed while examined", vec![(0, See(5)), (2, Due(false)), (3, See(6)), (4, Quiet), (5, Due(false))]),
        ("gone and back", vec![(0, See(5)), (1, Forget), (1, See(5)), (2, Quiet), (3, Due(false))]),
        ("unchanged for long before the first look", vec![(0, See(5)), (99, Due(true))]),
    ] {
        let start = Instant::now();
        let mut settle = Settle::new(PAUSE, PATIENCE);
        let path = Path::new("film");
        for (i, (second, step)) in steps.into_iter().enumerate() {
            let now = start + Duration::from_secs(second);
            match step {
                See(size) => settle.sighted(path, file(size), now),
                Hold => settle.hold(path),
                Retry => settle.retry(path, now),
                Forget => settle.forget(path),
                Quiet => assert_eq!(due(&mut settle, now), [], "{name}, step {i} at {second} s"),
                Due(last) => {
                    let wanted = [("film".to_owned(), last)];
                    assert!(settle.next().is_some_and(|next| next <= now), "{name}, step {i} at {second} s");
                    assert_eq!(due(&mut settle, now), wanted, "{name}, step {i} at {second} s");
                }
            }
        }
    }
}

#[test]
fn the_oldest_film_comes_first_and_a_huge_one_holds_up_none() {
    let now = Instant::now();
    let mut settle = Settle::new(Duration::ZERO, PATIENCE);
    for (path, size, mtime_ns) in [("late", 10, 30), ("huge", 900, 20), ("early", 200, 10), ("over", 9000, 5)] {
        settle.sighted(Path::new(path), FileIdentity { mtime_ns, ..file(size) }, now);
    }
    // A file over the limit is not read and so costs nothing.
    let cost = |size| if size > 1000 { 0 } else { size };
    let names = |due: Vec<Due>| due.into_iter().map(|due| due.path.display().to_string()).collect::<Vec<_>>();
    assert_eq!(names(settle.due(now, 1, 1000, cost)), ["over"]);
    assert_eq!(names(settle.due(now, 9, 1000, cost)), ["early", "late"]);
    assert_eq!(names(settle.due(now, 9, 1000, cost)), ["huge"]);
    assert_eq!(settle.next(), None);
}

#[test]
fn a_fresh_film_waits_behind_few_however_many_are_there() {
    let start = Instant::now();
    let mut settle = Settle::new(Duration::ZERO, PATIENCE);
    let name = |i: i64| format!("film-{i:03}");
    for i in 0..200 {
        settle.sighted(Path::new(&name(i)), FileIdentity { mtime_ns: i, ..file(1) }, start);
    }
    assert_eq!(due(&mut settle, start).len(), 10);
    // A copy of an old film that comes later is fresh too.
    let later = start + Duration::from_secs(1);
    settle.sighted(Path::new("fresh"), FileIdentity { mtime_ns: -5, ..file(1) }, later);
    let mut taken = Vec::new();
    while let [one] = &settle.due(later, 1, 1000, |size| size)[..] {
        taken.push(one.path.display().to_string());
    }
    let place = |wanted: &str| taken.iter().position(|path| path == wanted);
    assert!(place("fresh") <= Some(1), "{:?}", &taken[..4]);
    // The oldest five and the newest five are gone; the rest is taken from both ends, and the last in line.
    let ends: Vec<_> = taken.iter().filter(|path| *path != "fresh").take(4).map(String::as_str).collect();
    assert!(
        [["film-005", "film-194", "film-006", "film-193"], ["film-194", "film-005", "film-193", "film-006"]]
            .contains(&[ends[0], ends[1], ends[2], ends[3]]),
        "{ends:?}"
    );
    assert_eq!(taken.len(), 191, "every film is taken once");
    assert!(taken[191 - LINE..].is_sorted(), "{:?}", &taken[191 - LINE..]);
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 191);
}

#[test]
fn ten_thousand_files_without_room_for_them_cost_nothing() {
    let start = Instant::now();
    let mut settle = Settle::new(Duration::ZERO, PATIENCE);
    for i in 0..10_000_i64 {
        settle.sighted(Path::new(&format!("film-{i}")), FileIdentity { mtime_ns: 10_000 - i, ..file(1) }, start);
    }
    assert_eq!(due(&mut settle, start).len(), 10, "as many as asked for, out of all");
    // Each of these would take a millisecond and more if it went through all files.
    let asked = Instant::now();
    let looked_at = std::cell::Cell::new(0);
    for _ in 0..10_000 {
        assert!(settle.due(start, 0, 1000, |size| size).is_empty());
        assert_eq!(settle.next(), None);
        settle.due(start, 1, 1000, |size| {
            looked_at.set(looked_at.get() + 1);
            size
        });
    }
    assert_eq!((looked_at.get(), settle.len()), (9_990, 10_000), "each file was weighed once, when it was taken");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn a_full_scan_drops_what_it_did_not_meet_unless_it_was_seen_later() {
    let start = Instant::now();
    let mut settle = Settle::new(PAUSE, PATIENCE);
    settle.sighted(Path::new("gone"), file(1), start);
    settle.sighted(Path::new("there"), file(1), start);
    settle.sighted(Path::new("new"), file(1), start + Duration::from_secs(2));
    settle.only(&HashSet::from([PathBuf::from("there")]), start + Duration::from_secs(1));
    assert_eq!(settle.len(), 2);
    assert_eq!(due(&mut settle, start + Duration::from_secs(9)).len(), 2);
}

#[test]
fn only_the_state_handed_out_is_being_examined() {
    let now = Instant::now();
    let mut settle = Settle::new(Duration::ZERO, PATIENCE);
    let path = Path::new("film");
    settle.sighted(path, file(5), now);
    assert!(!settle.is_examining(path, &file(5)));
    assert_eq!(due(&mut settle, now).len(), 1);
    assert!(settle.is_examining(path, &file(5)));
    settle.sighted(path, file(6), now);
    assert!(!settle.is_examining(path, &file(5)) && !settle.is_examining(path, &file(6)));
}
