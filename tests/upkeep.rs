//! What an operator has beside the daemon: doctor, diag, spool and man, with the real daemon and a real Mosquitto.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "its crash points and late films are for other tests")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "DICOM identifiers are for other tests")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "other tests stop it, and let its certificates expire")]
mod mosquitto;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use daemon::Home;
use films::{Kind, film, sha256};
use flate2::read::GzDecoder;
use mosquitto::{Authority, Mosquitto};
use serde_json::Value;

const DEVICE: &str = "xr/v1/clinic/ceph-1";

fn landmarkd(home: &Home, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landmarkd"));
    command.args(arguments).arg("--config").arg(home.config());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANDMARKD_")) {
        command.env_remove(name);
    }
    command.output().expect("the program is built with its tests")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

/// The exit code of doctor, and its checks by their names: a name that comes twice keeps its worse verdict.
fn doctor(home: &Home, arguments: &[&str]) -> (i32, BTreeMap<String, (String, String)>) {
    let output = landmarkd(home, &[&["doctor", "--json"], arguments].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {} {}", text(&output.stdout), text(&output.stderr));
    });
    let rank = |verdict: &str| ["ok", "warn", "fail"].iter().position(|word| *word == verdict).expect("a verdict");
    let mut checks: BTreeMap<String, (String, String)> = BTreeMap::new();
    for check in report["checks"].as_array().expect("checks") {
        let word = |key: &str| check[key].as_str().expect("text").to_owned();
        assert_eq!(check["verdict"] == "ok", check.get("remedy").is_none(), "what is not well has a remedy: {check}");
        let found = (word("verdict"), word("words"));
        let kept = checks.entry(word("name")).or_insert_with(|| found.clone());
        if rank(&found.0) > rank(&kept.0) {
            *kept = found;
        }
    }
    (output.status.code().expect("it ends by itself"), checks)
}

fn is(checks: &BTreeMap<String, (String, String)>, name: &str, verdict: &str, words: &str) {
    let (found, said) = checks.get(name).unwrap_or_else(|| panic!("no check {name} in {checks:?}"));
    assert!(found == verdict && said.contains(words), "{name}: {found}, {said}; expected {verdict}, {words}");
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn only_these_topics(topics: &[&str]) -> impl FnOnce(&Path) -> String {
    let list: String = topics.iter().map(|topic| format!("topic write {DEVICE}/{topic}\n")).collect();
    move |directory: &Path| {
        let path = directory.join("acl");
        fs::write(&path, format!("topic read #\ntopic read $SYS/#\n{list}topic write marker\n")).expect("writable");
        format!("acl_file {}\nmax_packet_size 40000", path.display())
    }
}

#[tokio::test]
async fn the_doctor_tells_what_the_broker_allows_and_no_subscriber_hears_it() {
    let Some(broker) = Mosquitto::start(only_these_topics(&["status", "info", "error", "metrics"])) else { return };
    let home = Home::new(broker.port());
    let topics = ["-t", &format!("{DEVICE}/error"), "-t", &format!("{DEVICE}/status"), "-t", &format!("{DEVICE}/info")];
    let mut subscriber = broker.subscribe("marker", &topics).await;
    let (exit, checks) = doctor(&home, &[]);
    assert_eq!(exit, 69, "{checks:?}");
    is(&checks, "broker", "ok", "anonymously, in the clear, mosquitto version");
    is(&checks, "access list", "fail", "result is not authorized");
    assert!(!checks["access list"].1.contains("error"), "{checks:?}");
    is(&checks, "packet size", "warn", "broker: 40000 bytes");
    is(&checks, "subscribers", "ok", "tells when nobody listens");
    for name in ["configuration", "folder", "watching", "state", "model", "gpu"] {
        assert_eq!(checks[name].0, "ok", "{name}: {checks:?}");
    }
    is(&checks, "watching", "ok", "a file must rest for 100 ms");
    is(&checks, "self-test", "ok", "px allowed");
    is(&checks, "daemon", "warn", "has never run");
    assert!(!home.state().exists(), "to look makes nothing");
    // Whatever it had published would come before this.
    let port = broker.port().to_string();
    let said =
        Command::new("mosquitto_pub").args(["-p", &port, "-h", "127.0.0.1", "-t", "marker", "-m", "{}"]).status();
    assert!(said.expect("mosquitto-clients are installed").success());
    assert_eq!(subscriber.next().await.0, "marker");
}

#[tokio::test]
async fn the_doctor_leaves_the_running_daemon_its_connection() {
    let home = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (Authority::new(home.path(), "ours"), Authority::new(home.path(), "theirs"));
    // As in the shipped example: one certificate is one session.
    let tls = |_: &Path| {
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\n\
             use_username_as_clientid true\nallow_anonymous false",
            ours.ca.display(),
            ours.certificate.display(),
            ours.key.display()
        )
    };
    let Some(broker) = Mosquitto::start(tls) else { return };
    let device = Home::new(broker.port());
    let port = free_port();
    let configure = |authority: &Authority| {
        device.configure(&format!(
            "[mqtt]\ntls = true\nca_file = {:?}\nclient_cert_file = {:?}\nclient_key_file = {:?}\n\
             [result]\nrequire_subscriber = false\n[health]\nlisten = \"127.0.0.1:{port}\"\n",
            authority.ca, ours.certificate, ours.key
        ));
    };
    configure(&theirs);
    let (exit, checks) = doctor(&device, &[]);
    assert_eq!(exit, 69);
    is(&checks, "broker", "fail", "UnknownIssuer");
    configure(&ours);
    is(&doctor(&device, &[]).1, "broker", "ok", "with TLS and a client certificate");

    let mut daemon = device.start();
    daemon.until_said("connected to the broker");
    let (_, checks) = doctor(&device, &[]);
    is(&checks, "broker", "ok", "the running daemon is connected");
    is(&checks, "daemon", "ok", "runs as process");
    // Insisting costs it its connection, and it is back with its next session.
    is(&doctor(&device, &["--probe-broker"]).1, "broker", "ok", "reached with TLS");
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[test]
fn whose_fault_it_is_decides_the_exit_code() {
    let home = Home::new(free_port());
    let (exit, checks) = doctor(&home, &[]);
    assert_eq!(exit, 69);
    is(&checks, "broker", "fail", "no TCP connection to 127.0.0.1:");
    let table = text(&landmarkd(&home, &["doctor"]).stdout);
    assert!(table.contains("FAIL  broker") && table.contains("-> is the broker running"), "{table}");
    assert!(!table.contains('\x1b'), "no colours where no person looks: {table}");

    fs::remove_dir(home.films()).expect("it is empty");
    is(&doctor(&home, &[]).1, "folder", "fail", "No such file or directory");
    home.configure("[model]\ndirectory = \"/nonexistent/bundle\"\n");
    let (exit, checks) = doctor(&home, &[]);
    assert_eq!(exit, 78);
    is(&checks, "model", "fail", "/nonexistent/bundle");
    home.configure("[mqtt]\nprot = 1\n");
    let (exit, checks) = doctor(&home, &[]);
    assert_eq!(exit, 78);
    is(&checks, "configuration", "fail", "unknown key mqtt.prot");
    is(&checks, "clock", &checks["clock"].0.clone(), "20");
}

#[test]
fn what_waits_is_listed_exported_and_read_again() {
    let home = Home::new(free_port());
    home.configure("[acquisition]\nmax_settle_s = 1\n");
    assert_eq!(landmarkd(&home, &["spool", "ls"]).status.code(), Some(66), "there is no state yet");
    assert!(!home.state().exists());
    let mut daemon = home.start();
    daemon.until_said("watching ");
    let (good, cut, bad) = (film(Kind::Png, 1), film(Kind::Png, 2), broken());
    home.drop_film("good.png", &good);
    daemon.until_said("event 1;");
    home.drop_film("bad.png", &bad);
    daemon.until_said("refused as event 2");
    home.drop_film("cut.png", &cut[..cut.len() / 2]);
    daemon.until_said("refused as event 3");
    let running = landmarkd(&home, &["spool", "ls"]);
    assert_eq!(running.status.code(), Some(69));
    assert!(text(&running.stderr).contains("is in use"), "{}", text(&running.stderr));
    assert_eq!(daemon.stopped().code(), Some(0));

    let listed = landmarkd(&home, &["spool", "ls", "--json"]);
    assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));
    let listing: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let numbers: Vec<_> = listing["waiting"].as_array().expect("a list").iter().map(|e| &e["number"]).collect();
    assert_eq!(numbers, [1, 2, 3], "{listing}");
    let films = listing["films_without_result"].as_array().expect("a list");
    assert_eq!(films.len(), 2, "{listing}");
    assert_eq!((&films[0]["number"], &films[0]["outcome"]), (&Value::from(2), &Value::from("quarantined")));
    assert_eq!(films[0]["sha256"], sha256(&bad));
    assert_eq!(films[0]["kept"]["film_bytes"], bad.len());
    assert_eq!((&films[1]["number"], &films[1]["outcome"]), (&Value::from(3), &Value::from("refused")));
    let table = text(&landmarkd(&home, &["spool", "ls"]).stdout);
    assert!(table.starts_with("3 events wait for the broker\n       1  result  acquired "), "{table}");

    let target = home.path("export");
    let exported = landmarkd(&home, &["spool", "export", target.to_str().expect("text")]);
    assert_eq!(text(&exported.stdout), "3 events written\n");
    let file = target.join("result-00000000000000000001.json");
    let event: Value = serde_json::from_slice(&fs::read(&file).expect("written")).expect("JSON");
    assert_eq!(event["data"]["image"]["sha256"], sha256(&good));
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&target), mode(&file)), (0o700, 0o600));
    let again = landmarkd(&home, &["spool", "export", target.to_str().expect("text")]);
    assert_eq!(again.status.code(), Some(74), "nothing is overwritten");

    for (number, exit) in [("1", 65), ("9", 65), ("0", 64), ("3", 0), ("3", 65)] {
        let output = landmarkd(&home, &["spool", "retry", number]);
        assert_eq!(output.status.code(), Some(exit), "{number}: {}{}", text(&output.stdout), text(&output.stderr));
    }
    // Meanwhile the rest of the film has come.
    fs::write(home.films().join("cut.png"), &cut).expect("ours");
    let mut daemon = home.start();
    daemon.until_said("event 4;");
    assert_eq!(daemon.stopped().code(), Some(0));
}

/// A whole PNG that is no film: its header promises a colour type that does not exist.
fn broken() -> Vec<u8> {
    let mut png = film(Kind::Png, 3);
    // The length, `IHDR`, width, height, depth; then the colour type, and the CRC over all of it.
    png[25] = 5;
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    png
}

/// The texts of an archive by their names.
fn unpacked(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(path).expect("written")));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.expect("a whole archive");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        (name.trim_start_matches("landmarkd-diag/").to_owned(), text)
    };
    archive.entries().expect("a tar").map(read).collect()
}

#[test]
fn the_archive_for_others_has_what_helps_and_no_folder_of_films() {
    let home = Home::new(free_port());
    let port = free_port();
    let folder = home.path("MUSTERMANN^ERIKA");
    fs::create_dir(&folder).expect("ours");
    home.configure(&format!("[acquisition]\nfolder = {folder:?}\n[health]\nlisten = \"127.0.0.1:{port}\"\n"));
    let mut daemon = home.start();
    daemon.until_said("the status page is at");
    let (live, stopped) = (home.path("live.tar.gz"), home.path("stopped.tar.gz"));
    let diag = |path: &Path| landmarkd(&home, &["diag", path.to_str().expect("text")]);
    let output = diag(&live);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("look through it before you send it"), "{}", text(&output.stdout));
    assert_eq!(fs::metadata(&live).expect("written").permissions().mode() & 0o777, 0o600);
    assert_eq!(diag(&live).status.code(), Some(74), "nothing is overwritten");
    assert_eq!(daemon.stopped().code(), Some(0));

    let texts = unpacked(&live);
    let names: Vec<_> = texts.keys().map(String::as_str).collect();
    let all = ["configuration.toml", "counts.json", "doctor.json", "journal.txt", "machine.json", "metrics.txt"];
    assert_eq!(names, [&all[..], &["status.json"]].concat());
    let status: Value = serde_json::from_str(&texts["status.json"]).expect("the live status");
    assert_eq!(status["device"], "ceph-1");
    assert!(texts["metrics.txt"].contains("landmarkd_outbox_length"), "{}", texts["metrics.txt"]);
    assert!(texts["counts.json"].contains("in use"), "{}", texts["counts.json"]);
    assert!(texts["machine.json"].contains("the running daemon"), "{}", texts["machine.json"]);
    assert!(texts["configuration.toml"].contains("# folder is withheld: "), "{}", texts["configuration.toml"]);
    assert!(texts["configuration.toml"].contains("settle_ms = 100"), "{}", texts["configuration.toml"]);
    assert!(texts["doctor.json"].contains("<acquisition.folder> can be listed"), "{}", texts["doctor.json"]);
    for (name, text) in &texts {
        assert!(!text.contains("MUSTERMANN"), "{name}: {text}");
    }

    assert_eq!(diag(&stopped).status.code(), Some(0));
    let texts = unpacked(&stopped);
    let counts: Value = serde_json::from_str(&texts["counts.json"]).expect("JSON");
    assert_eq!((&counts["state"]["events_waiting"], &counts["state"]["films"]), (&0.into(), &0.into()), "{counts}");
    assert!(texts["status.json"].starts_with("not to be had: "), "{}", texts["status.json"]);
    // A configuration that is wrong is quoted nowhere.
    home.configure("[acquisition]\nfolder = \"MUSTERMANN\"\n");
    let wrong = home.path("wrong.tar.gz");
    assert_eq!(diag(&wrong).status.code(), Some(0));
    let texts = unpacked(&wrong);
    assert!(texts["doctor.json"].contains("1 mistakes"), "{texts:?}");
    assert!(texts.values().all(|text| !text.contains("MUSTERMANN")), "{texts:?}");
}

#[test]
fn every_command_has_its_page() {
    let folder = tempfile::tempdir().expect("a directory");
    let pages = folder.path().join("man1");
    let output = Command::new(env!("CARGO_BIN_EXE_landmarkd")).arg("man").arg(&pages).output().expect("it is built");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for command in ["", "-run", "-doctor", "-diag", "-spool", "-spool-retry", "-check-config", "-man"] {
        let page = fs::read_to_string(pages.join(format!("landmarkd{command}.1"))).expect(command);
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{command}: {page}");
    }
    let page = fs::read_to_string(pages.join("landmarkd-doctor.1")).expect("written");
    assert!(page.contains("probe\\-broker"), "{page}");
}
