//! PNG, TIFF and BMP, through the `image` crate. Density metadata is no calibration, so there is never a scale.

use std::io::Cursor;

use image::codecs::{bmp::BmpDecoder, png::PngDecoder, tiff::TiffDecoder};
use image::error::ImageError;
use image::{ColorType, DynamicImage, ImageDecoder};

use super::luminance::{from_u8, from_u16, widen};
use super::{DecodeError, Format, Limits, Radiograph};
use crate::geometry::Size;

/// What reading a header may allocate, before the image's size is known.
const HEADER_BYTES: u64 = 16 << 20;

pub(super) fn decode(bytes: &[u8], format: Format, limits: &Limits) -> Result<Radiograph, DecodeError> {
    let reader = Cursor::new(bytes);
    let fail = |error| failure(format, error);
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
    decoder.set_limits(own).map_err(|error| failure(format, error))?;
    let image = DynamicImage::from_decoder(decoder).map_err(|error| failure(format, error))?;
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

/// The kind of the decoder's error, without the values it may quote: TIFF tags and PNG chunks hold free text.
fn failure(format: Format, error: ImageError) -> DecodeError {
    match error {
        ImageError::Limits(_) => DecodeError::damaged(format, "expected headers of reasonable size, found larger ones"),
        ImageError::Unsupported(_) => DecodeError::unsupported(format, "this variant (depth, compression or colour)"),
        ImageError::IoError(_) => DecodeError::damaged(format, "expected more data, found the end of the file"),
        _ => DecodeError::damaged(format, "expected valid data, found damaged data"),
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};

    use super::*;
    use crate::radiograph::decode;

    fn file(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("encoded");
        bytes.into_inner()
    }

    fn pixels(bytes: &[u8]) -> Vec<u16> {
        decode(bytes, &Limits::default()).expect("a film").pixels
    }

    /// The same two pixels (gray 0x40 and, with alpha, half transparent white) in every layout a format can hold.
    #[test]
    fn every_depth_and_colour_layout_gives_gray_values() {
        let gray8: DynamicImage =
            ImageBuffer::from_raw(2, 1, vec![0x40u8, 0xFF]).map(ImageBuffer::<Luma<u8>, _>::into).expect("fits");
        let gray16: DynamicImage =
            ImageBuffer::from_raw(2, 1, vec![0x1234u16, 0xFEDC]).map(ImageBuffer::<Luma<u16>, _>::into).expect("fits");
        let alpha8: DynamicImage = ImageBuffer::from_raw(2, 1, vec![0x40u8, 0xFF, 0xFF, 0x80])
            .map(ImageBuffer::<LumaA<u8>, _>::into)
            .expect("fits");
        let rgb8: DynamicImage = ImageBuffer::from_raw(2, 1, vec![0x40u8, 0x40, 0x40, 0xFF, 0, 0])
            .map(ImageBuffer::<Rgb<u8>, _>::into)
            .expect("fits");
        let rgba8: DynamicImage = ImageBuffer::from_raw(2, 1, vec![0x40u8, 0x40, 0x40, 0xFF, 0xFF, 0xFF, 0xFF, 0x80])
            .map(ImageBuffer::<Rgba<u8>, _>::into)
            .expect("fits");
        let rgb16: DynamicImage = ImageBuffer::from_raw(2, 1, vec![0x1234u16, 0x1234, 0x1234, 0, 0xFFFF, 0])
            .map(ImageBuffer::<Rgb<u16>, _>::into)
            .expect("fits");
        let rgba16: DynamicImage = ImageBuffer::from_raw(2, 1, vec![0x1234u16, 0x1234, 0x1234, 0xFFFF, 9, 9, 9, 0])
            .map(ImageBuffer::<Rgba<u16>, _>::into)
            .expect("fits");
        use ImageFormat::{Bmp, Png, Tiff};
        let v8 = 0x40 * 257;
        for (image, formats, expected) in [
            (gray8, &[Png, Tiff, Bmp][..], [v8, 0xFFFF]),
            (gray16, &[Png, Tiff], [0x1234, 0xFEDC]),
            (alpha8, &[Png], [v8, 0x8080]),
            (rgb8, &[Png, Tiff, Bmp], [v8, 19_595]),
            (rgba8, &[Png, Tiff, Bmp], [v8, 0x8080]),
            (rgb16, &[Png, Tiff], [0x1234, 38_469]),
            (rgba16, &[Png, Tiff], [0x1234, 0]),
        ] {
            for &format in formats {
                assert_eq!(pixels(&file(&image, format)), expected, "{:?} in {format:?}", image.color());
            }
        }
    }

    /// A little-endian TIFF of 2 x 1 gray pixels.
    fn gray_tiff(bits: u16, photometric: u16, data: &[u8]) -> Vec<u8> {
        let entries: [(u16, u16, u32); 8] = [
            (256, 3, 2),
            (257, 3, 1),
            (258, 3, bits.into()),
            (259, 3, 1),
            (262, 3, photometric.into()),
            (273, 4, 8 + 2 + 8 * 12 + 4),
            (278, 3, 1),
            (279, 4, data.len() as u32),
        ];
        let mut bytes = b"II\x2a\x00\x08\x00\x00\x00\x08\x00".to_vec();
        for (tag, kind, value) in entries {
            bytes.extend([tag, kind].map(u16::to_le_bytes).concat());
            bytes.extend([1, value].map(u32::to_le_bytes).concat());
        }
        bytes.extend([0; 4]);
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_tiff_whose_low_values_are_white_is_inverted() {
        assert_eq!(pixels(&gray_tiff(8, 1, &[0, 200])), [0, 51_400]);
        assert_eq!(pixels(&gray_tiff(8, 0, &[0, 200])), [65_535, 14_135]);
        assert_eq!(pixels(&gray_tiff(16, 1, &[0x34, 0x12, 0xFF, 0xFF])), [0x1234, 0xFFFF]);
        assert_eq!(pixels(&gray_tiff(16, 0, &[0x34, 0x12, 0xFF, 0xFF])), [0xFFFF - 0x1234, 0]);
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused_before_anything_is_allocated() {
        let small = DynamicImage::new_luma8(4, 4);
        let mut png = file(&small, ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let crc = crc32(&png[12..29]).to_be_bytes();
        png[29..33].copy_from_slice(&crc);
        let mut bmp = file(&small, ImageFormat::Bmp);
        bmp[18..26].copy_from_slice(&[0, 0xFF, 0, 0, 0, 0xFF, 0, 0]);
        let mut tiff = gray_tiff(8, 1, &[0, 0]);
        // Width, height and rows per strip.
        for entry in [0, 1, 6] {
            tiff[10 + 12 * entry + 8..][..4].copy_from_slice(&[0xFF, 0xFF, 0, 0]);
        }
        for bytes in [png, bmp, tiff] {
            let error = decode(&bytes, &Limits::default()).expect_err("a bomb");
            assert!(matches!(error, DecodeError::TooManyPixels { .. }), "{error}");
        }
        let deep = file(&DynamicImage::new_rgba16(100, 100), ImageFormat::Png);
        let tight = Limits { max_alloc_bytes: 90_000, ..Limits::default() };
        assert!(matches!(decode(&deep, &tight), Err(DecodeError::TooMuchMemory { .. })));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn a_cut_file_is_refused() {
        let gradient = ImageBuffer::from_fn(64, 64, |x, y| Luma([(3 * x + y) as u8]));
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff] {
            let whole = file(&gradient.clone().into(), format);
            assert!(decode(&whole, &Limits::default()).is_ok());
            for percent in [1, 10, 50, 90] {
                let cut = &whole[..whole.len() * percent / 100];
                assert!(decode(cut, &Limits::default()).is_err(), "{format:?} cut at {percent} %");
            }
        }
    }

    #[test]
    fn density_metadata_is_no_scale() {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut bytes);
        encoder.set_pixel_density(image::codecs::jpeg::PixelDensity::dpi(254));
        encoder.encode_image(&DynamicImage::new_luma8(8, 8)).expect("encoded");
        assert_eq!(decode(&bytes, &Limits::default()).expect("a film").spacing, None);
    }
}
