//! Small encoders of the compressed codings, for tests: correct, never short.

use std::f64::consts::PI;

/// RLE Lossless (PS3.5 annex G) of 16-bit cells: the high bytes, then the low bytes, as literal runs.
pub(super) fn rle(cells: &[u16]) -> Vec<u8> {
    let segment = |byte: fn(u16) -> u8| -> Vec<u8> {
        let bytes: Vec<u8> = cells.iter().map(|&cell| byte(cell)).collect();
        let mut out: Vec<u8> = bytes.chunks(128).flat_map(|run| [&[(run.len() - 1) as u8], run].concat()).collect();
        out.resize(out.len().next_multiple_of(2), 0x80);
        out
    };
    let (high, low) = (segment(|cell| (cell >> 8) as u8), segment(|cell| cell as u8));
    let mut header = [0u32; 16];
    (header[0], header[1], header[2]) = (2, 64, 64 + high.len() as u32);
    [header.iter().flat_map(|v| v.to_le_bytes()).collect(), high, low].concat()
}

/// JPEG lossless, process 14, first-order prediction, of `bits` bits.
pub(super) fn jpeg_lossless(width: u16, height: u16, bits: u8, cells: &[u16]) -> Vec<u8> {
    let mut scan = BitWriter::default();
    let columns = usize::from(width);
    for (i, &cell) in cells.iter().enumerate() {
        let predicted = match i {
            0 => 1 << (bits - 1),
            _ if i % columns == 0 => cells[i - columns],
            _ => cells[i - 1],
        };
        let difference = i32::from(cell.wrapping_sub(predicted) as i16);
        let size = size_of(difference);
        scan.write(size.into(), 5);
        scan.write_extended(difference, size);
    }
    let codes: Vec<u8> = (0..=16).collect();
    [
        vec![0xFF, 0xD8],
        frame(0xC3, bits, width, height, 0),
        huffman(0x00, 5, &codes),
        segment(0xDA, &[1, 1, 0, 1, 0, 0]),
        scan.finish(),
        vec![0xFF, 0xD9],
    ]
    .concat()
}

/// JPEG extended of 12 bits with a quantization of 1, so that it loses only roundings; `restart` is in blocks.
pub(super) fn jpeg_extended(width: u16, height: u16, restart: u16, samples: &[u16]) -> Vec<u8> {
    let (columns, rows) = (usize::from(width), usize::from(height));
    let at = |x: usize, y: usize| f64::from(samples[y.min(rows - 1) * columns + x.min(columns - 1)]) - 2048.0;
    let mut scan = BitWriter::default();
    let mut dc = 0;
    let across = columns.div_ceil(8);
    for block in 0..across * rows.div_ceil(8) {
        if restart > 0 && block > 0 && block % usize::from(restart) == 0 {
            scan.restart((block / usize::from(restart) - 1) % 8);
            dc = 0;
        }
        let (x0, y0) = (block % across * 8, block / across * 8);
        let coefficients = ZIGZAG.map(|(v, u)| {
            let c = |k: usize| if k == 0 { 0.5f64.sqrt() } else { 1.0 };
            let cos = |x: usize, u: usize| ((2 * x + 1) as f64 * u as f64 * PI / 16.0).cos();
            let sum: f64 = (0..64).map(|i| at(x0 + i % 8, y0 + i / 8) * cos(i % 8, u) * cos(i / 8, v)).sum();
            (sum * c(u) * c(v) / 4.0).round() as i32
        });
        let size = size_of(coefficients[0] - dc);
        scan.write(size.into(), 5);
        scan.write_extended(coefficients[0] - dc, size);
        dc = coefficients[0];
        let mut run = 0;
        for &coefficient in &coefficients[1..] {
            if coefficient == 0 {
                run += 1;
                continue;
            }
            for _ in 0..run / 16 {
                scan.write(0xF0, 8);
            }
            let size = size_of(coefficient);
            scan.write((run % 16) << 4 | u32::from(size), 8);
            scan.write_extended(coefficient, size);
            run = 0;
        }
        if run > 0 {
            scan.write(0, 8);
        }
    }
    let (dc_codes, ac_codes): (Vec<u8>, Vec<u8>) = ((0..=15).collect(), (0..=254).collect());
    [
        vec![0xFF, 0xD8],
        segment(0xDB, &[vec![0], vec![1; 64]].concat()),
        frame(0xC1, 12, width, height, 0),
        huffman(0x00, 5, &dc_codes),
        huffman(0x10, 8, &ac_codes),
        segment(0xDD, &restart.to_be_bytes()),
        segment(0xDA, &[1, 1, 0, 0, 63, 0]),
        scan.finish(),
        vec![0xFF, 0xD9],
    ]
    .concat()
}

/// Row and column frequency of the k-th coefficient, walked as figure 5 of T.81 draws it.
const ZIGZAG: [(usize, usize); 64] = {
    let mut order = [(0, 0); 64];
    let (mut v, mut u, mut up, mut k) = (0, 0, true, 0);
    while k < 64 {
        order[k] = (v, u);
        match (up, v, u) {
            (true, _, 7) => (v, up) = (v + 1, false),
            (true, 0, _) => (u, up) = (u + 1, false),
            (true, ..) => (v, u) = (v - 1, u + 1),
            (false, 7, _) => (u, up) = (u + 1, true),
            (false, _, 0) => (v, up) = (v + 1, true),
            (false, ..) => (v, u) = (v + 1, u - 1),
        }
        k += 1;
    }
    order
};

fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
    [&[0xFF, marker], &(body.len() as u16 + 2).to_be_bytes()[..], body].concat()
}

fn frame(marker: u8, bits: u8, width: u16, height: u16, table: u8) -> Vec<u8> {
    let [size, columns] = [height.to_be_bytes(), width.to_be_bytes()];
    segment(marker, &[&[bits], &size[..], &columns, &[1, 1, 0x11, table]].concat())
}

/// A Huffman table in which every symbol's code is its index, in `length` bits.
fn huffman(kind: u8, length: usize, symbols: &[u8]) -> Vec<u8> {
    let mut counts = [0; 16];
    counts[length - 1] = symbols.len() as u8;
    segment(0xC4, &[&[kind], &counts[..], symbols].concat())
}

/// The bits of a difference or coefficient, without its sign.
fn size_of(value: i32) -> u8 {
    (32 - value.unsigned_abs().leading_zeros()) as u8
}

#[derive(Default)]
struct BitWriter {
    out: Vec<u8>,
    held: u32,
    count: u32,
}

impl BitWriter {
    fn write(&mut self, value: u32, bits: u32) {
        for bit in (0..bits).rev() {
            self.held = self.held << 1 | (value >> bit & 1);
            self.count += 1;
            if self.count == 8 {
                self.out.push(self.held as u8);
                if self.held as u8 == 0xFF {
                    self.out.push(0);
                }
                (self.held, self.count) = (0, 0);
            }
        }
    }

    fn write_extended(&mut self, value: i32, size: u8) {
        let value = if value < 0 { value - 1 } else { value };
        self.write(value as u32 & ((1 << size) - 1), size.into());
    }

    fn align(&mut self) {
        while self.count != 0 {
            self.write(1, 1);
        }
    }

    fn restart(&mut self, number: usize) {
        self.align();
        self.out.extend([0xFF, 0xD0 + number as u8]);
    }

    fn finish(mut self) -> Vec<u8> {
        self.align();
        self.out
    }
}
