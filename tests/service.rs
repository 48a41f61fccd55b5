//! The daemon under a service manager: what it tells, and when it tells nothing any more.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "other tests crash it and write films slowly")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "one container is enough here")]
mod films;

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use daemon::Home;
use films::{Kind, film};
use rustix::process::Signal;
use tempfile::TempDir;

/// The service manager gives up after this; the daemon pings three times within it.
const WATCHDOG: Duration = Duration::from_millis(300);
/// Far beyond anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The receiving end of what a service tells.
struct ServiceManager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl ServiceManager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        Self { directory, socket }
    }

    fn environment(&self) -> [(&'static str, OsString); 2] {
        let socket = self.directory.path().join("notify").into_os_string();
        [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string().into())]
    }

    /// The next thing the service tells, if it comes within `patience`.
    fn told(&self, patience: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(patience)).expect("not zero");
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
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
