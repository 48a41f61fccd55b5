//! Typed access to the few attributes a film needs, with errors that quote figures but never text.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::header::HasLength;
use dicom_core::value::PrimitiveValue;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

use crate::radiograph::DecodeError;

/// All top-level elements that are read besides Pixel Data; the others are skipped unparsed.
pub(super) const READ: [Tag; 28] = [
    tags::SOP_INSTANCE_UID,
    tags::MODALITY,
    tags::ESTIMATED_RADIOGRAPHIC_MAGNIFICATION_FACTOR,
    tags::IMAGER_PIXEL_SPACING,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::PLANAR_CONFIGURATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::PIXEL_SPACING,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::PIXEL_PADDING_VALUE,
    tags::PIXEL_PADDING_RANGE_LIMIT,
    tags::PIXEL_SPACING_CALIBRATION_TYPE,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::VOILUT_FUNCTION,
    tags::MODALITY_LUT_SEQUENCE,
    tags::VOILUT_SEQUENCE,
    tags::PRESENTATION_LUT_SHAPE,
];

/// The attributes of a data set or of an item in it.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a InMemDicomObject);

impl<'a> Attributes<'a> {
    /// The element, unless it is absent or empty.
    pub(super) fn element(self, tag: Tag) -> Option<&'a InMemElement> {
        self.0.get(tag).filter(|element| !element.value().is_empty())
    }

    /// Whether the attribute has a value.
    pub(super) fn has(self, tag: Tag) -> bool {
        self.element(tag).is_some()
    }

    /// A whole number, where there is one.
    pub(super) fn integer(self, tag: Tag) -> Result<Option<i64>, DecodeError> {
        self.element(tag)
            .map(|element| element.to_int::<i64>().map_err(|_| wrong(tag, "a whole number", "something else")))
            .transpose()
    }

    /// A whole number of a required attribute.
    pub(super) fn required_integer(self, tag: Tag) -> Result<i64, DecodeError> {
        self.integer(tag)?.ok_or_else(|| wrong(tag, "a value", "none"))
    }

    /// A whole number of 16 bits in two's complement: `signed` says how to read it, whatever its VR says.
    pub(super) fn word(self, tag: Tag, signed: bool) -> Result<Option<i32>, DecodeError> {
        Ok(self.integer(tag)?.map(|v| if signed { i32::from(v as i16) } else { i32::from(v as u16) }))
    }

    /// The first decimal number, where there is a finite one.
    pub(super) fn decimal(self, tag: Tag) -> Result<Option<f64>, DecodeError> {
        Ok(self.decimals(tag)?.and_then(|values| values.first().copied()))
    }

    /// All decimal numbers, where there are finite ones.
    pub(super) fn decimals(self, tag: Tag) -> Result<Option<Vec<f64>>, DecodeError> {
        let Some(element) = self.element(tag) else { return Ok(None) };
        let values = element.to_multi_float64().map_err(|_| wrong(tag, "a decimal number", "something else"))?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(wrong(tag, "a finite number", "an infinite one or none"));
        }
        Ok(Some(values))
    }

    /// Which of the defined terms the attribute holds; `None` for another term or none at all.
    pub(super) fn term(self, tag: Tag, terms: &[&'static str]) -> Option<&'static str> {
        let found = self.text(tag)?;
        terms.iter().copied().find(|&term| term == found)
    }

    /// The first value as text, without padding; never to be quoted in a message.
    pub(super) fn text(self, tag: Tag) -> Option<String> {
        let text = self.element(tag)?.to_str().ok()?;
        let first = text.split('\\').next()?.trim_matches([' ', '\0']);
        (!first.is_empty()).then(|| first.to_owned())
    }

    /// The first item of a sequence, where there is one.
    pub(super) fn first_item(self, tag: Tag) -> Option<Attributes<'a>> {
        self.element(tag)?.items()?.first().map(Attributes)
    }

    /// 16-bit words, whether they were stored as US, SS, OW or bytes of unknown VR.
    pub(super) fn words(self, tag: Tag) -> Option<Words<'a>> {
        let element = self.element(tag)?;
        match element.value().primitive()? {
            PrimitiveValue::U16(words) => Some(Words { words: words.to_vec(), bytes: None, signed: false }),
            PrimitiveValue::I16(words) => {
                Some(Words { words: words.iter().map(|&v| v as u16).collect(), bytes: None, signed: true })
            }
            PrimitiveValue::U8(bytes) => Some(Words {
                words: bytes.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect(),
                bytes: Some(bytes),
                signed: element.vr() == VR::SS,
            }),
            _ => None,
        }
    }
}

/// 16-bit words of a LUT.
pub(super) struct Words<'a> {
    /// The words.
    pub(super) words: Vec<u16>,
    /// The bytes, where they were stored as such.
    pub(super) bytes: Option<&'a [u8]>,
    /// Whether the file says that they are signed.
    pub(super) signed: bool,
}

/// An [`DecodeError::Attribute`]; `found` must not be text from the file.
pub(super) fn wrong(tag: Tag, expected: impl Into<String>, found: impl ToString) -> DecodeError {
    let keyword = StandardDataDictionary.by_tag(tag).map_or("", |entry| entry.alias());
    DecodeError::Attribute { tag, keyword, expected: expected.into(), found: found.to_string() }
}
