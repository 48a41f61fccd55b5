//! A bundle on a test set, through the very code that serves in the clinic.

use std::fs;

use super::datasets::{DatasetError, LabelledFilm};
use super::metrics::radial_errors_mm;
use crate::geometry::Point;
use crate::inference::{InferenceError, Localizer};
use crate::radiograph::{Limits, decode};

/// The scale of every film of the ISBI set.
pub const ISBI_MM_PER_PX: f64 = 0.1;

/// Why an evaluation stopped.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A film could not be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The network failed on a film.
    #[error("film {film}: {source}")]
    Inference {
        /// Which film.
        film: String,
        /// Why.
        source: InferenceError,
    },
}

/// The radial errors of every landmark of every film, in millimetres: the exact protocol (sub-pixel, source pixels).
///
/// `done` is called after each film with the number of films done.
///
/// # Errors
/// With the first film that cannot be read or localized.
pub fn evaluate(
    localizer: &mut Localizer,
    films: &[LabelledFilm],
    mm_per_px: f64,
    mut done: impl FnMut(usize),
) -> Result<Vec<Vec<f64>>, EvaluateError> {
    let mut errors = Vec::with_capacity(films.len());
    for LabelledFilm { name, path, landmarks } in films {
        let bytes = fs::read(path).map_err(|source| DatasetError::Io { path: path.clone(), source })?;
        let radiograph = decode(&bytes, &Limits::default())
            .map_err(|e| DatasetError::Film { path: path.clone(), reason: e.to_string() })?;
        let localization = localizer
            .localize(&radiograph)
            .map_err(|source| EvaluateError::Inference { film: name.clone(), source })?;
        let found: Vec<Point> = localization.landmarks.iter().map(|landmark| landmark.point).collect();
        errors.push(radial_errors_mm(&found, landmarks, mm_per_px));
        done(errors.len());
    }
    Ok(errors)
}
