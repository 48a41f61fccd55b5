//! From a DICOM file to a film: the steps in order.

use std::borrow::Cow;

use dicom_object::InMemDicomObject;

use super::attributes::Attributes;
use super::cells::native;
use super::encapsulated;
use super::file_meta::File;
use super::grayscale::Grayscale;
use super::identity::identity;
use super::image_pixel::ImagePixel;
use super::spacing::pixel_spacing;
use super::structure::{PixelData, split};
use crate::radiograph::{DecodeError, Format, Limits, Radiograph};

/// The film in a DICOM file.
pub(in crate::radiograph) fn decode(bytes: &[u8], limits: &Limits) -> Result<Radiograph, DecodeError> {
    let file = File::open(bytes, limits)?;
    // An inflated data set is held besides the file.
    let held = match &file.data_set {
        Cow::Borrowed(_) => bytes.len(),
        Cow::Owned(inflated) => bytes.len() + inflated.len(),
    };
    let data_set = split(&file.data_set, file.encoding)?;
    let object = InMemDicomObject::read_dataset_with_ts(&data_set.head[..], file.encoding.syntax()).map_err(|_| {
        DecodeError::damaged(Format::Dicom, "expected valid values in the image attributes, found damaged ones")
    })?;
    let attributes = Attributes(&object);
    let pixel = ImagePixel::read(attributes)?;
    limits.admit(Format::Dicom, pixel.dimensions(), held, 0)?;
    let cells = match data_set.pixel_data {
        PixelData::Native { value, words } => native(value, words, file.encoding, &pixel)?,
        PixelData::Encapsulated(fragments) => encapsulated::decode(&fragments, file.syntax, &pixel, held, limits)?,
    };
    let pixels = if pixel.photometric.is_monochrome() {
        let grayscale = Grayscale::read(attributes, &pixel)?;
        let table = grayscale.table(&pixel, || {
            let mut present = vec![false; pixel.codes()];
            cells.codes(&pixel, |code| present[code] = true);
            present
        });
        let mut pixels = Vec::with_capacity(pixel.size.area() as usize);
        cells.codes(&pixel, |code| pixels.push(table[code]));
        pixels
    } else {
        cells.luminance(&pixel)
    };
    let gray = Radiograph::gray(Format::Dicom, pixel.size, pixels);
    Ok(Radiograph { spacing: pixel_spacing(attributes), dicom: Some(identity(attributes)), ..gray })
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;
    use dicom_core::value::PrimitiveValue;
    use dicom_dictionary_std::{tags, uids};

    use super::*;
    use crate::geometry::{Size, SpacingSource};
    use crate::radiograph::decode as decode_any;
    use crate::radiograph::dicom::synthetic::{BIG_ENDIAN, Synthetic};

    /// 3 x 2 cells of 12 bits over the full range.
    const RAMP: [u16; 6] = [0, 819, 1638, 2457, 3276, 4095];
    const SPREAD: [u16; 6] = [0, 13_107, 26_214, 39_321, 52_428, 65_535];

    fn ramp() -> Synthetic {
        Synthetic::words(3, 2, 12, &RAMP)
    }

    fn pixels(bytes: &[u8]) -> Vec<u16> {
        let film = decode_any(bytes, &Limits::default()).expect("a film");
        assert_eq!((film.format, film.size), (Format::Dicom, Size::new(3, 2)));
        film.pixels
    }

    #[test]
    fn every_uncompressed_transfer_syntax_gives_the_same_film() {
        for uid in [
            uids::EXPLICIT_VR_LITTLE_ENDIAN,
            uids::IMPLICIT_VR_LITTLE_ENDIAN,
            BIG_ENDIAN,
            uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        ] {
            assert_eq!(pixels(&ramp().file(uid)), SPREAD, "{uid}");
        }
    }

    #[test]
    fn a_film_needs_neither_preamble_nor_file_meta() {
        for uid in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN, BIG_ENDIAN] {
            assert_eq!(pixels(&ramp().data_set(uid)), SPREAD, "bare data set, {uid}");
        }
        let file = ramp().file(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        assert_eq!(pixels(&file[132..]), SPREAD, "file meta without preamble");
        let mut preamble = vec![0; 128];
        preamble.extend_from_slice(b"DICM");
        preamble.extend(ramp().data_set(uids::IMPLICIT_VR_LITTLE_ENDIAN));
        assert_eq!(pixels(&preamble), SPREAD, "preamble without file meta");
    }

    #[test]
    fn eight_bit_cells_of_big_endian_words_are_swapped_back() {
        let bytes = [0u8, 51, 102, 153, 204, 255];
        assert_eq!(Synthetic::bytes(3, 2, &bytes).pixels(), SPREAD);
        // As PS3.5 annex D has them: the first cell is the word's low byte, which big endian writes second.
        let words = PrimitiveValue::U16(bytes.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect());
        let film = Synthetic::bytes(3, 2, &bytes).with(tags::PIXEL_DATA, VR::OW, words);
        assert_eq!(pixels(&film.file(BIG_ENDIAN)), SPREAD);
        assert_eq!(pixels(&film.file(uids::EXPLICIT_VR_LITTLE_ENDIAN)), SPREAD);
    }

    #[test]
    fn a_monochrome1_film_is_its_monochrome2_twins_negative() {
        let negative = Synthetic::words(3, 2, 12, &RAMP.map(|v| 4095 - v));
        let twin = negative.clone().with(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
        assert_eq!(twin.pixels(), ramp().pixels());
        let window = |film: Synthetic, center| {
            film.with(tags::WINDOW_CENTER, VR::DS, center).with(tags::WINDOW_WIDTH, VR::DS, "2001")
        };
        // Centres at 1500 and 4095 - 1500; LINEAR is off by half a value at both, so they mirror at 2596.
        assert_eq!(window(twin.clone(), "2596").pixels(), window(ramp(), "1500").pixels());
        let shape = |film: Synthetic, shape| film.with(tags::PRESENTATION_LUT_SHAPE, VR::CS, shape).pixels();
        assert_eq!(shape(twin, "INVERSE"), SPREAD, "inverted once, not twice");
        assert_eq!(shape(negative, "INVERSE"), SPREAD);
        assert_eq!(shape(ramp(), "IDENTITY"), SPREAD);
    }

    #[test]
    fn bits_above_bits_stored_are_no_part_of_the_value() {
        let with_overlay = Synthetic::words(3, 2, 12, &RAMP.map(|v| v | 0xA000));
        assert_eq!(with_overlay.pixels(), SPREAD);
        let high = Synthetic::words(3, 2, 12, &RAMP.map(|v| v << 4 | 0x5)).with(tags::HIGH_BIT, VR::US, 15u16);
        assert_eq!(high.pixels(), SPREAD);
    }

    #[test]
    fn signed_cells_are_in_twos_complement_of_bits_stored() {
        let cells = RAMP.map(|v| v.wrapping_sub(2048) & 0x0FFF);
        let film = Synthetic::words(3, 2, 12, &cells).with(tags::PIXEL_REPRESENTATION, VR::US, 1u16);
        assert_eq!(film.pixels(), SPREAD);
    }

    #[test]
    fn more_than_eight_bits_are_kept() {
        let cells: Vec<u16> = (0..=u16::MAX).collect();
        let film = Synthetic::words(256, 256, 16, &cells);
        assert_eq!(film.pixels(), cells);
    }

    #[test]
    fn the_modality_lut_goes_before_the_voi_lut() {
        // Stored 0, 819 -> first entry 10; 820 -> 20; above -> 40. VOI from 10: 10 -> 0, 11..20 -> 100, then 255.
        let cells = [0, 819, 820, 821, 822, 4095];
        let mut voi = vec![100; 31];
        (voi[0], voi[30]) = (0, 255);
        let film = Synthetic::words(3, 2, 12, &cells)
            .with_lut(tags::MODALITY_LUT_SEQUENCE, [4, 819, 16], &[10, 20, 30, 40])
            .with_lut(tags::VOILUT_SEQUENCE, [31, 10, 8], &voi)
            .with(tags::WINDOW_CENTER, VR::DS, "1")
            .with(tags::WINDOW_WIDTH, VR::DS, "1");
        assert_eq!(film.pixels(), [0, 0, 25_700, 25_700, 65_535, 65_535]);
    }

    #[test]
    fn the_rescaled_value_goes_through_the_first_window() {
        // 2 v - 1000 in 0..=6190 steps; window LINEAR_EXACT from 0 to 4000 -> y = (2 v - 1000) / 4000.
        let film = ramp()
            .with(tags::RESCALE_SLOPE, VR::DS, "2")
            .with(tags::RESCALE_INTERCEPT, VR::DS, "-1000")
            .with(tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT")
            .with(tags::WINDOW_CENTER, VR::DS, "2000\\1")
            .with(tags::WINDOW_WIDTH, VR::DS, "4000\\1");
        let expected = [0.0, 0.1595, 0.569, 0.9785, 1.0, 1.0].map(|y: f64| (y * 65_535.0).round() as u16);
        assert_eq!(film.pixels(), expected);
    }

    #[test]
    fn a_window_that_is_not_set_is_ignored() {
        let film = ramp().with(tags::WINDOW_CENTER, VR::DS, "0").with(tags::WINDOW_WIDTH, VR::DS, "0");
        assert_eq!(film.pixels(), SPREAD);
        let empty = ramp().with(tags::WINDOW_CENTER, VR::DS, "").with(tags::WINDOW_WIDTH, VR::DS, "");
        assert_eq!(empty.pixels(), SPREAD);
    }

    #[test]
    fn padding_does_not_dim_the_film() {
        let film = Synthetic::words(3, 2, 12, &[0, 2000, 2200, 2400, 2600, 3000]).with(
            tags::PIXEL_PADDING_VALUE,
            VR::US,
            0u16,
        );
        assert_eq!(film.pixels(), [0, 0, 13_107, 26_214, 39_321, 65_535]);
    }

    #[test]
    fn colour_films_give_their_luminance() {
        let colour = |photometric: &'static str, planar: u16, samples: &[u8]| {
            Synthetic::bytes(2, 1, samples)
                .with(tags::SAMPLES_PER_PIXEL, VR::US, 3u16)
                .with(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, photometric)
                .with(tags::PLANAR_CONFIGURATION, VR::US, planar)
                .pixels()
        };
        assert_eq!(colour("RGB", 0, &[255, 0, 0, 0, 0, 255]), [19_595, 7_471]);
        assert_eq!(colour("RGB", 1, &[255, 0, 0, 0, 0, 255]), [19_595, 7_471]);
        assert_eq!(colour("YBR_FULL", 0, &[100, 1, 2, 200, 3, 4]), [25_700, 51_400]);
    }

    #[test]
    fn the_scale_and_the_identifiers_come_along() {
        let film = ramp().with(tags::IMAGER_PIXEL_SPACING, VR::DS, "0.2\\0.1").decode().expect("a film");
        let spacing = film.spacing.expect("a scale");
        assert_eq!((spacing.x_mm, spacing.y_mm, spacing.source), (0.1, 0.2, SpacingSource::Detector));
        let identity = film.dicom.expect("identifiers");
        assert_eq!(identity.sop_instance_uid.as_deref(), Some("1.2.3.4.5"));
        assert_eq!(identity.study_instance_uid.as_deref(), Some("1.2.3"));
        assert_eq!(ramp().with(tags::PIXEL_SPACING, VR::DS, "0.2\\0.1").decode().expect("a film").spacing, None);
    }

    #[test]
    fn attributes_that_make_no_film_are_refused_by_name() {
        for (film, names) in [
            (ramp().with(tags::ROWS, VR::US, 0u16), "Rows (0028,0010): expected 1 to 65535, found 0"),
            (ramp().without(tags::COLUMNS), "Columns (0028,0011): expected a value, found none"),
            (ramp().with(tags::ROWS, VR::US, 3u16), "PixelData (7FE0,0010): expected 18 bytes, found 12 bytes"),
            (ramp().with(tags::ROWS, VR::US, 1u16), "PixelData (7FE0,0010): expected 6 bytes, found 12 bytes"),
            (ramp().with(tags::BITS_ALLOCATED, VR::US, 12u16), "BitsAllocated (0028,0100): expected 8 or 16, found 12"),
            (ramp().with(tags::BITS_STORED, VR::US, 0u16), "BitsStored (0028,0101): expected 1 to 16, found 0"),
            (ramp().with(tags::BITS_STORED, VR::US, 28u16), "BitsStored (0028,0101): expected 1 to 16, found 28"),
            (ramp().with(tags::HIGH_BIT, VR::US, 16u16), "HighBit (0028,0102): expected 11 to 15, found 16"),
            (ramp().with(tags::HIGH_BIT, VR::US, 7u16), "HighBit (0028,0102): expected 11 to 15, found 7"),
            (ramp().with(tags::PIXEL_REPRESENTATION, VR::US, 2u16), "PixelRepresentation (0028,0103)"),
            (ramp().with(tags::SAMPLES_PER_PIXEL, VR::US, 3u16), "SamplesPerPixel (0028,0002): expected 1 with"),
            (ramp().with(tags::NUMBER_OF_FRAMES, VR::IS, "30"), "NumberOfFrames (0028,0008): expected 1 (a film"),
            (ramp().with(tags::RESCALE_SLOPE, VR::DS, "0"), "RescaleSlope (0028,1053): expected other than zero"),
            (ramp().with(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR"), "found PALETTE COLOR"),
            (ramp().without(tags::PHOTOMETRIC_INTERPRETATION), "PhotometricInterpretation (0028,0004)"),
            (ramp().without(tags::PIXEL_DATA), "PixelData (7FE0,0010): expected a value, found none"),
            (
                ramp().with_lut(tags::MODALITY_LUT_SEQUENCE, [3, 0, 16], &[1, 2]),
                "LUTData (0028,3006): expected 3 entries, found 2",
            ),
            (ramp().with_lut(tags::MODALITY_LUT_SEQUENCE, [1, 0, 17], &[1]), "LUTDescriptor (0028,3002)"),
        ] {
            let message = film.decode().expect_err(names).to_string();
            assert!(message.contains(names), "{message} for {names}");
        }
    }

    #[test]
    fn a_film_beyond_the_limits_is_refused_before_its_pixels_are_read() {
        let film = ramp().with(tags::ROWS, VR::US, 65_535u16).with(tags::COLUMNS, VR::US, 65_535u16);
        assert!(matches!(film.decode(), Err(DecodeError::TooManyPixels { .. })));
        let bytes = ramp().file(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN);
        let tight = Limits { max_pixels: 100, max_alloc_bytes: bytes.len() as u64 + 100 };
        assert!(matches!(decode_any(&bytes, &tight), Err(DecodeError::TooMuchMemory { .. })), "while it is inflated");
    }

    #[test]
    fn no_message_repeats_text_from_the_file() {
        const CANARY: &str = "CANARY";
        let texts = [
            (tags::PATIENT_NAME, VR::PN),
            (tags::PATIENT_ID, VR::LO),
            (tags::SOP_INSTANCE_UID, VR::UI),
            (tags::PHOTOMETRIC_INTERPRETATION, VR::CS),
            (tags::NUMBER_OF_FRAMES, VR::IS),
            (tags::RESCALE_SLOPE, VR::DS),
            (tags::RESCALE_INTERCEPT, VR::DS),
            (tags::WINDOW_CENTER, VR::DS),
            (tags::WINDOW_WIDTH, VR::DS),
            (tags::VOILUT_FUNCTION, VR::CS),
            (tags::PRESENTATION_LUT_SHAPE, VR::CS),
            (tags::PIXEL_SPACING, VR::DS),
            (tags::IMAGER_PIXEL_SPACING, VR::DS),
            (tags::ROWS, VR::LO),
            (tags::BITS_STORED, VR::LO),
            (tags::LUT_DESCRIPTOR, VR::LO),
            (tags::PIXEL_DATA, VR::LO),
        ];
        let all = texts.iter().fold(ramp(), |film, &(tag, vr)| film.with(tag, vr, CANARY));
        let one_each = texts.map(|(tag, vr)| ramp().with(tag, vr, CANARY));
        for film in one_each.into_iter().chain([all]) {
            for uid in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN] {
                match decode_any(&film.file(uid), &Limits::default()) {
                    Ok(film) => assert!(!format!("{:?}", film.dicom).contains(CANARY)),
                    Err(error) => {
                        assert!(!error.to_string().contains(CANARY), "{error}");
                        assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
                    }
                }
            }
        }
    }
}
