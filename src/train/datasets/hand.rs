//! The Digital Hand Atlas (Gertych et al. 2007) with the 37 landmarks and the three folds of Payer et al. 2019.
//!
//! The scale is a convention of the publications on it: the wrist, from landmark 1 to 5 counted from 0, is taken to be
//! 50 mm wide.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::reading::images;
use super::{Dataset, DatasetError, LabelPlace, LabelledFilm, Reading};
use crate::geometry::Point;

const LAYOUT: &str = "images/ID.*, all.csv and cv/set{1,2,3}/{train,test}.txt";
/// The two ends of the wrist's width, and its millimetres.
const WRIST: ([usize; 2], f64) = ([1, 5], 50.0);

/// The landmarks in the order of the table, which names none: joints and tips by their anatomy, in the wrist by number.
pub const HAND_NAMES: [&str; 37] = [
    "wrist_1",
    "wrist_2",
    "wrist_3",
    "wrist_4",
    "wrist_5",
    "wrist_6",
    "carpal_1",
    "carpal_2",
    "carpal_3",
    "carpal_4",
    "carpal_5",
    "carpal_6",
    "carpal_7",
    "little_metacarpal_base",
    "ring_metacarpal_base",
    "middle_metacarpal_base",
    "index_metacarpal_base",
    "thumb_metacarpal_base",
    "thumb_mcp",
    "thumb_ip",
    "thumb_tip",
    "index_mcp",
    "index_pip",
    "index_dip",
    "index_tip",
    "middle_mcp",
    "middle_pip",
    "middle_dip",
    "middle_tip",
    "ring_mcp",
    "ring_pip",
    "ring_dip",
    "ring_tip",
    "little_mcp",
    "little_pip",
    "little_dip",
    "little_tip",
];

/// A side of a fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandPart {
    /// Two thirds of the films.
    Train,
    /// The third that the other two folds train on.
    Test,
}

/// The films of one part of a fold, 1 to 3, in order of name, each in a group of its own.
///
/// Films whose image is not there are left out; the notes say how many. A broken line of the table or of the fold, and a
/// second image of a film, are faults of the reading.
///
/// # Errors
/// When a folder, the table or the fold's list is missing, or there is no image at all.
pub fn hand(root: &Path, fold: u8, part: HandPart) -> Result<Reading, DatasetError> {
    let file = match part {
        HandPart::Train => "train.txt",
        HandPart::Test => "test.txt",
    };
    let list = root.join("cv").join(format!("set{fold}")).join(file);
    let table = root.join("all.csv");
    let mut faults = Vec::new();
    let rows = rows(&table, &mut faults)?;
    let images = images(&root.join("images"), |name| !name.starts_with('.'), &mut faults)?;
    let text = read(&list)?;
    let mut films = BTreeMap::new();
    let (mut listed, mut missing) = (0, 0);
    for (i, id) in text.lines().map(str::trim).enumerate().filter(|(_, id)| !id.is_empty()) {
        let wrong = |expected| DatasetError::Label { path: list.clone(), line: i + 1, expected, found: id.to_owned() };
        let Some(row) = rows.get(id) else {
            faults.push(wrong("a film of all.csv"));
            continue;
        };
        listed += 1;
        // A broken line of the table is among the faults already.
        let Some((line, landmarks)) = row else { continue };
        let Some(path) = images.get(id) else {
            missing += 1;
            continue;
        };
        let ([a, b], mm) = WRIST;
        let distance = landmarks[a].distance(landmarks[b]);
        if distance == 0.0 {
            let expected = "landmarks 1 and 5, counted from 0, in different places: they tell the scale";
            let found = format!("({}, {}) twice", landmarks[a].x, landmarks[a].y);
            faults.push(DatasetError::Label { path: table.clone(), line: *line, expected, found });
            continue;
        }
        let film = LabelledFilm::new(id.to_owned(), path.clone(), landmarks.clone());
        let labels = LabelPlace::Entry { path: table.clone(), entry: format!("line {line}") };
        let film = LabelledFilm { mm_per_px: Some(mm / distance), labels, ..film };
        if films.insert(id.to_owned(), film).is_some() {
            faults.push(wrong("a film that occurs once"));
        }
    }
    if films.is_empty() && faults.is_empty() {
        return Err(DatasetError::Empty { path: root.join("images"), expected: LAYOUT });
    }
    let mut notes = Vec::new();
    if missing > 0 {
        notes.push(format!("without an image, left out: {missing} of the {listed} films of {}", list.display()));
    }
    let landmarks = HAND_NAMES.map(str::to_owned).to_vec();
    Ok(Reading { dataset: Dataset { landmarks, films: films.into_values().collect(), notes }, faults })
}

fn read(path: &Path) -> Result<String, DatasetError> {
    fs::read_to_string(path).map_err(|source| DatasetError::Io { path: path.to_owned(), source })
}

/// What the table says of each film; none where its line is broken.
type Rows = BTreeMap<String, Option<(usize, Vec<Point>)>>;

/// Line and landmarks of each film: `id,x0,y0,...,x36,y36` in pixels.
fn rows(path: &Path, faults: &mut Vec<DatasetError>) -> Result<Rows, DatasetError> {
    let mut rows = Rows::new();
    for (i, text) in read(path)?.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let line = i + 1;
        let wrong = |(expected, found): (&'static str, String)| DatasetError::Label {
            path: path.to_owned(),
            line,
            expected,
            found,
        };
        let (id, cells) = text.split_once(',').unwrap_or((text, ""));
        let id = id.trim();
        let landmarks = points(cells).map_err(|fault| faults.push(wrong(fault))).ok();
        if rows.insert(id.to_owned(), landmarks.map(|landmarks| (line, landmarks))).is_some() {
            faults.push(wrong(("a film that occurs once", id.to_owned())));
        }
    }
    Ok(rows)
}

/// The landmarks of a film, or what was expected and what was found instead.
fn points(cells: &str) -> Result<Vec<Point>, (&'static str, String)> {
    let mut coordinates = Vec::with_capacity(2 * HAND_NAMES.len());
    for cell in cells.split(',').map(str::trim).filter(|_| !cells.is_empty()) {
        let value = cell.parse::<f64>().ok().filter(|value| value.is_finite());
        coordinates.push(value.ok_or_else(|| ("a coordinate in pixels", cell.to_owned()))?);
    }
    if coordinates.len() != 2 * HAND_NAMES.len() {
        return Err(("a film and its 74 coordinates", format!("{} coordinates", coordinates.len())));
    }
    Ok(coordinates.as_chunks::<2>().0.iter().map(|[x, y]| Point::new(*x, *y)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row whose landmark `k` is at (10 k, `y`), but landmark 5 at (10, `y` + `wrist`).
    fn row(id: &str, y: u32, wrist: u32) -> String {
        let point = |k: u32| if k == 5 { format!(",10,{}", y + wrist) } else { format!(",{},{y}", 10 * k) };
        id.to_owned() + &(0..37).map(point).collect::<String>()
    }

    fn dataset(table: &str, train: &str, images: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for folder in ["images", "cv/set2"] {
            fs::create_dir_all(root.path().join(folder)).expect("a folder in a fresh directory");
        }
        let write = |file: &str, text: &str| {
            fs::write(root.path().join(file), text).expect("a file in a fresh directory");
        };
        write("all.csv", table);
        write("cv/set2/train.txt", train);
        for image in images {
            write(&format!("images/{image}"), "");
        }
        root
    }

    fn error(root: &tempfile::TempDir) -> String {
        hand(root.path(), 2, HandPart::Train).and_then(Reading::whole).expect_err("a broken data set").to_string()
    }

    #[test]
    fn a_fold_has_its_films_whose_image_is_there_each_with_its_scale() {
        let table = [row("0007", 3, 200), row("0008", 4, 100), row("0009", 5, 100)].join("\n");
        let root = dataset(&table, "0009\n0008\r\n0007\n", &["0007.jpg", "0009.png", ".hidden"]);
        let Dataset { landmarks, films, notes } =
            hand(root.path(), 2, HandPart::Train).and_then(Reading::whole).expect("a data set");
        assert_eq!(landmarks.len(), 37);
        let summary: Vec<_> =
            films.iter().map(|film| (film.name.as_str(), film.group.as_str(), film.mm_per_px)).collect();
        assert_eq!(summary, [("0007", "0007", Some(0.25)), ("0009", "0009", Some(0.5))]);
        assert_eq!(films[0].landmarks[36], Point::new(360.0, 3.0));
        assert_eq!(films[0].path, root.path().join("images/0007.jpg"));
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("without an image, left out: 1 of the 3 films of "), "{notes:?}");
    }

    #[test]
    fn each_fault_is_named_by_file_line_and_value() {
        let good = row("0007", 3, 200);
        for (table, train, expected) in [
            (good.replace(",360,", ",36O,"), "0007", "all.csv:1: expected a coordinate in pixels, found `36O`"),
            (
                good.replace(",360,3", ""),
                "0007",
                "all.csv:1: expected a film and its 74 coordinates, found `72 coordinates`",
            ),
            (format!("{good}\n{good}"), "0007", "all.csv:2: expected a film that occurs once, found `0007`"),
            (good.clone(), "0007\n7", "train.txt:2: expected a film of all.csv, found `7`"),
            (good.clone(), "0007\n0007", "train.txt:2: expected a film that occurs once, found `0007`"),
            (row("0007", 3, 0), "0007", "they tell the scale, found `(10, 3) twice`"),
        ] {
            let found = error(&dataset(&table, train, &["0007.jpg"]));
            assert!(found.ends_with(expected), "{found}");
        }
        let found = error(&dataset(&good, "0007", &["0007.jpg", "0007.png"]));
        assert!(found.ends_with("0007.jpg is the same film; keep one of them"), "{found}");
        let found = error(&dataset(&good, "0007", &[]));
        assert!(found.contains("images holds no film; expected images/ID.*, all.csv and "), "{found}");
    }

    #[test]
    fn every_broken_line_is_a_fault_and_the_sound_films_are_there() {
        let table = [row("0007", 3, 200).replace(",360,", ",36O,"), row("0008", 4, 100), "0009,1".to_owned()];
        let root = dataset(&table.join("\n"), "0007\n0008\n0009\n7", &["0007.jpg", "0008.jpg", "0009.jpg"]);
        let Reading { dataset, faults } = hand(root.path(), 2, HandPart::Train).expect("a table and a list");
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 3, "{faults:?}");
        for (fault, expected) in faults.iter().zip(["all.csv:1: expected", "all.csv:3: expected", "train.txt:4: "]) {
            assert!(fault.contains(expected), "{faults:?}");
        }
        let [film] = &dataset.films[..] else { panic!("one sound film: {:?}", dataset.films) };
        assert!(film.labels.of(&[0]).expect("the table").ends_with("all.csv: line 2"), "{film:?}");
    }
}
