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

/// 6 KiB that deflate to less than half, as an event does.
fn text(n: u32, film: u32) -> Vec<u8> {
    let line = |i: u32| EventId::of_result(&format!("{n} {film} {i}"), "m", "c").to_string();
    let mut text: String = (0..)
        .map(line)
        .scan(0, |length, line| {
            *length += line.len();
            (*length < 7 * 1024).then_some(line)
        })
        .collect();
    text.truncate(6 * 1024);
    text.into_bytes()
}

/// The mean bytes written for one append and for one acknowledgement of 6 KiB events, when the broker is away for
/// `outage` exposures at a time.
fn cost(outage: u32) -> (u64, u64) {
    const OUTAGES: u32 = 3;
    let written = Arc::new(AtomicU64::new(0));
    let backend = Counting { inner: InMemoryBackend::new(), written: Arc::clone(&written) };
    let database = Arc::new(Database::builder().create_with_backend(backend).expect("memory"));
    let outbox = Outbox::new(Arc::clone(&database), "e".to_owned()).expect("usable");
    let (mut appended, mut acknowledged) = (0, 0);
    for n in 0..OUTAGES {
        let start = written.load(Ordering::Relaxed);
        for film in 0..outage {
            let id = EventId::of_result(&format!("{n} {film}"), "m", "c");
            let acquired = std::time::SystemTime::UNIX_EPOCH;
            let draft = Draft { kind: EventKind::Result, id, acquired, body: text(n, film) };
            let tx = database.begin_write().expect("open");
            outbox.append(&tx, &draft).expect("appended");
            tx.commit().expect("written");
        }
        let back = written.load(Ordering::Relaxed);
        while let Some(head) = outbox.head(EventKind::Result).expect("readable") {
            outbox.acknowledge(EventKind::Result, head.sequence).expect("written");
        }
        appended += back - start;
        acknowledged += written.load(Ordering::Relaxed) - back;
    }
    let exposures = u64::from(OUTAGES * outage);
    (appended / exposures, acknowledged / exposures)
}

/// Of the 64 KiB an exposure may write, the ledger takes about 20: one small commit, and a page of the common one.
#[test]
fn an_exposure_writes_some_45_kib_with_a_broker_and_no_more_through_an_outage() {
    for outage in [1, 20, 500] {
        let (append, acknowledge) = cost(outage);
        println!("{outage} in a row: {append} bytes to append, {acknowledge} to acknowledge");
        assert!(append + acknowledge <= 46 * 1024, "{outage} in a row: {append} + {acknowledge}");
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
