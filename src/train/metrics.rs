//! The errors of a landmark localizer: mean radial error and successful detection rate; of a spine also its angles.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cobb::Angles;
use super::datasets::{LabelledFilm, Layout};
use super::reference::Protocol;
use super::statistics::{deviation, mean, percent_within};
use crate::geometry::{LengthUnit, Point};

/// The distances of the ISBI challenge, in millimetres.
pub const CEPHALOGRAM_THRESHOLDS_MM: [f64; 4] = [2.0, 2.5, 3.0, 4.0];
/// The distances of the publications on the hand atlas, in millimetres.
pub const HAND_THRESHOLDS_MM: [f64; 3] = [2.0, 4.0, 10.0];
/// Distances where the films have no scale, in pixels.
pub const THRESHOLDS_PX: [f64; 4] = [5.0, 10.0, 20.0, 40.0];

impl LengthUnit {
    /// Millimetres where every film's scale is known, else pixels.
    #[must_use]
    pub fn of<'a>(films: impl IntoIterator<Item = &'a LabelledFilm>) -> Self {
        if films.into_iter().all(|film| film.mm_per_px.is_some()) { Self::Mm } else { Self::Px }
    }

    /// What a film's pixel counts.
    #[must_use]
    pub fn per_px(self, mm_per_px: Option<f64>) -> f64 {
        match self {
            Self::Mm => mm_per_px.unwrap_or(1.0),
            Self::Px => 1.0,
        }
    }

    /// The distances at which detections are counted.
    #[must_use]
    pub const fn thresholds(self, layout: Layout) -> &'static [f64] {
        match (self, layout) {
            (Self::Mm, Layout::Hand) => &HAND_THRESHOLDS_MM,
            (Self::Mm, _) => &CEPHALOGRAM_THRESHOLDS_MM,
            (Self::Px, _) => &THRESHOLDS_PX,
        }
    }
}

/// Errors of all visible landmarks on all films, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Films.
    pub films: usize,
    /// Of every distance.
    pub unit: LengthUnit,
    /// Mean radial error.
    pub mre: f64,
    /// Standard deviation of the radial error.
    pub sd: f64,
    /// `(threshold, share of landmarks nearer than it, in per cent)`.
    pub sdr_percent: Vec<(f64, f64)>,
    /// Symmetric mean absolute percentage error of the three angles, where the landmarks are those of a spine.
    pub smape_percent: Option<f64>,
}

/// Distances between found and true landmarks of one film, `scale` units a pixel; none where the truth is not known.
#[must_use]
pub fn radial_errors(found: &[Point], truth: &[Point], visible: &[bool], scale: f64) -> Vec<Option<f64>> {
    let error = |((f, t), &visible): ((&Point, &Point), &bool)| visible.then(|| f.distance(*t) * scale);
    found.iter().zip(truth).zip(visible).map(error).collect()
}

/// Sums up the radial errors of each film (one inner vector a film, in the order of landmarks), of at least one error.
///
/// The detection rate counts errors up to and including the threshold, as the challenge did.
#[must_use]
pub fn summarise(films: &[Vec<Option<f64>>], unit: LengthUnit, thresholds: &[f64], angles: &[Angles]) -> Summary {
    let all: Vec<f64> = films.iter().flatten().copied().flatten().collect();
    Summary {
        films: films.len(),
        unit,
        mre: mean(&all),
        sd: deviation(&all),
        sdr_percent: thresholds.iter().map(|&t| (t, percent_within(&all, t, Protocol::Exact))).collect(),
        smape_percent: super::cobb::smape_percent(angles),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { films, unit, mre, sd, sdr_percent, smape_percent } = self;
        write!(f, "{films} films, MRE {mre:.3} {unit}, SD {sd:.3} {unit}, SDR")?;
        for (threshold, percent) in sdr_percent {
            write!(f, " {threshold} {unit} {percent:.2} %")?;
        }
        if let Some(smape) = smape_percent {
            write!(f, ", SMAPE {smape:.2} %")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_worked_example() {
        // 3-4-5 triangles at 0.1 mm a pixel: 0.5, 2.0 and 4.5 mm, and one exact hit.
        let truth = [Point::new(0.0, 0.0), Point::new(100.0, 0.0)];
        let both = [true, true];
        let first = radial_errors(&[Point::new(3.0, 4.0), Point::new(100.0, 20.0)], &truth, &both, 0.1);
        let second = radial_errors(&[Point::new(0.0, 45.0), Point::new(100.0, 0.0)], &truth, &both, 0.1);
        let summary = summarise(&[first, second], LengthUnit::Mm, &CEPHALOGRAM_THRESHOLDS_MM, &[]);
        assert!((summary.mre - 1.75).abs() < 1e-12);
        assert!((summary.sd - 1.75).abs() < 1e-12, "{}", summary.sd);
        assert_eq!(summary.sdr_percent, [(2.0, 75.0), (2.5, 75.0), (3.0, 75.0), (4.0, 75.0)]);
        assert_eq!(summary.smape_percent, None);
    }

    #[test]
    fn a_landmark_whose_place_is_unknown_has_no_error() {
        let truth = [Point::new(0.0, 0.0), Point::new(0.0, 0.0)];
        let errors = radial_errors(&[Point::new(3.0, 4.0), Point::new(900.0, 0.0)], &truth, &[true, false], 2.0);
        assert_eq!(errors, [Some(10.0), None]);
        assert_eq!(summarise(&[errors], LengthUnit::Px, &[5.0, 10.0], &[]).sdr_percent, [(5.0, 0.0), (10.0, 100.0)]);
    }

    #[test]
    fn millimetres_need_a_scale_on_every_film() {
        let film = LabelledFilm::new("a".into(), "a.png".into(), vec![]);
        let scaled = LabelledFilm { mm_per_px: Some(0.2), ..film.clone() };
        assert_eq!(LengthUnit::of(&[scaled.clone(), scaled.clone()]), LengthUnit::Mm);
        assert_eq!(LengthUnit::of(&[scaled, film]), LengthUnit::Px);
        assert_eq!((LengthUnit::Mm.per_px(Some(0.2)), LengthUnit::Px.per_px(Some(0.2))), (0.2, 1.0));
    }
}
