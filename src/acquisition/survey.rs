//! One round through the whole folder, or a look at some files of it, against the ledger. Blocking.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::filesystem::{Filesystem, WatchMode};
use super::identity::{FileIdentity, FilmId, FilmSource};
use super::ledger::{FilmRecord, Ledger, LedgerError, Outcome, Snapshot};
use super::mount::{self, Unmounted};
use super::open::{FolderIdentity, Root};
use super::scan::{self, Filter};
use super::watch;
use crate::config::{AcquisitionSettings, AfterPublish};

/// What a round found.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) folder: FolderIdentity,
    pub(super) filesystem: Filesystem,
    /// The inotify object with a watch on every folder; absent where the folder is polled.
    pub(super) inotify: Option<Arc<OwnedFd>>,
    pub(super) watches: HashMap<i32, PathBuf>,
    pub(super) sorted: Sorted,
    /// Links and special files passed over.
    pub(super) special: u64,
    pub(super) failures: Vec<io::Error>,
    /// Films forgotten because they were sighted too long ago; `None` where that was not due or had to wait.
    pub(super) forgotten: Option<usize>,
}

/// Files by what the ledger knows of them.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// To be settled and examined.
    pub(super) unknown: Vec<(PathBuf, FileIdentity)>,
    /// Done, and still where `after` does not want them.
    pub(super) done: Vec<FilmSource>,
    /// Not there, or nothing to look at.
    pub(super) gone: Vec<PathBuf>,
}

/// A round fails as a whole only where the folder or the ledger cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SurveyError {
    #[error("the acquisition folder cannot be opened: {0}")]
    Folder(#[source] io::Error),
    #[error(transparent)]
    Unmounted(Unmounted),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Lists the folder, renews sightings and, if `prune`, forgets what is too old.
///
/// `watched` is the inotify object in use and the folder it watches: it is used on where that is still the folder.
pub(super) fn survey(
    settings: &AcquisitionSettings,
    ledger: &Ledger,
    watched: Option<(FolderIdentity, Arc<OwnedFd>)>,
    prune: bool,
) -> Result<Survey, SurveyError> {
    let root = Root::open(&settings.folder).map_err(SurveyError::Folder)?;
    let folder = root.identity().map_err(SurveyError::Folder)?;
    let filesystem = Filesystem::of(&root).map_err(SurveyError::Folder)?;
    mount::check(settings, ledger, &root, filesystem)?;
    let mut failures = Vec::new();
    let inotify = match (filesystem.mode, watched) {
        (WatchMode::Polling, _) => None,
        (WatchMode::Inotify, Some((known, inotify))) if known == folder => Some(inotify),
        // Another folder took the place of the watched one: its watches are gone with its inotify object.
        (WatchMode::Inotify, _) => watch::inotify().map(Arc::new).map_err(|error| failures.push(error)).ok(),
    };
    let mut listing = scan::list(&root, &settings.folder, filter(settings), inotify.as_deref());
    failures.append(&mut listing.failures);

    let now = SystemTime::now();
    let (sorted, stale) = sort(settings, &ledger.snapshot()?, listing.files, now)?;
    if !stale.is_empty() {
        ledger.sight(&stale, now)?;
    }
    // Only a complete round has sighted all that is there; and a file that is not known by its path, as after a crash
    // that cost the last few, may hold a film that is known by its bytes.
    let complete = failures.is_empty() && sorted.unknown.is_empty();
    let forgotten = (prune && complete).then(|| ledger.prune(now, settings.remember)).transpose()?;
    let watches = listing.watches;
    Ok(Survey { folder, filesystem, inotify, watches, sorted, special: listing.special, failures, forgotten })
}

/// Looks at some files by their paths below the folder.
pub(super) fn look(
    settings: &AcquisitionSettings,
    ledger: &Ledger,
    paths: impl IntoIterator<Item = PathBuf>,
) -> Result<Sorted, SurveyError> {
    let root = Root::open(&settings.folder).map_err(SurveyError::Folder)?;
    let filter = filter(settings);
    let mut files = Vec::new();
    let mut gone = Vec::new();
    for path in paths {
        // What happened to a marker happened to its film.
        let path = match settings.done_marker.as_deref().and_then(|suffix| path.to_str()?.strip_suffix(suffix)) {
            Some(film) => PathBuf::from(film),
            None => path,
        };
        match scan::look(&root, &path, filter) {
            Ok(Some(file)) => files.push((path, file)),
            // What cannot be looked at now is left to the next round.
            Ok(None) | Err(_) => gone.push(path),
        }
    }
    let (sorted, _) = sort(settings, &ledger.snapshot()?, files, SystemTime::now())?;
    Ok(Sorted { gone, ..sorted })
}

fn filter(settings: &AcquisitionSettings) -> Filter<'_> {
    Filter { recursive: settings.recursive, done_marker: settings.done_marker.as_deref() }
}

fn sort(
    settings: &AcquisitionSettings,
    snapshot: &Snapshot,
    files: Vec<(PathBuf, FileIdentity)>,
    now: SystemTime,
) -> Result<(Sorted, Vec<FilmId>), LedgerError> {
    let mut sorted = Sorted::default();
    let mut stale = Vec::new();
    for (path, file) in files {
        let Some((source, record)) = snapshot.known(&path, &file)? else {
            sorted.unknown.push((path, file));
            continue;
        };
        if record.is_stale(now) {
            stale.push(source.film);
        }
        if wants_after(settings, &record) {
            sorted.done.push(source);
        }
    }
    Ok((sorted, stale))
}

/// Refused and quarantined films stay where they are, for a person to see.
fn wants_after(settings: &AcquisitionSettings, record: &FilmRecord) -> bool {
    settings.after != AfterPublish::Keep
        && matches!(record.state, super::ledger::FilmState::Ended(Outcome::Done { .. }))
}
