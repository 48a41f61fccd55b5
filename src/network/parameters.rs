//! Every weight and running statistic under its name, in one ordered map.

use std::collections::BTreeMap;

use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use rand_distr::{Distribution, Normal, Uniform};
use tch::{Device, Kind, Tensor};

use super::engine::EngineError;

/// How a new tensor is filled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Init {
    /// Normal with variance `2 / fan_out` (He et al. 2015, as torchvision's ResNet).
    HeFanOut,
    /// Uniform within `gain * sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    Xavier(f64),
    /// Uniform within this bound.
    Uniform(f64),
    /// One value.
    Constant(f32),
}

/// The named tensors of a network: trained weights and, beside them, running statistics.
#[derive(Debug)]
pub(super) struct Parameters {
    weights: BTreeMap<String, Tensor>,
    statistics: BTreeMap<String, Tensor>,
    rng: ChaCha8Rng,
    device: Device,
}

/// A place in the names of [`Parameters`] where a layer creates its tensors.
pub(super) struct Scope<'a> {
    parameters: &'a mut Parameters,
    prefix: String,
}

impl Parameters {
    pub(super) fn new(seed: u64, device: Device) -> Self {
        Self { weights: BTreeMap::new(), statistics: BTreeMap::new(), rng: ChaCha8Rng::seed_from_u64(seed), device }
    }

    pub(super) fn root(&mut self) -> Scope<'_> {
        Scope { parameters: self, prefix: String::new() }
    }

    /// The trained tensors, by name.
    pub(super) const fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }

    /// The running statistics, by name.
    pub(super) const fn statistics(&self) -> &BTreeMap<String, Tensor> {
        &self.statistics
    }

    /// Trained tensors and running statistics, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.weights.iter().chain(&self.statistics).map(|(name, tensor)| (name.as_str(), tensor))
    }

    fn create(&mut self, shape: &[i64], init: Init) -> Result<Tensor, EngineError> {
        let receptive: i64 = shape.iter().skip(2).product();
        let fan_in = (shape.get(1).copied().unwrap_or(1) * receptive) as f64;
        let fan_out = (shape[0] * receptive) as f64;
        let n = shape.iter().product::<i64>() as usize;
        let values: Vec<f32> = match init {
            Init::Constant(value) => vec![value; n],
            Init::HeFanOut => {
                let normal = Normal::new(0.0, (2.0 / fan_out).sqrt() as f32).expect("the deviation is finite");
                (0..n).map(|_| normal.sample(&mut self.rng)).collect()
            }
            Init::Xavier(gain) => self.uniform(n, gain * (6.0 / (fan_in + fan_out)).sqrt()),
            Init::Uniform(bound) => self.uniform(n, bound),
        };
        let tensor = Tensor::f_from_slice(&values)?.f_reshape(shape)?.f_to_device(self.device)?;
        channels_last(&tensor)
    }

    fn uniform(&mut self, n: usize, bound: f64) -> Vec<f32> {
        let bound = bound as f32;
        let uniform = Uniform::new_inclusive(-bound, bound).expect("the bounds are finite and in order");
        (0..n).map(|_| uniform.sample(&mut self.rng)).collect()
    }
}

impl Scope<'_> {
    /// The scope one name deeper.
    pub(super) fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Scope { parameters: self.parameters, prefix }
    }

    /// A trained tensor.
    pub(super) fn weight(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor, EngineError> {
        let tensor = self.parameters.create(shape, init)?.f_set_requires_grad(true)?;
        self.parameters.weights.insert(format!("{}.{name}", self.prefix), tensor.shallow_clone());
        Ok(tensor)
    }

    /// A tensor that is kept and saved, but not trained.
    pub(super) fn statistic(&mut self, name: &str, shape: &[i64], value: f32) -> Result<Tensor, EngineError> {
        let tensor = self.parameters.create(shape, Init::Constant(value))?;
        self.parameters.statistics.insert(format!("{}.{name}", self.prefix), tensor.shallow_clone());
        Ok(tensor)
    }
}

/// The same values with channels-last strides; tensors that are not 4-dimensional stay as they are.
pub(super) fn channels_last(tensor: &Tensor) -> Result<Tensor, EngineError> {
    if tensor.dim() != 4 {
        return Ok(tensor.shallow_clone());
    }
    Ok(tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

/// The values of a tensor, row by row.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>, EngineError> {
    let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0f32; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}

/// A tensor of its own with the same values and strides, outside the graph.
pub(super) fn duplicate(tensor: &Tensor) -> Result<Tensor, EngineError> {
    let mut copy = tensor.f_detach()?.f_empty_like()?;
    copy.f_copy_(&tensor.f_detach()?)?;
    Ok(copy)
}
