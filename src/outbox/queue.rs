//! The queue's tables and the few ways to change them.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};
use tokio::sync::Notify;

use super::archive::DAYS;
use super::record;
use crate::crash_point;
use crate::disposition::Disposition;
use crate::report::{Draft, EventKind, ReportError};
use crate::store::Store;

/// How many events that could not travel are kept for a person to look at.
pub const QUARANTINE_LENGTH: u64 = 1000;

/// How many acknowledgements a crash may undo; their events are then sent again, with the same ids (R42).
const UNSAVED_ACKNOWLEDGEMENTS: u64 = 8;

/// (lane, sequence) to record.
pub(super) const EVENTS: TableDefinition<(u8, u64), &[u8]> = TableDefinition::new("outbox.events");
/// `last`, the sequence of the last event that was appended; the [`Lane`]s' pointers; the archive's size. One that is
/// missing is 0, so a file of a version without an archive is one whose archive is empty.
pub(super) const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("outbox.numbers");
type Events = ReadOnlyTable<(u8, u64), &'static [u8]>;

/// Sequence to (reason, record).
pub(super) const QUARANTINE: TableDefinition<u64, (&str, &[u8])> = TableDefinition::new("outbox.quarantine");

const POINTERS: [&str; 3] = ["delivered.results", "delivered.errors", "delivered.refusals"];
/// How many events were delivered and how many of these were removed from the archive, and the bytes of their records.
const DELIVERED_EVENTS: &str = "delivered.events";
const DELIVERED_BYTES: &str = "delivered.bytes";
pub(super) const PRUNED_EVENTS: &str = "pruned.events";
pub(super) const PRUNED_BYTES: &str = "pruned.bytes";

/// The queue of events that no broker has acknowledged, and the archive of those that one has; its module's page lists
/// what it promises.
///
/// Its methods wait for the disk: call those that write from a thread that may.
#[derive(Debug)]
pub struct Outbox {
    pub(super) database: Arc<Database>,
    epoch: String,
    appended: Notify,
    delivered: Mutex<Delivered>,
}

/// How far delivery has come. The disk hears of it with the next transaction, whatever that is about: a transaction for
/// each acknowledgement would cost a third of what an exposure may write (R42).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    /// The highest number delivered, of results, errors and refusals.
    pub(super) pointers: [u64; 3],
    /// How many events there were, and the bytes of their records.
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Of the events, those that are so on the disk, and those that are in the transaction of the last append.
    saved: u64,
    appended: u64,
}

/// An event and its number.
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
        let delivered = Delivered::read(&tx.open_table(NUMBERS)?)?;
        tx.open_table(QUARANTINE)?;
        tx.open_table(DAYS)?;
        crash_point::step("outbox.open", || tx.commit())?;
        Ok(Self { database, epoch, appended: Notify::new(), delivered: Mutex::new(delivered) })
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
        // Saved once the caller has committed, which it says through `wake`.
        let delivered = self.write_delivered(&mut numbers)?;
        self.delivered().appended = delivered;
        tx.open_table(EVENTS)?.insert((Lane::of(draft.kind) as u8, sequence), record::encode(draft).as_slice())?;
        Ok(sequence)
    }

    /// Tells the publisher that something was appended and committed.
    pub fn wake(&self) {
        {
            let mut delivered = self.delivered();
            delivered.saved = delivered.saved.max(delivered.appended);
        }
        self.appended.notify_one();
    }

    /// Waits for the next [`wake`](Self::wake); one that came before the call counts.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// The oldest event of a kind that waits.
    ///
    /// # Errors
    /// When the database fails or the record does not read.
    pub fn head(&self, kind: EventKind) -> Result<Option<Head>, OutboxError> {
        self.after(kind, 0)
    }

    /// The oldest event of a kind that waits and whose number is greater than `sequence`.
    ///
    /// # Errors
    /// When the database fails or the record does not read.
    pub fn after(&self, kind: EventKind, sequence: u64) -> Result<Option<Head>, OutboxError> {
        let events = self.database.begin_read()?.open_table(EVENTS)?;
        let Some((lane, sequence)) = self.first(&events, kind, sequence)? else { return Ok(None) };
        let Some(record) = events.get((lane as u8, sequence))? else { return Ok(None) };
        Ok(Some(Head { sequence, draft: record::decode(kind, sequence, record.value())? }))
    }

    /// The lowest number of a kind that waits and is greater than `above`, and the lane it waits in.
    fn first(&self, events: &Events, kind: EventKind, above: u64) -> Result<Option<(Lane, u64)>, OutboxError> {
        let delivered = *self.delivered();
        let mut first: Option<(Lane, u64)> = None;
        for &lane in Lane::waiting(kind) {
            if let Some(row) = events.range(lane.rows(lane.pointer(&delivered).max(above) + 1))?.next() {
                let sequence = row?.0.value().1;
                if first.is_none_or(|(_, first)| sequence < first) {
                    first = Some((lane, sequence));
                }
            }
        }
        Ok(first)
    }

    /// How many events wait.
    ///
    /// # Errors
    /// When the database fails.
    pub fn len(&self) -> Result<u64, OutboxError> {
        // Before the rows: an event that comes and goes meanwhile is then rather counted than subtracted.
        let delivered = self.delivered().events;
        let tx = self.database.begin_read()?;
        let archived = delivered.saturating_sub(number(&tx.open_table(NUMBERS)?, PRUNED_EVENTS)?);
        Ok(tx.open_table(EVENTS)?.len()?.saturating_sub(archived))
    }

    /// Whether no event waits.
    ///
    /// # Errors
    /// When the database fails.
    pub fn is_empty(&self) -> Result<bool, OutboxError> {
        Ok(self.len()? == 0)
    }

    /// Takes the head of a kind from the queue, because somebody has it; the archive keeps it.
    ///
    /// One that waits no longer is fine, for it was acknowledged before. One that is not the head changes nothing: what
    /// waits before it must not be passed over, so it is delivered again.
    ///
    /// Every eighth acknowledgement in a row is on the disk when this returns; the others follow with the next that is,
    /// or with the next [`append`](Self::append) that is committed, or with [`save`](Self::save).
    ///
    /// # Errors
    /// When the database fails; the event then still waits.
    pub fn acknowledge(&self, kind: EventKind, sequence: u64) -> Result<(), OutboxError> {
        let unsaved = {
            let events = self.database.begin_read()?.open_table(EVENTS)?;
            let lane = match self.first(&events, kind, 0)? {
                Some((Lane::Refusals, first)) if first == sequence => return self.deliver_refusal(sequence),
                Some((lane, first)) if first == sequence => lane,
                _ => return Ok(()),
            };
            let Some(record) = events.get((lane as u8, sequence))? else { return Ok(()) };
            let mut delivered = self.delivered();
            delivered.add(lane, sequence, record.value().len());
            delivered.events - delivered.saved
        };
        if unsaved >= UNSAVED_ACKNOWLEDGEMENTS { self.save() } else { Ok(()) }
    }

    /// A refusal that waits moves to the delivered ones, at once on the disk.
    fn deliver_refusal(&self, sequence: u64) -> Result<(), OutboxError> {
        let waits = (Lane::Refusals as u8, sequence);
        let tx = self.database.begin_write()?;
        let bytes = {
            let mut events = tx.open_table(EVENTS)?;
            let Some(record) = events.remove(waits)?.map(|record| record.value().to_vec()) else { return Ok(()) };
            events.insert((Lane::DeliveredRefusals as u8, sequence), record.as_slice())?;
            record.len()
        };
        let before = *self.delivered();
        self.delivered().add(Lane::DeliveredRefusals, sequence, bytes);
        // Between the two another acknowledgement may come; it is then on the disk before it is needed there.
        let committed = self.commit(tx, "outbox.acknowledged");
        if committed.is_err() {
            let mut delivered = self.delivered();
            delivered.events -= 1;
            delivered.bytes -= bytes as u64;
            delivered.pointers[2] = before.pointers[2];
        }
        committed
    }

    /// Brings every acknowledgement to the disk.
    ///
    /// # Errors
    /// When the database fails.
    pub fn save(&self) -> Result<(), OutboxError> {
        let Delivered { events, saved, .. } = *self.delivered();
        if events == saved { Ok(()) } else { self.commit(self.database.begin_write()?, "outbox.saved") }
    }

    /// How far delivery has come, to look at or to change.
    pub(super) fn delivered(&self) -> MutexGuard<'_, Delivered> {
        // Nothing panics half-way through a change.
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits, as the step of this name, and with it how far delivery has come.
    pub(super) fn commit(&self, tx: WriteTransaction, step: &'static str) -> Result<(), OutboxError> {
        let written = self.write_delivered(&mut tx.open_table(NUMBERS)?)?;
        crash_point::step(step, || tx.commit())?;
        let mut delivered = self.delivered();
        delivered.saved = delivered.saved.max(written);
        Ok(())
    }

    /// How many delivered events are in the transaction then.
    fn write_delivered(&self, numbers: &mut Table<'_, &'static str, u64>) -> Result<u64, OutboxError> {
        let delivered = *self.delivered();
        for (name, pointer) in POINTERS.into_iter().zip(delivered.pointers) {
            numbers.insert(name, pointer)?;
        }
        numbers.insert(DELIVERED_EVENTS, delivered.events)?;
        numbers.insert(DELIVERED_BYTES, delivered.bytes)?;
        Ok(delivered.events)
    }

    /// Puts a refusal with the same number in the place of an event that cannot travel, and the event in quarantine.
    ///
    /// `reason` goes to both; `now` is when it was decided. An event that does not wait is fine.
    ///
    /// # Errors
    /// When the database fails or the event's text is none; the event then still waits.
    pub fn refuse(&self, kind: EventKind, sequence: u64, reason: &str, now: SystemTime) -> Result<(), OutboxError> {
        let tx = self.database.begin_write()?;
        let delivered = *self.delivered();
        let Some(draft) = take(&tx, &delivered, kind, sequence)? else {
            tx.abort()?;
            return Ok(());
        };
        let refusal =
            draft.refuse(reason.to_owned(), now).map_err(|source| OutboxError::Content { sequence, source })?;
        tx.open_table(EVENTS)?.insert((Lane::Refusals as u8, sequence), record::encode(&refusal).as_slice())?;
        {
            let mut quarantine = tx.open_table(QUARANTINE)?;
            quarantine.insert(sequence, (reason, record::encode(&draft).as_slice()))?;
            while quarantine.len()? > QUARANTINE_LENGTH {
                quarantine.pop_first()?;
            }
        }
        self.commit(tx, "outbox.refused")?;
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

impl Delivered {
    fn read(numbers: &impl ReadableTable<&'static str, u64>) -> Result<Self, OutboxError> {
        let [results, errors, refusals] = POINTERS.map(|name| number(numbers, name));
        let (events, bytes) = (number(numbers, DELIVERED_EVENTS)?, number(numbers, DELIVERED_BYTES)?);
        Ok(Self { pointers: [results?, errors?, refusals?], events, bytes, saved: events, appended: events })
    }

    fn add(&mut self, lane: Lane, sequence: u64, bytes: usize) {
        let pointer = &mut self.pointers[lane.index()];
        *pointer = sequence.max(*pointer);
        self.events += 1;
        self.bytes += bytes as u64;
    }
}

/// Removes an event that waits inside `tx`.
fn take(
    tx: &WriteTransaction,
    delivered: &Delivered,
    kind: EventKind,
    sequence: u64,
) -> Result<Option<Draft>, OutboxError> {
    let mut events = tx.open_table(EVENTS)?;
    for &lane in Lane::waiting(kind) {
        if sequence > lane.pointer(delivered)
            && let Some(record) = events.remove((lane as u8, sequence))?
        {
            return Ok(Some(record::decode(kind, sequence, record.value())?));
        }
    }
    Ok(None)
}

/// One of [`NUMBERS`].
pub(super) fn number(numbers: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, OutboxError> {
    Ok(numbers.get(name)?.map_or(0, |number| number.value()))
}

/// A part of [`EVENTS`], in the order of its numbers.
///
/// Results and errors stay where they are when they are delivered: the lane's pointer, the number of the last that was,
/// moves past them. A refusal takes its number from a result, which may lie below the errors' pointer, so refusals have
/// lanes of their own and move from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Lane {
    Results = 0,
    Errors = 1,
    Refusals = 2,
    DeliveredRefusals = 3,
}

impl Lane {
    /// Those that hold delivered events.
    pub(super) const ARCHIVE: [Self; 3] = [Self::Results, Self::Errors, Self::DeliveredRefusals];

    const fn of(kind: EventKind) -> Self {
        match kind {
            EventKind::Result => Self::Results,
            EventKind::Error => Self::Errors,
        }
    }

    /// Those in which events of a kind wait.
    const fn waiting(kind: EventKind) -> &'static [Self] {
        match kind {
            EventKind::Result => &[Self::Results],
            EventKind::Error => &[Self::Refusals, Self::Errors],
        }
    }

    pub(super) const fn kind(self) -> EventKind {
        match self {
            Self::Results => EventKind::Result,
            Self::Errors | Self::Refusals | Self::DeliveredRefusals => EventKind::Error,
        }
    }

    /// Of its pointer.
    const fn index(self) -> usize {
        match self {
            Self::Results => 0,
            Self::Errors => 1,
            Self::Refusals | Self::DeliveredRefusals => 2,
        }
    }

    /// The highest number of the lane that was delivered; of refusals that wait, 0. Of those that do not it says only how
    /// far they have come, for their age.
    pub(super) const fn pointer(self, delivered: &Delivered) -> u64 {
        match self {
            Self::Refusals => 0,
            _ => delivered.pointers[self.index()],
        }
    }

    /// The lane's rows from a number on.
    pub(super) fn rows(self, from: u64) -> RangeInclusive<(u8, u64)> {
        (self as u8, from)..=(self as u8, u64::MAX)
    }
}
