//! BMP: the pixel array, as the header sizes it, lies inside the file.

use super::bytes::{Order, end};
use super::verdict::{Completeness, incomplete, unless_zero_tail};

/// The file header before the bitmap header.
const FILE_HEADER_BYTES: usize = 14;
const CORE_HEADER_BYTES: u32 = 12;

/// Checks the rows an uncompressed bitmap announces, or walks a run-length coded one to its end-of-bitmap mark.
///
/// The file size in the header is not looked at: many writers leave it zero or wrong.
pub(super) fn walk(bytes: &[u8]) -> Completeness {
    let Some(header) = Header::read(bytes) else { return incomplete("the BMP ends inside its header") };
    let Ok(pixels) = usize::try_from(header.pixels_at) else { return Completeness::Unknown };
    match header.compression {
        _ if !header.plausible() => Completeness::Unknown,
        // BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS
        0 | 3 | 6 => match header.pixel_bytes() {
            Some(length) if (pixels as u64).saturating_add(length) <= bytes.len() as u64 => unless_zero_tail(bytes),
            Some(_) => incomplete("the BMP is shorter than its rows"),
            None => Completeness::Unknown,
        },
        // BI_RLE8, BI_RLE4
        1 => walk_runs(bytes, pixels, 1),
        2 => walk_runs(bytes, pixels, 2),
        _ => Completeness::Unknown,
    }
}

struct Header {
    pixels_at: u32,
    header_bytes: u32,
    width: u32,
    height: u32,
    bits_per_pixel: u16,
    compression: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let order = Order::Little;
        let pixels_at = order.u32(bytes, 10)?;
        let header_bytes = order.u32(bytes, FILE_HEADER_BYTES)?;
        if header_bytes == CORE_HEADER_BYTES {
            return Some(Self {
                pixels_at,
                header_bytes,
                width: u32::from(order.u16(bytes, 18)?),
                height: u32::from(order.u16(bytes, 20)?),
                bits_per_pixel: order.u16(bytes, 24)?,
                compression: 0,
            });
        }
        Some(Self {
            pixels_at,
            header_bytes,
            // A negative height says that the first row is the top one.
            width: order.u32(bytes, 18)?.cast_signed().unsigned_abs(),
            height: order.u32(bytes, 22)?.cast_signed().unsigned_abs(),
            bits_per_pixel: order.u16(bytes, 28)?,
            compression: order.u32(bytes, 30)?,
        })
    }

    /// Two letters are a weak signature: whether the rest looks like a bitmap's header at all.
    fn plausible(&self) -> bool {
        matches!(self.header_bytes, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124)
            && matches!(self.bits_per_pixel, 1 | 2 | 4 | 8 | 16 | 24 | 32)
    }

    /// Rows are padded to four bytes.
    fn pixel_bytes(&self) -> Option<u64> {
        let row_bits = u64::from(self.width).checked_mul(u64::from(self.bits_per_pixel))?;
        row_bits.div_ceil(32).checked_mul(4)?.checked_mul(u64::from(self.height))
    }
}

/// Run-length codes up to the end-of-bitmap mark; `per_byte` pixels share a byte of an absolute run.
fn walk_runs(bytes: &[u8], mut at: usize, per_byte: u32) -> Completeness {
    while let Some([count, value]) = super::bytes::array(bytes, at) {
        at += 2;
        let skipped = match (count, value) {
            (0, 1) => return Completeness::Complete,
            (1.., _) | (0, 0) => 0,
            (0, 2) => 2,
            // An absolute run, padded to two bytes.
            (0, pixels) => u32::from(pixels).div_ceil(per_byte).next_multiple_of(2),
        };
        match end(bytes, at, skipped) {
            Some(next) => at = next,
            None => break,
        }
    }
    incomplete("the run-length coded BMP has no end mark")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bitmap(width: i32, height: i32, bits: u16, compression: u32, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = b"BM".to_vec();
        bytes.extend([0; 8]);
        bytes.extend(54u32.to_le_bytes());
        bytes.extend(40u32.to_le_bytes());
        bytes.extend(width.to_le_bytes());
        bytes.extend(height.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(compression.to_le_bytes());
        bytes.extend([0; 20]);
        bytes.extend(pixels);
        bytes
    }

    #[test]
    fn the_rows_a_header_announces_must_be_there() {
        let short = incomplete("the BMP is shorter than its rows");
        let open = incomplete("the run-length coded BMP has no end mark");
        let complete = Completeness::Complete;
        for (name, bytes, expected) in [
            // 5 pixels of 24 bits are 15 bytes, padded to 16.
            ("whole", bitmap(5, 3, 24, 0, &[7; 48]), complete),
            ("one byte short", bitmap(5, 3, 24, 0, &[7; 47]), short),
            ("top-down", bitmap(5, -3, 24, 0, &[7; 48]), complete),
            ("top-down, short", bitmap(5, -3, 24, 0, &[7; 40]), short),
            ("larger than any file", bitmap(i32::MAX, i32::MAX, 32, 0, &[7; 48]), short),
            ("more than can be counted", bitmap(i32::MIN, i32::MIN, 32, 0, &[7; 48]), Completeness::Unknown),
            ("no such depth", bitmap(5, 3, 25, 0, &[7; 48]), Completeness::Unknown),
            ("a picture in the picture", bitmap(5, 3, 24, 4, &[7; 48]), Completeness::Unknown),
            ("runs", bitmap(5, 1, 8, 1, &[5, 9, 0, 0, 0, 1]), complete),
            ("an absolute run holds the end's bytes", bitmap(5, 1, 8, 1, &[0, 5, 0, 1, 0, 1, 0, 1]), open),
            ("runs of half bytes", bitmap(5, 1, 4, 2, &[0, 5, 0x12, 0x34, 0x50, 0, 0, 1]), complete),
            ("zeros for runs", bitmap(5, 1, 8, 1, &[0; 900]), open),
            (
                "cut in the header",
                bitmap(5, 3, 24, 0, &[])[..30].to_vec(),
                incomplete("the BMP ends inside its header"),
            ),
            ("black last rows", bitmap(256, 4, 8, 0, &[[9; 512], [0; 512]].concat()), Completeness::ZeroTail),
        ] {
            assert_eq!(walk(&bytes), expected, "{name}");
        }
    }
}
