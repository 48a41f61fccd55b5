//! All that leaves this room: a network that steps, predicts and hands out its state as plain vectors.

use std::collections::BTreeMap;
use std::time::Instant;

use tch::{Device, Kind, TchError, Tensor};

use super::adam::Adam;
use super::flow::RealNvp;
use super::layers::Mode;
use super::loss::{absolute_error, residual_log_likelihood};
use super::nfdp::{Nfdp, Prediction};
use super::parameters::{Parameters, duplicate, values};
use crate::geometry::Size;
use crate::train::{Architecture, Array, Batch, FilmPrediction, Weights};

/// How an engine computes.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Of the initial weights.
    pub seed: u64,
    /// Whether a normalizing flow is learnt with the network; without it the loss is the coordinates' absolute error.
    pub flow: bool,
    /// Threads of one operation: the number of physical cores that are free.
    pub threads: usize,
    /// Decay of the exponential moving average of the weights that predictions are made with; 0 turns it off.
    pub average_decay: f64,
    /// Features in bfloat16 instead of single precision; where not said, on a GPU.
    pub bf16: Option<bool>,
}

/// Where the time of a step goes, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepTimes {
    /// From the batch to the loss.
    pub forward: f64,
    /// To the gradients.
    pub backward: f64,
    /// Optimiser and moving average.
    pub update: f64,
}

/// NFDP with its flow, its optimiser and the moving average of its weights, on LibTorch.
#[derive(Debug)]
pub struct Engine {
    architecture: Architecture,
    options: EngineOptions,
    parameters: Parameters,
    network: Nfdp,
    /// None for the ablation that learns coordinates alone.
    flow: Option<RealNvp>,
    adam: Adam,
    /// The moving average of every weight and statistic.
    average: BTreeMap<String, Tensor>,
    device: Device,
}

/// Why an engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// LibTorch's own words.
    #[error("LibTorch: {0}")]
    Torch(#[from] TchError),
    /// LibTorch's own words at one weight.
    #[error("LibTorch at {name}: {reason}")]
    Weight {
        /// The weight.
        name: String,
        /// LibTorch's words.
        reason: String,
    },
    /// A state does not fit this network.
    #[error("{name} has shape {found:?}, the network needs {expected:?}")]
    Shape {
        /// The weight.
        name: String,
        /// What the network has.
        expected: Vec<usize>,
        /// What it was given.
        found: Vec<usize>,
    },
    /// A batch without a frame or of the wrong length.
    #[error("the batch holds {found} {what}, {expected} were expected")]
    Batch {
        /// Which part.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

impl EngineError {
    pub(super) fn at(name: &str, error: &TchError) -> Self {
        Self::Weight { name: name.to_owned(), reason: error.to_string() }
    }
}

impl Engine {
    /// An engine with fresh weights, on the GPU where LibTorch finds one.
    ///
    /// # Errors
    /// When LibTorch cannot allocate or compute.
    pub fn new(architecture: Architecture, options: EngineOptions) -> Result<Self, EngineError> {
        tch::set_num_threads(i32::try_from(options.threads).unwrap_or(1));
        let device = super::device::best();
        let mut parameters = Parameters::new(options.seed, device);
        let network = Nfdp::new(parameters.root(), &architecture)?;
        let flow = if options.flow { Some(RealNvp::new(parameters.root().at("flow"))?) } else { None };
        let adam = Adam::new(parameters.weights())?;
        let mut engine =
            Self { architecture, options, parameters, network, flow, adam, average: BTreeMap::new(), device };
        engine.restart_average()?;
        Ok(engine)
    }

    /// Where it computes ("cpu" or "cuda").
    #[must_use]
    pub fn device(&self) -> &'static str {
        if self.device == Device::Cpu { "cpu" } else { "cuda" }
    }

    /// One optimiser step; the loss of each film, before the step.
    ///
    /// Nothing is changed when a loss is not finite: the caller names the films and stops.
    ///
    /// # Errors
    /// When the batch does not fit the network or LibTorch fails.
    pub fn step(&mut self, batch: &Batch, lr: f64) -> Result<Vec<f32>, EngineError> {
        Ok(self.advance(batch, lr, false)?.0)
    }

    /// As [`step`](Self::step), and where its time went.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn timed_step(&mut self, batch: &Batch, lr: f64) -> Result<(Vec<f32>, StepTimes), EngineError> {
        self.advance(batch, lr, true)
    }

    /// A GPU works on while the program goes on: for its times to mean something it is waited for.
    fn advance(&mut self, batch: &Batch, lr: f64, timed: bool) -> Result<(Vec<f32>, StepTimes), EngineError> {
        let wait = |engine: &Self| {
            if let (Device::Cuda(index), true) = (engine.device, timed) {
                tch::Cuda::synchronize(index as i64);
            }
        };
        let began = Instant::now();
        let loss = self.loss(batch, Mode::Train)?;
        let per_film = values(&loss)?;
        let mut times = StepTimes { forward: began.elapsed().as_secs_f64(), ..StepTimes::default() };
        if per_film.iter().all(|v| v.is_finite()) {
            let began = Instant::now();
            loss.f_mean(Kind::Float)?.f_backward()?;
            wait(self);
            times.backward = began.elapsed().as_secs_f64();
            let began = Instant::now();
            self.adam.step(self.parameters.weights(), lr)?;
            self.update_average()?;
            wait(self);
            times.update = began.elapsed().as_secs_f64();
        }
        Ok((per_film, times))
    }

    /// The loss of each film as the next [`step`](Self::step) would see it; nothing is changed.
    ///
    /// # Errors
    /// When the batch does not fit the network or LibTorch fails.
    pub fn trial(&mut self, batch: &Batch) -> Result<Vec<f32>, EngineError> {
        let _guard = tch::no_grad_guard();
        let kept: Vec<(String, Tensor)> = self
            .parameters
            .statistics()
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), duplicate(tensor)?)))
            .collect::<Result<_, EngineError>>()?;
        let losses = self.loss(batch, Mode::Train).and_then(|loss| values(&loss));
        for (name, before) in kept {
            if let Some(tensor) = self.parameters.statistics().get(&name) {
                tensor.f_detach()?.f_copy_(&before)?;
            }
        }
        losses
    }

    /// Takes the normalization of a deployed network out of its convolutions again: every statistic becomes that of
    /// `batch`, and what the network finds stays the same.
    ///
    /// # Errors
    /// When the batch does not fit the network or LibTorch fails.
    pub fn unfold(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let _guard = tch::no_grad_guard();
        self.network.forward(&self.frames(batch)?, Mode::Unfold)?;
        self.restart_average()
    }

    /// Coordinates and scales of each film, from the averaged weights.
    ///
    /// # Errors
    /// When the batch does not fit the network or LibTorch fails.
    pub fn predict(&mut self, batch: &Batch) -> Result<Vec<FilmPrediction>, EngineError> {
        let _guard = tch::no_grad_guard();
        let gray = self.frames(batch)?;
        self.swap_average()?;
        let prediction = self.network.forward(&gray, Mode::Evaluate);
        self.swap_average()?;
        let Prediction { mu, sigma } = prediction?;
        let pairs = |tensor: &Tensor| -> Result<Vec<[f32; 2]>, EngineError> {
            Ok(values(tensor)?.chunks_exact(2).map(|p| [p[0], p[1]]).collect())
        };
        let (mu, sigma) = (pairs(&mu)?, pairs(&sigma)?);
        let k = self.architecture.landmarks;
        Ok(mu
            .chunks_exact(k)
            .zip(sigma.chunks_exact(k))
            .map(|(mu, sigma)| FilmPrediction { mu: mu.to_vec(), sigma: sigma.to_vec() })
            .collect())
    }

    /// The averaged weights and statistics: what predictions are made with and what is exported.
    ///
    /// # Errors
    /// When LibTorch fails.
    pub fn weights(&self) -> Result<Weights, EngineError> {
        self.average.iter().map(|(name, tensor)| Ok((name.clone(), array(tensor)?))).collect()
    }

    /// Everything that a continued run needs: weights, statistics, averages (`average.`), moments (`adam.m.`,
    /// `adam.v.`) and the number of steps (`adam.t`, as three 16-bit digits so that it is exact).
    ///
    /// # Errors
    /// When LibTorch fails.
    pub fn state(&self) -> Result<Weights, EngineError> {
        let mut state = Weights::new();
        for (name, tensor) in self.parameters.all() {
            state.insert(name.to_owned(), array(tensor)?);
        }
        let groups = [("average", &self.average), ("adam.m", &self.adam.first), ("adam.v", &self.adam.second)];
        for (group, tensors) in groups {
            for (name, tensor) in tensors {
                state.insert(format!("{group}.{name}"), array(tensor)?);
            }
        }
        let digits = [0, 16, 32].map(|shift| ((self.adam.steps >> shift) & 0xffff) as f32);
        state.insert("adam.t".into(), Array { shape: vec![3], values: digits.to_vec() });
        Ok(state)
    }

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape; the engine is then unusable.
    pub fn load_state(&mut self, state: &Weights) -> Result<(), EngineError> {
        let _guard = tch::no_grad_guard();
        for (name, tensor) in self.parameters.all() {
            assign(tensor, name, state.get(name))?;
        }
        let groups = [("average", &self.average), ("adam.m", &self.adam.first), ("adam.v", &self.adam.second)];
        for (group, tensors) in groups {
            for (name, tensor) in tensors {
                let name = format!("{group}.{name}");
                assign(tensor, &name, state.get(&name))?;
            }
        }
        let steps = state.get("adam.t").map(|array| array.values.as_slice()).unwrap_or_default();
        self.adam.steps = steps.iter().rev().fold(0, |sum, &digit| (sum << 16) | digit as u64);
        Ok(())
    }

    /// Takes the weights that fit by name and shape, restarts the average, and says which were taken.
    ///
    /// # Errors
    /// When LibTorch fails.
    pub fn load_weights(&mut self, weights: &Weights) -> Result<Vec<String>, EngineError> {
        let _guard = tch::no_grad_guard();
        let mut taken = Vec::new();
        for (name, tensor) in self.parameters.all() {
            if let Some(array) = weights.get(name)
                && array.shape == shape(tensor)
            {
                assign(tensor, name, Some(array))?;
                taken.push(name.to_owned());
            }
        }
        self.restart_average()?;
        Ok(taken)
    }

    /// The names and shapes of all weights and statistics.
    pub fn layout(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        self.parameters.all().map(|(name, tensor)| (name, shape(tensor)))
    }

    /// The names of what is trained (the rest are statistics).
    pub fn trained(&self) -> impl Iterator<Item = &str> {
        self.parameters.weights().keys().map(String::as_str)
    }

    /// A weight or statistic by name.
    #[cfg(test)]
    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.parameters.all().find(|(n, _)| *n == name).map(|(_, tensor)| tensor)
    }

    pub(super) fn loss(&self, batch: &Batch, mode: Mode) -> Result<Tensor, EngineError> {
        let gray = self.frames(batch)?;
        let n = gray.size()[0];
        let k = self.architecture.landmarks as i64;
        expect_len("targets", batch.targets.len(), (n * k * 2) as usize)?;
        expect_len("visibility weights", batch.visible.len(), (n * k) as usize)?;
        let target = Tensor::f_from_slice(&batch.targets)?.f_reshape([n, k, 2])?.f_to_device(self.device)?;
        let visible = Tensor::f_from_slice(&batch.visible)?.f_reshape([n, k])?.f_to_device(self.device)?;
        let prediction = self.network.forward(&gray, mode)?;
        match &self.flow {
            Some(flow) => residual_log_likelihood(flow, &prediction, &target, &visible),
            None => absolute_error(&prediction, &target, &visible),
        }
    }

    /// `[n, 1, h, w]`, normalised.
    fn frames(&self, batch: &Batch) -> Result<Tensor, EngineError> {
        let Size { width, height } = batch.frame;
        let area = batch.frame.area() as usize;
        let n = batch.pixels.len() / area.max(1);
        expect_len("pixels", batch.pixels.len(), n.max(1) * area)?;
        let gray = Tensor::f_from_slice(&batch.pixels)?.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        let gray = gray.f_div_scalar(255.0)?.f_sub_scalar(0.5)?;
        let kind = if self.options.bf16.unwrap_or(self.device != Device::Cpu) { Kind::BFloat16 } else { Kind::Float };
        Ok(gray.f_reshape([n as i64, 1, i64::from(height), i64::from(width)])?.f_to_kind(kind)?)
    }

    fn restart_average(&mut self) -> Result<(), EngineError> {
        let copy =
            |(name, tensor): (&str, &Tensor)| -> Result<_, EngineError> { Ok((name.to_owned(), duplicate(tensor)?)) };
        self.average = self.parameters.all().map(copy).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn update_average(&mut self) -> Result<(), EngineError> {
        let _guard = tch::no_grad_guard();
        // The first steps count fully: an average that starts at random weights would need many steps to forget them.
        let steps = self.adam.steps as f64;
        let decay = self.options.average_decay.min((1.0 + steps) / (10.0 + steps));
        for (name, tensor) in self.parameters.all() {
            if let Some(average) = self.average.get_mut(name) {
                let _ = average.f_lerp_(tensor, 1.0 - decay)?;
            }
        }
        Ok(())
    }

    /// Exchanges the trained weights and their average; twice is as never.
    fn swap_average(&mut self) -> Result<(), EngineError> {
        for (name, tensor) in self.parameters.all() {
            if let Some(average) = self.average.get_mut(name) {
                let trained = duplicate(tensor)?;
                tensor.f_detach()?.f_copy_(average)?;
                average.f_copy_(&trained)?;
            }
        }
        Ok(())
    }
}

fn expect_len(what: &'static str, found: usize, expected: usize) -> Result<(), EngineError> {
    if found == expected { Ok(()) } else { Err(EngineError::Batch { what, expected, found }) }
}

fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().into_iter().map(|n| n as usize).collect()
}

fn array(tensor: &Tensor) -> Result<Array, EngineError> {
    Ok(Array { shape: shape(tensor), values: values(tensor)? })
}

fn assign(tensor: &Tensor, name: &str, array: Option<&Array>) -> Result<(), EngineError> {
    let expected = shape(tensor);
    let found = array.map(|a| a.shape.clone()).unwrap_or_default();
    match array {
        Some(array) if found == expected => {
            let sizes: Vec<i64> = found.iter().map(|&n| n as i64).collect();
            let source = Tensor::f_from_slice(&array.values)?.f_reshape(sizes)?.f_to_device(tensor.device())?;
            tensor.f_detach()?.f_copy_(&source)?;
            Ok(())
        }
        _ => Err(EngineError::Shape { name: name.to_owned(), expected, found }),
    }
}
