//! From the network's input to landmarks: one trait, one backend a file.

use crate::geometry::{Point, Size};
use crate::radiograph::NetworkInput;

/// A network that has its weights in hand: the only seam between this package and a neural-network runtime.
pub trait Detector: Send {
    /// The frame it was built for.
    fn frame(&self) -> Size;

    /// What computes ("tract-cpu").
    fn backend(&self) -> &'static str;

    /// Localizes every landmark on one frame, in the network's order.
    ///
    /// # Errors
    /// When the input's size differs from [`frame`](Self::frame) or the runtime fails.
    fn detect(&mut self, input: &NetworkInput) -> Result<Vec<FrameLandmark>, InferenceError>;
}

/// A landmark in frame pixels, without its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameLandmark {
    /// In frame pixels.
    pub point: Point,
    /// Scale of the residual on x and y, in frame pixels.
    pub sigma_px: [f64; 2],
    /// `1 - mean(sigma)` in normalised units.
    pub score: f64,
}

/// Why a network gave no landmarks.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The frame is not the one the network was built for.
    #[error("the frame is {found}, the network was built for {expected}")]
    FrameSize {
        /// What the network needs.
        expected: Size,
        /// What it was given.
        found: Size,
    },
    /// The runtime failed.
    #[error("{backend}: {reason}")]
    Runtime {
        /// Which runtime.
        backend: &'static str,
        /// Its own words, the whole chain.
        reason: String,
    },
}
