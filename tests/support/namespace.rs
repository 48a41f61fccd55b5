//! Tests that mount: each runs again as a process in mount and process namespaces of its own, so that what it mounts is
//! seen nowhere else, and what it started ends with it.
//!
//! Where the machine does not allow that, or a program is missing, the test says so and passes, except in CI (`CI` is
//! set), where it fails.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// Set for the process that runs inside.
const INSIDE: &str = "LANDMARKD_TEST_NAMESPACE";
/// A mount table, a /proc and a process tree of its own.
const UNSHARE: [&str; 6] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"];

/// Whether this is the inside. Outside, the test of this name is run there, and its failure is this one's.
///
/// `needed` are the programs it uses besides those of util-linux.
pub(crate) fn inside(test: &str, needed: &[&str]) -> bool {
    enter(test, needed, &[])
}

/// The same, and inside root is bound by the permissions of files like anybody else.
pub(crate) fn inside_without_privilege_over_files(test: &str) -> bool {
    enter(test, &[], &["--bounding-set=-dac_override,-dac_read_search"])
}

fn enter(test: &str, needed: &[&str], privileges: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| !std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if let Some(missing) = ["unshare", "setpriv", "mount"].iter().chain(needed).find(is_there) {
        return refused(test, &format!("{missing} is not installed"));
    }
    let probe = Command::new("unshare").args(UNSHARE).args(["mount", "-t", "tmpfs", "probe", "/mnt"]).output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        return refused(test, "no namespaces to mount in");
    }
    let output = Command::new("unshare")
        .args(UNSHARE)
        .arg("setpriv")
        .args(privileges)
        .arg(std::env::current_exe().expect("this test is a program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "yes")
        .output()
        .expect("unshare is installed");
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(output.status.success() && ran, "{test} failed inside: {}", output.status);
    false
}

fn refused(test: &str, why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
    println!("skipped: {test}: {why}");
    false
}

/// A file system on a folder; dropping it takes it away, used or not.
pub(crate) struct Mount {
    at: PathBuf,
}

impl Mount {
    /// What mount(8) makes of these arguments.
    pub(crate) fn new(arguments: &[&str], source: impl AsRef<OsStr>, at: &Path) -> Self {
        run(Command::new("mount").args(arguments).arg(source.as_ref()).arg(at));
        Self { at: at.to_path_buf() }
    }

    /// The folder `source` again, served by a process of its own, as a network mount is by a machine.
    pub(crate) fn fuse(source: &Path, at: &Path) -> Self {
        run(Command::new("bindfs").args(["-o", "nonempty"]).arg(source).arg(at));
        Self { at: at.to_path_buf() }
    }

    /// Signals the process behind a FUSE mount.
    pub(crate) fn signal_server(&self, signal: Signal) {
        kill_process(process("bindfs", Some(&self.at)), signal).expect("we started it");
    }

    /// From now on nothing can be written to it.
    pub(crate) fn make_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.at));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.at).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(), "it was mounted");
    }
}

/// The process of this name in the namespace, of several the one with `argument` in its command line.
pub(crate) fn process(name: &str, argument: Option<&Path>) -> Pid {
    let of = |pid: i32| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let wanted = argument.map(|path| path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let has = |line: &[u8]| wanted.is_empty() || line.split(|&byte| byte == 0).any(|word| word == wanted);
        read("comm").trim_ascii() == name.as_bytes() && has(&read("cmdline"))
    };
    let pids =
        fs::read_dir("/proc").expect("mounted").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(|&pid| of(pid)).unwrap_or_else(|| panic!("no process {name}"));
    Pid::from_raw(pid).expect("not the kernel")
}

/// A number of `/proc/PID/status` in bytes, such as `VmRSS`.
pub(crate) fn memory(pid: Pid, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("a known field");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// How many files a process has open.
pub(crate) fn open_files(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("ours").count()
}

fn run(command: &mut Command) {
    let output = command.output().expect("installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
