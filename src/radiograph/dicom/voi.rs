//! The value-of-interest transformation (PS3.3 C.11.2): which values spread over black to white.

use dicom_dictionary_std::tags;

use super::attributes::Attributes;
use super::lut::Lut;
use crate::radiograph::DecodeError;

/// A window or a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Voi {
    /// Window Center (0028,1050) and Width (0028,1051), the first pair.
    Window {
        /// Centre, in output values of the modality transformation.
        center: f64,
        /// Width, in the same unit.
        width: f64,
        /// VOI LUT Function (0028,1056).
        function: Function,
    },
    /// VOI LUT Sequence (0028,3010), the first item; it wins where both are there.
    Lut(Lut),
}

/// VOI LUT Function (0028,1056); LINEAR where it is absent or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// C.11.2.1.2.1: the width counts values, from the first to the last.
    Linear,
    /// C.11.2.1.3.2: the width is a distance.
    LinearExact,
    /// C.11.2.1.3.1.
    Sigmoid,
}

impl Voi {
    /// The film's transformation, where it states a usable one; `signed_input` says whether inputs can be negative.
    ///
    /// A window too narrow for its function, as some devices write for "not set", counts as none.
    pub(super) fn read(attributes: Attributes<'_>, signed_input: bool) -> Result<Option<Self>, DecodeError> {
        if let Some(item) = attributes.first_item(tags::VOILUT_SEQUENCE) {
            return Ok(Some(Self::Lut(Lut::read(item, signed_input)?)));
        }
        let function = match attributes.term(tags::VOILUT_FUNCTION, &["LINEAR_EXACT", "SIGMOID"]) {
            Some("LINEAR_EXACT") => Function::LinearExact,
            Some("SIGMOID") => Function::Sigmoid,
            _ => Function::Linear,
        };
        let center = attributes.decimal(tags::WINDOW_CENTER)?;
        let width = attributes.decimal(tags::WINDOW_WIDTH)?;
        let usable = |width: f64| width >= 1.0 || (width > 0.0 && function != Function::Linear);
        Ok(match (center, width) {
            (Some(center), Some(width)) if usable(width) => Some(Self::Window { center, width, function }),
            _ => None,
        })
    }

    /// Where the value lies between the darkest (0) and the brightest (1) output.
    pub(super) fn apply(&self, x: f64) -> f64 {
        match self {
            Self::Window { center, width, function } => function.apply(x, *center, *width),
            Self::Lut(lut) => f64::from(lut.get(x)) / f64::from(lut.max),
        }
    }
}

impl Function {
    fn apply(self, x: f64, c: f64, w: f64) -> f64 {
        match self {
            Self::Linear if x <= c - 0.5 - (w - 1.0) / 2.0 => 0.0,
            Self::Linear if x > c - 0.5 + (w - 1.0) / 2.0 => 1.0,
            Self::Linear => (x - (c - 0.5)) / (w - 1.0) + 0.5,
            Self::LinearExact => ((x - c) / w + 0.5).clamp(0.0, 1.0),
            Self::Sigmoid => 1.0 / (1.0 + (-4.0 * (x - c) / w).exp()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of the note in C.11.2.1.2.1, with y from 0 to 255.
    #[test]
    fn the_standards_examples_of_a_linear_window_hold() {
        let y = |x: f64, c, w| Function::Linear.apply(x, c, w) * 255.0;
        for x in [1.0, 17.0, 2048.0, 4094.0] {
            assert!((y(x, 2048.0, 4096.0) - ((x - 2047.5) / 4095.0 + 0.5) * 255.0).abs() < 1e-9, "{x}");
        }
        assert_eq!([0.0, 4095.0].map(|x| y(x, 2048.0, 4096.0)), [0.0, 255.0]);
        assert_eq!([2047.0, 2048.0].map(|x| y(x, 2048.0, 1.0)), [0.0, 255.0]);
        assert_eq!([-50.0, 50.0].map(|x| y(x, 0.0, 100.0)), [0.0, 255.0]);
        assert!((y(0.0, 0.0, 100.0) - ((0.0 + 0.5) / 99.0 + 0.5) * 255.0).abs() < 1e-9);
        assert_eq!([-1.0, 0.0].map(|x| y(x, 0.0, 1.0)), [0.0, 255.0]);
    }

    /// The note in C.11.2.1.3.2.
    #[test]
    fn an_exact_window_of_4096_at_2048_starts_at_zero() {
        let y = |x: f64| Function::LinearExact.apply(x, 2048.0, 4096.0);
        assert_eq!([-1.0, 0.0, 1024.0, 2048.0, 4096.0, 5000.0].map(y), [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn a_sigmoid_is_half_at_its_centre_and_symmetric() {
        let y = |x: f64| Function::Sigmoid.apply(x, 100.0, 40.0);
        assert_eq!(y(100.0), 0.5);
        assert!((y(110.0) - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-12);
        assert!((y(90.0) + y(110.0) - 1.0).abs() < 1e-12);
    }
}
