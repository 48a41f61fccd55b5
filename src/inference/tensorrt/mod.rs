//! The network on an NVIDIA GPU, by TensorRT: engines built on the device, kept, compared, and given up for the
//! processor at the first doubt.
//!
//! ```text
//! libcuda, libnvinfer, libnvonnxparser ──► native ──► TensorRt: GPU, versions ──► Key
//!   opened at run time, version first      shim.cpp                               │
//!                                                                                 ▼
//! network.onnx ──► mixed_precision ──► build_in_child: `landmarkd engine build` ──► EngineCache: plan and note
//!                  f16 trunk           time, memory and crashes apart               │ ours, whole, of this key
//!                                                                                   ▼
//!                  Guarded: GPU first, processor behind ◄── Agreement on the golden film ◄── TensorRtDetector
//! ```
//!
//! Without the feature `tensorrt` all of it is there but the shim, and [`TensorRt::open`] says so.

mod agreement;
mod cache;
mod child;
mod detector;
mod error;
mod examine;
mod guarded;
mod key;
mod mixed;
mod native;
mod version;
mod watched;

use std::sync::{Mutex, PoisonError};

pub use agreement::{Agreement, MAX_PX, MEDIAN_PX};
pub use cache::{EngineCache, Note};
pub use child::{BuildLimits, Built, build_in_child};
pub use detector::TensorRtDetector;
pub use error::{Fault, TensorRtError};
pub use examine::{Comparison, EngineState, Examination, examine};
pub use guarded::{Fallback, Guarded, Handover, Mark};
pub use key::{Gpu, Key};
pub use mixed::mixed_precision;
pub use watched::{Progress, watched};

use crate::geometry::Frame;
use native::Native;

/// What computes, in results and status.
pub const BACKEND: &str = "tensorrt";
/// Memory of the GPU that TensorRT may use for the time of a layer; on a Jetson it is the machine's.
const WORKSPACE_MIB: u64 = 1024;

/// TensorRT, its driver and its first GPU, open.
pub struct TensorRt {
    native: &'static Native,
    gpu: Gpu,
}

impl TensorRt {
    /// Opens driver, TensorRT and the first GPU.
    ///
    /// Nothing that failed is remembered: what is missing now may be there the next time.
    ///
    /// # Errors
    /// What is missing, of the wrong version, or fails.
    pub fn open() -> Result<Self, TensorRtError> {
        // What was opened stays: neither the driver nor TensorRT is made to be closed.
        static OPEN: Mutex<Option<&'static Native>> = Mutex::new(None);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let native = match *open {
            Some(native) => native,
            None => &*Box::leak(Box::new(Native::open(true)?)),
        };
        *open = Some(native);
        drop(open);
        let gpu = Gpu::of(native.describe()?);
        Ok(Self { native, gpu })
    }

    /// "TensorRT 10.3.0".
    #[must_use]
    pub fn version(&self) -> String {
        self.native.headers.name(self.native.version)
    }

    /// The GPU.
    #[must_use]
    pub const fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What an engine for the network with this SHA-256 depends on.
    #[must_use]
    pub fn key(&self, network_sha256: &str) -> Key {
        Key::new(network_sha256, self.version(), self.gpu.clone())
    }

    /// Builds an engine for a bundle's network, in minutes; its plan.
    ///
    /// # Errors
    /// When the network has no form for TensorRT, or TensorRT refuses it.
    pub fn build(&self, network: &[u8]) -> Result<Vec<u8>, TensorRtError> {
        self.native.build(&mixed_precision(network)?, WORKSPACE_MIB << 20, true)
    }

    /// The engine of a plan, ready for frames.
    ///
    /// # Errors
    /// When TensorRT refuses the plan, it is of another network, or the GPU has no memory.
    pub fn detector(&self, plan: &[u8], frame: Frame, landmarks: usize) -> Result<TensorRtDetector, TensorRtError> {
        Ok(TensorRtDetector::new(self.native.engine(plan, frame.size(), landmarks)?, frame))
    }
}

/// Builds an engine for `onnx` on this machine without a GPU, and yields TensorRT's name and the plan's size in bytes:
/// whether parser and builder take the network. TensorRT-RTX can do that, TensorRT cannot.
///
/// # Errors
/// When TensorRT is not there, or refuses.
pub fn try_build(onnx: &[u8]) -> Result<(String, usize), TensorRtError> {
    let native = Native::open(false)?;
    let plan = native.build(onnx, WORKSPACE_MIB << 20, false)?;
    Ok((native.headers.name(native.version), plan.len()))
}
