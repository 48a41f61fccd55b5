//! The layers of the heatmap NFDP as a table: names, shapes, parameters, multiply-accumulates.
//!
//! Huang et al., IEEE TMI 43(7):2679-2692, 2024: a ResNet-18 backbone (torchvision's names), a neck of one lateral and
//! one smoothing convolution a level, a semantic-FPN head, and a linear sigma head on the pooled backbone feature.

use std::collections::BTreeMap;

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

/// Every convolution of the heatmap NFDP for `landmarks` landmarks, by its prefix (`<prefix>.weight`).
#[must_use]
pub fn convolutions(landmarks: usize) -> BTreeMap<String, Convolution> {
    let mut table = BTreeMap::new();
    backbone(&mut table);
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

/// Learned numbers of the heatmap NFDP, without the flow: kernels, BatchNorm's weight and bias, the sigma head.
#[must_use]
pub fn parameters(landmarks: usize) -> usize {
    let layers = convolutions(landmarks);
    let convolutions: usize = layers.values().map(|c| c.shape().iter().product::<usize>() + 2 * c.outputs).sum();
    convolutions + sigma_shape(landmarks).iter().product::<usize>() + 2 * landmarks
}

/// Multiply-accumulates of one pass over a frame, of the network as trained (before the export's rewrite).
///
/// Convolutions and the sigma head are counted; normalization, upsampling and soft-argmax are not.
#[must_use]
pub fn multiply_accumulates(frame: Size, landmarks: usize) -> u64 {
    let convolutions: u64 = convolutions(landmarks)
        .values()
        .map(|c| {
            let pixels = Size::new(frame.width / c.resolution, frame.height / c.resolution).area();
            c.shape().iter().product::<usize>() as u64 * pixels
        })
        .sum();
    convolutions + sigma_shape(landmarks).iter().product::<usize>() as u64
}

/// Axes of `sigma.weight`: landmark-major x and y, by the pooled feature's channels.
pub(super) const fn sigma_shape(landmarks: usize) -> [usize; 2] {
    [2 * landmarks, BACKBONE_CHANNELS[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_those_of_the_published_models() {
        for (landmarks, expected) in [(19, 12_147_468), (37, 12_168_276), (68, 12_204_112)] {
            assert_eq!(parameters(landmarks), expected, "{landmarks} landmarks");
        }
    }

    #[test]
    fn the_multiply_accumulates_are_those_of_the_published_models() {
        for (frame, landmarks, giga) in [(Size::new(512, 512), 19, 13.41), (Size::new(256, 512), 68, 6.75)] {
            let counted = multiply_accumulates(frame, landmarks) as f64 / 1e9;
            assert!((counted - giga).abs() < 0.005, "{landmarks} landmarks at {frame}: {counted} GMAC");
        }
    }
}
