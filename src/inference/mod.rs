//! From the network's input to landmarks: one trait, one backend a file.

mod answer;
mod convolution;
mod localizer;
pub mod tensorrt;
mod tract;
mod widen;

pub use localizer::{Localization, Localizer, SELF_TEST_TOLERANCE_PX, root_mean_square};
pub use tract::TractDetector;

use answer::{frame_landmarks, normalised};

use crate::disposition::Disposition;
use crate::geometry::{Frame, Point, Size};
use crate::radiograph::NetworkInput;

/// A network that has its weights in hand: the only seam between this package and a neural-network runtime.
pub trait Detector: Send {
    /// The frame it was built for.
    fn frame(&self) -> Frame;

    /// What computes, or computed the last frame ("tract-cpu").
    fn backend(&self) -> &'static str;

    /// Localizes every landmark on one frame, in the network's order.
    ///
    /// # Errors
    /// When the input's size differs from [`frame`](Self::frame) or the runtime fails.
    fn detect(&mut self, input: &NetworkInput) -> Result<Vec<FrameLandmark>, InferenceError>;

    /// Gives up what is faster and less trusted, for this reason; whether there was anything to give up.
    fn fall_back(&mut self, _why: &str) -> bool {
        false
    }
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
    /// The network file is not one the runtime can prepare.
    #[error("{backend} cannot use the network: {reason}; reinstall the model bundle")]
    Load {
        /// Which runtime.
        backend: &'static str,
        /// Its own words, the whole chain.
        reason: String,
    },
    /// The network runs, but is not of the kind its bundle says.
    #[error("{backend}: the network's {what} is {found}, its bundle needs {expected}")]
    Interface {
        /// Which runtime.
        backend: &'static str,
        /// Which part of the interface.
        what: String,
        /// What the bundle says.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// A coordinate or sigma is NaN or infinite.
    #[error("{backend}: landmark {landmark} of the network's output is not a finite number")]
    NotFinite {
        /// Which runtime.
        backend: &'static str,
        /// Its index, from 0.
        landmark: usize,
    },
    /// The bundle's golden film cannot be used.
    #[error("the bundle's golden film: {reason}; reinstall the model bundle")]
    Golden {
        /// What is wrong with it.
        reason: String,
    },
}

impl InferenceError {
    /// A film that the network answers with nonsense is refused; anything else is the model's or our fault.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::NotFinite { .. } => Disposition::Reject,
            Self::FrameSize { .. }
            | Self::Runtime { .. }
            | Self::Load { .. }
            | Self::Interface { .. }
            | Self::Golden { .. } => Disposition::Fatal,
        }
    }
}
