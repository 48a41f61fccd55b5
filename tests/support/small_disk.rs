//! A small file system in memory for a state directory, seen by nobody but the programs started into it.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A private mount namespace with a tmpfs; it is gone when this is dropped.
pub(crate) struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// A tmpfs of so many MiB mounted on `folder`, which is made.
    ///
    /// `None` where the machine does not allow it, after saying so.
    pub(crate) fn mount(folder: &Path, mib: u32) -> Option<Self> {
        fs::create_dir(folder).expect("the folder is ours");
        let script = r#"mount -t tmpfs -o "size=$1m,mode=700" small "$2" && echo mounted && exec cat"#;
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", &mib.to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("util-linux is installed");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut said).expect("text");
        let disk = Self { holder, folder: folder.to_owned() };
        if said != "mounted\n" {
            assert!(std::env::var_os("CI").is_none(), "no mount namespace: run as root");
            println!("skipped: no mount namespace can be made here");
            return None;
        }
        Some(disk)
    }

    /// The words before a program that make it run where the disk is.
    pub(crate) fn enter(&self) -> [String; 4] {
        ["nsenter".to_owned(), "--target".to_owned(), self.holder.id().to_string(), "--mount".to_owned()]
    }

    /// What is on the disk, from outside.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let below = self.folder.strip_prefix("/").expect("absolute");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(below).join(name)
    }

    /// Takes room until so many KiB are free; with 0, all there is.
    pub(crate) fn fill_to(&self, free_kib: u64) {
        let found = rustix::fs::statvfs(self.path("")).expect("it is there");
        let free = found.f_bavail * found.f_frsize;
        let wanted = free.saturating_sub(free_kib << 10);
        let file = fs::File::options().append(true).create(true).open(self.path("filler"));
        let Ok(mut file) = file else { return };
        let chunk = vec![0xA5; 64 << 10];
        let mut left = wanted.max(u64::from(free_kib == 0));
        while left > 0 {
            let bytes =
                if free_kib == 0 { chunk.len() } else { chunk.len().min(usize::try_from(left).expect("64-bit")) };
            match file.write(&chunk[..bytes]) {
                Ok(written) if free_kib > 0 => left -= written as u64,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives back what was taken.
    pub(crate) fn free(&self) {
        fs::remove_file(self.path("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It ends with its standard input; the daemons in its namespace are dropped before.
        drop(self.holder.stdin.take());
        let _status = self.holder.wait();
    }
}
