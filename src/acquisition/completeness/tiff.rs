//! TIFF 6.0: every image directory and every strip or tile it points to lies inside the file.

use super::bytes::{Order, end};
use super::verdict::{Completeness, incomplete, unless_zero_tail};

/// Directories looked at; more than any film has, few enough to end on a chain that loops.
const MAX_DIRECTORIES: usize = 64;
/// Strips and tiles looked at in all, so that directories sharing one huge table cost no more than one does.
const MAX_SEGMENTS: u32 = 1 << 20;

const STRIP_OFFSETS: u16 = 273;
const STRIP_BYTE_COUNTS: u16 = 279;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTE_COUNTS: u16 = 325;

/// Whether this is a classic TIFF; BigTIFF (version 43) is left to the decoder.
pub(super) fn recognised(bytes: &[u8]) -> bool {
    bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*")
}

pub(super) fn walk(bytes: &[u8]) -> Completeness {
    let order = if bytes.starts_with(b"II") { Order::Little } else { Order::Big };
    let mut file = File { bytes, order, segments_left: MAX_SEGMENTS };
    let past_end = incomplete("a directory of the TIFF lies past the end of the file");
    let Some(mut directory) = order.u32(bytes, 4) else { return past_end };
    if directory == 0 {
        // Writers fill in this offset last.
        return incomplete("the TIFF has no directory yet");
    }
    for _ in 0..MAX_DIRECTORIES {
        match file.directory(directory) {
            Ok(Some(next)) if next != 0 => directory = next,
            Ok(Some(_)) => return unless_zero_tail(bytes),
            Ok(None) => return past_end,
            Err(verdict) => return verdict,
        }
    }
    Completeness::Unknown
}

struct File<'a> {
    bytes: &'a [u8],
    order: Order,
    segments_left: u32,
}

/// A directory entry's values: `count` numbers of two or four bytes at `at`.
#[derive(Clone, Copy)]
struct Values {
    at: usize,
    count: u32,
    wide: bool,
}

impl File<'_> {
    /// Checks what the directory at `at` points to: the next directory's offset, `None` where this one is cut.
    fn directory(&mut self, at: u32) -> Result<Option<u32>, Completeness> {
        let Ok(at) = usize::try_from(at) else { return Ok(None) };
        let Some(entries) = self.order.u16(self.bytes, at) else { return Ok(None) };
        if entries == 0 {
            return Err(incomplete("a directory of the TIFF is empty"));
        }
        let first = at + 2;
        let Some(last) = end(self.bytes, first, u32::from(entries) * 12) else { return Ok(None) };
        let Some(next) = self.order.u32(self.bytes, last) else { return Ok(None) };
        let mut tables: [Option<Values>; 4] = [None; 4];
        for entry in (first..last).step_by(12) {
            let tag = self.order.u16(self.bytes, entry);
            let which = match tag {
                Some(STRIP_OFFSETS) => 0,
                Some(STRIP_BYTE_COUNTS) => 1,
                Some(TILE_OFFSETS) => 2,
                Some(TILE_BYTE_COUNTS) => 3,
                _ => continue,
            };
            tables[which] = Some(self.values(entry)?);
        }
        let [strips, strip_bytes, tiles, tile_bytes] = tables;
        for (offsets, counts) in [(strips, strip_bytes), (tiles, tile_bytes)] {
            if let Some(offsets) = offsets {
                self.segments(offsets, counts)?;
            }
        }
        Ok(Some(next))
    }

    fn values(&self, entry: usize) -> Result<Values, Completeness> {
        let field_type = self.order.u16(self.bytes, entry + 2);
        let (Some(count), Some(offset)) =
            (self.order.u32(self.bytes, entry + 4), self.order.u32(self.bytes, entry + 8))
        else {
            return Err(Completeness::Unknown);
        };
        let wide = match field_type {
            Some(3) => false,
            Some(4) => true,
            Some(0) => return Err(incomplete("an entry of the TIFF's directory is empty")),
            _ => return Err(Completeness::Unknown),
        };
        let Some(length) = count.checked_mul(if wide { 4 } else { 2 }) else { return Err(Completeness::Unknown) };
        // Values of up to four bytes stand in the entry itself.
        let at = if length <= 4 { Some(entry + 8) } else { usize::try_from(offset).ok() };
        match at.filter(|&at| end(self.bytes, at, length).is_some()) {
            Some(at) => Ok(Values { at, count, wide }),
            None => Err(incomplete("a table of the TIFF lies past the end of the file")),
        }
    }

    fn segments(&mut self, offsets: Values, counts: Option<Values>) -> Result<(), Completeness> {
        self.segments_left = self.segments_left.checked_sub(offsets.count).ok_or(Completeness::Unknown)?;
        let missing = incomplete("pixels of the TIFF lie past the end of the file");
        for i in 0..offsets.count {
            let offset = self.value(offsets, i).ok_or(missing)?;
            // Without byte counts (allowed once, for a single uncompressed strip) only its start is known.
            let length = counts.filter(|counts| i < counts.count).and_then(|counts| self.value(counts, i)).unwrap_or(1);
            if offset == 0 && length > 0 {
                return Err(incomplete("the TIFF's pixels have no place yet"));
            }
            if usize::try_from(offset).ok().and_then(|offset| end(self.bytes, offset, length)).is_none() {
                return Err(missing);
            }
        }
        Ok(())
    }

    fn value(&self, values: Values, i: u32) -> Option<u32> {
        let i = usize::try_from(i).ok()?;
        if values.wide {
            self.order.u32(self.bytes, values.at + 4 * i)
        } else {
            self.order.u16(self.bytes, values.at + 2 * i).map(u32::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One directory at 8 with `strips` as (offset, length), the tables behind it, then `tail` bytes of pixels.
    fn file(order: Order, strips: &[(u32, u32)], next: u32, pixels: usize) -> Vec<u8> {
        let u16 = |v: u16| if order == Order::Little { v.to_le_bytes() } else { v.to_be_bytes() };
        let u32 = |v: u32| if order == Order::Little { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut bytes = if order == Order::Little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        bytes.extend(u32(8));
        bytes.extend(u16(2));
        let tables = 8 + 2 + 24 + 4;
        let n = strips.len() as u32;
        for (tag, which) in [(STRIP_OFFSETS, 0), (STRIP_BYTE_COUNTS, 1)] {
            bytes.extend(u16(tag));
            bytes.extend(u16(4));
            bytes.extend(u32(n));
            let inline = if which == 0 { strips[0].0 } else { strips[0].1 };
            bytes.extend(u32(if n == 1 { inline } else { tables + which * 4 * n }));
        }
        bytes.extend(u32(next));
        if n > 1 {
            strips.iter().for_each(|&(offset, _)| bytes.extend(u32(offset)));
            strips.iter().for_each(|&(_, length)| bytes.extend(u32(length)));
        }
        bytes.extend(vec![7; pixels]);
        bytes
    }

    #[test]
    fn strips_must_lie_inside_the_file() {
        let missing = incomplete("pixels of the TIFF lie past the end of the file");
        for order in [Order::Little, Order::Big] {
            for (name, bytes, expected) in [
                ("one strip", file(order, &[(38, 100)], 0, 100), Completeness::Complete),
                ("one strip, short", file(order, &[(38, 100)], 0, 99), missing),
                ("two strips", file(order, &[(54, 50), (104, 50)], 0, 100), Completeness::Complete),
                ("the second strip is short", file(order, &[(54, 50), (104, 50)], 0, 99), missing),
                ("an offset past any file", file(order, &[(u32::MAX, u32::MAX)], 0, 100), missing),
                (
                    "an offset to come",
                    file(order, &[(0, 100)], 0, 100),
                    incomplete("the TIFF's pixels have no place yet"),
                ),
                ("a directory that is its own next", file(order, &[(38, 100)], 8, 100), Completeness::Unknown),
                (
                    "the next directory is missing",
                    file(order, &[(38, 100)], 138, 100),
                    incomplete("a directory of the TIFF lies past the end of the file"),
                ),
            ] {
                assert_eq!(walk(&bytes), expected, "{name}, {order:?}");
            }
        }
    }

    #[test]
    fn directories_sharing_a_huge_table_are_given_up_early() {
        let strips = vec![(8, 1); MAX_SEGMENTS as usize / 2 + 1];
        assert_eq!(walk(&file(Order::Little, &strips, 8, 0)), Completeness::Unknown);
    }
}
