//! Why a file gave no film.

use dicom_core::Tag;

use super::Format;
use crate::disposition::Disposition;

/// Why a file gave no film.
///
/// A message never quotes text from the file, only figures, names of the standard and where something is missing: it
/// is published and logged, and text in a DICOM file may speak of a patient.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The first bytes belong to no format that is read here.
    #[error("unsupported format: expected PNG, JPEG, TIFF, BMP or DICOM, found {found}")]
    UnsupportedFormat {
        /// What the bytes look like.
        found: &'static str,
    },
    /// The stated size exceeds the limit; nothing was allocated.
    #[error("{format}: {width} x {height} pixels, expected at most {limit} in all")]
    TooManyPixels {
        /// The container.
        format: Format,
        /// Stated columns.
        width: u64,
        /// Stated rows.
        height: u64,
        /// [`Limits::max_pixels`](super::Limits::max_pixels).
        limit: u64,
    },
    /// Decoding would hold more memory than allowed; nothing was allocated.
    #[error("{format}: decoding takes {needed} bytes of memory, expected at most {limit}")]
    TooMuchMemory {
        /// The container.
        format: Format,
        /// An upper estimate of what would be held at once, the file's own bytes included.
        needed: u64,
        /// [`Limits::max_alloc_bytes`](super::Limits::max_alloc_bytes).
        limit: u64,
    },
    /// The file is cut short or does not follow its format.
    #[error("{format}: {reason}")]
    Damaged {
        /// The container.
        format: Format,
        /// What was expected and what was found.
        reason: String,
    },
    /// A valid variant that is not read here.
    #[error("{format}: {feature} is not supported")]
    Unsupported {
        /// The container.
        format: Format,
        /// The variant.
        feature: String,
    },
    /// A DICOM attribute that is missing, malformed or contradicts another.
    #[error("dicom: {keyword} {tag}: expected {expected}, found {found}")]
    Attribute {
        /// The attribute's tag.
        tag: Tag,
        /// The attribute's keyword in PS3.6.
        keyword: &'static str,
        /// What it should have been.
        expected: String,
        /// What it is, in figures or terms of the standard.
        found: String,
    },
    /// A decoder library panicked on this file.
    #[error("{format}: the decoder failed on this file")]
    DecoderPanicked {
        /// The container.
        format: Format,
    },
}

impl DecodeError {
    /// Always [`Disposition::Reject`]: the same bytes would fail again.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Reject
    }

    pub(super) fn damaged(format: Format, reason: impl Into<String>) -> Self {
        Self::Damaged { format, reason: reason.into() }
    }

    pub(super) fn unsupported(format: Format, feature: impl Into<String>) -> Self {
        Self::Unsupported { format, feature: feature.into() }
    }
}
