//! ResNet-18 without its classifier, names and layout as torchvision's.

use tch::Tensor;

use super::engine::EngineError;
use super::layers::{BatchNorm, Conv2d, Mode};
use super::parameters::{Scope, channels_last};

/// Channels of the features at strides 4, 8, 16 and 32.
pub(super) const CHANNELS: [i64; 4] = [64, 128, 256, 512];

/// The backbone: features at strides 4, 8, 16 and 32.
#[derive(Debug)]
pub(super) struct ResNet18 {
    conv1: Conv2d,
    bn1: BatchNorm,
    layers: [[BasicBlock; 2]; 4],
}

impl ResNet18 {
    pub(super) fn new(mut at: Scope<'_>) -> Result<Self, EngineError> {
        let conv1 = Conv2d::new(at.at("conv1"), [3, 64], 7, 2)?;
        let bn1 = BatchNorm::new(at.at("bn1"), 64)?;
        let mut layer = |level: usize| -> Result<[BasicBlock; 2], EngineError> {
            let mut at = at.at(format!("layer{}", level + 1));
            let outputs = CHANNELS[level];
            let (inputs, stride) = if level == 0 { (64, 1) } else { (CHANNELS[level - 1], 2) };
            Ok([
                BasicBlock::new(at.at(0), [inputs, outputs], stride)?,
                BasicBlock::new(at.at(1), [outputs, outputs], 1)?,
            ])
        };
        let layers = [layer(0)?, layer(1)?, layer(2)?, layer(3)?];
        Ok(Self { conv1, bn1, layers })
    }

    /// # Shapes
    /// `[n, 1, h, w]` gray to `[n, 64, h/4, w/4]`, `[n, 128, h/8, w/8]`, `[n, 256, h/16, w/16]`, `[n, 512, h/32, w/32]`.
    pub(super) fn forward(&self, gray: &Tensor, mode: Mode) -> Result<[Tensor; 4], EngineError> {
        // With one input channel the strides do not tell channels-last from contiguous: say it here once.
        let stem = channels_last(&self.conv1.forward_gray(gray)?)?;
        let stem = self.bn1.forward(&stem, mode)?.f_relu_()?;
        let mut x = stem.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        let mut features = Vec::with_capacity(4);
        for blocks in &self.layers {
            for block in blocks {
                x = block.forward(&x, mode)?;
            }
            features.push(x.shallow_clone());
        }
        Ok(features.try_into().expect("there are four layers"))
    }
}

/// Two 3x3 convolutions beside a shortcut (He et al. 2016, fig. 2).
#[derive(Debug)]
struct BasicBlock {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl BasicBlock {
    fn new(mut at: Scope<'_>, [inputs, outputs]: [i64; 2], stride: i64) -> Result<Self, EngineError> {
        let downsample = if stride == 1 {
            None
        } else {
            let mut at = at.at("downsample");
            Some((Conv2d::new(at.at(0), [inputs, outputs], 1, stride)?, BatchNorm::new(at.at(1), outputs)?))
        };
        Ok(Self {
            conv1: Conv2d::new(at.at("conv1"), [inputs, outputs], 3, stride)?,
            bn1: BatchNorm::new(at.at("bn1"), outputs)?,
            conv2: Conv2d::new(at.at("conv2"), [outputs, outputs], 3, 1)?,
            bn2: BatchNorm::new(at.at("bn2"), outputs)?,
            downsample,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, EngineError> {
        let inner = self.bn1.forward(&self.conv1.forward(x)?, mode)?.f_relu_()?;
        let mut residual = self.bn2.forward(&self.conv2.forward(&inner)?, mode)?;
        let shortcut = match &self.downsample {
            Some((conv, bn)) => bn.forward(&conv.forward(x)?, mode)?,
            None => x.shallow_clone(),
        };
        Ok(residual.f_add_(&shortcut)?.f_relu_()?)
    }
}
