//! The attempt that could not be withdrawn: kept where a full disk has room for it.
//!
//! A film whose result could not be written has an attempt on record that is not its fault. While the disk is full the
//! ledger cannot take it back, and the store may not answer again until it is opened anew: after a few restarts a good
//! film would be put away for nothing. So its identity goes into a file whose blocks are there already, and the next
//! start takes the attempt back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use super::identity::FilmId;
use super::ledger::{Ledger, LedgerError};

const FILE: &str = "withdrawn";
/// One block of most file systems; what is used of it is a mark and an identity.
const BYTES: usize = 4096;
const NONE: u8 = 0;
const NOTED: u8 = 1;
/// The mark and the SHA-256.
const USED: usize = 33;

/// The file of a state directory, open for as long as the daemon runs.
#[derive(Debug)]
pub struct Withdrawn {
    file: File,
}

impl Withdrawn {
    /// Opens the file below `state`, or makes it with all its blocks.
    ///
    /// # Errors
    /// When there is no room even for that.
    pub fn open(state: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.join(FILE))?;
        if file.metadata()?.len() < BYTES as u64 {
            // Written, not only allocated: to write over it needs no more room on the file systems that write in place.
            file.write_all_at(&[NONE; BYTES], 0)?;
            file.sync_all()?;
        }
        Ok(Self { file })
    }

    /// Notes that an attempt of this film does not count; durable when it returns.
    ///
    /// There is room for one film. No second one comes: a store that cannot take an attempt back counts none either.
    ///
    /// # Errors
    /// When the disk refuses even this.
    pub fn note(&self, film: FilmId) -> io::Result<()> {
        let mut bytes = [NOTED; USED];
        bytes[1..].copy_from_slice(&film.0);
        self.file.write_all_at(&bytes, 0)?;
        self.file.sync_data()
    }

    /// Takes back in `ledger` what was noted by an earlier run.
    ///
    /// # Errors
    /// When the ledger cannot be written; the note stays.
    pub fn settle(&self, ledger: &Ledger, now: SystemTime) -> Result<Option<FilmId>, LedgerError> {
        let mut bytes = [NONE; USED];
        if self.file.read_exact_at(&mut bytes, 0).is_err() || bytes[0] != NOTED {
            return Ok(None);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[1..]);
        let film = FilmId(digest);
        // A crash between the two gives the film one attempt more than it had, and loses nothing.
        ledger.withdraw_attempt(film, now)?;
        let cleared = self.file.write_all_at(&[NONE; USED], 0).and_then(|()| self.file.sync_data());
        cleared.map_err(redb::Error::Io)?;
        Ok(Some(film))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redb::Database;

    use super::*;

    #[test]
    fn what_was_noted_is_taken_back_once_by_the_next_run() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend).expect("memory is there");
        let ledger = Ledger::open(Arc::new(database)).expect("a store");
        let (film, now) = (FilmId::of(b"film"), SystemTime::now());
        for expected in [1, 2] {
            assert_eq!(ledger.begin_attempt(film, now).expect("writable"), expected);
        }
        let withdrawn = Withdrawn::open(state.path()).expect("writable");
        assert_eq!(withdrawn.settle(&ledger, now).expect("readable"), None);
        withdrawn.note(film).expect("writable");
        withdrawn.note(film).expect("writable");
        drop(withdrawn);

        let withdrawn = Withdrawn::open(state.path()).expect("writable");
        assert_eq!(withdrawn.settle(&ledger, now).expect("writable"), Some(film));
        assert_eq!(withdrawn.settle(&ledger, now).expect("readable"), None);
        let record = ledger.snapshot().expect("readable").film(film).expect("readable").expect("begun");
        assert_eq!(record.attempts, 1);
        assert_eq!(std::fs::metadata(state.path().join(FILE)).expect("there").len(), BYTES as u64);
    }
}
