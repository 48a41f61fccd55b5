//! JPEG of 8 bits, read strictly: what a viewer would paint over with gray is an error here.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::luminance::{from_u8, widen};
use super::{DecodeError, Format, Limits, Radiograph, jpeg_scan};
use crate::geometry::Size;

/// The frame header of a JPEG codestream (ITU-T T.81 B.2.2, T.87 C.2.2) and where its first scan starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Which coding process, by the marker's second byte.
    pub(super) process: Process,
    /// Bits a sample.
    pub(super) precision: u8,
    /// Columns.
    pub(super) width: u16,
    /// Rows.
    pub(super) height: u16,
    /// Components in the frame.
    pub(super) components: u8,
    /// Components in the first scan.
    pub(super) scan_components: u8,
    /// Offset of the first scan's header.
    pub(super) scan_at: usize,
}

/// The coding processes, by their start-of-frame marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// SOF0 and SOF1: sequential DCT, Huffman.
    Sequential,
    /// SOF2: progressive DCT, Huffman.
    Progressive,
    /// SOF3: lossless, Huffman.
    Lossless,
    /// SOF55: JPEG-LS.
    JpegLs,
    /// Hierarchical or arithmetic coding.
    Other,
}

/// The film in a JPEG file.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Radiograph, DecodeError> {
    let header = FrameHeader::read(bytes).map_err(|reason| DecodeError::damaged(Format::Jpeg, reason))?;
    let pixels = gray(bytes, &header, Format::Jpeg, bytes.len(), limits)?;
    Ok(Radiograph::gray(Format::Jpeg, Size::new(header.width.into(), header.height.into()), widen(&pixels)))
}

/// The 8-bit gray values of a DCT codestream; of colour, its luminance. `file` is what the caller holds besides.
pub(super) fn gray(
    bytes: &[u8],
    header: &FrameHeader,
    format: Format,
    file: usize,
    limits: &Limits,
) -> Result<Vec<u8>, DecodeError> {
    let size = [header.width.into(), header.height.into()];
    limits.admit(format, size, file, 0)?;
    if !matches!(header.process, Process::Sequential | Process::Progressive) || header.precision != 8 {
        let feature = format!("{:?} JPEG coding of {} bits", header.process, header.precision);
        return Err(DecodeError::unsupported(format, feature));
    }
    if !ends(bytes, header.scan_at) {
        return Err(DecodeError::damaged(format, "expected the end-of-image marker, found none after the scan"));
    }
    if header.process == Process::Sequential {
        jpeg_scan::check(bytes).map_err(|reason| DecodeError::damaged(format, reason))?;
    }
    let damaged = |error: zune_jpeg::errors::DecodeErrors| DecodeError::damaged(format, error.to_string());
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::Luma);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    // The Y of YCbCr is the luminance wanted here, so its chroma need not even be decoded.
    let is_luminance = matches!(decoder.input_colorspace(), Some(ColorSpace::Luma | ColorSpace::YCbCr));
    let area = u64::from(header.width) * u64::from(header.height);
    // Coefficients of all components are kept unless one scan holds them all; else a few rows.
    let kept = header.process == Process::Progressive || header.scan_components < header.components;
    let coefficients = if kept { 2 * area * u64::from(header.components) } else { 0 };
    let samples = if is_luminance { area } else { 4 * area };
    limits.admit(format, size, file, coefficients + samples)?;
    if is_luminance {
        return decoder.decode().map_err(damaged);
    }
    decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::RGB));
    let rgb = decoder.decode().map_err(damaged)?;
    Ok(from_u8::<3>(&rgb).into_iter().map(|v| (v / 257) as u8).collect())
}

/// Whether an end-of-image marker follows the scan that starts at `scan_at`: in entropy-coded data 0xFF is always
/// followed by 0 or a restart marker.
pub(super) fn ends(bytes: &[u8], scan_at: usize) -> bool {
    bytes.get(scan_at..).is_some_and(|scan| scan.windows(2).rev().any(|pair| pair == [0xFF, 0xD9]))
}

impl FrameHeader {
    /// The header of the codestream that starts `bytes`.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(&[0xFF, 0xD8]) {
            return Err("expected a JPEG start-of-image marker".to_owned());
        }
        let mut frame: Option<Self> = None;
        let mut at = 2;
        loop {
            let Segment { marker, body, end } = Segment::read(bytes, at)?;
            match (marker, frame) {
                (0xDA, Some(frame)) => {
                    let scan_components = *body.first().ok_or("expected a scan header")?;
                    return Ok(Self { scan_components, scan_at: at, ..frame });
                }
                (0xDA, None) => return Err("expected a frame header before the scan".to_owned()),
                (0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7, None) => {
                    frame = Some(Self::from_segment(marker, body)?);
                }
                (0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7, Some(_)) => {
                    return Err("expected one frame header, found two".to_owned());
                }
                _ => {}
            }
            at = end;
        }
    }

    fn from_segment(marker: u8, body: &[u8]) -> Result<Self, String> {
        let &[precision, h1, h0, w1, w0, components, ..] = body else {
            return Err("expected a whole frame header".to_owned());
        };
        let process = match marker {
            0xC0 | 0xC1 => Process::Sequential,
            0xC2 => Process::Progressive,
            0xC3 => Process::Lossless,
            0xF7 => Process::JpegLs,
            _ => Process::Other,
        };
        let [width, height] = [u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])];
        Ok(Self { process, precision, width, height, components, scan_components: 0, scan_at: 0 })
    }
}

/// A marker segment: `FF marker length body`.
pub(super) struct Segment<'a> {
    /// The marker's second byte.
    pub(super) marker: u8,
    /// Its parameters.
    pub(super) body: &'a [u8],
    /// Where the next one starts.
    pub(super) end: usize,
}

impl<'a> Segment<'a> {
    /// The segment at `at`; fill bytes before a marker are skipped.
    pub(super) fn read(bytes: &'a [u8], at: usize) -> Result<Self, String> {
        let cut = || "expected a marker segment, found the end of the data".to_owned();
        let fill = bytes.get(at..).ok_or_else(cut)?.iter().take_while(|&&b| b == 0xFF).count();
        if fill == 0 {
            return Err(format!("expected a marker at byte {at}"));
        }
        let marker_at = at + fill;
        let [marker, l1, l0] = *bytes.get(marker_at..marker_at + 3).ok_or_else(cut)? else {
            return Err(cut());
        };
        let length = usize::from(u16::from_be_bytes([l1, l0]));
        let end = marker_at + 1 + length;
        if length < 2 || matches!(marker, 0 | 0x01 | 0xD0..=0xD9) {
            return Err(format!("expected a marker segment at byte {at}, found marker {marker:#04x}"));
        }
        let body = bytes.get(marker_at + 3..end).ok_or_else(cut)?;
        Ok(Self { marker, body, end })
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

    use super::*;
    use crate::radiograph::decode;

    fn file(image: impl Into<DynamicImage>, quality: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality)
            .encode_image(&image.into())
            .expect("encoded");
        bytes
    }

    /// A film with detail everywhere, so that a cut is a loss.
    fn textured() -> Vec<u8> {
        file(GrayImage::from_fn(200, 120, |x, y| Luma([((x * 7 + y * 13) % 251) as u8])), 90)
    }

    #[test]
    fn gray_values_survive_within_the_loss() {
        let film = decode(&file(GrayImage::from_fn(64, 48, |x, _| Luma([(4 * x) as u8])), 100), &Limits::default())
            .expect("a film");
        assert_eq!((film.format, film.size), (Format::Jpeg, Size::new(64, 48)));
        for x in 0..64 {
            let (value, expected) = (film.pixels[20 * 64 + x] / 257, 4 * x as u16);
            assert!(value.abs_diff(expected) <= 2, "{value} for {expected}");
        }
    }

    #[test]
    fn colour_gives_its_luminance() {
        for (colour, expected) in [([255, 0, 0], 76u16), ([0, 255, 0], 150), ([0, 0, 255], 29), ([90, 90, 90], 90)] {
            let film =
                decode(&file(RgbImage::from_pixel(16, 16, Rgb(colour)), 100), &Limits::default()).expect("a film");
            assert!((film.pixels[40] / 257).abs_diff(expected) <= 1, "{colour:?}");
        }
    }

    #[test]
    fn a_cut_or_zero_tailed_film_is_refused() {
        let whole = textured();
        assert!(decode(&whole, &Limits::default()).is_ok());
        for cut in (4..whole.len() - 1).step_by(7).chain([whole.len() - 1]) {
            assert!(decode(&whole[..cut], &Limits::default()).is_err(), "{cut} of {}", whole.len());
            let mut tail = whole[..cut].to_vec();
            tail.resize(whole.len(), 0);
            assert!(decode(&tail, &Limits::default()).is_err(), "zeros from {cut} of {}", whole.len());
        }
    }

    #[test]
    fn a_scan_that_ends_early_is_refused_even_with_an_end_marker() {
        let whole = textured();
        let scan = FrameHeader::read(&whole).expect("a header").scan_at;
        for share in [10, 50, 80] {
            let mut cut = whole[..scan + (whole.len() - scan) * share / 100].to_vec();
            cut.extend([0xFF, 0xD9]);
            assert!(decode(&cut, &Limits::default()).is_err(), "{share} %");
        }

        // A hole in the middle, as a lost block of a network copy leaves it.
        let mut hole = whole;
        let middle = scan + (hole.len() - scan) / 2;
        hole[middle..middle + 64].fill(0);
        assert!(decode(&hole, &Limits::default()).is_err(), "a hole");
    }

    #[test]
    fn every_sampling_and_restart_interval_is_counted_right() {
        use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
        let rgb: Vec<u8> = (0..3 * 37 * 21).map(|i| (i * 7 % 256) as u8).collect();
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_1_2, SamplingFactor::F_2_2] {
            for interval in [0, 1, 3] {
                let mut bytes = Vec::new();
                let mut encoder = Encoder::new(&mut bytes, 90);
                encoder.set_sampling_factor(sampling);
                encoder.set_restart_interval(interval);
                encoder.encode(&rgb, 37, 21, ColorType::Rgb).expect("encoded");
                assert!(decode(&bytes, &Limits::default()).is_ok(), "{sampling:?}, {interval}");
            }
        }
    }

    #[test]
    fn what_follows_the_image_does_not_matter() {
        let mut bytes = textured();
        let whole = decode(&bytes, &Limits::default()).expect("a film").pixels;
        bytes.extend([0; 100]);
        assert_eq!(decode(&bytes, &Limits::default()).expect("a film").pixels, whole);
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused() {
        let mut bytes = textured();
        let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).expect("a frame header");
        bytes[frame + 5..frame + 9].fill(0xFF);
        assert!(matches!(
            decode(&bytes, &Limits::default()),
            Err(DecodeError::TooManyPixels { width: 65_535, height: 65_535, .. })
        ));
        bytes[frame + 5..frame + 7].fill(0);
        assert!(matches!(decode(&bytes, &Limits::default()), Err(DecodeError::Damaged { .. })), "no rows");
    }

    #[test]
    fn codings_that_are_not_read_are_named() {
        for (marker, precision, name) in
            [(0xC3, 8, "Lossless JPEG coding of 8 bits"), (0xC1, 12, "Sequential JPEG coding of 12 bits")]
        {
            let mut bytes = textured();
            let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).expect("a frame header");
            (bytes[frame + 1], bytes[frame + 4]) = (marker, precision);
            let message = decode(&bytes, &Limits::default()).expect_err(name).to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
