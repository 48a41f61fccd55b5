//! One film under the grayscale attributes that a device may write (PS3.3 C.7.6.3 and C.11): each twin means the same
//! picture, and without some of its attributes another.

use std::io::Cursor;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::mem::InMemElement;
use dicom_object::{FileDicomObject, InMemDicomObject, from_reader};

use crate::films::{Kind, film};

/// A twin.
pub(crate) struct Twin {
    pub(crate) name: &'static str,
    pub(crate) film: Vec<u8>,
    /// The same cells where the attribute is not said, or says what is not so.
    pub(crate) misread: Vec<u8>,
}

type Object = FileDicomObject<InMemDicomObject>;

/// The MONOCHROME2 film of 8 bits, without any transformation, and its twins.
pub(crate) fn twins() -> (Vec<u8>, Vec<Twin>) {
    let plain = film(Kind::Dicom, 0);
    let object = from_reader(Cursor::new(&plain)).expect("just made");
    let gray = object.element(tags::PIXEL_DATA).expect("just made").to_bytes().expect("8-bit cells").into_owned();
    let (low, high) = (gray.iter().copied().min().expect("pixels"), gray.iter().copied().max().expect("pixels"));
    let negative = || DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(complement(&gray)));
    let wide = |cell: &dyn Fn(u8) -> i32| {
        let cells = PrimitiveValue::U16(gray.iter().map(|&value| cell(value) as u16).collect());
        vec![
            word(tags::BITS_ALLOCATED, 16),
            word(tags::BITS_STORED, 16),
            word(tags::HIGH_BIT, 15),
            DataElement::new(tags::PIXEL_DATA, VR::OW, cells),
        ]
    };
    // The darkest and the brightest cells far from all others: without its window the film has next to no contrast.
    let apart = |value: u8, ends: [i32; 2], between: i32| match value {
        _ if value == low => ends[0],
        _ if value == high => ends[1],
        _ => between,
    };
    // LINEAR (C.11.2.1.2.1) from 0 at `from` to 1 at `to`.
    let window = |from: f64, to: f64| {
        let [center, width] = [(from + to) / 2.0 + 0.5, to - from + 1.0].map(|number| number.to_string());
        vec![text(tags::WINDOW_CENTER, VR::DS, &center), text(tags::WINDOW_WIDTH, VR::DS, &width)]
    };
    let (dark, bright) = (f64::from(low), f64::from(high));
    let monochrome1 = || text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
    let twin = |name, cells: Vec<InMemElement>, said: Vec<InMemElement>| Twin {
        name,
        misread: changed(&object, cells.clone()),
        film: changed(&object, [cells, said].concat()),
    };
    let signed = || vec![word(tags::PIXEL_REPRESENTATION, 1)];
    let twins = vec![
        twin("MONOCHROME1", vec![negative()], vec![monochrome1()]),
        twin(
            "window",
            wide(&|v| apart(v, [0, i32::from(u16::MAX)], 1000 + 4 * i32::from(v))),
            window(1000.0 + 4.0 * dark, 1000.0 + 4.0 * bright),
        ),
        twin(
            "VOI LUT",
            vec![negative()],
            vec![lut(tags::VOILUT_SEQUENCE, |i| {
                let stretched = (255.0 - f64::from(i) - dark) / (bright - dark);
                (stretched.clamp(0.0, 1.0) * 65_535.0).round() as u16
            })],
        ),
        twin("Modality LUT", vec![negative()], vec![lut(tags::MODALITY_LUT_SEQUENCE, |i| 1000 + 4 * (255 - i))]),
        twin("rescale", vec![negative()], rescale("-4", "1020")),
        twin("signed", wide(&|v| 100 * i32::from(v) - 12_800), signed()),
        // Rescaled, brighter is less: 2200 - 4 v, which MONOCHROME1 turns round.
        twin(
            "all of them",
            wide(&|v| apart(v, [i16::MIN.into(), i16::MAX.into()], 8 * i32::from(v) - 1000)),
            [
                vec![monochrome1()],
                rescale("-0.5", "1700"),
                signed(),
                window(2200.0 - 4.0 * bright, 2200.0 - 4.0 * dark),
            ]
            .concat(),
        ),
    ];
    (plain, twins)
}

fn complement(gray: &[u8]) -> Vec<u8> {
    gray.iter().map(|value| 255 - value).collect()
}

fn changed(object: &Object, elements: Vec<InMemElement>) -> Vec<u8> {
    let mut object = object.clone();
    for element in elements {
        object.put(element);
    }
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).expect("a Vec takes everything");
    bytes
}

fn text(tag: Tag, vr: VR, value: &str) -> InMemElement {
    DataElement::new(tag, vr, value)
}

fn rescale(slope: &str, intercept: &str) -> Vec<InMemElement> {
    vec![text(tags::RESCALE_SLOPE, VR::DS, slope), text(tags::RESCALE_INTERCEPT, VR::DS, intercept)]
}

fn word(tag: Tag, value: u16) -> InMemElement {
    DataElement::new(tag, VR::US, PrimitiveValue::from(value))
}

/// A table of 256 entries of 16 bits for the values from 0 on.
fn lut(sequence: Tag, entry: impl Fn(u16) -> u16) -> InMemElement {
    let words = |words: Vec<u16>| PrimitiveValue::U16(words.into());
    let item = InMemDicomObject::from_element_iter([
        DataElement::new(tags::LUT_DESCRIPTOR, VR::US, words(vec![256, 0, 16])),
        DataElement::new(tags::LUT_DATA, VR::US, words((0..256).map(entry).collect())),
    ]);
    DataElement::new(sequence, VR::SQ, DataSetSequence::from(vec![item]))
}
