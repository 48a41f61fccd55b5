//! Opening and reading below the folder without following a link (R5, R14).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;

use super::identity::FileIdentity;
use crate::disposition::Disposition;

/// Why a file's bytes could not be had. No message holds the file's name (R31).
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was written to or replaced since it settled, or while it was read.
    #[error("the file changed while it was read")]
    Changed,
    /// It is no longer there.
    #[error("the file is gone")]
    Gone,
    /// A link, a folder, a pipe, a socket or a device.
    #[error("not a regular file")]
    NotRegular,
    /// Larger than `max_file_bytes` (R12).
    #[error("the file has {found} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The system refuses.
    #[error("the file cannot be read: {0}")]
    Io(#[source] io::Error),
}

impl ReadError {
    /// What it asks the daemon to do: only the size is the film's own fault.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::TooLarge { .. } | Self::NotRegular => Disposition::Reject,
            Self::Changed | Self::Gone | Self::Io(_) => Disposition::Retry,
        }
    }
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::STALE => Self::Gone,
            // What O_NOFOLLOW, RESOLVE_BENEATH and sockets answer.
            Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::NOTDIR => Self::NotRegular,
            other => Self::Io(other.into()),
        }
    }
}

/// Which folder: a remount or a replacement gives another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderIdentity {
    device: (u32, u32),
    inode: u64,
}

/// The acquisition folder, open.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// The folder at `path`, which may itself be a link: only what lies in it is not trusted.
    ///
    /// # Errors
    /// That of open(2), such as a missing folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat(CWD, path, flags, Mode::empty())? })
    }

    /// Which folder this is.
    ///
    /// # Errors
    /// That of statx(2).
    pub fn identity(&self) -> io::Result<FolderIdentity> {
        let stat = statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
        Ok(FolderIdentity { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino })
    }

    /// Whether a file system is mounted here: it is another than that of the folder above.
    ///
    /// Another mount of the same file system is none: systemd makes such a one for each of a unit's `ReadWritePaths=`.
    ///
    /// # Errors
    /// That of statx(2).
    pub fn is_mount_point(&self) -> io::Result<bool> {
        let above = statx(&self.fd, "..", AtFlags::empty(), StatxFlags::empty())?;
        Ok(self.identity()?.device != (above.stx_dev_major, above.stx_dev_minor))
    }

    /// The state of the regular file at `path`; `None` where there is none, or something else.
    ///
    /// # Errors
    /// That of statx(2), a missing file excepted.
    pub fn look(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        // The file is opened by name only to be looked at: no right to read it is needed, and no device is touched.
        match self.open_beneath(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => regular(&fd),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV | Errno::STALE) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// The sub-folder at `path`, or the folder itself where `path` is empty.
    ///
    /// # Errors
    /// That of open(2).
    pub fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?)
    }

    /// The bytes of the regular file at `path`, read once, if it is and stays in the state `expected`.
    ///
    /// # Errors
    /// [`ReadError`]; nothing is read of a file of more than `limit` bytes.
    pub fn read(&self, path: &Path, expected: &FileIdentity, limit: u64) -> Result<Vec<u8>, ReadError> {
        // O_NONBLOCK: a pipe put in the file's place must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match self.open_beneath(path, flags | OFlags::NOATIME) {
            // Only a file's owner may leave its access time alone.
            Err(Errno::PERM) => self.open_beneath(path, flags)?,
            other => other?,
        };
        let found = regular(&fd).map_err(ReadError::Io)?.ok_or(ReadError::NotRegular)?;
        if found != *expected {
            return Err(ReadError::Changed);
        }
        if found.size > limit {
            return Err(ReadError::TooLarge { found: found.size, limit });
        }
        let mut bytes = Vec::new();
        let size = usize::try_from(found.size).map_err(|_| ReadError::TooLarge { found: found.size, limit })?;
        // One byte more, so that the end is met without growing the buffer.
        bytes.try_reserve_exact(size + 1).map_err(|e| ReadError::Io(io::Error::new(io::ErrorKind::OutOfMemory, e)))?;
        let mut file = File::from(fd);
        file.by_ref().take(found.size + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
        let now = regular(&file).map_err(ReadError::Io)?;
        // The name may have been given to another file meanwhile.
        let named = self.look(path).map_err(ReadError::Io)?;
        if bytes.len() != size || now != Some(found) || named != Some(found) {
            return Err(ReadError::Changed);
        }
        Ok(bytes)
    }

    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.fd, path, flags, Mode::empty(), resolve) {
            // Kernels before 5.6, and sandboxes that do not know it.
            Err(Errno::NOSYS | Errno::PERM) => self.open_step_by_step(path, flags),
            other => other,
        }
    }

    fn open_step_by_step(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder: Option<OwnedFd> = None;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let name = match name {
                Component::Normal(name) => name,
                Component::CurDir => ".".as_ref(),
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => return Err(Errno::XDEV),
            };
            let within = folder.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            if names.peek().is_none() {
                return openat(within, name, flags, Mode::empty());
            }
            folder = Some(openat(within, name, step, Mode::empty())?);
        }
        Err(Errno::NOENT)
    }
}

/// The state of an open file, `None` where it is no regular one.
fn regular(fd: impl AsFd) -> io::Result<Option<FileIdentity>> {
    let stat = statx(fd, "", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS)?;
    Ok(identity(&stat))
}

/// The state of the regular file `name` in an open folder, `None` where it is no regular one.
pub(super) fn look_at(folder: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<Option<FileIdentity>> {
    let stat = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    Ok(identity(&stat))
}

fn identity(stat: &Statx) -> Option<FileIdentity> {
    let ns = |time: rustix::fs::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
    };
    (FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::RegularFile).then(|| FileIdentity {
        inode: stat.stx_ino,
        size: stat.stx_size,
        mtime_ns: ns(stat.stx_mtime),
        ctime_ns: ns(stat.stx_ctime),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn folder() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Root::open(folder.path()).expect("it is there");
        (folder, root)
    }

    fn seen(root: &Root, name: &str) -> FileIdentity {
        root.look(Path::new(name)).expect("it can be looked at").expect("a regular file")
    }

    #[test]
    fn a_file_is_read_whole_in_sub_folders_too_and_step_by_step_as_well() {
        let (folder, root) = folder();
        fs::create_dir_all(folder.path().join("a/b")).expect("writable");
        fs::write(folder.path().join("a/b/film"), b"whole").expect("writable");
        let file = seen(&root, "a/b/film");
        assert_eq!(root.read(Path::new("a/b/film"), &file, 5).expect("readable"), b"whole");
        let fd = root.open_step_by_step(Path::new("a/b/film"), OFlags::RDONLY | OFlags::CLOEXEC).expect("readable");
        assert_eq!(regular(fd).expect("a file"), Some(file));
        assert_eq!(root.open_step_by_step(Path::new("a/../a/b/film"), OFlags::RDONLY).err(), Some(Errno::XDEV));
    }

    #[test]
    fn links_pipes_sockets_and_folders_are_no_films() {
        let (folder, root) = folder();
        let outside = tempfile::tempdir().expect("a temporary folder");
        fs::write(outside.path().join("secret"), b"secret").expect("writable");
        fs::write(folder.path().join("film"), b"film").expect("writable");
        symlink(outside.path().join("secret"), folder.path().join("link")).expect("writable");
        symlink("film", folder.path().join("inner-link")).expect("writable");
        symlink(outside.path(), folder.path().join("way")).expect("writable");
        fs::create_dir(folder.path().join("folder")).expect("writable");
        rustix::fs::mknodat(&root, "pipe", FileType::Fifo, Mode::RWXU, 0).expect("writable");
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("writable");
        let film = seen(&root, "film");
        for name in ["link", "inner-link", "way/secret", "folder", "pipe", "socket", "../film", "no-such-file"] {
            let path = Path::new(name);
            assert_eq!(root.look(path).expect("it can be looked at"), None, "{name}");
            let error = root.read(path, &film, 1000).expect_err(name);
            let expected = matches!(error, ReadError::NotRegular | ReadError::Gone);
            assert!(expected, "{name}: {error}");
            let error = root.open_step_by_step(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK);
            assert!(error.is_err() || matches!(name, "folder" | "pipe"), "{name}, step by step");
        }
    }

    #[test]
    fn a_changed_or_replaced_file_is_not_taken() {
        let (folder, root) = folder();
        let path = folder.path().join("film");
        fs::write(&path, b"first").expect("writable");
        let before = seen(&root, "film");
        fs::write(&path, b"second, longer").expect("writable");
        assert!(matches!(root.read(Path::new("film"), &before, 1000), Err(ReadError::Changed)));
        fs::rename(&path, folder.path().join("elsewhere")).expect("writable");
        assert!(matches!(root.read(Path::new("film"), &before, 1000), Err(ReadError::Gone)));
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let (folder, root) = folder();
        // A sparse file: nothing of it could be read in time.
        let file = fs::File::create(folder.path().join("film")).expect("writable");
        file.set_len(1 << 40).expect("sparse files are supported");
        let state = seen(&root, "film");
        let error = root.read(Path::new("film"), &state, 1 << 28).expect_err("far too large");
        assert!(matches!(error, ReadError::TooLarge { found: 0x100_0000_0000, .. }), "{error}");
    }
}
