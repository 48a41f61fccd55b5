//! The heatmap NFDP network: gray frames to normalised coordinates and their scale.

use tch::{Kind, Tensor};

use super::engine::EngineError;
use super::head::{Head, Neck};
use super::layers::Mode;
use super::parameters::{Init, Scope};
use super::resnet::{CHANNELS, ResNet18};

/// What distinguishes one NFDP network from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NfdpConfig {
    /// Landmarks (K).
    pub landmarks: usize,
    /// Whether logits are clamped at zero before the softmax: `true` in the paper's code.
    pub heatmap_relu: bool,
}

/// Backbone, neck, head, soft-argmax and sigma head (Huang et al. 2024, heatmap model).
#[derive(Debug)]
pub(super) struct Nfdp {
    backbone: ResNet18,
    neck: Neck,
    head: Head,
    sigma_weight: Tensor,
    sigma_bias: Tensor,
    landmarks: i64,
}

/// Coordinates and scales in normalised units: frame pixels / frame size - 0.5, and / frame size.
#[derive(Debug)]
pub(super) struct Prediction {
    /// `[n, K, 2]` in the order x, y.
    pub(super) mu: Tensor,
    /// `[n, K, 2]`, between 0 and 1.
    pub(super) sigma: Tensor,
}

impl Nfdp {
    pub(super) fn new(mut at: Scope<'_>, config: NfdpConfig) -> Result<Self, EngineError> {
        let landmarks = config.landmarks as i64;
        let backbone = ResNet18::new(at.at("backbone"))?;
        let neck = Neck::new(at.at("neck"))?;
        let head = Head::new(at.at("head"), landmarks, config.heatmap_relu)?;
        let mut sigma = at.at("sigma");
        Ok(Self {
            sigma_weight: sigma.weight("weight", &[2 * landmarks, CHANNELS[3]], Init::Xavier(0.01))?,
            sigma_bias: sigma.weight("bias", &[2 * landmarks], Init::Constant(0.0))?,
            backbone,
            neck,
            head,
            landmarks,
        })
    }

    /// # Shapes
    /// `gray` is `[n, 1, h, w]`, already `v / 255 - 0.5`; h and w are multiples of 32.
    pub(super) fn forward(&self, gray: &Tensor, mode: Mode) -> Result<Prediction, EngineError> {
        let features = self.backbone.forward(gray, mode)?;
        let logits = self.head.forward(&self.neck.forward(&features, mode)?, mode)?;
        let pooled = features[3].f_mean_dim([2i64, 3].as_slice(), false, Kind::Float)?;
        let sigma = pooled.f_linear(&self.sigma_weight, Some(&self.sigma_bias))?.f_sigmoid()?;
        Ok(Prediction { mu: soft_argmax(&logits)?, sigma: sigma.f_reshape([-1, self.landmarks, 2])? })
    }
}

/// The expected position under the softmax of each map: `sum p*i / W - 0.5`, integer indices, temperature 1.
///
/// # Shapes
/// `[n, K, h, w]` to `[n, K, 2]` in the order x, y.
fn soft_argmax(logits: &Tensor) -> Result<Tensor, EngineError> {
    let (n, k, h, w) = logits.size4()?;
    let p = logits.f_reshape([n, k, h * w])?.f_softmax(2, Kind::Float)?.f_reshape([n, k, h, w])?;
    let expected = |over: i64, size: i64| -> Result<Tensor, EngineError> {
        let index = Tensor::f_arange(size, (Kind::Float, logits.device()))?;
        let marginal = p.f_sum_dim_intlist(over, false, Kind::Float)?;
        Ok(marginal.f_matmul(&index.f_div_scalar(size as f64)?)?.f_sub_scalar(0.5)?)
    };
    Ok(Tensor::f_stack(&[expected(2, w)?, expected(3, h)?], 2)?)
}
