//! The database's file, whose every answer from the disk the watchdog waits for.

use std::io;
use std::ops::Bound;

use redb::{BackendError, StorageBackend};

use crate::pulse::Pulse;

/// A file with a pulse: a disk that does not answer to a read, a write or a flush makes it late (R35).
#[derive(Debug)]
pub(super) struct PulsedBackend<F> {
    file: F,
    pulse: Pulse,
}

impl<F: StorageBackend> PulsedBackend<F> {
    pub(super) const fn new(file: F, pulse: Pulse) -> Self {
        Self { file, pulse }
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
        let _busy = self.pulse.busy();
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let _busy = self.pulse.busy();
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let _busy = self.pulse.busy();
        self.file.write(offset, data)
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
        let backend = PulsedBackend::new(disk, pulse.clone());
        let database = Database::builder().create_with_backend(backend).expect("memory is there");
        let tx = database.begin_write().expect("writable");
        let table: TableDefinition<&str, u64> = TableDefinition::new("t");
        tx.open_table(table).expect("writable").insert("n", 1).expect("writable");
        tx.commit().expect("writable");
        assert_eq!(pulse.late(Duration::ZERO, Instant::now() + Duration::from_secs(3600)), None);
    }
}
