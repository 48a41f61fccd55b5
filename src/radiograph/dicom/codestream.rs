//! What a compressed image says of itself, and that the attributes say the same.

use dicom_dictionary_std::tags;

use super::attributes::wrong;
use super::image_pixel::ImagePixel;
use crate::geometry::Size;
use crate::radiograph::jpeg::{self, FrameHeader};
use crate::radiograph::{DecodeError, Format};

/// What the codestream says of itself must be what the attributes say.
pub(super) fn agree(pixel: &ImagePixel, size: [u32; 2], components: u16, precision: u8) -> Result<(), DecodeError> {
    let Size { width, height } = pixel.size;
    if size != [width, height] {
        let expected = format!("{} as in the codestream", size[1]);
        return Err(match size[1] == height {
            true => wrong(tags::COLUMNS, format!("{} as in the codestream", size[0]), width),
            false => wrong(tags::ROWS, expected, height),
        });
    }
    if components != pixel.photometric.samples() {
        let expected = format!("{components} as in the codestream");
        return Err(wrong(tags::SAMPLES_PER_PIXEL, expected, pixel.photometric.samples()));
    }
    if u16::from(precision) > pixel.bits_allocated {
        let expected = format!("at least {precision} as in the codestream");
        return Err(wrong(tags::BITS_ALLOCATED, expected, pixel.bits_allocated));
    }
    Ok(())
}

/// These decoders yield as many bytes a sample as the codestream's precision takes.
pub(super) fn whole_bytes(pixel: &ImagePixel, precision: u8) -> Result<(), DecodeError> {
    let bits = if precision <= 8 { 8 } else { 16 };
    if pixel.bits_allocated == bits {
        return Ok(());
    }
    Err(wrong(tags::BITS_ALLOCATED, format!("{bits} as in the codestream"), pixel.bits_allocated))
}

pub(super) fn ends(codestream: &[u8], scan_at: usize) -> Result<(), DecodeError> {
    if jpeg::ends(codestream, scan_at) {
        return Ok(());
    }
    Err(DecodeError::damaged(Format::Dicom, "expected the end marker of the compressed image, found none"))
}

pub(super) fn jpeg_header(codestream: &[u8]) -> Result<FrameHeader, DecodeError> {
    FrameHeader::read(codestream).map_err(|reason| DecodeError::damaged(Format::Dicom, reason))
}

/// The image of a JPEG 2000 codestream.
pub(super) struct Jpeg2000Size {
    pub(super) size: [u32; 2],
    pub(super) components: u16,
    pub(super) precision: u8,
}

/// The SIZ marker segment (ITU-T T.800 A.5.1), which follows the start of the codestream at once.
pub(super) fn jpeg_2000_size(codestream: &[u8]) -> Result<Jpeg2000Size, DecodeError> {
    let damaged = || DecodeError::damaged(Format::Dicom, "expected a JPEG 2000 codestream with an image size");
    // Some devices wrap the codestream in a JP2 file, against PS3.5 A.4.4: its boxes come first.
    let start = codestream.windows(4).take(4096).position(|w| w == [0xFF, 0x4F, 0xFF, 0x51]).ok_or_else(damaged)?;
    let siz = codestream.get(start + 4..).ok_or_else(damaged)?;
    let u32_at = |at: usize| siz.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let [x1, y1, x0, y0] = [u32_at(4), u32_at(8), u32_at(12), u32_at(16)].map(Option::unwrap_or_default);
    let &[c1, c0, ..] = siz.get(36..).ok_or_else(damaged)? else { return Err(damaged()) };
    let components = u16::from_be_bytes([c1, c0]);
    let per_component = siz.get(38..38 + 3 * usize::from(components)).ok_or_else(damaged)?.as_chunks::<3>().0;
    let Some(&[depth, ..]) = per_component.first() else { return Err(damaged()) };
    if per_component.iter().any(|c| c != &[depth, 1, 1]) {
        return Err(DecodeError::unsupported(Format::Dicom, "JPEG 2000 with subsampled or unequal components"));
    }
    let (Some(width), Some(height)) = (x1.checked_sub(x0), y1.checked_sub(y0)) else { return Err(damaged()) };
    Ok(Jpeg2000Size { size: [width, height], components, precision: (depth & 0x7F) + 1 })
}
