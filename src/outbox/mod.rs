//! The durable queue between inference and the broker (R17, R18, R20, R22, R28).
//!
//! Invariants; every test of this room is about one of them:
//! 1. An event is in the queue, or it is not: what [`Outbox::append`] wrote is there after a crash exactly when the
//!    caller's transaction was committed. The ledger marks the film done in the same transaction.
//! 2. The sequence numbers of one epoch are 1, 2, 3 .. without a gap, over results and errors together, and a number
//!    never changes its film: not by a restart, an empty queue, or a refusal that takes a result's place.
//! 3. An event stops waiting only through [`Outbox::acknowledge`], which the publisher calls after a PUBACK that says
//!    somebody has it, or through [`Outbox::refuse`], which puts a refusal with the same number in its place and keeps
//!    the event in the quarantine. A crash may undo the last few acknowledgements, fewer than eight and none before the
//!    last append, never an append: their events are delivered again with the same ids and numbers.
//! 4. Events of one kind are handed out in the order of their numbers, and only the head can be acknowledged. A refusal
//!    is an error whose number was given out before; it is handed out before the errors above it that wait.
//! 5. What is appended twice is queued twice: that a film is done once is the ledger's promise, kept by marking it in
//!    the transaction of 1. Should both be broken, subscribers still see one event id.
//! 6. A record that this version cannot read stops the daemon; it is never skipped.
//! 7. A delivered event stays in the archive, with its number and id, until [`Outbox::prune_archive`] removes it.
//!    The archive loses its lowest numbers first, and never an event that waits: above the oldest that is left, every
//!    number is in the archive or waits.
//!
//! The queue is not bounded: 2 KiB an event, 200 a day and 30 days without a broker are 12 MiB, and unsent results are
//! never deleted (R41). The archive is bounded by age and by bytes. The quarantine is bounded: it keeps the last
//! [`QUARANTINE_LENGTH`] events.

mod archive;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod quarantine;
mod queue;
mod record;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod writes;

pub use archive::{ArchiveLimits, ArchiveSize, Archived};
pub use queue::{Head, Outbox, OutboxError, QUARANTINE_LENGTH};
#[cfg(feature = "fuzzing")]
pub(crate) use {fuzzing::delivered_four, record::fuzz};
