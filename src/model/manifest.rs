//! The manifest: what a bundle says about itself, and the checks that need no other file.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::geometry::{Frame, LengthUnit, Point, Size};
use crate::measure::MeasureSet;

/// The manifest format this build reads and writes.
pub(super) const FORMAT: u32 = 1;
/// Sides of the frame divide by the backbone's coarsest stride.
const FRAME_MULTIPLE: u32 = 32;
/// Largest enlargement of a frame's box: beyond it the film is a stamp in its frame.
const MAX_ENLARGEMENT: f64 = 4.0;
/// Largest side of a frame: beyond it one inference needs gigabytes.
const MAX_FRAME_SIDE: u32 = 2048;

/// `manifest.json` of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The manifest's own format: 1.
    pub format: u32,
    /// The bundle's name, that of its directory ("ceph19-nfdp").
    pub name: String,
    /// `major.minor.patch` of the bundle.
    pub version: String,
    /// The oldest daemon that can serve it, `major.minor.patch`.
    pub minimum_daemon: String,
    /// The network file and what it eats.
    pub network: Network,
    /// Landmark names in the network's order.
    pub landmarks: Vec<String>,
    /// What is measured on them and goes into every result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<MeasureSet>,
    /// The film that every installation is tested with.
    pub golden: GoldenFilm,
    /// What it was trained on and how.
    pub training: Training,
    /// What was measured, one entry a test set and truth.
    pub metrics: Vec<Metrics>,
    /// Terms of the weights ("CC-BY-NC-4.0", ..).
    pub licence: String,
    /// What must be said with every use ("research use, not a medical device").
    pub notice: String,
}

/// The network file and what it eats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name in the bundle's directory.
    pub file: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// The frame it was exported for.
    pub frame: Frame,
    /// Frame pixels per heatmap pixel.
    pub heatmap_stride: u32,
    /// What the network's sigma of each landmark is multiplied with: training leaves its unit open, since the flow scales
    /// it too. With it 68 % of the errors on x and y of the validation films lie within sigma, half by the landmark's own
    /// factor and half, in ratio, by that of all, since few films do not give 19 factors.
    pub sigma_scale: Vec<f64>,
    /// How far around a landmark the true one is to be expected.
    pub conformal: Conformal,
    /// How a film becomes its input.
    pub preprocessing: Preprocessing,
}

/// Radii of discs that held the true landmark on this share of the validation films (split conformal prediction, Vovk
/// et al. 2005), in units of the root mean square of the landmark's calibrated sigma on x and y.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conformal {
    /// For 90 %.
    pub radius90: f64,
    /// For 95 %.
    pub radius95: f64,
}

/// How a film becomes the network's input; a closed set, so that no daemon guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preprocessing {
    /// The NFDP frame: centred, padded to the frame's aspect ratio, enlarged, bilinear, 0 outside the film;
    /// 8-bit gray, read as `v / 255 - 0.5`, one channel.
    #[serde(rename = "nfdp-gray8")]
    NfdpGray8,
}

/// A film made by the project, with what this network finds on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenFilm {
    /// Its name in the bundle's directory: a gray PNG.
    pub file: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Columns and rows.
    pub size: Size,
    /// Where the network placed the landmarks when the bundle was made, in pixels of the film.
    pub expected_px: Vec<Point>,
    /// Where they are, in pixels of the film.
    pub true_px: Vec<Point>,
    /// How the film was made, of what.
    pub origin: String,
}

/// What a network was trained on and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The data set and which part of it.
    pub data: String,
    /// Films trained on.
    pub films: u32,
    /// Every how many groups of films (a patient, a case) one was held out, to choose the epoch and set sigma's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_every: Option<usize>,
    /// Of the set that the run was given, those held out among them: films and groups, of own films landmarks too. What
    /// has another digest is another set, and nothing of it was learnt or held out by this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub films_sha256: Option<String>,
    /// Where the weights started ("He initialisation", ..).
    pub initialisation: String,
    /// Schedule, hardware and duration, in words.
    pub procedure: String,
}

/// Localization errors on one test set against one truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The test set.
    pub data: String,
    /// Whose landmarks were taken as true ("mean of both readers", ..).
    pub truth: String,
    /// Films in it.
    pub films: u32,
    /// Of every distance.
    pub unit: LengthUnit,
    /// Mean radial error.
    pub mre: f64,
    /// Standard deviation of the radial error.
    pub sd: f64,
    /// Success detection rates.
    pub sdr: Vec<SuccessRate>,
    /// Of a spine: symmetric mean absolute percentage error of its three angles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smape_percent: Option<f64>,
}

/// The share of landmarks found within a distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessRate {
    /// The distance.
    pub within: f64,
    /// 0 to 100.
    pub percent: f64,
}

/// A field that cannot be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its path ("network.frame").
    pub(super) field: String,
    /// What it says.
    pub(super) value: String,
    /// What it may say.
    pub(super) expected: String,
}

impl Manifest {
    /// Checks every field that can be checked without the files.
    pub(super) fn validate(&self, daemon: &str) -> Result<(), Fault> {
        let check = |field: &str, holds: bool, value: &dyn std::fmt::Display, expected: &str| {
            let (field, value, expected) = (field.to_owned(), value.to_string(), expected.to_owned());
            if holds { Ok(()) } else { Err(Fault { field, value, expected }) }
        };
        let landmarks = self.landmarks.len();
        let Network { file, sha256, frame, heatmap_stride, sigma_scale, conformal, preprocessing } = &self.network;
        let Preprocessing::NfdpGray8 = preprocessing;
        check("format", self.format == FORMAT, &self.format, "1, the format this daemon reads")?;
        check("name", is_plain_name(&self.name), &self.name, NAME_RULE)?;
        check("version", triple(&self.version).is_some(), &self.version, VERSION_RULE)?;
        check("minimum_daemon", triple(&self.minimum_daemon).is_some(), &self.minimum_daemon, VERSION_RULE)?;
        let new_enough = triple(daemon) >= triple(&self.minimum_daemon);
        check("minimum_daemon", new_enough, &self.minimum_daemon, &format!("at most this daemon's version, {daemon}"))?;
        check("network.file", is_plain_name(file), file, NAME_RULE)?;
        check("network.sha256", is_digest(sha256), sha256, DIGEST_RULE)?;
        let side = |v: u32| (FRAME_MULTIPLE..=MAX_FRAME_SIDE).contains(&v) && v.is_multiple_of(FRAME_MULTIPLE);
        let sides = format!("sides that are multiples of {FRAME_MULTIPLE} up to {MAX_FRAME_SIDE}");
        check("network.frame", side(frame.width) && side(frame.height), frame, &sides)?;
        let room = (1.0..=MAX_ENLARGEMENT).contains(&frame.enlargement);
        let rooms = format!("1 to {MAX_ENLARGEMENT}");
        check("network.frame.enlargement", room, &frame.enlargement, &rooms)?;
        check("network.heatmap_stride", *heatmap_stride == 4, heatmap_stride, "4")?;
        check("landmarks", landmarks > 0, &landmarks, "at least one name")?;
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let scales = format!("{} figures", sigma_scale.len());
        let one_each = format!("{landmarks} figures, one a landmark");
        check("network.sigma_scale", sigma_scale.len() == landmarks, &scales, &one_each)?;
        for (i, &scale) in sigma_scale.iter().enumerate() {
            check(&format!("network.sigma_scale[{i}]"), positive(scale), &scale, "a number above 0")?;
        }
        let Conformal { radius90, radius95 } = *conformal;
        check("network.conformal.radius90", positive(radius90), &radius90, "a number above 0")?;
        let ordered = radius95.is_finite() && radius95 >= radius90;
        check("network.conformal.radius95", ordered, &radius95, "a number not below radius90")?;
        let mut seen = BTreeSet::new();
        for (i, name) in self.landmarks.iter().enumerate() {
            check(&format!("landmarks[{i}]"), is_landmark_name(name), name, "lower-case letters, digits and `_`")?;
            check(&format!("landmarks[{i}]"), seen.insert(name), name, "a name that occurs once")?;
        }
        for (i, set) in self.measures.iter().enumerate() {
            let field = format!("measures[{i}]");
            let names = set.landmarks();
            check(&field, self.landmarks == names, set, &format!("a set over these landmarks; it needs {names:?}"))?;
            check(&field, !self.measures[..i].contains(set), set, "a set that occurs once")?;
        }
        if let Some(digest) = &self.training.films_sha256 {
            check("training.films_sha256", is_digest(digest), digest, DIGEST_RULE)?;
        }
        let golden = &self.golden;
        check("golden.file", is_plain_name(&golden.file) && golden.file != *file, &golden.file, NAME_RULE)?;
        check("golden.sha256", is_digest(&golden.sha256), &golden.sha256, DIGEST_RULE)?;
        for (field, points) in [("golden.expected_px", &golden.expected_px), ("golden.true_px", &golden.true_px)] {
            let points_value = format!("{} points", points.len());
            check(field, points.len() == landmarks, &points_value, &format!("{landmarks} points, one a landmark"))?;
            for (i, point) in points.iter().enumerate() {
                let at = format!("({}, {})", point.x, point.y);
                let on_film = format!("on the film of {}", golden.size);
                check(&format!("{field}[{i}]"), golden.size.contains(*point), &at, &on_film)?;
            }
        }
        Ok(())
    }
}

const NAME_RULE: &str = "letters, digits, `-`, `_` and `.`, not starting with `.`, each file its own";
const VERSION_RULE: &str = "major.minor.patch in digits";
const DIGEST_RULE: &str = "64 lower-case hexadecimal digits";

/// A file or bundle name that stays in its directory.
fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.bytes().all(plain)
}

fn is_landmark_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(plain)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn triple(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let triple = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(triple)
}

/// A manifest that is taken is taken again when it is written and read.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return };
    if manifest.validate(env!("CARGO_PKG_VERSION")).is_ok() {
        let written = serde_json::to_vec(&manifest).expect("it is plain data");
        let read: Manifest = serde_json::from_slice(&written).expect("what was taken reads back");
        assert!(read.validate(env!("CARGO_PKG_VERSION")).is_ok(), "{read:?}");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A manifest without fault, of two landmarks.
    pub(in crate::model) fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            name: "test-nfdp".to_owned(),
            version: "1.2.3".to_owned(),
            minimum_daemon: "0.1.0".to_owned(),
            network: Network {
                file: "network.onnx".to_owned(),
                sha256: "0".repeat(64),
                frame: Frame::new(96, 128),
                heatmap_stride: 4,
                sigma_scale: vec![0.25, 0.5],
                conformal: Conformal { radius90: 2.0, radius95: 3.0 },
                preprocessing: Preprocessing::NfdpGray8,
            },
            landmarks: vec!["sella".to_owned(), "nasion".to_owned()],
            measures: Vec::new(),
            golden: GoldenFilm {
                file: "golden.png".to_owned(),
                sha256: "1".repeat(64),
                size: Size::new(30, 40),
                expected_px: vec![Point::new(3.0, 4.0), Point::new(20.5, 39.0)],
                true_px: vec![Point::new(3.0, 4.5), Point::new(20.0, 39.0)],
                origin: "synthetic".to_owned(),
            },
            training: Training {
                data: "none".to_owned(),
                films: 0,
                hold_out_every: None,
                films_sha256: None,
                initialisation: "none".to_owned(),
                procedure: "none".to_owned(),
            },
            metrics: vec![],
            licence: "CC0-1.0".to_owned(),
            notice: "research use, not a medical device".to_owned(),
        }
    }

    #[test]
    fn a_sound_manifest_survives_json() {
        let json = serde_json::to_string(&manifest()).expect("plain data");
        let read: Manifest = serde_json::from_str(&json).expect("what was written");
        assert_eq!(read, manifest());
        assert_eq!(read.validate("0.1.0"), Ok(()));
    }

    #[test]
    fn a_set_of_measures_needs_its_landmarks_once() {
        let mut spine = manifest();
        spine.landmarks = MeasureSet::SpineAasce2019.landmarks();
        let points: Vec<Point> = (0..68).map(|i| Point::new(f64::from(i % 20), f64::from(i / 20))).collect();
        spine.network.sigma_scale = vec![1.0; 68];
        (spine.golden.expected_px, spine.golden.true_px) = (points.clone(), points);
        spine.measures = vec![MeasureSet::SpineAasce2019];
        let json = serde_json::to_value(&spine).expect("plain data");
        assert_eq!(json["measures"], serde_json::json!(["spine-aasce2019"]));
        assert_eq!(spine.validate("0.1.0"), Ok(()));
        spine.measures.push(MeasureSet::SpineAasce2019);
        assert_eq!(spine.validate("0.1.0").expect_err("twice").field, "measures[1]");
        spine.measures = vec![MeasureSet::CephalogramIsbi2015];
        assert_eq!(spine.validate("0.1.0").expect_err("of another film").value, "cephalogram-isbi2015");
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let json = serde_json::to_string(&manifest()).expect("plain data").replacen("{", "{\"colour\":1,", 1);
        let error = serde_json::from_str::<Manifest>(&json).expect_err("refused").to_string();
        assert!(error.contains("unknown field `colour`"), "{error}");
    }

    #[test]
    fn each_fault_names_its_field() {
        type Change = fn(&mut Manifest);
        let cases: &[(&str, Change)] = &[
            ("format", |m| m.format = 2),
            ("name", |m| m.name = "../up".to_owned()),
            ("version", |m| m.version = "1.2".to_owned()),
            ("minimum_daemon", |m| m.minimum_daemon = "0.2.0".to_owned()),
            ("network.file", |m| m.network.file = "/etc/passwd".to_owned()),
            ("network.sha256", |m| m.network.sha256 = "A".repeat(64)),
            ("network.frame", |m| m.network.frame = Frame::new(100, 128)),
            ("network.frame", |m| m.network.frame = Frame::new(0, 128)),
            ("network.frame.enlargement", |m| m.network.frame.enlargement = 0.9),
            ("network.frame.enlargement", |m| m.network.frame.enlargement = f64::NAN),
            ("network.heatmap_stride", |m| m.network.heatmap_stride = 8),
            ("network.sigma_scale", |m| m.network.sigma_scale.truncate(1)),
            ("network.sigma_scale[1]", |m| m.network.sigma_scale[1] = 0.0),
            ("network.conformal.radius90", |m| m.network.conformal.radius90 = f64::NAN),
            ("network.conformal.radius95", |m| m.network.conformal.radius95 = 1.5),
            ("landmarks", |m| m.landmarks.clear()),
            ("landmarks[1]", |m| m.landmarks[1] = "sella".to_owned()),
            ("landmarks[0]", |m| m.landmarks[0] = "Sella Turcica".to_owned()),
            ("measures[0]", |m| m.measures = vec![MeasureSet::CephalogramIsbi2015]),
            ("golden.file", |m| m.golden.file = "network.onnx".to_owned()),
            ("golden.expected_px", |m| m.golden.expected_px.truncate(1)),
            ("golden.expected_px[0]", |m| m.golden.expected_px[0].x = f64::NAN),
            ("golden.true_px[1]", |m| m.golden.true_px[1].y = 40.0),
        ];
        for (field, change) in cases {
            let mut manifest = manifest();
            change(&mut manifest);
            assert_eq!(manifest.validate("0.1.0").expect_err("refused").field, *field);
        }
    }
}
