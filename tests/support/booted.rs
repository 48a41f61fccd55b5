//! The installed service in a booted systemd, with a journal of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const UNIT: &str = "landmarkd.service";
/// Far beyond anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);
/// One machine at a time: the watchdog of one must not bite because the network of another computes.
static ROOM: Mutex<()> = Mutex::new(());

pub(crate) fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The bundle that is installed as the default one.
fn models() -> PathBuf {
    match std::env::var_os("LANDMARKD_TEST_MODEL") {
        Some(bundle) => Path::new(&bundle).parent().expect("a bundle lies in a folder").to_path_buf(),
        None => own("models"),
    }
}

/// All that a program said.
pub(crate) fn text(output: Output) -> String {
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Says why a test passes without a look at anything; in CI it fails.
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("skipped: {why}");
}

/// A booted systemd; dropping it ends everything in it.
pub(crate) struct Machine {
    script: Child,
    held: Option<ChildStdin>,
    init: String,
    // Last: the room is free when the rest is gone.
    _room: MutexGuard<'static, ()>,
}

/// The lines of a journal as they come.
pub(crate) struct Journal {
    follower: Child,
    lines: Receiver<String>,
    pub(crate) heard: Vec<String>,
}

impl Machine {
    /// Boots it; `None` where the machine does not allow that, after saying so.
    pub(crate) fn boot() -> Option<Self> {
        let room = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
        let mut script = Command::new(own("tests/support/boot.sh"))
            .args([own("systemd"), env!("CARGO_BIN_EXE_landmarkd").into(), models()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is there");
        let held = script.stdin.take();
        let mut said = String::new();
        let mut lines = BufReader::new(script.stdout.take().expect("piped"));
        while lines.read_line(&mut said).expect("text") > 0 {
            let line = said.lines().last().unwrap_or_default();
            if let Some(init) = line.strip_prefix("booted ") {
                return Some(Self { init: init.to_owned(), script, held, _room: room });
            }
        }
        let status = script.wait().expect("ours");
        assert_eq!(status.code(), Some(77), "{said}");
        skipped(&format!("no systemd can be booted here: {}", said.trim()));
        None
    }

    /// A command inside.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]).args(arguments);
        command
    }

    /// What a command inside says; it must succeed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("nsenter is installed");
        let success = output.status.success();
        let said = text(output);
        assert!(success, "{arguments:?}: {said}");
        said
    }

    /// Writes a file and the folders above it.
    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let mut child = self.command(&["sh", "-c", "mkdir -p \"$(dirname \"$0\")\" && cat > \"$0\"", path]);
        let mut child = child.stdin(Stdio::piped()).spawn().expect("nsenter is installed");
        child.stdin.take().expect("piped").write_all(content).expect("it reads");
        assert!(child.wait().expect("ours").success(), "{path}");
    }

    /// A property of the unit.
    pub(crate) fn show(&self, property: &str) -> String {
        self.run(&["systemctl", "show", UNIT, "--value", "--property", property]).trim().to_owned()
    }

    /// Puts a drop-in for the unit in the place of the one before.
    pub(crate) fn drop_in(&self, service: &str) {
        let content = format!("[Service]\n{service}\n");
        self.write(&format!("/etc/systemd/system/{UNIT}.d/test.conf"), content.as_bytes());
        self.run(&["systemctl", "daemon-reload"]);
    }

    /// Puts a film into the folder in one step.
    pub(crate) fn film(&self, name: &str) {
        let golden = "/usr/share/landmarkd/models/ceph19-nfdp/golden.png";
        // What follows its last chunk makes it another film.
        let script = "cat \"$1\" > /srv/part && printf %s \"$0\" >> /srv/part && chmod 644 /srv/part && \
                      mv /srv/part \"/srv/films/$0\"";
        self.run(&["sh", "-c", script, name, golden]);
    }

    /// What a unit says from now on and has said.
    pub(crate) fn journal(&self, unit: &str) -> Journal {
        let mut command = self.command(&["journalctl", "--follow", "--lines=all", "--output=cat", "--unit", unit]);
        let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("nsenter is installed");
        let stdout = BufReader::new(follower.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Journal { follower, lines, heard: Vec::new() }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The script reads until we are done, and then cleans up.
        drop(self.held.take());
        let _status = self.script.wait();
    }
}

impl Journal {
    /// Listens until another line has these words.
    pub(crate) fn until(&mut self, words: &str) {
        let start = Instant::now();
        loop {
            let line = self.lines.recv_timeout(PATIENCE.saturating_sub(start.elapsed()));
            let Ok(line) = line else { panic!("never {words:?} in:\n{}", self.heard.join("\n")) };
            let is_it = line.contains(words);
            self.heard.push(line);
            if is_it {
                return;
            }
        }
    }

    /// Listens until a line has these words, unless one had them already.
    pub(crate) fn once(&mut self, words: &str) {
        if self.position(words).is_none() {
            self.until(words);
        }
    }

    /// The first line that had these words.
    pub(crate) fn position(&self, words: &str) -> Option<usize> {
        self.heard.iter().position(|line| line.contains(words))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // It may have ended with the machine.
        let _killed = self.follower.kill();
        let _status = self.follower.wait();
    }
}
