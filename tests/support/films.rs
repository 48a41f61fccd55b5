//! Films of every format, made from the bundle's golden film; no two have the same bytes.

use std::io::Cursor;
use std::sync::LazyLock;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::mem::InMemElement;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use image::{GrayImage, ImageFormat};
use sha2::{Digest, Sha256};

use crate::bundle;

/// The golden film without a single black pixel, so that no film's own last rows look like a tail of zeros.
static GOLDEN: LazyLock<GrayImage> = LazyLock::new(|| {
    let mut film = image::load_from_memory(bundle::open().golden()).expect("the bundle is checked").into_luma8();
    film.pixels_mut().for_each(|pixel| pixel.0[0] |= 1);
    film
});

/// A container that films come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Jpeg,
    Png,
    Bmp,
    Tiff,
    Dicom,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Jpeg, Self::Png, Self::Bmp, Self::Tiff, Self::Dicom];

    /// The published name of the container, also fit for a file's extension.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
            Self::Dicom => "dicom",
        }
    }
}

/// The golden film as the `number`-th film of a kind: one pixel tells it from the others.
pub(crate) fn film(kind: Kind, number: u32) -> Vec<u8> {
    let mut film = GOLDEN.clone();
    film.get_pixel_mut(number % film.width(), number / film.width()).0[0] ^= 0x80;
    let format = match kind {
        Kind::Jpeg => ImageFormat::Jpeg,
        Kind::Png => ImageFormat::Png,
        Kind::Bmp => ImageFormat::Bmp,
        Kind::Tiff => ImageFormat::Tiff,
        Kind::Dicom => return dicom(&film, number, None),
    };
    let mut bytes = Cursor::new(Vec::new());
    film.write_to(&mut bytes, format).expect("a Vec takes everything");
    bytes.into_inner()
}

/// The SOP Instance UID of the `number`-th DICOM film.
pub(crate) fn sop_instance(number: u32) -> String {
    format!("1.2.826.0.1.3680043.10.{number}")
}

/// A film as a DICOM file of its own SOP instance, calibrated to square pixels of so many millimetres if it is said.
pub(crate) fn dicom(film: &GrayImage, number: u32, mm_per_px: Option<f64>) -> Vec<u8> {
    let text = |tag, vr, value: &str| InMemElement::new(tag, vr, value);
    let count = |tag, value: u32| InMemElement::new(tag, VR::US, PrimitiveValue::from(value as u16));
    let mut object = InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE),
        text(tags::SOP_INSTANCE_UID, VR::UI, &sop_instance(number)),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        count(tags::SAMPLES_PER_PIXEL, 1),
        count(tags::ROWS, film.height()),
        count(tags::COLUMNS, film.width()),
        count(tags::BITS_ALLOCATED, 8),
        count(tags::BITS_STORED, 8),
        count(tags::HIGH_BIT, 7),
        count(tags::PIXEL_REPRESENTATION, 0),
        DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(film.as_raw().clone().into())),
    ]);
    if let Some(mm) = mm_per_px {
        object.put(text(tags::IMAGER_PIXEL_SPACING, VR::DS, &format!("{mm}\\{mm}")));
    }
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let mut bytes = Vec::new();
    let object = object.with_meta(meta).expect("it has a SOP class and instance");
    object.write_all(&mut bytes).expect("a Vec takes everything");
    bytes
}

/// The SHA-256 of some bytes, hexadecimal: a film's identity.
pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
