//! Listing the folder: the truth about which files are there (R1).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType};

use super::identity::{FileIdentity, with_suffix};
use super::ignore::ignored;
use super::open::{Root, look_at};
use super::watch;

/// Folders below the acquisition folder deeper than this are not entered.
const MAX_DEPTH: usize = 32;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter<'a> {
    /// Whether sub-folders are entered.
    pub(super) recursive: bool,
    /// The suffix of done-markers where they are in use (R4d).
    pub(super) done_marker: Option<&'a str>,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Regular files by their path below the folder, ignored ones and those without their marker left out.
    pub(super) files: Vec<(PathBuf, FileIdentity)>,
    /// Watch descriptors by sub-folder, where an inotify object was given.
    pub(super) watches: HashMap<i32, PathBuf>,
    /// Links and special files passed over (R14).
    pub(super) special: u64,
    /// Files and folders that could not be looked at; the listing may lack some.
    pub(super) failures: Vec<io::Error>,
}

/// Lists the folder; `at` is its path, by which inotify watches it.
///
/// A folder is watched before it is listed, so that no file comes between.
pub(super) fn list(root: &Root, at: &Path, filter: Filter<'_>, inotify: Option<&OwnedFd>) -> Listing {
    let mut listing = Listing::default();
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if let Some(inotify) = inotify {
            match watch::add(inotify, &at.join(&folder), depth == 0) {
                Ok(descriptor) => {
                    listing.watches.insert(descriptor, folder.clone());
                }
                Err(error) => listing.failures.push(error),
            }
        }
        match list_one(root, &folder, filter, &mut listing) {
            Ok(inner) if filter.recursive && depth < MAX_DEPTH => {
                folders.extend(inner.into_iter().map(|name| (folder.join(name), depth + 1)));
            }
            Ok(_) => {}
            Err(error) => listing.failures.push(error),
        }
    }
    listing
}

/// Looks at one file by its path below the folder, through the same filter; `None` where it is no film.
pub(super) fn look(root: &Root, path: &Path, filter: Filter<'_>) -> io::Result<Option<FileIdentity>> {
    let hidden = path.iter().any(|name| ignored(name, filter.done_marker));
    if hidden || (!filter.recursive && path.components().count() != 1) {
        return Ok(None);
    }
    if let Some(suffix) = filter.done_marker
        && root.look(&with_suffix(path, suffix))?.is_none()
    {
        return Ok(None);
    }
    root.look(path)
}

/// Adds the films of one folder to the listing and returns its sub-folders' names.
fn list_one(root: &Root, folder: &Path, filter: Filter<'_>, listing: &mut Listing) -> io::Result<Vec<PathBuf>> {
    let fd = root.folder(folder)?;
    let mut names = Vec::new();
    let mut folders = Vec::new();
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        match entry.file_type() {
            FileType::Directory if name == "." || name == ".." => {}
            FileType::Directory if ignored(name, filter.done_marker) => {}
            FileType::Directory => folders.push(PathBuf::from(name)),
            // Some network file systems leave the type open.
            FileType::RegularFile | FileType::Unknown => names.push(entry.file_name().to_owned()),
            _ => listing.special += 1,
        }
    }
    names.sort_unstable();
    for name in &names {
        let film = OsStr::from_bytes(name.to_bytes());
        if ignored(film, filter.done_marker) {
            continue;
        }
        if let Some(suffix) = filter.done_marker {
            let marker = [name.to_bytes(), suffix.as_bytes()].concat();
            if names.binary_search_by(|known| known.to_bytes().cmp(&marker)).is_err() {
                continue;
            }
        }
        match look_at(fd.as_fd(), name) {
            Ok(Some(file)) => listing.files.push((folder.join(film), file)),
            Ok(None) => listing.special += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => listing.failures.push(error),
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn films(folder: &Path, filter: Filter<'_>) -> Vec<String> {
        let root = Root::open(folder).expect("it is there");
        let listing = list(&root, folder, filter, None);
        assert!(listing.failures.is_empty(), "{:?}", listing.failures);
        let mut names: Vec<_> = listing.files.iter().map(|(path, _)| path.display().to_string()).collect();
        names.sort();
        for (path, file) in &listing.files {
            assert_eq!(look(&root, path, filter).expect("it can be looked at"), Some(*file), "{}", path.display());
        }
        names
    }

    #[test]
    fn a_listing_holds_regular_files_with_their_markers() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(folder.path().join("day/room")).expect("writable");
        fs::create_dir_all(folder.path().join("@eaDir")).expect("writable");
        for name in ["b.png", "b.png.done", "a.png", "day/c.png", "day/room/d.png", "@eaDir/e.png", "f.tmp"] {
            fs::write(folder.path().join(name), b"film").expect("writable");
        }
        std::os::unix::fs::symlink("b.png", folder.path().join("link.png")).expect("writable");
        let flat = Filter { recursive: false, done_marker: None };
        assert_eq!(films(folder.path(), flat), ["a.png", "b.png", "b.png.done"]);
        let marked = Filter { recursive: false, done_marker: Some(".done") };
        assert_eq!(films(folder.path(), marked), ["b.png"]);
        let deep = Filter { recursive: true, done_marker: None };
        assert_eq!(films(folder.path(), deep), ["a.png", "b.png", "b.png.done", "day/c.png", "day/room/d.png"]);

        let root = Root::open(folder.path()).expect("it is there");
        assert_eq!(list(&root, folder.path(), flat, None).special, 1);
        for (name, filter) in [("day/c.png", flat), ("a.png", marked), ("f.tmp", flat), ("link.png", flat)] {
            assert_eq!(look(&root, Path::new(name), filter).expect("it can be looked at"), None, "{name}");
        }
    }
}
