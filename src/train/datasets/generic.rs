//! A user's own films: a folder of images, and one file of labels in CSV or in COCO's keypoint format.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Dataset, DatasetError, LabelPlace, LabelledFilm, Reading, generic_coco, generic_csv};
use crate::geometry::Point;
use crate::radiograph::{Format, Limits, decode};

const LAYOUT: &str = "a line or an annotation with at least one landmark for each film";
/// Enough for every signature, and for the first element of a DICOM data set.
const SIGNATURE_BYTES: u64 = 2048;

/// What a file of labels says, whatever its format.
pub(super) struct Labels {
    /// Landmark names in the file's order.
    pub(super) landmarks: Vec<String>,
    /// In the file's order.
    pub(super) rows: Vec<Row>,
    /// What was left out: sentences for people.
    pub(super) notes: Vec<String>,
    /// Entries that cannot be used.
    pub(super) faults: Vec<DatasetError>,
}

/// The labels of one film.
pub(super) struct Row {
    /// Where they stand: `line 3`, `annotation 17`.
    pub(super) entry: String,
    /// The image file, as it is named there.
    pub(super) file: String,
    /// In pixels; `None` where the landmark is not visible.
    pub(super) points: Vec<Option<Point>>,
    /// Where the film does not stand for itself.
    pub(super) group: Option<String>,
    /// Where it is known.
    pub(super) mm_per_px: Option<f64>,
}

/// The films below `folder` that `labels` names, in order of their path, and the landmarks' names.
///
/// A file named `*.json` is read as COCO keypoints, any other as CSV. Images may be of any format that is decoded here,
/// DICOM included, and lie in subfolders; a label names one by its path below `folder` or, where there is only one
/// such, by its file name alone. Hidden files are not looked at.
///
/// CSV: a first line `file,NAME_x,NAME_y,...` with landmark names of `a-z`, `0-9` and `_`, then a line a film, in
/// pixels whose centres are whole numbers. Two empty cells: the landmark is not visible. The columns `group` (films that
/// a split keeps together; empty: the film stands for itself) and `mm_per_px` (empty: what a DICOM file states of square
/// pixels, else unknown) may be added. Nothing is quoted.
///
/// COCO: `images`, `annotations` with `keypoints` of `x, y, v`, and `categories` with the names as `keypoints`. A
/// landmark is visible where `v` is 1 or 2. Coordinates are taken as they stand, nothing is added or subtracted: COCO's
/// own keypoints are pixels counted from 0, as here, although its text measures from the corner of the first pixel; what
/// a tool wrote in that sense, with pixel centres at 0.5, is half a pixel too large. An image may carry `group` and
/// `mm_per_px`.
///
/// A line or an annotation that cannot be used is a fault of the reading, with its value and what to do about it.
///
/// # Errors
/// When the file or the folder cannot be read, or the file's landmarks cannot be told.
pub fn generic(folder: &Path, labels: &Path) -> Result<Reading, DatasetError> {
    let is_json = labels.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let text = read(labels)?;
    let Labels { landmarks, rows, mut notes, mut faults } =
        if is_json { generic_coco::parse(labels, &text)? } else { generic_csv::parse(labels, &text)? };
    let files = Files::below(folder)?;
    let mut films: BTreeMap<&str, (String, LabelledFilm)> = BTreeMap::new();
    let mut blank = 0;
    for Row { entry, file, points, group, mm_per_px } in rows {
        let wrong = |problem: String, remedy: String| DatasetError::Entry {
            path: labels.to_owned(),
            entry: entry.clone(),
            problem,
            remedy,
        };
        let (name, path) = match files.find(&file) {
            Ok(found) => found,
            Err((problem, remedy)) => {
                faults.push(wrong(problem, remedy));
                continue;
            }
        };
        if let Some((other, _)) = films.get(name) {
            let problem = format!("`{file}` already has labels in {other}");
            faults.push(wrong(problem, "keep one of them".to_owned()));
            continue;
        }
        if points.iter().all(Option::is_none) {
            blank += 1;
            continue;
        }
        let film = LabelledFilm {
            name: name.to_owned(),
            path: path.to_owned(),
            visible: points.iter().map(Option::is_some).collect(),
            landmarks: points.into_iter().map(Option::unwrap_or_default).collect(),
            group: group.unwrap_or_else(|| name.to_owned()),
            mm_per_px,
            labels: LabelPlace::Entry { path: labels.to_owned(), entry: entry.clone() },
        };
        films.insert(name, (entry, film));
    }
    if films.is_empty() && faults.is_empty() {
        return Err(DatasetError::Empty { path: labels.to_owned(), expected: LAYOUT });
    }
    if blank > 0 {
        notes.push(format!("without a visible landmark, left out: {blank} of the films in {}", labels.display()));
    }
    let unlabelled = files.0.iter().filter(|(name, path)| !films.contains_key(name.as_str()) && is_film(path)).count();
    // Beside faults it would count their films too.
    if unlabelled > blank && faults.is_empty() {
        notes.push(format!("without labels, left out: {} of the films below {}", unlabelled - blank, folder.display()));
    }
    let mut films: Vec<LabelledFilm> = films.into_values().map(|(_, film)| film).collect();
    films
        .par_iter_mut()
        .filter(|film| film.mm_per_px.is_none())
        .for_each(|film| film.mm_per_px = stated_scale(&film.path));
    Ok(Reading { dataset: Dataset { landmarks, films, notes }, faults })
}

/// The side of a pixel that a DICOM file states, as the daemon reads it, where its pixels are square. What cannot be read
/// is said by whoever reads the film.
fn stated_scale(path: &Path) -> Option<f64> {
    let mut signature = Vec::new();
    File::open(path).ok()?.take(SIGNATURE_BYTES).read_to_end(&mut signature).ok()?;
    if !matches!(Format::of(&signature), Ok(Format::Dicom)) {
        return None;
    }
    let spacing = decode(&fs::read(path).ok()?, &Limits::default()).ok()?.spacing?;
    ((spacing.x_mm - spacing.y_mm).abs() <= 1e-6 * spacing.x_mm).then_some(spacing.x_mm)
}

/// Whether a landmark may be called so.
pub(super) fn is_landmark_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn read(path: &Path) -> Result<String, DatasetError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        ErrorKind::InvalidData => DatasetError::Entry {
            path: path.to_owned(),
            entry: "text".to_owned(),
            problem: "it is not UTF-8".to_owned(),
            remedy: "save the file as UTF-8".to_owned(),
        },
        _ => DatasetError::Io { path: path.to_owned(), source },
    })
}

fn is_film(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SIGNATURE_BYTES).read_to_end(&mut start));
    read.is_ok() && Format::of(&start).is_ok()
}

/// Every file below a folder, by its path below it with `/` between the parts.
struct Files(BTreeMap<String, PathBuf>);

impl Files {
    fn below(folder: &Path) -> Result<Self, DatasetError> {
        let mut files = BTreeMap::new();
        let mut folders = vec![(String::new(), folder.to_owned())];
        while let Some((prefix, folder)) = folders.pop() {
            let io = |source| DatasetError::Io { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(io)? {
                let entry = entry.map_err(io)?;
                let file = entry.file_name().to_string_lossy().into_owned();
                if file.starts_with('.') {
                    continue;
                }
                // A link to a folder is not followed: it might lead back here.
                if entry.file_type().map_err(io)?.is_dir() {
                    folders.push((format!("{prefix}{file}/"), entry.path()));
                } else if entry.path().is_file() {
                    files.insert(format!("{prefix}{file}"), entry.path());
                }
            }
        }
        Ok(Self(files))
    }

    /// The one that a label means, or what is wrong and what to do about it.
    fn find(&self, file: &str) -> Result<(&str, &Path), (String, String)> {
        // A table made on Windows separates folders in its own way.
        let wanted = file.replace('\\', "/");
        let wanted = wanted.strip_prefix("./").unwrap_or(&wanted);
        if let Some((name, path)) = self.0.get_key_value(wanted) {
            return Ok((name, path));
        }
        let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        let found: Vec<_> = self.0.iter().filter(|(name, _)| last(name) == wanted).take(2).collect();
        match found[..] {
            [(name, path)] => Ok((name, path)),
            [(first, _), (second, _), ..] => Err((
                format!("there are several images `{file}`: {first}, {second}"),
                "name its path below the folder of films".to_owned(),
            )),
            [] => {
                let stem = |name: &str| {
                    let last = last(name).to_lowercase();
                    last.rsplit_once('.').map_or(last.clone(), |(stem, _)| stem.to_owned())
                };
                let like = self.0.keys().find(|name| !stem(wanted).is_empty() && stem(name) == stem(wanted));
                let remedy = match like {
                    Some(like) => format!("there is {like}: correct the name"),
                    None => "correct the name, remove these labels or add the image".to_owned(),
                };
                Err((format!("there is no image `{file}` below the folder of films"), remedy))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

    fn folder(films: &[&str], labels: (&str, &str)) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (file, bytes) in films.iter().map(|film| (*film, PNG)).chain([(labels.0, labels.1.as_bytes())]) {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder in a fresh directory");
            fs::write(path, bytes).expect("a file in a fresh directory");
        }
        root
    }

    fn csv(films: &[&str], rows: &str) -> Result<Dataset, DatasetError> {
        let root = folder(films, ("labels.csv", &format!("file,a_x,a_y,b_x,b_y,group,mm_per_px\n{rows}")));
        generic(root.path(), &root.path().join("labels.csv")).and_then(Reading::whole)
    }

    #[test]
    fn films_in_subfolders_are_found_by_path_or_by_name() {
        let films = ["x/1.png", "x/2.png", "y/1.png", "z", ".hidden/3.png", "x/4.png", "5.png"];
        let rows = "y\\1.png,1,2,3,4,p,0.25\nz,,,5,6,,\n2.png,7,8,,,p,\n5.png,,,,,,\n";
        let Dataset { landmarks, films, notes } = csv(&films, rows).expect("a data set");
        assert_eq!(landmarks, ["a", "b"]);
        let summary: Vec<_> =
            films.iter().map(|film| (film.name.as_str(), film.group.as_str(), &film.visible[..])).collect();
        let expected: [(&str, &str, &[bool]); 3] =
            [("x/2.png", "p", &[true, false]), ("y/1.png", "p", &[true, true]), ("z", "z", &[false, true])];
        assert_eq!(summary, expected);
        assert!(films[0].path.ends_with("x/2.png"));
        assert_eq!(films[1].landmarks, [Point::new(1.0, 2.0), Point::new(3.0, 4.0)]);
        assert_eq!(films.iter().map(|film| film.mm_per_px).collect::<Vec<_>>(), [None, Some(0.25), None]);
        assert!(notes[0].starts_with("without a visible landmark, left out: 1 of the films in "), "{notes:?}");
        assert!(notes[1].starts_with("without labels, left out: 2 of the films below "), "{notes:?}");
    }

    #[test]
    fn an_image_that_is_not_found_is_named_with_its_line_and_a_remedy() {
        for (films, rows, expected) in [
            (&["1.png"][..], "2.png,1,2,3,4,,", "line 2: there is no image `2.png` below the folder of films; correct"),
            (
                &["1.PNG"],
                "1.png,1,2,3,4,,",
                "line 2: there is no image `1.png` below the folder of films; there is 1.PNG",
            ),
            (&["x/1.png", "y/1.png"], "1.png,1,2,3,4,,", "several images `1.png`: x/1.png, y/1.png; name its path"),
            (&["x/1.png"], "1.png,1,2,3,4,,\n./x/1.png,1,2,3,4,,", "line 3: `./x/1.png` already has labels in line 2"),
            (&["1.png"], "1.png,,,,,,", "labels.csv holds no film; expected a line or an annotation with at least one"),
        ] {
            let error = csv(films, rows).expect_err("a broken label").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn every_entry_that_cannot_be_used_is_a_fault_and_the_sound_films_are_there() {
        let rows = "1.png,1,2,?,4,,\n2.png,1,2,3,4,,\n3.png,1,2,3,4,,\n2.png,1,2,3,4,,\n1.png,1,2\n";
        let table = format!("file,a_x,a_y,b_x,b_y,group,mm_per_px\n{rows}");
        let root = folder(&["1.png", "2.png"], ("labels.csv", &table));
        let labels = root.path().join("labels.csv");
        let Reading { dataset, faults } = generic(root.path(), &labels).expect("a table");
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let expected =
            ["line 2: `?`", "line 6: it has 3 cells", "line 4: there is no image `3.png`", "line 5: `2.png`"];
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        assert!(faults.iter().zip(expected).all(|(fault, expected)| fault.contains(expected)), "{faults:?}");
        let [film] = &dataset.films[..] else { panic!("one sound film: {:?}", dataset.films) };
        assert_eq!(film.labels.of(&[1]), Some(format!("{}: line 3", labels.display())));
    }

    #[test]
    fn the_file_of_labels_is_read_by_its_ending_as_utf_8() {
        let json = r#"{"images":[{"id":1,"file_name":"1.png"}],"categories":[{"id":1,"keypoints":["a"]}],
            "annotations":[{"id":1,"image_id":1,"category_id":1,"keypoints":[3,4,2]}]}"#;
        let root = folder(&["1.png"], ("labels.JSON", json));
        let films = generic(root.path(), &root.path().join("labels.JSON")).expect("a data set").dataset.films;
        assert_eq!(films[0].landmarks, [Point::new(3.0, 4.0)]);
        let path = root.path().join("latin1.csv");
        fs::write(&path, b"file,a_x,a_y\nr\xF6ntgen.png,1,2\n").expect("a file in a fresh directory");
        let error = generic(root.path(), &path).expect_err("not UTF-8").to_string();
        assert!(error.ends_with("latin1.csv: text: it is not UTF-8; save the file as UTF-8"), "{error}");
    }
}
