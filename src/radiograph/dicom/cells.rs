//! The cells of a film once they are uncompressed (PS3.5 8.1.1), and the bits of them that count.

use std::borrow::Cow;

use super::attributes::wrong;
use super::image_pixel::{ImagePixel, Photometric};
use super::structure::Encoding;
use crate::radiograph::luminance::{luminance, widen};
use crate::radiograph::{DecodeError, Format};

/// The cells of a film, uncompressed.
#[derive(Debug)]
pub(super) enum Cells<'a> {
    /// Cells of 8 bits.
    Bytes(Cow<'a, [u8]>),
    /// Cells of 16 bits, as they lie in the file or come from a decoder.
    Words {
        /// Two bytes a cell.
        bytes: Cow<'a, [u8]>,
        /// Whether the first of the two is the more significant.
        big_endian: bool,
    },
    /// Cells of 16 bits whose values may lie beyond Bits Stored, as a lossy decoder leaves them: they are clamped.
    Overshooting(Vec<u16>),
    /// 8-bit luminance of a colour image.
    Luminance(Vec<u8>),
}

/// The cells of an uncompressed film, whose length must be what the attributes say, up to one byte of padding.
pub(super) fn native<'a>(
    value: &'a [u8],
    words: bool,
    encoding: Encoding,
    pixel: &ImagePixel,
) -> Result<Cells<'a>, DecodeError> {
    if pixel.photometric == Photometric::YbrFull422 {
        return Err(DecodeError::unsupported(Format::Dicom, "uncompressed YBR_FULL_422"));
    }
    let expected = pixel.native_bytes();
    if value.len() as u64 != expected + expected % 2 && value.len() as u64 != expected {
        let tag = dicom_dictionary_std::tags::PIXEL_DATA;
        return Err(wrong(tag, format!("{expected} bytes"), format!("{} bytes", value.len())));
    }
    let big_endian = encoding == Encoding::ExplicitBig;
    if pixel.bits_allocated == 16 {
        return Ok(Cells::Words { bytes: Cow::Borrowed(&value[..expected as usize]), big_endian });
    }
    if big_endian && words {
        // PS3.5 annex D: two 8-bit cells share a word, the first one in its low byte.
        let mut swapped: Vec<u8> = value.as_chunks().0.iter().flat_map(|&[high, low]| [low, high]).collect();
        swapped.truncate(expected as usize);
        return Ok(Cells::Bytes(Cow::Owned(swapped)));
    }
    Ok(Cells::Bytes(Cow::Borrowed(&value[..expected as usize])))
}

impl Cells<'_> {
    /// The same cells, in a buffer of their own.
    pub(super) fn into_owned(self) -> Cells<'static> {
        match self {
            Self::Bytes(bytes) => Cells::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Words { bytes, big_endian } => Cells::Words { bytes: Cow::Owned(bytes.into_owned()), big_endian },
            Self::Overshooting(words) => Cells::Overshooting(words),
            Self::Luminance(gray) => Cells::Luminance(gray),
        }
    }

    /// Calls `each` with every cell's Bits Stored bits; what else is in the cell (overlays, say) is masked out.
    pub(super) fn codes(&self, pixel: &ImagePixel, mut each: impl FnMut(usize)) {
        let mask = pixel.codes() - 1;
        let shift = pixel.shift();
        let mut masked = |cell: u16| each((cell >> shift) as usize & mask);
        match self {
            Self::Bytes(bytes) => bytes.iter().for_each(|&cell| masked(cell.into())),
            Self::Luminance(gray) => gray.iter().for_each(|&cell| masked(cell.into())),
            Self::Words { bytes, big_endian: false } => {
                bytes.as_chunks().0.iter().for_each(|&cell| masked(u16::from_le_bytes(cell)));
            }
            Self::Words { bytes, big_endian: true } => {
                bytes.as_chunks().0.iter().for_each(|&cell| masked(u16::from_be_bytes(cell)));
            }
            Self::Overshooting(words) => words.iter().for_each(|&cell| each(usize::from(cell).min(mask))),
        }
    }

    /// The luminance of a colour film; windows and LUTs are for monochrome ones.
    pub(super) fn luminance(&self, pixel: &ImagePixel) -> Vec<u16> {
        let bytes: &[u8] = match self {
            Self::Luminance(gray) => return widen(gray),
            Self::Bytes(bytes) => bytes,
            Self::Words { .. } | Self::Overshooting(_) => unreachable!("colour has 8 bits"),
        };
        let area = bytes.len() / 3;
        let sample = |i: usize, channel: usize| {
            u16::from(if pixel.planar { bytes[channel * area + i] } else { bytes[3 * i + channel] }) * 257
        };
        match pixel.photometric {
            // Y is the luminance.
            Photometric::YbrFull | Photometric::YbrFull422 => (0..area).map(|i| sample(i, 0)).collect(),
            _ => (0..area).map(|i| luminance([0, 1, 2].map(|channel| sample(i, channel)))).collect(),
        }
    }
}
