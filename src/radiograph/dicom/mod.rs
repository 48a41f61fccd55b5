//! DICOM films: from a Part 10 file or a bare data set to display values.
//!
//! The steps, each in its own file: [`file_meta`] finds the transfer syntax and the data set; [`structure`] walks the
//! data set's elements, checks that every one lies inside the file, and parts what is needed from the pixel data;
//! [`image_pixel`] validates the attributes that describe the pixels, before any of them is touched; [`encapsulated`]
//! undoes the compression into [`cells`]; [`grayscale`] takes stored values to display values; [`spacing`] and
//! [`identity`] read the scale and the identifiers. Elements that no step asks for, the patient's above all, are never
//! parsed.

mod attributes;
mod cells;
mod codestream;
#[cfg(test)]
mod codings;
mod encapsulated;
mod file_meta;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod grayscale;
mod identity;
mod image_pixel;
mod jpeg_extended;
mod lut;
mod modality;
mod read;
mod spacing;
mod structure;
#[cfg(test)]
mod synthetic;
mod voi;

pub(super) use file_meta::looks_like_a_data_set;
pub(super) use read::decode;
