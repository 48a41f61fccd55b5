//! The convolutions that most of the network's time goes into, faster than by an image-to-columns matrix product.
//!
//! Two methods share one micro-kernel, in which a SIMD lane is a pixel or a tile of pixels: [`winograd`] for 3x3 at
//! stride 1, with a quarter of the multiplications, and [`direct`] for larger steps, where that does not apply.
//! [`use_convolutions`] puts them into tract's graph.

mod direct;
mod gather;
mod pass;
mod winograd;

use std::cell::RefCell;

use pulp::{Arch, Simd, WithSimd};

pub(super) use pass::use_convolutions;

/// Output channels of one micro-kernel: with two vectors of pixels 16 sums, half of AVX-512's or NEON's registers.
const ROWS: usize = 8;
/// Vectors of pixels or tiles of one micro-kernel.
const VECTORS: usize = 2;

/// What a convolution with square kernel, step and padding does to shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Geometry {
    /// Channels in.
    inputs: usize,
    /// Channels out.
    outputs: usize,
    /// Side of the kernel.
    side: usize,
    /// Step in both directions.
    stride: usize,
    /// Rows and columns of zeros around the image.
    padding: usize,
}

impl Geometry {
    /// Rows and columns of the output, or nothing if the kernel is larger than the padded image.
    fn output(&self, image: [usize; 2]) -> Option<[usize; 2]> {
        let [height, width] = image.map(|side| (side + 2 * self.padding).checked_sub(self.side));
        Some([height? / self.stride + 1, width? / self.stride + 1])
    }
}

/// A convolution with bias, an optional addend and an optional ReLU, for one size of image.
#[derive(Debug)]
struct Convolution {
    geometry: Geometry,
    image: [usize; 2],
    output: [usize; 2],
    method: Method,
    /// As `method` needs them.
    filters: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// F(2x2,3x3).
    Winograd2,
    /// F(4x4,3x3).
    Winograd4,
    Direct,
}

impl Method {
    /// The fastest for a convolution, where it is faster than tract's.
    fn of(geometry: Geometry, [height, width]: [usize; 2]) -> Option<Self> {
        match geometry {
            Geometry { outputs, .. } if outputs == 0 || !outputs.is_multiple_of(ROWS) => None,
            Geometry { side: 3, stride: 1, padding: 1, .. } => {
                // Small images with many channels are bound by reading filters, which are smaller for F(2x2,3x3).
                let small = height.div_ceil(4) * width.div_ceil(4) < winograd::GROUP;
                Some(if small { Self::Winograd2 } else { Self::Winograd4 })
            }
            Geometry { side: 3.., stride: 2.., .. } => Some(Self::Direct),
            Geometry { .. } => None,
        }
    }
}

impl Convolution {
    /// Prepares a kernel `[outputs, inputs, side, side]` for images `[inputs, height, width]`; nothing where tract's
    /// own convolution is to be preferred.
    ///
    /// # Panics
    /// When kernel or bias are not as long as the geometry says.
    fn new(geometry: Geometry, image: [usize; 2], kernel: &[f32], bias: Vec<f32>, relu: bool) -> Option<Self> {
        Self::by(Method::of(geometry, image)?, geometry, image, kernel, bias, relu)
    }

    fn by(
        method: Method,
        geometry: Geometry,
        image: [usize; 2],
        kernel: &[f32],
        bias: Vec<f32>,
        relu: bool,
    ) -> Option<Self> {
        let Geometry { inputs, outputs, side, .. } = geometry;
        assert_eq!(kernel.len(), outputs * inputs * side * side, "length of the kernel");
        assert_eq!(bias.len(), outputs, "length of the bias");
        let filters = match method {
            Method::Winograd2 => winograd::transform_filters::<winograd::F2, 2, 4>(kernel, inputs, outputs),
            Method::Winograd4 => winograd::transform_filters::<winograd::F4, 4, 6>(kernel, inputs, outputs),
            Method::Direct => direct::pack_filters(kernel, outputs),
        };
        Some(Self { geometry, image, output: geometry.output(image)?, method, filters, bias, relu })
    }

    /// Convolves `input`, `[inputs, height, width]`, into `output`, `[outputs, height, width]`; `addend`, of the
    /// output's shape, is added before the ReLU.
    ///
    /// # Panics
    /// When a slice is not as long as its shape says.
    fn run(&self, input: &[f32], addend: Option<&[f32]>, output: &mut [f32]) {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        SCRATCH.with_borrow_mut(|scratch| Arch::new().dispatch(self.job(input, addend, output, scratch)));
    }

    fn job<'a>(
        &'a self,
        input: &'a [f32],
        addend: Option<&'a [f32]>,
        output: &'a mut [f32],
        scratch: &'a mut Scratch,
    ) -> Job<'a> {
        assert_eq!(input.len(), self.geometry.inputs * self.image[0] * self.image[1], "length of the input");
        assert_eq!(output.len(), self.geometry.outputs * self.output[0] * self.output[1], "length of the output");
        if let Some(addend) = addend {
            assert_eq!(addend.len(), output.len(), "length of the addend");
        }
        Job { layer: self, input, addend, output, scratch }
    }

    /// Adds the addend and cuts off what is below zero, where there are an addend and a ReLU.
    #[inline(always)]
    fn finish(&self, values: &mut [f32], addend: Option<&[f32]>) {
        if let Some(addend) = addend {
            for (value, &addend) in values.iter_mut().zip(addend) {
                *value += addend;
            }
        }
        if self.relu {
            for value in values {
                *value = value.max(0.0);
            }
        }
    }
}

/// Buffers that are the same at each frame: kept by the thread, since clearing them anew costs as much as filling them.
#[derive(Default)]
struct Scratch {
    /// One input row with zeros before it and behind, twice.
    row: Vec<f32>,
    /// One channel's pixels or tiles, lane by lane.
    lanes: Vec<f32>,
    /// What the micro-kernel reads: `[..][panel][depth][VECTORS * lanes]`.
    panels: Vec<f32>,
    /// What the micro-kernel yields.
    product: Vec<f32>,
}

fn at_least(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

struct Job<'a> {
    layer: &'a Convolution,
    input: &'a [f32],
    addend: Option<&'a [f32]>,
    output: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layer.method {
            Method::Winograd2 => winograd::convolve::<S, winograd::F2, 2, 4>(simd, self),
            Method::Winograd4 => winograd::convolve::<S, winograd::F4, 4, 6>(simd, self),
            Method::Direct => direct::convolve(simd, self),
        }
    }
}

/// The sum over the depth of filters times pixels.
#[inline(always)]
fn micro_kernel<S: Simd>(
    simd: S,
    filters: &[[f32; ROWS]],
    pixels: &[[S::f32s; VECTORS]],
) -> [[S::f32s; VECTORS]; ROWS] {
    const HALF: usize = ROWS / 2;
    if S::REGISTER_COUNT >= 2 * ROWS * VECTORS {
        return rows::<S, 0, ROWS>(simd, filters, pixels);
    }
    // AVX2 has 16 registers: all sums at once would be written to memory and read back at every step.
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    sums[..HALF].copy_from_slice(&rows::<S, 0, HALF>(simd, filters, pixels));
    sums[HALF..].copy_from_slice(&rows::<S, HALF, HALF>(simd, filters, pixels));
    sums
}

/// The sums of `N` rows from the row `FIRST`.
#[inline(always)]
fn rows<S: Simd, const FIRST: usize, const N: usize>(
    simd: S,
    filters: &[[f32; ROWS]],
    pixels: &[[S::f32s; VECTORS]],
) -> [[S::f32s; VECTORS]; N] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
    for (filters, pixels) in filters.iter().zip(pixels) {
        for (sums, &filter) in sums.iter_mut().zip(&filters[FIRST..FIRST + N]) {
            let filter = simd.splat_f32s(filter);
            for (sum, &pixel) in sums.iter_mut().zip(pixels) {
                *sum = simd.mul_add_e_f32s(filter, pixel, *sum);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pulp::Scalar;

    use super::*;

    /// Numbers between -1/2 and 1/2 that look random.
    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..len).map(|_| next()).collect()
    }

    /// The definition of the convolution, in `f64`.
    fn definition(geometry: Geometry, image: [usize; 2], kernel: &[f32], bias: &[f32], input: &[f32]) -> Vec<f64> {
        let Geometry { inputs, side, stride, padding, .. } = geometry;
        let [height, width] = image;
        let [rows, columns] = geometry.output(image).expect("an output");
        let pixel = |channel: usize, y: Option<usize>, x: Option<usize>| match (y, x) {
            (Some(y), Some(x)) if y < height && x < width => f64::from(input[(channel * height + y) * width + x]),
            _ => 0.0,
        };
        let mut output = Vec::new();
        for (kernels, &bias) in kernel.chunks_exact(inputs * side * side).zip(bias) {
            for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y * stride, x * stride))) {
                let terms = kernels.iter().enumerate().map(|(i, &g)| {
                    let (channel, dy, dx) = (i / (side * side), i / side % side, i % side);
                    f64::from(g) * pixel(channel, (y + dy).checked_sub(padding), (x + dx).checked_sub(padding))
                });
                output.push(f64::from(bias) + terms.sum::<f64>());
            }
        }
        output
    }

    fn worst(found: &[f32], expected: &[f64]) -> f64 {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(&f, e)| (f64::from(f) - e).abs()).fold(0.0, f64::max)
    }

    const SAME: Geometry = Geometry { inputs: 5, outputs: 16, side: 3, stride: 1, padding: 1 };
    const HALF: Geometry = Geometry { stride: 2, ..SAME };
    /// As the first layer of a ResNet.
    const STEM: Geometry = Geometry { inputs: 1, outputs: 8, side: 7, stride: 2, padding: 3 };
    const ALL: [(Method, Geometry); 5] = [
        (Method::Winograd2, SAME),
        (Method::Winograd4, SAME),
        (Method::Direct, SAME),
        (Method::Direct, HALF),
        (Method::Direct, STEM),
    ];

    fn convolution(method: Method, geometry: Geometry, image: [usize; 2], relu: bool, seed: u32) -> Convolution {
        let Geometry { inputs, outputs, side, .. } = geometry;
        let kernel = noise(outputs * inputs * side * side, seed);
        Convolution::by(method, geometry, image, &kernel, noise(outputs, !seed), relu).expect("an output")
    }

    #[test]
    fn they_are_what_a_convolution_is_at_every_size_of_image() {
        for (method, geometry) in ALL {
            for image @ [height, width] in [[1, 1], [2, 3], [4, 4], [7, 9], [16, 16], [33, 20], [20, 33], [5, 260]] {
                let Geometry { inputs, outputs, side, .. } = geometry;
                let (kernel, bias) = (noise(outputs * inputs * side * side, 1), noise(outputs, !1));
                let input = noise(inputs * height * width, 3);
                let expected = definition(geometry, image, &kernel, &bias, &input);
                let mut output = vec![f32::NAN; expected.len()];
                convolution(method, geometry, image, false, 1).run(&input, None, &mut output);
                let error = worst(&output, &expected);
                // F(4x4,3x3) multiplies rounding errors: its transforms hold factors up to 8.
                let tolerance = if method == Method::Winograd4 { 2e-5 } else { 2e-6 };
                assert!(error < tolerance, "{method:?}, {geometry:?} at {width}x{height}: {error:e}");
            }
        }
    }

    #[test]
    fn the_addend_comes_before_the_relu() {
        for (method, geometry) in ALL {
            let plain = convolution(method, geometry, [12, 10], false, 4);
            let input = noise(geometry.inputs * 120, 6);
            let [rows, columns] = plain.output;
            let mut output = vec![f32::NAN; geometry.outputs * rows * columns];
            plain.run(&input, None, &mut output);
            let addend = noise(output.len(), 7);
            let expected: Vec<f32> = output.iter().zip(&addend).map(|(o, a)| (o + a).max(0.0)).collect();
            assert!(expected.contains(&0.0) && expected.iter().any(|&v| v > 0.1));
            convolution(method, geometry, [12, 10], true, 4).run(&input, Some(&addend), &mut output);
            assert_eq!(output, expected, "{method:?}");
        }
    }

    #[test]
    fn what_an_earlier_image_left_in_the_buffers_does_not_show() {
        for (method, geometry) in ALL {
            let small = convolution(method, geometry, [5, 6], false, 8);
            let input = noise(geometry.inputs * 30, 9);
            let mut first = vec![0.0; geometry.outputs * small.output[0] * small.output[1]];
            small.run(&input, None, &mut first);
            let large = convolution(method, geometry, [50, 80], false, 8);
            let pixels = large.output[0] * large.output[1];
            large.run(&vec![f32::NAN; geometry.inputs * 4000], None, &mut vec![0.0; geometry.outputs * pixels]);
            let mut again = vec![0.0; first.len()];
            small.run(&input, None, &mut again);
            assert_eq!(first, again, "{method:?}");
        }
    }

    #[test]
    fn each_method_has_its_convolutions() {
        let of = |geometry, side| Method::of(geometry, [side, side]);
        assert_eq!(of(SAME, 128), Some(Method::Winograd4));
        assert_eq!(of(SAME, 16), Some(Method::Winograd2));
        assert_eq!(of(HALF, 64), Some(Method::Direct));
        assert_eq!(of(STEM, 64), Some(Method::Direct));
        assert_eq!(of(Geometry { outputs: 19, ..SAME }, 64), None);
        assert_eq!(of(Geometry { side: 1, padding: 0, ..SAME }, 64), None);
    }

    proptest! {
        /// The widest vectors of this processor against none at all.
        #[test]
        fn vectors_of_any_width_agree(height in 1_usize..40, width in 1_usize..80, seed: u32) {
            for (method, geometry) in ALL {
                let layer = convolution(method, geometry, [height, width], true, seed);
                let input = noise(geometry.inputs * height * width, seed ^ 1);
                let mut vectors = vec![0.0; geometry.outputs * layer.output[0] * layer.output[1]];
                layer.run(&input, None, &mut vectors);
                let mut scalar = vec![0.0; vectors.len()];
                layer.job(&input, None, &mut scalar, &mut Scratch::default()).with_simd(Scalar);
                let expected: Vec<f64> = scalar.into_iter().map(f64::from).collect();
                prop_assert!(worst(&vectors, &expected) < 2e-5);
            }
        }
    }
}
