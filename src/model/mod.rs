//! Model bundles: a directory with a manifest, a network, a golden film and a model card.
//!
//! ```text
//! models/ceph19-nfdp/
//!   manifest.json   what follows, with digests
//!   network.onnx    frame -> coordinates and sigma
//!   golden.png      a film made by the project, with the points this network finds on it
//!   README.md       the model card
//! ```

mod bundle;
mod manifest;

pub use bundle::{Bundle, BundleError, BundleParts};
#[cfg(feature = "fuzzing")]
pub(crate) use manifest::fuzz;
pub use manifest::{Conformal, GoldenFilm, Manifest, Metrics, Network, Preprocessing, SuccessRate, Training};
