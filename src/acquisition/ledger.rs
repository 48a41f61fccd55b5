//! What became of each film, durable across crashes (R7, R10).
//!
//! Invariants:
//! 1. An attempt is counted at the start after the one that ended in it, once (`attempt`).
//! 2. A film is finished in the transaction that stores its event, so neither is there without the other.
//! 3. A file is known only while its film is finished: after a crash an unfinished film is met again by the scan.
//! 4. A film still in the folder does not age out: its sightings are renewed, at most once a day and in one batch.
//! 5. That a file is known is on the disk within [`UNSAVED_FILES`] films: it costs three pages of a full table, a fifth
//!    of what an exposure may write (R42). A crash has the last few files read again, and their films found to be known.
//! 6. A film is forgotten, with its files, when it was last sighted longer ago than `remember`.
//!
//! Ages are measured with the system's clock. Where that jumps ahead at start (no battery, no network yet), films in
//! the folder are sighted before anything is forgotten; others may be forgotten early, and would be read again.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use super::identity::{FileIdentity, FilmId, FilmSource};
use crate::crash_point;
use crate::disposition::Disposition;

/// State, attempts, sequence of its event, last sighting in seconds since 1970.
type FilmRow = (u8, u32, Option<u64>, u64);
/// Inode, bytes, mtime and ctime in nanoseconds since 1970, film.
type FileRow = (u64, u64, i64, i64, [u8; 32]);

/// By the film's identity.
const FILMS: TableDefinition<'_, [u8; 32], FilmRow> = TableDefinition::new("acquisition.films.1");
/// By the path below the folder.
const FILES: TableDefinition<'_, &[u8], FileRow> = TableDefinition::new("acquisition.files.1");

/// The kind of file system of watched folders that were a share when they were last looked at, by the folder's path.
const SHARES: TableDefinition<'_, &[u8], &str> = TableDefinition::new("acquisition.shares.1");
/// The last start whose last attempt is counted.
const COUNTED: TableDefinition<'_, (), u64> = TableDefinition::new("acquisition.counted");

/// How many known files a crash may make unknown.
const UNSAVED_FILES: usize = 8;

/// A sighting is renewed when the last one on record is older.
const SIGHTING_AGE: Duration = Duration::from_secs(24 * 3600);

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store says so.
    #[error("the ledger of films: {0}")]
    Store(#[source] Box<redb::Error>),
    /// A record has a state this version does not know.
    #[error("the ledger of films holds state {found}, which this version does not know")]
    UnknownState {
        /// What it holds.
        found: u8,
    },
}

impl LedgerError {
    /// A full or failing disk may recover; anything else is our own fault.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Store(error) if matches!(**error, redb::Error::Io(_)) => Disposition::Retry,
            Self::Store(_) | Self::UnknownState { .. } => Disposition::Fatal,
        }
    }
}

impl<E: Into<redb::Error>> From<E> for LedgerError {
    fn from(error: E) -> Self {
        Self::Store(Box::new(error.into()))
    }
}

/// How a film ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its landmarks are in the outbox.
    Done {
        /// The sequence number of the event.
        sequence: u64,
    },
    /// It was refused unprocessed (incomplete, unreadable, too large), and the refusal is in the outbox.
    Refused {
        /// The sequence number of the event.
        sequence: u64,
    },
    /// It could not be processed; its bytes are in quarantine and the refusal in the outbox.
    Quarantined {
        /// The sequence number of the event.
        sequence: u64,
    },
}

/// Where a film stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilmState {
    /// The daemon ended while it worked on it.
    Attempting,
    /// It ended.
    Ended(Outcome),
}

/// What the ledger holds about a film.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilmRecord {
    /// Where it stands.
    pub state: FilmState,
    /// Attempts in which the daemon ended.
    pub attempts: u32,
    /// When a file with these bytes was last sighted, to the second.
    pub last_seen: SystemTime,
}

impl FilmRecord {
    /// Whether the sighting on record should be renewed.
    #[must_use]
    pub fn is_stale(&self, now: SystemTime) -> bool {
        now.duration_since(self.last_seen).is_ok_and(|age| age >= SIGHTING_AGE)
    }
}

/// The films seen so far, in tables of the daemon's store.
#[derive(Clone, Debug)]
pub struct Ledger {
    database: Arc<Database>,
    unsaved: UnsavedFiles,
}

/// Rows for [`FILES`] by their path, to be read before it.
type UnsavedFiles = Arc<Mutex<BTreeMap<PathBuf, FileRow>>>;

impl Ledger {
    /// The ledger in `database`, made where there is none.
    ///
    /// # Errors
    /// [`LedgerError`] where the store cannot be written.
    pub fn open(database: Arc<Database>) -> Result<Self, LedgerError> {
        let tx = database.begin_write()?;
        tx.open_table(FILMS)?;
        tx.open_table(FILES)?;
        tx.open_table(SHARES)?;
        tx.open_table(COUNTED)?;
        crash_point::step("ledger.open", || tx.commit())?;
        Ok(Self { database, unsaved: UnsavedFiles::default() })
    }

    /// Counts the attempt in which the start `boot` of the daemon ended (R10), once; whether it did. A film that has
    /// ended is not counted.
    ///
    /// # Errors
    /// [`LedgerError`]; the attempt is then not counted.
    pub fn count_attempt(&self, film: FilmId, boot: u64, now: SystemTime) -> Result<bool, LedgerError> {
        let tx = self.database.begin_write()?;
        {
            let (mut films, mut counted) = (tx.open_table(FILMS)?, tx.open_table(COUNTED)?);
            let record = films.get(film.0)?.map_or((ATTEMPTING, 0, None, 0), |record| record.value());
            let (state, attempts, sequence, _) = record;
            if state != ATTEMPTING || counted.get(())?.is_some_and(|last| last.value() >= boot) {
                return Ok(false);
            }
            films.insert(film.0, (state, attempts.saturating_add(1), sequence, seconds(now)))?;
            counted.insert((), boot)?;
        }
        // redb commits with fsync unless told otherwise.
        crash_point::step("attempt.counted", || tx.commit())?;
        Ok(true)
    }

    /// Marks a film as ended and its file as known, in the caller's transaction: nothing holds before its commit.
    ///
    /// # Errors
    /// [`LedgerError`]; the transaction should be aborted.
    pub fn finish(
        &self,
        tx: &WriteTransaction,
        source: &FilmSource,
        outcome: Outcome,
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        let mut films = tx.open_table(FILMS)?;
        let attempts = films.get(source.film.0)?.map_or(0, |record| record.value().1);
        let (state, sequence) = outcome.encode();
        films.insert(source.film.0, (state, attempts, Some(sequence), seconds(now)))?;
        self.files_are_known(tx, std::slice::from_ref(source))
    }

    /// Marks files as known that hold films which have ended already; nothing is written for those that are.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn know(&self, files: &[FilmSource]) -> Result<(), LedgerError> {
        let snapshot = self.snapshot()?;
        let mut unknown = Vec::new();
        for source in files {
            if snapshot.row(&source.path)? != row(source) {
                unknown.push(source.clone());
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let tx = self.database.begin_write()?;
        self.files_are_known(&tx, &unknown)?;
        Ok(crash_point::step("ledger.known", || tx.commit())?)
    }

    /// In memory, and every few of them in the caller's transaction; should that fail, they are read again.
    fn files_are_known(&self, tx: &WriteTransaction, files: &[FilmSource]) -> Result<(), LedgerError> {
        let mut unsaved = lock(&self.unsaved);
        unsaved.extend(files.iter().filter_map(|source| Some((source.path.clone(), row(source)?))));
        if unsaved.len() >= UNSAVED_FILES {
            let mut table = tx.open_table(FILES)?;
            for (path, row) in std::mem::take(&mut *unsaved) {
                table.insert(path.as_os_str().as_bytes(), row)?;
            }
        }
        Ok(())
    }

    /// Renews the sightings of films, in one transaction.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn sight(&self, films: &[FilmId], now: SystemTime) -> Result<(), LedgerError> {
        let tx = self.database.begin_write()?;
        {
            let mut table = tx.open_table(FILMS)?;
            for film in films {
                let record = table.get(film.0)?.map(|record| record.value());
                if let Some((state, attempts, sequence, _)) = record {
                    table.insert(film.0, (state, attempts, sequence, seconds(now)))?;
                }
            }
        }
        Ok(crash_point::step("ledger.sighted", || tx.commit())?)
    }

    /// Forgets films last sighted longer than `remember` ago, and files whose film is forgotten; how many films.
    ///
    /// Nothing is written when nothing is that old.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn prune(&self, now: SystemTime, remember: Duration) -> Result<usize, LedgerError> {
        let Some(oldest) = seconds(now).checked_sub(remember.as_secs()) else { return Ok(0) };
        let mut aged = Vec::new();
        for record in self.database.begin_read()?.open_table(FILMS)?.iter()? {
            let (film, record) = record?;
            if record.value().3 < oldest {
                aged.push(film.value());
            }
        }
        if aged.is_empty() {
            return Ok(0);
        }
        let tx = self.database.begin_write()?;
        {
            let mut films = tx.open_table(FILMS)?;
            for film in &aged {
                films.remove(film)?;
            }
            let mut failure = None;
            tx.open_table(FILES)?.retain(|_, (.., film)| {
                films.get(film).map(|record| record.is_some()).unwrap_or_else(|error| {
                    failure = Some(error);
                    true
                })
            })?;
            if let Some(error) = failure {
                return Err(error.into());
            }
        }
        crash_point::step("ledger.pruned", || tx.commit())?;
        lock(&self.unsaved).retain(|_, (.., film)| !aged.contains(film));
        Ok(aged.len())
    }

    /// The kind of share that the watched folder at `folder` was when it was last looked at, if it was one.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub(super) fn share(&self, folder: &Path) -> Result<Option<String>, LedgerError> {
        let shares = self.database.begin_read()?.open_table(SHARES)?;
        Ok(shares.get(folder.as_os_str().as_bytes())?.map(|kind| kind.value().to_owned()))
    }

    /// Remembers what kind of share the watched folder at `folder` is, or that it is none; written only where it is
    /// news.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub(super) fn remember_share(&self, folder: &Path, kind: Option<&str>) -> Result<(), LedgerError> {
        if self.share(folder)?.as_deref() == kind {
            return Ok(());
        }
        let tx = self.database.begin_write()?;
        {
            let mut shares = tx.open_table(SHARES)?;
            let folder = folder.as_os_str().as_bytes();
            match kind {
                Some(kind) => shares.insert(folder, kind)?,
                None => shares.remove(folder)?,
            };
        }
        Ok(crash_point::step("ledger.share", || tx.commit())?)
    }

    /// Forgets a film and its files, so that it is new when it is met again; whether it was on record.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn forget(&self, film: FilmId) -> Result<bool, LedgerError> {
        let tx = self.database.begin_write()?;
        let was_there = tx.open_table(FILMS)?.remove(film.0)?.is_some();
        tx.open_table(FILES)?.retain(|_, (.., of)| of != film.0)?;
        crash_point::step("ledger.forgotten", || tx.commit())?;
        lock(&self.unsaved).retain(|_, (.., of)| *of != film.0);
        Ok(was_there)
    }

    /// The ledger as it is now, for many questions.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn snapshot(&self) -> Result<Snapshot, LedgerError> {
        // First: what is saved meanwhile is then in both rather than in none.
        let unsaved = lock(&self.unsaved).clone();
        let tx = self.database.begin_read()?;
        Ok(Snapshot { films: tx.open_table(FILMS)?, files: tx.open_table(FILES)?, unsaved })
    }
}

/// The ledger at one moment.
pub struct Snapshot {
    films: ReadOnlyTable<[u8; 32], FilmRow>,
    files: ReadOnlyTable<&'static [u8], FileRow>,
    unsaved: BTreeMap<PathBuf, FileRow>,
}

impl Snapshot {
    /// What is on record about a film.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn film(&self, film: FilmId) -> Result<Option<FilmRecord>, LedgerError> {
        let Some(record) = self.films.get(film.0)? else { return Ok(None) };
        let (state, attempts, sequence, last_seen) = record.value();
        let state = match (state, sequence) {
            (ATTEMPTING, _) => FilmState::Attempting,
            (DONE, Some(sequence)) => FilmState::Ended(Outcome::Done { sequence }),
            (REFUSED, Some(sequence)) => FilmState::Ended(Outcome::Refused { sequence }),
            (QUARANTINED, Some(sequence)) => FilmState::Ended(Outcome::Quarantined { sequence }),
            (found, _) => return Err(LedgerError::UnknownState { found }),
        };
        Ok(Some(FilmRecord { state, attempts, last_seen: UNIX_EPOCH + Duration::from_secs(last_seen) }))
    }

    /// How many films are on record, and of how many files.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn count(&self) -> Result<(u64, u64), LedgerError> {
        let mut files = self.files.len()?;
        for path in self.unsaved.keys() {
            files += u64::from(self.files.get(path.as_os_str().as_bytes())?.is_none());
        }
        Ok((self.films.len()?, files))
    }

    /// The films that ended without a result, in the order of their events.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn without_result(&self) -> Result<Vec<(u64, FilmId, Outcome)>, LedgerError> {
        let mut found = Vec::new();
        for record in self.films.iter()? {
            let (film, record) = record?;
            let outcome = match (record.value().0, record.value().2) {
                (REFUSED, Some(sequence)) => Outcome::Refused { sequence },
                (QUARANTINED, Some(sequence)) => Outcome::Quarantined { sequence },
                _ => continue,
            };
            found.push((outcome.sequence(), FilmId(film.value()), outcome));
        }
        found.sort_by_key(|(sequence, ..)| *sequence);
        Ok(found)
    }

    /// The ended film that the file at `path` holds in this state, without reading the file.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn known(&self, path: &Path, file: &FileIdentity) -> Result<Option<(FilmSource, FilmRecord)>, LedgerError> {
        let Some((inode, size, mtime_ns, ctime_ns, film)) = self.row(path)? else { return Ok(None) };
        if *file != (FileIdentity { inode, size, mtime_ns, ctime_ns }) {
            return Ok(None);
        }
        let film = FilmId(film);
        let ended = self.film(film)?.filter(|record| record.state != FilmState::Attempting);
        Ok(ended.map(|record| (FilmSource { film, path: PathBuf::from(path), file: *file }, record)))
    }

    fn row(&self, path: &Path) -> Result<Option<FileRow>, LedgerError> {
        match self.unsaved.get(path) {
            Some(row) => Ok(Some(*row)),
            None => Ok(self.files.get(path.as_os_str().as_bytes())?.map(|row| row.value())),
        }
    }
}

const ATTEMPTING: u8 = 0;
const DONE: u8 = 1;
const REFUSED: u8 = 2;
const QUARANTINED: u8 = 3;

impl Outcome {
    /// The number of its event.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        match self {
            Self::Done { sequence } | Self::Refused { sequence } | Self::Quarantined { sequence } => sequence,
        }
    }

    const fn encode(self) -> (u8, u64) {
        match self {
            Self::Done { sequence } => (DONE, sequence),
            Self::Refused { sequence } => (REFUSED, sequence),
            Self::Quarantined { sequence } => (QUARANTINED, sequence),
        }
    }
}

/// A file that could not be read stays unknown: once it can be, it is.
fn row(source: &FilmSource) -> Option<FileRow> {
    let FileIdentity { inode, size, mtime_ns, ctime_ns } = source.file;
    (!source.is_unread()).then_some((inode, size, mtime_ns, ctime_ns, source.film.0))
}

/// Nothing panics while it holds the lock half-way through a change.
fn lock(unsaved: &UnsavedFiles) -> MutexGuard<'_, BTreeMap<PathBuf, FileRow>> {
    unsaved.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

#[cfg(test)]
mod tests;
