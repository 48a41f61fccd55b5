//! The convolution as one matrix product, on groups of output pixels that fit the second-level cache.

use pulp::Simd;

use super::{Geometry, Job, ROWS, Segment, VECTORS, at_least, micro_kernel, segments};

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
    let row = at_least(&mut scratch.row, width + 2 * geometry.padding);
    row.fill(0.0);
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
                gather(pixels, width, geometry, segment, row, lanes);
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

/// Copies what each tap of the kernel sees of one channel into the lanes of a segment: `lanes[tap][lane]`.
#[inline(always)]
fn gather(pixels: &[f32], width: usize, geometry: Geometry, segment: Segment, padded: &mut [f32], lanes: &mut [f32]) {
    let Geometry { side, stride, padding, .. } = geometry;
    let Segment { x, y, lane, count } = segment;
    for dy in 0..side {
        let lanes = &mut lanes[dy * side * PIXELS..][..side * PIXELS];
        let source = (stride * y + dy).checked_sub(padding).and_then(|y| pixels.get(y * width..(y + 1) * width));
        let Some(source) = source else {
            for lanes in lanes.chunks_exact_mut(PIXELS) {
                lanes[lane..lane + count].fill(0.0);
            }
            continue;
        };
        padded[padding..padding + width].copy_from_slice(source);
        for (dx, lanes) in lanes.chunks_exact_mut(PIXELS).enumerate() {
            let seen = &padded[stride * x + dx..];
            let lanes = &mut lanes[lane..lane + count];
            if stride == 2 {
                // Said apart, since a step known to the compiler becomes a shuffle of vectors.
                let (last, lanes) = lanes.split_last_mut().expect("a segment is not empty");
                for (lane, pair) in lanes.iter_mut().zip(seen.as_chunks::<2>().0) {
                    *lane = pair[0];
                }
                *last = seen[2 * (count - 1)];
            } else {
                for (lane, &pixel) in lanes.iter_mut().zip(seen.iter().step_by(stride)) {
                    *lane = pixel;
                }
            }
        }
    }
}
