//! Engines that were built, below the state directory: `<digest of the key>.plan`, and a note of what it is beside it.
//!
//! An engine is code: a file that is not the daemon's own, or that others may write, is not loaded. A plan without a
//! note is none, so that the note, written last, makes the engine. A crash leaves the one before or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Key, Mark, TensorRtError};
use crate::model::durable::{Points, ensure_directory, replace};

/// The directory below the state directory.
const DIRECTORY: &str = "engines";
const FORMAT: u32 = 1;
const MAX_NOTE_BYTES: u64 = 64 << 10;
const MAX_PLAN_BYTES: u64 = 1 << 30;
/// An engine for the bundle that serves and the one before it, under two drivers.
const KEPT: usize = 4;
/// Neither group nor others may write.
const OTHERS_WRITE: u32 = 0o022;

const PLAN_POINTS: Points =
    Points { written: "engine.plan-written", renamed: "engine.plan-renamed", synced: "engine.plan-synced" };
const NOTE_POINTS: Points =
    Points { written: "engine.note-written", renamed: "engine.note-renamed", synced: "engine.note-synced" };

/// What a plan is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    format: u32,
    /// What it was built for.
    pub key: Key,
    /// Of the plan, hexadecimal.
    pub plan_sha256: String,
    /// Its size.
    pub plan_bytes: u64,
    /// How long the building took, in seconds.
    pub build_s: f64,
}

/// The engines of a state directory; nothing need be there.
#[derive(Clone, Debug)]
pub struct EngineCache {
    directory: PathBuf,
}

impl EngineCache {
    /// That of a state directory.
    #[must_use]
    pub fn below(state: &Path) -> Self {
        Self { directory: state.join(DIRECTORY) }
    }

    /// Where it lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// There while an engine of it computes a film.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark::new(self.directory.join(".computing"))
    }

    /// The note of the engine for `key`, if there is one.
    ///
    /// # Errors
    /// [`TensorRtError::Foreign`], [`TensorRtError::Damaged`] or [`TensorRtError::Cache`].
    pub fn note(&self, key: &Key) -> Result<Option<Note>, TensorRtError> {
        match fs::symlink_metadata(&self.directory) {
            Ok(metadata) => ours(&self.directory, &metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&self.directory)(error)),
        }
        let (_, path) = self.paths(key);
        let Some(bytes) = read(&path, MAX_NOTE_BYTES)? else { return Ok(None) };
        let damaged = |reason: String| TensorRtError::Damaged { reason };
        let note: Note = serde_json::from_slice(&bytes).map_err(|error| damaged(format!("its note: {error}")))?;
        if note.format != FORMAT || note.key != *key {
            return Err(damaged("its note is of another engine".to_owned()));
        }
        Ok(Some(note))
    }

    /// The plan for `key` and its note, if there is one.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub fn plan(&self, key: &Key) -> Result<Option<(Vec<u8>, Note)>, TensorRtError> {
        let Some(note) = self.note(key)? else { return Ok(None) };
        let (path, _) = self.paths(key);
        let damaged = |reason: &str| TensorRtError::Damaged { reason: reason.to_owned() };
        let Some(plan) = read(&path, MAX_PLAN_BYTES)? else { return Err(damaged("its plan is missing")) };
        if plan.len() as u64 != note.plan_bytes || sha256(&plan) != note.plan_sha256 {
            return Err(damaged("its plan has another SHA-256 than its note says"));
        }
        Ok(Some((plan, note)))
    }

    /// Keeps a plan, and of the others the newest few.
    ///
    /// # Errors
    /// When the directory is not ours or the disk refuses.
    pub fn keep(&self, key: &Key, plan: &[u8], took: Duration) -> Result<Note, TensorRtError> {
        ensure_directory(&self.directory).map_err(at(&self.directory))?;
        ours(&self.directory, &fs::symlink_metadata(&self.directory).map_err(at(&self.directory))?)?;
        let note = Note {
            format: FORMAT,
            key: key.clone(),
            plan_sha256: sha256(plan),
            plan_bytes: plan.len() as u64,
            build_s: took.as_secs_f64(),
        };
        let (plan_path, note_path) = self.paths(key);
        // A note that stands there already must not vouch for half of a new plan.
        self.forget(key)?;
        replace(&plan_path, plan, PLAN_POINTS).map_err(at(&plan_path))?;
        let json = serde_json::to_vec_pretty(&note).expect("a note is plain data");
        replace(&note_path, &json, NOTE_POINTS).map_err(at(&note_path))?;
        self.prune(&plan_path);
        Ok(note)
    }

    /// Removes the engine for `key`: the note first.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget(&self, key: &Key) -> Result<(), TensorRtError> {
        let (plan, note) = self.paths(key);
        [note, plan].iter().try_for_each(|path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
            _ => Ok(()),
        })
    }

    fn paths(&self, key: &Key) -> (PathBuf, PathBuf) {
        let digest = key.digest();
        (self.directory.join(format!("{digest}.plan")), self.directory.join(format!("{digest}.json")))
    }

    /// What cannot be removed now is met again at the next engine.
    fn prune(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut plans: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path != newest && path.extension().is_some_and(|extension| extension == "plan"))
            .collect();
        plans.sort_by_key(|path| std::cmp::Reverse(changed(path)));
        for plan in plans.iter().skip(KEPT - 1) {
            let _ = fs::remove_file(plan.with_extension("json"));
            let _ = fs::remove_file(plan);
        }
    }
}

/// The bytes of a file that is ours; none where there is none.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TensorRtError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // It is a link: what it leads to is of no interest.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            let owner = fs::symlink_metadata(path).map_or(u32::MAX, |metadata| metadata.uid());
            return Err(TensorRtError::Foreign { path: path.to_owned(), owner });
        }
        Err(error) => return Err(at(path)(error)),
    };
    let metadata = file.metadata().map_err(at(path))?;
    ours(path, &metadata)?;
    read_up_to(file, limit).map(Some).map_err(at(path))
}

fn read_up_to(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn ours(path: &Path, metadata: &fs::Metadata) -> Result<(), TensorRtError> {
    let user = rustix::process::geteuid().as_raw();
    let is_link = metadata.file_type().is_symlink();
    if metadata.uid() != user || metadata.mode() & OTHERS_WRITE != 0 || is_link {
        return Err(TensorRtError::Foreign { path: path.to_owned(), owner: metadata.uid() });
    }
    Ok(())
}

fn at(path: &Path) -> impl Fn(io::Error) -> TensorRtError + use<> {
    let path = path.to_owned();
    move |error| TensorRtError::Cache { path: path.clone(), reason: error.to_string() }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::key::tests::key;
    use super::*;

    fn kept() -> (tempfile::TempDir, EngineCache, Key) {
        let state = tempfile::tempdir().expect("a temporary folder");
        let cache = EngineCache::below(state.path());
        assert_eq!(cache.plan(&key()), Ok(None), "nothing is there");
        cache.keep(&key(), b"a plan", Duration::from_secs(90)).expect("there is room");
        (state, cache, key())
    }

    #[test]
    fn what_is_kept_is_found_again_by_its_key_alone() {
        let (_state, cache, key) = kept();
        let (plan, note) = cache.plan(&key).expect("sound").expect("kept");
        assert_eq!((plan.as_slice(), note.plan_bytes, note.build_s), (b"a plan".as_slice(), 6, 90.0));
        let mut updated = key.clone();
        updated.gpu.cuda += 10;
        assert_eq!(cache.plan(&updated), Ok(None), "the driver was updated");
        cache.keep(&key, b"another", Duration::ZERO).expect("there is room");
        assert_eq!(cache.plan(&key).expect("sound").expect("kept").0, b"another");
        cache.forget(&key).expect("ours");
        assert_eq!(cache.plan(&key), Ok(None));
    }

    #[test]
    fn a_plan_that_was_changed_cut_or_lost_is_damaged() {
        let (_state, cache, key) = kept();
        let (plan, note) = cache.paths(&key);
        for bytes in [b"b plan".as_slice(), b"a pla"] {
            fs::write(&plan, bytes).expect("ours");
            assert!(matches!(cache.plan(&key), Err(TensorRtError::Damaged { .. })));
        }
        fs::remove_file(&plan).expect("ours");
        assert!(matches!(cache.plan(&key), Err(TensorRtError::Damaged { .. })));
        fs::write(&note, "{}").expect("ours");
        assert!(matches!(cache.plan(&key), Err(TensorRtError::Damaged { .. })));
    }

    #[test]
    fn what_others_may_write_or_a_link_is_not_loaded() {
        let (_state, cache, key) = kept();
        let (plan, _) = cache.paths(&key);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        for (path, wide, narrow) in [(plan.as_path(), 0o620, 0o600), (cache.directory(), 0o777, 0o700)] {
            mode(path, wide);
            assert!(matches!(cache.plan(&key), Err(TensorRtError::Foreign { .. })), "{}", path.display());
            mode(path, narrow);
            assert!(cache.plan(&key).is_ok());
        }
        let elsewhere = cache.directory().join("elsewhere");
        fs::rename(&plan, &elsewhere).expect("ours");
        symlink(&elsewhere, &plan).expect("ours");
        assert!(matches!(cache.plan(&key), Err(TensorRtError::Foreign { .. })));
    }

    #[test]
    fn only_the_newest_engines_stay() {
        let (_state, cache, first) = kept();
        for n in 1..=KEPT {
            let mut key = first.clone();
            key.gpu.cuda += n as i32;
            let (plan, _) = cache.paths(&key);
            cache.keep(&key, b"x", Duration::ZERO).expect("there is room");
            let time = SystemTime::now() + Duration::from_secs(60 * n as u64);
            File::options().write(true).open(plan).and_then(|file| file.set_modified(time)).expect("ours");
        }
        assert_eq!(cache.plan(&first), Ok(None), "the oldest went");
        let left = fs::read_dir(cache.directory()).expect("ours").count();
        assert_eq!(left, 2 * KEPT);
    }
}
