//! The seam to TensorRT: what a build with it tells `doctor --gpu`, and what one without says.

use std::time::Duration;

use crate::inference::Localizer;
use crate::model::Bundle;

/// TensorRT ready to run a bundle's network on this machine.
pub(super) struct TensorRt {
    /// The release of the library that was opened.
    pub(super) version: String,
    /// How long its engine took to build; `None` where it was there already.
    pub(super) built_in: Option<Duration>,
    /// The network on it, in the bundle's order of landmarks.
    pub(super) localizer: Localizer,
}

/// Opens TensorRT and has it build the bundle's engine, if none is there.
///
/// # Errors
/// In words, why the network does not run on it; they follow "because".
pub(super) fn tensor_rt(_bundle: &Bundle) -> Result<TensorRt, String> {
    Err("this build has no TensorRT (feature `tensorrt`)".to_owned())
}
