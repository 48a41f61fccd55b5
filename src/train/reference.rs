//! The `reference` protocol: errors counted as NFDP's public code counts them, to set beside published numbers.
//!
//! Prediction and truth lose their fractions in the 512 x 512 frame, and one scale turns frame pixels into
//! millimetres for every film. An error equal to the threshold is outside it ([`Protocol::detects`]).

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::geometry::{BOX_ENLARGEMENT, Frame, Point};

/// How errors were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Sub-pixel, in source pixels; an error equal to the threshold is within it.
    Exact,
    /// As in NFDP's public code: whole pixels of the 512 frame; an error equal to the threshold is outside it.
    Reference,
}

impl Protocol {
    /// Whether an error counts as a detection at `threshold`, both in the same unit.
    #[must_use]
    pub fn detects(self, error: f64, threshold: f64) -> bool {
        match self {
            Self::Exact => error <= threshold,
            Self::Reference => error < threshold,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Reference => "reference",
        })
    }
}

/// The frame that the reference protocol counts in, whatever the frame of the network.
pub const REFERENCE_FRAME: Frame = Frame::new(512, 512);

/// Millimetres per frame pixel of the ISBI films: the longer side of max(193.5, 240) mm on 512 / 1.25 pixels.
pub const REFERENCE_CEPH_MM_PER_PX: f64 = 240.0 * BOX_ENLARGEMENT / REFERENCE_FRAME.height as f64;

/// The errors of one film's landmarks from points in [`REFERENCE_FRAME`], in frame pixels times `per_px`.
///
/// Points are cut towards zero, as Python's `int` does. A point that lies on a whole pixel but for the rounding of
/// its way into the frame may land on either side of it.
///
/// # Examples
/// ```
/// use landmarkd::geometry::Point;
/// use landmarkd::train::{REFERENCE_CEPH_MM_PER_PX, reference_errors};
/// let errors = reference_errors(&[Point::new(103.9, 204.9)], &[Point::new(100.0, 200.2)], REFERENCE_CEPH_MM_PER_PX);
/// assert_eq!(errors, [5.0 * 0.5859375]);
/// ```
#[must_use]
pub fn reference_errors(found: &[Point], truth: &[Point], per_px: f64) -> Vec<f64> {
    let cut = |p: &Point| Point::new(p.x.trunc(), p.y.trunc());
    found.iter().zip(truth).map(|(f, t)| cut(f).distance(cut(t)) * per_px).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;

    #[test]
    fn the_scale_is_that_of_the_public_code() {
        assert_eq!(REFERENCE_CEPH_MM_PER_PX, f64::max(193.5, 240.0) / (512.0 / 1.25));
        assert_eq!(REFERENCE_CEPH_MM_PER_PX, 0.5859375);
    }

    #[test]
    fn a_hand_worked_example() {
        for (found, truth, expected_px) in [
            // (100, 200) and (103, 204): a 3-4-5 triangle, though the points lie 3.2 and 3.1 apart.
            ((100.9, 200.9), (103.1, 204.0), 5.0),
            // The same pixel: nothing is left of an error of 1.27 frame pixels.
            ((10.0, 10.0), (10.9, 10.9), 0.0),
            // Neighbouring pixels: an error of 0.02 frame pixels becomes 1.
            ((10.99, 7.0), (11.01, 7.5), 1.0),
            // Towards zero, not downwards: -0.9 is 0.
            ((-0.9, 2.0), (0.9, 2.0), 0.0),
        ] {
            let errors = reference_errors(&[Point::new(found.0, found.1)], &[Point::new(truth.0, truth.1)], 0.5859375);
            assert_eq!(errors, [expected_px * 0.5859375], "{found:?} and {truth:?}");
        }
    }

    #[test]
    fn points_of_a_film_count_in_the_frame() {
        // A film of ISBI: 512 / 3000 frame pixels a pixel, and (967.5, 1200) lands on (256, 256).
        let to_frame = REFERENCE_FRAME.place(Size::new(1935, 2400));
        let found = to_frame.apply(Point::new(967.5 + 20.0, 1200.0)); // 259.41
        let truth = to_frame.apply(Point::new(967.5 + 1.0, 1200.0)); // 256.17
        // 1.9 mm apart on the film, 3 whole frame pixels in this protocol.
        assert_eq!(reference_errors(&[found], &[truth], REFERENCE_CEPH_MM_PER_PX), [3.0 * 0.5859375]);
    }

    #[test]
    fn an_error_on_the_threshold_is_outside() {
        assert!(!Protocol::Reference.detects(2.0, 2.0) && Protocol::Reference.detects(1.999_999, 2.0));
        assert!(Protocol::Exact.detects(2.0, 2.0) && !Protocol::Exact.detects(2.000_001, 2.0));
    }
}
