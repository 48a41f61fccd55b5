//! A run's best weights to a bundle: network, golden film, measured figures and a card that says all of it.

use std::fs;
use std::path::Path;

use super::atlas::{Atlas, AtlasError, atlas};
use super::batch::Weights;
use super::calibration::{Calibration, Case, Coverage, calibrate, coverage, within_radius95};
use super::card::card;
use super::cobb::{Angles, mean_differences_deg};
use super::datasets::LabelledFilm;
use super::evaluate::{EvaluateError, TestedFilm, evaluate};
use super::export::{ExportError, Storage, export_nfdp};
use super::metrics::{Summary, summarise};
use super::preset::TrainConfig;
use super::reference::Protocol;
use crate::geometry::{LengthUnit, Point};
use crate::inference::tensorrt::{TensorRtError, mixed_precision};
use crate::inference::{InferenceError, Localizer, TractDetector};
use crate::measure::MeasureSet;
use crate::model::{Bundle, BundleError, BundleParts, GoldenFilm, Manifest, Metrics, Network, Preprocessing};
use crate::model::{SuccessRate, Training};
use crate::radiograph::{Format, Limits, Radiograph, decode};

/// Height of the golden film: about a quarter of a source film's.
const GOLDEN_HEIGHT: u32 = 600;

/// What a bundle is made from.
#[derive(Debug)]
pub struct Publication<'a> {
    /// The bundle's name, that of its directory.
    pub name: &'a str,
    /// `major.minor.patch` of the bundle.
    pub version: &'a str,
    /// The averaged weights of the chosen epoch.
    pub weights: &'a Weights,
    /// What the run was told.
    pub config: &'a TrainConfig,
    /// Names of the landmarks, in the network's order.
    pub landmarks: &'a [String],
    /// What the films show, in the plural.
    pub anatomy: &'a str,
    /// Terms of the weights.
    pub licence: &'a str,
    /// What it learnt from, and how.
    pub training: Training,
    /// The films that the golden film is the mean of.
    pub atlas_films: &'a [LabelledFilm],
    /// The films that sigma's unit is set by: those the epoch was chosen on.
    pub validation: &'a [LabelledFilm],
    /// What it is measured on.
    pub tests: &'a [TestSet],
}

/// Films that a bundle is measured on.
#[derive(Debug)]
pub struct TestSet {
    /// What it is called.
    pub data: String,
    /// Whose landmarks count as true.
    pub truth: String,
    /// Of the errors.
    pub unit: LengthUnit,
    /// Distances at which detections are counted.
    pub thresholds: Vec<f64>,
    /// Its films.
    pub films: Vec<LabelledFilm>,
    /// Whether neither the epoch was chosen nor sigma's unit set by them.
    pub kept_apart: bool,
}

/// A test set as it was found.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) test: Metrics,
    pub(super) coverage: Coverage,
    /// Of each landmark: its errors on the films where it is visible.
    pub(super) by_landmark: Vec<Vec<f64>>,
    pub(super) mean_differences_deg: Option<[f64; 3]>,
    /// Of each landmark: the share within its 95 % radius.
    pub(super) within_radius95: Vec<f64>,
    pub(super) kept_apart: bool,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The weights are not those of this network.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The golden film could not be made.
    #[error(transparent)]
    Atlas(#[from] AtlasError),
    /// Sigma and its radii need films that were not learnt.
    #[error(
        "the run validated on fewer than two films; train with --hold-out-every above 0 to say how uncertain it is"
    )]
    NoValidation,
    /// The exported network does not run.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The network has no form for TensorRT.
    #[error(transparent)]
    TensorRt(#[from] TensorRtError),
    /// A test film failed.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Exports, measures and writes a bundle.
///
/// # Errors
/// See [`PublishError`]; an older bundle in `directory` stays whole then.
pub fn publish(directory: &Path, publication: &Publication<'_>) -> Result<Bundle, PublishError> {
    let Publication { name, version, weights, config, landmarks, licence, training, atlas_films, .. } = publication;
    let network = export_nfdp(weights, config.frame.size(), config.architecture(landmarks.len()), Storage::default())?;
    // A network that has no form for the GPU is noticed here, and not on the device.
    mixed_precision(&network)?;
    let detector = TractDetector::new(&network, config.frame, landmarks.len())?;
    let mut localizer = Localizer::with_detector(Box::new(detector), landmarks.to_vec());

    let whole: Vec<&LabelledFilm> = atlas_films.iter().filter(|film| film.visible.iter().all(|&v| v)).collect();
    let golden = golden_film(&whole)?;
    let Atlas { size, ref pixels, landmarks: ref true_px } = golden;
    let gray = pixels.iter().map(|&v| u16::from(v) * 257).collect();
    let found = localizer.localize(&Radiograph::gray(Format::Png, size, gray))?.landmarks;

    let tested = evaluate(&mut localizer, publication.validation, |_| {})?;
    let calibration = calibrate(&cases(&tested)).ok_or(PublishError::NoValidation)?;
    let (scales, conformal) = (&calibration.sigma_scale, calibration.conformal);
    tracing::info!("sigma counts {scales:.4?} times; radii at {conformal:?}");
    let measured = publication
        .tests
        .iter()
        .map(|test| measure(&mut localizer, test, &calibration))
        .collect::<Result<Vec<_>, _>>()?;
    let manifest = Manifest {
        format: 1,
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        minimum_daemon: env!("CARGO_PKG_VERSION").to_owned(),
        network: Network {
            file: "network.onnx".to_owned(),
            sha256: String::new(),
            frame: config.frame,
            heatmap_stride: 4,
            sigma_scale: calibration.sigma_scale.clone(),
            conformal,
            preprocessing: Preprocessing::NfdpGray8,
        },
        measures: MeasureSet::ALL.into_iter().filter(|set| set.landmarks() == *landmarks).collect(),
        landmarks: landmarks.to_vec(),
        golden: GoldenFilm {
            file: "golden.png".to_owned(),
            sha256: String::new(),
            size,
            expected_px: found.iter().map(|landmark| landmark.point).collect(),
            true_px: true_px.clone(),
            origin: format!(
                "landmark-aligned mean of {} training films (Procrustes mean shape, thin-plate spline); shows no person",
                whole.len()
            ),
        },
        training: training.clone(),
        metrics: measured.iter().map(|measured| measured.test.clone()).collect(),
        licence: (*licence).to_owned(),
        notice: "Research use. Not a medical device; not for diagnosis or treatment.".to_owned(),
    };
    let card = card(&manifest, &measured, publication);
    Ok(Bundle::write(directory, BundleParts { manifest, network, golden: golden.png(), card })?)
}

fn golden_film(films: &[&LabelledFilm]) -> Result<Atlas, PublishError> {
    let shapes: Vec<Vec<Point>> = films.iter().map(|film| film.landmarks.clone()).collect();
    let named = |(i, film): (usize, &&LabelledFilm)| {
        let size = load(film).map(|radiograph| radiograph.size);
        size.map_err(|source| PublishError::Atlas(AtlasError::Film { film: i, source }))
    };
    let sizes = films.iter().enumerate().map(named).collect::<Result<Vec<_>, _>>()?;
    Ok(atlas(&sizes, &shapes, GOLDEN_HEIGHT, |i| load(films[i]))?)
}

fn measure(localizer: &mut Localizer, test: &TestSet, calibration: &Calibration) -> Result<Measured, EvaluateError> {
    let TestSet { data, truth, unit, thresholds, films, kept_apart } = test;
    let tested = evaluate(localizer, films, |_| {})?;
    let errors: Vec<Vec<Option<f64>>> = tested.iter().map(|film| film.errors(Protocol::Exact, *unit)).collect();
    let angles: Vec<Angles> = tested.iter().filter_map(TestedFilm::angles).collect();
    let summary = summarise(&errors, *unit, thresholds, &angles);
    tracing::info!("{data} against {truth}: {summary}");
    let landmarks = errors.first().map_or(0, Vec::len);
    let cases = cases(&tested);
    Ok(Measured {
        test: metrics(data, truth, &summary),
        coverage: coverage(&cases, calibration),
        within_radius95: within_radius95(&cases, calibration),
        kept_apart: *kept_apart,
        by_landmark: (0..landmarks).map(|k| errors.iter().filter_map(|film| film[k]).collect()).collect(),
        mean_differences_deg: mean_differences_deg(&angles),
    })
}

fn cases(films: &[TestedFilm]) -> Vec<Vec<Option<Case>>> {
    films.iter().map(TestedFilm::cases).collect()
}

fn load(film: &LabelledFilm) -> Result<Radiograph, Box<dyn std::error::Error + Send + Sync>> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", film.path.display());
    let bytes = fs::read(&film.path).map_err(|why| named(&why))?;
    Ok(decode(&bytes, &Limits::default()).map_err(|why| named(&why))?)
}

fn metrics(test: &str, truth: &str, summary: &Summary) -> Metrics {
    let sdr = summary.sdr_percent.iter().map(|&(within, percent)| SuccessRate { within, percent: round(percent) });
    Metrics {
        data: test.to_owned(),
        truth: truth.to_owned(),
        films: u32::try_from(summary.films).unwrap_or(u32::MAX),
        unit: summary.unit,
        mre: round(summary.mre),
        sd: round(summary.sd),
        sdr: sdr.collect(),
        smape_percent: summary.smape_percent.map(round),
    }
}

/// Three decimals: what the measurement carries.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
