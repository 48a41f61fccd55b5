//! What happens to a film's file once its result is durable: nothing, unless the settings say so (R13).

use std::ffi::OsString;
use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::identity::FilmSource;
use super::open::Root;
use crate::config::AfterPublish;
use crate::crash_point;

/// Applies `after` to the file of a film whose result is durable; whether the file was there and still the same.
///
/// Its done-marker goes with it. A file that changed since it was read is left alone: it is another film. A name taken
/// in the target folder gets the film's identity in front; nothing there is overwritten.
///
/// # Errors
/// That of the file system, such as a missing right; the film stays where it is or, after a move across file systems
/// that failed in its last step, in both places.
pub fn apply_after(
    after: &AfterPublish,
    folder: &Path,
    source: &FilmSource,
    done_marker: Option<&str>,
) -> io::Result<bool> {
    if *after == AfterPublish::Keep {
        return Ok(true);
    }
    let root = Root::open(folder)?;
    if root.look(&source.path)?.as_ref() != Some(&source.file) {
        return Ok(false);
    }
    if let Err(error) = apply(after, &root, &source.path, source) {
        // Someone else took it away meanwhile.
        return if root.look(&source.path)?.is_none() { Ok(false) } else { Err(error) };
    }
    if let Some(marker) = done_marker.map(|suffix| source.marker(suffix))
        && root.look(&marker)?.is_some()
    {
        apply(after, &root, &marker, source)?;
    }
    Ok(true)
}

fn apply(after: &AfterPublish, root: &Root, path: &Path, source: &FilmSource) -> io::Result<()> {
    let parent = root.folder(path.parent().unwrap_or(Path::new("")))?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    match after {
        AfterPublish::Keep => Ok(()),
        AfterPublish::Delete => Ok(crash_point::step("after.delete", || unlinkat(&parent, name, AtFlags::empty()))?),
        AfterPublish::Move(target) => {
            let target = openat(CWD, target, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let mut unique = OsString::from(format!("{}-", source.film));
            unique.push(name);
            for free in [name, &unique] {
                let rename = || renameat_with(&parent, name, &target, free, RenameFlags::NOREPLACE);
                match crash_point::step("after.move", rename) {
                    Err(Errno::EXIST) => continue,
                    Err(Errno::XDEV) => match copy(&parent, name, &target, free) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                        result => return result,
                    },
                    result => return Ok(result?),
                }
            }
            Err(io::ErrorKind::AlreadyExists.into())
        }
    }
}

/// A move between file systems: the copy is durable before the source goes, and has its mode and times.
fn copy(
    from: &std::os::fd::OwnedFd,
    name: &std::ffi::OsStr,
    to: &std::os::fd::OwnedFd,
    free: &std::ffi::OsStr,
) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut source = File::from(openat(from, name, read, Mode::empty())?);
    let before = source.metadata()?;
    let mut target = File::from(openat(to, free, create, Mode::RUSR | Mode::WUSR)?);
    let copied = io::copy(&mut source, &mut target).and_then(|_| {
        // The mode of the open is cut by the umask; this one is not. Special bits are not for copies.
        target.set_permissions(Permissions::from_mode(before.mode() & 0o777))?;
        target.set_times(FileTimes::new().set_accessed(before.accessed()?).set_modified(before.modified()?))?;
        crash_point::step("after.copy", || target.sync_all())
    });
    if let Err(error) = copied {
        unlinkat(to, free, AtFlags::empty())?;
        return Err(error);
    }
    crash_point::step("after.directory", || rustix::fs::fsync(to))?;
    Ok(crash_point::step("after.remove", || unlinkat(from, name, AtFlags::empty()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acquisition::identity::FilmId;
    use std::fs;

    fn film(folder: &Path, name: &str, bytes: &[u8]) -> FilmSource {
        fs::write(folder.join(name), bytes).expect("writable");
        let root = Root::open(folder).expect("it is there");
        let file = root.look(Path::new(name)).expect("it can be looked at").expect("a regular file");
        FilmSource { film: FilmId::of(bytes), path: name.into(), file }
    }

    #[test]
    fn a_film_is_kept_moved_or_deleted_with_its_marker() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = tempfile::tempdir().expect("a temporary folder");
        let to = AfterPublish::Move(target.path().to_path_buf());
        let there = |name: &str| folder.path().join(name).exists();
        for (after, name, stays) in
            [(&AfterPublish::Keep, "a.png", true), (&AfterPublish::Delete, "b.png", false), (&to, "c.png", false)]
        {
            let source = film(folder.path(), name, b"film");
            let marker = format!("{name}.done");
            fs::write(folder.path().join(&marker), b"").expect("writable");
            assert!(apply_after(after, folder.path(), &source, Some(".done")).expect("allowed"), "{name}");
            assert_eq!((there(name), there(&marker)), (stays, stays), "{name}");
        }
        assert_eq!(fs::read(target.path().join("c.png")).expect("readable"), b"film");
        assert!(target.path().join("c.png.done").exists());
    }

    #[test]
    fn nothing_in_the_target_is_overwritten_and_a_changed_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = tempfile::tempdir().expect("a temporary folder");
        let to = AfterPublish::Move(target.path().to_path_buf());
        fs::write(target.path().join("a.png"), b"other").expect("writable");
        let source = film(folder.path(), "a.png", b"film");
        assert!(apply_after(&to, folder.path(), &source, None).expect("allowed"));
        assert_eq!(fs::read(target.path().join("a.png")).expect("readable"), b"other");
        let moved = target.path().join(format!("{}-a.png", source.film));
        assert_eq!(fs::read(moved).expect("readable"), b"film");

        let source = film(folder.path(), "b.png", b"film");
        fs::write(folder.path().join("b.png"), b"another film").expect("writable");
        assert!(!apply_after(&AfterPublish::Delete, folder.path(), &source, None).expect("allowed"));
        assert!(folder.path().join("b.png").exists());
    }

    #[test]
    fn a_move_across_file_systems_is_a_copy_and_a_removal() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        film(folder.path(), "a.png", b"film");
        let source = File::options().write(true).open(folder.path().join("a.png")).expect("ours");
        let taken = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_234_567_890);
        // 0666 is more than any usual umask leaves.
        source.set_permissions(Permissions::from_mode(0o666)).expect("ours");
        source.set_modified(taken).expect("ours");
        fs::create_dir(folder.path().join("target")).expect("writable");
        let from = Root::open(folder.path()).expect("it is there").folder(Path::new("")).expect("it is there");
        let to = Root::open(&folder.path().join("target")).expect("it is there").folder(Path::new("")).expect("there");
        copy(&from, "a.png".as_ref(), &to, "b.png".as_ref()).expect("writable");
        assert!(!folder.path().join("a.png").exists());
        let moved = folder.path().join("target/b.png");
        assert_eq!(fs::read(&moved).expect("readable"), b"film");
        let moved = fs::metadata(&moved).expect("it is there");
        assert_eq!((moved.mode() & 0o7777, moved.modified().expect("kept")), (0o666, taken));
    }
}
