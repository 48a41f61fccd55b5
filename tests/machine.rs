//! The machine under the real program: what the daemon shows of it and leaves to it, and what doctor says of it.

#[path = "support/boards.rs"]
#[expect(dead_code, reason = "some boards are for other tests")]
mod boards;
#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "its crash points and partial films are for other tests")]
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
#[expect(dead_code, reason = "restarted brokers are for other tests")]
mod witness;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use boards::{AGX_ORIN_R35, AGX_THOR_R38, Board, ORIN_NX_R36, PC};
use daemon::Home;
use films::{Kind, film, sha256};
use mosquitto::Mosquitto;
use page::until;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use witness::Witness;

const ROOT: &str = "LANDMARKD_MACHINE_ROOT";

/// The body of a GET.
fn get(address: SocketAddr, path: &str) -> String {
    let (status, body) = page::get(address, path);
    assert_eq!(status, 200, "{path}");
    String::from_utf8(body).expect("text")
}

/// The value of a series in the metrics, if it is there.
fn value(address: SocketAddr, series: &str) -> Option<f64> {
    let metrics = get(address, "/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

/// A free port of the loopback, told to nobody else.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

#[tokio::test]
async fn while_the_machine_throttles_the_backlog_rests_and_a_fresh_film_does_not() {
    const BACKLOG: u32 = 16;
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let (home, page, board) = (Home::new(broker.port()), free(), Board::new(ORIN_NX_R36));
    let heat = "sys/class/thermal/cooling_device1/cur_state";
    board.set(heat, "3");
    // A pause that no test could wait for.
    home.configure(&format!("[daemon]\nthrottled_pause_s = 3600\n[health]\nlisten = \"{page}\"\n"));
    let mut daemon = home.start_in(&[(ROOT, board.root().into())]);
    daemon.until_said("slows itself down: the processor is too hot; the backlog is read with pauses");
    let throttled =
        |status: &Value| status["reasons"] == json!(["throttled"]) && status["throttled_by"] == json!(["cpu_heat"]);
    witness.until("throttled", |witness| witness.on("status").any(throttled)).await;
    assert!(witness.on("status").any(|status| throttled(status) && status["power_mode"] == "15W"));

    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for number in 0..BACKLOG {
        home.drop_film_of(&format!("old-{number}.png"), &film(Kind::Png, number), hour_ago);
    }
    until("the backlog rests", || value(page, "landmarkd_throttle_pausing") == Some(1.0));
    assert!(witness.events().is_empty(), "it rests before the first");
    for (series, expected) in [
        ("landmarkd_throttled{cause=\"cpu_heat\"}", 1.0),
        ("landmarkd_throttled{cause=\"gpu_heat\"}", 0.0),
        ("landmarkd_degraded{reason=\"throttled\"}", 1.0),
        ("landmarkd_ready", 1.0),
        ("landmarkd_temperature_celsius{sensor=\"junction\"}", 50.125),
        ("landmarkd_power_watts{rail=\"vdd_in\"}", 7.292),
        ("landmarkd_gpu_busy_ratio{gpu=\"0\"}", 0.437),
        ("landmarkd_cpu_clock_limit_hertz", 1_510_400_000.0),
    ] {
        let found = value(page, series).unwrap_or(f64::NAN);
        assert!((found - expected).abs() < 1e-9, "{series}: {found}");
    }
    let status: Value = serde_json::from_str(&get(page, "/status.json")).expect("JSON");
    assert_eq!((&status["pausing"], &status["state"]), (&json!(true), &json!("degraded")), "{status}");
    assert_eq!(status["machine"]["board"]["jetpack"], "6.2", "{status}");
    let shown = get(page, "/");
    for words in ["The machine is too hot or draws too much", "the backlog rests", "power mode 15W", "7.3 W"] {
        assert!(shown.contains(words), "{words} in {shown}");
    }

    let fresh = film(Kind::Png, BACKLOG);
    home.drop_film("fresh.png", &fresh);
    witness.result_of(&sha256(&fresh)).await;
    // What stood before it in the line was read, and the rest rests again.
    until("the rest rests", || value(page, "landmarkd_throttle_pausing") == Some(1.0));
    assert!(value(page, "landmarkd_throttle_pauses_total") >= Some(2.0));
    let read = value(page, "landmarkd_films_total{outcome=\"accepted\",reason=\"accepted\"}").expect("counted");
    assert!(read >= 1.0 && read <= f64::from(BACKLOG - 4), "{read} films were read");

    board.set(heat, "0");
    daemon.until_said("no longer slows itself down");
    let all = BACKLOG as usize + 1;
    witness.until("all films", |witness| witness.events().len() == all).await;
    witness.idle(1).await;
    let last = witness.on("status").last().expect("told").clone();
    assert!(last.get("throttled_by").is_none() && last["reasons"] == json!([]), "{last}");
    until("nothing rests", || value(page, "landmarkd_throttle_pausing") == Some(0.0));
    assert_eq!(daemon.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_film_in_hand_that_rests_does_not_hold_up_a_stop_and_is_read_after_it() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let (home, page, board) = (Home::new(broker.port()), free(), Board::new(ORIN_NX_R36));
    let alarm = "sys/class/hwmon/hwmon1/curr1_crit_alarm";
    board.set(alarm, "1");
    home.configure(&format!("[daemon]\nthrottled_pause_s = 3600\n[health]\nlisten = \"{page}\"\n"));
    let mut daemon = home.start_in(&[(ROOT, board.root().into())]);
    daemon.until_said("it draws more than its supply or power mode allows");
    let old = film(Kind::Png, 1);
    home.drop_film_of("old.png", &old, SystemTime::now() - Duration::from_secs(3600));
    until("it rests", || value(page, "landmarkd_throttle_pausing") == Some(1.0));
    let began = Instant::now();
    assert_eq!(daemon.stopped().code(), Some(0));
    assert!(began.elapsed() < daemon::DRAIN, "{:?}", began.elapsed());
    assert!(witness.events().is_empty());
    board.set(alarm, "0");
    let again = home.start_in(&[(ROOT, board.root().into())]);
    witness.result_of(&sha256(&old)).await;
    assert_eq!(again.stopped().code(), Some(0));
}

#[tokio::test]
async fn a_sensor_that_hangs_is_said_and_holds_up_neither_film_nor_stop() {
    let Some(broker) = Mosquitto::start(|_| String::new()) else { return };
    let mut witness = Witness::new(&broker).await;
    let (home, page, board) = (Home::new(broker.port()), free(), Board::new(ORIN_NX_R36));
    // To open a pipe that nobody writes takes for ever.
    let sensor = "sys/class/thermal/thermal_zone0/temp";
    board.remove(sensor);
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, board.root().join(sensor), FileType::Fifo, mode, 0).expect("a pipe");
    home.configure(&format!("[health]\nlisten = \"{page}\"\n"));
    let mut daemon = home.start_in(&[(ROOT, board.root().into())]);
    daemon.until_said("no answer from the machine within 2000 ms to: thermal");
    let film = film(Kind::Png, 1);
    home.drop_film("film.png", &film);
    witness.result_of(&sha256(&film)).await;
    until("it is said", || value(page, "landmarkd_telemetry_silent{source=\"thermal\"}") == Some(1.0));
    assert_eq!(value(page, "landmarkd_telemetry_silent{source=\"power\"}"), Some(0.0));
    assert_eq!(value(page, "landmarkd_temperature_celsius{sensor=\"cpu\"}"), None);
    assert_eq!(value(page, "landmarkd_power_watts{rail=\"vdd_in\"}"), Some(7.292));
    assert!(get(page, "/").contains("no answer from: thermal"));
    assert_eq!(value(page, "landmarkd_healthy"), Some(1.0));
    let began = Instant::now();
    assert_eq!(daemon.stopped().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// `doctor --gpu` on a board, without a configuration.
fn doctor(board: &Board, arguments: &[&str]) -> Output {
    let model = bundle::directory().display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_landmarkd"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANDMARKD_")) {
        command.env_remove(name);
    }
    command.args(["doctor", "--gpu", "--runs", "1", "--config", "/nonexistent/landmarkd.toml", "--model", &model]);
    command.args(arguments).env(ROOT, board.root()).output().expect("the program is built with its tests")
}

/// What stands in the line of a name, with its word before it.
fn line<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let padded = format!("  {name}  ");
    table.lines().filter(|line| line.get(4..).is_some_and(|rest| rest.starts_with(&padded))).collect()
}

fn says(table: &str, word: &str, name: &str, words: &str) {
    let lines = line(table, name);
    let is_said = lines.len() == 1 && lines[0].starts_with(word) && lines[0].contains(words);
    assert!(is_said, "{word} {name} {words}, but {lines:?} in\n{table}");
}

#[test]
fn doctor_tells_a_person_with_an_orin_what_it_is_and_what_serves() {
    let board = Board::new(ORIN_NX_R36);
    let output = doctor(&board, &[]);
    let table = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{table}");
    for (word, name, words) in [
        ("ok", "board", "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"),
        ("ok", "jetpack", "6.2 (Jetson Linux 36.4.3)"),
        ("ok", "driver", "not told"),
        ("ok", "gpu", "44 % busy, 306 of 612 MHz"),
        ("ok", "tensorrt", "10.3.0"),
        ("ok", "power mode", "15W; the processor runs at most at 1.51 of 1.98 GHz"),
        ("ok", "tract", "tract-cpu: median "),
        ("ok", "tract", "ms of 1 runs, drawing 7.3 W on average and 7.3 W at most; its network loads in "),
        ("ok", "self-test", "px of 0.5 px allowed"),
        ("ok", "memory", "MiB at most here, 12288 of 15616 MiB available"),
        ("ok", "power", "7.3 W before, 7.3 W after"),
        ("ok", "temperature", "50.1 °C before, 50.1 °C after, 50.1 °C at most; it throttles from 99 °C"),
        ("ok", "throttling", "none"),
    ] {
        says(&table, word, name, words);
    }
    let verdict = line(&table, "verdict");
    assert_eq!(verdict.len(), 1, "{table}");
    assert!(verdict[0].contains("serving on the CPU because "), "{table}");
}

#[test]
fn doctor_says_when_the_machine_slows_itself_down_and_what_is_too_old() {
    let board = Board::new(AGX_ORIN_R35);
    board.set("sys/class/thermal/cooling_device2/cur_state", "2");
    let output = doctor(&board, &[]);
    let table = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{table}");
    says(&table, "ok", "jetpack", "5.1.2 (Jetson Linux 35.4.1)");
    says(&table, "warn", "tensorrt", "8.5.2, too old for the network");
    says(&table, "warn", "throttling", "it slows itself down: the GPU is too hot");
    // No rail of it carries all.
    says(&table, "ok", "power", "12.6 W before, 12.6 W after");
    assert!(table.contains("-> update to JetPack 6.1 or later, which has TensorRT 10"), "{table}");
    assert!(table.contains("-> see to its fan"), "{table}");
}

#[test]
fn programs_get_doctors_numbers() {
    let board = Board::new(AGX_THOR_R38);
    let output = doctor(&board, &["--json"]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let facts = &report["facts"];
    for (pointer, expected) in [
        ("/is_jetson", json!(true)),
        ("/before/board/driver", json!("580.00")),
        ("/before/board/power_mode", json!("120W")),
        ("/before/power/3", json!({"rail": "vin", "milliwatts": 23_120})),
        ("/tract/runs", json!(1)),
        ("/tract/backend", json!("tract-cpu")),
        ("/tract/machine/most_mw", json!(23_120)),
    ] {
        assert_eq!(facts.pointer(pointer), Some(&expected), "{pointer}: {facts}");
    }
    assert!(facts["tract"]["latency_ms"]["p50"].as_f64() > Some(0.0), "{facts}");
    assert!(facts["self_test_px"].as_f64() < Some(0.5) && facts["peak_rss_bytes"].as_u64() > Some(1 << 20), "{facts}");
    let checks = report["checks"].as_array().expect("checks");
    assert!(checks.iter().all(|check| (check["verdict"] == "ok") == check.get("remedy").is_none()), "{report}");
    assert_eq!(checks.last().expect("some")["name"], "verdict", "{report}");
}

#[test]
fn doctor_says_that_a_pc_is_no_jetson() {
    let board = Board::new(PC);
    let output = doctor(&board, &[]);
    let table = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{table}");
    says(&table, "ok", "board", "no name in /proc/device-tree/model");
    says(&table, "ok", "jetpack", "none: /etc/nv_tegra_release is not there");
    says(&table, "ok", "gpu", "none");
    says(&table, "ok", "tensorrt", "not installed");
    says(&table, "ok", "temperature", "52.0 °C before, 52.0 °C after, 52.0 °C at most");
    says(&table, "ok", "verdict", "not a Jetson: serving on the CPU because ");
}

#[test]
fn doctor_fails_where_no_film_could_be_read() {
    let board = Board::new(ORIN_NX_R36);
    let empty = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(empty.path().join("bundle")).expect("the folder is ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_landmarkd"));
    command.args(["doctor", "--gpu", "--config", "/nonexistent/landmarkd.toml", "--model"]);
    let output = command.arg(empty.path().join("bundle")).env(ROOT, board.root()).output().expect("it runs");
    let table = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(78), "{table}");
    says(&table, "FAIL", "model", "bundle");
    says(&table, "FAIL", "verdict", "not ready: ");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("landmarkd: "), "{:?}", output.stderr);
}
