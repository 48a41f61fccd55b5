//! Which film, and which state of which file.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

/// A film's identity: the SHA-256 of its bytes, whatever its name, time or place (R7).
///
/// `Display` gives 64 hexadecimal digits. It is also what a log line may call a film: file names can hold a patient's
/// name and never leave the device (R31).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilmId(pub [u8; 32]);

impl FilmId {
    /// The identity of a film with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Stands for a file whose bytes could not be had: this state of the file under this path.
    #[must_use]
    pub fn of_unread(path: &Path, file: &FileIdentity) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"unread\0");
        for number in [file.inode, file.size, file.mtime_ns.cast_unsigned(), file.ctime_ns.cast_unsigned()] {
            hash.update(number.to_be_bytes());
        }
        hash.update(path.as_os_str().as_bytes());
        Self(hash.finalize().into())
    }
}

impl fmt::Display for FilmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FilmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One state of one file: any write, replacement, or change of its attributes gives another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of content or attributes, in nanoseconds since 1970: unlike `mtime_ns` no program can set it.
    pub ctime_ns: i64,
}

impl FileIdentity {
    /// The file's modification time: when the film was acquired, as far as a file can tell.
    #[must_use]
    pub fn modified(&self) -> SystemTime {
        let distance = Duration::from_nanos(self.mtime_ns.unsigned_abs());
        if self.mtime_ns < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }
}

/// Where a film was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilmSource {
    /// Which film.
    pub film: FilmId,
    /// The file's path below the acquisition folder.
    pub path: PathBuf,
    /// The state in which it was read.
    pub file: FileIdentity,
}

impl FilmSource {
    /// A file whose bytes could not be had.
    #[must_use]
    pub fn unread(path: &Path, file: &FileIdentity) -> Self {
        Self { film: FilmId::of_unread(path, file), path: path.to_path_buf(), file: *file }
    }

    /// Whether `film` only stands for this state of the file, and is no digest of its bytes.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.film == FilmId::of_unread(&self.path, &self.file)
    }

    /// The path of this film's done-marker.
    #[must_use]
    pub fn marker(&self, suffix: &str) -> PathBuf {
        with_suffix(&self.path, suffix)
    }
}

/// `path` with `suffix` after its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(OsStr::new(suffix));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_digest_of_the_bytes_in_hexadecimal() {
        // FIPS 180-2 appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(FilmId::of(b"abc").to_string(), expected);
    }

    #[test]
    fn an_unread_file_is_known_by_its_path_and_state() {
        let file = FileIdentity { inode: 1, size: 2, mtime_ns: 3, ctime_ns: 4 };
        let id = FilmId::of_unread(Path::new("a"), &file);
        assert_eq!(id, FilmId::of_unread(Path::new("a"), &file));
        assert_ne!(id, FilmId::of_unread(Path::new("b"), &file));
        assert_ne!(id, FilmId::of_unread(Path::new("a"), &FileIdentity { ctime_ns: 5, ..file }));
    }

    #[test]
    fn times_before_1970_are_accepted() {
        let file = FileIdentity { inode: 1, size: 2, mtime_ns: -1_000_000_000, ctime_ns: 0 };
        assert_eq!(file.modified(), UNIX_EPOCH - Duration::from_secs(1));
    }
}
