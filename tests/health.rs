//! What the daemon shows of itself: the real daemon, a real Mosquitto, requests over real sockets.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "its crash points and late films are for other tests")]
mod daemon;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "DICOM identifiers are for other tests")]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "its certificates are for the tests of TLS")]
mod mosquitto;
#[path = "support/page.rs"]
mod page;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "documents by topic are for other tests")]
mod witness;

use std::net::{SocketAddr, TcpListener};

use daemon::Home;
use films::{Kind, film, sha256};
use mosquitto::Mosquitto;
use page::{get, until};
use serde_json::Value;
use witness::Witness;

fn text(address: SocketAddr, path: &str) -> String {
    let (status, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    String::from_utf8(body).expect("text")
}

fn status(address: SocketAddr) -> Value {
    serde_json::from_str(&text(address, "/status.json")).expect("JSON")
}

/// The value of a series in the metrics.
fn value(metrics: &str, series: &str) -> f64 {
    let line =
        metrics.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series}: {metrics}"));
    line.trim().parse().expect("a number")
}

#[tokio::test]
async fn a_film_is_counted_listed_and_drawn_and_its_name_is_nowhere() {
    let Some(mut broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    // A free port, told to nobody else.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    // What stays no whole film is refused after a second.
    home.configure(&format!("[acquisition]\nmax_settle_s = 1\n[health]\nlisten = \"{free}\"\n"));
    let mut daemon = home.start();
    daemon.until_said("the status page is at");

    let (good, bad) = (film(Kind::Png, 1), b"\x89PNG\r\n\x1a\nno film".to_vec());
    home.drop_film("mustermann-max-19700101.png", &good);
    witness.result_of(&sha256(&good)).await;
    home.drop_film("mustermann-erika.png", &bad);
    until("both are delivered", || {
        let films = status(free)["films"].as_array().expect("a list").clone();
        films.len() == 2 && films.iter().all(|film| !film["delivered"].is_null())
    });

    let metrics = text(free, "/metrics");
    for (series, expected) in [
        ("landmarkd_films_total{outcome=\"accepted\",reason=\"accepted\"}", 1.0),
        ("landmarkd_films_total{outcome=\"refused\",reason=\"incomplete\"}", 1.0),
        ("landmarkd_events_published_total{kind=\"result\"}", 1.0),
        ("landmarkd_events_published_total{kind=\"error\"}", 1.0),
        ("landmarkd_outbox_length", 0.0),
        ("landmarkd_broker_connected", 1.0),
        ("landmarkd_broker_connections_total{event=\"made\"}", 1.0),
    ] {
        assert_eq!(value(&metrics, series), expected, "{series}");
    }
    let now = status(free);
    assert_eq!((&now["state"], &now["counts"]["accepted"]), (&Value::from("online"), &Value::from(1)), "{now}");
    assert_eq!((get(free, "/healthz").0, get(free, "/readyz").0), (200, 200));
    until("the picture is drawn", || get(free, "/overlays/1.png").0 == 200);
    assert!(get(free, "/overlays/1.png").1.starts_with(b"\x89PNG"));
    for path in ["/", "/status.json", "/metrics"] {
        let shown = text(free, path);
        assert!(!shown.contains("mustermann") && !shown.contains(home.films().to_str().expect("text")), "{path}");
    }

    broker.kill();
    until("the broker is missed", || {
        let now = status(free);
        now["state"] == "degraded" && now["reasons"].to_string().contains("broker_away")
    });
    assert_eq!(get(free, "/readyz").0, 200, "films are still taken");
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn the_golden_film_is_tried_while_no_other_comes_and_is_no_film() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    home.configure(&format!("[daemon]\ncanary_s = 1\n[health]\nlisten = \"{free}\"\n[log]\nfilter = \"debug\"\n"));
    let mut daemon = home.start();
    daemon.until_said("the golden film is within");
    daemon.until_said("the golden film is within");
    let metrics = text(free, "/metrics");
    assert!(value(&metrics, "landmarkd_canary_error_pixels") < 0.5, "{metrics}");
    assert_eq!(value(&metrics, "landmarkd_degraded{reason=\"canary_failed\"}"), 0.0);
    assert_eq!(value(&metrics, "landmarkd_events_queued_total{kind=\"result\"}"), 0.0);
    assert_eq!(status(free)["films"], Value::Array(Vec::new()));
    let film = film(Kind::Png, 3);
    home.drop_film("film.png", &film);
    witness.result_of(&sha256(&film)).await;
    assert_eq!(witness.events().iter().map(|event| witness::sequence(event)).collect::<Vec<_>>(), [1]);
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_port_that_is_in_use_holds_up_no_film() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let home = Home::new(broker.port());
    home.configure(&format!("[health]\nlisten = \"{}\"\n", taken.local_addr().expect("its address")));
    let mut daemon = home.start();
    daemon.until_said("no status page and no metrics");
    let film = film(Kind::Png, 2);
    home.drop_film("film.png", &film);
    witness.result_of(&sha256(&film)).await;
    assert_eq!(daemon.stopped().code(), Some(0));
}
