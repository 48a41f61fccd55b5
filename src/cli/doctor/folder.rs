//! The acquisition folder: there, readable, and watched in a way that suits its file system (R3).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};

use super::Check;
use crate::acquisition::{Filesystem, Root, WatchMode};
use crate::config::{AcquisitionSettings, AfterPublish};

/// The folder's checks.
pub(super) fn check(settings: &AcquisitionSettings) -> Vec<Check> {
    let mut checks = vec![folder(settings), watching(settings)];
    checks.extend(after(settings));
    checks
}

fn folder(settings: &AcquisitionSettings) -> Check {
    let (name, path) = ("folder", settings.folder.display());
    let remedy = "create or mount it; the daemon waits for it and says folder_missing meanwhile";
    let root = match Root::open(&settings.folder) {
        Ok(root) => root,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Check::fail(name, format!("{path}: {error}"), give_rights("r-x"));
        }
        Err(error) => return Check::fail(name, format!("{path}: {error}"), remedy),
    };
    if let Err(error) = root.identity() {
        return Check::fail(name, format!("{path}: {error}"), remedy);
    }
    match fs::read_dir(&settings.folder).map(|mut entries| entries.next().transpose()) {
        Ok(Ok(_)) => Check::ok(name, format!("{path} can be listed")),
        Ok(Err(error)) | Err(error) => Check::fail(name, format!("{path}: {error}"), give_rights("r-x")),
    }
}

fn give_rights(rights: &str) -> String {
    format!("let the daemon's user in: setfacl -m u:landmarkd:{rights} on it, and x on every folder above")
}

fn watching(settings: &AcquisitionSettings) -> Check {
    let name = "watching";
    let found = fs::File::open(&settings.folder).and_then(Filesystem::of);
    let Ok(filesystem) = found else {
        return Check::warn(name, "what the folder lies on cannot be told before it is there", "see folder");
    };
    let mounted = fs::read_to_string("/proc/self/mountinfo").ok().zip(settings.folder.canonicalize().ok());
    let mount = mounted.and_then(|(table, folder)| Mount::of(&table, &folder));
    words(filesystem, mount.as_ref(), settings.settle, settings.rescan)
}

fn words(filesystem: Filesystem, mount: Option<&Mount>, settle: Option<Duration>, rescan: Duration) -> Check {
    let kind = mount.map_or_else(|| filesystem.name.to_owned(), |mount| mount.kind.clone());
    let place = match mount {
        Some(Mount { is_the_folder: true, .. }) => ", a mount of its own",
        _ => "",
    };
    let rights = mount.filter(|mount| mount.is_read_only).map_or("", |_| ", read-only");
    let settle = settle.unwrap_or_else(|| filesystem.mode.settle()).as_millis();
    let rescan = rescan.as_secs();
    let how = match filesystem.mode {
        WatchMode::Inotify => {
            format!("watched: the kernel tells of new files at once, all are listed every {rescan} s")
        }
        WatchMode::Polling => {
            format!("polled: what other machines write there raises no event here, so it is listed every {rescan} s")
        }
    };
    let words = format!("{kind}{place}{rights}; {how}; a file must rest for {settle} ms");
    if filesystem.mode == WatchMode::Inotify && settle < 500 && mount.is_some_and(|mount| mount.kind == "overlay") {
        return Check::warn("watching", words, "an overlay's events may come before its data: leave settle_ms out");
    }
    Check::ok("watching", words)
}

/// With `move` or `delete` the daemon must be able to take films away.
fn after(settings: &AcquisitionSettings) -> Option<Check> {
    let name = "after";
    let writable = |path: &Path, what: &str| match access(path, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => None,
        Err(errno) => Some(Check::fail(
            name,
            format!("{}: {what}: {errno}", path.display()),
            format!(
                "{}; under the unit, add ReadWritePaths= as in the example write-back.conf, or set after = \"keep\"",
                give_rights("rwx")
            ),
        )),
    };
    let failed = match &settings.after {
        AfterPublish::Keep => return None,
        AfterPublish::Delete => writable(&settings.folder, "films cannot be deleted there"),
        AfterPublish::Move(target) => writable(&settings.folder, "films cannot be taken from there")
            .or_else(|| writable(target, "films cannot be moved there")),
    };
    Some(failed.unwrap_or_else(|| Check::ok(name, "films can be taken out of the folder after their results")))
}

/// What is mounted where a folder lies.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    kind: String,
    is_read_only: bool,
    is_the_folder: bool,
}

impl Mount {
    /// The deepest and, of the same depth, the last mount of a `/proc/<pid>/mountinfo` at or above `folder`.
    fn of(table: &str, folder: &Path) -> Option<Self> {
        let mounts = table.lines().filter_map(|line| {
            // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw (proc_pid_mountinfo(5))
            let (mount, device) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(4);
            let (point, options) = (unescaped(fields.next()?), fields.next()?);
            let mut device = device.split(' ');
            let (kind, device_options) = (device.next()?, device.nth(1).unwrap_or_default());
            let is_read_only = [options, device_options].iter().any(|all| all.split(',').any(|option| option == "ro"));
            folder
                .starts_with(&point)
                .then(|| (point.clone(), Self { kind: kind.to_owned(), is_read_only, is_the_folder: point == folder }))
        });
        mounts.max_by_key(|(point, _)| point.components().count()).map(|(_, mount)| mount)
    }
}

/// A path of mountinfo: blanks and backslashes are written as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            None => plain.push_str(part),
        }
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a
40 22 0:40 / /srv rw,noatime shared:1 - ext4 /dev/sda1 rw
41 40 0:41 / /srv/x\\040ray rw,relatime - cifs //server/share ro,vers=3.0
";

    #[test]
    fn a_folder_lies_on_the_deepest_mount_above_it() {
        for (folder, kind, is_read_only, is_the_folder) in [
            ("/etc", "overlay", false, false),
            ("/srv", "ext4", false, true),
            ("/srv/other", "ext4", false, false),
            ("/srv/x ray", "cifs", true, true),
            ("/srv/x ray/room 1", "cifs", true, false),
        ] {
            let expected = Mount { kind: kind.to_owned(), is_read_only, is_the_folder };
            assert_eq!(Mount::of(TABLE, Path::new(folder)), Some(expected), "{folder}");
        }
    }

    #[test]
    fn it_is_said_why_a_folder_is_polled() {
        let mount = Mount { kind: "cifs".to_owned(), is_read_only: true, is_the_folder: true };
        let filesystem = Filesystem { name: "smb2", mode: WatchMode::Polling };
        let check = words(filesystem, Some(&mount), None, Duration::from_secs(30));
        for part in ["cifs, a mount of its own, read-only", "polled", "raises no event", "every 30 s", "5000 ms"] {
            assert!(check.words.contains(part), "{part}: {}", check.words);
        }
        let local = words(Filesystem { name: "local", mode: WatchMode::Inotify }, None, None, Duration::from_secs(7));
        assert_eq!(
            local,
            Check::ok(
                "watching",
                "local; watched: the kernel tells of new files at once, all are listed every 7 s; a file must rest \
                 for 2000 ms"
            )
        );
    }
}
