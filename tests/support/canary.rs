//! Films that name their patient wherever a film can: every text element of DICOM, texts of PNG, JPEG and TIFF.

use std::io::Write;
use std::sync::LazyLock;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::header::Header;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};
use dicom_object::mem::InMemElement;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::bundle;
use crate::films::{Kind, film};

/// In what a film says.
pub(crate) const PATIENT: &str = "QzxPatientVqj";
/// As an identifier of DICOM.
pub(crate) const UID: &str = "1.2.826.0.1.3680043.10.987654321.1234567";

/// A VR whose values are text.
fn is_text(vr: VR) -> bool {
    use VR::{AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UI, UR, UT};
    matches!(vr, AE | AS | CS | DA | DS | DT | IS | LO | LT | PN | SH | ST | TM | UC | UI | UR | UT)
}

/// The groups of the dictionary that data sets have; curves (50xx) and overlays (60xx) have sixteen each (PS3.5 7.6).
fn groups() -> impl Iterator<Item = u16> {
    let single =
        [0x0100, 0x0400, 0x2000, 0x2010, 0x2020, 0x2030, 0x2040, 0x2050, 0x2100, 0x2110, 0x2120, 0x2130, 0x2200];
    let more = [0x3002, 0x3004, 0x3006, 0x3008, 0x300A, 0x300C, 0x300E, 0x3010, 0x4000, 0x4008, 0x4010, 0x4FFE];
    let last = [0x5200, 0x5400, 0x5600, 0x7FE0, 0xFFFA];
    let repeating = [0x5000, 0x6000].into_iter().flat_map(|first| (first..first + 0x20).step_by(2));
    (0x0004..=0x008C).step_by(2).chain(single).chain(more).chain(last).chain(repeating)
}

/// Every text element of the standard with the canary in it.
static EVERY_TEXT: LazyLock<Vec<InMemElement>> = LazyLock::new(|| {
    let mut elements = Vec::new();
    for group in groups() {
        for element in 0..=0xFFFF {
            let tag = Tag(group, element);
            let Some(entry) = StandardDataDictionary.by_tag(tag) else { continue };
            let VirtualVr::Exact(vr) = entry.vr() else { continue };
            if is_text(vr) {
                elements.push(DataElement::new(tag, vr, if vr == VR::UI { UID } else { PATIENT }));
            }
        }
    }
    // As many as the dictionary of version 0.10.1 has: a group that is left out is missed.
    assert!(elements.len() >= 3287, "only {} text elements: the walk is broken", elements.len());
    elements
});

/// The golden film: width, height and gray values without a zero.
static GRAY: LazyLock<(u32, u32, Vec<u8>)> = LazyLock::new(|| {
    let gray = image::load_from_memory(bundle::open().golden()).expect("the bundle is checked").into_luma8();
    (gray.width(), gray.height(), gray.into_raw().iter().map(|value| value | 1).collect())
});

fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> InMemElement {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

/// Texts that must be right for there to be a film, or for a reader to see the others; one film of [`all_films`] each
/// has the canary in them.
const NEEDED: [Tag; 8] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::SOP_CLASS_UID,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::NUMBER_OF_FRAMES,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
];

/// The golden film as a DICOM file that names its patient wherever it can; `changed` replaces elements.
fn dicom(number: u8, transfer_syntax: &str, changed: Vec<InMemElement>) -> Vec<u8> {
    let (width, height, mut pixels) = GRAY.clone();
    // One pixel tells the films apart.
    pixels[0] = number;
    let count = |tag, value: u32| InMemElement::new(tag, VR::US, PrimitiveValue::from(value as u16));
    let texts = EVERY_TEXT.iter().filter(|element| !NEEDED.contains(&element.tag()));
    let mut object = InMemDicomObject::from_element_iter(texts.cloned());
    for element in [
        DataElement::new(tags::SOP_CLASS_UID, VR::UI, uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE),
        DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        count(tags::SAMPLES_PER_PIXEL, 1),
        count(tags::ROWS, height),
        count(tags::COLUMNS, width),
        count(tags::BITS_ALLOCATED, 8),
        count(tags::BITS_STORED, 8),
        count(tags::HIGH_BIT, 7),
        count(tags::PIXEL_REPRESENTATION, 0),
        DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.into())),
        // Of a maker of devices, and in a sequence in a sequence.
        DataElement::new(Tag(0x0009, 0x0010), VR::LO, PATIENT),
        DataElement::new(Tag(0x0009, 0x1001), VR::LT, PATIENT),
        DataElement::new(Tag(0x0009, 0x1002), VR::UN, PrimitiveValue::U8(PATIENT.as_bytes().into())),
        // Behind the pixels.
        DataElement::new(Tag(0x7FE1, 0x0010), VR::LO, PATIENT),
        DataElement::new(Tag(0x7FE1, 0x1001), VR::UT, PATIENT),
        sequence(
            tags::DIGITAL_SIGNATURES_SEQUENCE,
            vec![InMemDicomObject::from_element_iter([
                DataElement::new(tags::DIGITAL_SIGNATURE_UID, VR::UI, UID),
                DataElement::new(tags::CERTIFICATE_TYPE, VR::CS, PATIENT),
            ])],
        ),
        DataElement::new(tags::DATA_SET_TRAILING_PADDING, VR::OB, PrimitiveValue::U8(PATIENT.as_bytes().into())),
        sequence(
            tags::REQUEST_ATTRIBUTES_SEQUENCE,
            vec![InMemDicomObject::from_element_iter([
                DataElement::new(tags::PATIENT_NAME, VR::PN, PATIENT),
                sequence(
                    tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE,
                    vec![InMemDicomObject::from_element_iter([
                        DataElement::new(tags::CODE_MEANING, VR::LO, PATIENT),
                        DataElement::new(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, UID),
                    ])],
                ),
            ])],
        ),
    ] {
        object.put(element);
    }
    for element in changed {
        object.put(element);
    }
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE)
        .media_storage_sop_instance_uid(UID)
        .implementation_version_name("QzxPatientVqj")
        .source_application_entity_title(PATIENT)
        .private_information_creator_uid(UID)
        .private_information(PATIENT.as_bytes().to_vec());
    let mut bytes = Vec::new();
    object.with_meta(meta).expect("it has all it needs").write_all(&mut bytes).expect("a Vec takes everything");
    // The preamble is anybody's.
    bytes[..PATIENT.len()].copy_from_slice(PATIENT.as_bytes());
    if transfer_syntax.is_empty() { bytes } else { with_transfer_syntax(bytes, transfer_syntax) }
}

/// The same file under another transfer syntax of the same length.
fn with_transfer_syntax(mut bytes: Vec<u8>, other: &str) -> Vec<u8> {
    let own = uids::EXPLICIT_VR_LITTLE_ENDIAN.as_bytes();
    assert_eq!(own.len(), other.len());
    let at = bytes.windows(own.len()).position(|window| window == own).expect("it stands in the file meta");
    bytes[at..at + own.len()].copy_from_slice(other.as_bytes());
    bytes
}

/// A PNG with the canary as keyword and text of `tEXt`, `zTXt` (deflated) and `iTXt` (plain and deflated), behind its
/// header.
fn png(number: u32) -> Vec<u8> {
    let plain = film(Kind::Png, number);
    let mut deflater = ZlibEncoder::new(Vec::new(), Compression::best());
    deflater.write_all(PATIENT.as_bytes()).expect("a Vec takes everything");
    let deflated = deflater.finish().expect("a Vec takes everything");
    let patient = PATIENT.as_bytes();
    let text = [patient, b"\0", patient].concat();
    let compressed = [patient, b"\0\0", &deflated].concat();
    let international = [patient, b"\0\0\0de\0", patient, b"\0", patient].concat();
    let both = [patient, b"\0\x01\0de\0", patient, b"\0", &deflated].concat();
    // The signature and IHDR are 8 and 25 bytes.
    let mut bytes = plain[..33].to_vec();
    for (kind, data) in [(b"tEXt", text), (b"zTXt", compressed), (b"iTXt", international), (b"iTXt", both)] {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(&data);
        let length = u32::try_from(data.len()).expect("short");
        bytes.extend([&length.to_be_bytes()[..], kind, &data, &crc.sum().to_be_bytes()].concat());
    }
    bytes.extend(&plain[33..]);
    bytes
}

/// A JPEG with the canary in a comment and in EXIF's ImageDescription, behind its first marker.
fn jpeg(number: u32) -> Vec<u8> {
    let plain = film(Kind::Jpeg, number);
    let value = [PATIENT.as_bytes(), b"\0"].concat();
    // TIFF 6.0, little endian: one entry, ImageDescription (270), ASCII (2), its text behind the directory.
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0e\x01\x02\0".to_vec();
    exif.extend(u32::try_from(value.len()).expect("short").to_le_bytes());
    exif.extend([26, 0, 0, 0, 0, 0, 0, 0]);
    exif.extend(&value);
    let mut bytes = plain[..2].to_vec();
    for (marker, data) in [(0xE1, exif.as_slice()), (0xFE, PATIENT.as_bytes())] {
        let length = u16::try_from(data.len() + 2).expect("short");
        bytes.extend([&[0xFF, marker][..], &length.to_be_bytes(), data].concat());
    }
    bytes.extend(&plain[2..]);
    bytes
}

/// A TIFF with the canary as ImageDescription and Artist (TIFF 6.0: a little-endian header, one directory, one strip).
fn tiff(number: u8) -> Vec<u8> {
    const ENTRIES: u32 = 11;
    let (width, height, mut pixels) = GRAY.clone();
    pixels[0] = number;
    let text = [PATIENT.as_bytes(), b"\0"].concat();
    let text_at = 8 + 2 + ENTRIES * 12 + 4;
    let text_bytes = u32::try_from(text.len()).expect("short");
    let pixels_at = text_at + text_bytes;
    // Tag, type (2 ASCII, 3 SHORT, 4 LONG), count, value or where it stands.
    let entries: [(u16, u16, u32, u32); ENTRIES as usize] = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (270, 2, text_bytes, text_at),
        (273, 4, 1, pixels_at),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, width * height),
        (315, 2, text_bytes, text_at),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x0b\0".to_vec();
    for (tag, kind, count, value) in entries {
        bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        bytes.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    bytes.extend([0; 4]);
    [bytes, text, pixels].concat()
}

/// The films, and whether each must have a result; the others may be refused.
pub(crate) fn all_films() -> Vec<(&'static str, Vec<u8>, bool)> {
    let text = |tag, vr, value: &str| vec![InMemElement::new(tag, vr, value)];
    let number = |tag, value: u16| vec![InMemElement::new(tag, VR::US, PrimitiveValue::from(value))];
    let mut odd_png = png(1);
    odd_png[25] = 5;
    let mut odd_jpeg = jpeg(1);
    let frame = odd_jpeg.windows(2).position(|marker| marker == [0xFF, 0xC0]).expect("a baseline JPEG");
    odd_jpeg[frame + 4] = 99;
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    vec![
        ("whole.dcm", dicom(1, "", vec![]), true),
        ("whole.png", png(0), true),
        ("whole.jpg", jpeg(0), true),
        ("whole.tif", tiff(1), true),
        ("half.dcm", half(dicom(2, "", vec![])), false),
        ("half.png", half(png(2)), false),
        ("half.jpg", half(jpeg(2)), false),
        ("half.tif", half(tiff(2)), false),
        ("header.dcm", dicom(3, "", vec![])[..900].to_vec(), false),
        ("odd.png", odd_png, false),
        ("odd.jpg", odd_jpeg, false),
        ("photometric.dcm", dicom(4, "", text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, PATIENT)), false),
        ("window.dcm", dicom(5, "", text(tags::WINDOW_CENTER, VR::DS, PATIENT)), false),
        (
            "spacing.dcm",
            dicom(6, "", text(tags::IMAGER_PIXEL_SPACING, VR::DS, &format!("{PATIENT}\\{PATIENT}"))),
            false,
        ),
        ("slope.dcm", dicom(7, "", text(tags::RESCALE_SLOPE, VR::DS, PATIENT)), false),
        ("width.dcm", dicom(14, "", text(tags::WINDOW_WIDTH, VR::DS, PATIENT)), false),
        ("intercept.dcm", dicom(15, "", text(tags::RESCALE_INTERCEPT, VR::DS, PATIENT)), false),
        ("frames.dcm", dicom(8, "", text(tags::NUMBER_OF_FRAMES, VR::IS, PATIENT)), false),
        ("charset.dcm", dicom(9, "", text(tags::SPECIFIC_CHARACTER_SET, VR::CS, PATIENT)), false),
        ("bits.dcm", dicom(10, "", number(tags::BITS_STORED, 0)), false),
        ("rows.dcm", dicom(11, "", number(tags::ROWS, 60_000)), false),
        ("class.dcm", dicom(12, "", text(tags::SOP_CLASS_UID, VR::UI, UID)), false),
        ("syntax.dcm", dicom(13, "QzxPatientVqj.987.1", vec![]), false),
        ("text.dcm", format!("Patient: {PATIENT}\n").repeat(100).into_bytes(), false),
    ]
}
