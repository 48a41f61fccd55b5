//! DICOM films made in code, for tests.

use dicom_core::value::{DataSetSequence, PixelFragmentSequence, PrimitiveValue};
use dicom_core::{DataElement, Length, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use crate::radiograph::{DecodeError, Limits, Radiograph, decode};

/// Explicit VR Big Endian, which the standard has retired and devices still write.
pub(super) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// A film to be changed by a test and written.
#[derive(Clone)]
pub(super) struct Synthetic {
    pub(super) object: InMemDicomObject,
}

impl Synthetic {
    /// A MONOCHROME2 film of 16 bits allocated and `bits_stored` stored.
    pub(super) fn words(columns: u16, rows: u16, bits_stored: u16, cells: &[u16]) -> Self {
        let value = PrimitiveValue::U16(cells.into());
        Self::film(columns, rows, 16, bits_stored).with(tags::PIXEL_DATA, VR::OW, value)
    }

    /// A MONOCHROME2 film of 8 bits.
    pub(super) fn bytes(columns: u16, rows: u16, cells: &[u8]) -> Self {
        Self::film(columns, rows, 8, 8).with(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(cells.to_vec()))
    }

    fn film(columns: u16, rows: u16, bits_allocated: u16, bits_stored: u16) -> Self {
        let film = Self { object: InMemDicomObject::new_empty() };
        film.with(tags::SOP_CLASS_UID, VR::UI, uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE)
            .with(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3.4.5")
            .with(tags::MODALITY, VR::CS, "CR")
            .with(tags::PATIENT_NAME, VR::PN, "Doe^Jane")
            .with(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3")
            .with(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.4")
            .with(tags::SAMPLES_PER_PIXEL, VR::US, 1u16)
            .with(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2")
            .with(tags::ROWS, VR::US, rows)
            .with(tags::COLUMNS, VR::US, columns)
            .with(tags::BITS_ALLOCATED, VR::US, bits_allocated)
            .with(tags::BITS_STORED, VR::US, bits_stored)
            .with(tags::HIGH_BIT, VR::US, bits_stored - 1)
            .with(tags::PIXEL_REPRESENTATION, VR::US, 0u16)
    }

    /// The film with an attribute added or replaced.
    pub(super) fn with(mut self, tag: Tag, vr: VR, value: impl Into<PrimitiveValue>) -> Self {
        self.object.put(DataElement::new(tag, vr, value.into()));
        self
    }

    /// The film without an attribute.
    pub(super) fn without(mut self, tag: Tag) -> Self {
        self.object.remove_element(tag);
        self
    }

    /// The film with a sequence of one item that holds a LUT.
    pub(super) fn with_lut(mut self, sequence: Tag, descriptor: [u16; 3], entries: &[u16]) -> Self {
        let mut item = InMemDicomObject::new_empty();
        let [descriptor, entries] = [&descriptor[..], entries].map(|words| PrimitiveValue::U16(words.into()));
        item.put(DataElement::new(tags::LUT_DESCRIPTOR, VR::US, descriptor));
        item.put(DataElement::new(tags::LUT_DATA, VR::US, entries));
        let items = DataSetSequence::new(vec![item], Length::UNDEFINED);
        self.object.put(DataElement::new(sequence, VR::SQ, items));
        self
    }

    /// The film with compressed pixel data.
    pub(super) fn with_fragments(mut self, fragments: &[Vec<u8>]) -> Self {
        let fragments = fragments.iter().map(|fragment| {
            let mut even = fragment.clone();
            even.resize(fragment.len().next_multiple_of(2), 0);
            even
        });
        let value = PixelFragmentSequence::new_fragments(fragments.collect::<Vec<_>>());
        self.object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
        self
    }

    /// The bytes of a Part 10 file.
    pub(super) fn file(&self, transfer_syntax: &str) -> Vec<u8> {
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(transfer_syntax)
            .media_storage_sop_class_uid(uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE)
            .media_storage_sop_instance_uid("1.2.3.4.5");
        let mut bytes = Vec::new();
        self.object.clone().with_meta(meta).expect("valid meta").write_all(&mut bytes).expect("written");
        bytes
    }

    /// The bytes of a bare data set.
    pub(super) fn data_set(&self, transfer_syntax: &str) -> Vec<u8> {
        let syntax = TransferSyntaxRegistry.get(transfer_syntax).expect("registered");
        let mut bytes = Vec::new();
        self.object.write_dataset_with_ts(&mut bytes, syntax).expect("written");
        bytes
    }

    /// The film as it is decoded from an explicit little endian file.
    pub(super) fn decode(&self) -> Result<Radiograph, DecodeError> {
        decode(&self.file(uids::EXPLICIT_VR_LITTLE_ENDIAN), &Limits::default())
    }

    /// The film's gray values.
    pub(super) fn pixels(&self) -> Vec<u16> {
        self.decode().expect("a film").pixels
    }
}
