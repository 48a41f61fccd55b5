//! The truncation matrix of R4: real encoders' files, cut or with a tail of zeros, are never taken for whole.

use std::io::Cursor;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::mem::InMemElement;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use image::{GrayImage, ImageFormat};

use super::{Completeness, completeness};

const WIDTH: u32 = 400;
const HEIGHT: u32 = 300;

/// Noise without a single zero, so that no film's own pixels look like a zero tail.
fn noise() -> Vec<u8> {
    let mut state = 1u32;
    (0..WIDTH * HEIGHT)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 | 1
        })
        .collect()
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let image = GrayImage::from_raw(WIDTH, HEIGHT, noise()).expect("the right number of pixels");
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("a Vec takes everything");
    bytes.into_inner()
}

fn dicom(transfer_syntax: &str, preamble: bool) -> Vec<u8> {
    let text = |tag, vr, value: &str| InMemElement::new(tag, vr, value);
    let number = |tag, value: u32| InMemElement::new(tag, VR::US, PrimitiveValue::from(value as u16));
    let object = InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE),
        text(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3"),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        number(tags::SAMPLES_PER_PIXEL, 1),
        number(tags::ROWS, HEIGHT),
        number(tags::COLUMNS, WIDTH),
        number(tags::BITS_ALLOCATED, 8),
        number(tags::BITS_STORED, 8),
        number(tags::HIGH_BIT, 7),
        number(tags::PIXEL_REPRESENTATION, 0),
        DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U8(noise().into())),
    ]);
    let meta = FileMetaTableBuilder::new().transfer_syntax(transfer_syntax);
    let object = object.with_meta(meta).expect("it has a SOP class and instance");
    let mut bytes = Vec::new();
    if preamble {
        object.write_all(&mut bytes).expect("a Vec takes everything");
    } else {
        object.write_dataset(&mut bytes).expect("a Vec takes everything");
    }
    bytes
}

fn films() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("jpeg", encoded(ImageFormat::Jpeg)),
        ("png", encoded(ImageFormat::Png)),
        ("bmp", encoded(ImageFormat::Bmp)),
        ("tiff", encoded(ImageFormat::Tiff)),
        ("dicom, explicit", dicom(uids::EXPLICIT_VR_LITTLE_ENDIAN, true)),
        ("dicom, implicit", dicom(uids::IMPLICIT_VR_LITTLE_ENDIAN, true)),
        ("dicom and tiff at once", {
            let mut bytes = dicom(uids::EXPLICIT_VR_LITTLE_ENDIAN, true);
            bytes[..8].copy_from_slice(b"II*\0\0\0\x7F\0");
            bytes
        }),
        ("dicom, deflated", dicom(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, true)),
        ("dicom, no meta", dicom(uids::IMPLICIT_VR_LITTLE_ENDIAN, false)),
        ("dicom, no meta, explicit", dicom(uids::EXPLICIT_VR_LITTLE_ENDIAN, false)),
    ]
}

#[test]
fn a_whole_film_is_complete() {
    for (name, film) in films() {
        assert_eq!(completeness(&film), Completeness::Complete, "{name}");
    }
}

#[test]
fn a_cut_film_is_incomplete() {
    for (name, film) in films() {
        for percent in [10, 50, 90, 99] {
            let verdict = completeness(&film[..film.len() * percent / 100]);
            assert!(matches!(verdict, Completeness::Incomplete { .. }), "{name} cut at {percent} %: {verdict:?}");
        }
        let verdict = completeness(&film[..film.len() - 1]);
        assert!(matches!(verdict, Completeness::Incomplete { .. }), "{name}, a byte short: {verdict:?}");
    }
}

#[test]
fn a_film_with_a_tail_of_zeros_waits() {
    for (name, film) in films() {
        for percent in [0, 10, 50, 90, 99] {
            let mut film = film.clone();
            let from = film.len() * percent / 100;
            film[from..].fill(0);
            let verdict = completeness(&film);
            let waits = matches!(verdict, Completeness::Incomplete { .. } | Completeness::ZeroTail);
            assert!(waits, "{name}, zeros from {percent} %: {verdict:?}");
        }
    }
}
