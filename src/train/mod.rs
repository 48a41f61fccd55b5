//! The workstation trainer (feature `train`).

mod architecture;
mod batch;
mod export;
mod onnx;

pub use architecture::{Convolution, convolutions, multiply_accumulates, parameters};
pub use batch::{Array, Weights};
pub use export::{ExportError, ExportOptions, Storage, export_nfdp};
