//! The tree of files that is read: the machine's own, or one that a test has laid out.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// No file of the kernel that is read here is longer.
const MAX_BYTES: u64 = 64 * 1024;
/// No directory that is listed here holds more that matters.
const MAX_ENTRIES: usize = 512;

/// Where `/proc`, `/sys`, `/etc` and `/var` are.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// That of this machine.
    ///
    /// In builds with debug assertions the environment may name another in `LANDMARKD_MACHINE_ROOT`; a released daemon
    /// has no such switch.
    #[must_use]
    pub fn of_this_machine() -> Self {
        #[cfg(debug_assertions)]
        if let Some(directory) = std::env::var_os("LANDMARKD_MACHINE_ROOT") {
            return Self::at(Path::new(&directory));
        }
        Self::at(Path::new("/"))
    }

    /// The tree below `directory`.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_path_buf())
    }

    /// Whether it is the machine's own.
    pub(super) fn is_real(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// A path below it.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A file's text without the NUL bytes that end device-tree strings, trimmed; `None` where it cannot be read or is
    /// empty.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.path(path)).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        let text: String = String::from_utf8_lossy(&bytes).chars().filter(|c| *c != '\0').collect();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A file's whole number.
    pub(super) fn number(&self, path: &str) -> Option<i64> {
        self.text(path)?.parse().ok()
    }

    /// The names in a directory, sorted; none where it is not there.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let mut names: Vec<_> = entries.take(MAX_ENTRIES).filter_map(name).collect();
        names.sort();
        names
    }
}
