//! JPEG extended of 12 bits (ITU-T T.81, process 4): sequential DCT, Huffman coding, one component.
//!
//! The decoders of the `image` and DICOM crates stop at 8 bits. This one is written for exactness, not speed, and is
//! strict: a scan that ends early or a code that is in no table is an error.

use std::f32::consts::PI;

use crate::radiograph::entropy::{BitReader, HuffmanTable, HuffmanTables};
use crate::radiograph::jpeg::Segment;

/// The order in which a block's coefficients are coded (figure A.6): row by row index of the k-th.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];
const MAX_SAMPLE: f32 = 4095.0;
const LEVEL_SHIFT: f32 = 2048.0;

/// The samples (0..=4095) of a codestream, row by row.
///
/// # Errors
/// What was expected and what was found.
pub(super) fn decode(codestream: &[u8]) -> Result<Vec<u16>, String> {
    let mut quantization: [Option<[f32; 64]>; 4] = [None; 4];
    let mut huffman = HuffmanTables::default();
    let mut frame: Option<(usize, usize, u8)> = None;
    let mut restart_interval = 0;
    let mut at = 2;
    loop {
        let Segment { marker, body, end } = Segment::read(codestream, at)?;
        match marker {
            0xDB => read_quantization(body, &mut quantization)?,
            0xC4 => huffman.read(body)?,
            0xC1 => {
                let &[12, h1, h0, w1, w0, 1, _, _, table] = body else {
                    return Err("expected a frame of 12 bits and one component".to_owned());
                };
                frame = Some((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into(), table));
            }
            0xDD => match body {
                &[r1, r0] => restart_interval = usize::from(u16::from_be_bytes([r1, r0])),
                _ => return Err("expected a restart interval".to_owned()),
            },
            0xDA => {
                let (width, height, table) = frame.ok_or("expected a frame header before the scan")?;
                let &[1, _, selectors, ..] = body else { return Err("expected a scan of one component".to_owned()) };
                let scan = Scan {
                    quantization: quantization
                        .get(usize::from(table))
                        .copied()
                        .flatten()
                        .ok_or("expected the quantization table the frame names")?,
                    dc: huffman.dc(selectors >> 4)?,
                    ac: huffman.ac(selectors & 15)?,
                    restart_interval,
                };
                return scan.decode(&codestream[end..], width, height);
            }
            _ => {}
        }
        at = end;
    }
}

/// DQT (B.2.4.1): per table its precision and number, then 64 elements in zigzag order.
fn read_quantization(mut body: &[u8], tables: &mut [Option<[f32; 64]>; 4]) -> Result<(), String> {
    while let [kind, rest @ ..] = body {
        let bytes = if kind >> 4 == 0 { 1 } else { 2 };
        let table = tables.get_mut(usize::from(kind & 15)).ok_or("expected a quantization table from 0 to 3")?;
        let elements = rest.get(..64 * bytes).ok_or("expected 64 quantization elements")?;
        let mut values = [0.0; 64];
        for (element, &position) in elements.chunks_exact(bytes).zip(&ZIGZAG) {
            values[position] = element.iter().fold(0.0, |value, &byte| value * 256.0 + f32::from(byte));
        }
        *table = Some(values);
        body = &rest[64 * bytes..];
    }
    Ok(())
}

/// One component's scan: its tables and how often it restarts.
struct Scan<'a> {
    quantization: [f32; 64],
    dc: &'a HuffmanTable,
    ac: &'a HuffmanTable,
    restart_interval: usize,
}

impl Scan<'_> {
    fn decode(&self, data: &[u8], width: usize, height: usize) -> Result<Vec<u16>, String> {
        let mut samples = vec![0u16; width * height];
        let mut bits = BitReader::new(data);
        let basis = cosine_basis();
        let columns = width.div_ceil(8);
        let mut dc = 0i32;
        for block in 0..columns * height.div_ceil(8) {
            if self.restart_interval > 0 && block > 0 && block % self.restart_interval == 0 {
                bits.restart()?;
                dc = 0;
            }
            let mut coefficients = [0.0f32; 64];
            self.read_block(&mut bits, &mut dc, &mut coefficients)?;
            let pixels = inverse_dct(&coefficients, &basis);
            let (x0, y0) = (block % columns * 8, block / columns * 8);
            for (y, row) in (y0..height.min(y0 + 8)).zip(pixels.as_chunks::<8>().0) {
                let n = (width - x0).min(8);
                for (sample, &value) in samples[y * width + x0..][..n].iter_mut().zip(row) {
                    *sample = (value + LEVEL_SHIFT).round().clamp(0.0, MAX_SAMPLE) as u16;
                }
            }
        }
        Ok(samples)
    }

    /// F.2.2: the difference of the DC coefficient, then runs of zeros and AC coefficients.
    fn read_block(&self, bits: &mut BitReader<'_>, dc: &mut i32, out: &mut [f32; 64]) -> Result<(), String> {
        let size = bits.symbol(self.dc)?;
        *dc = dc.wrapping_add(bits.extended(size)?);
        out[0] = *dc as f32 * self.quantization[0];
        let mut k = 1;
        while k < 64 {
            let symbol = bits.symbol(self.ac)?;
            let (run, size) = (usize::from(symbol >> 4), symbol & 15);
            match (run, size) {
                (15, 0) => k += 16,
                (_, 0) => break,
                _ => {
                    k += run;
                    let position = *ZIGZAG.get(k).ok_or("expected at most 63 AC coefficients, found more")?;
                    out[position] = bits.extended(size)? as f32 * self.quantization[position];
                    k += 1;
                }
            }
        }
        Ok(())
    }
}

/// `basis[u][x]` = C(u)/2 cos((2x + 1) u pi / 16), C(0) = 1/sqrt 2 (A.3.3).
fn cosine_basis() -> [[f32; 8]; 8] {
    let mut basis = [[0.0; 8]; 8];
    for (u, row) in basis.iter_mut().enumerate() {
        let c = if u == 0 { 0.5f32.sqrt() } else { 1.0 };
        for (x, value) in row.iter_mut().enumerate() {
            *value = c / 2.0 * ((2 * x + 1) as f32 * u as f32 * PI / 16.0).cos();
        }
    }
    basis
}

/// The inverse DCT of a block, rows first.
fn inverse_dct(coefficients: &[f32; 64], basis: &[[f32; 8]; 8]) -> [f32; 64] {
    let mut rows = [0.0f32; 64];
    for v in 0..8 {
        for (u, cosines) in basis.iter().enumerate() {
            let coefficient = coefficients[8 * v + u];
            if coefficient != 0.0 {
                for x in 0..8 {
                    rows[8 * v + x] += coefficient * cosines[x];
                }
            }
        }
    }
    let mut out = [0.0f32; 64];
    for (v, cosines) in basis.iter().enumerate() {
        for y in 0..8 {
            for x in 0..8 {
                out[8 * y + x] += rows[8 * v + x] * cosines[y];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::dicom::codings;

    /// 21 x 19 samples over the full range with sharp edges; neither side is a multiple of 8.
    fn samples() -> Vec<u16> {
        (0..21 * 19).map(|i| if i % 11 == 0 { 4095 } else { (i * 37 % 4096) as u16 }).collect()
    }

    #[test]
    fn samples_come_back_within_the_rounding_of_their_coefficients() {
        for restart in [0, 1, 2] {
            let decoded = decode(&codings::jpeg_extended(21, 19, restart, &samples())).expect("an image");
            let worst = decoded.iter().zip(samples()).map(|(a, b)| a.abs_diff(b)).max();
            assert!(decoded.len() == 21 * 19 && worst.is_some_and(|worst| worst <= 3), "{worst:?}, restart {restart}");
        }
    }

    #[test]
    fn a_scan_that_ends_early_is_an_error() {
        let whole = codings::jpeg_extended(21, 19, 0, &samples());
        for cut in [whole.len() - 3, whole.len() / 2 + 200, 300, 20] {
            assert!(decode(&whole[..cut]).is_err(), "{cut} of {}", whole.len());
            assert!(decode(&[&whole[..cut], &[0xFF, 0xD9]].concat()).is_err(), "{cut} and an end marker");
        }
        let restarted = codings::jpeg_extended(21, 19, 2, &samples());
        let marker = restarted.windows(2).rposition(|w| w == [0xFF, 0xD1]).expect("a restart marker");
        let mut broken = restarted;
        broken[marker + 1] = 0xD9;
        assert!(decode(&broken).expect_err("no restart").contains("restart marker"));
    }
}
