//! The decoded film.

use std::fmt;

use super::Format;
use crate::geometry::{PixelSpacing, Size};

/// A decoded film, as a person at a monitor would see it.
#[derive(Clone, Debug)]
pub struct Radiograph {
    /// The container it came in.
    pub format: Format,
    /// Columns and rows.
    pub size: Size,
    /// `height * width` gray values, row by row: 0 is black, 65535 is white.
    pub pixels: Vec<u16>,
    /// The scale, where the file states one.
    pub spacing: Option<PixelSpacing>,
    /// For DICOM: the film's identifiers.
    pub dicom: Option<DicomIdentity>,
}

impl Radiograph {
    /// A film of `pixels` (row by row, 0 black, 65535 white) that knows neither scale nor identity.
    ///
    /// # Panics
    /// If there are not exactly `size.area()` pixels.
    #[must_use]
    pub fn gray(format: Format, size: Size, pixels: Vec<u16>) -> Self {
        assert_eq!(pixels.len() as u64, size.area(), "the pixels of a film of {size}");
        Self { format, size, pixels, spacing: None, dicom: None }
    }
}

/// The identifiers of a DICOM film. They point at a patient: only keyed tokens of them may leave the device.
///
/// `Debug` says which are there, never what they are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DicomIdentity {
    /// SOP Instance UID (0008,0018): this film.
    pub sop_instance_uid: Option<String>,
    /// Series Instance UID (0020,000E).
    pub series_instance_uid: Option<String>,
    /// Study Instance UID (0020,000D).
    pub study_instance_uid: Option<String>,
}

impl fmt::Debug for DicomIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presence = |uid: &Option<String>| if uid.is_some() { "withheld" } else { "absent" };
        f.debug_struct("DicomIdentity")
            .field("sop_instance_uid", &presence(&self.sop_instance_uid))
            .field("series_instance_uid", &presence(&self.series_instance_uid))
            .field("study_instance_uid", &presence(&self.study_instance_uid))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_withholds_identifiers() {
        let identity = DicomIdentity { sop_instance_uid: Some("1.2.3.4".to_owned()), ..DicomIdentity::default() };
        let shown = format!("{identity:?}");
        assert!(!shown.contains("1.2.3.4"), "{shown}");
        assert!(shown.contains("sop_instance_uid: \"withheld\"") && shown.contains("study_instance_uid: \"absent\""));
    }
}
