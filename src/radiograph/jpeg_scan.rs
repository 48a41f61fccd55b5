//! Whether the scans of a sequential JPEG hold exactly the blocks that its frame header promises.
//!
//! Decoders paint over what is missing and skip what is left: a film with a hole, or ended early by an end marker,
//! would decode to a whole picture. Reading the codes alone, without coefficients, costs a few milliseconds.

use super::entropy::{BitReader, HuffmanTable, HuffmanTables};
use super::jpeg::Segment;

/// A component of the frame: its identifier, its sampling factors, and whether a scan held it.
struct Component {
    id: u8,
    h: usize,
    v: usize,
    seen: bool,
}

/// The frame header, as far as it counts blocks.
struct Frame {
    width: usize,
    height: usize,
    components: Vec<Component>,
}

/// Reads every scan of the sequential Huffman-coded JPEG in `bytes`.
///
/// # Errors
/// What was expected and what was found.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut tables = HuffmanTables::default();
    let mut restart_interval = 0;
    let mut frame: Option<Frame> = None;
    let mut at = 2;
    loop {
        if is_end(bytes.get(at..).unwrap_or_default()) {
            let whole = frame.is_some_and(|frame| frame.components.iter().all(|component| component.seen));
            return whole.then_some(()).ok_or_else(|| "expected a scan of every component".to_owned());
        }
        let Segment { marker, body, end } = Segment::read(bytes, at)?;
        at = end;
        match marker {
            0xC0 | 0xC1 => frame = Some(Frame::read(body)?),
            0xC4 => tables.read(body)?,
            0xDD => {
                restart_interval = match body {
                    &[r1, r0] => usize::from(u16::from_be_bytes([r1, r0])),
                    _ => return Err("expected a restart interval".to_owned()),
                };
            }
            0xDA => {
                let frame = frame.as_mut().ok_or("expected a frame header before the scan")?;
                at += frame.check_scan(body, &bytes[end..], &tables, restart_interval)?;
            }
            _ => {}
        }
    }
}

fn is_end(bytes: &[u8]) -> bool {
    let marker = bytes.iter().position(|&byte| byte != 0xFF);
    marker.is_some_and(|n| n > 0 && bytes[n] == 0xD9)
}

impl Frame {
    fn read(body: &[u8]) -> Result<Self, String> {
        let &[_, h1, h0, w1, w0, n, ref components @ ..] = body else {
            return Err("expected a whole frame header".to_owned());
        };
        let components = components.get(..3 * usize::from(n)).ok_or("expected a whole frame header")?;
        let components = components.as_chunks().0.iter().map(|&[id, sampling, _]| {
            let [h, v] = [sampling >> 4, sampling & 15];
            let valid = (1..=4).contains(&h) && (1..=4).contains(&v);
            valid.then_some(Component { id, h: h.into(), v: v.into(), seen: false })
        });
        let [width, height] = [[w1, w0], [h1, h0]].map(|pair| usize::from(u16::from_be_bytes(pair)));
        let components: Option<Vec<_>> = components.collect();
        Ok(Self { width, height, components: components.ok_or("expected sampling factors from 1 to 4")? })
    }

    /// Reads a scan's blocks and yields its length.
    fn check_scan(
        &mut self,
        header: &[u8],
        data: &[u8],
        tables: &HuffmanTables,
        restart_interval: usize,
    ) -> Result<usize, String> {
        let h_max = self.components.iter().map(|c| c.h).max().unwrap_or(1);
        let v_max = self.components.iter().map(|c| c.v).max().unwrap_or(1);
        let (&n, selectors) = header.split_first().ok_or("expected a scan header")?;
        let selectors = selectors.get(..2 * usize::from(n)).ok_or("expected a whole scan header")?.as_chunks().0;
        let mut blocks: Vec<(usize, &HuffmanTable, &HuffmanTable)> = Vec::new();
        let mut mcus = self.width.div_ceil(8 * h_max) * self.height.div_ceil(8 * v_max);
        for &[id, numbers] in selectors {
            let component = self.components.iter_mut().find(|component| component.id == id);
            let component = component.ok_or("expected a component of the frame in the scan")?;
            component.seen = true;
            let mut per_mcu = component.h * component.v;
            if n == 1 {
                // A.2.2: alone in its scan, a component has one block an MCU and none beyond its own edge.
                let across = (self.width * component.h).div_ceil(h_max).div_ceil(8);
                mcus = across * (self.height * component.v).div_ceil(v_max).div_ceil(8);
                per_mcu = 1;
            }
            blocks.push((per_mcu, tables.dc(numbers >> 4)?, tables.ac(numbers & 15)?));
        }
        let mut bits = BitReader::new(data);
        for mcu in 0..mcus {
            if restart_interval > 0 && mcu > 0 && mcu % restart_interval == 0 {
                bits.restart()?;
            }
            for &(per_mcu, dc, ac) in &blocks {
                for _ in 0..per_mcu {
                    skip_block(&mut bits, dc, ac)?;
                }
            }
        }
        bits.end().ok_or_else(|| "expected the end of the scan after its last block, found more data".to_owned())
    }
}

fn skip_block(bits: &mut BitReader<'_>, dc: &HuffmanTable, ac: &HuffmanTable) -> Result<(), String> {
    let size = bits.symbol(dc)?;
    bits.skip(size.min(16))?;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(ac)?;
        match (symbol >> 4, symbol & 15) {
            (15, 0) => k += 16,
            (_, 0) => break,
            (run, size) => {
                bits.skip(size)?;
                k += usize::from(run) + 1;
            }
        }
    }
    if k > 64 {
        return Err("expected at most 63 AC coefficients, found more".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_of_a_file_is_an_error() {
        for bytes in [&b""[..], b"\xFF", b"\xFF\xD8", b"\xFF\xD8\xFF", b"\xFF\xD8\xFF\xD9"] {
            let why = check(bytes).expect_err("no film is that short");
            assert!(why.starts_with("expected"), "{bytes:?}: {why}");
        }
    }
}
