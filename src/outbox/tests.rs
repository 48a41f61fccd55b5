//! The invariants of the module's page, by number.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::report::{Draft, EventId, EventKind};
use crate::store::Store;

fn draft(kind: EventKind, n: u32) -> Draft {
    let id = EventId::of_result(&n.to_string(), "model", "config");
    let body = format!(r#"{{"source":"/xr/v1/s/d","data":{{"image":{{"sha256":"{n}"}}}}}}"#).into_bytes();
    Draft { kind, id, acquired: SystemTime::UNIX_EPOCH, body }
}

fn opened(directory: &Path) -> (Store, Outbox) {
    let store = Store::open(directory, None).expect("usable");
    let outbox = Outbox::open(&store).expect("usable");
    (store, outbox)
}

fn append(store: &Store, outbox: &Outbox, draft: &Draft) -> u64 {
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

fn new() -> (TempDir, Store, Outbox) {
    let home = tempfile::tempdir().expect("a directory");
    let (store, outbox) = opened(home.path());
    (home, store, outbox)
}

/// The device after a power cut: what is in the file now and nothing that is only in the process.
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
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..40)
}

/// The queue as it would be without a disk.
#[derive(Default)]
struct Reference {
    next: u64,
    queued: BTreeMap<u64, (EventKind, EventId)>,
    quarantined: Vec<u64>,
    /// What left the queue and may come back through a crash.
    unsaved: BTreeMap<u64, (EventKind, EventId)>,
}

impl Reference {
    fn append(&mut self, draft: &Draft) -> u64 {
        self.unsaved.clear();
        self.next += 1;
        self.queued.insert(self.next, (draft.kind, draft.id));
        self.next
    }

    fn acknowledge(&mut self, kind: EventKind, sequence: u64) {
        if self.queued.get(&sequence).is_some_and(|(k, _)| *k == kind)
            && let Some(event) = self.queued.remove(&sequence)
        {
            self.unsaved.insert(sequence, event);
            if self.queued.is_empty() {
                self.unsaved.clear();
            }
        }
    }

    /// Takes back what a crash brought back, if it was allowed to.
    fn adopt(&mut self, found: &BTreeMap<u64, (EventKind, EventId)>) -> bool {
        let lost = self.queued.iter().any(|event| !found.contains_key(event.0));
        let back: Vec<_> = found.iter().filter(|(sequence, _)| !self.queued.contains_key(sequence)).collect();
        let allowed = back.len() < 8 && back.iter().all(|(sequence, event)| self.unsaved.get(sequence) == Some(event));
        self.queued = found.clone();
        self.unsaved.clear();
        allowed && !lost
    }

    fn head(&self, kind: EventKind) -> Option<(u64, EventId)> {
        self.queued.iter().find(|(_, (k, _))| *k == kind).map(|(&sequence, &(_, id))| (sequence, id))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

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
                Step::Restart => {
                    outbox.save().expect("written");
                    reference.unsaved.clear();
                    drop((store, outbox));
                    (store, outbox) = opened(home.path());
                }
            }
            prop_assert_eq!(outbox.len().expect("readable"), reference.queued.len() as u64);
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
