//! Files and directories that are on the disk when the call returns, with a named crash point at each step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::crash_point;

/// Crash points of a file that takes the place of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Points {
    /// The new file is on the disk under its passing name.
    pub(crate) written: &'static str,
    /// It has its name; the directory may not yet be on the disk.
    pub(crate) renamed: &'static str,
    /// All is on the disk.
    pub(crate) synced: &'static str,
}

/// Makes a directory that only its owner may use, on the disk; that it is there already is an error.
pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Makes it where it is missing.
pub(crate) fn ensure_directory(path: &Path) -> io::Result<()> {
    match create_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Writes a new file of what `content` gives and flushes it; the directory is flushed by the caller, once for all.
pub(super) fn write_new(path: &Path, content: &mut impl Read, point: &'static str) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = io::copy(content, &mut file)?;
    file.sync_all()?;
    crash_point::reach(point);
    Ok(written)
}

/// Gives `path` new content: after a crash it has the old or the new one, whole.
pub(crate) fn replace(path: &Path, content: &[u8], points: Points) -> io::Result<()> {
    let passing = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&passing)?;
    file.write_all(content)?;
    file.sync_all()?;
    crash_point::reach(points.written);
    fs::rename(&passing, path)?;
    crash_point::reach(points.renamed);
    sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    crash_point::reach(points.synced);
    Ok(())
}

/// Flushes the names in a directory.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The file's bytes, or `None` where there is none; more than `limit` bytes are an error.
pub(super) fn read_if_there(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => read_up_to(file, limit).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All bytes of a file of at most `limit`.
pub(super) fn read_up_to(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}
