//! What there is of TensorRT on this machine, and how it compares with the processor: for `doctor`.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Agreement, EngineCache, Gpu, Progress, TensorRt, TensorRtError, watched};
use crate::inference::{InferenceError, Localizer};
use crate::model::Bundle;

/// So often the processor and the GPU compute the golden film; the median time counts.
const PROCESSOR_RUNS: usize = 3;
const GPU_RUNS: usize = 20;

/// TensorRT, its GPU and the engine for a bundle.
#[derive(Clone, Debug)]
pub struct Examination {
    /// "TensorRT 10.3.0".
    pub tensorrt: String,
    /// The GPU and its driver.
    pub gpu: Gpu,
    /// The digest of the engine's key.
    pub engine: String,
    /// What there is of it.
    pub state: EngineState,
}

/// What there is of an engine.
#[derive(Clone, Debug)]
pub enum EngineState {
    /// It has not been built.
    Missing,
    /// It is there, and cannot be used.
    Unusable(TensorRtError),
    /// It is there and computes.
    Ready {
        /// How long it was built, in seconds.
        build_s: f64,
        /// The size of its plan.
        plan_bytes: u64,
        /// How it does.
        comparison: Comparison,
    },
}

/// The golden film on both.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// The network alone, median, in milliseconds.
    pub processor_ms: f64,
    /// The same, copies to and from the GPU included.
    pub tensorrt_ms: f64,
    /// How far apart their landmarks are.
    pub agreement: Agreement,
}

/// Looks at TensorRT, the GPU and the engine for `bundle` in the cache of `state`; nothing is built.
///
/// Takes a few seconds: the network is loaded and run on both. A GPU that does not answer within `patience` is given up.
///
/// # Errors
/// When TensorRT or the GPU is not there, or not one that can be used.
pub fn examine(bundle: &Bundle, state: &Path, patience: Duration) -> Result<Examination, TensorRtError> {
    let (bundle, state) = (bundle.clone(), state.to_owned());
    watched(patience, move |progress| look(&bundle, &state, progress))
}

fn look(bundle: &Bundle, state: &Path, progress: &Progress) -> Result<Examination, TensorRtError> {
    let tensorrt = TensorRt::open()?;
    let key = tensorrt.key(bundle.network_sha256());
    let state = match EngineCache::below(state).plan(&key) {
        Ok(None) => EngineState::Missing,
        Ok(Some((plan, note))) => match compare(&tensorrt, bundle, &plan, progress) {
            Ok(comparison) => EngineState::Ready { build_s: note.build_s, plan_bytes: note.plan_bytes, comparison },
            Err(error) => EngineState::Unusable(error),
        },
        Err(error) => EngineState::Unusable(error),
    };
    Ok(Examination { tensorrt: tensorrt.version(), gpu: tensorrt.gpu().clone(), engine: key.digest(), state })
}

fn compare(
    tensorrt: &TensorRt,
    bundle: &Bundle,
    plan: &[u8],
    progress: &Progress,
) -> Result<Comparison, TensorRtError> {
    let network = &bundle.manifest().network;
    let names = bundle.manifest().landmarks.clone();
    progress.begins("the loading of its engine");
    let detector = tensorrt.detector(plan, network.frame, names.len())?;
    let mut gpu = Localizer::with_detector(Box::new(detector), names);
    progress.leaves_alone("the loading of the network on the processor");
    let failed = |error: InferenceError| TensorRtError::Build { reason: error.to_string() };
    let mut processor = Localizer::new(bundle).map_err(failed)?;
    let median = |localizer: &mut Localizer, runs: usize| {
        let mut times = Vec::new();
        let mut found = Vec::new();
        for _ in 0..runs {
            progress.begins("the golden film");
            let began = Instant::now();
            let golden = localizer.golden(bundle)?;
            times.push(golden.inference_time.min(began.elapsed()));
            found = golden.landmarks.iter().map(|landmark| landmark.point).collect();
        }
        times.sort();
        Ok((times.get(times.len() / 2).copied().unwrap_or(Duration::ZERO), found))
    };
    let (processor_time, reference) = median(&mut processor, PROCESSOR_RUNS).map_err(failed)?;
    let (gpu_time, found) = median(&mut gpu, GPU_RUNS).map_err(failed)?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let agreement = Agreement::of(&found, &reference);
    Ok(Comparison { processor_ms: ms(processor_time), tensorrt_ms: ms(gpu_time), agreement })
}
