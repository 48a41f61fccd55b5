//! The files of the store: where they lie, how they are read and replaced, and who may change them when.
//!
//! Two locks: `.work` keeps commands apart, which test a bundle for a minute; `.lock` is held for the moment of a
//! change, and is the only one that the daemon waits for.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::durable::{self, Points};
use super::error::RegistryError;
use super::identity::BundleId;
use super::runs::Runs;
use super::selection::{self, Selection};
use crate::crash_point;

const STAGING: &str = ".new";
const CONDEMNED: &str = ".old-";
const RECEIPT_FILE: &str = ".receipt.json";
const SELECTION_FILE: &str = ".selection.json";
const RUNS_FILE: &str = ".runs.json";
/// Of the store's own files.
const MAX_RECORD_BYTES: u64 = 64 << 10;

const SELECTION_POINTS: Points =
    Points { written: "selection.written", renamed: "selection.renamed", synced: "selection.synced" };
const RUNS_POINTS: Points = Points { written: "runs.written", renamed: "runs.renamed", synced: "runs.synced" };

/// The paths of a store, of which nothing need be there.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    state: PathBuf,
    root: PathBuf,
}

/// A directory in which a bundle is made; what is there when it is dropped is removed.
#[derive(Debug)]
pub(super) struct Staging {
    pub(super) path: PathBuf,
}

impl Layout {
    pub(super) fn below(state: &Path) -> Self {
        Self { state: state.to_owned(), root: state.join("models") }
    }

    pub(super) fn directory(&self, id: &BundleId) -> PathBuf {
        id.below(&self.root)
    }

    /// Whether anything was ever installed here.
    pub(super) fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// What lies here as `<name>/<version>`.
    pub(super) fn bundles(&self) -> Result<Vec<BundleId>, RegistryError> {
        let mut found = Vec::new();
        for name in names(&self.root)? {
            if name.starts_with('.') || !self.root.join(&name).is_dir() {
                continue;
            }
            let versions = names(&self.root.join(&name))?;
            found.extend(versions.iter().filter_map(|version| BundleId::new(&name, version).ok()));
        }
        found.sort();
        Ok(found)
    }

    /// What was noted when a bundle was installed.
    pub(super) fn receipt<T: DeserializeOwned>(&self, id: &BundleId) -> Option<T> {
        read(&self.directory(id).join(RECEIPT_FILE)).ok().flatten()
    }

    pub(super) fn selection(&self) -> Result<Option<Selection>, RegistryError> {
        let path = self.root.join(SELECTION_FILE);
        let Some(selection) = read::<Selection>(&path)? else { return Ok(None) };
        if selection.format != selection::FORMAT {
            let reason = format!("format {}, this version reads {}", selection.format, selection::FORMAT);
            return Err(RegistryError::Damaged { path, reason });
        }
        Ok(Some(selection))
    }

    pub(super) fn write_selection(&self, selection: &Selection) -> Result<(), RegistryError> {
        write(&self.root.join(SELECTION_FILE), selection, SELECTION_POINTS)
    }

    /// The remembered runs; a file that cannot be understood is none, since nothing depends on it but a judgement.
    pub(super) fn runs(&self) -> Runs {
        match read::<Runs>(&self.root.join(RUNS_FILE)) {
            Ok(runs) => runs.filter(Runs::is_readable).unwrap_or_default(),
            Err(error) => {
                tracing::warn!("forgetting how the last runs ended: {error}");
                Runs::default()
            }
        }
    }

    pub(super) fn write_runs(&self, runs: &Runs) -> Result<(), RegistryError> {
        write(&self.root.join(RUNS_FILE), runs, RUNS_POINTS)
    }

    /// Waits for the right to change what serves; held for moments only, until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, RegistryError> {
        self.locked(".lock", FlockOperation::LockExclusive)
    }

    /// The right to install and choose; one command at a time.
    pub(super) fn work(&self) -> Result<File, RegistryError> {
        let Ok(metadata) = fs::metadata(&self.state) else { return Err(RegistryError::NoState(self.state.clone())) };
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(RegistryError::WrongUser { path: self.state.clone(), owner, user });
        }
        durable::ensure_directory(&self.root).map_err(at(&self.root))?;
        self.locked(".work", FlockOperation::NonBlockingLockExclusive)
    }

    /// A fresh directory on the same file system as its later place.
    pub(super) fn stage(&self) -> Result<Staging, RegistryError> {
        let path = self.root.join(STAGING);
        remove(&path)?;
        durable::create_directory(&path).map_err(at(&path))?;
        crash_point::reach("model.begun");
        Ok(Staging { path })
    }

    /// Gives a whole bundle its place; one that lay there broken goes the way of the staging directory.
    pub(super) fn place(&self, staging: &Staging, id: &BundleId) -> Result<(), RegistryError> {
        let home = self.directory(id);
        let shelf = home.parent().unwrap_or(&self.root);
        durable::ensure_directory(shelf).map_err(at(shelf))?;
        let flags = if home.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &staging.path, CWD, &home, flags).map_err(|errno| at(&home)(errno.into()))?;
        crash_point::reach("model.placed");
        durable::sync_directory(shelf).map_err(at(shelf))?;
        durable::sync_directory(&self.root).map_err(at(&self.root))?;
        crash_point::reach("model.installed");
        Ok(())
    }

    /// Takes a bundle away: out of sight in one rename, so that nobody finds half of it.
    pub(super) fn remove(&self, id: &BundleId) -> Result<(), RegistryError> {
        let home = self.directory(id);
        let condemned = self.root.join(format!("{CONDEMNED}{}-{}", id.name(), id.version()));
        remove(&condemned)?;
        fs::rename(&home, &condemned).map_err(at(&home))?;
        crash_point::reach("model.condemned");
        // Another version may lie there still.
        let _ = fs::remove_dir(home.parent().unwrap_or(&home));
        durable::sync_directory(&self.root).map_err(at(&self.root))?;
        remove(&condemned)?;
        crash_point::reach("model.removed");
        Ok(())
    }

    /// Takes away what commands left that were killed.
    pub(super) fn sweep(&self) -> Result<(), RegistryError> {
        for name in names(&self.root)?.iter().filter(|name| name.starts_with(CONDEMNED) || *name == STAGING) {
            remove(&self.root.join(name))?;
        }
        Ok(())
    }

    fn locked(&self, name: &str, operation: FlockOperation) -> Result<File, RegistryError> {
        let path = self.root.join(name);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(at(&path))?;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(RegistryError::Busy(self.root.clone())),
                Err(error) => return Err(at(&path)(error.into())),
            }
        }
    }
}

impl Staging {
    pub(super) fn write_receipt(&self, receipt: &impl Serialize) -> Result<(), RegistryError> {
        let path = self.path.join(RECEIPT_FILE);
        durable::write_new(&path, &mut json(receipt).as_slice(), "model.receipt-written").map_err(at(&path))?;
        durable::sync_directory(&self.path).map_err(at(&self.path))?;
        crash_point::reach("model.staged");
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next command tries again.
        let _ = remove(&self.path);
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> RegistryError + use<> {
    let path = path.to_owned();
    move |source| RegistryError::Io { path: path.clone(), source }
}

fn remove(directory: &Path) -> Result<(), RegistryError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(directory)(error)),
        _ => Ok(()),
    }
}

/// The names in a directory that are text; none where there is no directory.
fn names(directory: &Path) -> Result<Vec<String>, RegistryError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(directory)(error)),
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry.map_err(at(directory))?.file_name().into_string().ok());
    entries.filter_map(|entry| name(entry).transpose()).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RegistryError> {
    let Some(bytes) = durable::read_if_there(path, MAX_RECORD_BYTES).map_err(at(path))? else { return Ok(None) };
    let damaged = |e: serde_json::Error| RegistryError::Damaged { path: path.to_owned(), reason: e.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn write(path: &Path, record: &impl Serialize, points: Points) -> Result<(), RegistryError> {
    durable::replace(path, &json(record), points).map_err(at(path))
}

fn json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(record).expect("our records are plain data")
}
