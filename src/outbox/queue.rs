//! The queue's tables and the few ways to change them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use tokio::sync::Notify;

use super::record;
use crate::disposition::Disposition;
use crate::report::{Draft, EventKind, ReportError};
use crate::store::Store;

/// How many events that could not travel are kept for a person to look at.
pub const QUARANTINE_LENGTH: u64 = 1000;

/// How many acknowledgements a crash may undo; their events are then sent again, with the same ids (R42).
const UNSAVED_ACKNOWLEDGEMENTS: u32 = 8;

/// (kind, sequence) to record: the first of each kind is its head.
const EVENTS: TableDefinition<(u8, u64), &[u8]> = TableDefinition::new("outbox.events");
/// `last`: the sequence of the last event that was appended.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("outbox.numbers");
/// Sequence to (reason, record).
pub(super) const QUARANTINE: TableDefinition<u64, (&str, &[u8])> = TableDefinition::new("outbox.quarantine");

/// The queue of events that no broker has acknowledged; its module's page lists what it promises.
///
/// Its methods wait for the disk: call those that write from a thread that may.
#[derive(Debug)]
pub struct Outbox {
    pub(super) database: Arc<Database>,
    epoch: String,
    appended: Notify,
    /// Acknowledgements since the last transaction that is surely on the disk.
    unsaved: AtomicU32,
}

/// The oldest event of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number in the epoch.
    pub sequence: u64,
    /// The event itself.
    pub draft: Draft,
}

/// A queue that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Another version wrote the record.
    #[error(
        "event {sequence} in the outbox has format {found:?}, this version reads {expected}: \
         install the version that wrote it and let it deliver"
    )]
    Format {
        /// Its number.
        sequence: u64,
        /// What this version reads.
        expected: u8,
        /// What it says; `None` of an empty record.
        found: Option<u8>,
    },
    /// The record ends early.
    #[error("event {sequence} in the outbox is cut short: the state file is damaged, restore it from a backup")]
    Cut {
        /// Its number.
        sequence: u64,
    },
    /// The event's text is not that of an event.
    #[error("event {sequence} in the outbox is no event")]
    Content {
        /// Its number.
        sequence: u64,
        /// What is wrong with it.
        #[source]
        source: ReportError,
    },
    /// The disk or the database.
    #[error("the outbox cannot be read or written")]
    Database(#[source] Box<redb::Error>),
}

impl OutboxError {
    /// A full or failing disk may recover (R41); anything else is our state gone wrong.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Database(error) if matches!(**error, redb::Error::Io(_)) => Disposition::Retry,
            _ => Disposition::Fatal,
        }
    }
}

impl<E: Into<redb::Error>> From<E> for OutboxError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

impl Outbox {
    /// The queue kept in `store`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn open(store: &Store) -> Result<Self, OutboxError> {
        Self::new(Arc::clone(store.database()), store.epoch().to_owned())
    }

    /// The queue kept in `database`, whose numbers count within `epoch`; its tables are made if they are missing.
    ///
    /// # Errors
    /// When the database fails.
    pub fn new(database: Arc<Database>, epoch: String) -> Result<Self, OutboxError> {
        let tx = database.begin_write()?;
        tx.open_table(EVENTS)?;
        tx.open_table(NUMBERS)?;
        tx.open_table(QUARANTINE)?;
        tx.commit()?;
        Ok(Self { database, epoch, appended: Notify::new(), unsaved: AtomicU32::new(0) })
    }

    /// The id within which the numbers count.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Queues an event inside the caller's transaction and yields its number; the caller commits, then calls
    /// [`wake`](Self::wake).
    ///
    /// # Errors
    /// When the database fails; the caller must then abort the transaction.
    pub fn append(&self, tx: &WriteTransaction, draft: &Draft) -> Result<u64, OutboxError> {
        let mut numbers = tx.open_table(NUMBERS)?;
        let sequence = numbers.get("last")?.map_or(0, |last| last.value()) + 1;
        numbers.insert("last", sequence)?;
        tx.open_table(EVENTS)?.insert((lane(draft.kind), sequence), record::encode(draft).as_slice())?;
        Ok(sequence)
    }

    /// Tells the publisher that something was appended and committed.
    pub fn wake(&self) {
        self.appended.notify_one();
    }

    /// Waits for the next [`wake`](Self::wake); one that came before the call counts.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// The oldest event of a kind.
    ///
    /// # Errors
    /// When the database fails or the record does not read.
    pub fn head(&self, kind: EventKind) -> Result<Option<Head>, OutboxError> {
        self.after(kind, 0)
    }

    /// The oldest event of a kind whose number is greater than `sequence`.
    ///
    /// # Errors
    /// When the database fails or the record does not read.
    pub fn after(&self, kind: EventKind, sequence: u64) -> Result<Option<Head>, OutboxError> {
        let events = self.database.begin_read()?.open_table(EVENTS)?;
        let lane = lane(kind);
        let Some(first) = events.range((lane, sequence + 1)..=(lane, u64::MAX))?.next() else {
            return Ok(None);
        };
        let (key, bytes) = first?;
        let sequence = key.value().1;
        Ok(Some(Head { sequence, draft: record::decode(kind, sequence, bytes.value())? }))
    }

    /// How many events wait.
    ///
    /// # Errors
    /// When the database fails.
    pub fn len(&self) -> Result<u64, OutboxError> {
        Ok(self.database.begin_read()?.open_table(EVENTS)?.len()?)
    }

    /// Whether no event waits.
    ///
    /// # Errors
    /// When the database fails.
    pub fn is_empty(&self) -> Result<bool, OutboxError> {
        Ok(self.len()? == 0)
    }

    /// Removes an event that somebody has; one that is not there is fine, for it was acknowledged before.
    ///
    /// The acknowledgement that empties the queue is on the disk when this returns, and so is every eighth; the others
    /// follow with the next that is, or with the next [`append`](Self::append) or [`save`](Self::save).
    ///
    /// # Errors
    /// When the database fails; the event is then still queued.
    pub fn acknowledge(&self, kind: EventKind, sequence: u64) -> Result<(), OutboxError> {
        let mut tx = self.database.begin_write()?;
        if take(&tx, kind, sequence)?.is_none() {
            tx.abort()?;
            return Ok(());
        }
        let is_last = tx.open_table(EVENTS)?.is_empty()?;
        let unsaved = self.unsaved.load(Ordering::Relaxed) + 1;
        if is_last || unsaved == UNSAVED_ACKNOWLEDGEMENTS {
            self.unsaved.store(0, Ordering::Relaxed);
        } else {
            tx.set_durability(Durability::None)?;
            self.unsaved.store(unsaved, Ordering::Relaxed);
        }
        tx.commit()?;
        Ok(())
    }

    /// Brings every acknowledgement to the disk.
    ///
    /// # Errors
    /// When the database fails.
    pub fn save(&self) -> Result<(), OutboxError> {
        if self.unsaved.swap(0, Ordering::Relaxed) > 0 {
            self.database.begin_write()?.commit()?;
        }
        Ok(())
    }

    /// Puts a refusal with the same number in the place of an event that cannot travel, and the event in quarantine.
    ///
    /// `reason` goes to both; `now` is when it was decided. An event that is not there is fine.
    ///
    /// # Errors
    /// When the database fails or the event's text is none; the event is then still queued.
    pub fn refuse(&self, kind: EventKind, sequence: u64, reason: &str, now: SystemTime) -> Result<(), OutboxError> {
        let tx = self.database.begin_write()?;
        let Some(draft) = take(&tx, kind, sequence)? else {
            tx.abort()?;
            return Ok(());
        };
        let refusal =
            draft.refuse(reason.to_owned(), now).map_err(|source| OutboxError::Content { sequence, source })?;
        tx.open_table(EVENTS)?.insert((lane(refusal.kind), sequence), record::encode(&refusal).as_slice())?;
        {
            let mut quarantine = tx.open_table(QUARANTINE)?;
            quarantine.insert(sequence, (reason, record::encode(&draft).as_slice()))?;
            while quarantine.len()? > QUARANTINE_LENGTH {
                quarantine.pop_first()?;
            }
        }
        tx.commit()?;
        self.wake();
        Ok(())
    }

    /// The numbers of the events in quarantine and why each is there, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn quarantined(&self) -> Result<Vec<(u64, String)>, OutboxError> {
        let quarantine = self.database.begin_read()?.open_table(QUARANTINE)?;
        let entries = quarantine.iter()?;
        entries
            .map(|entry| entry.map(|(key, value)| (key.value(), value.value().0.to_owned())))
            .map(|e| Ok(e?))
            .collect()
    }
}

/// Removes an event inside `tx`.
fn take(tx: &WriteTransaction, kind: EventKind, sequence: u64) -> Result<Option<Draft>, OutboxError> {
    let mut events = tx.open_table(EVENTS)?;
    let removed = events.remove((lane(kind), sequence))?;
    removed.map(|bytes| record::decode(kind, sequence, bytes.value())).transpose()
}

/// The stored form of a kind.
const fn lane(kind: EventKind) -> u8 {
    match kind {
        EventKind::Result => 0,
        EventKind::Error => 1,
    }
}
