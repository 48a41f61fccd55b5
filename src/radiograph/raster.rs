//! PNG, TIFF and BMP, through the `image` crate. Density metadata is no calibration, so there is never a scale.

use std::io::Cursor;

use image::codecs::{bmp::BmpDecoder, png::PngDecoder, tiff::TiffDecoder};
use image::error::{ImageError, LimitErrorKind};
use image::{ColorType, DynamicImage, ImageDecoder};

use super::luminance::{from_u8, from_u16, widen};
use super::{DecodeError, Format, Limits, Radiograph};
use crate::geometry::Size;

/// What reading a header may allocate, before the image's size is known.
const HEADER_BYTES: u64 = 16 << 20;

pub(super) fn decode(bytes: &[u8], format: Format, limits: &Limits) -> Result<Radiograph, DecodeError> {
    let reader = Cursor::new(bytes);
    let fail = |error| failure(format, error, limits);
    match format {
        Format::Png => {
            let mut header = image::Limits::no_limits();
            header.max_alloc = Some(HEADER_BYTES);
            read(PngDecoder::with_limits(reader, header).map_err(fail)?, bytes, format, limits)
        }
        Format::Tiff => read(TiffDecoder::new(reader).map_err(fail)?, bytes, format, limits),
        _ => read(BmpDecoder::new(reader).map_err(fail)?, bytes, format, limits),
    }
}

fn read(
    mut decoder: impl ImageDecoder,
    bytes: &[u8],
    format: Format,
    limits: &Limits,
) -> Result<Radiograph, DecodeError> {
    let (width, height) = decoder.dimensions();
    // TIFF is decoded into a buffer of its own and copied.
    let copies = if format == Format::Tiff { 2 } else { 1 };
    let samples = copies * decoder.total_bytes();
    // 16-bit gray needs no conversion: the decoder's buffer becomes the film.
    let reused = if decoder.color_type() == ColorType::L16 { decoder.total_bytes() } else { 0 };
    limits.admit(format, [width.into(), height.into()], bytes.len(), samples - reused)?;
    let mut own = image::Limits::no_limits();
    own.max_alloc = Some(samples + HEADER_BYTES);
    decoder.set_limits(own).map_err(|error| failure(format, error, limits))?;
    let image = DynamicImage::from_decoder(decoder).map_err(|error| failure(format, error, limits))?;
    let pixels = match image {
        DynamicImage::ImageLuma8(gray) => widen(&gray),
        DynamicImage::ImageLuma16(gray) => gray.into_raw(),
        DynamicImage::ImageLumaA8(samples) => from_u8::<2>(&samples),
        DynamicImage::ImageLumaA16(samples) => from_u16::<2>(&samples),
        DynamicImage::ImageRgb8(samples) => from_u8::<3>(&samples),
        DynamicImage::ImageRgb16(samples) => from_u16::<3>(&samples),
        DynamicImage::ImageRgba8(samples) => from_u8::<4>(&samples),
        DynamicImage::ImageRgba16(samples) => from_u16::<4>(&samples),
        _ => return Err(DecodeError::unsupported(format, "a floating-point image")),
    };
    Ok(Radiograph::gray(format, Size::new(width, height), pixels))
}

/// The decoder's error without the values it may quote: a TIFF tag holds free text.
fn failure(format: Format, error: ImageError, limits: &Limits) -> DecodeError {
    match error {
        ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::InsufficientMemory => DecodeError::TooMuchMemory {
                format,
                needed: limits.max_alloc_bytes.saturating_add(1),
                limit: limits.max_alloc_bytes,
            },
            _ => DecodeError::damaged(format, "expected an image within its own limits"),
        },
        ImageError::Unsupported(_) => DecodeError::unsupported(format, "this variant (depth, compression or colour)"),
        ImageError::Decoding(_) if format == Format::Tiff => {
            DecodeError::damaged(format, "expected a valid image, found a damaged one")
        }
        ImageError::IoError(_) => DecodeError::damaged(format, "expected more data, found the end of the file"),
        error => DecodeError::damaged(format, shortened(&error.to_string())),
    }
}

/// At most 160 characters of a decoder's message, on one line.
fn shortened(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect()
}
