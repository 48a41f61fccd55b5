//! The readers of published data sets, what is computed from their labels, and `landmark-train data check` as a program.
//! What needs the real data runs where LANDMARKD_TEST_DATA names the folder with `isbi2015-ceph/`, `aasce2019-spine/` and
//! `hand-atlas/`.
#![cfg(feature = "train")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use landmarkd::geometry::{LengthUnit, Point, Size};
use landmarkd::landmark::Landmark;
use landmarkd::measure::MeasureSet;
use landmarkd::train::datasets::{Layout, Source, Split, Truth};
use landmarkd::train::metrics::{HAND_THRESHOLDS_MM, summarise};
use landmarkd::train::{Protocol, TestedFilm, TrainConfig};

/// A folder of the real data, or a printed reason why the test has nothing to do.
fn data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LANDMARKD_TEST_DATA").map(|root| PathBuf::from(root).join(folder));
    let there = root.filter(|root| root.is_dir());
    if there.is_none() {
        println!("skipped: LANDMARKD_TEST_DATA names no folder with {folder}/");
    }
    there
}

fn source(layout: Layout, root: &Path) -> Source {
    Source { layout, root: root.to_owned(), labels: None, truth: Truth::Mean, fold: 1 }
}

fn size(film: &Path) -> Size {
    let (width, height) = image::image_dimensions(film).expect("a film of the data set");
    Size::new(width, height)
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a file of the data set");
    text.lines().filter(|line| !line.is_empty()).map(|line| line.trim().to_owned()).collect()
}

fn numbers(line: &str) -> Vec<f64> {
    line.split(',').map(|cell| cell.parse().expect("a number of the data set")).collect()
}

#[test]
fn the_angles_of_the_true_spines_are_those_of_the_challenge() {
    let Some(root) = data("aasce2019-spine") else { return };
    let labels = root.join("labels/train");
    let [names, landmarks, angles] =
        ["filenames.csv", "landmarks.csv", "angles.csv"].map(|file| lines(&labels.join(file)));
    assert_eq!([names.len(), landmarks.len(), angles.len()], [481; 3]);
    let mut apart = Vec::new();
    for ((name, landmarks), angles) in names.iter().zip(&landmarks).zip(&angles) {
        // As they stand: the challenge put no vertebra in order before it measured.
        let size = size(&root.join("data/train").join(name));
        let shares = numbers(landmarks);
        let (x, y) = shares.split_at(68);
        let to_px = |(x, y): (&f64, &f64)| Point::new(x * f64::from(size.width), y * f64::from(size.height));
        let points: Vec<Point> = x.iter().zip(y).map(to_px).collect();
        let measures = MeasureSet::SpineAasce2019.of(&points, size, None);
        let found: Vec<f64> = measures.into_iter().map(|measure| measure.value.expect("a spine")).collect();
        let expected = numbers(angles);
        assert_eq!((found.len(), expected.len()), (3, 3), "{name}");
        let most = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if most > 0.1 {
            apart.push((name.as_str(), most));
        }
    }
    assert!(matches!(apart[..], [] | [(_, 7.0..8.0)]), "more than 0.1 degrees apart: {apart:?}");
    assert!(apart.iter().all(|(name, _)| name.contains("coronal3.")), "{apart:?}");
}

#[test]
fn the_spines_that_are_read_are_those_of_the_table_but_for_the_order() {
    let Some(root) = data("aasce2019-spine") else { return };
    let dataset = source(Layout::Aasce, &root).films(Split::Train, 0).expect("sound labels");
    // A film's own file and the table say the same, which a film that was put in order says as a set.
    let [names, landmarks] =
        ["filenames.csv", "landmarks.csv"].map(|file| lines(&root.join("labels/train").join(file)));
    let whole_px = |points: &mut dyn Iterator<Item = Point>| -> BTreeSet<[i64; 2]> {
        points.map(|p| [p.x.round() as i64, p.y.round() as i64]).collect()
    };
    assert!(dataset.films.len() > 450 && dataset.films.len() <= 481, "{}", dataset.films.len());
    for film in &dataset.films {
        let size = size(&film.path);
        let file = film.path.file_name().and_then(|file| file.to_str()).expect("a name in UTF-8");
        let line = names.iter().position(|name| name == file).expect("a film of the table");
        let shares = numbers(&landmarks[line]);
        let (x, y) = shares.split_at(68);
        let mut table = x.iter().zip(y).map(|(x, y)| Point::new(x * f64::from(size.width), y * f64::from(size.height)));
        assert_eq!(whole_px(&mut film.landmarks.iter().copied()), whole_px(&mut table), "{file}");
    }
}

#[test]
fn the_hand_atlas_is_read_with_its_scale_and_errors_are_exact() {
    let Some(root) = data("hand-atlas") else { return };
    let preset = TrainConfig::preset("hand").expect("it is shipped");
    assert_eq!(preset.check(), Ok(()));
    let mut films = Vec::new();
    let mut names = Vec::new();
    for split in [Split::Train, Split::Test] {
        let dataset = source(Layout::Hand, &root).films(split, 0).expect("sound labels");
        films.extend(dataset.films);
        names = dataset.landmarks;
    }
    assert_eq!(names.len(), 37);
    let ids: BTreeSet<&str> = films.iter().map(|film| film.name.as_str()).collect();
    assert!(ids.is_superset(&BTreeSet::from(["3167", "3177", "3229", "3231"])), "{ids:?}");
    let mut tested = Vec::new();
    for film in films {
        let size = size(&film.path);
        assert!(film.landmarks.iter().all(|&point| size.contains(point)), "{}: {size}", film.name);
        assert_eq!(film.visible, [true; 37], "{}", film.name);
        let mm = film.mm_per_px.expect("the wrist tells it");
        assert!((film.landmarks[1].distance(film.landmarks[5]) * mm - 50.0).abs() < 1e-9, "{}", film.name);
        // Films of 100 pixels an inch to 500.
        assert!((0.05..0.25).contains(&mm), "{}: {mm} mm a pixel", film.name);
        // Over all 910 hands of the table 86 to 146: more than a true finger, where a child's wrist is less than 50 mm.
        let finger_mm = film.landmarks[25].distance(film.landmarks[28]) * mm;
        assert!((85.0..147.0).contains(&finger_mm), "{}: the middle finger has {finger_mm} mm", film.name);
        let found = |(point, name): (&Point, &String)| Landmark {
            name: name.clone(),
            point: Point::new(point.x + 3.0, point.y),
            sigma_px: [1.0, 1.0],
            radius95_px: None,
            score: 1.0,
        };
        tested.push(TestedFilm {
            name: film.name,
            size,
            found: film.landmarks.iter().zip(&names).map(found).collect(),
            truth: film.landmarks,
            visible: film.visible,
            mm_per_px: film.mm_per_px,
        });
    }
    let errors = |unit| tested.iter().map(|film| film.errors(Protocol::Exact, unit)).collect::<Vec<_>>();
    let px = summarise(&errors(LengthUnit::Px), LengthUnit::Px, &[2.9, 3.1], &[]);
    assert!((px.mre - 3.0).abs() < 1e-9 && px.sd < 1e-9, "{px}");
    assert_eq!(px.sdr_percent, [(2.9, 0.0), (3.1, 100.0)]);
    let mm = summarise(&errors(LengthUnit::Mm), LengthUnit::Mm, &HAND_THRESHOLDS_MM, &[]);
    let expected = tested.iter().filter_map(|film| film.mm_per_px).sum::<f64>() * 3.0 / tested.len() as f64;
    assert!((mm.mre - expected).abs() < 1e-9, "{mm}, expected {expected}");
    assert_eq!(mm.sdr_percent.iter().map(|(_, percent)| *percent).collect::<Vec<_>>(), [100.0; 3]);
}

/// What `landmark-train data check` prints of a layout, and whether it ended well.
fn check(layout: &str, root: &Path) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landmark-train"));
    let output = command.args(["data", "check", "--layout", layout]).arg(root).output().expect("landmark-train starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(" faults"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    (text, output.status.success())
}

#[test]
fn the_cephalograms_are_checked_by_the_program() {
    let Some(root) = data("isbi2015-ceph") else { return };
    let (text, sound) = check("isbi", &root);
    assert!(text.starts_with("150 films in 150 groups, 19 landmarks, 150 films with a scale\n"), "{text}");
    assert!(text.contains("\n1935x2400 to 1935x2400 pixels\n") && text.contains("\ntest1: "), "{text}");
    assert!(sound && text.ends_with("\n0 faults\n"), "{text}");
}

#[test]
fn the_spines_are_checked_by_the_program() {
    let Some(root) = data("aasce2019-spine") else { return };
    let (text, sound) = check("aasce", &root);
    assert!(text.starts_with("469 films in "), "{text}");
    assert!(text.contains(", 68 landmarks, 0 films with a scale\n355x973 to 1427x3755 pixels\n"), "{text}");
    assert!(text.contains("\nnote: 18 of 481 films had vertebrae or corners out of order and were sorted: "), "{text}");
    assert!(text.contains("\nnote: 12 of 481 films have labels that no order mends and were left out: "), "{text}");
    assert!(sound && text.ends_with("\n0 faults\n"), "{text}");
}

#[test]
fn test_films_without_labels_are_a_note() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    for (part, film) in [("TrainingData", "001"), ("Test1Data", "151"), ("Test1Data", "152")] {
        let path = root.join(format!("RawImage/{part}/{film}.png"));
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a fresh folder");
        image::GrayImage::from_pixel(60, 80, image::Luma([90])).save(path).expect("a fresh folder");
    }
    for reader in ["400_senior", "400_junior"] {
        fs::create_dir(root.join(reader)).expect("a fresh folder");
        fs::write(root.join(reader).join("001.txt"), "10,20\n".repeat(19)).expect("a fresh folder");
    }
    let (text, sound) = check("isbi", root);
    assert!(
        sound && text.contains("note: the 2 films of `test1` have no labels") && text.ends_with("\n0 faults\n"),
        "{text}"
    );
}

#[test]
fn every_fault_of_every_part_is_listed_by_the_program() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a fresh folder");
        fs::write(path, text).expect("a fresh folder");
    };
    let good = "10,20\n".repeat(19);
    for film in ["TrainingData/001", "TrainingData/002", "TrainingData/003", "Test1Data/151", "Test1Data/152"] {
        let path = format!("RawImage/{film}.png");
        write(&path, "");
        image::GrayImage::from_pixel(60, 80, image::Luma([90])).save(root.join(path)).expect("a fresh folder");
        for reader in ["400_senior", "400_junior"] {
            write(&format!("{reader}/{}.txt", &film[film.len() - 3..]), &good);
        }
    }
    write("RawImage/TrainingData/003.tif", "a second image of the film");
    write("400_senior/001.txt", &good.replacen("10,20", "ten,20", 1));
    write("400_junior/002.txt", &good.replacen("10,20", "10;20", 2));
    write("400_senior/003.txt", &good.replacen("10,20", "210,20", 1));
    fs::remove_file(root.join("400_junior/151.txt")).expect("just written");
    write("RawImage/Test1Data/152.png", "no film");
    let (text, sound) = check("isbi", root);
    let text = text.replace(&format!("{}/", root.display()), "");
    for expected in [
        "\nfault: 400_senior/001.txt:1: expected `x,y` in pixels, found `ten,20`\n",
        "\nfault: 400_junior/002.txt:1: expected `x,y` in pixels, found `10;20`\n",
        "\nfault: 400_junior/002.txt:2: expected `x,y` in pixels, found `10;20`\n",
        "\nfault: RawImage/TrainingData/003.tif: film `003`: RawImage/TrainingData/003.png is the same film; ",
        " is not on the film of 60x80 (labelled in 400_senior/003.txt:1, 400_junior/003.txt:1)\n",
        "\nfault: test1: RawImage/Test1Data/151.png: film without labels: there is no 400_junior/151.txt\n",
        "\nfault: test1: RawImage/Test1Data/152.png: ",
        "\n7 faults\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    assert!(!sound, "{text}");
}
