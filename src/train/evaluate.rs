//! A bundle on a test set, through the very code that serves in the clinic.

use std::fs;

use super::calibration::Case;
use super::datasets::{DatasetError, ISBI_MM_PER_PX, LabelledFilm};
use super::metrics::radial_errors_mm;
use super::reference::{Protocol, REFERENCE_CEPH_MM_PER_PX, REFERENCE_FRAME, reference_errors};
use crate::geometry::{Point, Size, nfdp_frame};
use crate::inference::{InferenceError, Localizer};
use crate::landmark::Landmark;
use crate::radiograph::{Limits, decode};

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

/// A test film, what was found on it and what is true.
#[derive(Clone, Debug)]
pub struct TestedFilm {
    /// Its name in the data set.
    pub name: String,
    /// Of the source image.
    pub size: Size,
    /// In source pixels.
    pub found: Vec<Landmark>,
    /// In source pixels.
    pub truth: Vec<Point>,
}

impl TestedFilm {
    /// Every landmark's error and predicted sigma, in source pixels.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let case = |(landmark, truth): (&Landmark, &Point)| Case {
            error: [landmark.point.x - truth.x, landmark.point.y - truth.y],
            sigma: landmark.sigma_px,
        };
        self.found.iter().zip(&self.truth).map(case).collect()
    }

    /// The radial error of every landmark of a film of the ISBI set, in millimetres.
    #[must_use]
    pub fn errors_mm(&self, protocol: Protocol) -> Vec<f64> {
        let found: Vec<Point> = self.found.iter().map(|landmark| landmark.point).collect();
        match protocol {
            Protocol::Exact => radial_errors_mm(&found, &self.truth, ISBI_MM_PER_PX),
            Protocol::Reference => {
                let frame = nfdp_frame(self.size, REFERENCE_FRAME);
                let [found, truth] =
                    [&found, &self.truth].map(|points| points.iter().map(|&p| frame.apply(p)).collect::<Vec<_>>());
                reference_errors(&found, &truth, REFERENCE_CEPH_MM_PER_PX)
            }
        }
    }
}

/// Localizes the landmarks of every film; `done` is called after each with the number of films done.
///
/// # Errors
/// With the first film that cannot be read or localized.
pub fn evaluate(
    localizer: &mut Localizer,
    films: &[LabelledFilm],
    mut done: impl FnMut(usize),
) -> Result<Vec<TestedFilm>, EvaluateError> {
    let mut tested = Vec::with_capacity(films.len());
    for film in films {
        tested.push(test(localizer, film)?);
        done(tested.len());
    }
    Ok(tested)
}

fn test(localizer: &mut Localizer, film: &LabelledFilm) -> Result<TestedFilm, EvaluateError> {
    let LabelledFilm { name, path, landmarks, .. } = film;
    let bytes = fs::read(path).map_err(|source| DatasetError::Io { path: path.clone(), source })?;
    let radiograph = decode(&bytes, &Limits::default())
        .map_err(|e| DatasetError::Film { path: path.clone(), reason: e.to_string() })?;
    let found =
        localizer.localize(&radiograph).map_err(|source| EvaluateError::Inference { film: name.clone(), source })?;
    Ok(TestedFilm { name: name.clone(), size: radiograph.size, found: found.landmarks, truth: landmarks.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_count_the_same_film() {
        let landmark = Landmark {
            name: "sella".to_owned(),
            point: Point::new(967.5 + 20.0, 1200.0),
            sigma_px: [1.0, 2.0],
            radius95_px: None,
            score: 1.0,
        };
        let truth = vec![Point::new(967.5 + 1.0, 1200.0)];
        let film = TestedFilm { name: "1".into(), size: Size::new(1935, 2400), found: vec![landmark], truth };
        assert_eq!(film.cases(), [Case { error: [19.0, 0.0], sigma: [1.0, 2.0] }]);
        assert!((film.errors_mm(Protocol::Exact)[0] - 1.9).abs() < 1e-12);
        // 259.41 and 256.17 frame pixels: three whole ones.
        assert_eq!(film.errors_mm(Protocol::Reference), [3.0 * REFERENCE_CEPH_MM_PER_PX]);
    }
}
