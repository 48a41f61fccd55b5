//! inotify as a wake-up: what it says is a hint, what it misses the scan finds (R1, R2).

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Events read at once, in bytes; an event has at most 16 + 256.
const BUFFER_BYTES: usize = 1 << 14;

/// Where to look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// At these files, by their paths below the folder.
    Files(BTreeSet<PathBuf>),
    /// At everything: events were lost, or a folder came, went or was unmounted.
    Everything,
}

/// The events of one folder and its sub-folders.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: AsyncFd<Arc<OwnedFd>>,
    folders: HashMap<i32, PathBuf>,
}

/// A new inotify object without watches.
///
/// # Errors
/// That of inotify_init1(2), such as too many of them.
pub(super) fn inotify() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)
}

/// Watches the folder at `path`, or renews its watch; `follow` allows it to be a link.
///
/// Writing is not watched, only its end: a file being written is looked at when it is due to have settled.
pub(super) fn add(inotify: &OwnedFd, path: &Path, follow: bool) -> io::Result<i32> {
    let mut flags = WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::MOVE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::EXCL_UNLINK
        | WatchFlags::ONLYDIR;
    if !follow {
        flags |= WatchFlags::DONT_FOLLOW;
    }
    Ok(inotify::add_watch(inotify, path, flags)?)
}

impl Watcher {
    /// Waits on `inotify` for events of the watched `folders`, given by watch descriptor.
    ///
    /// # Errors
    /// That of the runtime's reactor.
    #[expect(deprecated, reason = "deprecated for owners that may close their descriptor early: an OwnedFd cannot")]
    pub(super) fn new(inotify: Arc<OwnedFd>, folders: HashMap<i32, PathBuf>) -> io::Result<Self> {
        Ok(Self { inotify: AsyncFd::new(inotify)?, folders })
    }

    /// The object to add watches to.
    #[must_use]
    pub(super) fn inotify(&self) -> Arc<OwnedFd> {
        Arc::clone(self.inotify.get_ref())
    }

    /// Replaces the watched folders by what a scan found.
    pub(super) fn set_folders(&mut self, folders: HashMap<i32, PathBuf>) {
        self.folders = folders;
    }

    /// Waits for the next hint; safe to drop while waiting.
    ///
    /// # Errors
    /// That of reading the events.
    pub(super) async fn next(&mut self) -> io::Result<Hint> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let read = ready.try_io(|inotify| read(inotify.get_ref(), &self.folders));
            match read {
                Ok(Ok(Hint::Files(files))) if files.is_empty() => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

/// Reads one buffer of events.
fn read(inotify: &OwnedFd, folders: &HashMap<i32, PathBuf>) -> io::Result<Hint> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut reader = Reader::new(inotify, &mut buffer);
    let mut hint = Hint::Files(BTreeSet::new());
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                hint.note(event.events(), folders.get(&event.wd()).map(PathBuf::as_path), name);
            }
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if reader.is_buffer_empty() {
            return Ok(hint);
        }
    }
}

impl Hint {
    fn note(&mut self, events: ReadFlags, folder: Option<&Path>, name: Option<&OsStr>) {
        // An unknown folder is one whose scan is still under way, or the overflow's descriptor of -1.
        let lost = ReadFlags::QUEUE_OVERFLOW
            | ReadFlags::UNMOUNT
            | ReadFlags::IGNORED
            | ReadFlags::DELETE_SELF
            | ReadFlags::MOVE_SELF
            | ReadFlags::ISDIR;
        match (&mut *self, folder, name) {
            (Self::Files(files), Some(folder), Some(name)) if !events.intersects(lost) => {
                files.insert(folder.join(name));
            }
            // A folder's own attributes changed.
            (_, Some(_), None) if events.difference(ReadFlags::ISDIR) == ReadFlags::ATTRIB => {}
            _ => *self = Self::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_events_and_folders_that_come_or_go_ask_for_a_scan() {
        let at = Some(Path::new("day"));
        let name = Some(OsStr::new("film"));
        for (events, folder, name, expected) in [
            (ReadFlags::CLOSE_WRITE, at, name, Some("day/film")),
            (ReadFlags::MOVED_TO, at, name, Some("day/film")),
            (ReadFlags::QUEUE_OVERFLOW, None, None, None),
            (ReadFlags::UNMOUNT, at, None, None),
            (ReadFlags::IGNORED, at, None, None),
            (ReadFlags::MOVE_SELF, at, None, None),
            (ReadFlags::CREATE | ReadFlags::ISDIR, at, name, None),
            (ReadFlags::CREATE, None, name, None),
        ] {
            let mut hint = Hint::Files(BTreeSet::new());
            hint.note(events, folder, name);
            let wanted = expected.map_or(Hint::Everything, |path| Hint::Files(BTreeSet::from([PathBuf::from(path)])));
            assert_eq!(hint, wanted, "{events:?}");
            let was_file = matches!(hint, Hint::Files(_));
            hint.note(ReadFlags::CLOSE_WRITE, at, Some(OsStr::new("next")));
            assert_eq!(matches!(hint, Hint::Files(_)), was_file, "a file after {events:?} hides no loss");
        }
    }

    #[tokio::test]
    async fn a_closed_file_is_named_with_its_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inotify = Arc::new(inotify().expect("inotify objects are left"));
        let wd = add(&inotify, folder.path(), true).expect("it is there");
        let mut watcher = Watcher::new(inotify, HashMap::from([(wd, PathBuf::from("day"))])).expect("a reactor");
        std::fs::write(folder.path().join("film"), b"film").expect("writable");
        let hint = watcher.next().await.expect("readable");
        assert_eq!(hint, Hint::Files(BTreeSet::from([PathBuf::from("day/film")])));
    }
}
