//! Ages, bounds and files of an older version; what crashes do to the archive is in the model test of the room.

use redb::TableDefinition;

use super::*;
use crate::outbox::tests::{append, draft, new, opened};
use crate::report::EventKind::{Error, Result as Landmarks};
use crate::store::Store;

const DAY: Duration = Duration::from_secs(DAY_S);
const WEEK: ArchiveLimits = ArchiveLimits { age: Duration::from_secs(7 * DAY_S), bytes: u64::MAX };

fn day(n: u32) -> SystemTime {
    UNIX_EPOCH + DAY * (20_000 + n)
}

fn numbers(outbox: &Outbox) -> Vec<u64> {
    outbox.archived(0..=u64::MAX).map(|head| head.expect("readable").sequence).collect()
}

fn deliver(store: &Store, outbox: &Outbox, n: u32) {
    let sequence = append(store, outbox, &draft(Landmarks, n));
    outbox.acknowledge(Landmarks, sequence).expect("written");
}

#[test]
fn an_event_is_kept_for_its_age_from_its_delivery_on_and_then_goes() {
    let (_home, store, outbox) = new();
    for n in 0..30 {
        deliver(&store, &outbox, n);
        while outbox.prune_archive(day(n), &WEEK).expect("written") > 0 {}
        let oldest = u64::from(n).saturating_sub(5).max(1);
        assert_eq!(numbers(&outbox), (oldest..=u64::from(n + 1)).collect::<Vec<_>>(), "day {n}");
    }
    assert_eq!(outbox.oldest().expect("readable"), Some(24));
}

#[test]
fn what_waited_for_long_is_as_young_as_its_delivery_and_what_waits_is_never_removed() {
    let (_home, store, outbox) = new();
    append(&store, &outbox, &draft(Landmarks, 1));
    append(&store, &outbox, &draft(Error, 2));
    append(&store, &outbox, &draft(Landmarks, 3));
    let nothing = ArchiveLimits { age: Duration::ZERO, bytes: 0 };
    for n in 0..100 {
        assert_eq!(outbox.prune_archive(day(n), &nothing).expect("written"), 0);
    }
    assert_eq!(outbox.len().expect("readable"), 3);
    outbox.acknowledge(Landmarks, 1).expect("written");
    assert_eq!(outbox.prune_archive(day(100), &WEEK).expect("written"), 0);
    assert_eq!(outbox.prune_archive(day(106), &WEEK).expect("written"), 0, "it waited for 100 days, and is new");
    outbox.acknowledge(Landmarks, 3).expect("written");
    assert_eq!(outbox.prune_archive(day(107), &WEEK).expect("written"), 1);
    assert_eq!(numbers(&outbox), [3]);
    assert_eq!(outbox.head(Error).expect("readable").expect("waits").sequence, 2);
}

#[test]
fn beyond_its_bytes_it_loses_the_lowest_numbers_in_small_transactions() {
    let (_home, store, outbox) = new();
    for n in 0..200 {
        deliver(&store, &outbox, n);
    }
    let size = outbox.archive_size().expect("readable");
    assert_eq!(size.events, 200);
    let limits = ArchiveLimits { bytes: size.bytes / 2, ..WEEK };
    let mut removed = Vec::new();
    while removed.last() != Some(&0) {
        removed.push(outbox.prune_archive(day(0), &limits).expect("written"));
    }
    assert_eq!(removed, [64, removed[1], 0]);
    let left = numbers(&outbox);
    let first = left.first().copied().expect("half of them");
    assert_eq!(left, (first..=200).collect::<Vec<_>>());
    let size = outbox.archive_size().expect("readable");
    assert!(size.bytes <= limits.bytes && size.bytes + size.bytes / size.events >= limits.bytes, "{size:?}");
}

#[test]
fn a_delivered_refusal_below_the_last_error_is_in_its_place_in_the_archive() {
    let (_home, store, outbox) = new();
    append(&store, &outbox, &draft(Landmarks, 1));
    append(&store, &outbox, &draft(Error, 2));
    append(&store, &outbox, &draft(Landmarks, 3));
    outbox.acknowledge(Error, 2).expect("written");
    outbox.refuse(Landmarks, 1, "too large", day(0)).expect("written");
    assert_eq!(outbox.head(Error).expect("readable").expect("waits").sequence, 1, "below what was delivered");
    assert_eq!((outbox.len().expect("readable"), numbers(&outbox)), (2, vec![2]));
    outbox.acknowledge(Error, 1).expect("written");
    outbox.acknowledge(Landmarks, 3).expect("written");
    assert!(outbox.is_empty().expect("readable"));
    let kinds: Vec<_> = outbox.archived(1..=3).map(|head| head.expect("readable").draft.kind).collect();
    assert_eq!(kinds, [Error, Error, Landmarks]);
    outbox.refuse(Landmarks, 3, "too late", day(0)).expect("nothing to do");
    assert!(outbox.is_empty().expect("readable") && outbox.quarantined().expect("readable").len() == 1);
}

#[test]
fn only_the_head_can_be_acknowledged() {
    let (_home, store, outbox) = new();
    append(&store, &outbox, &draft(Landmarks, 1));
    append(&store, &outbox, &draft(Landmarks, 2));
    outbox.acknowledge(Landmarks, 2).expect("nothing to do");
    assert_eq!((outbox.len().expect("readable"), numbers(&outbox)), (2, vec![]));
}

#[test]
fn an_append_that_was_not_committed_saved_no_acknowledgement() {
    let (home, store, outbox) = new();
    deliver(&store, &outbox, 1);
    outbox.append(&store.database().begin_write().expect("open"), &draft(Landmarks, 2)).expect("and then aborted");
    outbox.save().expect("written");
    drop((store, outbox));
    let (_store, outbox) = opened(home.path());
    assert!(outbox.is_empty().expect("readable"), "a clean stop saves");
}

#[test]
fn a_clock_that_is_not_set_or_went_back_removes_nothing_by_age() {
    let (_home, store, outbox) = new();
    deliver(&store, &outbox, 1);
    let writes_no_note = |now| {
        outbox.prune_archive(now, &WEEK).expect("written");
        store
            .database()
            .begin_read()
            .expect("open")
            .open_table(DAYS)
            .expect("there")
            .last()
            .expect("readable")
            .is_none()
    };
    assert!(writes_no_note(UNIX_EPOCH + DAY), "it would be 50 years old by the next day");
    assert!(!writes_no_note(day(0)));
    deliver(&store, &outbox, 2);
    assert_eq!(outbox.prune_archive(day(0) - DAY, &WEEK).expect("written"), 0);
    assert_eq!(outbox.prune_archive(day(8), &WEEK).expect("written"), 1);
    assert_eq!(numbers(&outbox), [2]);
}

#[test]
fn an_idle_day_writes_nothing() {
    let (home, store, outbox) = new();
    deliver(&store, &outbox, 1);
    outbox.prune_archive(day(0), &WEEK).expect("written");
    let before = std::fs::read(home.path().join("state.redb")).expect("there");
    for n in 1..7 {
        assert_eq!(outbox.prune_archive(day(n), &WEEK).expect("nothing to do"), 0);
    }
    assert!(std::fs::read(home.path().join("state.redb")).expect("there") == before, "it was written");
}

#[test]
fn what_is_removed_while_it_is_read_is_passed_over() {
    let (_home, store, outbox) = new();
    for n in 0..5 {
        deliver(&store, &outbox, n);
    }
    let mut archived = outbox.archived(1..=5);
    assert_eq!(archived.next().expect("five").expect("readable").sequence, 1);
    let size = outbox.archive_size().expect("readable");
    let limits = ArchiveLimits { bytes: size.bytes * 2 / 5, ..WEEK };
    while outbox.prune_archive(day(0), &limits).expect("written") > 0 {}
    assert_eq!(archived.map(|head| head.expect("readable").sequence).collect::<Vec<_>>(), [4, 5]);
}

/// Before there was an archive, an acknowledgement removed the event, and a refusal lay among the errors.
#[test]
fn a_file_without_an_archive_is_read_on() {
    let home = tempfile::tempdir().expect("a directory");
    let store = Store::open(home.path(), None).expect("usable");
    let tx = store.database().begin_write().expect("open");
    {
        let table: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("outbox.events");
        let mut events = tx.open_table(table).expect("new");
        for (lane, sequence, kind) in [(0, 7, Landmarks), (1, 6, Error), (1, 8, Error)] {
            let record = record::encode(&draft(kind, 1));
            events.insert((lane, sequence), record.as_slice()).expect("writable");
        }
        let table: TableDefinition<'_, &str, u64> = TableDefinition::new("outbox.numbers");
        tx.open_table(table).expect("new").insert("last", 8).expect("writable");
    }
    tx.commit().expect("written");
    drop(store);
    let (store, outbox) = opened(home.path());
    assert_eq!((outbox.len().expect("readable"), outbox.oldest().expect("readable")), (3, None));
    assert_eq!(append(&store, &outbox, &draft(Landmarks, 2)), 9);
    let mut order = Vec::new();
    for kind in [Error, Landmarks] {
        while let Some(head) = outbox.head(kind).expect("readable") {
            outbox.acknowledge(kind, head.sequence).expect("written");
            order.push(head.sequence);
        }
    }
    assert_eq!((order, numbers(&outbox)), (vec![6, 8, 7, 9], vec![6, 7, 8, 9]));
}
