//! Delivered events, kept for subscribers that ask for them again, and how they grow old.
//!
//! An event's age counts from its delivery, and is known to the day: once a day the lanes' pointers are noted with the
//! time, and what lies at or below such a note is as old as it. Nothing is noted while nothing is delivered.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::queue::{Delivered, EVENTS, Head, Lane, NUMBERS, Outbox, OutboxError, PRUNED_BYTES, PRUNED_EVENTS, number};
use super::record;

/// Seconds since 1970 to the pointers of results, errors and refusals at that time.
pub(super) const DAYS: TableDefinition<u64, (u64, u64, u64)> = TableDefinition::new("outbox.days");

/// Events that are removed in one transaction: a film that is finished meanwhile waits for no longer.
const BATCH: u64 = 64;

const DAY_S: u64 = 24 * 3600;

/// 2020-01-01. A clock before it is not set: such a time makes no note, which would look very old once it is.
const CLOCK_IS_SET_S: u64 = 1_577_836_800;

/// What the archive may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Events delivered longer ago are removed, within two days.
    pub age: Duration,
    /// Of all records together; the oldest are removed beyond it, however young.
    pub bytes: u64,
}

/// The archive's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSize {
    /// Events.
    pub events: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

/// Delivered events of a range of numbers, in the order of their numbers; see [`Outbox::archived`].
#[derive(Debug)]
pub struct Archived<'a> {
    outbox: &'a Outbox,
    /// What is still to be looked at; `None` once all is, or after an error.
    rest: Option<RangeInclusive<u64>>,
}

impl Iterator for Archived<'_> {
    type Item = Result<Head, OutboxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (from, to) = self.rest.take()?.into_inner();
        let found = self.outbox.first_archived(from).transpose()?;
        match found {
            Ok(head) if head.sequence > to => None,
            Ok(head) => {
                self.rest = head.sequence.checked_add(1).filter(|&next| next <= to).map(|next| next..=to);
                Some(Ok(head))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl Outbox {
    /// The delivered events with these numbers, in their order.
    ///
    /// Each is looked up when it is asked for, so the iterator may be kept for as long as it takes: it holds up nothing,
    /// passes over what is removed meanwhile and finds what is delivered meanwhile. Events that still wait are not
    /// among them: they come by themselves. It ends after an error.
    #[must_use]
    pub fn archived(&self, numbers: RangeInclusive<u64>) -> Archived<'_> {
        Archived { outbox: self, rest: Some(numbers).filter(|numbers| !numbers.is_empty()) }
    }

    /// The number of the oldest event in the archive; from it on every event is there, or waits.
    ///
    /// # Errors
    /// When the database fails.
    pub fn oldest(&self) -> Result<Option<u64>, OutboxError> {
        let delivered = *self.delivered();
        let events = self.database.begin_read()?.open_table(EVENTS)?;
        Ok(first_delivered(&events, &delivered, 1)?.map(|(_, sequence)| sequence))
    }

    /// The number of the last event that was appended, 0 before the first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn last(&self) -> Result<u64, OutboxError> {
        number(&self.database.begin_read()?.open_table(NUMBERS)?, "last")
    }

    /// How much the archive holds.
    ///
    /// # Errors
    /// When the database fails.
    pub fn archive_size(&self) -> Result<ArchiveSize, OutboxError> {
        let delivered = *self.delivered();
        let numbers = self.database.begin_read()?.open_table(NUMBERS)?;
        Ok(ArchiveSize {
            events: delivered.events.saturating_sub(number(&numbers, PRUNED_EVENTS)?),
            bytes: delivered.bytes.saturating_sub(number(&numbers, PRUNED_BYTES)?),
        })
    }

    /// Removes the oldest delivered events that are beyond `limits` at `now`, at most 64, and says how many: to be
    /// called again until it says 0, and then at least once a day. Events that wait are never removed.
    ///
    /// Nothing is written when nothing was delivered since the last time and nothing is beyond the limits. A clock that
    /// is not set, or behind an earlier call, removes nothing by age.
    ///
    /// # Errors
    /// When the database fails.
    pub fn prune_archive(&self, now: SystemTime, limits: &ArchiveLimits) -> Result<u64, OutboxError> {
        let due = self.due(now, limits)?;
        if due.note.is_none() && !due.prune {
            return Ok(0);
        }
        let tx = self.database.begin_write()?;
        let delivered = *self.delivered();
        let mut removed = 0;
        {
            let (mut events, mut numbers) = (tx.open_table(EVENTS)?, tx.open_table(NUMBERS)?);
            let mut days = tx.open_table(DAYS)?;
            if let Some((time, pointers)) = due.note {
                days.insert(time, pointers)?;
            }
            if let Some((time, _)) = due.old {
                days.retain_in(..time, |_, _| false)?;
            }
            let mut pruned_bytes = number(&numbers, PRUNED_BYTES)?;
            while removed < BATCH
                && let Some((lane, sequence)) = first_delivered(&events, &delivered, 1)?
                && (delivered.bytes.saturating_sub(pruned_bytes) > limits.bytes || due.is_old(lane, sequence))
                && let Some(record) = events.remove((lane as u8, sequence))?
            {
                pruned_bytes += record.value().len() as u64;
                removed += 1;
            }
            let pruned_events = number(&numbers, PRUNED_EVENTS)? + removed;
            numbers.insert(PRUNED_EVENTS, pruned_events)?;
            numbers.insert(PRUNED_BYTES, pruned_bytes)?;
        }
        self.commit(tx, "outbox.pruned")?;
        Ok(removed)
    }

    fn first_archived(&self, from: u64) -> Result<Option<Head>, OutboxError> {
        let delivered = *self.delivered();
        let events = self.database.begin_read()?.open_table(EVENTS)?;
        let Some((lane, sequence)) = first_delivered(&events, &delivered, from)? else { return Ok(None) };
        let Some(record) = events.get((lane as u8, sequence))? else { return Ok(None) };
        Ok(Some(Head { sequence, draft: record::decode(lane.kind(), sequence, record.value())? }))
    }

    fn due(&self, now: SystemTime, limits: &ArchiveLimits) -> Result<Due, OutboxError> {
        let delivered = *self.delivered();
        let tx = self.database.begin_read()?;
        let (events, days) = (tx.open_table(EVENTS)?, tx.open_table(DAYS)?);
        let pruned_bytes = number(&tx.open_table(NUMBERS)?, PRUNED_BYTES)?;
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let newest = days.last()?.map(|(time, pointers)| (time.value(), pointers.value()));
        let mut due = Due::default();
        if now >= CLOCK_IS_SET_S && newest.is_none_or(|(time, _)| time <= now) {
            let pointers = delivered.pointers.into();
            let (time, noted) = newest.unwrap_or((0, (0, 0, 0)));
            due.note = (pointers != noted && now - time >= DAY_S).then_some((now, pointers));
            let oldest = now.saturating_sub(limits.age.as_secs());
            let old = days.range(..=oldest)?.next_back().transpose()?;
            due.old = old.map(|(time, pointers)| (time.value(), pointers.value()));
        }
        let first = first_delivered(&events, &delivered, 1)?;
        due.prune = delivered.bytes.saturating_sub(pruned_bytes) > limits.bytes && first.is_some()
            || first.is_some_and(|(lane, sequence)| due.is_old(lane, sequence));
        Ok(due)
    }
}

/// What there is to do for the archive.
#[derive(Debug, Default)]
struct Due {
    /// A note to make.
    note: Option<(u64, (u64, u64, u64))>,
    /// The newest note that is old enough.
    old: Option<(u64, (u64, u64, u64))>,
    /// Whether an event is to be removed.
    prune: bool,
}

impl Due {
    const fn is_old(&self, lane: Lane, sequence: u64) -> bool {
        match (self.old, lane) {
            (None, _) => false,
            (Some((_, (results, _, _))), Lane::Results) => sequence <= results,
            (Some((_, (_, errors, _))), Lane::Errors) => sequence <= errors,
            (Some((_, (_, _, refusals))), Lane::Refusals | Lane::DeliveredRefusals) => sequence <= refusals,
        }
    }
}

/// The delivered event with the lowest number from `from` on.
fn first_delivered(
    events: &impl ReadableTable<(u8, u64), &'static [u8]>,
    delivered: &Delivered,
    from: u64,
) -> Result<Option<(Lane, u64)>, OutboxError> {
    let mut oldest: Option<(Lane, u64)> = None;
    for lane in Lane::ARCHIVE {
        let pointer = lane.pointer(delivered);
        if let Some(row) = events.range(lane.rows(from))?.next() {
            let sequence = row?.0.value().1;
            if sequence <= pointer && oldest.is_none_or(|(_, oldest)| sequence < oldest) {
                oldest = Some((lane, sequence));
            }
        }
    }
    Ok(oldest)
}

#[cfg(test)]
mod tests;
