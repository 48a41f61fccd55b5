//! The workstation trainer (feature `train`).

mod architecture;
mod atlas;
mod batch;
mod export;
mod onnx;
mod spline;

pub use architecture::{Convolution, convolutions, multiply_accumulates, parameters};
pub use atlas::{Atlas, AtlasError, atlas, mean_shape};
pub use batch::{Array, Weights};
pub use export::{ExportError, ExportOptions, Storage, export_nfdp};
