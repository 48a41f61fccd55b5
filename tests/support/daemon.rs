//! The real `landmarkd run` as a process, with a folder, a state and a configuration of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::bundle;

/// How long a stop may take, as configured.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);
/// Far beyond anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a device owns; it outlives the runs of its daemon.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    /// A device `ceph-1` of the site `clinic` whose broker listens on this port of the loopback.
    pub(crate) fn new(port: u16) -> Self {
        let home = Self { directory: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir(home.films()).expect("the folder is ours");
        let config = format!(
            "[site]\nname = \"clinic\"\ndevice = \"ceph-1\"\n\
             [acquisition]\nfolder = {:?}\nsettle_ms = 100\n\
             [state]\ndirectory = {:?}\n\
             [model]\ndirectory = {:?}\n\
             [mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nmax_backoff_s = 1\n\
             [daemon]\ndrain_s = {}\n\
             [health]\nlisten = \"\"\n",
            home.films(),
            home.state(),
            bundle::directory(),
            DRAIN.as_secs(),
        );
        fs::write(home.config(), config).expect("the folder is ours");
        home
    }

    /// The acquisition folder.
    pub(crate) fn films(&self) -> PathBuf {
        self.path("films")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("landmarkd.toml")
    }

    /// Lays these lines over the configuration, in the place of those laid over it before.
    pub(crate) fn configure(&self, lines: &str) {
        fs::create_dir_all(self.path("conf.d")).expect("the folder is ours");
        fs::write(self.path("conf.d").join("test.toml"), lines).expect("the folder is ours");
    }

    /// What lies beside the configuration under this name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a whole film into the folder in one step.
    pub(crate) fn drop_film(&self, name: &str, bytes: &[u8]) {
        let partial = self.path(name);
        fs::write(&partial, bytes).expect("the folder is ours");
        fs::rename(&partial, self.films().join(name)).expect("one file system");
    }

    /// The same for a film whose file was last changed then.
    pub(crate) fn drop_film_of(&self, name: &str, bytes: &[u8], modified: SystemTime) {
        let partial = self.path(name);
        fs::write(&partial, bytes).expect("the folder is ours");
        let file = File::options().write(true).open(&partial).expect("it is there");
        file.set_modified(modified).expect("it is ours");
        fs::rename(&partial, self.films().join(name)).expect("one file system");
    }

    /// Starts the daemon.
    pub(crate) fn start(&self) -> Daemon {
        self.start_in(&[])
    }

    /// Starts the daemon with these environment variables.
    pub(crate) fn start_in(&self, environment: &[(&str, OsString)]) -> Daemon {
        Daemon::start(Command::new(env!("CARGO_BIN_EXE_landmarkd")), &self.config(), environment)
    }

    /// Starts the daemon through a program that becomes it, such as `nsenter`.
    pub(crate) fn start_through(&self, words: &[String]) -> Daemon {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(env!("CARGO_BIN_EXE_landmarkd"));
        Daemon::start(command, &self.config(), &[])
    }

    /// Starts a daemon that kills itself with SIGKILL at a point of `landmarkd::crash_point`.
    pub(crate) fn start_to_crash_at(&self, point: &str) -> Daemon {
        self.start_in(&[("LANDMARKD_CRASH_POINT", point.into())])
    }
}

/// A running daemon; dropping it kills it and, in a test that fails, prints what it logged.
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
}

impl Daemon {
    fn start(mut command: Command, config: &Path, environment: &[(&str, OsString)]) -> Self {
        command.arg("run").arg("--config").arg(config).stdin(Stdio::null()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANDMARKD_")) {
            command.env_remove(name);
        }
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("JOURNAL_STREAM");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().expect("the program is built with its tests");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, log: Vec::new() }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is our child and was not waited for");
    }

    /// Its process id, as `/proc` has it.
    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Waits for so long and fails when its journal has a line meanwhile.
    pub(crate) fn says_nothing_for(&mut self, time: Duration) {
        match self.lines.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(line) => panic!("the daemon is idle, but says: {line}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the daemon has ended"),
        }
    }

    /// Waits until its journal has a line with these words.
    pub(crate) fn until_said(&mut self, words: &str) {
        let start = Instant::now();
        loop {
            let line = self.lines.recv_timeout(PATIENCE.saturating_sub(start.elapsed()));
            let line = line.unwrap_or_else(|_| panic!("the daemon never said {words:?}"));
            let said = line.contains(words);
            self.log.push(line);
            if said {
                return;
            }
        }
    }

    /// Waits until it has ended.
    pub(crate) fn ended(mut self) -> ExitStatus {
        let start = Instant::now();
        // Its journal ends with the process.
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the daemon did not end within {PATIENCE:?}"),
            }
        }
        self.child.wait().expect("it is our child")
    }

    /// Asks it to stop and waits until it has ended.
    pub(crate) fn stopped(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            self.log.extend(self.lines.iter());
            let mut out = std::io::stderr().lock();
            for line in &self.log {
                let _written = writeln!(out, "landmarkd: {line}");
            }
        }
    }
}

/// A film that somebody is still writing.
pub(crate) struct Partial {
    file: File,
    rest: Vec<u8>,
}

impl Partial {
    /// Writes the first `length` bytes of a film; with `allocated`, the file has its whole length from the start.
    pub(crate) fn write(path: &Path, film: &[u8], length: usize, allocated: bool) -> Self {
        let mut file = File::create_new(path).expect("the folder is ours");
        file.write_all(&film[..length]).expect("there is room");
        if allocated {
            file.set_len(film.len() as u64).expect("there is room");
        }
        Self { file, rest: film[length..].to_vec() }
    }

    /// Writes the rest in place and closes the file.
    pub(crate) fn complete(mut self) {
        self.file.write_all(&self.rest).expect("there is room");
    }
}
