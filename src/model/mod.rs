//! Model bundles: a directory with a manifest, a network, a golden film and a model card.
//!
//! ```text
//! models/ceph19-nfdp/
//!   manifest.json   what follows, with digests
//!   network.onnx    frame -> coordinates and sigma
//!   golden.png      a film made by the project, with the points this network finds on it
//!   README.md       the model card
//! ```
//!
//! A bundle travels as a signed [`Archive`]; the [`Registry`] installs it, and keeps which one serves. The way of a
//! new version, with the old one serving until the last step:
//!
//! ```text
//! archive ─► signature ─► unpack, digests ─► self-test in a child ─► installed ─► activate ─► serves at the next start
//!            TrustedKeys  Archive::unpack    in_child                one rename   one rename  Registry::serve
//!                                                                                  ▲                │ failed self-test,
//!                                                                                  └── previous ◄───┘ or unclean ends
//! ```

mod archive;
mod bundle;
pub(crate) mod child;
pub(crate) mod durable;
mod error;
mod identity;
mod layout;
mod manifest;
mod registry;
mod runs;
mod selection;
mod self_test;
mod serving;
mod signature;

pub use archive::{Archive, ArchiveError};
pub use bundle::{Bundle, BundleError, BundleParts};
pub use error::RegistryError;
pub use identity::{BundleId, IdentityError};
pub use manifest::{Conformal, GoldenFilm, Manifest, Metrics, Network, Preprocessing, SuccessRate, Training};
pub use registry::{Activation, Installed, Receipt, Registry, SelfTest};
pub use runs::{End, Fault, Policy, Run, Runs, judge};
pub use selection::{Moment, NoWayBack, Previous, Selection};
pub use self_test::{Limits, NOT_CONFINED, OFF, OWN_PROGRAM, Passed, SelfTestError, UNUSABLE, confine, in_child};
pub use serving::{RolledBack, Serving};
pub use signature::{Claim, SIGNATURE_SUFFIX, SignatureError, TRUST_DIRECTORY, TrustedKeys, trusted_comment};
#[cfg(feature = "fuzzing")]
pub(crate) use {archive::fuzz as fuzz_archive, manifest::fuzz as fuzz_manifest, signature::fuzz as fuzz_signature};
