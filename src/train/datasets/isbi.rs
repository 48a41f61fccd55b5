//! The ISBI 2015 lateral cephalograms (Wang et al. 2016): `RawImage/<set>/NNN.*`, one text file a film and reader.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{DatasetError, LabelledFilm};
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
/// # Errors
/// When a folder, a label file or one of its lines is missing or malformed.
pub fn isbi(root: &Path, split: IsbiSplit, truth: Truth) -> Result<Vec<LabelledFilm>, DatasetError> {
    let folder = root.join("RawImage").join(match split {
        IsbiSplit::Train => "TrainingData",
        IsbiSplit::Test1 => "Test1Data",
        IsbiSplit::Test2 => "Test2Data",
    });
    let io = |source| DatasetError::Io { path: folder.clone(), source };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let is_film = path.file_stem().and_then(|s| s.to_str()).is_some_and(|s| s.bytes().all(|b| b.is_ascii_digit()));
        if is_film {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(DatasetError::Empty { path: folder, expected: LAYOUT });
    }
    paths.into_iter().map(|path| labelled(root, path, truth)).collect()
}

/// A note where readers have labelled films that none of the set's folders holds.
#[must_use]
pub fn labels_without_film(root: &Path) -> Vec<String> {
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

fn labelled(root: &Path, path: PathBuf, truth: Truth) -> Result<LabelledFilm, DatasetError> {
    let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
    let read = |reader: &str| landmarks(&root.join(reader).join(format!("{name}.txt")));
    let landmarks = match truth {
        Truth::Senior => read("400_senior")?,
        Truth::Junior => read("400_junior")?,
        Truth::Challenge => read("400_challenge")?,
        Truth::Mean => {
            let (senior, junior) = (read("400_senior")?, read("400_junior")?);
            senior.into_iter().zip(junior).map(|(a, b)| a.midpoint(b)).collect()
        }
    };
    Ok(LabelledFilm { mm_per_px: Some(ISBI_MM_PER_PX), ..LabelledFilm::new(name, path, landmarks) })
}

/// The first 19 lines `x,y`; the class lines that follow in the original release are not ours.
fn landmarks(path: &Path) -> Result<Vec<Point>, DatasetError> {
    let text = fs::read_to_string(path).map_err(|source| DatasetError::Io { path: path.to_owned(), source })?;
    let mut lines = text.lines();
    (1..=CEPHALOGRAM_NAMES.len())
        .map(|line| {
            let found = lines.next().unwrap_or_default().trim();
            let point = found.split_once(',').and_then(|(x, y)| {
                let (x, y) = (x.trim().parse::<f64>().ok()?, y.trim().parse::<f64>().ok()?);
                (x.is_finite() && y.is_finite()).then_some(Point::new(x, y))
            });
            point.ok_or_else(|| DatasetError::Label {
                path: path.to_owned(),
                line,
                expected: "`x,y` in pixels",
                found: found.to_owned(),
            })
        })
        .collect()
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
        let films = isbi(root.path(), IsbiSplit::Train, Truth::Mean).expect("a whole data set");
        assert_eq!(films.len(), 1);
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

    #[test]
    fn a_broken_label_is_named_by_file_and_line() {
        let root = dataset(&("10,20\n".repeat(4) + "10;20\n"), &"20,25\n".repeat(19));
        let error = isbi(root.path(), IsbiSplit::Train, Truth::Senior).expect_err("line 5 is broken").to_string();
        assert!(error.ends_with("001.txt:5: expected `x,y` in pixels, found `10;20`"), "{error}");
    }
}
