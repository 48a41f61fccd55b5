//! Deterministic pseudo-random weights and frames, bit for bit those of `tests/parity/pseudo.py`.
//!
//! ```text
//! seed(name)    = FNV-1a, 64 bits, of the name's UTF-8 bytes
//! hash(name, i) = splitmix64's finalizer of seed(name) + (i + 1) * 0x9E3779B97F4A7C15   (mod 2^64)
//! v(name, i)    = 2 * (hash >> 40) / 2^24 - 1, in [-1, 1)
//! ```
//!
//! A tensor's element `i` is `offset + scale * v(name, i)`; offset and scale follow from the name, see
//! [`offset_and_scale`]. Included by `#[path]` from the tests that need it, so that none links another's code.

/// The `i`-th 64-bit hash of a name.
pub(crate) fn hash(name: &str, i: u64) -> u64 {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    let z = seed.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The `i`-th number of a name, uniform in [-1, 1).
pub(crate) fn signed(name: &str, i: u64) -> f64 {
    (hash(name, i) >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0
}

/// Mean and half-width of the uniform distribution of the weight `name`.
pub(crate) fn offset_and_scale(name: &str, shape: &[usize]) -> (f64, f64) {
    let fan_in = shape[1..].iter().product::<usize>() as f64;
    let (prefix, part) = name.rsplit_once('.').unwrap_or(("", name));
    let norm = prefix.ends_with("bn") || prefix.ends_with("bn1") || prefix.ends_with("bn2");
    if norm || prefix.ends_with("downsample.1") {
        return match part {
            "weight" if name == "head.output_bn.weight" => (3.0, 0.3),
            "weight" if prefix.ends_with(".bn2") => (0.4, 0.1),
            "weight" => (1.0, 0.1),
            "running_var" => (1.0, 0.25),
            _ => (0.0, 0.1),
        };
    }
    match (name, part) {
        ("sigma.weight", _) => (0.0, 0.02),
        ("sigma.bias", _) => (-1.5, 0.5),
        (_, "bias") => (0.0, 0.1),
        _ if name.starts_with("flow.") => (0.0, (3.0 / fan_in).sqrt()),
        _ => (0.0, (6.0 / fan_in).sqrt()),
    }
}

/// The values of the weight `name`, row-major.
pub(crate) fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let (offset, scale) = offset_and_scale(name, shape);
    let count = shape.iter().product::<usize>() as u64;
    (0..count).map(|i| (offset + scale * signed(name, i)) as f32).collect()
}

/// 8-bit gray values of the frame `index`, row by row: blocks of 8 x 8 pixels and, a quarter as strong, pixels.
pub(crate) fn frame(index: usize, width: usize, height: usize) -> Vec<u8> {
    let byte = |kind: &str, i: usize| hash(&format!("frame.{index}.{kind}"), i as u64) >> 56;
    let columns = width.div_ceil(8);
    (0..width * height)
        .map(|i| (i % width, i / width, i))
        .map(|(x, y, i)| ((3 * byte("blocks", y / 8 * columns + x / 8) + byte("pixels", i)) / 4) as u8)
        .collect()
}
