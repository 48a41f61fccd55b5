//! What distinguishes one NFDP network from another, and its layers as a table: names, shapes, parameters,
//! multiply-accumulates.
//!
//! Huang et al., IEEE TMI 43(7):2679-2692, 2024: a ResNet-18 backbone (torchvision's names), a neck of one lateral and
//! one smoothing convolution a level, a semantic-FPN head, and a linear sigma head on the pooled backbone feature.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::geometry::Size;

/// Channels of the backbone's features at strides 4, 8, 16 and 32.
pub(super) const BACKBONE_CHANNELS: [usize; 4] = [64, 128, 256, 512];
/// Channels of the neck.
const NECK_CHANNELS: usize = 64;
/// Channels of the head.
pub(super) const HEAD_CHANNELS: usize = 128;
/// Frame pixels per heatmap pixel.
pub(super) const HEATMAP_STRIDE: u32 = 4;
/// Frame pixels per pixel of the coarsest feature: a frame's sides are multiples of this.
pub(super) const COARSEST_STRIDE: u32 = 32;
/// Input channels of the network as trained: the gray film three times.
const INPUT_CHANNELS: usize = 3;

/// How coordinates come out of the backbone's features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// A heatmap a landmark and its soft-argmax.
    #[default]
    Heatmap,
    /// A linear layer on the pooled coarsest feature, its product divided by the feature's length.
    Regression,
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Heatmap => "heatmap",
            Self::Regression => "regression",
        })
    }
}

/// A network's shape; what is not of its model says nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Architecture {
    /// Heatmaps or regression.
    pub model: Model,
    /// Landmarks (K).
    pub landmarks: usize,
    /// Of heatmaps: whether logits are clamped at zero before the softmax, as in the paper's code.
    pub heatmap_relu: bool,
    /// Of heatmaps: what logits are divided by before the softmax; 1 in the paper.
    pub temperature: f64,
    /// Of heatmaps: whether the neck adds coarse levels to fine ones; not so in the paper's code.
    pub top_down: bool,
}

impl Architecture {
    /// The paper's heatmap model.
    #[must_use]
    pub const fn heatmap(landmarks: usize) -> Self {
        Self { model: Model::Heatmap, landmarks, heatmap_relu: true, temperature: 1.0, top_down: false }
    }

    /// The paper's regression model.
    #[must_use]
    pub const fn regression(landmarks: usize) -> Self {
        Self { model: Model::Regression, ..Self::heatmap(landmarks) }
    }
}

/// A convolution without bias, followed by batch normalization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Prefix of the normalization's four tensors (`weight`, `bias`, `running_mean`, `running_var`).
    pub norm: String,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Side of the square kernel; the padding is half of it, rounded down.
    pub kernel: usize,
    /// Step of the kernel.
    pub stride: usize,
    /// Frame pixels per output pixel.
    pub resolution: u32,
}

impl Convolution {
    /// Axes of the kernel: out, in, rows, columns.
    #[must_use]
    pub const fn shape(&self) -> [usize; 4] {
        [self.outputs, self.inputs, self.kernel, self.kernel]
    }
}

/// Every convolution of a network, by its prefix (`<prefix>.weight`).
#[must_use]
pub fn convolutions(architecture: &Architecture) -> BTreeMap<String, Convolution> {
    let mut table = BTreeMap::new();
    backbone(&mut table);
    let landmarks = architecture.landmarks;
    if architecture.model == Model::Regression {
        return table;
    }
    for (level, inputs) in BACKBONE_CHANNELS.into_iter().enumerate() {
        let resolution = HEATMAP_STRIDE << level;
        let (name, norm) = (format!("neck.{level}.lateral"), format!("neck.{level}.lateral_bn"));
        let lateral = Convolution { norm, inputs, outputs: NECK_CHANNELS, kernel: 1, stride: 1, resolution };
        let norm = format!("neck.{level}.smooth_bn");
        table.insert(
            format!("neck.{level}.smooth"),
            Convolution { norm, inputs: NECK_CHANNELS, kernel: 3, ..lateral.clone() },
        );
        table.insert(name, lateral);
        for step in 0..level.max(1) {
            let inputs = if step == 0 { NECK_CHANNELS } else { HEAD_CHANNELS };
            let resolution = resolution >> step;
            let norm = format!("head.{level}.{step}.bn");
            let block = Convolution { norm, inputs, outputs: HEAD_CHANNELS, kernel: 3, stride: 1, resolution };
            table.insert(format!("head.{level}.{step}.conv"), block);
        }
    }
    let norm = "head.output_bn".to_owned();
    let output = Convolution {
        norm,
        inputs: HEAD_CHANNELS,
        outputs: landmarks,
        kernel: 1,
        stride: 1,
        resolution: HEATMAP_STRIDE,
    };
    table.insert("head.output".to_owned(), output);
    table
}

fn backbone(table: &mut BTreeMap<String, Convolution>) {
    let mut add = |name: String, norm: String, [inputs, outputs, kernel, stride]: [usize; 4], resolution: u32| {
        table.insert(name, Convolution { norm, inputs, outputs, kernel, stride, resolution });
    };
    let at = |suffix: &str| format!("backbone.{suffix}");
    add(at("conv1"), at("bn1"), [INPUT_CHANNELS, BACKBONE_CHANNELS[0], 7, 2], 2);
    for (level, outputs) in BACKBONE_CHANNELS.into_iter().enumerate() {
        let resolution = HEATMAP_STRIDE << level;
        for block in 0..2 {
            let in_block = |suffix: &str| format!("backbone.layer{}.{block}.{suffix}", level + 1);
            let halves = level > 0 && block == 0;
            let (inputs, stride) = if halves { (BACKBONE_CHANNELS[level - 1], 2) } else { (outputs, 1) };
            add(in_block("conv1"), in_block("bn1"), [inputs, outputs, 3, stride], resolution);
            add(in_block("conv2"), in_block("bn2"), [outputs, outputs, 3, 1], resolution);
            if halves {
                add(in_block("downsample.0"), in_block("downsample.1"), [inputs, outputs, 1, stride], resolution);
            }
        }
    }
}

/// Learned numbers of a network, without the flow: kernels, BatchNorm's weight and bias, the linear heads.
#[must_use]
pub fn parameters(architecture: &Architecture) -> usize {
    let layers = convolutions(architecture);
    let convolutions: usize = layers.values().map(|c| c.shape().iter().product::<usize>() + 2 * c.outputs).sum();
    let linear = linear_shape(architecture.landmarks);
    convolutions + linear_heads(architecture.model) * (linear.iter().product::<usize>() + linear[0])
}

/// Linear layers on the pooled feature: sigma's, and where there are no heatmaps that of the coordinates.
const fn linear_heads(model: Model) -> usize {
    match model {
        Model::Heatmap => 1,
        Model::Regression => 2,
    }
}

/// Multiply-accumulates of one pass over a frame, of the network as trained (before the export's rewrite).
///
/// Convolutions and the linear heads are counted; normalization, upsampling and soft-argmax are not.
#[must_use]
pub fn multiply_accumulates(frame: Size, architecture: &Architecture) -> u64 {
    let convolutions: u64 = convolutions(architecture)
        .values()
        .map(|c| {
            let pixels = Size::new(frame.width / c.resolution, frame.height / c.resolution).area();
            c.shape().iter().product::<usize>() as u64 * pixels
        })
        .sum();
    let linear = linear_shape(architecture.landmarks).iter().product::<usize>();
    convolutions + (linear_heads(architecture.model) * linear) as u64
}

/// Axes of `sigma.weight` and `coordinates.weight`: landmark-major x and y, by the pooled feature's channels.
pub(super) const fn linear_shape(landmarks: usize) -> [usize; 2] {
    [2 * landmarks, BACKBONE_CHANNELS[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_those_of_the_published_models() {
        for (architecture, expected) in [
            (Architecture::heatmap(19), 12_147_468),
            (Architecture::heatmap(37), 12_168_276),
            (Architecture::heatmap(68), 12_204_112),
            (Architecture::regression(68), 11_316_048),
        ] {
            assert_eq!(parameters(&architecture), expected, "{architecture:?}");
        }
    }

    #[test]
    fn the_multiply_accumulates_are_those_of_the_published_models() {
        for (frame, landmarks, giga) in [(Size::new(512, 512), 19, 13.41), (Size::new(256, 512), 68, 6.75)] {
            let counted = multiply_accumulates(frame, &Architecture::heatmap(landmarks)) as f64 / 1e9;
            assert!((counted - giga).abs() < 0.005, "{landmarks} landmarks at {frame}: {counted} GMAC");
        }
    }
}
