//! What crosses between the trainer and an engine: plain vectors and names.

use std::collections::BTreeMap;

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
