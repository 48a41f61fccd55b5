//! The network on the CPU, by tract.

use std::io::Cursor;
use std::sync::Arc;

use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, Tensor, TractResult, TypedRunnableModel, tvec,
};
use tract_onnx::tract_core::knobs::KnobScope;

use super::answer::{frame_landmarks, normalised};
use super::convolution::use_convolutions;
use super::widen::widen_weights;
use super::{Detector, FrameLandmark, InferenceError};
use crate::geometry::Frame;
use crate::radiograph::NetworkInput;

const BACKEND: &str = "tract-cpu";
/// Outputs of the network, in the file's order.
const OUTPUTS: [&str; 2] = ["coordinates", "sigma"];
/// What makes the networks of this package a third faster: the direct convolution is slower than the matrix product
/// on the x86 core it was measured on.
const KNOBS: [(&str, &str); 1] = [("TRACT_DISABLE_DIRECT_SPATIAL", "true")];

/// A network prepared for one frame size.
pub struct TractDetector {
    plan: Arc<TypedRunnableModel>,
    frame: Frame,
    landmarks: usize,
}

impl TractDetector {
    /// Prepares an ONNX file whose input is `[1, 1, H, W]` of `frame` and whose outputs are `coordinates` and `sigma`,
    /// each `[1, landmarks, 2]` in normalised units.
    ///
    /// Takes a second or two: weights stored as f16 are widened, and every matrix is packed for this processor, here
    /// and not at each frame.
    ///
    /// # Errors
    /// When the file is no ONNX that tract runs, or has another interface.
    pub fn new(network: &[u8], frame: Frame, landmarks: usize) -> Result<Self, InferenceError> {
        let plan = prepare(network).map_err(|e| InferenceError::Load { backend: BACKEND, reason: format!("{e:#}") })?;
        check_interface(&plan, frame, landmarks)?;
        Ok(Self { plan, frame, landmarks })
    }

    /// Names of the operators that run at each frame, in the order of the plan.
    #[must_use]
    pub fn operators(&self) -> Vec<String> {
        self.plan.model().nodes().iter().map(|node| node.op.name().into_owned()).collect()
    }

    fn run(&self, values: &[f32]) -> TractResult<[Vec<f32>; 2]> {
        let shape = [1, 1, self.frame.height as usize, self.frame.width as usize];
        let input = Tensor::from_shape(&shape, values)?;
        let outputs = self.plan.run(tvec!(input.into_tvalue()))?;
        let values = |output: &TValue| -> TractResult<Vec<f32>> { Ok(output.view().as_slice::<f32>()?.to_vec()) };
        Ok([values(&outputs[0])?, values(&outputs[1])?])
    }
}

impl Detector for TractDetector {
    fn frame(&self) -> Frame {
        self.frame
    }

    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn detect(&mut self, input: &NetworkInput) -> Result<Vec<FrameLandmark>, InferenceError> {
        let values = normalised(input, self.frame)?;
        let runtime = |e| InferenceError::Runtime { backend: BACKEND, reason: format!("{e:#}") };
        let [coordinates, sigma] = self.run(&values).map_err(runtime)?;
        let landmarks = frame_landmarks(BACKEND, self.frame, &coordinates, &sigma)?;
        debug_assert_eq!(landmarks.len(), self.landmarks);
        Ok(landmarks)
    }
}

fn prepare(network: &[u8]) -> TractResult<Arc<TypedRunnableModel>> {
    let onnx = tract_onnx::onnx();
    let mut file = onnx.proto_model_for_read(&mut Cursor::new(network))?;
    widen_weights(&mut file);
    let model = onnx.model_for_proto_model(&file)?;
    drop(file);
    let mut model = model.into_typed()?.into_decluttered()?;
    use_convolutions(&mut model)?;
    KnobScope::new(KNOBS)?.enter(|| model.optimize())?;
    model.into_runnable()
}

fn check_interface(plan: &TypedRunnableModel, frame: Frame, landmarks: usize) -> Result<(), InferenceError> {
    let model = plan.model();
    let interface = |what: String, expected: String, found: String| {
        Err(InferenceError::Interface { backend: BACKEND, what, expected, found })
    };
    let runtime = |e| InferenceError::Load { backend: BACKEND, reason: format!("{e:#}") };
    for (what, expected, found) in [("inputs", 1, model.inputs.len()), ("outputs", OUTPUTS.len(), model.outputs.len())]
    {
        if found != expected {
            return interface(format!("number of {what}"), expected.to_string(), found.to_string());
        }
    }
    let expected = format!("1,1,{},{},F32", frame.height, frame.width);
    let found = format!("{:?}", model.input_fact(0).map_err(runtime)?.without_value());
    if found != expected {
        return interface("input".to_owned(), expected, found);
    }
    for (slot, name) in OUTPUTS.into_iter().enumerate() {
        let expected = format!("1,{landmarks},2,F32");
        let found = format!("{:?}", model.output_fact(slot).map_err(runtime)?.without_value());
        if found != expected {
            return interface(format!("output `{name}`"), expected, found);
        }
        let found = model.outlet_label(model.outputs[slot]).unwrap_or_default();
        let node = &model.node(model.outputs[slot].node).name;
        if found != name && node != name {
            return interface(format!("name of output {slot}"), name.to_owned(), format!("{found}{node}"));
        }
    }
    Ok(())
}
