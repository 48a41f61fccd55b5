//! JPEG (ITU-T T.81 Annex B): markers from SOI to EOI.

use super::bytes::{Order, end};
use super::verdict::{Completeness, incomplete};

pub(super) const SIGNATURE: [u8; 3] = [0xFF, 0xD8, 0xFF];

const EOI: u8 = 0xD9;

/// Follows marker segments by their lengths and entropy-coded data to the next marker, up to EOI.
///
/// What follows EOI (padding, a second picture) does not matter. Scans of progressive films are passed like the one
/// of a baseline film; previews inside APPn segments are skipped with their segment.
pub(super) fn walk(bytes: &[u8]) -> Completeness {
    let mut at = 2;
    while let Some((code, after)) = next_marker(bytes, at) {
        match code {
            EOI => return Completeness::Complete,
            // A stuffed zero inside entropy-coded data, and the markers that stand alone: TEM, RSTn, SOI.
            0x00 | 0x01 | 0xD0..=0xD8 => at = after,
            _ => {
                let Some(length) = Order::Big.u16(bytes, after) else { break };
                if length < 2 {
                    return Completeness::Unknown;
                }
                match end(bytes, after, u32::from(length)) {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
    }
    incomplete("the JPEG has no end-of-image marker")
}

/// The code after the next 0xFF and where it ends; fill bytes (B.1.1.2) and bytes between segments are skipped.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let start = at + bytes.get(at..)?.iter().position(|&byte| byte == 0xFF)?;
    let code = start + bytes.get(start..)?.iter().position(|&byte| byte != 0xFF)?;
    Some((bytes[code], code + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(code: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xFF, code];
        bytes.extend((payload.len() as u16 + 2).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn markers_are_followed_to_the_end_of_the_image() {
        let soi = vec![0xFF, 0xD8];
        let eoi = vec![0xFF, 0xD9];
        // A preview with its own EOI hides in APP1, and in the scan 0xFF is stuffed and restart markers stand alone.
        let app = segment(0xE1, &[0xFF, 0xD8, 0xFF, 0xD9]);
        let scan = [segment(0xDA, &[1, 2]), vec![7, 0xFF, 0x00, 9, 0xFF, 0xD0, 3, 0xFF, 0xFF]].concat();
        let whole = [soi.clone(), app.clone(), scan.clone(), scan.clone(), eoi.clone()].concat();
        let complete = Completeness::Complete;
        let cut = incomplete("the JPEG has no end-of-image marker");
        for (name, bytes, expected) in [
            ("whole, two scans", whole.clone(), complete),
            ("bytes after the end", [whole.clone(), vec![0; 700]].concat(), complete),
            ("fill bytes before a marker", [soi.clone(), vec![0xFF; 9], app.clone(), eoi.clone()].concat(), complete),
            ("no end", [soi.clone(), app.clone(), scan.clone()].concat(), cut),
            ("cut in the preview", whole[..10].to_vec(), cut),
            ("half an end marker", whole[..whole.len() - 1].to_vec(), cut),
            ("zeros where the scan goes on", [soi, app, scan, vec![0; 4096]].concat(), cut),
        ] {
            assert_eq!(walk(&bytes), expected, "{name}");
        }
    }
}
