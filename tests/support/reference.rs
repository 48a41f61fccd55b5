//! The reference subscriber, `tests/reference/subscriber.rs`, as a process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

/// Where it was built, or is built now: cargo builds the examples for all tests, but not for a single one.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("it lies in target/PROFILE/deps");
    let program = folder.join("examples/subscriber");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/subscriber.rs");
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if changed(&program) < changed(Path::new(source)) {
        let built = Command::new(env!("CARGO")).args(["build", "--locked", "--example", "subscriber"]).status();
        assert!(built.expect("cargo runs its tests").success());
    }
    program
});

/// What it remembers from run to run, and what it printed.
pub(crate) struct Reference {
    home: TempDir,
    runs: usize,
}

/// A run of it.
pub(crate) struct Run {
    child: Option<Child>,
    out: PathBuf,
    words: PathBuf,
}

/// How a run ended.
pub(crate) struct Ended {
    /// 0 when all was complete, 1 when numbers are missing.
    pub(crate) code: Option<i32>,
    /// What it printed: events in their order.
    pub(crate) events: Vec<Value>,
    /// What it said on standard error.
    pub(crate) words: String,
}

impl Reference {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a directory"), runs: 0 }
    }

    /// Starts it for the device `ceph-1` of the site `clinic`; it ends at number `until`, or with 1 after 100 s.
    pub(crate) fn start(&mut self, port: u16, until: usize, arguments: &[&str]) -> Run {
        self.runs += 1;
        let path = |name: &str| self.home.path().join(format!("{name}.{}", self.runs));
        let (out, words) = (path("out"), path("words"));
        let child = Command::new(&*PROGRAM)
            .args(["--device", "xr/v1/clinic/ceph-1", "--ping", "1", "--within", "100", "--port"])
            .arg(port.to_string())
            .arg("--state")
            .arg(self.home.path().join("progress"))
            .args(["--until", &until.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("ours"))
            .stderr(File::create(&words).expect("ours"))
            .spawn()
            .expect("it was built");
        Run { child: Some(child), out, words }
    }
}

impl Run {
    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) -> Ended {
        let mut child = self.child.take().expect("it was not waited for");
        let status = tokio::task::spawn_blocking(move || child.wait().expect("ours")).await.expect("no panic");
        self.told(status.code())
    }

    /// Kills it.
    pub(crate) fn kill(mut self) -> Ended {
        let mut child = self.child.take().expect("it was not waited for");
        child.kill().expect("ours");
        child.wait().expect("ours");
        self.told(None)
    }

    fn told(&self, code: Option<i32>) -> Ended {
        let out = fs::read_to_string(&self.out).expect("it is there");
        let events = out.lines().map(|line| serde_json::from_str(line).expect("one document a line")).collect();
        let words = fs::read_to_string(&self.words).expect("it is there");
        Ended { code, events, words }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _killed = child.kill();
            let _status = child.wait();
        }
    }
}
