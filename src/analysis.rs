//! Placeholder with the agreed signatures: film bytes to a result, in one call.

use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::geometry::{PixelSpacing, Point, Size};
use crate::landmark::{CEPHALOGRAM_NAMES, Landmark};
use crate::model::Bundle;
use crate::radiograph::{NetworkInput, Radiograph, network_input};
use crate::report::{FilmResult, ImageInfo, LandmarkResult, ModelInfo, Stage, Timing};

/// How films are analysed.
#[derive(Clone, Debug)]
pub struct AnalystOptions {
    /// Threads of one inference.
    pub threads: usize,
    /// Images of more pixels are refused.
    pub max_pixels: u64,
    /// The scale of films whose file states none.
    pub pixel_spacing: Option<PixelSpacing>,
    /// The key of the tokens of DICOM UIDs.
    pub token_key: [u8; 32],
}

/// Takes films to landmarks.
#[derive(Debug)]
pub struct Analyst {
    options: AnalystOptions,
}

/// What was found on a film.
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

/// Why a film has no result.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct AnalysisError {
    message: String,
}

impl AnalysisError {
    /// Where it happened.
    #[must_use]
    pub fn stage(&self) -> Stage {
        Stage::Decode
    }
}

impl Analyst {
    /// # Errors
    /// Never.
    pub fn new(_bundle: &Bundle, options: AnalystOptions) -> Result<Self, AnalysisError> {
        Ok(Self { options })
    }

    /// # Errors
    /// When the bytes are no image.
    pub fn analyse(&mut self, bytes: &[u8]) -> Result<Analysis, AnalysisError> {
        let start = Instant::now();
        let picture = image::load_from_memory(bytes).map_err(|e| AnalysisError { message: e.to_string() })?.to_luma16();
        let size = Size::new(picture.width(), picture.height());
        let radiograph = Radiograph { size, pixels: picture.into_raw(), spacing: self.options.pixel_spacing };
        let decode_ms = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        let input = network_input(&radiograph, Size::new(512, 512));
        let frame_ms = start.elapsed().as_secs_f64() * 1e3;
        let (w, h) = (f64::from(size.width), f64::from(size.height));
        let landmarks: Vec<_> = CEPHALOGRAM_NAMES
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let point = Point::new(w * (0.3 + 0.02 * i as f64), h * (0.3 + 0.02 * i as f64));
                Landmark { name: (*name).to_owned(), point, sigma_px: [w / 400.0, h / 300.0], score: 0.5 }
            })
            .collect();
        let results = landmarks.iter().map(|l| LandmarkResult {
            name: l.name.clone(),
            x_px: l.point.x,
            y_px: l.point.y,
            x_mm: radiograph.spacing.map(|s| s.x_mm * l.point.x),
            y_mm: radiograph.spacing.map(|s| s.y_mm * l.point.y),
            sigma_px: l.sigma_px,
            score: l.score,
        });
        let result = FilmResult {
            image: ImageInfo {
                sha256: Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect(),
                format: "image".to_owned(),
                width_px: size.width,
                height_px: size.height,
                spacing: radiograph.spacing,
                dicom: None,
            },
            landmarks: results.collect(),
            model: ModelInfo {
                name: "placeholder".to_owned(),
                version: "0".to_owned(),
                sha256: String::new(),
                backend: "none".to_owned(),
            },
            timing: Timing { decode_ms, frame_ms, inference_ms: 0.0 },
        };
        Ok(Analysis { result, radiograph, landmarks, input })
    }
}
