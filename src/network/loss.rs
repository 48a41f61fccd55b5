//! The residual log-likelihood loss of NFDP (Li et al. 2021, eq. 8; Huang et al. 2024, eq. 10), and the absolute error
//! that its ablation is trained by.

use tch::Tensor;

use super::engine::EngineError;
use super::flow::RealNvp;
use super::nfdp::Prediction;

/// Below this sigma counts as this: a wrong label would otherwise drive it to zero and the loss to NaN.
const SIGMA_FLOOR: f64 = 1e-4;

/// The loss of each film, summed over its landmarks; its mean over the films is what is minimised.
///
/// With e = mu - g: `sum_k w_k { -2 log phi(e / sigma) + sum_d [2 log sigma_d + log(2 pi) / 2
/// + |e_d| / (sqrt(2) sigma_d + 1e-9)] }`. The factor 2 is the public code's broadcast of log phi over both axes.
///
/// # Shapes
/// `target` is `[n, K, 2]` in normalised units, `visible` `[n, K]` of 0 and 1; the result is `[n]`.
pub(super) fn residual_log_likelihood(
    flow: &RealNvp,
    prediction: &Prediction,
    target: &Tensor,
    visible: &Tensor,
) -> Result<Tensor, EngineError> {
    let (n, k, _) = target.size3()?;
    let sigma = prediction.sigma.f_clamp_min(SIGMA_FLOOR)?;
    // An invisible landmark's residual is zeroed before the flow: whatever its label, it cannot reach a gradient.
    let error = prediction.mu.f_sub(target)?.f_mul(&visible.f_unsqueeze(2)?)?;
    let residual = error.f_div(&sigma)?.f_reshape([n * k, 2])?;
    let log_phi = flow.log_prob(&residual)?.f_reshape([n, k])?;

    let scale = sigma.f_log()?.f_mul_scalar(2.0)?.f_add_scalar(0.5 * std::f64::consts::TAU.ln())?;
    let laplace = error.f_abs()?.f_div(&sigma.f_mul_scalar(std::f64::consts::SQRT_2)?.f_add_scalar(1e-9)?)?;
    let per_axis = scale.f_add(&laplace)?.f_sum_dim_intlist(2i64, false, sigma.kind())?;
    let per_landmark = per_axis.f_sub(&log_phi.f_mul_scalar(2.0)?)?;
    Ok(per_landmark.f_mul(visible)?.f_sum_dim_intlist(1i64, false, sigma.kind())?)
}

/// The ablation's loss of each film: `sum_k w_k sum_d |mu - g|`; sigma has no part in it.
///
/// # Shapes
/// As [`residual_log_likelihood`].
pub(super) fn absolute_error(
    prediction: &Prediction,
    target: &Tensor,
    visible: &Tensor,
) -> Result<Tensor, EngineError> {
    let error = prediction.mu.f_sub(target)?.f_mul(&visible.f_unsqueeze(2)?)?.f_abs()?;
    Ok(error.f_sum_dim_intlist([1i64, 2].as_slice(), false, target.kind())?)
}
