//! A film as gray values, from the bytes of any supported file to the network's input.

mod decode_tmp;
mod frame;
pub use decode_tmp::*;

pub use frame::{Film, NetworkInput, network_input, reduction_factor};

use crate::geometry::{PixelSpacing, Size};

/// A decoded film, as a person at a monitor would see it.
#[derive(Clone, Debug)]
pub struct Radiograph {
    /// Columns and rows.
    pub size: Size,
    /// `height * width` gray values, row by row: 0 is black, 65535 is white.
    pub pixels: Vec<u16>,
    /// The scale, where the file states one.
    pub spacing: Option<PixelSpacing>,
}

impl Radiograph {
    /// A film of gray values alone.
    #[must_use]
    pub const fn gray(size: Size, pixels: Vec<u16>) -> Self {
        Self { size, pixels, spacing: None }
    }
}
