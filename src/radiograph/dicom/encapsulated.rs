//! Compressed pixel data (PS3.5 8.2 and A.4) back to cells.
//!
//! The codestream states its own size and depth; both must agree with the attributes before a decoder sees them, or a
//! film of 32 x 32 could hold a codestream of 65535 x 65535. All fragments belong to the one frame a film has.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_dictionary_std::{tags, uids};
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_transfer_syntax_registry::TransferSyntax;

use super::attributes::wrong;
use super::cells::{Cells, native};
use super::codestream::{agree, ends, jpeg_2000_size, jpeg_header, whole_bytes};
use super::file_meta::unsupported;
use super::image_pixel::ImagePixel;
use super::jpeg_extended;
use super::structure::Encoding;
use crate::radiograph::jpeg::{self, Process};
use crate::radiograph::{DecodeError, Format, Limits};

/// The cells of a compressed film; `held` is what the caller keeps in memory besides.
pub(super) fn decode<'a>(
    fragments: &[&'a [u8]],
    syntax: &'static TransferSyntax,
    pixel: &ImagePixel,
    held: usize,
    limits: &Limits,
) -> Result<Cells<'a>, DecodeError> {
    let codestream: Cow<'a, [u8]> = match fragments {
        [] => return Err(wrong(tags::PIXEL_DATA, "a fragment", "none")),
        [one] => Cow::Borrowed(*one),
        many => Cow::Owned(many.concat()),
    };
    let held = held + if fragments.len() > 1 { codestream.len() } else { 0 };
    match syntax.uid() {
        uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => {
            // With one fragment it is the caller's buffer itself, else the joined one.
            match codestream {
                Cow::Borrowed(value) => native(value, false, Encoding::ExplicitLittle, pixel),
                Cow::Owned(value) => native(&value, false, Encoding::ExplicitLittle, pixel).map(Cells::into_owned),
            }
        }
        uids::JPEG_BASELINE8_BIT | uids::JPEG_EXTENDED12_BIT | uids::JPEG_LOSSLESS | uids::JPEG_LOSSLESS_SV1 => {
            decode_jpeg(codestream, syntax, pixel, held, limits)
        }
        uids::JPEGLS_LOSSLESS | uids::JPEGLS_NEAR_LOSSLESS => {
            let header = jpeg_header(&codestream)?;
            agree(pixel, [header.width.into(), header.height.into()], header.components.into(), header.precision)?;
            if header.process != Process::JpegLs || !pixel.photometric.is_monochrome() {
                return Err(DecodeError::unsupported(Format::Dicom, "JPEG-LS of this process or in colour"));
            }
            whole_bytes(pixel, header.precision)?;
            ends(&codestream, header.scan_at)?;
            by_registry(codestream, syntax, pixel, held, limits, 2)
        }
        uids::RLE_LOSSLESS => by_registry(codestream, syntax, pixel, held, limits, 3),
        uids::JPEG2000_LOSSLESS | uids::JPEG2000 | uids::HTJ2K_LOSSLESS | uids::HTJ2K_LOSSLESS_RPCL | uids::HTJ2K => {
            let size = jpeg_2000_size(&codestream)?;
            agree(pixel, size.size, size.components, size.precision)?;
            ends(&codestream, 0)?;
            // The decoder works on 32 bits a sample, twice while it undoes the wavelets.
            by_registry(codestream, syntax, pixel, held, limits, 9)
        }
        _ => Err(unsupported(syntax)),
    }
}

fn decode_jpeg<'a>(
    codestream: Cow<'a, [u8]>,
    syntax: &'static TransferSyntax,
    pixel: &ImagePixel,
    held: usize,
    limits: &Limits,
) -> Result<Cells<'a>, DecodeError> {
    let header = jpeg_header(&codestream)?;
    agree(pixel, [header.width.into(), header.height.into()], header.components.into(), header.precision)?;
    ends(&codestream, header.scan_at)?;
    match (header.process, header.precision) {
        (Process::Sequential | Process::Progressive, 8) => {
            let gray = jpeg::gray(&codestream, &header, Format::Dicom, held, limits)?;
            Ok(match pixel.photometric.is_monochrome() {
                true if pixel.bits_stored < 8 => Cells::Overshooting(gray.into_iter().map(u16::from).collect()),
                true => Cells::Bytes(Cow::Owned(gray)),
                false => Cells::Luminance(gray),
            })
        }
        (Process::Sequential, 12) if pixel.photometric.is_monochrome() => {
            limits.admit(Format::Dicom, pixel.dimensions(), held, 2 * pixel.size.area())?;
            let words = jpeg_extended::decode(&codestream)
                .map_err(|reason| DecodeError::damaged(Format::Dicom, format!("12-bit JPEG: {reason}")))?;
            Ok(Cells::Overshooting(words))
        }
        (Process::Lossless, _) => {
            whole_bytes(pixel, header.precision)?;
            by_registry(codestream, syntax, pixel, held, limits, 8)
        }
        (process, bits) => {
            Err(DecodeError::unsupported(Format::Dicom, format!("{process:?} JPEG coding of {bits} bits")))
        }
    }
}

/// Decodes through the transfer syntax registry, at a cost of `bytes_per_sample` besides the film.
fn by_registry<'a>(
    codestream: Cow<'_, [u8]>,
    syntax: &'static TransferSyntax,
    pixel: &ImagePixel,
    held: usize,
    limits: &Limits,
    bytes_per_sample: u64,
) -> Result<Cells<'a>, DecodeError> {
    let native = pixel.native_bytes();
    let samples = pixel.size.area() * u64::from(pixel.photometric.samples());
    limits.admit(Format::Dicom, pixel.dimensions(), held, native + samples * bytes_per_sample)?;
    let reader = syntax.pixel_data_reader().ok_or_else(|| unsupported(syntax))?;
    let source = Frame { codestream, syntax, pixel };
    let mut cells = Vec::new();
    // These decoders panic on damaged data; what they wrote so far is dropped with the error.
    let decoded = catch_unwind(AssertUnwindSafe(|| reader.decode_frame(&source, 0, &mut cells).is_ok()));
    if !matches!(decoded, Ok(true)) {
        return Err(DecodeError::damaged(Format::Dicom, format!("expected valid data in {}", syntax.name())));
    }
    if cells.len() as u64 != native {
        return Err(wrong(tags::PIXEL_DATA, format!("{native} bytes decoded"), format!("{} bytes", cells.len())));
    }
    let lossy = matches!(syntax.uid(), uids::JPEGLS_NEAR_LOSSLESS | uids::JPEG2000 | uids::HTJ2K);
    Ok(match pixel.bits_allocated {
        8 => Cells::Bytes(Cow::Owned(cells)),
        _ if lossy && !pixel.signed && pixel.shift() == 0 => {
            Cells::Overshooting(cells.as_chunks().0.iter().map(|&cell| u16::from_le_bytes(cell)).collect())
        }
        _ => Cells::Words { bytes: Cow::Owned(cells), big_endian: false },
    })
}

/// A film as the registry's decoders ask for it: validated attributes and one fragment.
struct Frame<'a> {
    codestream: Cow<'a, [u8]>,
    syntax: &'static TransferSyntax,
    pixel: &'a ImagePixel,
}

impl PixelDataObject for Frame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.syntax.uid()
    }

    fn rows(&self) -> Option<u16> {
        self.pixel.size.height.try_into().ok()
    }

    fn cols(&self) -> Option<u16> {
        self.pixel.size.width.try_into().ok()
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(self.pixel.photometric.samples())
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(self.pixel.bits_allocated)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.pixel.bits_stored)
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some(if self.pixel.photometric.is_monochrome() { "MONOCHROME2" } else { "RGB" })
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(&*self.codestream))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData { fragments: vec![self.codestream.to_vec()].into(), offset_table: vec![].into() })
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;
    use dicom_encoding::adapters::EncodeOptions;
    use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
    use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

    use super::*;
    use crate::geometry::Size;
    use crate::radiograph::decode as decode_any;
    use crate::radiograph::dicom::codings;
    use crate::radiograph::dicom::image_pixel::Photometric;
    use crate::radiograph::dicom::synthetic::Synthetic;

    const SIZE: (u16, u16) = (20, 15);

    fn cells() -> Vec<u16> {
        (0..300).map(|i| (i * 1237 % 4096) as u16).collect()
    }

    fn film() -> Synthetic {
        Synthetic::words(SIZE.0, SIZE.1, 12, &cells())
    }

    fn decoded(film: &Synthetic, uid: &str) -> Result<Vec<u16>, DecodeError> {
        decode_any(&film.file(uid), &Limits::default()).map(|film| film.pixels)
    }

    /// Encodes through the registry, which has writers for some codings.
    fn registry_encoded(uid: &'static str) -> Vec<u8> {
        let syntax = TransferSyntaxRegistry.get(uid).expect("registered");
        let pixel = ImagePixel {
            size: Size::new(SIZE.0.into(), SIZE.1.into()),
            photometric: Photometric::Monochrome2,
            planar: false,
            bits_allocated: 16,
            bits_stored: 12,
            high_bit: 11,
            signed: false,
        };
        let bytes: Vec<u8> = cells().iter().flat_map(|cell| cell.to_le_bytes()).collect();
        let source = Frame { codestream: Cow::Owned(bytes), syntax, pixel: &pixel };
        let mut codestream = Vec::new();
        let writer = syntax.pixel_data_writer().expect("a writer");
        writer.encode_frame(&source, 0, EncodeOptions::default(), &mut codestream).expect("encoded");
        codestream
    }

    /// Every lossless coding that can be encoded here, with its transfer syntax.
    fn lossless() -> Vec<(&'static str, Vec<u8>)> {
        let raw = cells().iter().flat_map(|cell| cell.to_le_bytes()).collect();
        let jpeg = codings::jpeg_lossless(SIZE.0, SIZE.1, 12, &cells());
        vec![
            (uids::RLE_LOSSLESS, codings::rle(&cells())),
            (uids::JPEG_LOSSLESS, jpeg.clone()),
            (uids::JPEG_LOSSLESS_SV1, jpeg),
            (uids::JPEGLS_LOSSLESS, registry_encoded(uids::JPEGLS_LOSSLESS)),
            (uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN, raw),
        ]
    }

    #[test]
    fn lossless_codings_give_exactly_the_uncompressed_film() {
        let expected = film().pixels();
        for (uid, codestream) in lossless() {
            let whole = film().with_fragments(&[codestream]);
            assert_eq!(decoded(&whole, uid).expect(uid), expected, "{uid}");
        }
    }

    #[test]
    fn a_frame_may_come_in_several_fragments() {
        for (uid, codestream) in lossless() {
            let (a, b) = codestream.split_at(codestream.len() / 4 * 2);
            let parts = film().with_fragments(&[a.to_vec(), b.to_vec()]);
            assert_eq!(decoded(&parts, uid).expect(uid), film().pixels(), "{uid}");
        }
    }

    #[test]
    fn a_damaged_codestream_is_refused() {
        for (uid, codestream) in lossless() {
            for share in [0, 5, 50, 95] {
                let cut = codestream[..codestream.len() * share / 100].to_vec();
                assert!(decoded(&film().with_fragments(&[cut]), uid).is_err(), "{uid} cut at {share} %");
            }
        }
        assert!(decoded(&film().with_fragments(&[]), uids::RLE_LOSSLESS).is_err(), "no fragment");
    }

    #[test]
    fn a_codestream_of_another_size_is_refused_before_it_is_decoded() {
        for (uid, codestream) in lossless() {
            let wider = film().with(tags::COLUMNS, VR::US, SIZE.0 + 1).with_fragments(&[codestream]);
            assert!(decoded(&wider, uid).is_err(), "{uid}");
        }
        let jpeg = codings::jpeg_lossless(65_535, 65_535, 12, &cells());
        let error = decoded(&film().with_fragments(&[jpeg]), uids::JPEG_LOSSLESS).expect_err("a bomb").to_string();
        assert!(error.contains("Rows (0028,0010): expected 65535 as in the codestream, found 15"), "{error}");
    }

    #[test]
    fn a_12_bit_jpeg_is_within_its_loss_and_clamped_to_bits_stored() {
        let jpeg = codings::jpeg_extended(SIZE.0, SIZE.1, 0, &cells());
        let pixels =
            decoded(&film().with_fragments(std::slice::from_ref(&jpeg)), uids::JPEG_EXTENDED12_BIT).expect("a film");
        let worst = pixels.iter().zip(film().pixels()).map(|(a, b)| a.abs_diff(b)).max();
        assert!(worst.is_some_and(|worst| worst <= 3 * 16), "{worst:?} of 65535");
        // With 10 bits stored, values beyond 1023 are overshoot: white, not wrapped around to black.
        let shallow = film().with(tags::BITS_STORED, VR::US, 10u16).with(tags::HIGH_BIT, VR::US, 9u16);
        let pixels = decoded(&shallow.with_fragments(&[jpeg]), uids::JPEG_EXTENDED12_BIT).expect("a film");
        let beyond = cells().iter().position(|&cell| cell > 2000 && cell % 1024 < 500).expect("there is one");
        assert_eq!(pixels[beyond], 65_535);
    }

    #[test]
    fn a_baseline_jpeg_gives_gray_or_luminance() {
        let encode = |image: image::DynamicImage| {
            let mut bytes = Vec::new();
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
            image.write_with_encoder(encoder).expect("encoded");
            bytes
        };
        let gray = image::GrayImage::from_fn(16, 8, |x, _| image::Luma([(17 * x) as u8]));
        let film = Synthetic::bytes(16, 8, &[]).with_fragments(&[encode(gray.into())]);
        let pixels = decoded(&film, uids::JPEG_BASELINE8_BIT).expect("a film");
        assert!(pixels[..16].iter().zip(0..16u16).all(|(&v, x)| v.abs_diff(17 * x * 257) < 3 * 257), "{pixels:?}");
        let red = image::RgbImage::from_pixel(16, 8, image::Rgb([255, 0, 0]));
        let film = Synthetic::bytes(16, 8, &[])
            .with(tags::SAMPLES_PER_PIXEL, VR::US, 3u16)
            .with(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "YBR_FULL_422")
            .with_fragments(&[encode(red.into())]);
        let pixels = decoded(&film, uids::JPEG_BASELINE8_BIT).expect("a film");
        assert!(pixels.iter().all(|v| v.abs_diff(76 * 257) <= 257), "{pixels:?}");
    }

    #[test]
    fn video_is_refused_by_name() {
        let video = film().with_fragments(&[vec![0; 8]]);
        let error = decoded(&video, uids::MPEG4HP41).expect_err("video").to_string();
        assert!(error.contains("1.2.840.10008.1.2.4.102"), "{error}");
    }
}
