//! Films that could not be processed, kept for a person to look at (R10).
//!
//! `<state>/quarantine/<sha256>/` holds `film`, a copy of the bytes, and `reason.json`. The copy is made complete under
//! another name and renamed, so an entry is whole or not there. The newest entries are kept, up to a count and a
//! number of bytes; the source file is never touched.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::identity::FilmId;
use crate::crash_point;
use crate::disposition::Disposition;
use crate::report::{Stage, rfc3339};

/// Entries kept.
const MAX_ENTRIES: usize = 200;
/// Bytes of films kept.
const MAX_BYTES: u64 = 2 << 30;

const FILM: &str = "film";
const REASON: &str = "reason.json";
/// Before the name of an entry being written.
const UNFINISHED: &str = ".unfinished-";

/// The quarantine cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("quarantine {}: {source}", .path.display())]
pub struct QuarantineError {
    /// What could not be made or written.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl QuarantineError {
    /// The disk may recover.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::Retry
    }
}

/// Why a film is in quarantine: `reason.json`. It holds nothing of the film's content and no file name (R31).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The step that failed.
    pub stage: Stage,
    /// The error and its causes, outermost first.
    pub errors: Vec<String>,
    /// Attempts begun.
    pub attempts: u32,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
    /// The daemon's version.
    pub version: String,
    /// The serving bundle's name and version, where one was serving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// When the film was acquired, RFC 3339.
    pub acquired: String,
    /// When it was put here, RFC 3339.
    pub quarantined: String,
}

impl Reason {
    /// A reason with this daemon's version and the times in their written form.
    #[must_use]
    pub fn new(film: FilmId, stage: Stage, errors: Vec<String>, attempts: u32, acquired: SystemTime) -> Self {
        Self {
            stage,
            errors,
            attempts,
            sha256: film.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: None,
            acquired: rfc3339(acquired),
            quarantined: rfc3339(SystemTime::now()),
        }
    }
}

/// An entry of the quarantine, as it lies there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Why the film is there.
    pub reason: Reason,
    /// The size of the film's copy.
    pub film_bytes: u64,
}

/// The entries below `state`, oldest first; what does not read as an entry is none.
///
/// # Errors
/// [`QuarantineError`] where the folder cannot be listed; where there is none, nothing is in it.
pub fn quarantined_films(state: &Path) -> Result<Vec<Kept>, QuarantineError> {
    let directory = state.join("quarantine");
    let entries = match fs::read_dir(&directory).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(QuarantineError { path: directory, source }),
    };
    let read = |entry: &fs::DirEntry| -> Option<Kept> {
        let reason = serde_json::from_slice(&fs::read(entry.path().join(REASON)).ok()?).ok()?;
        Some(Kept { reason, film_bytes: fs::metadata(entry.path().join(FILM)).ok()?.len() })
    };
    let mut kept: Vec<Kept> = entries.iter().filter_map(read).collect();
    kept.sort_by(|a, b| (&a.reason.quarantined, &a.reason.sha256).cmp(&(&b.reason.quarantined, &b.reason.sha256)));
    Ok(kept)
}

/// The quarantine of a state directory.
#[derive(Clone, Debug)]
pub struct Quarantine {
    directory: PathBuf,
    max_entries: usize,
    max_bytes: u64,
}

impl Quarantine {
    /// The quarantine below `state`, made where there is none; unfinished entries of a crash are removed.
    ///
    /// # Errors
    /// [`QuarantineError`].
    pub fn open(state: &Path) -> Result<Self, QuarantineError> {
        let directory = state.join("quarantine");
        let failed = |source| QuarantineError { path: directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self { directory, max_entries: MAX_ENTRIES, max_bytes: MAX_BYTES })
    }

    /// Keeps a film's bytes and why it failed; durable when this returns. A film already there keeps its first entry.
    ///
    /// # Errors
    /// [`QuarantineError`]; the film has no entry then.
    pub fn put(&self, film: FilmId, bytes: &[u8], reason: &Reason) -> Result<PathBuf, QuarantineError> {
        let entry = self.directory.join(film.to_string());
        if entry.exists() {
            return Ok(entry);
        }
        self.make_room(bytes.len() as u64);
        let unfinished = self.directory.join(format!("{UNFINISHED}{film}"));
        self.write(&unfinished, &entry, bytes, reason)
            .map_err(|source| QuarantineError { path: entry.clone(), source })
            .inspect_err(|_| drop(fs::remove_dir_all(&unfinished)))?;
        Ok(entry)
    }

    fn write(&self, unfinished: &Path, entry: &Path, bytes: &[u8], reason: &Reason) -> io::Result<()> {
        if unfinished.exists() {
            fs::remove_dir_all(unfinished)?;
        }
        DirBuilder::new().mode(0o700).create(unfinished)?;
        let mut text = serde_json::to_vec_pretty(reason)?;
        text.push(b'\n');
        for (name, content) in [(FILM, bytes), (REASON, &text)] {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished.join(name))?;
            file.write_all(content)?;
            crash_point::step("quarantine.file", || file.sync_all())?;
        }
        crash_point::step("quarantine.entry", || File::open(unfinished)?.sync_all())?;
        crash_point::step("quarantine.rename", || fs::rename(unfinished, entry))?;
        crash_point::step("quarantine.directory", || File::open(&self.directory)?.sync_all())
    }

    /// Removes the oldest entries until one more of `bytes` fits; what cannot be removed stays.
    fn make_room(&self, bytes: u64) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let film = fs::metadata(path.join(FILM)).ok()?;
                Some((film.modified().ok()?, film.len(), path))
            })
            .collect();
        entries.sort();
        let mut total = entries.iter().map(|(_, size, _)| size).sum::<u64>().saturating_add(bytes);
        let mut count = entries.len() + 1;
        for (_, size, path) in entries {
            if count <= self.max_entries && total <= self.max_bytes {
                return;
            }
            match fs::remove_dir_all(&path) {
                Ok(()) => {
                    tracing::warn!(entry = %path.display(), "the quarantine is full: its oldest entry is removed")
                }
                Err(error) => {
                    tracing::warn!(entry = %path.display(), %error, "an old quarantine entry cannot be removed")
                }
            }
            count -= 1;
            total -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    fn reason(film: FilmId) -> Reason {
        let acquired = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        Reason::new(film, Stage::Decode, vec!["outer".to_owned(), "inner".to_owned()], 3, acquired)
    }

    #[test]
    fn an_entry_holds_the_bytes_and_the_reason_for_the_owner_only() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let quarantine = Quarantine::open(state.path()).expect("writable");
        let film = FilmId::of(b"film");
        let entry = quarantine.put(film, b"film", &reason(film)).expect("writable");
        assert_eq!(entry, state.path().join("quarantine").join(film.to_string()));
        assert_eq!(fs::read(entry.join(FILM)).expect("readable"), b"film");
        let text = fs::read_to_string(entry.join(REASON)).expect("readable");
        let told: Reason = serde_json::from_str(&text).expect("JSON");
        assert_eq!((told.attempts, told.sha256.as_str(), told.stage), (3, film.to_string().as_str(), Stage::Decode));
        assert_eq!(told.acquired, "1970-01-02T00:00:00.000Z");
        for (name, mode) in [("", 0o700), (FILM, 0o600), (REASON, 0o600)] {
            let found = fs::metadata(entry.join(name)).expect("it is there").permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
        let listed = quarantined_films(state.path()).expect("readable");
        assert_eq!(listed, [Kept { reason: told, film_bytes: 4 }]);
        assert_eq!(quarantined_films(&state.path().join("elsewhere")).expect("none is fine"), []);
        // A second failure of the same film changes nothing.
        quarantine.put(film, b"film", &Reason { attempts: 9, ..reason(film) }).expect("writable");
        assert_eq!(fs::read_to_string(entry.join(REASON)).expect("readable"), text);
    }

    #[test]
    fn what_a_crash_left_unfinished_is_removed() {
        let state = tempfile::tempdir().expect("a temporary folder");
        Quarantine::open(state.path()).expect("writable");
        let left = state.path().join("quarantine").join(format!("{UNFINISHED}abc"));
        fs::create_dir(&left).expect("writable");
        fs::write(left.join(FILM), b"half").expect("writable");
        Quarantine::open(state.path()).expect("writable");
        assert!(!left.exists());
    }

    #[test]
    fn the_oldest_entries_make_room() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let quarantine =
            Quarantine { max_entries: 3, max_bytes: 100, ..Quarantine::open(state.path()).expect("writable") };
        let mut entries = Vec::new();
        for (i, size) in [20usize, 20, 20, 20, 90].into_iter().enumerate() {
            let bytes = vec![i as u8; size];
            let film = FilmId::of(&bytes);
            let entry = quarantine.put(film, &bytes, &reason(film)).expect("writable");
            let written = File::options().write(true).open(entry.join(FILM)).expect("writable");
            written.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(i as u64)).expect("settable");
            entries.push(entry);
            let kept: Vec<_> = (0..entries.len()).filter(|&i| entries[i].exists()).collect();
            let expected: &[usize] = [&[0][..], &[0, 1], &[0, 1, 2], &[1, 2, 3], &[4]][i];
            assert_eq!(kept, expected, "after entry {i}");
        }
    }
}
