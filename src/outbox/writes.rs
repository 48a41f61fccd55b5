//! How much the queue writes (R42), counted where redb hands bytes to the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

use super::*;
use crate::report::{Draft, EventId, EventKind};

#[derive(Debug)]
struct Counting {
    inner: InMemoryBackend,
    written: Arc<AtomicU64>,
}

impl StorageBackend for Counting {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.inner.write(offset, data)
    }
}

/// The mean bytes written for one append and for one acknowledgement, with `waiting` events of 6 KiB in the queue.
fn cost(waiting: u32) -> (u64, u64) {
    const EXPOSURES: u64 = 50;
    let written = Arc::new(AtomicU64::new(0));
    let backend = Counting { inner: InMemoryBackend::new(), written: Arc::clone(&written) };
    let database = Arc::new(Database::builder().create_with_backend(backend).expect("memory"));
    let outbox = Outbox::new(Arc::clone(&database), "e".to_owned()).expect("usable");
    let append = |n: u32| {
        let id = EventId::of_result(&n.to_string(), "m", "c");
        let acquired = std::time::SystemTime::UNIX_EPOCH;
        let draft = Draft { kind: EventKind::Result, id, acquired, body: vec![b' '; 6 * 1024] };
        let tx = database.begin_write().expect("open");
        outbox.append(&tx, &draft).expect("appended");
        tx.commit().expect("written");
    };
    (0..waiting).for_each(append);
    let (mut appended, mut acknowledged) = (0, 0);
    for n in 0..EXPOSURES as u32 {
        let before = written.load(Ordering::Relaxed);
        append(waiting + n);
        let between = written.load(Ordering::Relaxed);
        let head = outbox.head(EventKind::Result).expect("readable").expect("queued");
        outbox.acknowledge(EventKind::Result, head.sequence).expect("written");
        appended += between - before;
        acknowledged += written.load(Ordering::Relaxed) - between;
    }
    (appended / EXPOSURES, acknowledged / EXPOSURES)
}

#[test]
fn an_exposure_leaves_room_for_the_ledger_in_its_64_kib() {
    for waiting in [0, 10, 500] {
        let (append, acknowledge) = cost(waiting);
        println!("{waiting} waiting: {append} bytes to append, {acknowledge} to acknowledge");
        assert!(append + acknowledge <= 48 * 1024, "{waiting} waiting: {append} + {acknowledge}");
    }
}

#[test]
fn reading_and_an_acknowledgement_of_nothing_write_nothing() {
    let written = Arc::new(AtomicU64::new(0));
    let backend = Counting { inner: InMemoryBackend::new(), written: Arc::clone(&written) };
    let database = Arc::new(Database::builder().create_with_backend(backend).expect("memory"));
    let outbox = Outbox::new(database, "e".to_owned()).expect("usable");
    let before = written.load(Ordering::Relaxed);
    outbox.head(EventKind::Result).expect("readable");
    outbox.len().expect("readable");
    outbox.acknowledge(EventKind::Result, 1).expect("nothing to do");
    assert_eq!(written.load(Ordering::Relaxed), before);
}
