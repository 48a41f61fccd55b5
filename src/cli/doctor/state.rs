//! The state directory: who may read it, how much room it has, and whether a daemon holds it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Check;
use crate::config::StateSettings;
use crate::store::DATABASE_FILE;

/// What others may do is told for so many files at most.
const TOLD: usize = 3;

/// The state directory's checks.
pub(super) fn check(settings: &StateSettings) -> Vec<Check> {
    let directory = &settings.directory;
    vec![modes(directory), space(settings), daemon(directory)]
}

fn modes(directory: &Path) -> Check {
    let (name, path) = ("state", directory.display());
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::ok(name, format!("{path} is not there yet: the first start makes it, for its owner alone"));
        }
        Err(error) => return Check::fail(name, format!("{path}: {error}"), "give it to the daemon's user"),
    };
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && own != 0 {
        return Check::fail(
            name,
            format!("{path} belongs to the user with the number {}, this one has {own}", metadata.uid()),
            "run doctor as the daemon's user, or chown the directory to it",
        );
    }
    let mut open = Vec::new();
    if let Err(error) = readable_by_others(directory, &mut open) {
        return Check::fail(name, format!("{path}: {error}"), "give it to the daemon's user");
    }
    if !open.is_empty() {
        let told: Vec<_> =
            open.iter().take(TOLD).map(|(path, mode)| format!("{} {mode:04o}", path.display())).collect();
        let words = format!("others may use {} entries of it: {}", open.len(), told.join(", "));
        return Check::warn(name, words, format!("chmod -R go-rwx {path}"));
    }
    let by_root = if own == 0 && metadata.uid() != 0 { "; looked at by root, who may read everything" } else { "" };
    Check::ok(name, format!("{path} is for its owner alone, and all below it{by_root}"))
}

/// Every entry that grants group or others anything; links are not followed.
fn readable_by_others(path: &Path, open: &mut Vec<(PathBuf, u32)>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_symlink() && mode & 0o077 != 0 {
        open.push((path.to_owned(), mode));
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            match readable_by_others(&entry?.path(), open) {
                // A live daemon removes what it no longer needs.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn space(settings: &StateSettings) -> Check {
    let there = settings.directory.ancestors().find(|path| path.exists()).unwrap_or(&settings.directory);
    match rustix::fs::statvfs(there) {
        Ok(system) => judged(system.f_bavail.saturating_mul(system.f_frsize), settings),
        Err(errno) => Check::fail("space", format!("{}: {errno}", there.display()), "see state"),
    }
}

fn judged(free: u64, settings: &StateSettings) -> Check {
    let words = format!("{} MiB free for the state", free >> 20);
    let (warn, stop) = (settings.warn_free_bytes, settings.stop_free_bytes);
    if free < stop {
        let remedy = format!("make room: below {} MiB no film is taken, {} MiB are wished", stop >> 20, warn >> 20);
        Check::fail("space", words, remedy)
    } else if free < warn {
        Check::warn("space", words, format!("make room: {} MiB are wished", warn >> 20))
    } else {
        Check::ok("space", words)
    }
}

fn daemon(directory: &Path) -> Check {
    let name = "daemon";
    match holder(directory) {
        Ok(Holder::Running(Some(pid))) => Check::ok(name, format!("runs as process {pid}")),
        Ok(Holder::Running(None)) => Check::ok(name, "runs, and holds its state"),
        Ok(Holder::Stopped) => Check::warn(name, "does not run", "systemctl start landmarkd"),
        Ok(Holder::Never) => Check::warn(name, "has never run with this state", "systemctl start landmarkd"),
        Err(error) => Check::fail(name, format!("{DATABASE_FILE}: {error}"), "run doctor as the daemon's user"),
    }
}

/// Who has the state open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Holder {
    /// A daemon, and its number where the kernel tells it.
    Running(Option<u32>),
    /// Nobody.
    Stopped,
    /// There is no state yet.
    Never,
}

/// Who has the state in `directory` open.
///
/// # Errors
/// When the state cannot be opened for reading.
pub(in crate::cli) fn holder(directory: &Path) -> io::Result<Holder> {
    let file = match File::open(directory.join(DATABASE_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Never),
        Err(error) => return Err(error),
    };
    // Given back at once, with the file: a daemon that starts in this moment would start again.
    match file.try_lock_shared() {
        Ok(()) => Ok(Holder::Stopped),
        Err(TryLockError::WouldBlock) => {
            let inode = file.metadata()?.ino();
            let pid = fs::read_to_string("/proc/locks").ok().and_then(|table| owner(&table, inode));
            Ok(Holder::Running(pid))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The process that holds a lock on an inode, by a `/proc/locks` (proc_locks(5)); another namespace's is 0 there.
fn owner(table: &str, inode: u64) -> Option<u32> {
    table.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 5437 08:01:131086 0 EOF
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = fields.get(5)?.rsplit(':').next()?.parse() == Ok(inode);
        fields.get(4)?.parse().ok().filter(|&pid| is_it && pid != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::store::Store;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    #[test]
    fn what_others_may_read_is_told() {
        let home = tempfile::tempdir().expect("a directory");
        let state = home.path().join("state");
        assert_eq!((modes(&state).verdict, holder(&state).expect("fine")), (Verdict::Ok, Holder::Never));
        drop(Store::open(&state, None).expect("usable"));
        assert_eq!(modes(&state).verdict, Verdict::Ok, "{:?}", modes(&state));
        fs::set_permissions(state.join(DATABASE_FILE), fs::Permissions::from_mode(0o640)).expect("ours");
        let check = modes(&state);
        assert!(check.verdict == Verdict::Warn && check.words.contains(&format!("{DATABASE_FILE} 0640")), "{check:?}");
    }

    #[test]
    fn a_daemon_that_holds_the_state_is_found_and_not_disturbed() {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(home.path(), None).expect("usable");
        let Holder::Running(pid) = holder(home.path()).expect("readable") else { panic!("it is held") };
        assert!(pid.is_none_or(|pid| pid == std::process::id()), "{pid:?}");
        drop(store);
        assert_eq!(holder(home.path()).expect("readable"), Holder::Stopped);
        Store::open(home.path(), None).expect("nothing was left locked");
    }

    #[test]
    fn the_owner_of_a_lock_is_found_by_its_inode() {
        let table = "1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF\n1: -> FLOCK x\n2: FLOCK  ADVISORY  WRITE 17 00:1a:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 00:1a:78 0 EOF\n";
        assert_eq!((owner(table, 77), owner(table, 78), owner(table, 1)), (Some(17), None, None));
    }

    #[test]
    fn little_room_is_told_and_none_is_a_fault() {
        let settings = StateSettings {
            directory: PathBuf::new(),
            warn_free_bytes: 1 << 30,
            stop_free_bytes: 128 << 20,
            ballast_bytes: 0,
            archive_age: Duration::ZERO,
            archive_bytes: 0,
        };
        for (free, verdict) in [
            ((1 << 30) - 1, Verdict::Warn),
            (1 << 30, Verdict::Ok),
            (128 << 20, Verdict::Warn),
            ((128 << 20) - 1, Verdict::Fail),
        ] {
            assert_eq!(judged(free, &settings).verdict, verdict, "{free}");
        }
    }
}
