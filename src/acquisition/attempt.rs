//! The attempt under way: a mark on the disk, before anything looks inside a film (R10).
//!
//! Invariants:
//! 1. While a film is worked on, the mark names it: whatever ends the process, the next start knows on which film.
//! 2. An attempt counts when the process ended during it, and only then: [`AttemptMark::settle`] carries it to the
//!    ledger at the next start, once. What the disk refused is no fault of the film, and [`AttemptMark::clear`] says so.
//! 3. The mark needs no room: its block is written once and then over and over. A full disk neither stops it nor costs a
//!    film an attempt (R41). A transaction instead would cost a third of what an exposure may write (R42).
//!
//! A mark that a power cut cut in two is none: its attempt had not begun.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::identity::FilmId;
use super::ledger::{Ledger, LedgerError};
use crate::crash_point;

const FILE: &str = "attempt";
/// One block of most file systems; what is used of it is well within one sector, which a disk writes whole.
const BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"attempt1";
/// Magic, number of the start, film, and the first bytes of their SHA-256.
const USED: usize = 8 + 8 + 32 + 8;

/// The file of a state directory, open for as long as the daemon runs.
#[derive(Debug)]
pub struct AttemptMark {
    file: File,
    /// The number of this start, the same for no other of this state directory.
    boot: u64,
}

impl AttemptMark {
    /// Opens the file below `state`, or makes it with its block; `boot` is the number of this start.
    ///
    /// # Errors
    /// When there is no room even for that.
    pub fn open(state: &Path, boot: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.join(FILE))?;
        if file.metadata()?.len() < BYTES as u64 {
            // Written, not only allocated: to write over it needs no more room on the file systems that write in place.
            file.write_all_at(&[0; BYTES], 0)?;
            crash_point::step("attempt.file", || file.sync_all())?;
        }
        Ok(Self { file, boot })
    }

    /// Marks that this film is now worked on; durable when it returns.
    ///
    /// # Errors
    /// When the disk refuses; the film must not be decoded then.
    pub fn begin(&self, film: FilmId) -> io::Result<()> {
        self.write(&encode(self.boot, film))
    }

    /// Marks that nothing is worked on, for an attempt that ended without the process and without the film's end.
    ///
    /// # Errors
    /// When the disk refuses; the attempt counts if the process ends before the next film is begun.
    pub fn clear(&self) -> io::Result<()> {
        self.write(&[0; USED])
    }

    fn write(&self, bytes: &[u8; USED]) -> io::Result<()> {
        self.file.write_all_at(bytes, 0)?;
        crash_point::step("attempt.marked", || self.file.sync_data())
    }

    /// Counts in `ledger` the attempt that an earlier run ended in, unless its film has ended or it is counted already;
    /// the film, if one was counted.
    ///
    /// # Errors
    /// When the mark cannot be read or the ledger not be written.
    pub fn settle(&self, ledger: &Ledger, now: SystemTime) -> Result<Option<FilmId>, LedgerError> {
        let mut bytes = [0; USED];
        self.file.read_exact_at(&mut bytes, 0).map_err(redb::Error::Io)?;
        let Some((boot, film)) = decode(&bytes) else { return Ok(None) };
        Ok(ledger.count_attempt(film, boot, now)?.then_some(film))
    }
}

fn encode(boot: u64, film: FilmId) -> [u8; USED] {
    let mut bytes = [0; USED];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&boot.to_le_bytes());
    bytes[16..48].copy_from_slice(&film.0);
    let digest = Sha256::digest(&bytes[..48]);
    bytes[48..].copy_from_slice(&digest[..8]);
    bytes
}

fn decode(bytes: &[u8; USED]) -> Option<(u64, FilmId)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (boot, rest) = rest.split_first_chunk::<8>()?;
    let film = FilmId(*rest.first_chunk::<32>()?);
    let boot = u64::from_le_bytes(*boot);
    (encode(boot, film) == *bytes).then_some((boot, film))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redb::Database;

    use super::*;
    use crate::acquisition::{FileIdentity, FilmSource, Outcome};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn ledger() -> (Arc<Database>, Ledger) {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Arc::new(Database::builder().create_with_backend(backend).expect("memory is there"));
        (Arc::clone(&database), Ledger::open(database).expect("a store"))
    }

    fn attempts(ledger: &Ledger, film: FilmId) -> u32 {
        let record = ledger.snapshot().expect("readable").film(film).expect("readable");
        record.map_or(0, |record| record.attempts)
    }

    #[test]
    fn an_attempt_counts_once_when_the_process_ended_in_it() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let (_database, ledger) = ledger();
        let film = FilmId::of(b"film");
        for (boot, expected) in (1..).zip([0, 1, 2, 3]) {
            let mark = AttemptMark::open(state.path(), boot).expect("writable");
            let counted = mark.settle(&ledger, NOW).expect("writable");
            assert_eq!(counted.is_some(), boot > 1, "start {boot}");
            // A crash between the ledger's commit and the next film's mark.
            assert_eq!(mark.settle(&ledger, NOW).expect("writable"), None, "start {boot}");
            assert_eq!(attempts(&ledger, film), expected, "start {boot}");
            mark.begin(film).expect("writable");
            mark.begin(film).expect("writable");
        }
        assert_eq!(std::fs::metadata(state.path().join(FILE)).expect("there").len(), BYTES as u64);
    }

    #[test]
    fn what_ended_or_was_cleared_or_is_cut_does_not_count() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let (database, ledger) = ledger();
        let film = FilmId::of(b"film");
        let reopened = |boot| AttemptMark::open(state.path(), boot).expect("writable");
        assert_eq!(reopened(1).settle(&ledger, NOW).expect("readable"), None, "a new state");

        reopened(1).begin(film).expect("writable");
        reopened(1).clear().expect("writable");
        assert_eq!(reopened(2).settle(&ledger, NOW).expect("readable"), None, "the disk refused the film");

        reopened(2).begin(film).expect("writable");
        let path = state.path().join(FILE);
        let mut bytes = std::fs::read(&path).expect("there");
        bytes[30] ^= 1;
        std::fs::write(&path, bytes).expect("writable");
        assert_eq!(reopened(3).settle(&ledger, NOW).expect("readable"), None, "cut in two");

        let file = FileIdentity { inode: 1, size: 1, mtime_ns: 0, ctime_ns: 0 };
        let source = FilmSource { film, path: "film.png".into(), file };
        reopened(3).begin(film).expect("writable");
        let tx = database.begin_write().expect("open");
        ledger.finish(&tx, &source, Outcome::Done { sequence: 1 }, NOW).expect("writable");
        tx.commit().expect("written");
        assert_eq!(reopened(4).settle(&ledger, NOW).expect("readable"), None, "the film has ended");
        assert_eq!(attempts(&ledger, film), 0);
    }
}
