//! A bundle on a test set, through the very code that serves in the clinic.

use std::fs;

use super::calibration::Case;
use super::cobb::Angles;
use super::datasets::{DatasetError, LabelledFilm};
use super::metrics::radial_errors;
use super::reference::{Protocol, REFERENCE_CEPH_MM_PER_PX, REFERENCE_FRAME, reference_errors};
use crate::geometry::{LengthUnit, Point, Size};
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
    /// Which of them have a known place.
    pub visible: Vec<bool>,
    /// The side of a source pixel, where it is known.
    pub mm_per_px: Option<f64>,
}

impl TestedFilm {
    /// Every visible landmark's error and predicted sigma, in source pixels.
    #[must_use]
    pub fn cases(&self) -> Vec<Option<Case>> {
        let case = |((landmark, truth), &visible): ((&Landmark, &Point), &bool)| {
            let error = [landmark.point.x - truth.x, landmark.point.y - truth.y];
            visible.then_some(Case { error, sigma: landmark.sigma_px })
        };
        self.found.iter().zip(&self.truth).zip(&self.visible).map(case).collect()
    }

    /// The radial error of every visible landmark.
    ///
    /// The reference protocol has a scale of its own for cephalograms in millimetres; in pixels it counts those of its
    /// frame.
    #[must_use]
    pub fn errors(&self, protocol: Protocol, unit: LengthUnit) -> Vec<Option<f64>> {
        match protocol {
            Protocol::Exact => radial_errors(&self.points(), &self.truth, &self.visible, unit.per_px(self.mm_per_px)),
            Protocol::Reference => {
                let frame = REFERENCE_FRAME.place(self.size);
                let [found, truth] = [&self.points(), &self.truth]
                    .map(|points| points.iter().map(|&p| frame.apply(p)).collect::<Vec<_>>());
                let per_px = match unit {
                    LengthUnit::Mm => REFERENCE_CEPH_MM_PER_PX,
                    LengthUnit::Px => 1.0,
                };
                let errors = reference_errors(&found, &truth, per_px);
                errors.into_iter().zip(&self.visible).map(|(error, &visible)| visible.then_some(error)).collect()
            }
        }
    }

    /// The angles of a spine, where the landmarks are those of one and all are visible.
    #[must_use]
    pub fn angles(&self) -> Option<Angles> {
        let names: Vec<String> = self.found.iter().map(|landmark| landmark.name.clone()).collect();
        if !self.visible.iter().all(|&visible| visible) {
            return None;
        }
        Angles::of(&names, &self.truth, &self.points(), self.size)
    }

    fn points(&self) -> Vec<Point> {
        self.found.iter().map(|landmark| landmark.point).collect()
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
    let LabelledFilm { name, path, landmarks, visible, mm_per_px, .. } = film;
    let bytes = fs::read(path).map_err(|source| DatasetError::Io { path: path.clone(), source })?;
    let radiograph = decode(&bytes, &Limits::default())
        .map_err(|e| DatasetError::Film { path: path.clone(), reason: e.to_string() })?;
    let found =
        localizer.localize(&radiograph).map_err(|source| EvaluateError::Inference { film: name.clone(), source })?;
    Ok(TestedFilm {
        name: name.clone(),
        size: radiograph.size,
        found: found.landmarks,
        truth: landmarks.clone(),
        visible: visible.clone(),
        mm_per_px: *mm_per_px,
    })
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
        let film = TestedFilm {
            name: "1".into(),
            size: Size::new(1935, 2400),
            found: vec![landmark],
            truth,
            visible: vec![true],
            mm_per_px: Some(0.1),
        };
        assert_eq!(film.cases(), [Some(Case { error: [19.0, 0.0], sigma: [1.0, 2.0] })]);
        assert!((film.errors(Protocol::Exact, LengthUnit::Mm)[0].expect("visible") - 1.9).abs() < 1e-12);
        assert_eq!(film.errors(Protocol::Exact, LengthUnit::Px), [Some(19.0)]);
        // 259.41 and 256.17 frame pixels: three whole ones.
        assert_eq!(film.errors(Protocol::Reference, LengthUnit::Mm), [Some(3.0 * REFERENCE_CEPH_MM_PER_PX)]);
        let hidden = TestedFilm { visible: vec![false], ..film };
        assert_eq!((hidden.cases(), hidden.errors(Protocol::Exact, LengthUnit::Mm)), (vec![None], vec![None]));
    }
}
