//! The workstation trainer (feature `train`): data sets, augmentation, metrics, runs and export, in pure Rust.
//!
//! Films come from a [`datasets::Source`] and are looked at before use (`check`). A run decodes them once (`run`), starts
//! from what is given (`initial`, `pytorch_file`, `pickle`), draws augmented batches on threads (`loader`, `augment`, `elastic`), steps an engine
//! behind plain vectors (`batch`, implemented by `crate::network` with the feature `torch`), validates (`metrics`, `cobb`),
//! keeps its state (`checkpoint`) and its record (`record`, `event_file`). A bundle is made of it (`publish`, `card`:
//! `export`, `atlas`, `calibration`) and measured through the code that serves in the clinic (`evaluate`, `reference`):
//! as files (`report`, `table`, `plots`, `reliability`) that can be told from luck (`compare`).

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
#[cfg(feature = "torch")]
mod bench;
mod calibration;
mod canvas;
mod card;
mod check;
mod cobb;
mod compare;
mod elastic;
mod evaluate;
mod event_file;
mod export;
mod initial;
mod loader;
mod machine;
mod mirror;
mod onnx;
mod pickle;
mod plots;
mod preset;
mod publish;
mod pytorch_file;
mod record;
mod reference;
mod reliability;
mod report;
#[cfg(feature = "torch")]
mod run;
mod schedule;
mod spline;
mod statistics;
mod table;

#[cfg(feature = "torch")]
pub use agree::{AgreeError, Agreement, agree};
pub use architecture::{Architecture, Convolution, Model, convolutions, multiply_accumulates, parameters};
pub use atlas::{Atlas, AtlasError, atlas, mean_shape};
pub use augment::{AugmentConfig, Augmentation};
pub use batch::{Array, Batch, FilmPrediction, Weights};
#[cfg(feature = "torch")]
pub use bench::{TrainingSpeed, noise_films, training_speed};
pub use calibration::{Calibration, Case, Coverage, calibrate, coverage};
pub use check::{Findings, check};
pub use checkpoint::{FILMS_FILE, SET_SHA256};
pub use cobb::{Angles, mean_differences_deg, smape_percent};
pub use compare::{CompareError, Comparison, Difference, LEAST_FILMS, RESAMPLES, Verdict, compare};
pub use elastic::Deformation;
pub use evaluate::{EvaluateError, TestedFilm, evaluate};
pub use event_file::EventFile;
pub use export::{ExportError, Storage, export_nfdp};
pub use initial::{Initial, InitialError, initial_weights};
pub use loader::{Epoch, LoadedBatch, LoaderConfig, LoaderError, TrainingFilm, plain_batch};
pub use machine::{Machine, Precision};
pub use metrics::Summary;
pub use mirror::mirror_partners;
pub use plots::{ErrorCurve, PlotError, box_plot_svg, cumulative_error_svg};
pub use preset::TrainConfig;
pub use publish::{Publication, PublishError, TestSet, publish};
pub use record::{EpochRecord, METRICS_FILE, Record};
pub use reference::{Protocol, REFERENCE_CEPH_MM_PER_PX, REFERENCE_FRAME, reference_errors};
pub use reliability::reliability_svg;
pub use report::{
    DetectionRate, ERRORS_FILE, EVALUATION_FILE, EVALUATION_FORMAT, Evaluation, FilmErrors, LandmarkErrors,
    ReportError, Setting, replace_file,
};
#[cfg(feature = "torch")]
pub use run::{CONFIG_FILE, MACHINE_FILE, Run, RunError, load, source_points};
pub use schedule::linear_rate;
