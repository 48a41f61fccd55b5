//! A bundle on a test set, through the very code that serves in the clinic.

use std::fs;

use super::datasets::{DatasetError, LabelledFilm};
use super::metrics::radial_errors_mm;
use crate::geometry::Point;
use crate::inference::{InferenceError, Localizer};
use crate::landmark::Landmark;
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

/// What sigma must be multiplied with so that 68.27 % of the errors on x and y of `films` lie within it.
///
/// The unit of NFDP's sigma is open: the residual's density is the flow's, stretched by sigma, and the flow may be as
/// narrow as it likes. `localizer` must not scale sigma itself.
///
/// # Errors
/// With the first film that cannot be read or localized.
pub fn sigma_scale(localizer: &mut Localizer, films: &[LabelledFilm]) -> Result<f64, EvaluateError> {
    let mut ratios = Vec::new();
    for film in films {
        for (landmark, truth) in localize(localizer, film)?.iter().zip(&film.landmarks) {
            let error = [landmark.point.x - truth.x, landmark.point.y - truth.y];
            ratios.extend(std::iter::zip(error, landmark.sigma_px).map(|(e, sigma)| e.abs() / sigma));
        }
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios.get(ratios.len() * 6827 / 10_000).copied().unwrap_or(1.0))
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
    for film in films {
        let found: Vec<Point> = localize(localizer, film)?.iter().map(|landmark| landmark.point).collect();
        errors.push(radial_errors_mm(&found, &film.landmarks, mm_per_px));
        done(errors.len());
    }
    Ok(errors)
}

fn localize(localizer: &mut Localizer, film: &LabelledFilm) -> Result<Vec<Landmark>, EvaluateError> {
    let LabelledFilm { name, path, .. } = film;
    let bytes = fs::read(path).map_err(|source| DatasetError::Io { path: path.clone(), source })?;
    let radiograph = decode(&bytes, &Limits::default())
        .map_err(|e| DatasetError::Film { path: path.clone(), reason: e.to_string() })?;
    let found =
        localizer.localize(&radiograph).map_err(|source| EvaluateError::Inference { film: name.clone(), source })?;
    Ok(found.landmarks)
}
