//! Whether the bytes of a file are a whole film, told from their format (R4c).
//!
//! A decoder's success does not say so: a JPEG cut at any point decodes "well" at full size, and so does an
//! uncompressed film whose file was pre-allocated and is still being written. Each format's walker follows the
//! lengths its own structure states, to its end, and looks at no pixel.
//!
//! Walkers are fed whatever lies in the folder: they never panic, allocate nothing that grows with a number found in
//! the file, and take time linear in its size.

mod bmp;
mod bytes;
mod dicom;
mod dicom_elements;
mod jpeg;
mod png;
mod tiff;
mod verdict;

#[cfg(feature = "fuzzing")]
pub(crate) use verdict::is_dicom;
pub use verdict::{Completeness, completeness};

#[cfg(test)]
mod truncation;
