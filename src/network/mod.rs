//! NFDP on LibTorch (feature `torch`): the only room that knows the framework.
//!
//! Built from the bottom up: [`parameters`](self) hold every weight under torchvision's names; `layers`, `resnet`,
//! `head` and `nfdp` are the network, `flow` and `loss` what trains it, `adam` the optimiser. [`Engine`] is all that
//! leaves this room: plain vectors and names, no tensor.
//!
//! Tensors are `[n, channels, height, width]` with channels-last strides, which LibTorch's CPU kernels are 1.4 times
//! faster on; convolutions keep the strides of their input.

mod adam;
mod device;
mod engine;
mod flow;
mod head;
mod layers;
mod loss;
mod nfdp;
mod parameters;
mod resnet;
#[cfg(test)]
mod tests;

pub use engine::{Engine, EngineError, EngineOptions, StepTimes};
