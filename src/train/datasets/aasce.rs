//! The AASCE 2019 AP spine radiographs (Wu et al. 2017): 17 vertebrae of four corners each, no pixel spacing.
//!
//! Coordinates are whole pixels as they stand in the labels; whether they count from 0 or from 1 is not documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::aasce_table::{Table, read};
use super::mat::matrix;
use super::vertebrae::in_order;
use super::{Dataset, DatasetError, LabelPlace, LabelledFilm, Reading};
use crate::geometry::Point;
use crate::measure::MeasureSet;

const LAYOUT: &str = "data/{train,test}/X.jpg and labels/{train,test}/X.jpg.mat, or there landmarks.csv and \
                      filenames.csv";
/// Corners of 17 vertebrae.
pub(super) const LANDMARKS: usize = 68;
const REPEATED: &str = "repeated_films.tsv";
/// Case numbers of one patient, whatever the list of repeated films says.
const SAME_PATIENT: [[&str; 2]; 2] = [["12", "85"], ["238", "239"]];

/// A part of the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AasceSplit {
    /// The 481 films to train on.
    Train,
    /// The 128 films of the challenge's test set.
    Test,
}

/// The films of a split in order of name, their landmarks put in order.
///
/// Films whose corners no order makes vertebrae of, or that have one vertebra twice, are left out; the notes name them.
/// A film's group is its case number, one group for all cases that share a film by `repeated_films.tsv`. Broken labels,
/// films without labels and broken lines of that list are faults of the reading.
///
/// # Errors
/// When the films' folder is missing or holds none.
pub fn aasce(root: &Path, split: AasceSplit) -> Result<Reading, DatasetError> {
    // The challenge's own archive says `training`.
    let folders: &[&str] = match split {
        AasceSplit::Train => &["train", "training"],
        AasceSplit::Test => &["test"],
    };
    let part = folders.iter().find(|part| root.join("data").join(part).is_dir()).unwrap_or(&folders[0]);
    let labels = root.join("labels").join(part);
    let paths = films(&root.join("data").join(part))?;
    let mut faults = Vec::new();
    let cases = Cases::new(root, &mut faults);
    let mut notes = Vec::new();
    let (mut sorted, mut left_out) = (Vec::new(), Vec::new());
    // Read when the first film has no file of its own.
    let mut table: Option<Table> = None;
    let mut films = Vec::new();
    let count = paths.len();
    let names: BTreeSet<String> =
        paths.iter().filter_map(|path| Some(format!("{}.mat", path.file_name()?.to_str()?))).collect();
    for path in paths {
        let file = path.file_name().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
        let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
        let mat = labels.join(format!("{file}.mat"));
        let read = if mat.is_file() {
            let place = LabelPlace::Entry { path: mat.clone(), entry: "`p2`".to_owned() };
            from_mat(&mat).map(|points| Some((points, place)))
        } else {
            let table = table.get_or_insert_with(|| Table::read(&labels, &mut faults));
            table.points(&file, &path, &mat)
        };
        let (points, place) = match read {
            Ok(Some(found)) => found,
            // Its line is among the faults already.
            Ok(None) => continue,
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        match in_order(&points) {
            Ok((landmarks, changed)) => {
                if changed {
                    sorted.push(name.clone());
                }
                let group = cases.group(case(&name));
                films.push(LabelledFilm { group, labels: place, ..LabelledFilm::new(name, path, landmarks) });
            }
            Err(disorder) => left_out.push(format!("{name} ({disorder})")),
        }
    }
    if !sorted.is_empty() {
        notes.push(format!(
            "{} of {count} films had vertebrae or corners out of order and were sorted: {}",
            sorted.len(),
            sorted.join("; ")
        ));
    }
    if !left_out.is_empty() {
        notes.push(format!(
            "{} of {count} films have labels that no order mends and were left out: {}",
            left_out.len(),
            left_out.join("; ")
        ));
    }
    let extra = labels_without_film(&labels, &names);
    if extra > 0 {
        notes.push(format!("{extra} files in {} belong to no film", labels.display()));
    }
    if !root.join(REPEATED).is_file() {
        notes.push(format!(
            "there is no {REPEATED} (two names a line, a tab between them): a film that occurs under two case numbers \
             may be on both sides of a split"
        ));
    }
    let dataset = Dataset { landmarks: MeasureSet::SpineAasce2019.landmarks(), films, notes };
    Ok(Reading { dataset, faults })
}

/// The number of label files whose names are not among `expected`.
fn labels_without_film(labels: &Path, expected: &BTreeSet<String>) -> usize {
    let entries = fs::read_dir(labels).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.file_name().into_string().ok());
    files.filter(|file| file.ends_with(".mat") && !expected.contains(file)).count()
}

/// The images of a folder, in order of name.
fn films(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let io = |source| DatasetError::Io { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let extension = path.extension().and_then(|s| s.to_str()).unwrap_or_default().to_ascii_lowercase();
        if ["jpg", "jpeg", "png"].contains(&extension.as_str()) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(DatasetError::Empty { path: folder.to_owned(), expected: LAYOUT });
    }
    paths.sort();
    Ok(paths)
}

/// `p2`, 68 rows of x and y in pixels.
fn from_mat(path: &Path) -> Result<Vec<Point>, DatasetError> {
    let bytes = fs::read(path).map_err(|source| DatasetError::Io { path: path.to_owned(), source })?;
    let wrong = |problem: String| DatasetError::Entry {
        path: path.to_owned(),
        entry: "`p2`".to_owned(),
        problem,
        remedy: "expected a MATLAB 5 file with a double array of 68 rows, x and y in pixels".to_owned(),
    };
    let Some(array) = matrix(&bytes, "p2").map_err(&wrong)? else {
        return Err(wrong("there is no array of that name".to_owned()));
    };
    if array.size != [LANDMARKS, 2] {
        return Err(wrong(format!("its size is {:?}", array.size)));
    }
    // MATLAB stores columns: every x, then every y.
    let (x, y) = array.values.split_at(LANDMARKS);
    if let Some(i) = (0..LANDMARKS).find(|&i| !x[i].is_finite() || !y[i].is_finite()) {
        return Err(wrong(format!("row {} is ({}, {})", i + 1, x[i], y[i])));
    }
    Ok(x.iter().zip(y).map(|(x, y)| Point::new(*x, *y)).collect())
}

/// The case in a film's name: the number after the last `-`, or without one all that stands there up to a space.
///
/// `..-999 B AP` is a film of case 999, `..-coronal99` the only one of its case.
fn case(name: &str) -> &str {
    let last = name.rsplit('-').next().unwrap_or(name).trim();
    let digits = last.bytes().take_while(u8::is_ascii_digit).count();
    let end = if digits > 0 { digits } else { last.find(' ').unwrap_or(last.len()) };
    if end > 0 { &last[..end] } else { name }
}

/// Which cases belong together, as a forest: every case points towards the one that names its group.
struct Cases {
    towards: BTreeMap<String, String>,
}

impl Cases {
    fn new(root: &Path, faults: &mut Vec<DatasetError>) -> Self {
        let mut cases = Self { towards: BTreeMap::new() };
        for [a, b] in SAME_PATIENT {
            cases.unite(a, b);
        }
        let path = root.join(REPEATED);
        if !path.is_file() {
            return cases;
        }
        let text = read(&path, faults);
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let [a, b] = line.split('\t').collect::<Vec<_>>()[..] else {
                let expected = "the names of two films with a tab between them";
                faults.push(DatasetError::Label { path: path.clone(), line: i + 1, expected, found: line.to_owned() });
                continue;
            };
            let [a, b] = [a, b].map(|file| Path::new(file.trim()).file_stem().and_then(|s| s.to_str()).unwrap_or(file));
            cases.unite(case(a), case(b));
        }
        cases
    }

    fn unite(&mut self, a: &str, b: &str) {
        let [a, b] = [self.group(a), self.group(b)];
        // The lesser name stays, so that the order of the pairs does not matter.
        if a != b {
            self.towards.insert(a.clone().max(b.clone()), a.min(b));
        }
    }

    fn group(&self, case: &str) -> String {
        let mut case = case;
        while let Some(next) = self.towards.get(case) {
            case = next;
        }
        case.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 17 vertebrae of 40 x 20 pixels, 25 apart.
    fn spine() -> Vec<Point> {
        let corners = |i: u32| {
            let y = 10.0 + 25.0 * f64::from(i);
            [[30.0, y], [70.0, y], [30.0, y + 20.0], [70.0, y + 20.0]].map(|[x, y]| Point::new(x, y))
        };
        (0..17).flat_map(corners).collect()
    }

    /// A MATLAB 5 file with one uncompressed double array.
    fn mat(name: &str, rows: usize, columns: &[f64]) -> Vec<u8> {
        fn element(kind: u32, data: &[u8]) -> Vec<u8> {
            let mut bytes = [kind, data.len() as u32].map(u32::to_le_bytes).concat();
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        }
        let values: Vec<u8> = columns.iter().flat_map(|v| v.to_le_bytes()).collect();
        let size = [rows as u32, (columns.len() / rows) as u32].map(u32::to_le_bytes).concat();
        // Array flags with the class double; the size; the name; the real part.
        let flags = [6_u32, 0].map(u32::to_le_bytes).concat();
        let array = [element(6, &flags), element(5, &size), element(1, name.as_bytes()), element(9, &values)].concat();
        let mut file = format!("{:124}", "MATLAB 5.0 MAT-file").into_bytes();
        file.extend_from_slice(&[0x00, 0x01, b'I', b'M']);
        file.extend(element(14, &array));
        file
    }

    fn columns(points: &[Point]) -> Vec<f64> {
        points.iter().map(|p| p.x).chain(points.iter().map(|p| p.y)).collect()
    }

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder in a fresh directory");
        fs::write(path, bytes).expect("a file in a fresh directory");
    }

    /// A data set of these films, each with its file of labels.
    fn dataset(films: &[(&str, &[Point])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (name, points) in films {
            write(&root.path().join(format!("data/train/{name}.jpg")), b"");
            write(&root.path().join(format!("labels/train/{name}.jpg.mat")), &mat("p2", 68, &columns(points)));
        }
        root
    }

    fn whole(root: &Path) -> Dataset {
        aasce(root, AasceSplit::Train).and_then(Reading::whole).expect("a data set")
    }

    fn error(root: &Path) -> String {
        aasce(root, AasceSplit::Train).and_then(Reading::whole).expect_err("a broken label").to_string()
    }

    #[test]
    fn labels_are_sorted_and_the_notes_name_the_films() {
        let (mut turned, mut doubled) = (spine(), spine());
        turned.rotate_left(4);
        doubled.copy_within(0..4, 4);
        let root = dataset(&[("a-1 A AP", &spine()), ("a-2 A AP", &turned), ("a-3 A AP", &doubled)]);
        let Dataset { landmarks, films, notes } = whole(root.path());
        assert_eq!((landmarks.len(), landmarks[5].as_str()), (68, "vertebra_2_top_right"));
        let names: Vec<&str> = films.iter().map(|film| film.name.as_str()).collect();
        assert_eq!(names, ["a-1 A AP", "a-2 A AP"]);
        assert!(films.iter().all(|film| film.landmarks == spine() && film.visible == [true; 68]));
        assert_eq!(notes[0], "1 of 3 films had vertebrae or corners out of order and were sorted: a-2 A AP");
        assert_eq!(
            notes[1],
            "1 of 3 films have labels that no order mends and were left out: \
             a-3 A AP (vertebrae 1 and 2 lie on each other: one was marked twice)"
        );
    }

    #[test]
    fn films_of_a_case_and_cases_that_share_a_film_are_one_group() {
        let names = ["x-9 A AP", "x-9 B AP2", "y-13 A AP", "y-coronal3", "y-coronal4", "z-238 A AP", "z-239 B AP (2)"];
        let spine = spine();
        let root = dataset(&names.map(|name| (name, &spine[..])));
        let groups = || -> (Vec<String>, Vec<String>) {
            let Dataset { films, notes, .. } = whole(root.path());
            (films.into_iter().map(|film| film.group).collect(), notes)
        };
        let (apart, notes) = groups();
        assert_eq!(apart, ["9", "9", "13", "coronal3", "coronal4", "238", "238"]);
        assert!(notes[0].starts_with("there is no repeated_films.tsv"), "{notes:?}");
        let pairs = "y-coronal4.jpg\tx-9 C AP.jpg\n\nx-9 B AP2.jpg\ty-13 A AP.jpg\n";
        write(&root.path().join(REPEATED), pairs.as_bytes());
        assert_eq!(groups(), (["13", "13", "13", "coronal3", "13", "238", "238"].map(str::to_owned).to_vec(), vec![]));
        write(&root.path().join(REPEATED), b"x-9 A AP.jpg y-13 A AP.jpg\n");
        let error = error(root.path());
        assert!(error.contains("repeated_films.tsv:1: expected the names of two films with a tab"), "{error}");
    }

    #[test]
    fn films_without_a_file_of_labels_are_looked_up_in_the_table() {
        let root = dataset(&[]);
        let [names, values] =
            ["filenames.csv", "landmarks.csv"].map(|file| root.path().join("labels/train").join(file));
        image::GrayImage::new(100, 500).save(film(root.path())).expect("an image in a fresh directory");
        let shares: Vec<String> = spine()
            .iter()
            .map(|p| p.x / 100.0)
            .chain(spine().iter().map(|p| p.y / 500.0))
            .map(|share| share.to_string())
            .collect();
        write(&names, b"other.jpg\na-1 A AP.png\n");
        write(&values, format!("{0}\n{0}\n", shares.join(",")).as_bytes());
        let films = whole(root.path()).films;
        assert!(films[0].landmarks.iter().zip(spine()).all(|(a, b)| a.distance(b) < 1e-9));

        write(&values, format!("{0}\n{1}\n", shares.join(","), shares.join(",").replacen("0.3", "O.3", 1)).as_bytes());
        let found = error(root.path());
        assert!(
            found.ends_with("landmarks.csv:2: expected shares of the image's width and height, found `O.3`"),
            "{found}"
        );
        write(&values, format!("{}\n1,2\n", shares.join(",")).as_bytes());
        assert!(error(root.path()).ends_with(":2: expected 136 numbers: x of 68 landmarks, then y, found `2 numbers`"));
        write(&values, shares.join(",").as_bytes());
        assert!(error(root.path()).ends_with(":2: expected a line for each of filenames.csv, found `the end`"));
        write(&names, b"other.jpg\n");
        assert!(error(root.path()).contains("filenames.csv: film `a-1 A AP.png`: it has no labels; add "));
    }

    /// Where a film goes, its folder made.
    fn film(root: &Path) -> PathBuf {
        let path = root.join("data/train/a-1 A AP.png");
        write(&path, b"");
        path
    }

    #[test]
    fn a_broken_file_of_labels_is_named_with_what_is_wrong() {
        let root = dataset(&[("a-1 A AP", &spine())]);
        let path = root.path().join("labels/train/a-1 A AP.jpg.mat");
        let whole = columns(&spine());
        let mut hole = whole.clone();
        hole[67] = f64::NAN;
        for (bytes, problem) in [
            (mat("p1", 68, &whole), "there is no array of that name"),
            (mat("p2", 136, &whole), "its size is [136, 1]"),
            (mat("p2", 68, &hole), "row 68 is (NaN, 430)"),
            (mat("p2", 68, &whole)[..400].to_vec(), "it ends within an element"),
            (b"x,y".to_vec(), "it is shorter than a header"),
        ] {
            write(&path, &bytes);
            let error = error(root.path());
            assert!(error.contains(&format!("a-1 A AP.jpg.mat: `p2`: {problem}")), "{error}");
        }
    }

    #[test]
    fn every_broken_label_is_a_fault_and_the_sound_films_are_there() {
        let root = dataset(&[("a-1 A AP", &spine()), ("a-2 A AP", &spine()), ("a-3 A AP", &spine())]);
        for name in ["a-1 A AP", "a-3 A AP"] {
            write(&root.path().join(format!("labels/train/{name}.jpg.mat")), b"x,y");
        }
        write(&root.path().join("data/train/a-4 A AP.jpg"), b"");
        write(&root.path().join(REPEATED), b"one name\nanother\n");
        let Reading { dataset, faults } = aasce(root.path(), AasceSplit::Train).expect("a folder of films");
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let expected = [
            "repeated_films.tsv:1: expected",
            "repeated_films.tsv:2: expected",
            "a-1 A AP.jpg.mat: `p2`: it is shorter than a header",
            "a-3 A AP.jpg.mat: `p2`: it is shorter than a header",
            "a-4 A AP.jpg: film without labels: there is no ",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        assert!(faults.iter().zip(expected).all(|(fault, expected)| fault.contains(expected)), "{faults:?}");
        let [film] = &dataset.films[..] else { panic!("one sound film: {:?}", dataset.films) };
        assert!(film.labels.of(&[5]).expect("its file").ends_with("a-2 A AP.jpg.mat: `p2`"), "{film:?}");
    }

    #[test]
    fn every_broken_line_of_the_table_is_a_fault() {
        let root = dataset(&[]);
        for name in ["a-1 A AP", "a-2 A AP", "a-3 A AP"] {
            image::GrayImage::new(100, 500)
                .save(film(root.path()).with_file_name(format!("{name}.png")))
                .expect("fresh");
        }
        let labels = root.path().join("labels/train");
        write(&labels.join("filenames.csv"), b"a-1 A AP.png\na-2 A AP.png\na-3 A AP.png\n");
        let row = vec!["0.5"; 136].join(",");
        write(&labels.join("landmarks.csv"), format!("1,2\n{row}\nx{row}\n").as_bytes());
        let Reading { dataset, faults } = aasce(root.path(), AasceSplit::Train).expect("a folder of films");
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(matches!(&faults[..], [a, b] if a.contains("landmarks.csv:1: ") && b.contains("landmarks.csv:3: ")));
        // All landmarks in one place make no spine, which is noted and no fault.
        assert!(dataset.notes[0].contains("a-2 A AP"), "{:?}", dataset.notes);
    }
}
