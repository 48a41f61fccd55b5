//! The daemon under a service manager: what it tells, when it tells nothing any more, and the configuration read
//! again. Mosquitto is real where there is one.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "other tests crash it and write films slowly")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "one container is enough here")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "its certificates are for the tests of TLS")]
mod mosquitto;
#[path = "support/namespace.rs"]
#[expect(dead_code, reason = "nothing here is measured or made read-only")]
mod namespace;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "the broker stays where it is")]
mod witness;

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use daemon::Home;
use films::{Kind, film, sha256};
use mosquitto::Mosquitto;
use namespace::Mount;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use witness::{Witness, sequence};

/// The service manager gives up after this; the daemon pings three times within it.
const WATCHDOG: Duration = Duration::from_millis(300);
/// Far beyond anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The receiving end of what a service tells.
struct ServiceManager {
    directory: TempDir,
    told: Receiver<String>,
}

impl ServiceManager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        let (sender, told) = channel();
        // The kernel keeps ten messages, and a service waits for room.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                if sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { directory, told }
    }

    fn environment(&self) -> [(&'static str, OsString); 2] {
        let socket = self.directory.path().join("notify").into_os_string();
        [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string().into())]
    }

    /// The next thing the service tells, if it comes within `patience`.
    fn told(&self, patience: Duration) -> Option<String> {
        self.told.recv_timeout(patience).ok()
    }

    fn until_told(&self, words: &str) {
        while !self.told(PATIENCE).unwrap_or_else(|| panic!("the service never told {words}")).contains(words) {}
    }
}

#[test]
fn a_film_that_hangs_stops_the_pings() {
    let manager = ServiceManager::new();
    // Nobody listens on port 1.
    let home = Home::new(1);
    home.configure("[daemon]\nbudget_s = 1");
    home.drop_film("film.png", &film(Kind::Png, 0));
    let mut environment = manager.environment().to_vec();
    environment.push(("LANDMARKD_HANG_POINT", "film.analysed".into()));
    let mut daemon = home.start_in(&environment);
    manager.until_told("READY=1");
    manager.until_told("WATCHDOG=1");
    daemon.until_said("the worker hangs");
    // What it told before that lies in the socket still.
    while manager.told(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.told(4 * WATCHDOG), None, "a hung daemon pings");
    daemon.signal(Signal::KILL);
    daemon.ended();
}

#[test]
fn a_disk_that_hangs_under_the_state_stops_the_pings() {
    if !namespace::inside("a_disk_that_hangs_under_the_state_stops_the_pings", &["bindfs"]) {
        return;
    }
    let manager = ServiceManager::new();
    let home = Home::new(1);
    home.configure("[daemon]\nbudget_s = 1");
    let behind = home.path("behind");
    fs::create_dir(&behind).expect("ours");
    fs::create_dir_all(home.state()).expect("ours");
    let disk = Mount::fuse(&behind, &home.state());
    let daemon = home.start_in(&manager.environment());
    manager.until_told("READY=1");
    manager.until_told("WATCHDOG=1");
    disk.signal_server(Signal::STOP);
    home.drop_film("film.png", &film(Kind::Png, 0));
    // The film takes its time until it is to be written, and each ping until then is right.
    let silence = |_| {
        while manager.told(Duration::from_millis(1)).is_some() {}
        manager.told(4 * WATCHDOG).is_none()
    };
    assert!((0..30).any(silence), "a daemon that cannot write pings");
    daemon.signal(Signal::KILL);
    // Until then it waits in the kernel.
    disk.signal_server(Signal::CONT);
    assert_eq!(daemon.ended().signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn a_broker_that_hangs_holds_up_neither_pings_nor_films() {
    let manager = ServiceManager::new();
    // The kernel accepts for it, and nobody ever answers.
    let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let home = Home::new(broker.local_addr().expect("bound").port());
    home.configure("[daemon]\nbudget_s = 1\ndrain_s = 1");
    let mut daemon = home.start_in(&manager.environment());
    manager.until_told("READY=1");
    for number in 0..3 {
        home.drop_film(&format!("{number}.png"), &film(Kind::Png, number));
        daemon.until_said(&format!("event {}", number + 1));
    }
    // Three times the budget, ping by ping.
    for _ in 0..30 {
        manager.until_told("WATCHDOG=1");
    }
    assert_eq!(daemon.stopped().code(), Some(0));
    manager.until_told("STOPPING=1");
}

#[test]
fn the_service_manager_is_told_of_a_reload_and_its_end() {
    let manager = ServiceManager::new();
    let home = Home::new(1);
    home.configure("[daemon]\ndrain_s = 1");
    let daemon = home.start_in(&manager.environment());
    manager.until_told("READY=1");
    for wrong in [false, true] {
        home.configure(if wrong { "[daemon]\ndrian_s = 1" } else { "[daemon]\ndrain_s = 2" });
        daemon.signal(Signal::HUP);
        manager.until_told("RELOADING=1\nMONOTONIC_USEC=");
        loop {
            let told = manager.told(PATIENCE).expect("the reload ends");
            if told.contains("READY=1") {
                assert_eq!(told.contains("the old one holds"), wrong, "{told}");
                break;
            }
        }
    }
    assert_eq!(daemon.stopped().code(), Some(0));
}

fn states(witness: &Witness) -> Vec<&Value> {
    witness.on("status").map(|status| &status["state"]).collect()
}

#[tokio::test]
async fn a_wrong_configuration_leaves_the_old_one_in_force_and_the_status_says_so() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let mut daemon = home.start();
    witness.idle(1).await;
    let elsewhere = home.path("elsewhere");
    for (number, (wrong, words)) in (0..).zip([
        ("[mqtt]\nprot = 1".to_owned(), "unknown key"),
        ("[daemon]\ndrain_s = 0".to_owned(), "daemon.drain_s = 0 is not allowed"),
        (format!("[model]\ndirectory = {elsewhere:?}"), "manifest.json"),
        (format!("[state]\ndirectory = {elsewhere:?}"), "state.directory cannot change"),
    ]) {
        home.configure(&wrong);
        daemon.signal(Signal::HUP);
        daemon.until_said(words);
        let rejected =
            |status: &Value| status["state"] == "degraded" && status["reasons"] == json!(["config_rejected"]);
        witness.until("the rejection", |witness| witness.on("status").last().is_some_and(rejected)).await;
        let bytes = film(Kind::Png, number);
        home.drop_film(&format!("{number}.png"), &bytes);
        witness.result_of(&sha256(&bytes)).await;
    }
    assert!(!elsewhere.exists());

    home.configure("");
    daemon.signal(Signal::HUP);
    witness.until("online", |witness| witness.on("status").last().is_some_and(|s| s["state"] == "online")).await;
    assert!(
        !states(&witness).iter().any(|state| *state == "offline" || *state == "stopping"),
        "{:?}",
        states(&witness)
    );
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!(witness.events().iter().map(|event| sequence(event)).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(witness.on("status").all(|status| status["boot_id"].as_str().is_some_and(|id| id.ends_with("-1"))));
}

#[tokio::test]
async fn a_new_configuration_is_taken_over_by_the_same_process_without_a_goodbye() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let daemon = home.start();
    witness.idle(1).await;
    let first = film(Kind::Png, 0);
    home.drop_film("first.png", &first);
    witness.result_of(&sha256(&first)).await;

    let others = home.path("others");
    fs::create_dir(&others).expect("the folder is ours");
    let second = film(Kind::Png, 1);
    // It knows the first film by its bytes, wherever it lies.
    fs::write(others.join("first.png"), &first).expect("the folder is ours");
    fs::write(others.join("second.png"), &second).expect("the folder is ours");
    home.configure(&format!("[acquisition]\nfolder = {others:?}"));
    daemon.signal(Signal::HUP);
    witness.result_of(&sha256(&second)).await;
    assert!(states(&witness).iter().all(|state| *state == "online"), "{:?}", states(&witness));
    let last = witness.on("status").last().expect("a birth");
    assert_eq!(last["session"], 2, "another connection of the same run");
    assert!(last["boot_id"].as_str().is_some_and(|id| id.ends_with("-1")), "{last}");
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!(witness.events().iter().map(|event| sequence(event)).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_device_with_a_new_name_says_goodbye_under_the_old_one() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let daemon = home.start();
    witness.idle(1).await;
    let mut renamed = broker.subscribe("xr/v1/clinic/ceph-2/#", &[]).await;
    home.configure("[site]\ndevice = \"ceph-2\"");
    daemon.signal(Signal::HUP);
    witness.until("offline", |witness| witness.on("status").last().is_some_and(|s| s["state"] == "offline")).await;
    let (topic, birth) = renamed.next().await;
    assert_eq!((topic.as_str(), &birth["state"]), ("xr/v1/clinic/ceph-2/status", &json!("online")));
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_crash_loop_ends_in_safe_mode_and_the_suspect_in_quarantine() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let (suspect, good) = (film(Kind::Png, 0), film(Kind::Png, 1));
    home.drop_film("suspect.png", &suspect);
    // Twice on the film, which is one try less than it has; three times before its try is counted.
    for point in ["film.analysed", "film.received", "film.received", "film.analysed", "film.received"] {
        assert_eq!(home.start_to_crash_at(point).ended().code(), None, "{point}");
    }
    let mut daemon = home.start();
    // On a machine with a GPU and on one without: it is left alone, which is nothing more to mend.
    let safe = |status: &Value| {
        status["state"] == "degraded"
            && status["reasons"] == json!(["safe_mode"])
            && status["accelerator"]["state"] == "withheld"
    };
    witness.until("safe mode", |witness| witness.on("status").any(safe)).await;
    witness.until("the refusal", |witness| witness.on("error").next().is_some()).await;
    let refusal = witness.on("error").next().expect("heard");
    assert_eq!((&refusal["data"]["stage"], &refusal["data"]["attempts"]), (&json!("crash"), &json!(2)));
    assert!(home.state().join("quarantine").join(sha256(&suspect)).exists());
    // A new configuration is no end of it.
    home.configure("[daemon]\nbudget_s = 61");
    daemon.signal(Signal::HUP);
    daemon.until_said("is taken over");
    home.drop_film("good.png", &good);
    witness.result_of(&sha256(&good)).await;
    let after = |witness: &Witness| witness.on("status").last().expect("heard")["reasons"] == json!(["safe_mode"]);
    assert!(after(&witness), "{:?}", witness.on("status").last());
    assert_eq!(daemon.stopped().code(), Some(0));

    // A clean end is the end of the loop.
    let daemon = home.start();
    witness.idle(7).await;
    assert_eq!(daemon.stopped().code(), Some(0));
}
