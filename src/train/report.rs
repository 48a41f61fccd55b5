//! An evaluation as files: `evaluation.json` for programs, `errors.csv` for spreadsheets, a table for people.
//!
//! Errors and figures are kept to a millionth of their unit: what is read is what was written, and every figure
//! follows from the errors beside it. That is checked on reading.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cobb::{Angles, smape_percent};
use super::reference::Protocol;
use super::statistics::{STEPS_PER_UNIT, deviation, mean, median, percent_within, rounded};
use crate::geometry::LengthUnit;

/// The format of `evaluation.json` that this build reads and writes.
pub const EVALUATION_FORMAT: u32 = 2;
/// The file for programs.
pub const EVALUATION_FILE: &str = "evaluation.json";
/// The file for spreadsheets.
pub const ERRORS_FILE: &str = "errors.csv";

/// What was measured, on what, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The bundle's name and version, or the run's name.
    pub model: String,
    /// SHA-256 of the network's or the weights' file, hexadecimal.
    pub sha256: String,
    /// How errors were counted.
    pub protocol: Protocol,
    /// The test set ("ISBI 2015 Test1").
    pub data: String,
    /// Whose landmarks count as true ("mean of senior and junior").
    pub truth: String,
    /// Of every error and distance.
    pub unit: LengthUnit,
}

/// The share of landmarks found within a distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectionRate {
    /// The distance, in the evaluation's unit.
    pub within: f64,
    /// 0 to 100.
    pub percent: f64,
}

/// The errors of one landmark over all films, summed up; in the evaluation's unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandmarkErrors {
    /// Its name.
    pub landmark: String,
    /// Mean radial error.
    pub mre: f64,
    /// Median radial error.
    pub median: f64,
    /// Standard deviation of the radial error.
    pub sd: f64,
    /// Share of films with an error within the first distance of [`Evaluation::sdr`], 0 to 100.
    pub sdr_percent: f64,
}

/// The errors on one film.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilmErrors {
    /// The film's name in the data set.
    pub film: String,
    /// Radial errors in the order of the landmarks, in the evaluation's unit; none where the truth is not known.
    pub errors: Vec<Option<f64>>,
    /// Where the landmarks are those of a spine: its angles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub angles: Option<Angles>,
}

/// A model's errors on a test set: `evaluation.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// The file's own format: 2.
    pub format: u32,
    /// What was measured, on what, and how.
    pub setting: Setting,
    /// Number of films.
    pub films: usize,
    /// Mean radial error over films and landmarks.
    pub mre: f64,
    /// Standard deviation of the radial error over films and landmarks.
    pub sd: f64,
    /// Detection rates over films and landmarks; the first distance is the one that runs are compared by.
    pub sdr: Vec<DetectionRate>,
    /// Symmetric mean absolute percentage error of the films' angles, where they have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smape_percent: Option<f64>,
    /// In the network's order of landmarks.
    pub per_landmark: Vec<LandmarkErrors>,
    /// In the data set's order of films.
    pub per_film: Vec<FilmErrors>,
}

/// What every format of `evaluation.json` has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// Why an evaluation could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not an evaluation.
    #[error("{path}: {reason}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A field says what it cannot.
    #[error("{field} is {found}, expected {expected}")]
    Field {
        /// Its path (`per_film[3].errors`).
        field: String,
        /// What it says.
        found: String,
        /// What it may say.
        expected: String,
    },
}

impl Evaluation {
    /// Sums up the errors of each film, whose errors are in the order of `landmarks`.
    ///
    /// # Errors
    /// With the first field that cannot be right: no film or landmark, a name twice, a count that does not match, an
    /// error or threshold that is no distance.
    pub fn new(
        setting: Setting,
        landmarks: &[String],
        mut per_film: Vec<FilmErrors>,
        thresholds: &[f64],
    ) -> Result<Self, ReportError> {
        check_input(&setting, landmarks, &per_film, thresholds)?;
        per_film
            .iter_mut()
            .flat_map(|film| film.errors.iter_mut().flatten())
            .for_each(|error| *error = rounded(*error));
        let protocol = setting.protocol;
        let first = thresholds[0];
        let all: Vec<f64> = per_film.iter().flat_map(|film| film.errors.iter().copied().flatten()).collect();
        let angles: Vec<Angles> = per_film.iter().filter_map(|film| film.angles).collect();
        let per_landmark = |(k, name): (usize, &String)| {
            let errors: Vec<f64> = per_film.iter().filter_map(|film| film.errors[k]).collect();
            LandmarkErrors {
                landmark: name.clone(),
                mre: rounded(mean(&errors)),
                median: rounded(median(&errors)),
                sd: rounded(deviation(&errors)),
                sdr_percent: rounded(percent_within(&errors, first, protocol)),
            }
        };
        let rate = |&within: &f64| DetectionRate { within, percent: rounded(percent_within(&all, within, protocol)) };
        Ok(Self {
            format: EVALUATION_FORMAT,
            setting,
            films: per_film.len(),
            mre: rounded(mean(&all)),
            sd: rounded(deviation(&all)),
            sdr: thresholds.iter().map(rate).collect(),
            smape_percent: smape_percent(&angles).map(rounded),
            per_landmark: landmarks.iter().enumerate().map(per_landmark).collect(),
            per_film,
        })
    }

    /// Reads an `evaluation.json` and checks that its figures follow from its errors.
    ///
    /// # Errors
    /// When the file cannot be read, has an unknown field or format, or a figure that its errors do not give.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let text = fs::read_to_string(path).map_err(|source| ReportError::Io { path: path.to_owned(), source })?;
        let format = |reason: String| ReportError::Format { path: path.to_owned(), reason };
        // First, so that another format is called by its name and not by the first field that is new.
        let Version { format: found } = serde_json::from_str(&text).map_err(|e| format(e.to_string()))?;
        if found != EVALUATION_FORMAT {
            return Err(format(field("format", found, EVALUATION_FORMAT).to_string()));
        }
        let read: Self = serde_json::from_str(&text).map_err(|e| format(e.to_string()))?;
        read.check().map_err(|e| format(e.to_string()))?;
        Ok(read)
    }

    /// Writes `evaluation.json` and `errors.csv` into `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// When the folder or disk refuses; an older file of the same name is then whole.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        fs::create_dir_all(folder).map_err(|source| ReportError::Io { path: folder.to_owned(), source })?;
        let path = folder.join(EVALUATION_FILE);
        let mut json = serde_json::to_string_pretty(self)
            .map_err(|e| ReportError::Format { path: path.clone(), reason: e.to_string() })?;
        json.push('\n');
        replace_file(&path, &json)?;
        replace_file(&folder.join(ERRORS_FILE), &self.csv())
    }

    /// The errors of all films.
    #[must_use]
    pub fn errors(&self) -> Vec<f64> {
        self.per_film.iter().flat_map(|film| film.errors.iter().copied().flatten()).collect()
    }

    /// The errors of each landmark on the films where it is visible.
    #[must_use]
    pub fn errors_by_landmark(&self) -> Vec<Vec<f64>> {
        let of = |k: usize| self.per_film.iter().filter_map(|film| film.errors[k]).collect();
        (0..self.per_landmark.len()).map(of).collect()
    }

    /// The angles of each film that has some.
    #[must_use]
    pub fn angles(&self) -> Vec<Angles> {
        self.per_film.iter().filter_map(|film| film.angles).collect()
    }

    /// The landmarks' names in the network's order.
    #[must_use]
    pub fn landmarks(&self) -> Vec<&str> {
        self.per_landmark.iter().map(|landmark| landmark.landmark.as_str()).collect()
    }

    fn check(&self) -> Result<(), ReportError> {
        if self.format != EVALUATION_FORMAT {
            return Err(field("format", self.format, EVALUATION_FORMAT));
        }
        let landmarks: Vec<String> = self.landmarks().into_iter().map(str::to_owned).collect();
        let thresholds: Vec<f64> = self.sdr.iter().map(|rate| rate.within).collect();
        let again = Self::new(self.setting.clone(), &landmarks, self.per_film.clone(), &thresholds)?;
        for ((name, found), (_, expected)) in self.figures().into_iter().zip(again.figures()) {
            if (found - expected).abs() > 1.5 / STEPS_PER_UNIT {
                return Err(field(name, found, format!("{expected}, which its errors give")));
            }
        }
        Ok(())
    }

    /// Every figure that follows from the errors, with its path.
    fn figures(&self) -> Vec<(String, f64)> {
        let mut figures =
            vec![("films".to_owned(), self.films as f64), ("mre".to_owned(), self.mre), ("sd".to_owned(), self.sd)];
        figures.extend(self.smape_percent.map(|smape| ("smape_percent".to_owned(), smape)));
        figures.extend(self.sdr.iter().enumerate().map(|(i, rate)| (format!("sdr[{i}].percent"), rate.percent)));
        for (k, landmark) in self.per_landmark.iter().enumerate() {
            let LandmarkErrors { landmark: _, mre, median, sd, sdr_percent } = landmark;
            for (name, value) in [("mre", mre), ("median", median), ("sd", sd), ("sdr_percent", sdr_percent)] {
                figures.push((format!("per_landmark[{k}].{name}"), *value));
            }
        }
        figures
    }
}

/// Writes a text to a temporary file, synced, then renamed over `path`.
///
/// # Errors
/// When the folder or disk refuses; an older file at `path` is then untouched.
pub fn replace_file(path: &Path, text: &str) -> Result<(), ReportError> {
    let io = |source| ReportError::Io { path: path.to_owned(), source };
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&temporary, path).map_err(io)?;
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(io)?;
    }
    Ok(())
}

fn field(field: impl Into<String>, found: impl fmt::Display, expected: impl fmt::Display) -> ReportError {
    ReportError::Field { field: field.into(), found: found.to_string(), expected: expected.to_string() }
}

fn check_input(
    setting: &Setting,
    landmarks: &[String],
    per_film: &[FilmErrors],
    thresholds: &[f64],
) -> Result<(), ReportError> {
    let Setting { sha256, .. } = setting;
    if sha256.len() != 64 || !sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(field("setting.sha256", format!("`{sha256}`"), "64 hexadecimal digits"));
    }
    if landmarks.is_empty() || per_film.is_empty() {
        let list = if landmarks.is_empty() { "per_landmark" } else { "per_film" };
        return Err(field(list, "empty", "at least one"));
    }
    if thresholds.is_empty() {
        return Err(field("sdr", "empty", "at least one distance"));
    }
    let is_distance = |v: f64| v.is_finite() && v >= 0.0;
    if let Some((i, t)) = thresholds.iter().enumerate().find(|(_, t)| !is_distance(**t)) {
        return Err(field(format!("sdr[{i}].within"), t, "a distance"));
    }
    let mut names = BTreeSet::new();
    if let Some((k, name)) = landmarks.iter().enumerate().find(|(_, name)| !names.insert(name.as_str())) {
        return Err(field(format!("per_landmark[{k}].landmark"), format!("`{name}` again"), "each landmark once"));
    }
    if let Some(k) =
        (0..landmarks.len()).find(|&k| !per_film.iter().any(|film| film.errors.get(k).is_some_and(Option::is_some)))
    {
        return Err(field(format!("per_landmark[{k}]"), "without an error", "a landmark that is visible on some film"));
    }
    let mut films = BTreeSet::new();
    for (i, FilmErrors { film, errors, .. }) in per_film.iter().enumerate() {
        if !films.insert(film.as_str()) {
            return Err(field(format!("per_film[{i}].film"), format!("`{film}` again"), "each film once"));
        }
        if errors.len() != landmarks.len() {
            let expected = format!("{}, one a landmark", landmarks.len());
            return Err(field(format!("per_film[{i}].errors (film `{film}`)"), errors.len(), expected));
        }
        if let Some((k, error)) =
            errors.iter().enumerate().find_map(|(k, e)| Some((k, e.filter(|e| !is_distance(*e))?)))
        {
            return Err(field(format!("per_film[{i}].errors[{k}] (film `{film}`)"), error, "a distance"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(protocol: Protocol) -> Setting {
        Setting {
            model: "ceph19-nfdp 1.0.0".into(),
            sha256: "0123456789abcdef".repeat(4),
            protocol,
            data: "ISBI 2015 Test1".into(),
            truth: "mean of senior and junior".into(),
            unit: LengthUnit::Mm,
        }
    }

    fn film(film: &str, errors: &[f64]) -> FilmErrors {
        FilmErrors { film: film.into(), errors: errors.iter().copied().map(Some).collect(), angles: None }
    }

    fn evaluation(protocol: Protocol) -> Evaluation {
        let landmarks = ["sella".to_owned(), "nasion".to_owned()];
        let films = vec![film("151", &[0.5, 2.0]), film("152", &[4.5, 0.0]), film("153", &[1.0, 1.0 / 3.0])];
        Evaluation::new(setting(protocol), &landmarks, films, &[2.0, 4.0]).expect("sound input")
    }

    #[test]
    fn a_hand_worked_example() {
        let exact = evaluation(Protocol::Exact);
        assert_eq!(exact.films, 3);
        // (0.5 + 2 + 4.5 + 0 + 1 + 1/3) / 6
        assert!((exact.mre - 25.0 / 18.0).abs() < 1e-6);
        let [sella, nasion] = exact.per_landmark.as_slice() else { panic!("two landmarks") };
        assert_eq!((sella.mre, sella.median, sella.sdr_percent), (2.0, 1.0, 66.666_667));
        assert_eq!(sella.sd, rounded((9.5f64 / 3.0).sqrt()));
        assert_eq!((nasion.median, nasion.sdr_percent), (0.333_333, 100.0));
        assert_eq!(exact.sdr[0], DetectionRate { within: 2.0, percent: 83.333_333 });
        // The error of exactly 2 mm on film 151 counts in one protocol only.
        assert_eq!(evaluation(Protocol::Reference).per_landmark[1].sdr_percent, 66.666_667);
    }

    #[test]
    fn an_evaluation_comes_back_as_it_was() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let folder = folder.path().join("new");
        let written = evaluation(Protocol::Reference);
        written.write(&folder).expect("a writable folder");
        assert_eq!(Evaluation::read(&folder.join(EVALUATION_FILE)).expect("what was just written"), written);
        assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 2, "no temporary file stays");
    }

    #[test]
    fn a_landmark_of_unknown_place_counts_nowhere() {
        let landmarks = ["sella".to_owned(), "nasion".to_owned()];
        let of = |film: &str, errors: [Option<f64>; 2]| FilmErrors {
            film: film.into(),
            errors: errors.into(),
            angles: None,
        };
        let films = vec![of("1", [Some(1.0), None]), of("2", [Some(3.0), Some(8.0)])];
        let evaluation = Evaluation::new(setting(Protocol::Exact), &landmarks, films, &[2.0]).expect("sound input");
        assert_eq!((evaluation.mre, evaluation.per_landmark[0].mre, evaluation.per_landmark[1].mre), (4.0, 2.0, 8.0));
        let never = vec![of("1", [Some(1.0), None])];
        let error = Evaluation::new(setting(Protocol::Exact), &landmarks, never, &[2.0]).expect_err("never visible");
        assert!(error.to_string().starts_with("per_landmark[1] is without an error"), "{error}");
    }

    #[test]
    fn angles_give_their_percentage_error() {
        let landmarks = ["a".to_owned()];
        let angles = Some(Angles { truth: [30.0, 20.0, 10.0], found: [33.0, 17.0, 10.0] });
        let films = vec![FilmErrors { film: "1".into(), errors: vec![Some(1.0)], angles }];
        let evaluation = Evaluation::new(setting(Protocol::Exact), &landmarks, films, &[2.0]).expect("sound input");
        assert_eq!(evaluation.smape_percent, Some(5.0));
        assert!(evaluation.table().contains("SMAPE 5.00 %"), "{}", evaluation.table());
    }

    #[test]
    fn a_file_that_cannot_be_right_is_refused_by_field() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("e.json");
        let json = serde_json::to_string(&evaluation(Protocol::Exact)).expect("plain fields");
        for (from, to, words) in [
            (r#""format":2"#, r#""format":1"#, "format is 1, expected 2"),
            (r#""films":3"#, r#""films":4"#, "films is 4, expected 3, which its errors give"),
            (r#""median":1.0"#, r#""median":0.9"#, "per_landmark[0].median is 0.9"),
            (r#""film":"152""#, r#""film":"151""#, "per_film[1].film is `151` again"),
            ("[4.5,0.0]", "[4.5]", "per_film[1].errors (film `152`) is 1, expected 2, one a landmark"),
            ("[4.5,0.0]", "[4.5,-0.5]", "per_film[1].errors[1] (film `152`) is -0.5"),
            (r#""sd":"#, r#""note":0,"sd":"#, "unknown field `note`"),
        ] {
            assert!(json.contains(from), "{from} is not in {json}");
            fs::write(&path, json.replacen(from, to, 1)).expect("a writable folder");
            let error = Evaluation::read(&path).expect_err(words).to_string();
            assert!(error.contains(words) && error.contains("e.json"), "{error}");
        }
        // Whatever fields another format has.
        fs::write(&path, r#"{"format":1,"sdr2_percent":86.59}"#).expect("a writable folder");
        let error = Evaluation::read(&path).expect_err("an older file").to_string();
        assert!(error.contains("format is 1, expected 2"), "{error}");
    }
}
