//! The command line as a user and a script meet it: exit codes, what is on which stream, the example configuration.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/films.rs"]
mod films;
#[path = "support/twins.rs"]
mod twins;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use films::{Kind, film, sha256};
use landmarkd::config::{CONFIG_FILE, ConfigFile, Merged, Surroundings, validate};
use landmarkd::geometry::{Point, Size};
use landmarkd::inference::root_mean_square;
use landmarkd::measure::Norms;
use landmarkd::radiograph::{Limits, decode, network_input};
use landmarkd::report::FilmResult;
use serde_json::Value;
use twins::twins;

const MINIMAL: &str = "[site]\nname = \"clinic\"\ndevice = \"ceph\"\n[acquisition]\nfolder = \"/srv/films\"\n";
const EXAMPLE: &str = include_str!("../systemd/etc/landmarkd/landmarkd.toml");

fn landmarkd(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("landmarkd").expect("the program is built with its tests");
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANDMARKD_")) {
        command.env_remove(name);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

fn written(folder: &Path, name: &str, contents: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the folder is ours");
    fs::write(&path, contents).expect("the folder is ours");
    path.display().to_string()
}

#[test]
fn every_way_to_end_has_its_exit_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let right = written(folder.path(), "right/landmarkd.toml", MINIMAL);
    let wrong = written(folder.path(), "wrong/landmarkd.toml", "[site]\nnmae = \"x\"\n");
    let none = folder.path().join("none").display().to_string();
    for (arguments, expected) in [
        (vec![], 64),
        (vec!["--help"], 0),
        (vec!["--version"], 0),
        (vec!["frobnicate"], 64),
        (vec!["predict"], 64),
        (vec!["predict", "--pixel-spacing", "-1", "x.png"], 64),
        (vec!["predict", "--pixel-spacing", "0", "x.png"], 64),
        (vec!["predict", "--model", &none, "x.png"], 66),
        (vec!["bench", "--model", &none, &none], 66),
        (vec!["demo", "--model", &none], 66),
        (vec!["check-config", "--config", &right], 0),
        (vec!["check-config", "--config", &wrong], 78),
        (vec!["check-config", "--config", &none], 78),
        (vec!["run", "--config", &wrong], 78),
        (vec!["run", "--config", &none], 78),
        (vec!["doctor", "--json", "--config", &wrong], 78),
        (vec!["doctor", "--frobnicate"], 64),
        (vec!["doctor", "--runs", "3"], 64),
        (vec!["doctor", "--gpu", "--probe-broker"], 64),
        (vec!["doctor", "--gpu", "--runs", "0"], 64),
        (vec!["diag"], 64),
        (vec!["spool"], 64),
        (vec!["spool", "retry", "0"], 64),
        (vec!["spool", "ls", "--config", &none], 78),
        (vec!["man"], 64),
        (vec!["replay", "--from", "1", "--config", &right], 64),
        (vec!["replay", "--from", "1", "--to", "2", "--config", &wrong], 78),
        (vec!["schema"], 0),
        (vec!["schema", "--asyncapi"], 0),
        (vec!["model", "activate", "../x", "1.0.0", "--state", &none], 64),
        (vec!["model", "list", "--config", &none], 78),
        (vec!["completions", "bash"], 0),
        (vec!["completions", "tcsh"], 64),
    ] {
        landmarkd(&arguments).assert().code(expected);
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = written(folder.path(), "landmarkd.toml", format!("{MINIMAL}rescan_sec = 3\n"));
    let output = landmarkd(&["check-config", "--config", &config]).output().expect("the program runs");
    let expected =
        format!("landmarkd: {config}:6: unknown key acquisition.rescan_sec: did you mean acquisition.rescan_s?\n");
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), expected));
}

#[test]
fn the_printed_configuration_names_the_source_of_each_value() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = written(folder.path(), "landmarkd.toml", MINIMAL);
    let layer = written(folder.path(), "conf.d/10-broker.toml", "[mqtt]\n# ours\nkeep_alive_s = 20\n");
    let mut command = landmarkd(&["check-config", "--print", "--config", &config]);
    let output = command.env("LANDMARKD_LOG__FILTER", "debug").output().expect("the program runs");
    let printed = text(&output.stdout);
    assert_eq!(text(&output.stderr), "");
    for line in [
        format!("folder = \"/srv/films\"  # {config}:5"),
        format!("keep_alive_s = 20  # {layer}:3"),
        "filter = \"debug\"  # environment variable LANDMARKD_LOG__FILTER".to_owned(),
        "rescan_s = 30  # default".to_owned(),
    ] {
        assert!(printed.lines().any(|l| l == line), "{line} in\n{printed}");
    }
    toml::from_str::<ConfigFile>(&printed).expect("what is printed is a configuration");
}

#[test]
fn a_secret_in_the_environment_is_refused_and_not_repeated() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = written(folder.path(), "landmarkd.toml", MINIMAL);
    let mut command = landmarkd(&["check-config", "--print", "--config", &config]);
    let output = command.env("LANDMARKD_MQTT__PASSWORD", "hunter2").output().expect("the program runs");
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("LANDMARKD_MQTT__PASSWORD"), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("hunter2") && !text(&output.stdout).contains("hunter2"));
}

#[test]
fn the_example_configuration_is_right_and_shows_every_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let surroundings = Surroundings { credentials: "/run/credentials/x".into(), default_model: "/m".into() };
    let read = |contents: &str| {
        let path = written(folder.path(), "landmarkd.toml", contents);
        Merged::read(Path::new(&path), []).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let as_shipped = read(EXAMPLE);
    validate(&as_shipped, &surroundings).unwrap_or_else(|errors| panic!("{errors}"));

    // A key behind a single # without a space is shown, not set.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = read(&uncommented);
    let shown: toml::Table = uncommented.parse().expect("it was read just now");
    for (measure, [low, high]) in Norms::default().ranges() {
        let range = shown["measures"][&measure.to_lowercase()].as_array().expect("a range");
        let ends: Vec<_> = range.iter().filter_map(toml::Value::as_float).collect();
        assert_eq!(ends, [low, high], "{measure}");
    }
    let mirror = serde_json::to_value(ConfigFile::default()).expect("the mirror is plain data");
    let mut missing = BTreeSet::new();
    for (section, keys) in mirror.as_object().expect("sections") {
        for (key, default) in keys.as_object().expect("keys") {
            match shown.get(section).and_then(|section| section.get(key)) {
                None => drop(missing.insert(format!("{section}.{key}"))),
                Some(value) if !default.is_null() => {
                    let value = serde_json::to_value(value).expect("plain data");
                    assert_eq!(&value, default, "{section}.{key} shows its default");
                }
                Some(_) => {}
            }
        }
    }
    assert_eq!(missing, BTreeSet::new());
    assert_eq!(all.file.site, as_shipped.file.site);
    assert!(CONFIG_FILE.ends_with("landmarkd.toml"));
}

#[test]
fn completions_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = landmarkd(&["completions", shell]).output().expect("the program runs");
        let script = text(&output.stdout);
        assert!(script.contains("check-config") && script.contains("overlay"), "{shell}");
    }
}

#[test]
fn the_schemas_are_json_and_describe_a_result() {
    let output = landmarkd(&["schema"]).output().expect("the program runs");
    let schemas: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert!(schemas["result"].is_object() && schemas["error"].is_object(), "{schemas}");
    assert!(schemas["result"].to_string().contains("sigma_px"));
}

/// A change of what subscribers get is seen where the golden files change:
/// `cargo run -- schema > tests/contract/schema.json`, `cargo run -- schema --asyncapi > tests/contract/asyncapi.json`.
#[test]
fn the_contract_is_the_one_that_was_agreed_on() {
    for (arguments, file, golden) in [
        (vec!["schema"], "schema.json", include_str!("contract/schema.json")),
        (vec!["schema", "--asyncapi"], "asyncapi.json", include_str!("contract/asyncapi.json")),
    ] {
        let output = landmarkd(&arguments).output().expect("the program runs");
        let line = |text: &str, n: usize| text.lines().nth(n).map(str::to_owned);
        let printed = text(&output.stdout);
        let differs = (0..=printed.lines().count()).find(|&n| line(&printed, n) != line(golden, n));
        let found =
            differs.map(|n| format!("line {}: {:?}, agreed on: {:?}", n + 1, line(&printed, n), line(golden, n)));
        assert!(printed == golden, "tests/contract/{file} is another; if that is meant, write it anew: {found:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error_message() {
    let program = assert_cmd::cargo::cargo_bin("landmarkd");
    let mut child = std::process::Command::new(program)
        .arg("schema")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn predict_answers_each_film_in_its_place_and_a_bad_one_stops_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = bundle::directory().display().to_string();
    let (first, last) = (film(Kind::Jpeg, 1), film(Kind::Dicom, 2));
    let files = [
        written(folder.path(), "first.jpg", &first),
        written(folder.path(), "cut.png", &film(Kind::Png, 3)[..5000]),
        folder.path().join("missing.png").display().to_string(),
        written(folder.path(), "last", &last),
    ];
    let output = landmarkd(&["predict", "--json", "--model", &model]).args(&files).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    assert_eq!(lines.iter().map(|line| &line["file"]).collect::<Vec<_>>(), files.each_ref().map(|f| f.as_str()));

    let members = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    let named = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let landmarks = bundle::open().manifest().landmarks.len();
    for (line, bytes) in [(&lines[0], &first), (&lines[3], &last)] {
        assert_eq!((members(line), &line["ok"]), (named(&["file", "ok", "data"]), &Value::from(true)));
        let data: FilmResult = serde_json::from_value(line["data"].clone()).expect("the data of a result event");
        assert_eq!((data.image.sha256.clone(), data.landmarks.len()), (sha256(bytes), landmarks));
        assert_what_the_manifest_promises(&data);
    }
    for (line, stage) in [(&lines[1], "decode"), (&lines[2], "read")] {
        assert_eq!((members(line), &line["ok"]), (named(&["file", "ok", "error"]), &Value::from(false)));
        assert_eq!(members(&line["error"]), named(&["stage", "message"]));
        assert_eq!(line["error"]["stage"], stage);
    }
}

/// The manifest's measures, taken of the landmarks that are printed, and its radii.
fn assert_what_the_manifest_promises(data: &FilmResult) {
    let bundle = bundle::open();
    let manifest = bundle.manifest();
    let points: Vec<Point> = data.landmarks.iter().map(|l| Point::new(l.x_px, l.y_px)).collect();
    let size = Size::new(data.image.width_px, data.image.height_px);
    let norms = Norms::default();
    let expected: Vec<_> = manifest.measures.iter().flat_map(|set| set.of(&points, size, data.image.spacing)).collect();
    assert!(!expected.is_empty(), "the bundle under test measures nothing");
    assert_eq!(data.measures.len(), expected.len());
    for (found, expected) in data.measures.iter().zip(expected) {
        let classed = norms.classify(&expected);
        assert_eq!(
            (found.name.as_str(), found.unit, found.class.as_deref()),
            (expected.name, expected.unit, classed.and_then(|classed| classed.class))
        );
        let norm = found.norm.as_ref().map(|norm| (norm.source.as_str(), [norm.low, norm.high]));
        assert_eq!(norm, classed.map(|classed| (classed.source, classed.range)));
        match expected.value {
            Ok(value) => assert!((found.value.expect("a value") - value).abs() < 1e-6, "{found:?}"),
            Err(reason) => assert_eq!((found.value, found.absent.clone()), (None, Some(reason.to_string()))),
        }
    }
    for landmark in &data.landmarks {
        let radius = manifest.network.conformal.radius95 * root_mean_square(landmark.sigma_px);
        assert!((landmark.radius95_px.expect("a radius") - radius).abs() < 1e-6 * radius, "{landmark:?}");
        let mm = data.image.spacing.map(|s| radius * s.x_mm.max(s.y_mm));
        assert_eq!(landmark.radius95_mm.is_some(), mm.is_some());
    }
}

/// R33: whatever the grayscale attributes make of the cells, it is the picture that counts.
#[test]
fn a_film_and_its_grayscale_twins_have_the_same_landmarks() {
    const TOLERANCE_PX: f64 = 0.5;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = bundle::directory().display().to_string();
    let (plain, twins) = twins();
    let mut files = vec![written(folder.path(), "plain", &plain)];
    for twin in &twins {
        files.push(written(folder.path(), twin.name, &twin.film));
        files.push(written(folder.path(), &format!("{} misread", twin.name), &twin.misread));
    }
    let output = landmarkd(&["predict", "--json", "--model", &model]).args(&files).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found: Vec<Vec<Point>> = text(&output.stdout)
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("one JSON object a line");
            let data: FilmResult = serde_json::from_value(line["data"].clone()).expect("the data of a result event");
            data.landmarks.iter().map(|landmark| Point::new(landmark.x_px, landmark.y_px)).collect()
        })
        .collect();
    assert_eq!(found.len(), files.len());
    let off_px = |points: &[Point]| points.iter().zip(&found[0]).map(|(a, b)| a.distance(*b)).fold(0.0, f64::max);
    for (twin, pair) in twins.iter().zip(found[1..].chunks(2)) {
        let [twin_px, misread_px] = [&pair[0], &pair[1]].map(|points| off_px(points));
        assert!(twin_px <= TOLERANCE_PX, "{}: a landmark is {twin_px:.2} px off", twin.name);
        // Else the twin above would prove nothing.
        assert!(misread_px > TOLERANCE_PX, "{}: misread, landmarks are {misread_px:.2} px off at most", twin.name);
    }
}

#[test]
fn the_written_frame_is_what_the_network_saw() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = bundle::directory().display().to_string();
    let frames = folder.path().join("frames");
    let films = Kind::ALL.map(|kind| (kind.name(), film(kind, 1)));
    let files = films.each_ref().map(|(name, bytes)| written(folder.path(), &format!("{name}.film"), bytes));
    let mut command = landmarkd(&["predict", "--json", "--model", &model, "--frame", &frames.display().to_string()]);
    command.args(&files).assert().code(0);
    for (name, bytes) in &films {
        let written = image::open(frames.join(format!("{name}.png"))).expect("one picture a film");
        let radiograph = decode(bytes, &Limits::default()).expect("a film");
        let input = network_input(&radiograph, bundle::open().manifest().network.frame);
        assert_eq!(written.color(), image::ColorType::L8, "{name}");
        assert_eq!((written.width(), written.height()), (input.size.width, input.size.height), "{name}");
        assert_eq!(written.into_luma8().into_raw(), input.pixels, "{name}");
    }
}

#[test]
fn the_demo_shows_the_whole_way_and_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = bundle::directory().display().to_string();
    let overlay = folder.path().join("overlay.png");
    let mut command = landmarkd(&["demo", "--model", &model, "--overlay", &overlay.display().to_string()]);
    let output = command.output().expect("the program runs");
    let told = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{told}");
    for part in ["received:", "xr/v1/demo/here/result", "org.landmarkd.film.result.v1", "sella"] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    let size = bundle::open().manifest().golden.size;
    assert!(image::open(overlay).is_ok_and(|picture| picture.width() >= size.width && picture.height() >= size.height));
}

#[test]
fn a_network_that_misses_its_golden_film_is_not_started_again() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let broken = root.path().join("bundle");
    fs::create_dir(&broken).expect("a fresh directory");
    for entry in fs::read_dir(bundle::directory()).expect("the bundle under test") {
        let path = entry.expect("a file of the bundle").path();
        fs::copy(&path, broken.join(path.file_name().expect("a file has a name"))).expect("a fresh directory");
    }
    let manifest = broken.join("manifest.json");
    let mut document: Value =
        serde_json::from_slice(&fs::read(&manifest).expect("the manifest")).expect("the manifest is JSON");
    let x = &mut document["golden"]["expected_px"][3]["x"];
    *x = (x.as_f64().expect("a coordinate") + 2.0).into();
    fs::write(&manifest, document.to_string()).expect("a fresh directory");

    let at = |name: &str| root.path().join(name).display().to_string();
    let text = format!(
        "[site]\nname = \"t\"\ndevice = \"d\"\n[acquisition]\nfolder = {:?}\n[state]\ndirectory = {:?}\n[model]\n\
         directory = {:?}\n",
        at("films"),
        at("state"),
        at("bundle")
    );
    let config = written(root.path(), "landmarkd.toml", text);
    let output = Command::cargo_bin("landmarkd")
        .expect("the program is built with its tests")
        .args(["run", "--config", &config])
        .timeout(std::time::Duration::from_secs(120))
        .output()
        .expect("it ends by itself");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("a landmark is 2.00 px from where it should be"), "{said}");
}
