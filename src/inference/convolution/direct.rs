//! The convolution as one matrix product, on groups of output pixels that fit the second-level cache.

use pulp::Simd;

use super::gather::{Window, segments};
use super::{Job, ROWS, VECTORS, at_least, micro_kernel};

/// Output pixels computed together.
const PIXELS: usize = 128;

/// `[outputs / ROWS][depth][ROWS]` from `[outputs][depth]`; the depth is input channel, row and column of the kernel.
pub(super) fn pack_filters(kernel: &[f32], outputs: usize) -> Vec<f32> {
    let depth = kernel.len() / outputs;
    let mut packed = vec![0.0; kernel.len()];
    for (i, &value) in kernel.iter().enumerate() {
        let (output, k) = (i / depth, i % depth);
        packed[(output / ROWS * depth + k) * ROWS + output % ROWS] = value;
    }
    packed
}

#[inline(always)]
pub(super) fn convolve<S: Simd>(simd: S, job: Job<'_>) {
    let Job { layer, input, addend, output, scratch } = job;
    let geometry = layer.geometry;
    let taps = geometry.side * geometry.side;
    let depth = geometry.inputs * taps;
    let panel = VECTORS * S::F32_LANES;
    let [height, width] = layer.image;
    let [rows, columns] = layer.output;
    let window = Window { side: geometry.side, step: geometry.stride, padding: geometry.padding, lanes: PIXELS };
    let mut row = window.row(&mut scratch.row, [width, columns]);
    let lanes = at_least(&mut scratch.lanes, taps * PIXELS);
    let panels = at_least(&mut scratch.panels, depth * PIXELS);
    let product = at_least(&mut scratch.product, ROWS * panel);
    let filters = layer.filters.as_chunks::<ROWS>().0;
    let plane = rows * columns;
    for start in (0..plane).step_by(PIXELS) {
        let end = plane.min(start + PIXELS);
        let count = (end - start).div_ceil(panel);
        for (channel, pixels) in input.chunks_exact(height * width).enumerate() {
            for segment in segments(start, end, columns) {
                window.gather(pixels, width, segment, &mut row, lanes);
            }
            let from = S::as_simd_f32s(lanes).0.as_chunks::<VECTORS>().0;
            let to = S::as_mut_simd_f32s(panels).0.as_chunks_mut::<VECTORS>().0;
            for (tap, lanes) in from.chunks_exact(PIXELS / panel).enumerate() {
                for (panel, &vectors) in lanes[..count].iter().enumerate() {
                    to[panel * depth + channel * taps + tap] = vectors;
                }
            }
        }
        let tiles = S::as_simd_f32s(panels).0.as_chunks::<VECTORS>().0;
        for (block, filters) in filters.chunks_exact(depth).enumerate() {
            for (i, pixels) in tiles.chunks_exact(depth).take(count).enumerate() {
                let sums = micro_kernel(simd, filters, pixels);
                S::as_mut_simd_f32s(product).0.copy_from_slice(sums.as_flattened());
                for (k, sums) in product.chunks_exact(panel).enumerate() {
                    let channel = block * ROWS + k;
                    let first = channel * plane + start + i * panel;
                    let target = first..(first + panel).min(channel * plane + end);
                    let values = &mut output[target.clone()];
                    for (value, sum) in values.iter_mut().zip(sums) {
                        *value = sum + layer.bias[channel];
                    }
                    layer.finish(values, addend.map(|addend| &addend[target]));
                }
            }
        }
    }
}
