//! The modality transformation (PS3.3 C.11.1): stored values to values that mean something to the modality.

use dicom_dictionary_std::tags;

use super::attributes::{Attributes, wrong};
use super::lut::Lut;
use crate::radiograph::DecodeError;

/// A linear rescale or a table; a film has one or the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Modality {
    /// `slope * stored + intercept`; 1 and 0 where the film states none.
    Rescale {
        /// Rescale Slope (0028,1053).
        slope: f64,
        /// Rescale Intercept (0028,1052).
        intercept: f64,
    },
    /// Modality LUT Sequence (0028,3000); it wins where both are there.
    Lut(Lut),
}

impl Modality {
    /// The film's transformation; `signed` is the stored values' sign.
    pub(super) fn read(attributes: Attributes<'_>, signed: bool) -> Result<Self, DecodeError> {
        if let Some(item) = attributes.first_item(tags::MODALITY_LUT_SEQUENCE) {
            return Ok(Self::Lut(Lut::read(item, signed)?));
        }
        let slope = attributes.decimal(tags::RESCALE_SLOPE)?.unwrap_or(1.0);
        if slope == 0.0 {
            return Err(wrong(tags::RESCALE_SLOPE, "other than zero", slope));
        }
        Ok(Self::Rescale { slope, intercept: attributes.decimal(tags::RESCALE_INTERCEPT)?.unwrap_or(0.0) })
    }

    /// The value of a stored value.
    pub(super) fn apply(&self, stored: i32) -> f64 {
        match self {
            Self::Rescale { slope, intercept } => slope * f64::from(stored) + intercept,
            Self::Lut(lut) => lut.get(stored.into()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hounsfield_rescale_is_linear() {
        let rescale = Modality::Rescale { slope: 2.0, intercept: -1024.0 };
        assert_eq!([0, 512, 1000].map(|stored| rescale.apply(stored)), [-1024.0, 0.0, 976.0]);
    }
}
