//! PNG (W3C Portable Network Graphics, section 5): chunks from the signature to IEND.

use super::bytes::{Order, array, end};
use super::verdict::{Completeness, incomplete};

pub(super) const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1A\n";

/// A chunk's length, name and CRC.
const CHUNK_OVERHEAD: u32 = 12;

/// Follows chunks by their lengths up to the end of IEND.
pub(super) fn walk(bytes: &[u8]) -> Completeness {
    let mut at = SIGNATURE.len();
    loop {
        let (Some(length), Some(name)) = (Order::Big.u32(bytes, at), array::<4>(bytes, at + 4)) else {
            return incomplete("the PNG ends before its IEND chunk");
        };
        if name == [0; 4] {
            return incomplete("the PNG has zeros where a chunk should be");
        }
        if length > i32::MAX as u32 || !name.iter().all(u8::is_ascii_alphabetic) {
            return Completeness::Unknown;
        }
        at = match end(bytes, at, length + CHUNK_OVERHEAD) {
            Some(next) if name == *b"IEND" => {
                debug_assert!(next <= bytes.len());
                return Completeness::Complete;
            }
            Some(next) => next,
            None => return incomplete("a chunk of the PNG reaches past the end of the file"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], length: usize) -> Vec<u8> {
        [&(length as u32).to_be_bytes()[..], name, &vec![5; length], &[9; 4]].concat()
    }

    #[test]
    fn chunks_are_followed_to_iend() {
        let head = [SIGNATURE.to_vec(), chunk(b"IHDR", 13), chunk(b"IDAT", 900)].concat();
        let whole = [head.clone(), chunk(b"IEND", 0)].concat();
        for (name, bytes, expected) in [
            ("whole", whole.clone(), Completeness::Complete),
            ("bytes after IEND", [whole.clone(), vec![0; 600]].concat(), Completeness::Complete),
            (
                "the CRC of IEND is cut",
                whole[..whole.len() - 1].to_vec(),
                incomplete("a chunk of the PNG reaches past the end of the file"),
            ),
            ("no IEND", head.clone(), incomplete("the PNG ends before its IEND chunk")),
            (
                "zeros for IEND",
                [head.clone(), vec![0; 12]].concat(),
                incomplete("the PNG has zeros where a chunk should be"),
            ),
            ("cut in IDAT", head[..500].to_vec(), incomplete("a chunk of the PNG reaches past the end of the file")),
            (
                "a chunk with no name",
                [head.clone(), vec![0, 0, 0, 1, 0x80, 2, 3, 4, 5]].concat(),
                Completeness::Unknown,
            ),
        ] {
            assert_eq!(walk(&bytes), expected, "{name}");
        }
    }
}
