//! Convolution, batch normalisation and their usual row.

use tch::{Kind, Tensor};

use super::engine::EngineError;
use super::parameters::{Init, Scope};

const BN_EPS: f64 = 1e-5;
const BN_MOMENTUM: f64 = 0.1;

/// What batch normalisation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Normalises by the batch's statistics and records them.
    Train,
    /// Normalises by recorded statistics.
    Evaluate,
    /// As `Evaluate`, and rewrites its tensors for the batch's statistics so that what it computes stays the same.
    Unfold,
}

/// A square convolution without bias, padded to keep the size at stride 1.
#[derive(Debug)]
pub(super) struct Conv2d {
    weight: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    pub(super) fn new(
        mut at: Scope<'_>,
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        stride: i64,
    ) -> Result<Self, EngineError> {
        let weight = at.weight("weight", &[outputs, inputs, kernel, kernel], Init::HeFanOut)?;
        Ok(Self { weight, stride, padding: kernel / 2 })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, EngineError> {
        self.apply(x, &self.weight)
    }

    /// For a gray frame: the same as repeating it in every input channel, at a third of the work.
    pub(super) fn forward_gray(&self, x: &Tensor) -> Result<Tensor, EngineError> {
        self.apply(x, &self.weight.f_sum_dim_intlist(1i64, true, None::<Kind>)?)
    }

    fn apply(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, EngineError> {
        let (s, p) = (self.stride, self.padding);
        // The weight stays in single precision; its product takes the precision of what it is multiplied with.
        let weight = weight.f_to_kind(x.kind())?;
        Ok(x.f_conv2d(&weight, None::<&Tensor>, [s, s], [p, p], [1, 1], 1)?)
    }
}

/// Batch normalisation over `[n, c, h, w]`.
#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl BatchNorm {
    pub(super) fn new(mut at: Scope<'_>, channels: i64) -> Result<Self, EngineError> {
        Ok(Self {
            weight: at.weight("weight", &[channels], Init::Constant(1.0))?,
            bias: at.weight("bias", &[channels], Init::Constant(0.0))?,
            running_mean: at.statistic("running_mean", &[channels], 0.0)?,
            running_var: at.statistic("running_var", &[channels], 1.0)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, EngineError> {
        if mode == Mode::Unfold {
            self.unfold(x)?;
        }
        Ok(x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            mode == Mode::Train,
            BN_MOMENTUM,
            BN_EPS,
            true,
        )?)
    }
}

impl BatchNorm {
    /// `y = a x + c` is kept while mean and variance become those of `x`.
    fn unfold(&self, x: &Tensor) -> Result<(), EngineError> {
        let _guard = tch::no_grad_guard();
        let over = [0i64, 2, 3];
        let a = self.weight.f_div(&self.running_var.f_add_scalar(BN_EPS)?.f_sqrt()?)?;
        let c = self.bias.f_sub(&self.running_mean.f_mul(&a)?)?;
        let x = x.f_to_kind(Kind::Float)?;
        let mean = x.f_mean_dim(over.as_slice(), false, Kind::Float)?;
        let var = x.f_var_dim(over.as_slice(), false, false)?;
        for (tensor, value) in [
            (&self.weight, a.f_mul(&var.f_add_scalar(BN_EPS)?.f_sqrt()?)?),
            (&self.bias, c.f_add(&a.f_mul(&mean)?)?),
            (&self.running_mean, mean),
            (&self.running_var, var),
        ] {
            tensor.f_detach()?.f_copy_(&value)?;
        }
        Ok(())
    }
}

/// Convolution, batch normalisation, ReLU.
#[derive(Debug)]
pub(super) struct ConvBnRelu {
    conv: Conv2d,
    bn: BatchNorm,
}

impl ConvBnRelu {
    pub(super) const fn new(conv: Conv2d, bn: BatchNorm) -> Self {
        Self { conv, bn }
    }

    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, EngineError> {
        Ok(self.bn.forward(&self.conv.forward(x)?, mode)?.f_relu_()?)
    }
}

/// Twice the height and width, bilinear, corners not aligned.
pub(super) fn upsample2(x: &Tensor) -> Result<Tensor, EngineError> {
    let (_, _, h, w) = x.size4()?;
    Ok(x.f_upsample_bilinear2d([2 * h, 2 * w], false, None, None)?)
}
