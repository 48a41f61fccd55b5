//! The NFDP networks: gray frames to normalised coordinates and their scale.

use tch::{Kind, Tensor};

use super::engine::EngineError;
use super::head::{Head, Neck};
use super::layers::Mode;
use super::parameters::{Init, Scope};
use super::resnet::{CHANNELS, ResNet18};
use crate::train::{Architecture, Model};

/// Backbone, coordinates and sigma head (Huang et al. 2024).
#[derive(Debug)]
pub(super) struct Nfdp {
    backbone: ResNet18,
    coordinates: Coordinates,
    sigma: Linear,
    landmarks: i64,
}

/// The two ways to coordinates.
#[derive(Debug)]
enum Coordinates {
    Heatmap(Box<(Neck, Head)>),
    Regression(Linear),
}

/// A linear layer on the pooled coarsest feature: x and y of each landmark.
#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn new(mut at: Scope<'_>, landmarks: i64) -> Result<Self, EngineError> {
        Ok(Self {
            weight: at.weight("weight", &[2 * landmarks, CHANNELS[3]], Init::Xavier(0.01))?,
            bias: at.weight("bias", &[2 * landmarks], Init::Constant(0.0))?,
        })
    }
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
    pub(super) fn new(mut at: Scope<'_>, architecture: &Architecture) -> Result<Self, EngineError> {
        let landmarks = architecture.landmarks as i64;
        let backbone = ResNet18::new(at.at("backbone"))?;
        let coordinates = match architecture.model {
            Model::Heatmap => {
                let neck = Neck::new(at.at("neck"), architecture.top_down)?;
                Coordinates::Heatmap(Box::new((neck, Head::new(at.at("head"), architecture)?)))
            }
            Model::Regression => Coordinates::Regression(Linear::new(at.at("coordinates"), landmarks)?),
        };
        Ok(Self { sigma: Linear::new(at.at("sigma"), landmarks)?, backbone, coordinates, landmarks })
    }

    /// # Shapes
    /// `gray` is `[n, 1, h, w]`, already `v / 255 - 0.5`; h and w are multiples of 32. Features have the precision of
    /// `gray`; soft-argmax, sigma and what follows are in single precision.
    pub(super) fn forward(&self, gray: &Tensor, mode: Mode) -> Result<Prediction, EngineError> {
        let features = self.backbone.forward(gray, mode)?;
        let pooled = features[3].f_to_kind(Kind::Float)?.f_mean_dim([2i64, 3].as_slice(), false, Kind::Float)?;
        let pairs = |flat: Tensor| flat.f_reshape([-1, self.landmarks, 2]);
        let mu = match &self.coordinates {
            Coordinates::Heatmap(layers) => {
                let (neck, head) = layers.as_ref();
                let logits = head.forward(&neck.forward(&features, mode)?, mode)?;
                soft_argmax(&logits.f_to_kind(Kind::Float)?)?
            }
            Coordinates::Regression(Linear { weight, bias }) => {
                let length = pooled.f_norm_scalaropt_dim(2.0, 1i64, true)?;
                pairs(pooled.f_linear(weight, None::<&Tensor>)?.f_div(&length)?.f_add(bias)?)?
            }
        };
        let sigma = pooled.f_linear(&self.sigma.weight, Some(&self.sigma.bias))?.f_sigmoid()?;
        Ok(Prediction { mu, sigma: pairs(sigma)? })
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
