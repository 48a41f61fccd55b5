//! Nothing of a patient leaves the device, and no secret shows (R31, R39).
//!
//! A canary stands in every text that a film can hold, whole films and broken ones, and in the names of their files and
//! folders; then everything that the daemon says is searched for it. What may hold it stays on the device and is for the
//! daemon's user alone: the film itself in the quarantine, and the paths of known files in the state's database.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/canary.rs"]
mod canary;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "this daemon runs under a umask of its own, with its journal in a file")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "DICOM films are made here, with everything in them")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "other tests stop it, and let its certificates expire")]
mod mosquitto;
#[path = "support/private.rs"]
mod private;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use canary::{PATIENT, UID, all_films};
use daemon::Home;
use films::sha256;
use flate2::read::GzDecoder;
use mosquitto::{Authority, Mosquitto};
use private::{everything, for_its_owner_alone};
use rustix::process::{Pid, Signal, kill_process};

/// In the names of files and folders.
const NAME: &str = "QzxFileNameVqj";
const PASSWORD: &str = "QzxPasswordVqj";
const TOKEN_KEY: &str = "QzxTokenKeyVqj0123456789abcdef";

/// Everything that must not be found, with the forms it could hide in.
struct Forbidden {
    forms: Vec<(String, Vec<u8>)>,
}

impl Forbidden {
    fn new(words: &[&str]) -> Self {
        let mut forms = Vec::new();
        for word in words {
            let lower = word.to_ascii_lowercase();
            let utf16: Vec<u16> = lower.encode_utf16().collect();
            forms.push(((*word).to_owned(), lower.clone().into_bytes()));
            forms.push((format!("{word} in UTF-16LE"), utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect()));
            forms.push((format!("{word} in UTF-16BE"), utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect()));
            forms.push((format!("{word} in hexadecimal"), hex(word.as_bytes()).into_bytes()));
            forms.push((format!("{word} as a digest"), sha256(word).into_bytes()));
        }
        Self { forms }
    }

    /// The forms that are in these bytes, whatever their case.
    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let lower = bytes.to_ascii_lowercase();
        let is_in = |form: &[u8]| lower.windows(form.len()).any(|window| window == form);
        self.forms.iter().filter(|(_, form)| is_in(form)).map(|(name, _)| name.as_str()).collect()
    }

    fn not_in(&self, place: &str, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert!(!bytes.is_empty(), "{place} is empty: nothing was searched");
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "{found:?} in {place}: {}", String::from_utf8_lossy(bytes));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The daemon under the usual umask, its journal in a file.
struct Running {
    child: Child,
    journal: PathBuf,
}

impl Running {
    fn start(home: &Home) -> Self {
        let journal = home.path("journal");
        let mut command = Command::new("sh");
        command.args(["-c", "umask 022; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_landmarkd"), "run", "--config"]);
        command.arg(home.config()).stdin(Stdio::null()).stdout(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANDMARKD_")) {
            command.env_remove(name);
        }
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("JOURNAL_STREAM");
        let child = command.stderr(File::create(&journal).expect("ours")).spawn().expect("it is built");
        Self { child, journal }
    }

    fn of_process(&self, name: &str) -> Vec<u8> {
        fs::read(format!("/proc/{}/{name}", self.child.id())).expect("it runs")
    }

    /// What it said until its end.
    fn stopped(mut self) -> Vec<u8> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it is our child");
        assert_eq!(self.child.wait().expect("it is our child").code(), Some(0));
        fs::read(&self.journal).expect("ours")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended as told.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Head and body of a page.
fn page(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the page is served");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers and closes");
    answer
}

fn write_private(path: &Path, content: &str) {
    fs::write(path, content).expect("ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
}

/// Standard output and error of a subcommand.
fn said(home: &Home, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landmarkd"));
    let output = command.args(arguments).arg("--config").arg(home.config()).output().expect("it is built");
    [output.stdout, output.stderr].concat()
}

#[test]
fn the_search_finds_each_form() {
    let forbidden = Forbidden::new(&[PATIENT]);
    let utf16: Vec<u16> = PATIENT.encode_utf16().collect();
    for bytes in [
        PATIENT.to_uppercase().into_bytes(),
        utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
        utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
        hex(PATIENT.as_bytes()).into_bytes(),
        sha256(PATIENT).to_uppercase().into_bytes(),
    ] {
        assert_eq!(forbidden.found_in(&[b"before", bytes.as_slice(), b"after"].concat()).len(), 1, "{bytes:?}");
    }
    assert_eq!(forbidden.found_in(b"qzxpatientvq"), Vec::<&str>::new());
    // The films do hold what is searched for.
    for (name, bytes, _) in all_films() {
        assert!(!forbidden.found_in(&bytes).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn nothing_of_a_patient_and_no_secret_is_said_anywhere() {
    let keys = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(keys.path(), "ours");
    let doors = |directory: &Path| {
        let passwords = directory.join("passwords");
        let made =
            Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&passwords).args(["device", PASSWORD]).status();
        assert!(made.expect("part of mosquitto").success());
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nallow_anonymous false\npassword_file {}",
            authority.ca.display(),
            authority.certificate.display(),
            authority.key.display(),
            passwords.display()
        )
    };
    let Some(broker) = Mosquitto::start(doors) else { return };
    let ca = authority.ca.to_str().expect("text");
    let mut subscriber = broker.subscribe("#", &["--cafile", ca, "-u", "device", "-P", PASSWORD]).await;

    let home = Home::new(broker.port());
    let (password, token_key) = (keys.path().join("password"), keys.path().join("token-key"));
    write_private(&password, &format!("{PASSWORD}\n"));
    write_private(&token_key, TOKEN_KEY);
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    home.configure(&format!(
        "[acquisition]\nrecursive = true\nmax_settle_s = 1\n[log]\nfilter = \"trace\"\n\
         [mqtt]\ntls = true\nca_file = {ca:?}\nclient_cert_file = {:?}\nclient_key_file = {:?}\nusername = \"device\"\n\
         password_file = {password:?}\n[result]\ntoken_key_file = {token_key:?}\n[health]\nlisten = \"{address}\"\n",
        authority.certificate, authority.key
    ));
    let folder = home.films().join(format!("room {NAME}"));
    fs::create_dir(&folder).expect("ours");
    let films = all_films();
    for (name, bytes, _) in &films {
        fs::write(folder.join(format!("{NAME}-{name}")), bytes).expect("ours");
    }

    let pem = fs::read_to_string(&authority.key).expect("ours");
    let secret_key = pem.lines().nth(1).expect("a PEM file has lines");
    let secrets = Forbidden::new(&[PASSWORD, TOKEN_KEY, secret_key]);
    let forbidden = Forbidden::new(&[PATIENT, NAME, UID, "987654321", PASSWORD, TOKEN_KEY, secret_key]);

    let daemon = Running::start(&home);
    let (mut results, mut refusals) = (Vec::new(), 0);
    while results.len() + refusals < films.len() {
        let (topic, document) = subscriber.next().await;
        forbidden.not_in(&topic, format!("{topic} {document}"));
        if topic.ends_with("/result") {
            results.push(document["data"]["image"]["sha256"].as_str().expect("a digest").to_owned());
        } else if topic.ends_with("/error") {
            refusals += 1;
        }
    }
    assert!(refusals >= 10, "{refusals} refusals: most of the films should not be readable");
    for (name, bytes, must) in &films {
        assert!(!must || results.contains(&sha256(bytes)), "{name} has no result");
    }

    for path in ["/", "/status.json", "/metrics", "/healthz", "/readyz"] {
        forbidden.not_in(path, page(address, path));
    }
    secrets.not_in("the command line", daemon.of_process("cmdline"));
    secrets.not_in("the environment", daemon.of_process("environ"));
    for_its_owner_alone(&home.state(), "state.redb");
    let archive = home.path("diag.tar.gz");
    forbidden.not_in("doctor", said(&home, &["doctor"]));
    forbidden.not_in("doctor --json", said(&home, &["doctor", "--json", "--probe-broker"]));
    forbidden.not_in("diag", said(&home, &["diag", archive.to_str().expect("text")]));
    let journal = daemon.stopped();
    // It says more than it usually does, and still nothing of these.
    assert!(journal.windows(5).any(|word| word == b"DEBUG"), "{}", String::from_utf8_lossy(&journal));
    forbidden.not_in("the journal", journal);
    for_its_owner_alone(&home.state(), "state.redb");
    forbidden.not_in("spool", said(&home, &["spool", "ls"]));

    let mut unpacked = Vec::new();
    GzDecoder::new(File::open(&archive).expect("written")).read_to_end(&mut unpacked).expect("a whole archive");
    assert!(unpacked.len() > 4096, "{} bytes", unpacked.len());
    forbidden.not_in("the archive", unpacked);

    let (mut reasons, mut kept) = (0, 0);
    let of_films = Forbidden::new(&[PATIENT, UID, PASSWORD, TOKEN_KEY, secret_key]);
    for path in everything(&home.state()).iter().filter(|path| path.is_file()) {
        let bytes = fs::read(path).expect("ours");
        match path.file_name().and_then(|name| name.to_str()) {
            Some("reason.json") => {
                reasons += 1;
                forbidden.not_in("reason.json", bytes);
            }
            Some("film") => kept += 1,
            // The paths of known files are here, and nothing that a film says.
            Some("state.redb") => of_films.not_in("state.redb", bytes),
            _ if bytes.is_empty() => {}
            other => forbidden.not_in(other.unwrap_or("a file of the state"), bytes),
        }
    }
    assert!(reasons >= 5 && reasons == kept, "{reasons} reasons, {kept} films");
}
