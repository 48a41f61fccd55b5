//! The ISBI 2015 lateral cephalograms (Wang et al. 2016): `RawImage/<set>/NNN.*`, one text file a film and reader.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::reading::images;
use super::{Dataset, DatasetError, LabelPlace, LabelledFilm, Reading};
use crate::geometry::Point;
use crate::landmark::CEPHALOGRAM_NAMES;

/// The scale of every film, in millimetres a pixel.
pub const ISBI_MM_PER_PX: f64 = 0.1;

const LAYOUT: &str = "RawImage/{TrainingData,Test1Data,Test2Data}/NNN.* and 400_senior/NNN.txt, 400_junior/NNN.txt";

/// A part of the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsbiSplit {
    /// Films 001-150.
    Train,
    /// Films 151-300.
    Test1,
    /// Films 301-400.
    Test2,
}

impl IsbiSplit {
    /// As it is called in cards and evaluations.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Train => "ISBI 2015 training",
            Self::Test1 => "ISBI 2015 Test1",
            Self::Test2 => "ISBI 2015 Test2",
        }
    }
}

/// Whose landmarks count as true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// The mean of the senior and the junior reader: what NFDP and most papers use.
    Mean,
    /// The senior reader.
    Senior,
    /// The junior reader.
    Junior,
    /// The challenge's own file, made by the senior reader.
    Challenge,
}

impl Truth {
    /// As it is called in cards and evaluations.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Mean => "mean of senior and junior",
            Self::Senior => "senior",
            Self::Junior => "junior",
            Self::Challenge => "challenge (senior reader)",
        }
    }
}

/// The films of a split in order of name, with the landmarks of the chosen truth.
///
/// A film without labels, a broken line of them and a second image of a film are faults of the reading.
///
/// # Errors
/// When the films' folder is missing or holds none.
pub fn isbi(root: &Path, split: IsbiSplit, truth: Truth) -> Result<Reading, DatasetError> {
    let folder = root.join("RawImage").join(match split {
        IsbiSplit::Train => "TrainingData",
        IsbiSplit::Test1 => "Test1Data",
        IsbiSplit::Test2 => "Test2Data",
    });
    let mut faults = Vec::new();
    let images = images(&folder, |name| name.bytes().all(|b| b.is_ascii_digit()), &mut faults)?;
    if images.is_empty() {
        return Err(DatasetError::Empty { path: folder, expected: LAYOUT });
    }
    let films = images.into_iter().filter_map(|(name, path)| labelled(root, name, path, truth, &mut faults)).collect();
    let landmarks = CEPHALOGRAM_NAMES.map(str::to_owned).to_vec();
    let dataset = Dataset { landmarks, films, notes: labels_without_film(root) };
    Ok(Reading { dataset, faults })
}

/// A note where readers have labelled films that none of the set's folders holds.
fn labels_without_film(root: &Path) -> Vec<String> {
    let stems = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect()
    };
    let folders = fs::read_dir(root.join("RawImage")).into_iter().flatten().flatten();
    let films: BTreeSet<String> = folders.flat_map(|folder| stems(&folder.path())).collect();
    let mut notes = Vec::new();
    for reader in ["400_senior", "400_junior", "400_challenge"] {
        let extra: Vec<String> = stems(&root.join(reader)).difference(&films).cloned().collect();
        if let (Some(first), Some(last)) = (extra.first(), extra.last()) {
            notes.push(format!("{reader}: {} labels without a film, {first} to {last}", extra.len()));
        }
    }
    notes
}

fn labelled(
    root: &Path,
    name: String,
    path: PathBuf,
    truth: Truth,
    faults: &mut Vec<DatasetError>,
) -> Option<LabelledFilm> {
    let readers: &[&str] = match truth {
        Truth::Senior => &["400_senior"],
        Truth::Junior => &["400_junior"],
        Truth::Challenge => &["400_challenge"],
        Truth::Mean => &["400_senior", "400_junior"],
    };
    let files: Vec<PathBuf> = readers.iter().map(|reader| root.join(reader).join(format!("{name}.txt"))).collect();
    // Every reader's file is read, also behind a broken one: all that is wrong with a film is said at once.
    let read: Vec<Option<Vec<Point>>> = files.iter().map(|file| landmarks(&path, file, faults)).collect();
    let read = read.into_iter().collect::<Option<Vec<_>>>()?;
    let mean = |a: Vec<Point>, b: Vec<Point>| a.into_iter().zip(b).map(|(a, b)| a.midpoint(b)).collect();
    let film = LabelledFilm::new(name, path, read.into_iter().reduce(mean)?);
    Some(LabelledFilm { mm_per_px: Some(ISBI_MM_PER_PX), labels: LabelPlace::Lines(files), ..film })
}

/// The first 19 lines `x,y`; the class lines that follow in the original release are not ours.
fn landmarks(film: &Path, path: &Path, faults: &mut Vec<DatasetError>) -> Option<Vec<Point>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) => {
            faults.push(match source.kind() {
                ErrorKind::NotFound => DatasetError::Unlabelled { film: film.to_owned(), labels: path.to_owned() },
                _ => DatasetError::Io { path: path.to_owned(), source },
            });
            return None;
        }
    };
    let mut lines = text.lines().map(str::trim);
    let mut points = Vec::with_capacity(CEPHALOGRAM_NAMES.len());
    for line in 1..=CEPHALOGRAM_NAMES.len() {
        let found = lines.next();
        let point = found.and_then(|found| found.split_once(',')).and_then(|(x, y)| {
            let (x, y) = (x.trim().parse::<f64>().ok()?, y.trim().parse::<f64>().ok()?);
            (x.is_finite() && y.is_finite()).then_some(Point::new(x, y))
        });
        if point.is_none() {
            let (path, expected) = (path.to_owned(), "`x,y` in pixels");
            faults.push(DatasetError::Label { path, line, expected, found: found.unwrap_or("the end").to_owned() });
        }
        points.extend(point);
        // What is behind the end is one fault, not one a line.
        if found.is_none() {
            break;
        }
    }
    (points.len() == CEPHALOGRAM_NAMES.len()).then_some(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, reader: &str, lines: &str) {
        let folder = root.join(reader);
        fs::create_dir_all(&folder).expect("a folder in a fresh directory");
        fs::write(folder.join("001.txt"), lines).expect("a file in a fresh directory");
    }

    fn dataset(senior: &str, junior: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "400_senior", senior);
        write(root.path(), "400_junior", junior);
        let films = root.path().join("RawImage/TrainingData");
        fs::create_dir_all(&films).expect("a folder in a fresh directory");
        fs::write(films.join("001.bmp"), b"").expect("a file in a fresh directory");
        fs::write(films.join("Thumbs.db"), b"").expect("a file in a fresh directory");
        root
    }

    #[test]
    fn the_truth_is_the_mean_of_both_readers_and_class_lines_are_ignored() {
        let senior = "10,20\n".repeat(19) + "1\n2\n3\n";
        let root = dataset(&senior, &"20,25\n".repeat(19));
        let dataset = isbi(root.path(), IsbiSplit::Train, Truth::Mean).and_then(Reading::whole);
        let Dataset { landmarks, films, .. } = dataset.expect("a whole data set");
        assert_eq!((films.len(), landmarks.len()), (1, 19));
        assert_eq!(films[0].name, "001");
        assert_eq!(films[0].landmarks, vec![Point::new(15.0, 22.5); 19]);
    }

    #[test]
    fn labels_without_a_film_are_counted() {
        let root = dataset(&"10,20\n".repeat(19), &"20,25\n".repeat(19));
        assert_eq!(labels_without_film(root.path()), [""; 0]);
        fs::write(root.path().join("400_junior/007.txt"), "").expect("a file in a fresh directory");
        assert_eq!(labels_without_film(root.path()), ["400_junior: 1 labels without a film, 007 to 007"]);
    }

    /// What is wrong with the training part, without the folder's path.
    fn faults(root: &Path, truth: Truth) -> Vec<String> {
        let faults = isbi(root, IsbiSplit::Train, truth).expect("a folder of films").faults;
        faults.iter().map(|fault| fault.to_string().replace(&format!("{}/", root.display()), "")).collect()
    }

    #[test]
    fn every_broken_label_is_named_by_file_and_line_and_the_first_one_refuses() {
        let good = "20,25\n".repeat(19);
        let root = dataset(&("10,20\n".repeat(4) + "10;20\n10,20\n10\n"), &good.replacen("20,25", "x,25", 1));
        for file in ["RawImage/TrainingData/002.bmp", "400_senior/002.txt", "400_junior/002.txt"] {
            fs::write(root.path().join(file), &good).expect("a file in a fresh directory");
        }
        let expected = "expected `x,y` in pixels, found";
        assert_eq!(
            faults(root.path(), Truth::Mean),
            [
                format!("400_senior/001.txt:5: {expected} `10;20`"),
                format!("400_senior/001.txt:7: {expected} `10`"),
                format!("400_senior/001.txt:8: {expected} `the end`"),
                format!("400_junior/001.txt:1: {expected} `x,25`"),
            ]
        );
        let reading = isbi(root.path(), IsbiSplit::Train, Truth::Mean).expect("a folder of films");
        let names: Vec<&str> = reading.dataset.films.iter().map(|film| film.name.as_str()).collect();
        assert_eq!(names, ["002"], "the sound film is there");
        let error = reading.whole().expect_err("line 5 is broken").to_string();
        assert!(error.ends_with("001.txt:5: expected `x,y` in pixels, found `10;20`"), "{error}");
    }

    #[test]
    fn a_film_without_labels_is_named() {
        let root = dataset(&"10,20\n".repeat(19), &"20,25\n".repeat(19));
        fs::remove_file(root.path().join("400_junior/001.txt")).expect("just written");
        assert_eq!(faults(root.path(), Truth::Senior), [""; 0]);
        assert_eq!(
            faults(root.path(), Truth::Mean),
            ["RawImage/TrainingData/001.bmp: film without labels: there is no 400_junior/001.txt"]
        );
    }

    #[test]
    fn a_second_image_of_a_film_is_a_fault() {
        let root = dataset(&"10,20\n".repeat(19), &"20,25\n".repeat(19));
        fs::write(root.path().join("RawImage/TrainingData/001.png"), b"").expect("a file in a fresh directory");
        assert_eq!(
            faults(root.path(), Truth::Mean),
            ["RawImage/TrainingData/001.png: film `001`: RawImage/TrainingData/001.bmp is the same film; keep one of \
              them"]
        );
        let films = isbi(root.path(), IsbiSplit::Train, Truth::Mean).expect("a folder of films").dataset.films;
        let [film] = &films[..] else { panic!("the film counts once: {films:?}") };
        let place = film.labels.of(&[18]).expect("the readers' files");
        assert!(place.contains("400_senior/001.txt:19, ") && place.ends_with("400_junior/001.txt:19"), "{place}");
    }
}
