//! The length of the scale bar: a round number of millimetres, or of pixels where no scale is known.

use crate::geometry::{PixelSpacing, SpacingSource};

/// A bar of a round length.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScaleBar {
    /// In picture pixels.
    pub(super) length: f64,
    /// What it measures, with the plane it holds in.
    pub(super) label: String,
    /// Into how many equal parts it is divided.
    pub(super) divisions: u32,
}

impl ScaleBar {
    /// The longest bar of 1, 2 or 5 times a power of ten that is not longer than `room` picture pixels.
    ///
    /// `scale` is picture pixels per source pixel on x, along which the bar lies.
    pub(super) fn choose(scale: f64, spacing: Option<PixelSpacing>, room: f64) -> Self {
        let stated = spacing.filter(|spacing| spacing.x_mm.is_finite() && spacing.x_mm > 0.0);
        let (per_unit, unit, plane) = match stated {
            Some(spacing) => (scale / spacing.x_mm, "mm", plane(spacing.source)),
            None => (scale, "px", ""),
        };
        let (digit, power) = round_below(room / per_unit);
        let units = digit * 10f64.powi(power);
        let divisions = if digit == 2.0 { 4 } else { 5 };
        Self { length: units * per_unit, label: format!("{units} {unit}{plane}"), divisions }
    }
}

/// Where the millimetres hold: Imager Pixel Spacing is measured at the detector, not in the patient.
fn plane(source: SpacingSource) -> &'static str {
    match source {
        SpacingSource::Calibrated => "",
        SpacingSource::Detector => " at the detector",
        SpacingSource::ErmFactor => " (estimated magnification)",
        SpacingSource::Config => " (configured)",
    }
}

/// The largest 1, 2 or 5 times a power of ten not above `limit`, as digit and power.
fn round_below(limit: f64) -> (f64, i32) {
    let power = limit.log10().floor();
    // The room is positive; a hair is allowed for, so that 5.0 is not missed for 4.999999.
    let digit = [5.0, 2.0].into_iter().find(|digit| digit * 10f64.powf(power) <= limit * (1.0 + 1e-9)).unwrap_or(1.0);
    (digit, power as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spacing(x_mm: f64, source: SpacingSource) -> Option<PixelSpacing> {
        Some(PixelSpacing { x_mm, y_mm: x_mm, source })
    }

    #[test]
    fn bars_have_round_lengths() {
        for (scale, spacing, room, label, length) in [
            // A 1935 x 2400 film at 0.1 mm, drawn at 0.6: 6 picture pixels a millimetre.
            (0.6, spacing(0.1, SpacingSource::Calibrated), 348.0, "50 mm", 300.0),
            (0.6, spacing(0.1, SpacingSource::Detector), 299.0, "20 mm at the detector", 120.0),
            (0.6, spacing(0.1, SpacingSource::Config), 110.0, "10 mm (configured)", 60.0),
            (0.6, None, 348.0, "500 px", 300.0),
            (2.0, None, 20.0, "10 px", 20.0),
            (0.5, spacing(0.0, SpacingSource::Config), 100.0, "200 px", 100.0),
        ] {
            let bar = ScaleBar::choose(scale, spacing, room);
            assert_eq!(bar.label, label);
            assert!((bar.length - length).abs() < 1e-9, "{label}: {}", bar.length);
        }
    }

    #[test]
    fn a_bar_of_two_is_divided_in_four() {
        assert_eq!(ScaleBar::choose(1.0, None, 20.0).divisions, 4);
        assert_eq!(ScaleBar::choose(1.0, None, 50.0).divisions, 5);
    }
}
