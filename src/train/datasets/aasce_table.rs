//! The AASCE labels as a table: the landmarks of a film in a line of `landmarks.csv`, its name in `filenames.csv`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::ImageReader;

use super::aasce::LANDMARKS;
use super::{DatasetError, LabelPlace};
use crate::geometry::Point;

/// `landmarks.csv`, a line a film in the order of `filenames.csv`.
pub(super) struct Table {
    names: PathBuf,
    values: PathBuf,
    /// Line and shares of width and height of each film; none where the line is broken.
    rows: BTreeMap<String, Option<(usize, Vec<f64>)>>,
}

impl Table {
    /// What can be used of it; nothing where it is not there.
    pub(super) fn read(labels: &Path, faults: &mut Vec<DatasetError>) -> Self {
        let [names, values] = ["filenames.csv", "landmarks.csv"].map(|file| labels.join(file));
        let mut rows = BTreeMap::new();
        if !names.exists() && !values.exists() {
            return Self { names, values, rows };
        }
        let (names_text, values_text) = (read(&names, faults), read(&values, faults));
        let mut lines = values_text.lines();
        for (i, name) in names_text.lines().enumerate() {
            let line = i + 1;
            let shares = match lines.next() {
                Some(found) => shares(found),
                None => Err(("a line for each of filenames.csv", "the end".to_owned())),
            };
            let wrong = |(expected, found)| DatasetError::Label { path: values.clone(), line, expected, found };
            let shares = shares.map_err(|fault| faults.push(wrong(fault))).ok();
            let name = name.trim().to_owned();
            if rows.contains_key(&name) {
                let (expected, found) = ("each film once", format!("{name} again"));
                faults.push(DatasetError::Label { path: names.clone(), line, expected, found });
            }
            rows.insert(name, shares.map(|shares| (line, shares)));
        }
        // One line too many somewhere may have moved all that follow to the wrong film.
        if lines.next().is_some() {
            let (expected, found) = ("the end, as in filenames.csv", "more lines".to_owned());
            faults.push(DatasetError::Label {
                path: values.clone(),
                line: names_text.lines().count() + 1,
                expected,
                found,
            });
        }
        Self { names, values, rows }
    }

    /// In pixels of the film at `path`, and where they stand; nothing where their line is broken.
    pub(super) fn points(
        &self,
        file: &str,
        path: &Path,
        mat: &Path,
    ) -> Result<Option<(Vec<Point>, LabelPlace)>, DatasetError> {
        if self.rows.is_empty() {
            return Err(DatasetError::Unlabelled { film: path.to_owned(), labels: mat.to_owned() });
        }
        let row = self.rows.get(file).ok_or_else(|| DatasetError::Entry {
            path: self.names.clone(),
            entry: format!("film `{file}`"),
            problem: "it has no labels".to_owned(),
            remedy: format!("add {}, or the film to filenames.csv and landmarks.csv, or remove it", mat.display()),
        })?;
        let Some((line, shares)) = row else { return Ok(None) };
        let size = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
        let size = size.map_err(|source| DatasetError::Io { path: path.to_owned(), source })?.into_dimensions();
        let (width, height) = size.map_err(|e| DatasetError::Film {
            path: path.to_owned(),
            reason: format!("{e}; its size is needed for line {line} of {}", self.values.display()),
        })?;
        let (x, y) = shares.split_at(LANDMARKS);
        let points = x.iter().zip(y).map(|(x, y)| Point::new(x * f64::from(width), y * f64::from(height))).collect();
        Ok(Some((points, LabelPlace::Entry { path: self.values.clone(), entry: format!("line {line}") })))
    }
}

/// The numbers of a line, or what was expected and what was found instead.
fn shares(line: &str) -> Result<Vec<f64>, (&'static str, String)> {
    let mut shares = Vec::with_capacity(2 * LANDMARKS);
    for cell in line.split(',') {
        let share = cell.trim().parse::<f64>().ok().filter(|share| share.is_finite());
        shares.push(share.ok_or_else(|| ("shares of the image's width and height", cell.to_owned()))?);
    }
    if shares.len() != 2 * LANDMARKS {
        return Err(("136 numbers: x of 68 landmarks, then y", format!("{} numbers", shares.len())));
    }
    Ok(shares)
}

/// A file's text; where it cannot be read that is a fault, and the text empty.
pub(super) fn read(path: &Path, faults: &mut Vec<DatasetError>) -> String {
    let text = fs::read_to_string(path);
    text.unwrap_or_else(|source| {
        faults.push(DatasetError::Io { path: path.to_owned(), source });
        String::new()
    })
}
