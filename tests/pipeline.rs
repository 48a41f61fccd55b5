//! A film's whole way, with nothing replaced: the real daemon as a process, a real Mosquitto, a real bundle.
//!
//! Every wait is for a message, a journal line, a mark on the disk or the end of a process, never for a length of time.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "its settings are changed under a service manager")]
mod daemon;
#[path = "support/films.rs"]
mod films;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "its certificates are for the tests of TLS")]
mod mosquitto;
#[path = "support/page.rs"]
#[expect(dead_code, reason = "no page is looked at")]
mod page;
#[path = "support/witness.rs"]
#[expect(dead_code, reason = "restarts are for other tests")]
mod witness;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use daemon::{DRAIN, Home, Partial};
use films::{Kind, film, sha256, sop_instance};
use landmarkd::config::{Merged, Surroundings, validate};
use landmarkd::geometry::Point;
use landmarkd::measure::{MeasureSet, Unit};
use landmarkd::model::Bundle;
use landmarkd::outbox::Outbox;
use landmarkd::report::{
    EventId, FilmResult, ImageInfo, LandmarkResult, MeasureResult, ModelInfo, NormResult, Origin, Timing, Topics,
};
use landmarkd::store::Store;
use mosquitto::Mosquitto;
use page::until;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use serde_json::Value;
use sha2::{Digest, Sha256};
use witness::{Witness, sequence};

fn plain_broker() -> Option<Mosquitto> {
    Mosquitto::start(|_| String::new())
}

/// The standard output of a subcommand that succeeds.
fn landmarkd(arguments: &[&str], files: &[PathBuf]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_landmarkd")).args(arguments).args(files).output();
    let output = output.expect("the program is built with its tests");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the program writes UTF-8")
}

/// What must be the same wherever a film is analysed: timings differ, and so do the keys of tokens.
fn lasting(data: &Value) -> Value {
    let mut data = data.clone();
    let object = data.as_object_mut().expect("an object");
    assert!(object.remove("timing").is_some());
    object["image"].as_object_mut().expect("an object").remove("dicom");
    data
}

#[tokio::test]
async fn a_film_in_the_folder_is_a_valid_result_at_a_subscriber() {
    let Some(broker) = plain_broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let daemon = home.start();
    let bundle = bundle::open();

    let variant = |kind: Kind| (kind.name(), format!("film.{}", kind.name()), film(kind, 1));
    let mut films = vec![("png", "golden".to_owned(), bundle.golden().to_vec())];
    films.extend(Kind::ALL.map(variant));
    for (_, name, bytes) in &films {
        home.drop_film(name, bytes);
    }
    for (.., bytes) in &films {
        witness.result_of(&sha256(bytes)).await;
    }
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!(witness.events().iter().map(|event| sequence(event)).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);

    let schemas: Value = serde_json::from_str(&landmarkd(&["schema"], &[])).expect("JSON");
    for topic in ["status", "info", "result"] {
        for document in witness.on(topic) {
            let valid = jsonschema::validate(&schemas[topic], document);
            assert!(valid.is_ok(), "{topic}: {valid:?} in {document}");
        }
    }

    let merged = Merged::read(&home.config(), []).expect("the daemon took it");
    let config = validate(&merged, &Surroundings::of_process()).expect("the daemon took it").hash();
    let model = bundle::directory().display().to_string();
    let paths: Vec<PathBuf> = films.iter().map(|(_, name, _)| home.films().join(name)).collect();
    let predicted = landmarkd(&["predict", "--json", "--model", &model], &paths);
    assert_eq!(predicted.lines().count(), films.len());
    for ((format, name, bytes), line) in films.iter().zip(predicted.lines()) {
        let film = sha256(bytes);
        let [event] = witness.results_of(&film).collect::<Vec<_>>()[..] else { panic!("one result of {name}") };
        let data = &event["data"];
        assert_eq!(event["id"], sha256(format!("{film}\n{}\n{config}\n", bundle.network_sha256())), "{name}");
        assert_eq!((&data["image"]["format"], &event["historical"]), (&Value::from(*format), &Value::from(false)));

        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((&line["file"], &line["ok"]), (&Value::from(home.films().join(name).to_str()), &Value::from(true)));
        assert_eq!(lasting(data), lasting(&line["data"]), "{name}");

        // One pixel was changed, and JPEG changes all of them a little.
        let tolerance_px = if name == "golden" { 0.5 } else { 3.0 };
        let found = data["landmarks"].as_array().expect("landmarks");
        assert_eq!(found.len(), bundle.manifest().landmarks.len());
        for (found, expected) in found.iter().zip(&bundle.manifest().golden.expected_px) {
            let at = |axis: &str| found[axis].as_f64().expect("a number");
            let off_px = Point::new(at("x_px"), at("y_px")).distance(*expected);
            assert!(off_px <= tolerance_px, "{name}: {} is {off_px:.2} px off", found["name"]);
        }
        let token = data["image"]["dicom"]["sop_instance"].as_str();
        assert_eq!(token.map(str::len), (*format == "dicom").then_some(64), "{name}");
        assert!(!event.to_string().contains(&sop_instance(1)), "{name}");
    }
}

/// The angles of a bundle of spines, and a site's own norms for those of a cephalogram.
#[tokio::test]
async fn what_a_bundle_measures_is_in_its_results() {
    let Some(broker) = plain_broker() else { return };
    let home = Home::new(broker.port());
    let measured = async |lines: &str, bundle: &Path| -> Vec<MeasureResult> {
        let mut witness = Witness::new(&broker).await;
        home.configure(&format!("{lines}[model]\ndirectory = {bundle:?}\n"));
        let golden = Bundle::open(bundle).expect("in the repository").golden().to_vec();
        let film = sha256(&golden);
        home.drop_film(&format!("{film}.png"), &golden);
        let daemon = home.start();
        witness.result_of(&film).await;
        assert_eq!(daemon.stopped().code(), Some(0));
        let [event] = witness.results_of(&film).collect::<Vec<_>>()[..] else { panic!("one result") };
        serde_json::from_value(event["data"]["measures"].clone()).expect("measures")
    };

    let spine = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/spine68-nfdp"));
    let found = measured("", spine).await;
    let manifest = Bundle::open(spine).expect("in the repository").manifest().clone();
    let golden = &manifest.golden;
    let expected = MeasureSet::SpineAasce2019.of(&golden.expected_px, golden.size, None);
    assert_eq!(found.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["cobb_1", "cobb_2", "cobb_3"]);
    for (found, expected) in found.iter().zip(expected) {
        let off = found.value.expect("a spine") - expected.value.expect("a spine");
        assert!(off.abs() < 1.0 && found.unit == Unit::Degrees, "{found:?}, {expected:?} was expected");
        assert_eq!((found.vertebrae, &found.class, &found.norm), (expected.vertebrae, &None, &None));
    }

    let ours = "[measures]\nnorms = \"clinic 2026\"\nsna = [10.0, 20.0]\nfha = [0.0, 90.0]\n";
    let found = measured(ours, &bundle::directory()).await;
    assert_eq!(found.len(), 8);
    for measure in &found {
        let norm = |low, high| Some(NormResult { source: "clinic 2026".to_owned(), low, high });
        let (class, norm) = match measure.name.as_str() {
            "SNA" => (Some("prognathic maxilla"), norm(10.0, 20.0)),
            "FHA" => (Some("normal"), norm(0.0, 90.0)),
            _ => (None, None),
        };
        assert_eq!((measure.class.as_deref(), &measure.norm), (class, &norm), "{measure:?}");
    }
}

#[tokio::test]
async fn films_of_impossible_times_are_published_and_delay_no_other() {
    const YEAR: Duration = Duration::from_secs(31_556_952);
    let Some(broker) = plain_broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let (old, ordinary, coming) = (film(Kind::Png, 0), film(Kind::Png, 1), film(Kind::Png, 2));
    // The oldest is the first to be taken.
    home.drop_film_of("old.png", &old, SystemTime::UNIX_EPOCH - YEAR);
    home.drop_film_of("coming.png", &coming, SystemTime::UNIX_EPOCH + 200 * YEAR);
    home.drop_film("ordinary.png", &ordinary);
    let daemon = home.start();
    for film in [&old, &coming, &ordinary] {
        witness.result_of(&sha256(film)).await;
    }
    assert_eq!(daemon.stopped().code(), Some(0));
    let acquired = |film: &[u8]| {
        let identity = sha256(film);
        let event = witness.results_of(&identity).next().expect("heard");
        event["acquiredtime"].as_str().expect("a time").to_owned()
    };
    assert_eq!(acquired(&old), "1970-01-01T00:00:00.000Z");
    assert!(acquired(&coming).starts_with("2169-12-"), "{}", acquired(&coming));
}

/// Starts the daemon for its `start`-th time, has it work on this film and no further, and ends it by a signal.
fn struck_down(home: &Home, start: u64, film: &[u8], signal: Signal) -> ExitStatus {
    let daemon = home.start_in(&[("LANDMARKD_HANG_POINT", "film.analysed".into())]);
    // The mark of the attempt under way: which start it was, and on which film.
    let mark = [&start.to_le_bytes()[..], &Sha256::digest(film)].concat();
    let begun = || fs::read(home.state().join("attempt")).is_ok_and(|found| found.get(8..48) == Some(&mark));
    until("the film is worked on", begun);
    let pid = Pid::from_raw(daemon.pid().parse().expect("a number")).expect("not 0");
    let is_there = || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).expect("it is our child").is_none()
    };
    // The runtime takes the first SIGSEGV, sees that it is no stack overflow and leaves the next one to the system.
    while is_there() {
        daemon.signal(signal);
        thread::yield_now();
    }
    daemon.ended()
}

#[tokio::test]
async fn a_film_that_kills_the_daemon_three_times_is_quarantined_and_others_go_on() {
    for signal in [Signal::KILL, Signal::SEGV] {
        if let Some(broker) = plain_broker() {
            a_film_is_given_up_after_three(signal, broker).await;
        }
    }
}

async fn a_film_is_given_up_after_three(signal: Signal, broker: Mosquitto) {
    const ATTEMPTS: u32 = 3;
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let (deadly, good) = (film(Kind::Png, 0), film(Kind::Png, 1));
    home.drop_film("deadly.png", &deadly);
    for attempt in 1..=ATTEMPTS {
        let status = struck_down(&home, attempt.into(), &deadly, signal);
        assert_eq!(status.signal(), Some(signal.as_raw()), "attempt {attempt}");
    }
    home.drop_film("good.png", &good);
    let daemon = home.start();
    witness.result_of(&sha256(&good)).await;
    witness.until("the refusal", |witness| witness.on("error").next().is_some()).await;
    assert_eq!(daemon.stopped().code(), Some(0));

    let [refusal] = witness.on("error").collect::<Vec<_>>()[..] else { panic!("one refusal") };
    let schemas: Value = serde_json::from_str(&landmarkd(&["schema"], &[])).expect("JSON");
    assert!(jsonschema::is_valid(&schemas["error"], refusal), "{refusal}");
    let data = &refusal["data"];
    assert_eq!((&data["stage"], &data["attempts"]), (&Value::from("crash"), &Value::from(ATTEMPTS)));
    assert_eq!(data["image_sha256"], sha256(&deadly));
    assert_eq!(witness.results_of(&sha256(&deadly)).count(), 0);
    let sequences: BTreeSet<_> = witness.events().iter().map(|event| sequence(event)).collect();
    assert_eq!(sequences, BTreeSet::from([1, 2]));

    let entry = home.state().join("quarantine").join(sha256(&deadly));
    assert_eq!(fs::read(entry.join("film")).expect("the bytes are kept"), deadly);
    let why = format!("the daemon ended {ATTEMPTS} times while it worked on this film");
    assert_eq!(data["message"], why);
    assert_eq!(kept_reason(&home, &deadly), ("crash".to_owned(), vec![why], u64::from(ATTEMPTS)));
    assert_eq!(fs::read(home.films().join("deadly.png")).expect("the source is left alone"), deadly);
}

/// Stage, errors and attempts in the quarantine's reason for a film; that it names the film and who read it is checked.
fn kept_reason(home: &Home, film: &[u8]) -> (String, Vec<String>, u64) {
    let (identity, bundle) = (sha256(film), bundle::open());
    let reason = fs::read(home.state().join("quarantine").join(&identity).join("reason.json"));
    let reason: Value = serde_json::from_slice(&reason.expect("the reason is kept")).expect("JSON");
    let model = format!("{} {}", bundle.manifest().name, bundle.manifest().version);
    for (member, expected) in [("sha256", identity.as_str()), ("version", env!("CARGO_PKG_VERSION")), ("model", &model)]
    {
        assert_eq!(reason[member], expected, "{member} in {reason}");
    }
    let errors = reason["errors"].as_array().expect("a list").iter();
    let errors = errors.map(|error| error.as_str().expect("text").to_owned()).collect();
    let stage = reason["stage"].as_str().expect("text").to_owned();
    (stage, errors, reason["attempts"].as_u64().expect("a number"))
}

#[tokio::test]
async fn a_film_that_cannot_be_read_is_kept_with_every_error_that_led_to_it() {
    let Some(broker) = plain_broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let mut odd = film(Kind::Dicom, 0);
    let term = odd.windows(11).position(|window| window == b"MONOCHROME2").expect("it says so");
    odd[term + 10] = b'3';
    home.drop_film("odd.dcm", &odd);
    let daemon = home.start();
    witness.until("the refusal", |witness| witness.on("error").next().is_some()).await;
    assert_eq!(daemon.stopped().code(), Some(0));
    let [refusal] = witness.on("error").collect::<Vec<_>>()[..] else { panic!("one refusal") };
    let (stage, errors, attempts) = kept_reason(&home, &odd);
    assert_eq!((stage.as_str(), attempts), ("decode", 1));
    assert!(errors[0].contains("PhotometricInterpretation (0028,0004)"), "{errors:?}");
    assert_eq!(refusal["data"]["message"], errors.join(": "));
}

/// Queues results in the state of a daemon that does not run, as if the broker had been away for days.
fn queue(home: &Home, count: u32) {
    let topics = Topics::new("clinic", "ceph-1").expect("valid levels");
    let (store, now) = (Store::open(&home.state(), None).expect("an empty directory"), SystemTime::now());
    let outbox = Outbox::open(&store).expect("an empty store");
    let origin = Origin::new(&topics);
    let tx = store.database().begin_write().expect("writable");
    for n in 0..count {
        let film = sha256(n.to_be_bytes());
        let draft = origin.result(EventId::of_result(&film, "model", "config"), &result(film), now, now);
        outbox.append(&tx, &draft.expect("small")).expect("writable");
    }
    tx.commit().expect("writable");
}

fn result(film: String) -> FilmResult {
    let text = |text: &str| text.to_owned();
    let landmark = |n: u32| LandmarkResult {
        name: format!("landmark_{n}"),
        x_px: f64::from(n) / 3.0,
        y_px: f64::from(n) / 7.0,
        x_mm: None,
        y_mm: None,
        sigma_px: [1.5, 2.5],
        radius95_px: None,
        radius95_mm: None,
        score: 0.9,
    };
    FilmResult {
        image: ImageInfo {
            sha256: film,
            format: text("png"),
            width_px: 484,
            height_px: 600,
            spacing: None,
            dicom: None,
        },
        landmarks: (0..19).map(landmark).collect(),
        measures: Vec::new(),
        model: ModelInfo { name: text("m"), version: text("1"), sha256: "b".repeat(64), backend: text("tract-cpu") },
        timing: Timing { decode_ms: 1.0, frame_ms: 2.0, inference_ms: 3.0 },
    }
}

#[tokio::test]
async fn three_hundred_results_survive_the_broker_being_killed_again_and_again() {
    const RESULTS: usize = 300;
    let Some(mut broker) = plain_broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    queue(&home, RESULTS as u32);
    let daemon = home.start();
    for delivered in [40, 100, 160, 220] {
        witness.until("results", |witness| witness.on("result").count() >= delivered).await;
        broker.kill();
        // Mosquitto acknowledges before it saves (its issue 1855): what it takes for a session that is away may be
        // lost at the next kill, whatever a publisher does. So the subscriber is back before the daemon is.
        daemon.signal(Signal::STOP);
        broker.restart();
        witness.is_back(&broker).await;
        let heard = witness.on("result").count();
        assert!(heard < RESULTS, "the kill after {delivered} came too late: {heard} were there");
        daemon.signal(Signal::CONT);
    }
    let mut seen = BTreeSet::new();
    witness.until("all results", |witness| distinct(witness).len() == RESULTS).await;
    assert_eq!(daemon.stopped().code(), Some(0));
    let first: Vec<u64> =
        witness.on("result").filter(|event| seen.insert(event["id"].as_str())).map(sequence).collect();
    assert_eq!(first, (1..=RESULTS as u64).collect::<Vec<_>>());
}

fn distinct(witness: &Witness) -> BTreeSet<&str> {
    witness.on("result").filter_map(|event| event["id"].as_str()).collect()
}

#[tokio::test]
async fn a_film_still_being_written_waits_and_then_gives_one_result() {
    let Some(broker) = plain_broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let daemon = home.start();
    witness.until("online", |witness| witness.on("status").any(|status| status["folder"] == "watching")).await;

    let mut films = Vec::new();
    let mut partials = Vec::new();
    for kind in Kind::ALL {
        for allocated in [false, true] {
            for percent in [10, 50, 90, 99] {
                let bytes = film(kind, films.len() as u32);
                let name = format!("{percent}-{}.{}", if allocated { "zeros" } else { "cut" }, kind.name());
                let length = bytes.len() * percent / 100;
                partials.push(Partial::write(&home.films().join(&name), &bytes, length, allocated));
                films.push((name, sha256(&bytes)));
            }
        }
    }
    // The second whole film settles only after the first has its result: by then every partial one was looked at.
    let whole = [1000, 1001, 1002].map(|number| film(Kind::Png, number));
    for (number, bytes) in whole[..2].iter().enumerate() {
        home.drop_film(&format!("whole-{number}.png"), bytes);
        witness.result_of(&sha256(bytes)).await;
    }
    let early: Vec<_> = films.iter().filter(|(_, film)| witness.results_of(film).next().is_some()).collect();
    assert!(early.is_empty() && witness.events().len() == 2, "published while being written: {early:?}");

    partials.into_iter().for_each(Partial::complete);
    for (_, film) in &films {
        witness.result_of(film).await;
    }
    home.drop_film("whole-2.png", &whole[2]);
    witness.result_of(&sha256(&whole[2])).await;
    assert_eq!(daemon.stopped().code(), Some(0));
    for (name, film) in &films {
        assert_eq!(witness.results_of(film).count(), 1, "{name}");
    }
    assert_eq!(witness.events().len(), films.len() + whole.len());
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_hand_and_loses_nothing() {
    let Some(broker) = plain_broker() else { return };
    let mut witness = Witness::new(&broker).await;
    let home = Home::new(broker.port());
    let daemon = home.start();
    let films: Vec<_> = (0..5).map(|number| film(Kind::Jpeg, number)).collect();
    for (number, bytes) in films.iter().enumerate() {
        home.drop_film(&format!("{number}.jpg"), bytes);
    }
    witness.until("a result", |witness| witness.on("result").next().is_some()).await;
    let asked = Instant::now();
    assert_eq!(daemon.stopped().code(), Some(0));
    assert!(asked.elapsed() < DRAIN, "{:?}", asked.elapsed());

    let state = |status: &Value| status["state"].as_str().expect("a state").to_owned();
    witness.until("offline", |witness| witness.on("status").last().is_some_and(|s| s["state"] == "offline")).await;
    let states: Vec<_> = witness.on("status").map(state).collect();
    assert_eq!(states[states.len() - 2..], ["stopping", "offline"], "{states:?}");
    let mut late = broker.subscribe("xr/v1/clinic/ceph-1/status", &[]).await;
    assert_eq!(state(&late.next().await.1), "offline", "it is retained");
    let before = witness.on("result").count();
    assert!(before < films.len(), "the stop came after all films");

    let daemon = home.start();
    for bytes in &films {
        witness.result_of(&sha256(bytes)).await;
    }
    assert_eq!(daemon.stopped().code(), Some(0));
    assert_eq!(witness.events().iter().map(|event| sequence(event)).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}
