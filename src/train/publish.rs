//! A run's best weights to a bundle: network, golden film, measured figures and a card that says all of it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::atlas::{Atlas, AtlasError, atlas};
use super::batch::Weights;
use super::calibration::{Case, Coverage, calibrate, coverage};
use super::datasets::{ISBI_MM_PER_PX, LabelledFilm};
use super::evaluate::{EvaluateError, TestedFilm, evaluate};
use super::export::{ExportError, ExportOptions, export_nfdp};
use super::metrics::{CEPHALOGRAM_THRESHOLDS_MM, Summary, summarise};
use super::preset::TrainConfig;
use super::reference::Protocol;
use crate::geometry::{Point, Size};
use crate::inference::{InferenceError, Localizer, TractDetector};
use crate::landmark::CEPHALOGRAM_NAMES;
use crate::measure::MeasureSet;
use crate::model::{Bundle, BundleError, BundleParts, GoldenFilm, Manifest, Metrics, Network, Preprocessing};
use crate::model::{SuccessRate, Training};
use crate::radiograph::{Format, Limits, Radiograph, decode};

/// Height of the golden film: about a quarter of a source film's.
const GOLDEN_HEIGHT: u32 = 600;
/// Landmark 16, soft-tissue pogonion: the readers themselves place it 9 mm apart.
const DISPUTED: usize = 15;

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
    /// What it learnt from, and how.
    pub training: Training,
    /// The films that the golden film is the mean of.
    pub atlas_films: &'a [LabelledFilm],
    /// The films that sigma's unit is set by: those the epoch was chosen on.
    pub validation: &'a [LabelledFilm],
    /// Test sets: name, whose truth, films.
    pub tests: &'a [(String, String, Vec<LabelledFilm>)],
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
    /// A test film failed.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Exports, measures and writes a bundle; the summaries are those of `tests`, in order.
///
/// # Errors
/// See [`PublishError`]; an older bundle in `directory` stays whole then.
pub fn publish(directory: &Path, publication: &Publication<'_>) -> Result<(Bundle, Vec<Summary>), PublishError> {
    let Publication { name, version, weights, config, training, atlas_films, validation, tests } = publication;
    let names: Vec<String> = CEPHALOGRAM_NAMES.iter().map(|&name| name.to_owned()).collect();
    let options = ExportOptions { heatmap_relu: config.heatmap_relu, ..ExportOptions::default() };
    let network = export_nfdp(weights, config.frame, names.len(), options)?;
    let detector = TractDetector::new(&network, config.frame, names.len())?;
    let mut localizer = Localizer::with_detector(Box::new(detector), names.clone());

    let shapes: Vec<Vec<Point>> = atlas_films.iter().map(|film| film.landmarks.clone()).collect();
    let golden = atlas(&shapes, GOLDEN_HEIGHT, |i| load(&atlas_films[i]))?;
    let Atlas { size, ref pixels, landmarks: ref true_px } = golden;
    let gray = pixels.iter().map(|&v| u16::from(v) * 257).collect();
    let found = localizer.localize(&Radiograph::gray(Format::Png, size, gray))?.landmarks;

    let calibration =
        calibrate(&cases(&evaluate(&mut localizer, validation, |_| {})?)).ok_or(PublishError::NoValidation)?;
    let (scales, conformal) = (&calibration.sigma_scale, calibration.conformal);
    tracing::info!("sigma counts {scales:.4?} times; radii at {conformal:?}");
    let mut summaries = Vec::new();
    let mut errors = Vec::new();
    let mut held = Vec::new();
    for (test, truth, films) in tests.iter() {
        let tested = evaluate(&mut localizer, films, |_| {})?;
        let measured: Vec<Vec<f64>> = tested.iter().map(|film| film.errors_mm(Protocol::Exact)).collect();
        held.push(coverage(&cases(&tested), &calibration));
        let summary = summarise(&measured, &CEPHALOGRAM_THRESHOLDS_MM);
        tracing::info!("{test} against {truth}: {summary}");
        summaries.push(summary);
        errors.push(measured);
    }
    let metrics = tests.iter().zip(&summaries).map(|((test, truth, _), summary)| metrics(test, truth, summary));
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
        measures: MeasureSet::ALL.into_iter().filter(|set| set.landmarks() == names).collect(),
        landmarks: names,
        golden: GoldenFilm {
            file: "golden.png".to_owned(),
            sha256: String::new(),
            size,
            expected_px: found.iter().map(|landmark| landmark.point).collect(),
            true_px: true_px.clone(),
            origin: format!(
                "landmark-aligned mean of {} training films (Procrustes mean shape, thin-plate spline); shows no person",
                atlas_films.len()
            ),
        },
        training: training.clone(),
        metrics: metrics.collect(),
        licence: "research use: trained on the ISBI 2015 cephalograms, whose terms allow research only".to_owned(),
        notice: "Research use. Not a medical device; not for diagnosis or treatment.".to_owned(),
    };
    let golden_mm = mean_distance(&manifest.golden.expected_px, true_px);
    let card = card(&manifest, &errors, &summaries, &held, config, golden_mm);
    let bundle = Bundle::write(directory, BundleParts { manifest, network, golden: golden.png(), card })?;
    Ok((bundle, summaries))
}

fn cases(films: &[TestedFilm]) -> Vec<Vec<Case>> {
    films.iter().map(TestedFilm::cases).collect()
}

fn load(film: &LabelledFilm) -> Result<Radiograph, Box<dyn std::error::Error + Send + Sync>> {
    Ok(decode(&fs::read(&film.path)?, &Limits::default())?)
}

fn metrics(test: &str, truth: &str, summary: &Summary) -> Metrics {
    let sdr =
        summary.sdr_percent.iter().map(|&(within_mm, percent)| SuccessRate { within_mm, percent: round(percent) });
    Metrics {
        data: test.to_owned(),
        truth: truth.to_owned(),
        films: u32::try_from(summary.films).unwrap_or(u32::MAX),
        mre_mm: round(summary.mre_mm),
        sd_mm: round(summary.sd_mm),
        sdr: sdr.collect(),
    }
}

/// Three decimals: what the measurement carries.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn mean_distance(a: &[Point], b: &[Point]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.distance(*b)).sum::<f64>() / a.len().max(1) as f64
}

/// The model card, Markdown.
fn card(
    manifest: &Manifest,
    errors: &[Vec<Vec<f64>>],
    summaries: &[Summary],
    held: &[Coverage],
    config: &TrainConfig,
    golden_px: f64,
) -> String {
    let Manifest { name, version, network, landmarks, golden, training, notice, licence, .. } = manifest;
    let Size { width, height } = network.frame;
    let mut text = format!(
        "# {name} {version}\n\n{notice}\n\nLocalizes {} landmarks on lateral cephalograms: the heatmap model of NFDP \
         (Huang et al., IEEE TMI 2024), ResNet-18, input {width}x{height}, one gray channel, weights stored as f16. \
         The normalizing flow it was trained with is not in it.\n\n## Training\n\n- Data: {}\n- Films: {}\n- Start: \
         {}\n- Procedure: {}\n- Licence of the weights: {licence}\n\n```toml\n{}```\n\n## Measured\n\nExact protocol: \
         sub-pixel, source pixels, {ISBI_MM_PER_PX} mm a pixel. The checkpoint was chosen on the validation films \
         alone.\n\n| test set | truth | films | MRE mm | SD mm |",
        landmarks.len(),
        training.data,
        training.films,
        training.initialisation,
        training.procedure,
        toml::to_string(config).unwrap_or_default(),
    );
    for threshold in CEPHALOGRAM_THRESHOLDS_MM {
        let _ = write!(text, " SDR {threshold} mm % |");
    }
    text.push_str("\n|---|---|---|---|---|---|---|---|---|\n");
    for metrics in &manifest.metrics {
        let Metrics { data, truth, films, mre_mm, sd_mm, sdr } = metrics;
        let _ = write!(text, "| {data} | {truth} | {films} | {mre_mm:.3} | {sd_mm:.3} |");
        for rate in sdr {
            let _ = write!(text, " {:.2} |", rate.percent);
        }
        text.push('\n');
    }
    if let (Some(errors), Some(summary), Some(metrics)) = (errors.first(), summaries.first(), manifest.metrics.first())
    {
        let without: Vec<Vec<f64>> = errors.iter().map(|film| skip(film, DISPUTED)).collect();
        let without = summarise(&without, &CEPHALOGRAM_THRESHOLDS_MM);
        let _ = write!(
            text,
            "\nWithout landmark {} ({}), which is a matter of convention: {without}.\n\nEach landmark on {} against \
             {}:\n\n| landmark | MRE mm |\n|---|---|\n",
            DISPUTED + 1,
            landmarks[DISPUTED],
            metrics.data,
            metrics.truth
        );
        for (landmark, mre) in landmarks.iter().zip(&summary.per_landmark_mre_mm) {
            let _ = writeln!(text, "| {landmark} | {mre:.2} |");
        }
    }
    let _ = write!(
        text,
        "\n## Uncertainty\n\nSigma is multiplied, landmark by landmark, so that 68.3 % of the errors on x and y of the \
         validation films lie within it; `radius95_px` is a split-conformal radius over all landmarks of these films. \
         Share of the test films within them:\n\n\
         | test set | truth | one sigma % | 90 % radius | 95 % radius |\n|---|---|---|---|---|\n"
    );
    for (metrics, Coverage { sigma, radius90, radius95 }) in manifest.metrics.iter().zip(held) {
        let [sigma, radius90, radius95] = [sigma, radius90, radius95].map(|share| 100.0 * share);
        let Metrics { data, truth, .. } = metrics;
        let _ = writeln!(text, "| {data} | {truth} | {sigma:.1} | {radius90:.1} | {radius95:.1} |");
    }
    let _ = write!(
        text,
        "\n## Golden film\n\n`{}` ({}): {}. On it this network lies {golden_px:.2} px from the true mean shape on \
         average; `manifest.json` holds both. Every start of the daemon compares against it.\n",
        golden.file, golden.size, golden.origin
    );
    text
}

fn skip(film: &[f64], landmark: usize) -> Vec<f64> {
    film.iter().enumerate().filter(|&(i, _)| i != landmark).map(|(_, &error)| error).collect()
}
