//! The errors of a landmark localizer: mean radial error and successful detection rate.

use serde::{Deserialize, Serialize};

use super::reference::Protocol;
use super::statistics::{deviation, mean, percent_within};
use crate::geometry::Point;

/// The distances of the ISBI challenge, in millimetres.
pub const CEPHALOGRAM_THRESHOLDS_MM: [f64; 4] = [2.0, 2.5, 3.0, 4.0];

/// Errors of all landmarks on all films, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Films.
    pub films: usize,
    /// Mean radial error, in millimetres.
    pub mre_mm: f64,
    /// Standard deviation of the radial error, in millimetres.
    pub sd_mm: f64,
    /// `(threshold in mm, share of landmarks nearer than it, in per cent)`.
    pub sdr_percent: Vec<(f64, f64)>,
    /// Mean radial error of each landmark over the films, in millimetres.
    pub per_landmark_mre_mm: Vec<f64>,
}

/// Distances in millimetres between found and true landmarks of one film.
#[must_use]
pub fn radial_errors_mm(found: &[Point], truth: &[Point], mm_per_px: f64) -> Vec<f64> {
    found.iter().zip(truth).map(|(f, t)| f.distance(*t) * mm_per_px).collect()
}

/// Sums up the radial errors of each film (one inner vector a film, in the order of landmarks), of at least one film.
///
/// The detection rate counts errors up to and including the threshold, as the challenge did.
#[must_use]
pub fn summarise(films: &[Vec<f64>], thresholds_mm: &[f64]) -> Summary {
    let all: Vec<f64> = films.iter().flatten().copied().collect();
    let landmarks = films.first().map_or(0, Vec::len);
    let of_landmark = |k: usize| mean(&films.iter().map(|film| film[k]).collect::<Vec<_>>());
    Summary {
        films: films.len(),
        mre_mm: mean(&all),
        sd_mm: deviation(&all),
        sdr_percent: thresholds_mm.iter().map(|&t| (t, percent_within(&all, t, Protocol::Exact))).collect(),
        per_landmark_mre_mm: (0..landmarks).map(of_landmark).collect(),
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} films, MRE {:.3} mm, SD {:.3} mm, SDR", self.films, self.mre_mm, self.sd_mm)?;
        for (threshold, percent) in &self.sdr_percent {
            write!(f, " {threshold} mm {percent:.2} %")?;
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
        let first = radial_errors_mm(&[Point::new(3.0, 4.0), Point::new(100.0, 20.0)], &truth, 0.1);
        let second = radial_errors_mm(&[Point::new(0.0, 45.0), Point::new(100.0, 0.0)], &truth, 0.1);
        let summary = summarise(&[first, second], &CEPHALOGRAM_THRESHOLDS_MM);
        assert!((summary.mre_mm - 1.75).abs() < 1e-12);
        assert!((summary.sd_mm - 1.75).abs() < 1e-12, "{}", summary.sd_mm);
        assert_eq!(summary.sdr_percent, [(2.0, 75.0), (2.5, 75.0), (3.0, 75.0), (4.0, 75.0)]);
        assert_eq!(summary.per_landmark_mre_mm, [2.5, 1.0]);
    }
}
