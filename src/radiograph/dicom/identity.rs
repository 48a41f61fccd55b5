//! The film's identifiers, which leave the device only as keyed tokens.

use dicom_dictionary_std::tags;

use super::attributes::Attributes;
use crate::radiograph::DicomIdentity;

/// The UIDs of the film, its series and its study, where stated.
pub(super) fn identity(attributes: Attributes<'_>) -> DicomIdentity {
    DicomIdentity {
        sop_instance_uid: attributes.text(tags::SOP_INSTANCE_UID),
        series_instance_uid: attributes.text(tags::SERIES_INSTANCE_UID),
        study_instance_uid: attributes.text(tags::STUDY_INSTANCE_UID),
    }
}
