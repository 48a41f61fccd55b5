//! A daemon that is told another time than the machine's.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// The library of Debian's package faketime; `None` where it is not installed, after saying so (in CI that fails).
fn faketime() -> Option<PathBuf> {
    let architectures = fs::read_dir("/usr/lib").expect("a system").filter_map(Result::ok);
    let found =
        architectures.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is missing: install faketime");
        println!("skipped: libfaketime is not installed");
    }
    found
}

/// The environment of such a daemon, with the variables that tell libfaketime which time; durations are the machine's,
/// and so are the times of files.
pub(crate) fn told(time: impl IntoIterator<Item = (&'static str, OsString)>) -> Option<Vec<(&'static str, OsString)>> {
    let mut environment = vec![
        ("LD_PRELOAD", faketime()?.into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("NO_FAKE_STAT", "1".into()),
    ];
    environment.extend(time);
    Some(environment)
}
