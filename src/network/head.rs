//! Neck and semantic-FPN head: backbone features to one heatmap of logits a landmark, at stride 4.

use tch::Tensor;

use super::engine::EngineError;
use super::layers::{BatchNorm, Conv2d, ConvBnRelu, Mode, upsample2};
use super::parameters::Scope;
use super::resnet::CHANNELS;
use crate::train::Architecture;

const NECK_CHANNELS: i64 = 64;
const HEAD_CHANNELS: i64 = 128;

/// 1x1 and 3x3 convolution of each level, with or (as in the public NFDP code) without the top-down sum between.
#[derive(Debug)]
pub(super) struct Neck {
    levels: [(ConvBnRelu, ConvBnRelu); 4],
    top_down: bool,
}

impl Neck {
    pub(super) fn new(mut at: Scope<'_>, top_down: bool) -> Result<Self, EngineError> {
        let mut level = |i: usize| -> Result<(ConvBnRelu, ConvBnRelu), EngineError> {
            let mut at = at.at(i);
            let lateral = ConvBnRelu::new(
                Conv2d::new(at.at("lateral"), [CHANNELS[i], NECK_CHANNELS], 1, 1)?,
                BatchNorm::new(at.at("lateral_bn"), NECK_CHANNELS)?,
            );
            let smooth = ConvBnRelu::new(
                Conv2d::new(at.at("smooth"), [NECK_CHANNELS, NECK_CHANNELS], 3, 1)?,
                BatchNorm::new(at.at("smooth_bn"), NECK_CHANNELS)?,
            );
            Ok((lateral, smooth))
        };
        Ok(Self { levels: [level(0)?, level(1)?, level(2)?, level(3)?], top_down })
    }

    pub(super) fn forward(&self, features: &[Tensor; 4], mode: Mode) -> Result<[Tensor; 4], EngineError> {
        let lateral = |i: usize| self.levels[i].0.forward(&features[i], mode);
        let mut laterals = [lateral(0)?, lateral(1)?, lateral(2)?, lateral(3)?];
        if self.top_down {
            for i in [2, 1, 0] {
                laterals[i] = laterals[i].f_add(&upsample2(&laterals[i + 1])?)?;
            }
        }
        let smooth = |i: usize| self.levels[i].1.forward(&laterals[i], mode);
        Ok([smooth(0)?, smooth(1)?, smooth(2)?, smooth(3)?])
    }
}

/// The branches of strides 4, 8, 16 and 32 brought to stride 4 and summed, then one logit a landmark.
#[derive(Debug)]
pub(super) struct Head {
    branches: [Vec<ConvBnRelu>; 4],
    output: Conv2d,
    output_bn: BatchNorm,
    relu: bool,
    temperature: f64,
}

impl Head {
    pub(super) fn new(mut at: Scope<'_>, architecture: &Architecture) -> Result<Self, EngineError> {
        let Architecture { landmarks, heatmap_relu: relu, temperature, .. } = *architecture;
        let landmarks = landmarks as i64;
        let mut branch = |i: usize| -> Result<Vec<ConvBnRelu>, EngineError> {
            let mut at = at.at(i);
            (0..i.max(1))
                .map(|j| {
                    let mut at = at.at(j);
                    let inputs = if j == 0 { NECK_CHANNELS } else { HEAD_CHANNELS };
                    Ok(ConvBnRelu::new(
                        Conv2d::new(at.at("conv"), [inputs, HEAD_CHANNELS], 3, 1)?,
                        BatchNorm::new(at.at("bn"), HEAD_CHANNELS)?,
                    ))
                })
                .collect()
        };
        Ok(Self {
            branches: [branch(0)?, branch(1)?, branch(2)?, branch(3)?],
            output: Conv2d::new(at.at("output"), [HEAD_CHANNELS, landmarks], 1, 1)?,
            output_bn: BatchNorm::new(at.at("output_bn"), landmarks)?,
            relu,
            temperature,
        })
    }

    /// Logits `[n, K, h/4, w/4]` from the neck's four levels.
    ///
    /// Bilinear upsampling and the 1x1 output convolution are linear and commute, so the three coarse branches are
    /// summed at stride 8 and upsampled once, on K channels instead of 128: the same function, less work.
    pub(super) fn forward(&self, levels: &[Tensor; 4], mode: Mode) -> Result<Tensor, EngineError> {
        let fine = self.branches[0][0].forward(&levels[0], mode)?;
        let mut coarse = self.branches[1][0].forward(&levels[1], mode)?;
        for i in [2, 3] {
            let mut x = levels[i].shallow_clone();
            for (j, step) in self.branches[i].iter().enumerate() {
                if j > 0 {
                    x = upsample2(&x)?;
                }
                x = step.forward(&x, mode)?;
            }
            coarse = coarse.f_add(&x)?;
        }
        let logits = self.output.forward(&fine)?.f_add(&upsample2(&self.output.forward(&coarse)?)?)?;
        let logits = self.output_bn.forward(&logits, mode)?;
        let logits = if self.relu { logits.f_relu()? } else { logits };
        if self.temperature == 1.0 { Ok(logits) } else { Ok(logits.f_div_scalar(self.temperature)?) }
    }
}
