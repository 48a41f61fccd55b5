//! The film's scale and who says so (PS3.3 10.7).
//!
//! Decided so that millimetres are never claimed for a plane that the file does not name:
//!
//! | Pixel Spacing (0028,0030) | Imager Pixel Spacing (0018,1164) | result |
//! |---|---|---|
//! | with Pixel Spacing Calibration Type (0028,0A02) | any | `calibrated` |
//! | without, differs from the imager's | there | `calibrated`: 10.7.1 lets it differ only where it was corrected |
//! | equal to the imager's, or absent | there | `erm_factor` if (0018,1114) is at least 1, else `detector` |
//! | without, projection radiography | absent | none: it may be at the detector or anywhere in the patient |
//! | without, CT, MR or PET | absent | `calibrated`: there it lies in the plane of the image |
//!
//! The values are in the order row spacing (the distance of rows, so y), column spacing (x).

use dicom_dictionary_std::tags;

use super::attributes::Attributes;
use crate::geometry::{PixelSpacing, SpacingSource};

/// Two spacings closer than this, relatively, are the same figure written with different digits.
const SAME: f64 = 1e-3;
/// Spacings beyond this are no film's: they are placeholders or in another unit.
const PLAUSIBLE_MM: std::ops::RangeInclusive<f64> = 1e-3..=10.0;
/// Magnifications beyond this are no radiograph's.
const PLAUSIBLE_FACTOR: std::ops::RangeInclusive<f64> = 1.0..=10.0;

/// What the file says about its scale.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Stated {
    /// Pixel Spacing: row, column.
    pixel: Option<[f64; 2]>,
    /// Imager Pixel Spacing: row, column.
    imager: Option<[f64; 2]>,
    /// Pixel Spacing Calibration Type is there.
    calibration: bool,
    /// Estimated Radiographic Magnification Factor.
    magnification: Option<f64>,
    /// The modality is one whose Pixel Spacing lies in the image's plane.
    cross_sectional: bool,
}

/// The scale, where the file states one and its plane.
///
/// A malformed statement is none: the landmarks are still there, in pixels.
pub(super) fn pixel_spacing(attributes: Attributes<'_>) -> Option<PixelSpacing> {
    let pair = |tag| <[f64; 2]>::try_from(attributes.decimals(tag).ok()??).ok();
    let stated = Stated {
        pixel: pair(tags::PIXEL_SPACING),
        imager: pair(tags::IMAGER_PIXEL_SPACING),
        calibration: attributes.has(tags::PIXEL_SPACING_CALIBRATION_TYPE),
        magnification: attributes.decimal(tags::ESTIMATED_RADIOGRAPHIC_MAGNIFICATION_FACTOR).ok().flatten(),
        cross_sectional: attributes.term(tags::MODALITY, &["CT", "MR", "PT"]).is_some(),
    };
    stated.decide()
}

impl Stated {
    fn decide(&self) -> Option<PixelSpacing> {
        let plausible = |pair: &[f64; 2]| pair.iter().all(|v| PLAUSIBLE_MM.contains(v));
        let pixel = self.pixel.filter(plausible);
        let imager = self.imager.filter(plausible);
        let scale = |[row, column]: [f64; 2], divisor: f64, source| {
            Some(PixelSpacing { x_mm: column / divisor, y_mm: row / divisor, source })
        };
        let differs = |a: [f64; 2], b: [f64; 2]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > SAME * b);
        match (pixel, imager) {
            (Some(pixel), _) if self.calibration => scale(pixel, 1.0, SpacingSource::Calibrated),
            (Some(pixel), Some(imager)) if differs(pixel, imager) => scale(pixel, 1.0, SpacingSource::Calibrated),
            (_, Some(imager)) => match self.magnification.filter(|m| PLAUSIBLE_FACTOR.contains(m)) {
                Some(magnification) => scale(imager, magnification, SpacingSource::ErmFactor),
                None => scale(imager, 1.0, SpacingSource::Detector),
            },
            (Some(pixel), None) if self.cross_sectional => scale(pixel, 1.0, SpacingSource::Calibrated),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_taken_only_with_its_plane() {
        let nothing = Stated::default();
        let pixel = Stated { pixel: Some([0.2, 0.1]), ..nothing };
        let imager = Stated { imager: Some([0.24, 0.12]), ..nothing };
        let equal = Stated { pixel: Some([0.24, 0.12001]), ..imager };
        let both = Stated { pixel: Some([0.2, 0.1]), ..imager };
        let magnified = Stated { magnification: Some(1.2), ..equal };
        use SpacingSource::{Calibrated, Detector, ErmFactor};
        for (stated, expected) in [
            (nothing, None),
            (pixel, None),
            (Stated { calibration: true, ..pixel }, Some((0.1, 0.2, Calibrated))),
            (Stated { cross_sectional: true, ..pixel }, Some((0.1, 0.2, Calibrated))),
            (both, Some((0.1, 0.2, Calibrated))),
            (Stated { magnification: Some(1.2), ..both }, Some((0.1, 0.2, Calibrated))),
            (imager, Some((0.12, 0.24, Detector))),
            (equal, Some((0.12, 0.24, Detector))),
            (Stated { calibration: true, ..equal }, Some((0.12001, 0.24, Calibrated))),
            (magnified, Some((0.1, 0.2, ErmFactor))),
            (Stated { magnification: Some(0.5), ..imager }, Some((0.12, 0.24, Detector))),
            (Stated { pixel: Some([0.0, 0.0]), calibration: true, ..imager }, Some((0.12, 0.24, Detector))),
            (Stated { imager: Some([-0.1, 0.1]), ..nothing }, None),
        ] {
            let found = stated.decide();
            match (found, expected) {
                (None, None) => {}
                (Some(found), Some((x_mm, y_mm, source))) => {
                    assert!((found.x_mm - x_mm).abs() < 1e-12 && (found.y_mm - y_mm).abs() < 1e-12, "{stated:?}");
                    assert_eq!(found.source, source, "{stated:?}");
                }
                _ => panic!("{stated:?}: {found:?} for {expected:?}"),
            }
        }
    }
}
