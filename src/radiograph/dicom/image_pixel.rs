//! The attributes that describe the pixels (PS3.3 C.7.6.3), validated before any pixel is touched.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::attributes::{Attributes, wrong};
use crate::geometry::Size;
use crate::radiograph::{DecodeError, Format};

/// How pixels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImagePixel {
    /// Columns and rows.
    pub(super) size: Size,
    /// What the samples mean.
    pub(super) photometric: Photometric,
    /// Whether the samples of a colour follow plane by plane.
    pub(super) planar: bool,
    /// Bits of a cell: 8 or 16.
    pub(super) bits_allocated: u16,
    /// Bits of the cell that hold the value: 1 to `bits_allocated`.
    pub(super) bits_stored: u16,
    /// The value's most significant bit.
    pub(super) high_bit: u16,
    /// Whether the value is in two's complement.
    pub(super) signed: bool,
}

/// Photometric Interpretation (0028,0004).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Photometric {
    /// Low values are white.
    Monochrome1,
    /// Low values are black.
    Monochrome2,
    /// Red, green and blue, or what a JPEG 2000 decoder turns into them (YBR_ICT, YBR_RCT).
    Rgb,
    /// Luminance and two colour differences.
    YbrFull,
    /// The same with half as many colour differences in a row; read only where compressed.
    YbrFull422,
}

const PHOTOMETRIC: [(&str, Photometric); 7] = [
    ("MONOCHROME1", Photometric::Monochrome1),
    ("MONOCHROME2", Photometric::Monochrome2),
    ("RGB", Photometric::Rgb),
    ("YBR_ICT", Photometric::Rgb),
    ("YBR_RCT", Photometric::Rgb),
    ("YBR_FULL", Photometric::YbrFull),
    ("YBR_FULL_422", Photometric::YbrFull422),
];

impl ImagePixel {
    /// Reads and validates the attributes.
    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, DecodeError> {
        let within = |tag: Tag, range: std::ops::RangeInclusive<i64>| {
            let value = attributes.required_integer(tag)?;
            let expected = || format!("{} to {}", range.start(), range.end());
            if range.contains(&value) { Ok(value as u16) } else { Err(wrong(tag, expected(), value)) }
        };
        let size = Size::new(within(tags::COLUMNS, 1..=65_535)?.into(), within(tags::ROWS, 1..=65_535)?.into());
        let frames = attributes.integer(tags::NUMBER_OF_FRAMES)?.unwrap_or(1);
        if frames != 1 {
            return Err(wrong(tags::NUMBER_OF_FRAMES, "1 (a film, not a sequence of frames)", frames));
        }
        let bits_allocated = match attributes.required_integer(tags::BITS_ALLOCATED)? {
            bits @ (8 | 16) => bits as u16,
            bits => return Err(wrong(tags::BITS_ALLOCATED, "8 or 16", bits)),
        };
        let bits_stored = within(tags::BITS_STORED, 1..=bits_allocated.into())?;
        let high_bit = match attributes.has(tags::HIGH_BIT) {
            true => within(tags::HIGH_BIT, i64::from(bits_stored) - 1..=i64::from(bits_allocated) - 1)?,
            false => bits_stored - 1,
        };
        let signed = attributes.has(tags::PIXEL_REPRESENTATION) && within(tags::PIXEL_REPRESENTATION, 0..=1)? == 1;
        let photometric = photometric(attributes)?;
        let samples = match attributes.has(tags::SAMPLES_PER_PIXEL) {
            true => within(tags::SAMPLES_PER_PIXEL, 1..=3)?,
            false => 1,
        };
        if samples != photometric.samples() {
            let expected = format!("{} with this Photometric Interpretation", photometric.samples());
            return Err(wrong(tags::SAMPLES_PER_PIXEL, expected, samples));
        }
        let planar = samples == 3
            && attributes.has(tags::PLANAR_CONFIGURATION)
            && within(tags::PLANAR_CONFIGURATION, 0..=1)? == 1;
        if samples == 3 && (bits_allocated != 8 || bits_stored != 8 || signed) {
            return Err(DecodeError::unsupported(Format::Dicom, "a colour image of other than 8 unsigned bits"));
        }
        Ok(Self { size, photometric, planar, bits_allocated, bits_stored, high_bit, signed })
    }

    /// Columns and rows, for [`Limits`](crate::radiograph::Limits).
    pub(super) fn dimensions(&self) -> [u64; 2] {
        [self.size.width.into(), self.size.height.into()]
    }

    /// Bytes of the uncompressed image.
    pub(super) fn native_bytes(&self) -> u64 {
        self.size.area() * u64::from(self.photometric.samples()) * u64::from(self.bits_allocated / 8)
    }

    /// How many different stored values there can be.
    pub(super) fn codes(&self) -> usize {
        1 << self.bits_stored
    }

    /// How far a cell is shifted to the right to bring its value down.
    pub(super) fn shift(&self) -> u16 {
        self.high_bit + 1 - self.bits_stored
    }

    /// The stored value that the bits `code` mean.
    pub(super) fn stored_value(&self, code: usize) -> i32 {
        let negative = self.signed && code >= self.codes() / 2;
        // A code has at most 16 bits.
        if negative { code as i32 - self.codes() as i32 } else { code as i32 }
    }
}

impl Photometric {
    /// Samples per pixel.
    pub(super) fn samples(self) -> u16 {
        if self.is_monochrome() { 1 } else { 3 }
    }

    /// Whether there is one sample a pixel.
    pub(super) fn is_monochrome(self) -> bool {
        matches!(self, Self::Monochrome1 | Self::Monochrome2)
    }
}

fn photometric(attributes: Attributes<'_>) -> Result<Photometric, DecodeError> {
    let tag = tags::PHOTOMETRIC_INTERPRETATION;
    if !attributes.has(tag) {
        return Err(wrong(tag, "a value", "none"));
    }
    let terms = PHOTOMETRIC.map(|(term, _)| term);
    let term = attributes.term(tag, &terms);
    let known = PHOTOMETRIC.iter().find(|(known, _)| Some(*known) == term);
    known.map(|&(_, photometric)| photometric).ok_or_else(|| {
        let found = attributes.term(tag, &["PALETTE COLOR", "YBR_PARTIAL_420"]).unwrap_or("another term");
        wrong(tag, terms.join(", "), found)
    })
}
