//! Whether the GPU finds what the processor finds.

use super::TensorRtError;
use crate::geometry::Point;

/// How far a landmark of the golden film may lie from where the processor finds it, in pixels of that film. With an f16
/// trunk 0.35 px at most were measured.
pub const MAX_PX: f64 = 1.0;
/// And the median of them.
pub const MEDIAN_PX: f64 = 0.1;

/// How far apart the landmarks of two backends lie on one film.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// In pixels of the film.
    pub max_px: f64,
    /// The same.
    pub median_px: f64,
}

impl Agreement {
    /// Of landmarks in the same order.
    #[must_use]
    pub fn of(found: &[Point], reference: &[Point]) -> Self {
        if found.is_empty() || found.len() != reference.len() {
            return Self { max_px: f64::NAN, median_px: f64::NAN };
        }
        let mut off: Vec<f64> = found.iter().zip(reference).map(|(a, b)| a.distance(*b)).collect();
        // What is no number comes last, and so is the greatest.
        off.sort_by(f64::total_cmp);
        Self { max_px: off[off.len() - 1], median_px: off[off.len() / 2] }
    }

    /// Whether both are within what is allowed; what is no number is not.
    ///
    /// # Errors
    /// [`TensorRtError::Differs`] otherwise.
    pub fn check(self) -> Result<Self, TensorRtError> {
        if self.max_px <= MAX_PX && self.median_px <= MEDIAN_PX {
            return Ok(self);
        }
        let [max_px, median_px] = [self.max_px, self.median_px].map(|px| format!("{px:.3}"));
        Err(TensorRtError::Differs { max_px, median_px })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(off: &[f64]) -> Agreement {
        let reference: Vec<Point> = (0..off.len()).map(|i| Point::new(10.0 * i as f64, 5.0)).collect();
        let found: Vec<Point> = reference.iter().zip(off).map(|(p, &d)| Point::new(p.x, p.y + d)).collect();
        Agreement::of(&found, &reference)
    }

    #[test]
    fn both_the_worst_and_the_median_must_be_near() {
        let Agreement { max_px, median_px } = agreement(&[0.0, 0.05, 0.9]);
        assert!((max_px - 0.9).abs() < 1e-9 && (median_px - 0.05).abs() < 1e-9, "{max_px} {median_px}");
        for (off, holds) in [
            (vec![0.0, 0.05, 0.95], true),
            (vec![0.0, 0.05, 1.05], false),
            (vec![0.0, 0.15, 0.2], false),
            (vec![0.0, 0.0, f64::NAN], false),
            (vec![], false),
        ] {
            assert_eq!(agreement(&off).check().is_ok(), holds, "{off:?}");
        }
        let few = Agreement::of(&[Point::new(0.0, 0.0)], &[]);
        assert!(few.check().is_err());
    }
}
