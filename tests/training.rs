//! A user's own films, from their labels to a bundle, through the real `landmark-train` and its engine; and a run that
//! is killed again and again.
#![cfg(feature = "torch")]

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/films.rs"]
#[expect(dead_code, reason = "films of the daemon's own bundle are for its tests")]
mod films;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use films::dicom;
use image::{GrayImage, Luma};
use landmarkd::train::{METRICS_FILE, checkpoint};
use serde_json::{Value, json};

const FILMS: usize = 24;
const LANDMARKS: [&str; 3] = ["left", "right", "tip"];
const MM_PER_PX: f64 = 0.25;

/// A film on which three discs of different brightness lie, moved from film to film, and their centres.
fn discs(i: usize) -> (GrayImage, [[f32; 2]; 3]) {
    let (dx, dy) = ((i * 7 % 24) as f32, (i * 11 % 30) as f32);
    let centres = [[30.0 + dx, 40.0 + dy], [70.0 + dx, 36.0 + dy], [48.0 + dx, 92.0 + dy]];
    let film = GrayImage::from_fn(128, 160, |x, y| {
        let within = |[cx, cy]: &[f32; 2]| (x as f32 - cx).hypot(y as f32 - cy) < 8.0;
        Luma([centres.iter().position(within).map_or(20, |disc| [90, 170, 250][disc])])
    });
    (film, centres)
}

/// Such films as PNG files, and their labels as CSV.
fn films(folder: &Path) -> PathBuf {
    let mut labels = format!("file,{},group\n", LANDMARKS.map(|name| format!("{name}_x,{name}_y")).join(","));
    for i in 0..FILMS {
        let (film, centres) = discs(i);
        film.save(folder.join(format!("film{i:02}.png"))).expect("a fresh folder");
        let points = centres.map(|[x, y]| format!("{x},{y}")).join(",");
        labels += &format!("film{i:02}.png,{points},patient{}\n", i / 2);
    }
    let path = folder.join("labels.csv");
    fs::write(&path, labels).expect("a fresh folder");
    path
}

/// Such films as DICOM files in a folder of their own, and their labels as COCO keypoints; it is the films that state the scale.
fn films_of_a_clinic(folder: &Path) -> PathBuf {
    fs::create_dir(folder.join("clinic")).expect("a fresh folder");
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for i in 0..FILMS {
        let (film, centres) = discs(i);
        let file = format!("clinic/{i:02}");
        fs::write(folder.join(&file), dicom(&film, i as u32, Some(MM_PER_PX))).expect("a fresh folder");
        images.push(json!({"id": i, "file_name": file, "group": format!("patient{}", i / 2)}));
        let keypoints: Vec<f32> = centres.iter().flat_map(|[x, y]| [*x, *y, 2.0]).collect();
        annotations.push(json!({"id": i, "image_id": i, "category_id": 1, "keypoints": keypoints}));
    }
    let labels = json!({
        "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "discs", "keypoints": LANDMARKS}],
    });
    let path = folder.join("labels.json");
    fs::write(&path, labels.to_string()).expect("a fresh folder");
    path
}

fn config(folder: &Path, epochs: usize) -> PathBuf {
    let path = folder.join(format!("{epochs}.toml"));
    let text = format!(
        "batch = 3\nepochs = {epochs}\nlr = 1e-3\nlr_end_factor = 0.05\nseed = 3\naverage_decay = 0.9\n\
         heatmap_relu = false\nhold_out_every = 4\nvalidate_every = 2\n\
         frame = {{ width = 64, height = 96, enlargement = 1.1 }}\n\
         [augment]\nscale = [0.9, 1.1]\nrotation_deg = 10.0\nshift = 0.05\nelastic = 0.02\n"
    );
    fs::write(&path, text).expect("a fresh folder");
    path
}

fn trainer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landmark-train"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    trainer(arguments).output().expect("landmark-train starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it said on standard error.
fn text_of(output: &Output) -> String {
    text(&output.stderr)
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the test's folder is UTF-8")
}

#[test]
fn own_films_become_a_bundle_that_finds_their_landmarks() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let labels = films(root.path());
    let data = ["--data", path(root.path()), "--layout", "own", "--labels", path(&labels)];
    succeeds(&["data", "check", path(root.path()), "--layout", "own", "--labels", path(&labels)]);

    let (first, second) = (root.path().join("run"), root.path().join("more"));
    let bundle = root.path().join("discs-nfdp");
    let train = |out: &Path, epochs: usize, more: &[&str]| {
        let config = config(root.path(), epochs);
        // One thread: beside other tests two would wait for each other.
        let options = ["--out", path(out), "--config", path(&config), "--threads", "1"];
        succeeds(&[&["train"], data.as_slice(), &options, more].concat())
    };
    train(&first, 20, &[]);
    let export = ["--out", path(&bundle), "--bundle-version", "0.1.0", "--initialisation", "He", "--procedure", "test"];
    succeeds(&[["export", "--run", path(&first)].as_slice(), &data, &export].concat());
    let evaluate = |bundle: &Path| -> Value {
        // Which films were held out it knows from the bundle.
        let options = ["--split", "validation", "--json"];
        let out = succeeds(&[["evaluate", "--bundle", path(bundle)].as_slice(), &data, &options].concat());
        serde_json::from_str(&out).expect("one JSON object")
    };
    let evaluation = evaluate(&bundle);
    assert_eq!((evaluation["films"].as_u64(), evaluation["setting"]["unit"].as_str()), (Some(6), Some("px")));
    let mre = evaluation["mre"].as_f64().expect("a number");
    assert!(mre < 4.0, "{mre} px on films of 128x160");
    // Films of another clinic, called alike: none was learnt, so all of them count.
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let labels_there = films(elsewhere.path());
    let moved =
        fs::read_to_string(&labels_there).expect("just written").replacen("film00.png,30,", "film00.png,31,", 1);
    fs::write(&labels_there, moved).expect("our folder");
    let theirs = ["--data", path(elsewhere.path()), "--layout", "own", "--labels", path(&labels_there)];
    let all = succeeds(&[["evaluate", "--json", "--bundle", path(&bundle)].as_slice(), &theirs].concat());
    let all: Value = serde_json::from_str(&all).expect("one JSON object");
    assert_eq!(all["films"].as_u64(), Some(FILMS as u64));
    let held_out =
        run(&[["evaluate", "--split", "validation", "--bundle", path(&bundle)].as_slice(), &theirs].concat());
    assert!(text_of(&held_out).contains("does not say which of these films its run held out"), "{held_out:?}");
    let held_out = succeeds(&[["evaluate", "--json", "--bundle", path(&bundle)].as_slice(), &data].concat());
    let held_out: Value = serde_json::from_str(&held_out).expect("one JSON object");
    assert_eq!(held_out["films"].as_u64(), Some(6));
    // Nor is a bundle made, or compared, with films that its run did not see.
    for words in [["export"].as_slice(), &["agree", "--bundle", path(&bundle)]] {
        let export = if words[0] == "export" { export.as_slice() } else { &[] };
        let output = run(&[words, &["--run", path(&first)], export, &theirs].concat());
        assert!(text_of(&output).contains("the films are not those that"), "{output:?}");
    }
    let card = fs::read_to_string(bundle.join("README.md")).expect("the card");
    assert!(card.contains("Localizes 3 landmarks on the user's own films") && card.contains("| tip |"), "{card}");
    assert!(card.contains("measured on the validation films") && !card.contains("Share of the test films"), "{card}");

    let agreement = succeeds(&[["agree", "--bundle", path(&bundle), "--run", path(&first)].as_slice(), &data].concat());
    let most = agreement.split(" px at most").next().and_then(|text| text.rsplit(' ').next()).expect("a figure");
    assert!(most.parse::<f64>().expect("a number") < 0.05, "{agreement}");

    // Two epochs from the bundle start where it stood, not afresh.
    train(&second, 2, &["--init", path(&bundle), "--lr", "1e-5"]);
    let metrics = fs::read_to_string(second.join(METRICS_FILE)).expect("the record");
    let last = metrics.lines().last().expect("a line an epoch").split(',').nth(5).expect("the error's column");
    assert!((last.parse::<f64>().expect("a number") - mre).abs() < 1.0, "{mre} px before, then {metrics}");
}

/// The paper's other two models, on films as a clinic has them: regression with and without the flow.
#[test]
fn dicom_films_with_coco_labels_train_the_regression_and_the_model_without_flow() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let labels = films_of_a_clinic(root.path());
    let data = ["--data", path(root.path()), "--layout", "own", "--labels", path(&labels)];
    let config = config(root.path(), 24);
    let heatmaps = fs::read_to_string(&config).expect("just written");
    let losses = |run: &Path| -> Vec<f64> {
        let metrics = fs::read_to_string(run.join(METRICS_FILE)).expect("the record");
        let loss = |line: &str| line.split(',').nth(2).expect("its column").parse().expect("a number");
        metrics.lines().skip(1).map(loss).collect()
    };
    let mut found = Vec::new();
    for (name, flow) in [("with-flow", true), ("without", false)] {
        fs::write(&config, format!("model = \"regression\"\nflow = {flow}\n{heatmaps}")).expect("a fresh folder");
        let (run, bundle) = (root.path().join(name), root.path().join(format!("{name}-bundle")));
        let options = ["--out", path(&run), "--config", path(&config), "--threads", "1"];
        succeeds(&[["train"].as_slice(), &data, &options].concat());
        let losses = losses(&run);
        assert!(losses.len() == 24 && losses[23] < losses[0], "{name}: {losses:?}");
        let export =
            ["--out", path(&bundle), "--bundle-version", "0.1.0", "--initialisation", "He", "--procedure", "test"];
        succeeds(&[["export", "--run", path(&run)].as_slice(), &data, &export].concat());
        let options = ["--split", "validation", "--json"];
        let evaluation = succeeds(&[["evaluate", "--bundle", path(&bundle)].as_slice(), &data, &options].concat());
        let evaluation: Value = serde_json::from_str(&evaluation).expect("one JSON object");
        assert_eq!((evaluation["films"].as_u64(), evaluation["setting"]["unit"].as_str()), (Some(6), Some("mm")));
        found.push(evaluation["mre"].as_f64().expect("a number"));
        let agreement =
            succeeds(&[["agree", "--bundle", path(&bundle), "--run", path(&run)].as_slice(), &data].concat());
        let most = agreement.split(" px at most").next().and_then(|text| text.rsplit(' ').next()).expect("a figure");
        assert!(most.parse::<f64>().expect("a number") < 0.05, "{agreement}");
    }
    // Whoever says the mean place of every disc is off by this much.
    let centres: Vec<[f32; 2]> = (0..FILMS).map(|i| discs(i).1[0]).collect();
    let mean = [0, 1].map(|axis| centres.iter().map(|c| c[axis]).sum::<f32>() / FILMS as f32);
    let off = |c: &[f32; 2]| (c[0] - mean[0]).hypot(c[1] - mean[1]);
    let blind = f64::from(centres.iter().map(off).sum::<f32>()) / FILMS as f64 * MM_PER_PX;
    assert!(found.iter().all(|mre| *mre < 0.75 * blind), "{found:?} mm, and {blind} mm with closed eyes");
}

#[test]
fn a_loss_that_is_no_number_names_the_films_and_the_last_good_state() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let labels = films(root.path());
    let config = config(root.path(), 4);
    let text = fs::read_to_string(&config).expect("just written").replace("lr = 1e-3", "lr = 1e30");
    fs::write(&config, text).expect("a fresh folder");
    let out = root.path().join("run");
    let films = ["--data", path(root.path()), "--layout", "own", "--labels", path(&labels)];
    // Due after every step: what such weights are saved as would be no good state.
    let often = ["--checkpoint-minutes", "0", "--threads", "2"];
    let output = run(&[["train", "--out", path(&out), "--config", path(&config)].as_slice(), &films, &often].concat());
    let message = text_of(&output);
    assert!(!output.status.success(), "{message}");
    assert!(message.contains("the loss is not finite in epoch ") && message.contains("film"), "{message}");
    assert!(
        message.contains(&format!("the last good state is {}", out.join("last.safetensors").display())),
        "{message}"
    );
    let (state, metadata) = checkpoint::read(&out.join("last.safetensors")).expect("the state before it");
    assert_eq!(metadata["step"], "0", "the first step already is too long");
    let largest = state.values().flat_map(|array| &array.values).fold(0.0_f32, |most, value| most.max(value.abs()));
    assert!(largest < 1e6, "{largest}");

    // It goes on from there with the threads it was started with, once the rate is mended; not with other labels, and
    // not twice at once.
    let machine = fs::read_to_string(out.join("machine.toml")).expect("the run's");
    assert!(machine.contains("threads = 2"), "{machine}");
    let told = out.join("config.toml");
    let text = fs::read_to_string(&told).expect("the run's");
    let mended = |line: &str| if line.starts_with("lr = ") { "lr = 1e-3".to_owned() } else { line.to_owned() };
    fs::write(&told, text.lines().map(mended).collect::<Vec<_>>().join("\n")).expect("our folder");
    let right = fs::read_to_string(&labels).expect("just written");
    fs::write(&labels, right.replacen("film00.png,30,", "film00.png,31,", 1)).expect("our folder");
    let message = text_of(&run(&["resume", path(&out)]));
    assert!(message.contains("the films' names, landmarks, sizes or scales are not those"), "{message}");
    fs::write(&labels, right).expect("our folder");
    let held = fs::File::open(&told).expect("the run's");
    held.lock().expect("nobody else has it");
    let message = text_of(&run(&["resume", path(&out)]));
    assert!(message.contains("another landmark-train works on this run"), "{message}");
    drop(held);
    let output = run(&["resume", path(&out)]);
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(text_of(&output).contains("computing on cpu with 2 threads"), "{}", text_of(&output));
}

#[test]
fn a_configuration_that_cannot_be_is_refused_by_file_and_key() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let labels = films(root.path());
    let config = config(root.path(), 4);
    let text =
        fs::read_to_string(&config).expect("just written").replace("[augment]", "[augment]\ncrop_probability = 1.5");
    fs::write(&config, text).expect("a fresh folder");
    let out = root.path().join("run");
    let films = ["--data", path(root.path()), "--layout", "own", "--labels", path(&labels)];
    let output = run(&[["train", "--out", path(&out), "--config", path(&config)].as_slice(), &films].concat());
    let message = text_of(&output);
    assert!(!output.status.success() && !out.exists(), "{message}");
    assert!(
        message.contains("4.toml") && message.contains("augment.crop_probability = 1.5: must be 0 to 1"),
        "{message}"
    );
}

/// Weights and record of a run, without what depends on the clock.
fn outcome(run: &Path) -> (Vec<BTreeMap<String, landmarkd::train::Array>>, Vec<String>) {
    let weights = ["last.safetensors", "best.safetensors"];
    let weights = weights.map(|file| checkpoint::read(&run.join(file)).expect("a finished run").0).to_vec();
    let metrics = fs::read_to_string(run.join(METRICS_FILE)).expect("the record");
    let timeless = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        [&columns[..3], &columns[5..]].concat().join(",")
    };
    (weights, metrics.lines().map(timeless).collect())
}

/// Waits until `done`; whether the child ended before.
fn ends_before(child: &mut Child, mut done: impl FnMut() -> bool) -> bool {
    while child.try_wait().expect("the child is ours").is_none() {
        if done() {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits until a file was written anew so many times, and then for `share` of the time that the last one took.
fn ends_within(child: &mut Child, file: &Path, renewals: u32, share: f64) -> bool {
    let state = || fs::metadata(file).ok().map(|found| (found.ino(), found.mtime(), found.mtime_nsec()));
    let (mut last, mut since, mut step, mut left) = (state(), Instant::now(), Duration::ZERO, renewals);
    let renewed = || {
        if state() != last {
            (last, step, since, left) = (state(), since.elapsed(), Instant::now(), left.saturating_sub(1));
        }
        left == 0
    };
    if ends_before(child, renewed) {
        return true;
    }
    let pause = step.mul_f64(share);
    ends_before(child, || since.elapsed() >= pause)
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bits() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let labels = films(root.path());
    let config = config(root.path(), 4);
    let start = |out: &Path, resume: bool, minutes: &str| {
        let films = ["--data", path(root.path()), "--layout", "own", "--labels", path(&labels)];
        let fresh =
            [["train", "--out", path(out), "--config", path(&config), "--threads", "1"].as_slice(), &films].concat();
        let arguments = if resume { vec!["resume", path(out)] } else { fresh };
        trainer(&[arguments.as_slice(), &["--checkpoint-minutes", minutes]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("landmark-train starts")
    };
    let (whole, killed) = (root.path().join("whole"), root.path().join("killed"));
    assert!(start(&whole, false, "10").wait().expect("the child is ours").success());

    let last = killed.join("last.safetensors");
    let mut kills = 0;
    loop {
        // A checkpoint after every step: a kill may fall into the writing of one, and none changes what follows.
        let mut child = start(&killed, killed.exists(), "0");
        // Later each time, so that the run ends in the end; the odd share moves the kill through a step.
        if ends_within(&mut child, &last, 2 + kills, (0.31 + 0.17 * f64::from(kills)).fract()) {
            assert!(child.wait().expect("the child is ours").success());
            break;
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("the child is ours");
        kills += 1;
        assert!(kills < 40, "the run does not come to an end");
    }
    assert!(kills >= 2, "killed {kills} times only");
    assert_eq!(outcome(&whole), outcome(&killed), "after {kills} kills");
    let again = run(&["train", "--data", path(root.path()), "--out", path(&whole)]);
    assert!(!again.status.success());
    let message = text_of(&again);
    assert!(message.contains("whole exists, and a run is never overwritten"), "{message}");
}
