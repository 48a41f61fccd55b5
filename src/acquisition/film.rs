//! What the folder hands to the pipeline.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::identity::{FileIdentity, FilmId, FilmSource};

/// A file that passed the gates, or will not pass them any more.
///
/// Each is handed out once. If it is dropped without [`Ledger::finish`](super::Ledger::finish) having been committed,
/// its file settles anew and is handed out again: that is how a film is retried.
#[derive(Debug)]
pub enum Acquired {
    /// A whole film, to be processed.
    Film(AcquiredFilm),
    /// A whole film whose attempts are used up: to be quarantined and refused without being touched again (R10).
    Exhausted(AcquiredFilm),
    /// A file that is no film and stayed so, to be refused.
    Refused(RefusedFile),
}

/// A whole film, in memory.
#[derive(Debug)]
pub struct AcquiredFilm {
    /// Which film, and where it was found.
    pub source: FilmSource,
    /// The file's content: hash, decode and quarantine all use these bytes (R5).
    pub bytes: Vec<u8>,
    /// When the film was acquired: the file's modification time.
    pub acquired: SystemTime,
    /// Attempts begun so far.
    pub attempts: u32,
    lease: Lease,
}

/// A file that cannot be processed.
#[derive(Debug)]
pub struct RefusedFile {
    /// Where it was found; its film is the digest of its bytes unless [`FilmSource::is_unread`].
    pub source: FilmSource,
    /// Why, without the file's name (R31).
    pub why: Refusal,
    /// The file's modification time.
    pub acquired: SystemTime,
    lease: Lease,
}

/// Why a file is refused before it is decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It stayed incomplete for `max_settle` (R4c).
    #[error("incomplete: {why}")]
    Incomplete {
        /// What is missing.
        why: &'static str,
    },
    /// It is larger than `max_file_bytes` (R12).
    #[error("the file has {bytes} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// For `max_settle` we had no right to read it. It is tried again now and then, and processed if that succeeds.
    #[error("the file cannot be read: permission denied")]
    Unreadable,
}

impl Acquired {
    pub(super) fn bytes_held(&self) -> u64 {
        match self {
            Self::Film(film) | Self::Exhausted(film) => film.bytes.len() as u64,
            Self::Refused(_) => 0,
        }
    }
}

impl AcquiredFilm {
    /// A film that comes from no watched folder: for `demo`, `bench` and tests.
    #[must_use]
    pub fn detached(path: &Path, bytes: Vec<u8>, acquired: SystemTime) -> Self {
        let file = FileIdentity { inode: 0, size: bytes.len() as u64, mtime_ns: 0, ctime_ns: 0 };
        let source = FilmSource { film: FilmId::of(&bytes), path: path.to_path_buf(), file };
        Self { source, bytes, acquired, attempts: 0, lease: Lease::default() }
    }

    pub(super) fn new(source: FilmSource, bytes: Vec<u8>, attempts: u32, lease: Lease) -> Self {
        Self { acquired: source.file.modified(), source, bytes, attempts, lease }
    }

    /// Whether this film came from a watched folder that will hand it out again if it is not finished.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.lease.in_flight.is_some()
    }
}

impl RefusedFile {
    pub(super) fn new(source: FilmSource, why: Refusal, lease: Lease) -> Self {
        Self { acquired: source.file.modified(), source, why, lease }
    }

    /// Whether this file came from a watched folder that will hand it out again if it is not finished.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.lease.in_flight.is_some()
    }
}

/// The films handed out and not yet dropped: none of them is handed out twice.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    films: Mutex<HashMap<FilmId, (PathBuf, FileIdentity)>>,
    returned: Mutex<Vec<FilmSource>>,
    wake: Notify,
}

/// Held by a film handed out; dropping it tells the folder that the pipeline is through with the film.
#[derive(Debug, Default)]
pub(super) struct Lease {
    in_flight: Option<(Arc<InFlight>, FilmId)>,
}

impl InFlight {
    /// A lease on a film, or `None` where it is handed out already.
    pub(super) fn lease(self: &Arc<Self>, source: &FilmSource) -> Option<Lease> {
        let mut films = self.films.lock().unwrap_or_else(PoisonError::into_inner);
        if films.contains_key(&source.film) {
            return None;
        }
        films.insert(source.film, (source.path.clone(), source.file));
        Some(Lease { in_flight: Some((Arc::clone(self), source.film)) })
    }

    /// Whether the file in this state is handed out.
    pub(super) fn holds(&self, path: &Path, file: &FileIdentity) -> bool {
        let films = self.films.lock().unwrap_or_else(PoisonError::into_inner);
        films.values().any(|(known, state)| state == file && known == path)
    }

    /// When the film was acquired that was acquired last, of those handed out.
    pub(super) fn newest(&self) -> Option<SystemTime> {
        let films = self.films.lock().unwrap_or_else(PoisonError::into_inner);
        films.values().map(|(_, file)| file.modified()).max()
    }

    /// Waits until the pipeline is through with films, and returns them; safe to drop while waiting.
    pub(super) async fn returned(&self) -> Vec<FilmSource> {
        loop {
            // A permit stored by a drop between the look and the wait ends the wait at once.
            let returned = std::mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner));
            if !returned.is_empty() {
                return returned;
            }
            self.wake.notified().await;
        }
    }

    fn give_back(&self, film: FilmId) {
        let taken = self.films.lock().unwrap_or_else(PoisonError::into_inner).remove(&film);
        if let Some((path, file)) = taken {
            let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
            returned.push(FilmSource { film, path, file });
            self.wake.notify_one();
        }
    }
}

impl Lease {
    /// Gives the film back without a word: it was not handed out after all.
    pub(super) fn cancel(mut self) {
        if let Some((in_flight, film)) = self.in_flight.take() {
            in_flight.films.lock().unwrap_or_else(PoisonError::into_inner).remove(&film);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((in_flight, film)) = self.in_flight.take() {
            in_flight.give_back(film);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_film_is_handed_out_once_until_it_is_dropped() {
        let in_flight = Arc::new(InFlight::default());
        let film = AcquiredFilm::detached(Path::new("a.png"), b"film".to_vec(), SystemTime::UNIX_EPOCH);
        assert!(!film.is_leased());
        let source = film.source;
        let lease = in_flight.lease(&source).expect("not handed out yet");
        assert!(in_flight.lease(&source).is_none());
        assert!(in_flight.holds(&source.path, &source.file));
        assert!(!in_flight.holds(Path::new("b.png"), &source.file));
        drop(lease);
        assert!(!in_flight.holds(&source.path, &source.file));
        in_flight.lease(&source).expect("given back").cancel();
        assert_eq!(in_flight.returned().await, std::slice::from_ref(&source));
        assert!(in_flight.lease(&source).is_some());
    }
}
