//! The database's file, whose every answer from the disk the watchdog waits for, and which a full disk never reaches.

use std::io;
use std::ops::Bound;

use redb::{BackendError, StorageBackend};

use super::room::DiskRoom;
use crate::pulse::Pulse;

/// A file with a pulse: a disk that does not answer to a read, a write or a flush makes it late (R35).
///
/// A write for which there is no room waits for it (R41), because redb takes no more calls after an error. A flush does
/// not: what the system could not write it may have forgotten, so to flush again would be to pretend.
#[derive(Debug)]
pub(super) struct PulsedBackend<F> {
    file: F,
    pulse: Pulse,
    room: DiskRoom,
}

impl<F: StorageBackend> PulsedBackend<F> {
    pub(super) const fn new(file: F, pulse: Pulse, room: DiskRoom) -> Self {
        Self { file, pulse, room }
    }
}

impl<F: StorageBackend> StorageBackend for PulsedBackend<F> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let _busy = self.pulse.busy();
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room.wait_for(|| {
            let _busy = self.pulse.busy();
            self.file.set_len(len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let _busy = self.pulse.busy();
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room.wait_for(|| {
            let _busy = self.pulse.busy();
            self.file.write(offset, data)
        })
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // Locks are no work: they say at once whether the file is free, or wait for another process.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use redb::{Database, TableDefinition};

    use super::*;

    /// A disk that looks at the pulse while it is asked.
    #[derive(Debug)]
    struct Observer {
        memory: redb::backends::InMemoryBackend,
        pulse: Pulse,
    }

    impl Observer {
        fn busy(&self) {
            let much_later = Instant::now() + Duration::from_secs(3600);
            assert!(self.pulse.late(Duration::from_secs(60), much_later).is_some(), "a hang here would not be seen");
        }
    }

    impl StorageBackend for Observer {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.busy();
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.busy();
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.busy();
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.busy();
            self.memory.write(offset, data)
        }
    }

    #[test]
    fn the_pulse_is_busy_while_the_disk_is_asked_and_idle_after() {
        let pulse = Pulse::new("the state directory");
        let disk = Observer { memory: redb::backends::InMemoryBackend::new(), pulse: pulse.clone() };
        let backend = PulsedBackend::new(disk, pulse.clone(), DiskRoom::impatient());
        let database = Database::builder().create_with_backend(backend).expect("memory is there");
        let tx = database.begin_write().expect("writable");
        let table: TableDefinition<&str, u64> = TableDefinition::new("t");
        tx.open_table(table).expect("writable").insert("n", 1).expect("writable");
        tx.commit().expect("writable");
        assert_eq!(pulse.late(Duration::ZERO, Instant::now() + Duration::from_secs(3600)), None);
    }

    /// A disk that is full for each third write.
    #[derive(Debug, Default)]
    struct FullNowAndThen {
        memory: redb::backends::InMemoryBackend,
        writes: AtomicU32,
    }

    impl FullNowAndThen {
        fn full(&self) -> io::Result<()> {
            let refuse = self.writes.fetch_add(1, Ordering::Relaxed) % 3 == 1;
            if refuse { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for FullNowAndThen {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.full()?;
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.full()?;
            self.memory.write(offset, data)
        }
    }

    #[test]
    fn the_database_never_meets_a_full_disk() {
        let table: TableDefinition<u64, u64> = TableDefinition::new("t");
        let state = tempfile::tempdir().expect("a temporary folder");
        let room = DiskRoom::patient(state.path());
        let backend = PulsedBackend::new(FullNowAndThen::default(), Pulse::new("the state"), room.clone());
        let database = Database::builder().create_with_backend(backend).expect("it waits");
        let tx = database.begin_write().expect("writable");
        tx.open_table(table).expect("writable").insert(1, 1).expect("writable");
        tx.commit().expect("it waits");
        room.give_up();
        let refused = (0..3).any(|n| {
            let write = || -> Result<(), redb::Error> {
                let tx = database.begin_write()?;
                tx.open_table(table)?.insert(n, n)?;
                Ok(tx.commit()?)
            };
            write().is_err()
        });
        assert!(refused, "a stop does not wait");
    }
}
