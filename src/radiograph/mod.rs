//! A film as gray values, from the bytes of any supported file to the network's input.
//!
//! [`decode()`] recognises the container by its first bytes, checks its stated size against [`Limits`] before anything
//! is allocated, and yields a [`Radiograph`]: 16-bit gray values as a person at a monitor would see them. Then
//! [`network_input`] reduces and warps it into the frame. Orientation tags (EXIF, TIFF) are not applied: coordinates
//! speak of the raster as it is stored.

mod decode;
mod dicom;
mod entropy;
mod error;
mod film;
mod format;
mod frame;
mod jpeg;
mod jpeg_scan;
mod luminance;
mod raster;

pub use decode::{Limits, decode};
#[cfg(feature = "fuzzing")]
pub(crate) use dicom::fuzzing;
pub use error::DecodeError;
pub use film::{DicomIdentity, Radiograph};
pub use format::Format;
pub use frame::{Film, NetworkInput, network_input, reduction_factor};
