//! A real Mosquitto on a free loopback port, and Mosquitto's own subscriber as the witness.
//!
//! Where Mosquitto is not installed the tests say so and pass, except in CI (`CI` is set), where they fail.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::mpsc;

const BROKER: &str = "/usr/sbin/mosquitto";
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Far beyond anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running broker with its configuration and persistence; dropping it kills it.
pub(crate) struct Mosquitto {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts a broker as the shipped configuration has it (persistent, saved at every change), plus `extra` lines.
    ///
    /// `None` where Mosquitto is not installed, after saying so.
    pub(crate) fn start(extra: impl FnOnce(&Path) -> String) -> Option<Self> {
        if !Path::new(BROKER).exists() {
            assert!(std::env::var_os("CI").is_none(), "{BROKER} is missing: install mosquitto and mosquitto-clients");
            println!("skipped: {BROKER} is not installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
        let extra = extra(directory.path());
        let access = if extra.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let path = directory.path().display();
        let config = format!(
            "listener {port} 127.0.0.1\n{access}user root\nlog_dest file {path}/log\nlog_type all\n\
             persistence true\npersistence_location {path}/\nautosave_on_changes true\nautosave_interval 1\n\
             max_queued_messages 100000\n{extra}\n"
        );
        fs::write(directory.path().join("mosquitto.conf"), config).expect("writable");
        let mut broker = Self { directory, port, child: None };
        broker.restart();
        Some(broker)
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("ours");
            child.wait().expect("ours");
        }
    }

    /// Sends it a signal: SIGSTOP and SIGCONT make it a broker that hangs.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it is our child and was not waited for");
    }

    /// Kills it and takes away what it had saved: sessions, their queues, retained messages.
    pub(crate) fn lose_everything(&mut self) {
        self.kill();
        fs::remove_file(self.directory.path().join("mosquitto.db")).expect("it had saved something");
    }

    /// Kills it if it runs and starts it again on the same port with what it had saved.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let child = Command::new(BROKER)
            .arg("-c")
            .arg(self.directory.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("installed");
        let child = self.child.insert(child);
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = child.try_wait().expect("ours");
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && start.elapsed() < START_DEADLINE, "mosquitto did not start: {log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Subscribes `mosquitto_sub` with QoS 1 and waits until it is subscribed.
    ///
    /// `arguments` are added to its command line; a session that outlives a connection is `-c -x 3600 -i NAME`.
    pub(crate) async fn subscribe(&self, filter: &str, arguments: &[&str]) -> Subscriber {
        // Into a pipe it would keep what it has to say until its buffer is full.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args(["-V", "mqttv5", "-q", "1", "-d", "-h", "127.0.0.1", "-p"])
            .arg(self.port.to_string())
            .args(["-t", filter, "-F", "MESSAGE %t %p"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto-clients are installed");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::unbounded_channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut subscriber = Subscriber { child, lines, early: VecDeque::new() };
        loop {
            // What a persistent session has kept comes before the broker answers to the subscription.
            let line = subscriber.line().await;
            if line.starts_with("Subscribed") {
                return subscriber;
            }
            subscriber.early.push_back(line);
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running `mosquitto_sub`; dropping it kills it, which leaves a persistent session on the broker.
pub(crate) struct Subscriber {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    early: VecDeque<String>,
}

impl Subscriber {
    /// The next message: its topic and payload.
    pub(crate) async fn next(&mut self) -> (String, serde_json::Value) {
        loop {
            let line = match self.early.pop_front() {
                Some(line) => line,
                None => self.line().await,
            };
            if let Some((topic, payload)) = line.strip_prefix("MESSAGE ").and_then(|line| line.split_once(' ')) {
                return (topic.to_owned(), serde_json::from_str(payload).expect("JSON"));
            }
        }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        line.expect("mosquitto_sub said nothing for a minute").expect("mosquitto_sub runs")
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A certificate authority and a certificate signed by it, made by `openssl`.
pub(crate) struct Authority {
    /// The authority's certificate.
    pub(crate) ca: PathBuf,
    /// A certificate for 127.0.0.1 and localhost, for either end.
    pub(crate) certificate: PathBuf,
    /// Its key, of mode 0600.
    pub(crate) key: PathBuf,
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

impl Authority {
    /// Makes them as `<directory>/<name>.*`.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        Self::valid_for(directory, name, "2")
    }

    /// The same with a certificate that expired yesterday.
    pub(crate) fn expired(directory: &Path, name: &str) -> Self {
        Self::valid_for(directory, name, "-1")
    }

    fn valid_for(directory: &Path, name: &str, days: &str) -> Self {
        let ca = directory.join(format!("{name}.ca.pem"));
        openssl(
            Command::new("openssl")
                .args(["req", "-x509", "-days", "2", "-subj", &format!("/CN={name} authority")])
                .args(NEW_KEY)
                .args(["-addext", "basicConstraints=critical,CA:TRUE", "-keyout"])
                .arg(ca.with_extension("key"))
                .arg("-out")
                .arg(&ca),
        );
        let (certificate, key) = sign(&ca, name, days);
        Self { ca, certificate, key }
    }

    /// Signs another certificate, of this common name, for either end; beside it is its key.
    pub(crate) fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        sign(&self.ca, name, "2")
    }
}

/// A certificate that the authority `ca` has signed, and its key, both made beside it.
fn sign(ca: &Path, name: &str, days: &str) -> (PathBuf, PathBuf) {
    let path = |suffix: &str| ca.with_file_name(format!("{name}.{suffix}"));
    let (certificate, key, request, extensions) = (path("pem"), path("key"), path("csr"), path("ext"));
    openssl(
        Command::new("openssl")
            .args(["req", "-new", "-subj", &format!("/CN={name}")])
            .args(NEW_KEY)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&request),
    );
    fs::write(&extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("writable");
    openssl(
        Command::new("openssl")
            .args(["x509", "-req", "-days", days, "-CAcreateserial", "-in"])
            .arg(&request)
            .arg("-CA")
            .arg(ca)
            .arg("-CAkey")
            .arg(ca.with_extension("key"))
            .arg("-extfile")
            .arg(&extensions)
            .arg("-out")
            .arg(&certificate),
    );
    (certificate, key)
}

fn openssl(command: &mut Command) {
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
