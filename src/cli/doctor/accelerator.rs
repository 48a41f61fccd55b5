//! The GPU that may compute in the place of the processor, and why it does not.

use super::Check;
use crate::config::{Backend, Settings};
use crate::inference::tensorrt::{Comparison, EngineState, Examination, TensorRtError, examine};
use crate::model::Bundle;

const NAME: &str = "accelerator";

/// TensorRT, its GPU, the engine for `bundle`, and how the two compare.
pub(super) fn check(settings: &Settings, bundle: &Bundle) -> Check {
    let backend = settings.inference.backend;
    if backend == Backend::Cpu {
        return Check::ok(NAME, "none is looked for, since inference.backend is \"cpu\"");
    }
    judged(backend, examine(bundle, &settings.state.directory, settings.inference.answer_timeout))
}

fn judged(backend: Backend, examined: Result<Examination, TensorRtError>) -> Check {
    let Examination { tensorrt, gpu, engine, state } = match examined {
        Ok(examination) => examination,
        Err(why) if why.is_absence() && backend == Backend::Auto => {
            return Check::ok(NAME, format!("none, the network runs on the CPU ({why})"));
        }
        Err(why) => {
            let remedy = "mend what it names, or set inference.backend = \"cpu\"; results are as right without it";
            return Check::warn(NAME, format!("not used: {why}"), remedy);
        }
    };
    let about = format!("{}, CUDA {}, {tensorrt}, engine {engine}", gpu.name, gpu.cuda_in_words());
    match state {
        EngineState::Missing => Check::warn(
            NAME,
            format!("{about}: not built yet"),
            "the daemon builds it in the background, in minutes; if it does not, its journal and status say why",
        ),
        EngineState::Unusable(why) => Check::warn(
            NAME,
            format!("{about}: {why}"),
            "the daemon builds it anew where it may; what belongs to another user it leaves to you",
        ),
        EngineState::Ready { build_s, plan_bytes, comparison } => {
            let Comparison { processor_ms, tensorrt_ms, agreement } = comparison;
            let words = format!(
                "{about}: {} MiB built in {build_s:.1} s; the golden film in {tensorrt_ms:.1} ms, on the CPU in \
                 {processor_ms:.0} ms; landmarks {:.3} px apart at most, {:.3} px at the median",
                plan_bytes >> 20,
                agreement.max_px,
                agreement.median_px
            );
            match agreement.check() {
                Ok(_) => Check::ok(NAME, words),
                Err(why) => {
                    Check::warn(NAME, format!("{words}: {why}"), "results come from the CPU: update the driver")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_machine_without_a_gpu_is_well_unless_it_is_to_have_one() {
        for (backend, verdict) in [(Backend::Auto, Verdict::Ok), (Backend::TensorRt, Verdict::Warn)] {
            let check = judged(backend, Err(TensorRtError::NotBuilt));
            assert_eq!(check.verdict, verdict);
            assert!(check.words.contains("built without TensorRT"), "{}", check.words);
        }
        let differs = TensorRtError::Differs { max_px: "3.000".to_owned(), median_px: "0.500".to_owned() };
        let check = judged(Backend::Auto, Err(differs));
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(check.words.contains("3.000 px"), "{}", check.words);
    }
}
