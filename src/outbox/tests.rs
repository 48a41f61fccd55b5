//! The invariants of the module's page, by number.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::report::{Draft, EventId, EventKind};
use crate::store::Store;

pub(super) fn draft(kind: EventKind, n: u32) -> Draft {
    let id = EventId::of_result(&n.to_string(), "model", "config");
    let body = format!(r#"{{"source":"/xr/v1/s/d","data":{{"image":{{"sha256":"{n}"}}}}}}"#).into_bytes();
    Draft { kind, id, acquired: SystemTime::UNIX_EPOCH, body }
}

pub(super) fn opened(directory: &Path) -> (Store, Outbox) {
    let store = Store::open(directory, None).expect("usable");
    let outbox = Outbox::open(&store).expect("usable");
    (store, outbox)
}

pub(super) fn append(store: &Store, outbox: &Outbox, draft: &Draft) -> u64 {
    let tx = store.database().begin_write().expect("open");
    let sequence = outbox.append(&tx, draft).expect("appended");
    tx.commit().expect("written");
    sequence
}

/// Everything that waits, by number.
fn queued(outbox: &Outbox) -> BTreeMap<u64, (EventKind, EventId)> {
    let mut queued = BTreeMap::new();
    for kind in [EventKind::Result, EventKind::Error] {
        let mut last = 0;
        while let Some(head) = outbox.after(kind, last).expect("readable") {
            last = head.sequence;
            queued.insert(head.sequence, (kind, head.draft.id));
        }
    }
    queued
}

pub(super) fn new() -> (TempDir, Store, Outbox) {
    let home = tempfile::tempdir().expect("a directory");
    let (store, outbox) = opened(home.path());
    (home, store, outbox)
}

/// The archive's part with these numbers.
fn archived(outbox: &Outbox, from: u64, to: u64) -> BTreeMap<u64, (EventKind, EventId)> {
    let mut last = 0;
    let event = |head: Result<Head, OutboxError>| {
        let head = head.expect("readable");
        assert!(head.sequence > last, "{} after {last}", head.sequence);
        last = head.sequence;
        (head.sequence, (head.draft.kind, head.draft.id))
    };
    outbox.archived(from..=to).map(event).collect()
}

/// The device after the process died: what is in the file now and nothing that is only in the process.
fn after_a_crash(home: &mut TempDir, store: Store, outbox: Outbox) -> (Store, Outbox) {
    let next = tempfile::tempdir().expect("a directory");
    std::fs::copy(home.path().join("state.redb"), next.path().join("state.redb")).expect("copied");
    drop((store, outbox));
    *home = next;
    opened(home.path())
}

/// A step of the model test.
#[derive(Clone, Debug)]
enum Step {
    /// Append film `n` as `kind`.
    Append(EventKind, u32),
    /// Append film `n`, then lose the process before the commit.
    AppendAndCrash(EventKind, u32),
    /// Acknowledge the head of a kind.
    Acknowledge(EventKind),
    /// Acknowledge a number that may be anything.
    AcknowledgeAny(EventKind, u64),
    /// Refuse the head of the results.
    Refuse,
    /// Read a part of the archive.
    Replay(u64, u64),
    /// Let so many days pass and prune the archive to 3 days and so many bytes, to the end or one batch of it.
    Prune(u64, u64, bool),
    /// Stop in good order and start again.
    Restart,
    /// Lose the process and start again.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![3 => Just(EventKind::Result), 1 => Just(EventKind::Error)];
    let step = prop_oneof![
        4 => (kind.clone(), 0..12u32).prop_map(|(kind, n)| Step::Append(kind, n)),
        1 => (kind.clone(), 0..12u32).prop_map(|(kind, n)| Step::AppendAndCrash(kind, n)),
        3 => kind.clone().prop_map(Step::Acknowledge),
        1 => (kind, 0..20u64).prop_map(|(kind, sequence)| Step::AcknowledgeAny(kind, sequence)),
        1 => Just(Step::Refuse),
        1 => (0..12u64, 0..20u64).prop_map(|(from, to)| Step::Replay(from, to)),
        1 => (0..4u64, 0..2000u64, any::<bool>()).prop_map(|(days, bytes, whole)| Step::Prune(days, bytes, whole)),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..40)
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The queue as it would be without a disk.
#[derive(Default)]
struct Reference {
    next: u64,
    queued: BTreeMap<u64, (EventKind, EventId)>,
    quarantined: Vec<u64>,
    /// What left the queue and may come back through a crash.
    unsaved: BTreeMap<u64, (EventKind, EventId)>,
    /// The archive, and on which day each event came there.
    delivered: BTreeMap<u64, (EventKind, EventId)>,
    since: BTreeMap<u64, u64>,
    day: u64,
}

impl Reference {
    fn append(&mut self, draft: &Draft) -> u64 {
        self.unsaved.clear();
        self.next += 1;
        self.queued.insert(self.next, (draft.kind, draft.id));
        self.next
    }

    fn acknowledge(&mut self, kind: EventKind, sequence: u64) {
        if self.head(kind).is_some_and(|(head, _)| head == sequence)
            && let Some(event) = self.queued.remove(&sequence)
        {
            self.unsaved.insert(sequence, event);
            self.delivered.insert(sequence, event);
            self.since.insert(sequence, self.day);
        }
    }

    /// Takes back what a crash brought back, if it was allowed to.
    fn adopt(&mut self, found: &BTreeMap<u64, (EventKind, EventId)>) -> bool {
        let lost = self.queued.iter().any(|event| !found.contains_key(event.0));
        let back: Vec<_> = found.iter().filter(|(sequence, _)| !self.queued.contains_key(sequence)).collect();
        let allowed = back.len() < 8 && back.iter().all(|(sequence, event)| self.unsaved.get(sequence) == Some(event));
        self.delivered.retain(|sequence, _| !found.contains_key(sequence));
        self.queued = found.clone();
        self.unsaved.clear();
        allowed && !lost
    }

    /// Takes over what pruning left of the archive, if it was allowed to remove the rest.
    fn adopt_archive(
        &mut self,
        left: BTreeMap<u64, (EventKind, EventId)>,
        bytes: u64,
        limit: u64,
        whole: bool,
    ) -> bool {
        let (oldest, day) = (left.keys().next().copied().unwrap_or(u64::MAX), self.day);
        let gone: Vec<u64> = self.delivered.keys().copied().filter(|sequence| !left.contains_key(sequence)).collect();
        let is_young = |sequence: &u64| day - self.since[sequence] < 3;
        // Beyond the bytes the young go too, one by one: with the last that went the archive was too large.
        let in_order = gone.iter().all(|&sequence| sequence < oldest);
        let one = gone.iter().map(|sequence| self.record_bytes(*sequence)).max().unwrap_or(0);
        let justified = !gone.iter().any(is_young) || bytes + one > limit;
        let done = !whole || bytes <= limit || left.is_empty();
        let same = left.iter().all(|(sequence, event)| self.delivered.get(sequence) == Some(event));
        self.delivered = left;
        in_order && justified && done && same
    }

    /// A refusal's text is longer than that of a test's event.
    fn record_bytes(&self, sequence: u64) -> u64 {
        if self.quarantined.contains(&sequence) { 1000 } else { 150 }
    }

    fn head(&self, kind: EventKind) -> Option<(u64, EventId)> {
        self.queued.iter().find(|(_, (k, _))| *k == kind).map(|(&sequence, &(_, id))| (sequence, id))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_a_queue_that_never_crashes(steps in steps()) {
        let mut home = tempfile::tempdir().expect("a directory");
        let (mut store, mut outbox) = opened(home.path());
        let mut reference = Reference::default();
        for step in steps {
            match step {
                Step::Append(kind, n) => {
                    let draft = draft(kind, n);
                    prop_assert_eq!(append(&store, &outbox, &draft), reference.append(&draft));
                }
                Step::AppendAndCrash(kind, n) => {
                    let tx = store.database().begin_write().expect("open");
                    outbox.append(&tx, &draft(kind, n)).expect("appended");
                    drop(tx);
                    (store, outbox) = after_a_crash(&mut home, store, outbox);
                    prop_assert!(reference.adopt(&queued(&outbox)));
                }
                Step::Crash => {
                    (store, outbox) = after_a_crash(&mut home, store, outbox);
                    prop_assert!(reference.adopt(&queued(&outbox)));
                }
                Step::Acknowledge(kind) => {
                    if let Some((sequence, _)) = reference.head(kind) {
                        outbox.acknowledge(kind, sequence).expect("written");
                        reference.acknowledge(kind, sequence);
                    }
                }
                Step::AcknowledgeAny(kind, sequence) => {
                    outbox.acknowledge(kind, sequence).expect("written");
                    reference.acknowledge(kind, sequence);
                }
                Step::Refuse => {
                    if let Some((sequence, id)) = reference.head(EventKind::Result) {
                        let now = SystemTime::UNIX_EPOCH;
                        outbox.refuse(EventKind::Result, sequence, "too large", now).expect("written");
                        reference.queued.insert(sequence, (EventKind::Error, id.refused()));
                        reference.quarantined.push(sequence);
                        reference.unsaved.clear();
                    }
                }
                Step::Replay(from, to) => {
                    let expected: BTreeMap<_, _> =
                        reference.delivered.iter().filter(|(n, _)| (from..=to).contains(*n)).map(|(n, e)| (*n, *e)).collect();
                    prop_assert_eq!(archived(&outbox, from, to), expected);
                }
                Step::Prune(days, bytes, whole) => {
                    reference.day += days;
                    let now = SystemTime::UNIX_EPOCH + DAY * (20_000 + u32::try_from(reference.day).expect("small"));
                    let limits = ArchiveLimits { age: 3 * DAY, bytes };
                    // Acknowledgements are saved by whatever is written here, if anything is.
                    outbox.save().expect("written");
                    reference.unsaved.clear();
                    while outbox.prune_archive(now, &limits).expect("written") > 0 && whole {}
                    let size = outbox.archive_size().expect("readable");
                    let left = archived(&outbox, 0, u64::MAX);
                    prop_assert!(reference.adopt_archive(left, size.bytes, bytes, whole));
                }
                Step::Restart => {
                    outbox.save().expect("written");
                    reference.unsaved.clear();
                    drop((store, outbox));
                    (store, outbox) = opened(home.path());
                }
            }
            prop_assert_eq!(outbox.len().expect("readable"), reference.queued.len() as u64);
            prop_assert_eq!(archived(&outbox, 1, u64::MAX), reference.delivered.clone());
            prop_assert_eq!(outbox.oldest().expect("readable"), reference.delivered.keys().next().copied());
            prop_assert_eq!(outbox.archive_size().expect("readable").events, reference.delivered.len() as u64);
            prop_assert_eq!(outbox.last().expect("readable"), reference.next);
            for kind in [EventKind::Result, EventKind::Error] {
                let head = outbox.head(kind).expect("readable").map(|head| (head.sequence, head.draft.id));
                prop_assert_eq!(head, reference.head(kind));
            }
        }
        let mut quarantined: Vec<u64> =
            outbox.quarantined().expect("readable").into_iter().map(|(sequence, _)| sequence).collect();
        quarantined.sort_unstable();
        reference.quarantined.sort_unstable();
        prop_assert_eq!(quarantined, reference.quarantined);
    }
}

#[test]
fn numbers_go_on_after_an_empty_queue_and_a_restart() {
    let (home, store, outbox) = new();
    assert_eq!(append(&store, &outbox, &draft(EventKind::Result, 1)), 1);
    outbox.acknowledge(EventKind::Result, 1).expect("written");
    assert!(outbox.is_empty().expect("readable"));
    drop((store, outbox));
    let (store, outbox) = opened(home.path());
    assert_eq!(append(&store, &outbox, &draft(EventKind::Error, 2)), 2);
}

#[test]
fn a_kind_is_read_in_order_past_its_head() {
    let (_home, store, outbox) = new();
    for n in 0..6 {
        let kind = if n % 3 == 1 { EventKind::Error } else { EventKind::Result };
        append(&store, &outbox, &draft(kind, n));
    }
    let mut found = Vec::new();
    while let Some(head) = outbox.after(EventKind::Result, found.last().copied().unwrap_or(0)).expect("readable") {
        found.push(head.sequence);
    }
    assert_eq!(found, [1, 3, 4, 6]);
}

#[test]
fn a_refusal_takes_the_number_and_the_event_goes_to_the_quarantine() {
    let (_home, store, outbox) = new();
    for n in 0..2 {
        append(&store, &outbox, &draft(EventKind::Result, n));
    }
    outbox.refuse(EventKind::Result, 1, "too large for the broker", SystemTime::UNIX_EPOCH).expect("written");
    let error = outbox.head(EventKind::Error).expect("readable").expect("queued");
    assert_eq!(error.sequence, 1);
    let text = String::from_utf8(error.draft.publish(1, outbox.epoch(), false)).expect("JSON");
    assert!(text.contains("too large for the broker") && text.contains(r#""image_sha256":"0""#), "{text}");
    assert_eq!(outbox.head(EventKind::Result).expect("readable").expect("queued").sequence, 2);
    assert_eq!(outbox.quarantined().expect("readable"), [(1, "too large for the broker".to_owned())]);
}

#[test]
fn a_record_of_an_unknown_format_is_not_skipped() {
    let (_home, store, outbox) = new();
    append(&store, &outbox, &draft(EventKind::Result, 0));
    let tx = store.database().begin_write().expect("open");
    let events: redb::TableDefinition<(u8, u64), &[u8]> = redb::TableDefinition::new("outbox.events");
    tx.open_table(events).expect("there").insert((0, 1), [9u8, 9, 9].as_slice()).expect("writable");
    tx.commit().expect("written");
    let error = outbox.head(EventKind::Result).expect_err("unknown");
    assert!(matches!(error, OutboxError::Format { sequence: 1, found: Some(9), .. }), "{error}");
    assert_eq!(error.disposition(), crate::disposition::Disposition::Fatal);
}

#[tokio::test]
async fn a_wake_before_the_wait_is_not_lost() {
    let (_home, _store, outbox) = new();
    outbox.wake();
    outbox.appended().await;
}
