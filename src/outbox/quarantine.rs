//! The events that could not travel, for a person to look at and to send once more.

use redb::ReadableDatabase;
use serde::Deserialize;

use super::queue::QUARANTINE;
use super::{Outbox, OutboxError, record};
use crate::crash_point;
use crate::report::{Draft, EventKind};

/// What an event's own text says of its kind: the quarantine has one key for both.
#[derive(Deserialize)]
struct Known {
    #[serde(rename = "type")]
    kind: EventKind,
}

fn decode(sequence: u64, bytes: &[u8]) -> Result<Draft, OutboxError> {
    let draft = record::decode(EventKind::Result, sequence, bytes)?;
    let known: Known =
        serde_json::from_slice(&draft.body).map_err(|e| OutboxError::Content { sequence, source: e.into() })?;
    Ok(Draft { kind: known.kind, ..draft })
}

impl Outbox {
    /// The event in quarantine that had this number, and why it is there.
    ///
    /// # Errors
    /// When the database fails or the record does not read.
    pub fn quarantined_event(&self, sequence: u64) -> Result<Option<(String, Draft)>, OutboxError> {
        let quarantine = self.database.begin_read()?.open_table(QUARANTINE)?;
        let Some(entry) = quarantine.get(sequence)? else { return Ok(None) };
        let (reason, bytes) = entry.value();
        Ok(Some((reason.to_owned(), decode(sequence, bytes)?)))
    }

    /// Queues an event of the quarantine once more and yields its new number: the old one is its refusal's, and a
    /// number never changes its meaning. `None` where there is no such event.
    ///
    /// Its id stays the same; it leaves the quarantine in the same transaction.
    ///
    /// # Errors
    /// When the database fails or the record does not read; the event is then still in quarantine.
    pub fn retry(&self, sequence: u64) -> Result<Option<u64>, OutboxError> {
        let tx = self.database.begin_write()?;
        let taken = {
            let mut quarantine = tx.open_table(QUARANTINE)?;
            let entry = quarantine.remove(sequence)?;
            entry.map(|entry| decode(sequence, entry.value().1)).transpose()
        };
        // An error or an empty hand aborts the transaction by dropping it.
        let Some(draft) = taken? else { return Ok(None) };
        let number = self.append(&tx, &draft)?;
        crash_point::step("outbox.retried", || tx.commit())?;
        self.wake();
        Ok(Some(number))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use redb::Database;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::report::{EventId, FilmError, Origin, Stage, Topics};

    fn outbox() -> Outbox {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).expect("memory is there");
        Outbox::new(Arc::new(database), "e".to_owned()).expect("new")
    }

    fn append(outbox: &Outbox, name: &str) -> (u64, Draft) {
        let origin = Origin::new(&Topics::new("clinic", "ceph-1").expect("levels"));
        let data = FilmError { image_sha256: None, stage: Stage::Read, message: "cut".to_owned(), attempts: 0 };
        let acquired = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let draft = origin.error(EventId::of_error(name, "m", "c"), &data, acquired, acquired).expect("small");
        let tx = outbox.database.begin_write().expect("writable");
        let sequence = outbox.append(&tx, &draft).expect("writable");
        tx.commit().expect("writable");
        (sequence, draft)
    }

    #[test]
    fn an_event_is_sent_once_more_under_a_new_number_and_the_same_id() {
        let outbox = outbox();
        let (first, draft) = append(&outbox, "a");
        outbox.refuse(draft.kind, first, "too large", SystemTime::now()).expect("writable");
        let (reason, kept) = outbox.quarantined_event(first).expect("readable").expect("there");
        assert_eq!((reason.as_str(), &kept), ("too large", &draft));

        assert_eq!(outbox.retry(first).expect("writable"), Some(2));
        assert_eq!(outbox.quarantined().expect("readable"), []);
        assert_eq!(outbox.quarantined_event(first).expect("readable"), None);
        // The refusal keeps the old number and goes first.
        let refusal = outbox.head(EventKind::Error).expect("readable").expect("queued");
        assert_eq!((refusal.sequence, refusal.draft.id), (1, draft.id.refused()));
        let again = outbox.after(EventKind::Error, 1).expect("readable").expect("queued");
        assert_eq!((again.sequence, again.draft), (2, draft));

        assert_eq!(outbox.retry(first).expect("writable"), None, "it is there no more");
        assert_eq!(append(&outbox, "b").0, 3, "nothing was counted for nothing");
    }
}
