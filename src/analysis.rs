//! The bytes of a film to its result: decode, localize, report, in one call and without side effects.

use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::disposition::Disposition;
use crate::geometry::{PixelSpacing, Point, Size};
use crate::inference::{InferenceError, Localization, Localizer, SELF_TEST_TOLERANCE_PX, tensorrt};
use crate::landmark::Landmark;
use crate::measure::{Classed, Measure, MeasureSet, Norms};
use crate::model::Bundle;
use crate::radiograph::{DecodeError, Limits, NetworkInput, Radiograph, decode};
use crate::report::{
    DicomTokens, FilmResult, ImageInfo, LandmarkResult, MeasureResult, ModelInfo, NormResult, Stage, Timing, TokenKey,
};

/// How films are analysed.
#[derive(Clone, Debug)]
pub struct AnalystOptions {
    /// Images of more pixels are refused before they are decoded.
    pub max_pixels: u64,
    /// The scale of films whose file states none.
    pub pixel_spacing: Option<PixelSpacing>,
    /// What clinical measures are classed by.
    pub norms: Norms,
    /// The site's key for tokens of DICOM identifiers.
    pub token_key: TokenKey,
}

/// A bundle's network in hand: takes films to results, one after another.
pub struct Analyst {
    localizer: Localizer,
    measures: Vec<MeasureSet>,
    model: ModelInfo,
    limits: Limits,
    pixel_spacing: Option<PixelSpacing>,
    norms: Norms,
    token_key: TokenKey,
}

/// What was found on a film, and what it was found on.
#[derive(Debug)]
pub struct Analysis {
    /// What is published.
    pub result: FilmResult,
    /// The film.
    pub radiograph: Radiograph,
    /// In source pixels.
    pub landmarks: Vec<Landmark>,
    /// What the network saw.
    pub input: NetworkInput,
}

/// A film of which it is known where the landmarks are: the bundle's own, kept to try the live path with.
#[derive(Clone, Debug)]
pub struct Golden {
    film: Vec<u8>,
    size: Size,
    expected_px: Vec<Point>,
}

impl Golden {
    /// The film in `film`, an image of `size`, with its landmarks in pixels of it and in the network's order.
    #[must_use]
    pub const fn new(film: Vec<u8>, size: Size, expected_px: Vec<Point>) -> Self {
        Self { film, size, expected_px }
    }

    /// What a network finds on it, in its pixels.
    ///
    /// # Errors
    /// When it cannot be decoded or the network fails on it.
    pub fn found(&self, localizer: &mut Localizer) -> Result<Vec<Point>, AnalysisError> {
        // What is configured for films of the folder does not concern it.
        let limits = Limits { max_pixels: self.size.area(), ..Limits::default() };
        let found = localizer.localize(&decode(&self.film, &limits)?)?.landmarks;
        Ok(found.iter().map(|landmark| landmark.point).collect())
    }

    /// How far a landmark lies at most from where it is to be found, in pixels of the film.
    #[must_use]
    pub fn off_px(&self, found: &[Point]) -> f64 {
        found.iter().zip(&self.expected_px).map(|(found, expected)| found.distance(*expected)).fold(0.0, f64::max)
    }

    /// That of a bundle.
    #[must_use]
    pub fn of(bundle: &Bundle) -> Self {
        let golden = &bundle.manifest().golden;
        Self::new(bundle.golden().to_vec(), golden.size, golden.expected_px.clone())
    }
}

/// Why a film has no result.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// Its bytes are no film we can read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The network failed on it.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

impl AnalysisError {
    /// The step that failed.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Decode(_) => Stage::Decode,
            Self::Inference(_) => Stage::Inference,
        }
    }

    /// What it asks the daemon to do.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Decode(error) => error.disposition(),
            Self::Inference(error) => error.disposition(),
        }
    }
}

impl Analyst {
    /// Prepares a bundle's network.
    ///
    /// # Errors
    /// When the runtime cannot use the network.
    pub fn new(bundle: &Bundle, options: AnalystOptions) -> Result<Self, InferenceError> {
        Ok(Self::with_localizer(Localizer::new(bundle)?, bundle, options))
    }

    /// As [`new`](Self::new), over another localizer than the bundle's own.
    #[must_use]
    pub fn with_localizer(localizer: Localizer, bundle: &Bundle, options: AnalystOptions) -> Self {
        let AnalystOptions { max_pixels, pixel_spacing, norms, token_key } = options;
        let manifest = bundle.manifest();
        let model = ModelInfo {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            sha256: bundle.network_sha256().to_owned(),
            backend: localizer.backend().to_owned(),
        };
        let limits = Limits { max_pixels, ..Limits::default() };
        let measures = manifest.measures.clone();
        Self { localizer, measures, model, limits, pixel_spacing, norms, token_key }
    }

    /// Names of the landmarks that each film has, in order.
    #[must_use]
    pub fn landmark_names(&self) -> &[String] {
        self.localizer.names()
    }

    /// What serves.
    #[must_use]
    pub const fn model(&self) -> &ModelInfo {
        &self.model
    }

    /// How far a landmark of the bundle's golden film lies at most from where the bundle expects it, in its pixels.
    ///
    /// # Errors
    /// When the golden film cannot be read or the network fails on it.
    pub fn self_test(&mut self, bundle: &Bundle) -> Result<f64, InferenceError> {
        self.localizer.self_test(bundle)
    }

    /// The same of a film in hand, on the way that every film takes from its bytes: decode, frame, network.
    ///
    /// # Errors
    /// When it cannot be decoded or the network fails on it.
    pub fn try_golden(&mut self, golden: &Golden) -> Result<f64, AnalysisError> {
        Ok(golden.off_px(&golden.found(&mut self.localizer)?))
    }

    /// What it finds on it.
    ///
    /// # Errors
    /// As [`try_golden`](Self::try_golden).
    pub fn find_golden(&mut self, golden: &Golden) -> Result<Vec<Point>, AnalysisError> {
        golden.found(&mut self.localizer)
    }

    /// How far off [`try_golden`](Self::try_golden) may be, in pixels, for what computed last: a GPU rounds more.
    #[must_use]
    pub fn tolerance_px(&self) -> f64 {
        let rounding = if self.localizer.backend() == tensorrt::BACKEND { tensorrt::MAX_PX } else { 0.0 };
        SELF_TEST_TOLERANCE_PX + rounding
    }

    /// Gives up the GPU, for this reason; whether it was in use.
    pub fn fall_back(&mut self, why: &str) -> bool {
        self.localizer.fall_back(why)
    }

    /// Localizes the landmarks of the film in `bytes`.
    ///
    /// # Errors
    /// When the bytes are no film within the limits, or the network fails.
    pub fn analyse(&mut self, bytes: &[u8]) -> Result<Analysis, AnalysisError> {
        let started = Instant::now();
        let mut radiograph = decode(bytes, &self.limits)?;
        let decode_ms = started.elapsed().as_secs_f64() * 1e3;
        radiograph.spacing = radiograph.spacing.or(self.pixel_spacing);
        let Localization { landmarks, input, frame_time, inference_time } = self.localizer.localize(&radiograph)?;
        let timing = Timing {
            decode_ms,
            frame_ms: frame_time.as_secs_f64() * 1e3,
            inference_ms: inference_time.as_secs_f64() * 1e3,
        };
        let result = FilmResult {
            image: self.image(bytes, &radiograph),
            landmarks: landmarks.iter().map(|landmark| landmark_result(landmark, radiograph.spacing)).collect(),
            measures: self.measure(&landmarks, &radiograph),
            model: ModelInfo { backend: self.localizer.backend().to_owned(), ..self.model.clone() },
            timing,
        };
        Ok(Analysis { result, radiograph, landmarks, input })
    }

    fn measure(&self, landmarks: &[Landmark], radiograph: &Radiograph) -> Vec<MeasureResult> {
        let points: Vec<_> = landmarks.iter().map(|landmark| landmark.point).collect();
        let of = |set: &MeasureSet| set.of(&points, radiograph.size, radiograph.spacing);
        self.measures.iter().flat_map(of).map(|measure| measure_result(&measure, &self.norms)).collect()
    }

    fn image(&self, bytes: &[u8], radiograph: &Radiograph) -> ImageInfo {
        let token = |uid: &Option<String>| uid.as_ref().map(|uid| self.token_key.token(uid));
        ImageInfo {
            sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            format: radiograph.format.to_string(),
            width_px: radiograph.size.width,
            height_px: radiograph.size.height,
            spacing: radiograph.spacing,
            dicom: radiograph.dicom.as_ref().map(|identity| DicomTokens {
                sop_instance: token(&identity.sop_instance_uid),
                series_instance: token(&identity.series_instance_uid),
                study_instance: token(&identity.study_instance_uid),
            }),
        }
    }
}

fn measure_result(measure: &Measure, norms: &Norms) -> MeasureResult {
    let classed = norms.classify(measure);
    MeasureResult {
        name: measure.name.to_owned(),
        unit: measure.unit,
        value: measure.value.ok(),
        absent: measure.value.err().map(|reason| reason.to_string()),
        class: classed.and_then(|classed| classed.class).map(str::to_owned),
        norm: classed.map(|Classed { source, range: [low, high], .. }| NormResult {
            source: source.to_owned(),
            low,
            high,
        }),
        vertebrae: measure.vertebrae,
    }
}

fn landmark_result(landmark: &Landmark, spacing: Option<PixelSpacing>) -> LandmarkResult {
    LandmarkResult {
        name: landmark.name.clone(),
        x_px: landmark.point.x,
        y_px: landmark.point.y,
        x_mm: spacing.map(|s| landmark.point.x * s.x_mm),
        y_mm: spacing.map(|s| landmark.point.y * s.y_mm),
        sigma_px: landmark.sigma_px,
        radius95_px: landmark.radius95_px,
        // Where pixels are not square, the disc's larger half axis.
        radius95_mm: landmark.radius95_px.zip(spacing).map(|(radius, s)| radius * s.x_mm.max(s.y_mm)),
        score: landmark.score,
    }
}
