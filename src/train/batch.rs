//! What crosses between the trainer and an engine: plain vectors and names.

use std::collections::BTreeMap;

use crate::geometry::Size;

/// Frames and, for training, what they should give.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Frame columns and rows; multiples of 32.
    pub frame: Size,
    /// Gray values, film after film, row by row; the network reads each as `v / 255 - 0.5`.
    pub pixels: Vec<u8>,
    /// Film after film, landmark after landmark: x and y as frame pixels / frame size - 0.5.
    pub targets: Vec<f32>,
    /// Film after film, landmark after landmark: 1 where the landmark counts, 0 where it lies outside the frame.
    pub visible: Vec<f32>,
}

/// A tensor by value.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents, slowest axis first.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
}

/// Weights and running statistics by name.
pub type Weights = BTreeMap<String, Array>;

/// A network's answer for one film, in normalised units (frame pixels / frame size - 0.5, and / frame size).
#[derive(Clone, Debug, PartialEq)]
pub struct FilmPrediction {
    /// Landmark after landmark: x, y.
    pub mu: Vec<[f32; 2]>,
    /// Landmark after landmark: on x, on y.
    pub sigma: Vec<[f32; 2]>,
}
