//! From stored values to display values, as one table (PS3.3 C.11, PS3.4 N.2).
//!
//! ```text
//! stored value -> modality LUT or rescale -> VOI LUT, window or full range -> inversion -> 0 (black) .. 65535 (white)
//! ```
//! A stored value has at most 16 bits, so all of it is worked out once for every possible value.

use std::ops::RangeInclusive;

use dicom_dictionary_std::tags;

use super::attributes::Attributes;
use super::image_pixel::{ImagePixel, Photometric};
use super::modality::Modality;
use super::voi::Voi;
use crate::radiograph::DecodeError;

/// The grayscale transformations of a monochrome film.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grayscale {
    /// Stored values to modality values.
    pub(super) modality: Modality,
    /// Modality values to display values; without one, the range of the film's values is spread.
    pub(super) voi: Option<Voi>,
    /// Stored values that are no part of the film: Pixel Padding Value (0028,0120) and Range Limit (0028,0121).
    pub(super) padding: Option<RangeInclusive<i32>>,
    /// Whether low values are white.
    pub(super) inverse: bool,
}

impl Grayscale {
    /// The film's transformations.
    ///
    /// It is inverted where either MONOCHROME1 (C.7.6.3.1.2) or Presentation LUT Shape INVERSE (C.11.6) says so; the
    /// two together, as the DX module wants them, say it once.
    pub(super) fn read(attributes: Attributes<'_>, pixel: &ImagePixel) -> Result<Self, DecodeError> {
        let modality = Modality::read(attributes, pixel.signed)?;
        let negative = (0..pixel.codes()).any(|code| modality.apply(pixel.stored_value(code)) < 0.0);
        let padding = attributes.word(tags::PIXEL_PADDING_VALUE, pixel.signed)?;
        let limit = attributes.word(tags::PIXEL_PADDING_RANGE_LIMIT, pixel.signed)?;
        Ok(Self {
            voi: Voi::read(attributes, negative)?,
            modality,
            padding: padding.map(|value| {
                let limit = limit.unwrap_or(value);
                value.min(limit)..=value.max(limit)
            }),
            inverse: pixel.photometric == Photometric::Monochrome1
                || attributes.term(tags::PRESENTATION_LUT_SHAPE, &["INVERSE"]).is_some(),
        })
    }

    /// The display value of every code; `present` tells which codes occur on the film, and is asked only if needed.
    pub(super) fn table(&self, pixel: &ImagePixel, present: impl FnOnce() -> Vec<bool>) -> Vec<u16> {
        let modality: Vec<f64> = (0..pixel.codes()).map(|code| self.modality.apply(pixel.stored_value(code))).collect();
        let to_display = |fraction: f64| {
            let fraction = if self.inverse { 1.0 - fraction } else { fraction };
            (fraction.clamp(0.0, 1.0) * 65_535.0).round() as u16
        };
        if let Some(voi) = &self.voi {
            return modality.iter().map(|&x| to_display(voi.apply(x))).collect();
        }
        let present = present();
        let is_padding = |code: usize| self.padding.as_ref().is_some_and(|p| p.contains(&pixel.stored_value(code)));
        let values = || modality.iter().enumerate().filter(|&(code, _)| present[code] && !is_padding(code));
        let low = values().map(|(_, &x)| x).fold(f64::INFINITY, f64::min);
        let high = values().map(|(_, &x)| x).fold(f64::NEG_INFINITY, f64::max);
        // A film of one value, or of padding only, is black.
        let range = if high > low { high - low } else { f64::INFINITY };
        let low = if low.is_finite() { low } else { 0.0 };
        modality.iter().map(|&x| to_display((x - low) / range)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::radiograph::dicom::lut::Lut;
    use crate::radiograph::dicom::voi::Function;

    fn pixel(bits_stored: u16, signed: bool) -> ImagePixel {
        ImagePixel {
            size: Size::new(1, 1),
            photometric: Photometric::Monochrome2,
            planar: false,
            bits_allocated: 16,
            bits_stored,
            high_bit: bits_stored - 1,
            signed,
        }
    }

    const PLAIN: Grayscale = Grayscale {
        modality: Modality::Rescale { slope: 1.0, intercept: 0.0 },
        voi: None,
        padding: None,
        inverse: false,
    };

    fn present(codes: usize, at: &[usize]) -> Vec<bool> {
        (0..codes).map(|code| at.contains(&code)).collect()
    }

    #[test]
    fn without_a_window_the_films_own_range_is_spread() {
        let table = PLAIN.table(&pixel(12, false), || present(4096, &[1000, 1500, 2000]));
        assert_eq!([999, 1000, 1500, 2000, 2001].map(|code| table[code]), [0, 0, 32_768, 65_535, 65_535]);
    }

    #[test]
    fn padding_does_not_count_for_the_range() {
        let padded = Grayscale { padding: Some(0..=9), ..PLAIN };
        let table = padded.table(&pixel(12, false), || present(4096, &[0, 5, 1000, 2000]));
        assert_eq!([0, 1000, 2000].map(|code| table[code]), [0, 0, 65_535]);
    }

    #[test]
    fn signed_values_run_from_negative_to_positive() {
        let table = PLAIN.table(&pixel(12, true), || vec![true; 4096]);
        // Codes 2048..4096 are -2048..0.
        assert_eq!([2048, 4095, 0, 2047].map(|code| table[code]), [0, 32_759, 32_776, 65_535]);
    }

    /// By hand: stored 0, 1, 2, 3 -> modality 300, 300, 100, 200 -> window c=200.5 w=201 -> (m - 100) / 200.
    #[test]
    fn a_modality_table_feeds_the_window() {
        let film = Grayscale {
            modality: Modality::Lut(Lut { first: 1, entries: vec![300, 100, 200], max: 4095 }),
            voi: Some(Voi::Window { center: 200.5, width: 201.0, function: Function::Linear }),
            ..PLAIN
        };
        assert_eq!(film.table(&pixel(2, false), Vec::new), [65_535, 65_535, 0, 32_768]);
        let inverse = Grayscale { inverse: true, ..film };
        assert_eq!(inverse.table(&pixel(2, false), Vec::new), [0, 0, 65_535, 32_768]);
    }

    #[test]
    fn a_film_of_one_value_is_black_and_its_negative_white() {
        let table = PLAIN.table(&pixel(8, false), || present(256, &[77]));
        assert_eq!(table[77], 0);
        let inverse = Grayscale { inverse: true, ..PLAIN };
        assert_eq!(inverse.table(&pixel(8, false), || present(256, &[77]))[77], 65_535);
    }
}
