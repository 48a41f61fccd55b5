//! What lies in a directory, and that none of it is for anybody but its owner.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Every file and folder at and below a path.
pub(crate) fn everything(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("ours") {
            found.extend(everything(&entry.expect("ours").path()));
        }
    }
    found
}

/// All of it is for its owner alone, and there is something: this file at least.
pub(crate) fn for_its_owner_alone(directory: &Path, file: &str) {
    let found = everything(directory);
    assert!(found.iter().any(|path| path.is_file() && path.ends_with(file)), "no {file} in {found:?}");
    for path in found {
        let metadata = fs::symlink_metadata(&path).expect("there");
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o7777, expected, "{}", path.display());
    }
}
