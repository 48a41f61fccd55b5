//! Does the exported network find what the trained one finds, film by film?

use std::fs;

use super::batch::{Batch, FilmPrediction};
use super::datasets::{DatasetError, LabelledFilm};
use super::run::RunError;
use crate::geometry::{Point, Size};
use crate::inference::{Detector, InferenceError};
use crate::network::Engine;
use crate::radiograph::{Limits, decode, network_input};

/// Distances between the two networks' landmarks, in pixels of the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Over all landmarks of all films.
    pub mean_px: f64,
    /// The largest.
    pub max_px: f64,
}

/// Why the comparison stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError {
    /// The engine failed, or a film could not be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The exported network failed.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

/// Shows every film to both and compares.
///
/// # Errors
/// With the first film that cannot be read or localized.
pub fn agree(
    engine: &mut Engine,
    detector: &mut dyn Detector,
    films: &[LabelledFilm],
) -> Result<Agreement, AgreeError> {
    let frame = detector.frame();
    let mut distances = Vec::new();
    for LabelledFilm { path, .. } in films {
        let bytes =
            fs::read(path).map_err(|source| RunError::Dataset(DatasetError::Io { path: path.clone(), source }))?;
        let radiograph = decode(&bytes, &Limits::default())
            .map_err(|e| RunError::Dataset(DatasetError::Film { path: path.clone(), reason: e.to_string() }))?;
        let input = network_input(&radiograph, frame);
        let exported = detector.detect(&input)?;
        let batch = Batch { frame: frame.size(), pixels: input.pixels, targets: Vec::new(), visible: Vec::new() };
        for prediction in engine.predict(&batch).map_err(RunError::Engine)? {
            let trained = frame_points(&prediction, frame.size());
            distances.extend(trained.iter().zip(&exported).map(|(a, b)| a.distance(b.point)));
        }
    }
    let mean_px = distances.iter().sum::<f64>() / distances.len().max(1) as f64;
    Ok(Agreement { mean_px, max_px: distances.into_iter().fold(0.0, f64::max) })
}

fn frame_points(prediction: &FilmPrediction, frame: Size) -> Vec<Point> {
    let [w, h] = [frame.width, frame.height].map(f64::from);
    prediction.mu.iter().map(|&[x, y]| Point::new((f64::from(x) + 0.5) * w, (f64::from(y) + 0.5) * h)).collect()
}
