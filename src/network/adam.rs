//! Adam (Kingma and Ba 2015) with its whole state in the open, so that a run can be continued bit for bit.

use std::collections::BTreeMap;

use tch::Tensor;

use super::engine::EngineError;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// First and second moments of every weight, and the number of steps taken.
#[derive(Debug)]
pub(super) struct Adam {
    pub(super) first: BTreeMap<String, Tensor>,
    pub(super) second: BTreeMap<String, Tensor>,
    pub(super) steps: u64,
}

impl Adam {
    pub(super) fn new(weights: &BTreeMap<String, Tensor>) -> Result<Self, EngineError> {
        let zeros = || -> Result<BTreeMap<String, Tensor>, EngineError> {
            weights.iter().map(|(name, w)| Ok((name.clone(), w.f_detach()?.f_zeros_like()?))).collect()
        };
        Ok(Self { first: zeros()?, second: zeros()?, steps: 0 })
    }

    /// One step down the gradients, which are cleared; a weight without a gradient stays.
    pub(super) fn step(&mut self, weights: &BTreeMap<String, Tensor>, lr: f64) -> Result<(), EngineError> {
        self.steps += 1;
        let t = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let step_size = lr / (1.0 - BETA1.powi(t));
        let second_correction = (1.0 - BETA2.powi(t)).sqrt();
        let _guard = tch::no_grad_guard();
        for ((name, weight), (m, v)) in weights.iter().zip(self.first.values_mut().zip(self.second.values_mut())) {
            let gradient = weight.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let mut gradient_sink = gradient.shallow_clone();
            let _ = m.f_lerp_(&gradient, 1.0 - BETA1)?;
            let _ = v.f_mul_scalar_(BETA2)?.f_add_(&gradient.f_square()?.f_mul_scalar(1.0 - BETA2)?)?;
            let denominator = v.f_sqrt()?.f_div_scalar(second_correction)?.f_add_scalar(EPS)?;
            let update = m.f_div(&denominator)?.f_mul_scalar(-step_size)?;
            let _ = weight.shallow_clone().f_add_(&update).map_err(|e| EngineError::at(name, &e))?;
            let _ = gradient_sink.f_zero_()?;
        }
        Ok(())
    }
}
