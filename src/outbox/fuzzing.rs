//! An outbox for the fuzz targets of those who read it.

use std::sync::Arc;
use std::time::SystemTime;

use redb::Database;
use redb::backends::InMemoryBackend;

use super::Outbox;
use crate::report::{Draft, EventId, EventKind};

/// An outbox in memory that has delivered four events.
pub(crate) fn delivered_four() -> Outbox {
    let database = Arc::new(Database::builder().create_with_backend(InMemoryBackend::new()).expect("in memory"));
    let outbox = Outbox::new(Arc::clone(&database), "e".to_owned()).expect("in memory");
    for film in ["a", "b", "c", "d"] {
        let id = EventId::of_result(film, "model", "settings");
        let body = br#"{"data":{}}"#.to_vec();
        let draft = Draft { kind: EventKind::Result, id, acquired: SystemTime::UNIX_EPOCH, body };
        let tx = database.begin_write().expect("in memory");
        let sequence = outbox.append(&tx, &draft).expect("in memory");
        outbox.commit(tx, "film.commit").expect("in memory");
        outbox.acknowledge(EventKind::Result, sequence).expect("in memory");
    }
    outbox
}
