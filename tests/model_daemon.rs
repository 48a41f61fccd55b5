//! Model bundles under the real daemon: what is refused, switched and taken back while films come.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/bundles.rs"]
#[expect(dead_code, reason = "the store is looked at from outside")]
mod bundles;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "other tests crash it and write films slowly")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "one container is enough here")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "its certificates are for the tests of TLS")]
mod mosquitto;
#[path = "support/private.rs"]
mod private;
#[path = "support/stand_in.rs"]
mod stand_in;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "the broker stays where it is")]
mod witness;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use bundles::{Device, NAME, comment, entry, files, json, outcome, tar};
use daemon::{Daemon, Home};
use films::{Kind, film, sha256};
use landmarkd::model::Bundle;
use mosquitto::Mosquitto;
use private::for_its_owner_alone;
use rustix::fs::Mode;
use rustix::process::{Signal, umask};
use serde_json::{Value, json};
use stand_in::StandIn;
use witness::{Witness, sequence};

/// A device whose configuration names no bundle, its broker and who listens there.
struct Site {
    home: Home,
    device: Device,
    witness: Witness,
    films: u32,
    _broker: Mosquitto,
}

impl Site {
    /// `None` where there is no broker or no minisign.
    async fn new() -> Option<Self> {
        let broker = Mosquitto::start(|_| String::new())?;
        let home = Home::new(broker.port());
        let device = Device::of(&home.state())?;
        let config = fs::read_to_string(home.config()).expect("just written");
        let named = format!("[model]\ndirectory = {:?}\n", bundle::directory());
        assert!(config.contains(&named));
        fs::write(home.config(), config.replace(&named, "")).expect("ours");
        fs::create_dir(home.state()).expect("ours");
        let witness = Witness::new(&broker).await;
        Some(Self { home, device, witness, films: 0, _broker: broker })
    }

    /// Installs a good bundle and lets it serve from the next start on.
    fn activated(&self, version: &str) -> PathBuf {
        let archive = self.device.signed(version, "good");
        json(&self.device.run(&["install", &archive.display().to_string(), "--activate", "--json"]));
        archive
    }

    /// Which model reads the next film, as its result says.
    async fn reads(&mut self) -> String {
        let bytes = film(Kind::Png, self.films);
        self.home.drop_film(&format!("{}.png", self.films), &bytes);
        self.films += 1;
        let id = sha256(&bytes);
        self.witness.result_of(&id).await;
        let model = &self.witness.results_of(&id).next().expect("heard")["data"]["model"];
        format!("{} {}", model["name"].as_str().expect("a name"), model["version"].as_str().expect("a version"))
    }

    /// Waits for a status that holds for these reasons.
    async fn says(&mut self, reasons: &Value) {
        let holds = |witness: &Witness| witness.on("status").last().is_some_and(|status| status["reasons"] == *reasons);
        self.witness.until(&reasons.to_string(), holds).await;
    }

    fn installed(&self, version: &str) -> PathBuf {
        self.home.state().join("models").join(NAME).join(version)
    }

    /// Stops the daemon; every film has its result, in order, and nothing is left out.
    fn ends(&self, daemon: Daemon) {
        assert_eq!(daemon.stopped().code(), Some(0));
        let mut sequences: Vec<_> = self.witness.events().iter().map(|event| sequence(event)).collect();
        // What was on its way when the daemon was killed may come twice.
        sequences.dedup();
        assert_eq!(sequences, (1..=u64::from(self.films)).collect::<Vec<_>>());
    }
}

/// The bundle that the daemon finds in its working directory.
fn packaged() -> String {
    let packaged = Bundle::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/ceph19-nfdp")));
    let packaged = packaged.expect("the repository's own");
    format!("{} {}", packaged.manifest().name, packaged.manifest().version)
}

fn without_goodbye(witness: &Witness) -> bool {
    witness.on("status").all(|status| status["state"] != "offline" && status["state"] != "stopping")
}

/// Makes an archive.
type Made<'a> = &'a dyn Fn(&Site) -> PathBuf;

#[tokio::test]
async fn a_bundle_that_is_refused_changes_nothing_for_the_daemon_that_serves() {
    let Some(mut site) = Site::new().await else { return };
    let daemon = site.home.start();
    let packaged = packaged();
    assert_eq!(site.reads().await, packaged, "nothing is installed: the packaged one, which nobody signed");
    site.activated("1.0.0");
    assert_eq!(site.reads().await, packaged, "until the next start or reload");
    daemon.signal(Signal::HUP);
    site.witness
        .until("the switch", |witness| witness.on("info").last().is_some_and(|i| i["model"]["name"] == NAME))
        .await;

    let plain = |site: &Site, kind: &str| {
        let archive = site.device.archive("1.1.0", &files("1.1.0", kind));
        let _unsigned = fs::remove_file(format!("{}.minisig", archive.display()));
        archive
    };
    let signed = |site: &Site, kind: &str| {
        let archive = plain(site, kind);
        site.device.sign(&archive, "maker", &comment("1.1.0"), &[]);
        archive
    };
    let wrong_golden = |site: &Site| {
        // As large as its manifest does not say.
        let mut files = files("1.1.0", "good");
        let manifest: &mut Vec<u8> = &mut files[0].1;
        let mut document: Value = serde_json::from_slice(manifest).expect("JSON");
        document["golden"]["size"]["width"] = json!(31);
        *manifest = document.to_string().into_bytes();
        let archive = site.device.archive("1.1.0", &files);
        site.device.sign(&archive, "maker", &comment("1.1.0"), &[]);
        archive
    };
    // What it is, how it is made, the switch that its self-test meets, and what is said.
    let cases: [(&str, Made<'_>, Option<&str>, &str); 10] = [
        ("unsigned", &|site| plain(site, "good"), None, "there is no signature"),
        (
            "foreign key",
            &|site| {
                let archive = plain(site, "good");
                site.device.sign(&archive, "stranger", &comment("1.1.0"), &[]);
                archive
            },
            None,
            "was made with a key that is not in",
        ),
        (
            "corrupt",
            &|site| {
                let archive = signed(site, "good");
                let mut bytes = fs::read(&archive).expect("ours");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&archive, bytes).expect("ours");
                archive
            },
            None,
            "it was changed or is damaged",
        ),
        (
            "wrong size of a file",
            &|site| {
                let large = entry("network.onnx", b'0', 1 << 30, b"");
                let archive = site.device.archive_of("1.1.0", &[large, tar(&[])].concat());
                site.device.sign(&archive, "maker", &comment("1.1.0"), &[]);
                archive
            },
            None,
            "more than the",
        ),
        ("wrong size of the golden film", &wrong_golden, None, "the manifest says 31x40"),
        ("no network", &|site| signed(site, "unusable"), None, "cannot use the network"),
        ("another network", &|site| signed(site, "off"), None, "a landmark is 2.00 px from where it should be"),
        ("too much memory", &|site| signed(site, "greedy"), None, "ended with a panic"),
        ("a crash", &|site| signed(site, "good"), Some("LANDMARKD_CRASH_POINT"), "died of signal 9"),
        ("an older one", &|site| site.device.signed("0.9.0", "good"), None, "is older than"),
    ];
    for (what, archive, fault, words) in cases {
        let archive = archive(&site).display().to_string();
        let mut command = site.device.command(&["install", &archive, "--activate"]);
        if let Some(variable) = fault {
            command.env(variable, "model.testing");
        }
        let (code, text) = outcome(&command.output().expect("the program starts"));
        assert_eq!(code, 65, "{what}: {text}");
        assert!(text.contains(words), "{what}: {text}\ndoes not say {words}");
        assert_eq!(site.reads().await, "test-nfdp 1.0.0", "after {what}");
    }
    assert!(!site.installed("1.1.0").exists() && !site.installed("0.9.0").exists());
    // What the next reload finds is what served all the time.
    daemon.signal(Signal::HUP);
    site.witness
        .until("another connection", |witness| witness.on("status").last().is_some_and(|s| s["session"] == 3))
        .await;
    assert_eq!(site.reads().await, "test-nfdp 1.0.0");
    assert!(without_goodbye(&site.witness));
    site.ends(daemon);
}

#[tokio::test]
async fn a_switch_and_the_way_back_take_a_reload_each() {
    let Some(mut site) = Site::new().await else { return };
    site.activated("1.0.0");
    let mut daemon = site.home.start();
    assert_eq!(site.reads().await, "test-nfdp 1.0.0");
    site.activated("1.1.0");
    assert_eq!(site.reads().await, "test-nfdp 1.0.0", "until the reload");
    // A reload ends one run and begins another, as often as one likes.
    for _ in 0..4 {
        daemon.signal(Signal::HUP);
        daemon.until_said("taken over");
        assert_eq!(site.reads().await, "test-nfdp 1.1.0");
    }
    let back = json(&site.device.run(&["rollback", "--json"]));
    assert_eq!(back["active"]["version"], "1.0.0");
    daemon.signal(Signal::HUP);
    daemon.until_said("taken over");
    assert_eq!(site.reads().await, "test-nfdp 1.0.0");
    assert!(without_goodbye(&site.witness));
    site.says(&json!([])).await;
    site.ends(daemon);
}

#[tokio::test]
async fn three_kills_after_a_switch_bring_the_bundle_before_back_and_the_device_says_so() {
    let Some(mut site) = Site::new().await else { return };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    site.home.configure(&format!("[health]\nlisten = \"{free}\"\n"));
    site.activated("1.0.0");
    let daemon = site.home.start();
    assert_eq!(site.reads().await, "test-nfdp 1.0.0");
    site.ends(daemon);

    site.activated("1.1.0");
    // A stop that was asked for is held against nobody, and forgives nothing.
    for is_killed in [true, false, true, false, true] {
        let daemon = site.home.start();
        assert_eq!(site.reads().await, "test-nfdp 1.1.0");
        daemon.signal(if is_killed { Signal::KILL } else { Signal::TERM });
        assert_eq!(daemon.ended().code(), (!is_killed).then_some(0));
    }
    let rolled_back = json!(["model_rolled_back"]);
    let mut daemon = site.home.start();
    daemon.until_said("test-nfdp 1.1.0 is taken out of service, and test-nfdp 1.0.0 serves again");
    assert_eq!(site.reads().await, "test-nfdp 1.0.0");
    site.says(&rolled_back).await;
    let metrics = get(free, "/metrics");
    assert!(metrics.contains("landmarkd_degraded{reason=\"model_rolled_back\"} 1\n"), "{metrics}");
    let status: Value = serde_json::from_str(&get(free, "/status.json")).expect("JSON");
    assert_eq!((&status["state"], &status["reasons"]), (&json!("degraded"), &rolled_back));
    assert_eq!(status["model"]["version"], "1.0.0");
    assert!(get(free, "/").contains("The newly installed model failed; the one before it serves."));
    let list = String::from_utf8(site.device.run(&["list"]).stdout).expect("text");
    assert!(
        list.contains("test-nfdp 1.1.0 was taken out of service because the daemon ended uncleanly 3 times"),
        "{list}"
    );
    assert_eq!(daemon.stopped().code(), Some(0));

    // Until somebody has seen to it.
    let daemon = site.home.start();
    assert_eq!(site.reads().await, "test-nfdp 1.0.0");
    site.says(&rolled_back).await;
    json(&site.device.run(&["activate", NAME, "1.0.0", "--json"]));
    assert!(!site.installed("1.1.0").exists());
    daemon.signal(Signal::HUP);
    site.says(&json!([])).await;
    site.ends(daemon);
}

#[tokio::test]
async fn a_bundle_that_fails_at_a_start_is_given_up_at_once_and_the_last_one_is_waited_for() {
    let Some(mut site) = Site::new().await else { return };
    let first = site.activated("1.0.0");
    site.activated("1.1.0");
    let daemon = site.home.start();
    assert_eq!(site.reads().await, "test-nfdp 1.1.0");
    assert_eq!(daemon.stopped().code(), Some(0));

    // A run that ended well leaves no doubt, so it is in the daemon itself that this comes out.
    move_golden_landmark(&site.installed("1.1.0"));
    let mut daemon = site.home.start();
    daemon.until_said("it failed at a start: the self-test failed: on the bundle's golden film a landmark is 2.00 px");
    assert_eq!(site.reads().await, "test-nfdp 1.0.0");
    site.says(&json!(["model_rolled_back"])).await;
    assert_eq!(daemon.stopped().code(), Some(0));

    // Now nothing can serve: the service manager is to try again, since a person can mend it meanwhile.
    fs::write(site.installed("1.0.0").join("network.onnx"), "rotten").expect("ours");
    let mut daemon = site.home.start();
    daemon.until_said("there is nothing to go back to");
    assert_eq!(daemon.ended().code(), Some(69));
    json(&site.device.run(&["install", &first.display().to_string(), "--json"]));
    let daemon = site.home.start();
    assert_eq!(site.reads().await, "test-nfdp 1.0.0");
    site.ends(daemon);
}

#[tokio::test]
async fn installed_bundles_and_built_engines_are_for_the_owner_alone() {
    // The usual one, which leaves what is made without a thought readable to all; so it is for programs started here.
    umask(Mode::from_raw_mode(0o022));
    let Some(mut site) = Site::new().await else { return };
    let stand_in = StandIn::whole();
    site.activated("1.0.0");
    site.activated("1.1.0");
    let daemon = site.home.start_in(&stand_in.environment("", "12060"));
    let serves =
        |witness: &Witness| witness.on("status").last().is_some_and(|s| s["accelerator"]["state"] == "serving");
    site.witness.until("an engine", serves).await;
    assert_eq!(site.reads().await, "test-nfdp 1.1.0");
    site.ends(daemon);
    let models = site.home.state().join("models");
    for file in ["test-nfdp/1.0.0/network.onnx", "test-nfdp/1.1.0/network.onnx", ".selection.json", ".runs.json"] {
        for_its_owner_alone(&models, file);
    }
    let engines = site.home.state().join("engines");
    let names: Vec<_> =
        fs::read_dir(&engines).expect("an engine was built").map(|entry| entry.expect("ours")).collect();
    let plan = names.iter().map(|entry| entry.file_name()).find(|name| name.to_string_lossy().ends_with(".plan"));
    for_its_owner_alone(&engines, plan.expect("a plan").to_str().expect("text"));
}

fn move_golden_landmark(bundle: &Path) {
    let path = bundle.join("manifest.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&path).expect("ours")).expect("JSON");
    let x = &mut document["golden"]["expected_px"][1]["x"];
    *x = json!(x.as_f64().expect("a coordinate") + 2.0);
    fs::write(path, document.to_string()).expect("ours");
}

/// The body of a GET.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the page is served");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    body.to_owned()
}
