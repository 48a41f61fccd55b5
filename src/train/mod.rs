//! The workstation trainer (feature `train`): data sets, augmentation, metrics, runs and export, in pure Rust.
//!
//! A run decodes its films once (`run`), draws augmented batches on threads (`loader`, `augment`), steps an engine
//! behind plain vectors (`batch`, implemented by `crate::network` with the feature `torch`), validates (`metrics`)
//! and keeps its state (`checkpoint`). A bundle is made of it (`publish`: `export`, `atlas`, `calibration`) and measured
//! through the code that serves in the clinic (`evaluate`, `reference`): as files (`report`, `table`, `plots`) that can be
//! told from luck (`compare`).

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
mod calibration;
mod canvas;
mod check;
mod compare;
mod evaluate;
mod export;
mod loader;
mod onnx;
mod plots;
mod preset;
mod publish;
mod reference;
mod report;
#[cfg(feature = "torch")]
mod run;
mod schedule;
mod spline;
mod statistics;
mod table;

#[cfg(feature = "torch")]
pub use agree::{AgreeError, Agreement, agree};
pub use architecture::{Convolution, convolutions, multiply_accumulates, parameters};
pub use atlas::{Atlas, AtlasError, atlas, mean_shape};
pub use augment::{AugmentConfig, Augmentation};
pub use batch::{Array, Batch, FilmPrediction, Weights};
pub use calibration::{Calibration, Case, Coverage, calibrate, coverage};
pub use check::{Findings, check};
pub use compare::{CompareError, Comparison, Difference, LEAST_FILMS, RESAMPLES, Verdict, compare};
pub use evaluate::{EvaluateError, TestedFilm, evaluate};
pub use export::{ExportError, ExportOptions, Storage, export_nfdp};
pub use loader::{Epoch, LoadedBatch, LoaderConfig, TrainingFilm, plain_batch};
pub use plots::{ErrorCurve, PlotError, box_plot_svg, cumulative_error_svg};
pub use preset::TrainConfig;
pub use publish::{Publication, PublishError, publish};
pub use reference::{Protocol, REFERENCE_CEPH_MM_PER_PX, REFERENCE_FRAME, reference_errors};
pub use report::{
    DETECTION_DISTANCE, DetectionRate, ERRORS_FILE, EVALUATION_FILE, EVALUATION_FORMAT, Evaluation, FilmErrors,
    LandmarkErrors, ReportError, Setting, Unit, replace_file,
};
#[cfg(feature = "torch")]
pub use run::{Run, RunError, create_folder, load, source_points};
pub use schedule::linear_rate;
