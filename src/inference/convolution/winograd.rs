//! 3x3 convolutions by Winograd's minimal filtering: a quarter of the multiplications, in plain `f32`.
//!
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: an output tile of `m x m` pixels is
//! `A^T [(G g G^T) . (B^T d B)] A` of the kernel `g` and the input tile `d` of `(m + 2) x (m + 2)` pixels. Summed over
//! input channels, the product `.` becomes one matrix product for each of the `(m + 2)^2` positions in the tile.
//! `G g G^T` is computed once, when the network is loaded. F(4x4,3x3) needs 36 multiplications for 16 outputs where
//! the direct sum needs 144; F(2x2,3x3) needs 16 for 4 instead of 36, on filters of less than half the size.
//!
//! Every inner loop runs over *tiles*: a SIMD lane is a tile, so neither transform ever mixes lanes.

use pulp::Simd;

use super::gather::{Segment, Window, segments};
use super::{Convolution, Job, ROWS, VECTORS, at_least, micro_kernel};

/// Tiles transformed together: enough to read each filter seldom, few enough to stay in the second-level cache.
pub(super) const GROUP: usize = 64;
/// Rows of the product are this many floats longer than needed: their stride is then no power of two, whose rows
/// would compete for the same cache lines.
const STAGGER: usize = 16;

/// The one-dimensional transforms of F(OUT, 3), on OUT + 2 = IN values.
pub(super) trait Minimal<const OUT: usize, const IN: usize> {
    /// `G`.
    const FILTER: [[f64; 3]; IN];

    /// `B^T d`.
    fn input<S: Simd>(simd: S, d: [S::f32s; IN]) -> [S::f32s; IN];

    /// `A^T m`.
    fn output<S: Simd>(simd: S, m: [S::f32s; IN]) -> [S::f32s; OUT];
}

/// F(2, 3), with the points 0, 1, -1 and infinity.
pub(super) struct F2;

impl Minimal<2, 4> for F2 {
    const FILTER: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    fn input<S: Simd>(simd: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
        let (add, sub) = (|a, b| simd.add_f32s(a, b), |a, b| simd.sub_f32s(a, b));
        [sub(d[0], d[2]), add(d[1], d[2]), sub(d[2], d[1]), sub(d[1], d[3])]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
        let (add, sub) = (|a, b| simd.add_f32s(a, b), |a, b| simd.sub_f32s(a, b));
        [add(add(m[0], m[1]), m[2]), sub(sub(m[1], m[2]), m[3])]
    }
}

/// F(4, 3), with the points 0, 1, -1, 2, -2 and infinity.
pub(super) struct F4;

impl Minimal<4, 6> for F4 {
    const FILTER: [[f64; 3]; 6] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    fn input<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        let (add, sub) = (|a, b| simd.add_f32s(a, b), |a, b| simd.sub_f32s(a, b));
        let times = |factor: f32, a, b| simd.mul_add_f32s(simd.splat_f32s(factor), a, b);
        let (even, odd) = (times(-4.0, d[2], d[4]), times(-4.0, d[1], d[3]));
        let (even2, odd2) = (sub(d[4], d[2]), sub(d[3], d[1]));
        [
            times(4.0, d[0], times(-5.0, d[2], d[4])),
            add(even, odd),
            sub(even, odd),
            times(2.0, odd2, even2),
            times(-2.0, odd2, even2),
            times(4.0, d[1], times(-5.0, d[3], d[5])),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        let (add, sub) = (|a, b| simd.add_f32s(a, b), |a, b| simd.sub_f32s(a, b));
        let times = |factor: f32, a, b| simd.mul_add_f32s(simd.splat_f32s(factor), a, b);
        let (sum, difference) = (add(m[1], m[2]), sub(m[1], m[2]));
        let (sum2, difference2) = (add(m[3], m[4]), sub(m[3], m[4]));
        [
            add(add(m[0], sum), sum2),
            times(2.0, difference2, difference),
            times(4.0, sum2, sum),
            add(times(8.0, difference2, difference), m[5]),
        ]
    }
}

/// `G g G^T` of every pair of channels, as `[position][outputs / ROWS][inputs][ROWS]`; in `f64` until it is stored.
pub(super) fn transform_filters<F: Minimal<OUT, IN>, const OUT: usize, const IN: usize>(
    kernel: &[f32],
    inputs: usize,
    outputs: usize,
) -> Vec<f32> {
    let mut filters = vec![0.0; IN * IN * outputs * inputs];
    for (pair, g) in kernel.as_chunks::<9>().0.iter().enumerate() {
        let (output, input) = (pair / inputs, pair % inputs);
        for (y, row) in F::FILTER.iter().enumerate() {
            // One row of G g, and from it one row of G g G^T.
            let half: [f64; 3] = std::array::from_fn(|x| (0..3).map(|k| row[k] * f64::from(g[3 * k + x])).sum());
            for (x, row) in F::FILTER.iter().enumerate() {
                let value: f64 = (0..3).map(|k| half[k] * row[k]).sum();
                let block = (y * IN + x) * (outputs / ROWS) + output / ROWS;
                filters[(block * inputs + input) * ROWS + output % ROWS] = value as f32;
            }
        }
    }
    filters
}

#[inline(always)]
pub(super) fn convolve<S: Simd, F: Minimal<OUT, IN>, const OUT: usize, const IN: usize>(simd: S, job: Job<'_>) {
    let Job { layer, input, addend, output, scratch } = job;
    let [height, width] = layer.image;
    let [rows, columns] = [height.div_ceil(OUT), width.div_ceil(OUT)];
    let (inputs, outputs) = (layer.geometry.inputs, layer.geometry.outputs);
    let positions = IN * IN;
    let panel = VECTORS * S::F32_LANES;
    // The first pixel of a tile lies one above and to the left of its output.
    let window = Window { side: IN, step: OUT, padding: 1, lanes: GROUP };
    let mut row = window.row(&mut scratch.row, [width, columns]);
    let lanes = at_least(&mut scratch.lanes, positions * GROUP);
    let transformed = at_least(&mut scratch.panels, positions * inputs * GROUP);
    let stride = positions * GROUP + STAGGER;
    let product = at_least(&mut scratch.product, outputs * stride);
    let plane = height * width;
    for start in (0..rows * columns).step_by(GROUP) {
        let end = (rows * columns).min(start + GROUP);
        let panels = (end - start).div_ceil(panel);
        for (channel, pixels) in input.chunks_exact(plane).enumerate() {
            for segment in segments(start, end, columns) {
                window.gather(pixels, width, segment, &mut row, lanes);
            }
            transform_input::<S, F, OUT, IN>(simd, lanes, transformed, [channel, inputs, panels]);
        }
        multiply(simd, layer, transformed, product, [positions, panels, stride]);
        for (channel, product) in product.chunks_exact(stride).enumerate() {
            transform_output::<S, F, OUT, IN>(simd, product, lanes, layer.bias[channel], panels);
            let target = channel * plane..(channel + 1) * plane;
            let addend = addend.map(|addend| &addend[target.clone()]);
            for segment in segments(start, end, columns) {
                scatter::<OUT>(layer, lanes, segment, addend, &mut output[target.clone()]);
            }
        }
    }
}

/// `B^T d B` of one channel.
#[inline(always)]
fn transform_input<S: Simd, F: Minimal<OUT, IN>, const OUT: usize, const IN: usize>(
    simd: S,
    lanes: &mut [f32],
    transformed: &mut [f32],
    [channel, channels, panels]: [usize; 3],
) {
    let vectors = S::as_mut_simd_f32s(lanes).0;
    let transformed = S::as_mut_simd_f32s(transformed).0;
    let row = GROUP / S::F32_LANES;
    for vector in 0..panels * VECTORS {
        let (panel, in_panel) = (vector / VECTORS, vector % VECTORS);
        for j in 0..IN {
            let column = F::input(simd, std::array::from_fn(|i| vectors[(i * IN + j) * row + vector]));
            for (i, value) in column.into_iter().enumerate() {
                vectors[(i * IN + j) * row + vector] = value;
            }
        }
        for i in 0..IN {
            let values = F::input(simd, std::array::from_fn(|j| vectors[(i * IN + j) * row + vector]));
            for (j, value) in values.into_iter().enumerate() {
                let at = ((i * IN + j) * panels + panel) * channels + channel;
                transformed[at * VECTORS + in_panel] = value;
            }
        }
    }
}

/// For every position, filters times transformed tiles.
#[inline(always)]
fn multiply<S: Simd>(
    simd: S,
    layer: &Convolution,
    transformed: &[f32],
    product: &mut [f32],
    [positions, panels, stride]: [usize; 3],
) {
    let depth = layer.geometry.inputs;
    let vectors = S::as_simd_f32s(transformed).0.as_chunks::<VECTORS>().0;
    let filters = layer.filters.as_chunks::<ROWS>().0;
    let blocks = layer.geometry.outputs / ROWS;
    for position in 0..positions {
        for block in 0..blocks {
            let filters = &filters[(position * blocks + block) * depth..][..depth];
            for panel in 0..panels {
                let tiles = &vectors[(position * panels + panel) * depth..][..depth];
                let sums = micro_kernel(simd, filters, tiles);
                for (i, sum) in sums.into_iter().enumerate() {
                    let at = (block * ROWS + i) * stride + position * GROUP + panel * VECTORS * S::F32_LANES;
                    let target = S::as_mut_simd_f32s(&mut product[at..][..VECTORS * S::F32_LANES]).0;
                    target.copy_from_slice(&sum);
                }
            }
        }
    }
}

/// `A^T m A` of one channel plus its bias, as `lanes[row][column][lane]` of OUT x OUT.
#[inline(always)]
fn transform_output<S: Simd, F: Minimal<OUT, IN>, const OUT: usize, const IN: usize>(
    simd: S,
    product: &[f32],
    lanes: &mut [f32],
    bias: f32,
    panels: usize,
) {
    let product = S::as_simd_f32s(product).0;
    let lanes = S::as_mut_simd_f32s(lanes).0;
    let row = GROUP / S::F32_LANES;
    let bias = simd.splat_f32s(bias);
    for vector in 0..panels * VECTORS {
        let mut columns = [[bias; IN]; OUT];
        for j in 0..IN {
            let column = F::output(simd, std::array::from_fn(|i| product[(i * IN + j) * row + vector]));
            for (i, value) in column.into_iter().enumerate() {
                columns[i][j] = value;
            }
        }
        for (i, values) in columns.into_iter().enumerate() {
            for (j, value) in F::output(simd, values).into_iter().enumerate() {
                lanes[(i * OUT + j) * row + vector] = simd.add_f32s(value, bias);
            }
        }
    }
}

/// Copies a segment's outputs from their lanes into the image; what a tile has beyond the border is dropped.
#[inline(always)]
fn scatter<const OUT: usize>(
    layer: &Convolution,
    lanes: &[f32],
    segment: Segment,
    addend: Option<&[f32]>,
    output: &mut [f32],
) {
    let Segment { x, y, lane, count } = segment;
    let width = layer.image[1];
    for i in 0..OUT {
        let start = (OUT * y + i) * width;
        let columns = start + OUT * x..start + width.min(OUT * (x + count));
        let Some(target) = output.get_mut(columns.clone()) else { break };
        let rows: [&[f32]; OUT] = std::array::from_fn(|j| &lanes[(i * OUT + j) * GROUP + lane..][..count]);
        let (whole, rest) = target.as_chunks_mut::<OUT>();
        for (t, tile) in whole.iter_mut().enumerate() {
            for j in 0..OUT {
                tile[j] = rows[j][t];
            }
        }
        for (j, value) in rest.iter_mut().enumerate() {
            *value = rows[j][count - 1];
        }
        layer.finish(target, addend.map(|addend| &addend[columns]));
    }
}
