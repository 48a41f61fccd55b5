//! The workstation trainer (feature `train`): data sets, augmentation, metrics, runs and export, in pure Rust.
//!
//! A run decodes its films once (`run`), draws augmented batches on threads (`loader`, `augment`), steps an engine
//! behind plain vectors (`batch`, implemented by `crate::network` with the feature `torch`), validates (`metrics`)
//! and keeps its state (`checkpoint`).

pub mod checkpoint;
pub mod command;
pub mod datasets;
pub mod metrics;

#[cfg(feature = "torch")]
mod agree;
mod architecture;
mod atlas;
mod augment;
mod batch;
mod evaluate;
mod export;
mod loader;
mod onnx;
mod preset;
mod publish;
#[cfg(feature = "torch")]
mod run;
mod schedule;
mod spline;

#[cfg(feature = "torch")]
pub use agree::{AgreeError, Agreement, agree};
pub use architecture::{Convolution, convolutions, multiply_accumulates, parameters};
pub use atlas::{Atlas, AtlasError, atlas, mean_shape};
pub use augment::{AugmentConfig, Augmentation};
pub use batch::{Array, Batch, FilmPrediction, Weights};
pub use evaluate::{EvaluateError, ISBI_MM_PER_PX, evaluate, sigma_scale};
pub use export::{ExportError, ExportOptions, Storage, export_nfdp};
pub use loader::{Epoch, LoadedBatch, LoaderConfig, TrainingFilm, plain_batch};
pub use preset::TrainConfig;
pub use publish::{Publication, PublishError, publish};
#[cfg(feature = "torch")]
pub use run::{Run, RunError, create_folder, load, source_points};
pub use schedule::linear_rate;
