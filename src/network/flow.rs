//! RealNVP on the plane (Dinh et al. 2017): the density of normalised residuals, learnt with the network.
//!
//! It exists in training only; inference needs neither it nor its 53,784 weights.

use tch::Tensor;

use super::engine::EngineError;
use super::parameters::{Init, Scope};

const COUPLINGS: usize = 6;
const HIDDEN: i64 = 64;

/// Six affine couplings with alternating masks and the prior N(0, I), shared by all landmarks.
#[derive(Debug)]
pub(super) struct RealNvp {
    couplings: Vec<Coupling>,
}

#[derive(Debug)]
struct Coupling {
    /// The axis that passes unchanged: the mask is [0, 1] or [1, 0].
    kept: i64,
    scale: Mlp,
    shift: Mlp,
}

/// 2-64-64-2 with LeakyReLU(0.01) between.
#[derive(Debug)]
struct Mlp {
    layers: [(Tensor, Tensor); 3],
}

impl RealNvp {
    pub(super) fn new(mut at: Scope<'_>) -> Result<Self, EngineError> {
        let couplings = (0..COUPLINGS)
            .map(|i| {
                let mut at = at.at(i);
                Ok(Coupling {
                    kept: if i % 2 == 0 { 1 } else { 0 },
                    scale: Mlp::new(at.at("scale"))?,
                    shift: Mlp::new(at.at("shift"))?,
                })
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Self { couplings })
    }

    /// `log phi(x)` of every row of `x`.
    ///
    /// # Shapes
    /// `[rows, 2]` to `[rows]`.
    pub(super) fn log_prob(&self, x: &Tensor) -> Result<Tensor, EngineError> {
        let mut z = x.shallow_clone();
        let mut logdet: Option<Tensor> = None;
        for Coupling { kept, scale, shift } in self.couplings.iter().rev() {
            let moved = 1 - kept;
            let keep = z.f_narrow(1, *kept, 1)?;
            let zero = keep.f_zeros_like()?;
            let masked = join(&keep, &zero, *kept)?;
            let s = scale.forward(&masked)?.f_tanh()?.f_narrow(1, moved, 1)?;
            let t = shift.forward(&masked)?.f_narrow(1, moved, 1)?;
            let changed = z.f_narrow(1, moved, 1)?.f_sub(&t)?.f_mul(&s.f_neg()?.f_exp()?)?;
            z = join(&keep, &changed, *kept)?;
            let s = s.f_squeeze_dim(1)?;
            logdet = Some(match logdet {
                Some(sum) => sum.f_sub(&s)?,
                None => s.f_neg()?,
            });
        }
        let normal = z.f_square()?.f_sum_dim_intlist(1i64, false, z.kind())?.f_mul_scalar(-0.5)?;
        let normal = normal.f_sub_scalar(std::f64::consts::TAU.ln())?;
        match logdet {
            Some(logdet) => Ok(normal.f_add(&logdet)?),
            None => Ok(normal),
        }
    }
}

/// Two columns as rows of two, `kept` in its place.
fn join(keep: &Tensor, other: &Tensor, kept: i64) -> Result<Tensor, EngineError> {
    let pair = if kept == 0 { [keep, other] } else { [other, keep] };
    Ok(Tensor::f_cat(&pair, 1)?)
}

impl Mlp {
    fn new(mut at: Scope<'_>) -> Result<Self, EngineError> {
        let mut layer = |i: usize, inputs: i64, outputs: i64| -> Result<(Tensor, Tensor), EngineError> {
            let mut at = at.at(i);
            // PyTorch's default for linear layers: the public code's own initialisation never reaches them.
            let init = Init::Uniform(1.0 / (inputs as f64).sqrt());
            Ok((at.weight("weight", &[outputs, inputs], init)?, at.weight("bias", &[outputs], init)?))
        };
        Ok(Self { layers: [layer(0, 2, HIDDEN)?, layer(1, HIDDEN, HIDDEN)?, layer(2, HIDDEN, 2)?] })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, EngineError> {
        let [first, second, last] = &self.layers;
        let x = x.f_linear(&first.0, Some(&first.1))?.f_leaky_relu()?;
        let x = x.f_linear(&second.0, Some(&second.1))?.f_leaky_relu()?;
        Ok(x.f_linear(&last.0, Some(&last.1))?)
    }
}
