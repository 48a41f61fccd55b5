//! What kind of file system a folder lies on, and so how it is watched (R3).

use std::os::fd::AsFd;
use std::time::Duration;

/// How the folder is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchMode {
    /// inotify wakes us, the rescan finds what it missed.
    Inotify,
    /// Other machines write here and raise no event: only the scan finds films.
    Polling,
}

/// A file system's name and how it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// The name a person knows it by; "local" for all that raise events.
    pub name: &'static str,
    /// How a folder on it is watched.
    pub mode: WatchMode,
}

/// Magic numbers of statfs(2) and linux/magic.h.
const REMOTE: [(u32, &str); 11] = [
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x0000_517B, "smb"),
    (0x0000_6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "ceph"),
    (0x5346_414F, "afs"),
    (0x7375_7245, "coda"),
    (0x0000_564C, "ncp"),
    (0x786F_4256, "vboxsf"),
];

impl WatchMode {
    /// How long a file's size and times must stay unchanged, where the settings leave it to us (R4b).
    #[must_use]
    pub const fn settle(self) -> Duration {
        match self {
            Self::Inotify => Duration::from_secs(2),
            // Attributes are cached: NFS and SMB clients look at the server every few seconds.
            Self::Polling => Duration::from_secs(5),
        }
    }
}

impl Filesystem {
    /// The file system that an open folder lies on.
    ///
    /// # Errors
    /// That of fstatfs(2).
    pub fn of(folder: impl AsFd) -> std::io::Result<Self> {
        Ok(Self::of_magic(rustix::fs::fstatfs(folder)?.f_type as u32))
    }

    fn of_magic(magic: u32) -> Self {
        match REMOTE.iter().find(|(known, _)| *known == magic) {
            Some((_, name)) => Self { name, mode: WatchMode::Polling },
            None => Self { name: "local", mode: WatchMode::Inotify },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_file_systems_are_polled_and_settle_longer() {
        for (magic, name, mode, settle_s) in [
            (0xEF53, "local", WatchMode::Inotify, 2),
            (0x0102_1994, "local", WatchMode::Inotify, 2),
            (0xFF53_4D42, "cifs", WatchMode::Polling, 5),
            (0x6969, "nfs", WatchMode::Polling, 5),
            (0x6573_5546, "fuse", WatchMode::Polling, 5),
            (0x0102_1997, "9p", WatchMode::Polling, 5),
        ] {
            let filesystem = Filesystem::of_magic(magic);
            assert_eq!((filesystem.name, filesystem.mode), (name, mode), "{magic:#x}");
            assert_eq!(filesystem.mode.settle(), Duration::from_secs(settle_s), "{magic:#x}");
        }
    }
}
