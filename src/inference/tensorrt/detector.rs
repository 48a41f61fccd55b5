//! An engine as a [`Detector`].

use super::native::NativeEngine;
use super::{BACKEND, TensorRtError};
use crate::geometry::Frame;
use crate::inference::{Detector, FrameLandmark, InferenceError, frame_landmarks, normalised};
use crate::radiograph::NetworkInput;

/// An engine in the GPU's memory, ready for frames.
pub struct TensorRtDetector {
    engine: NativeEngine,
    frame: Frame,
}

impl TensorRtDetector {
    pub(super) const fn new(engine: NativeEngine, frame: Frame) -> Self {
        Self { engine, frame }
    }
}

impl Detector for TensorRtDetector {
    fn frame(&self) -> Frame {
        self.frame
    }

    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn detect(&mut self, input: &NetworkInput) -> Result<Vec<FrameLandmark>, InferenceError> {
        let values = normalised(input, self.frame)?;
        let runtime = |error: TensorRtError| InferenceError::Runtime { backend: BACKEND, reason: error.to_string() };
        let [coordinates, sigma] = self.engine.run(&values).map_err(runtime)?;
        frame_landmarks(BACKEND, self.frame, &coordinates, &sigma)
    }
}
