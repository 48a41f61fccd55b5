//! The element structure of a data set (PS3.5 chapter 7), walked without reading any value.
//!
//! The walk proves that every element lies inside the file and inside its sequence, that nesting is shallow, and that
//! there are not absurdly many elements; only then the elements that are needed are parsed. A cut file ends here.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use super::attributes::READ;
use crate::radiograph::{DecodeError, Format};

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITATION: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITATION: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = u32::MAX;
/// Sequences and items open at once; real films nest two or three sequences.
const MAX_DEPTH: usize = 64;
/// Elements before Pixel Data, nested ones included.
const MAX_ELEMENTS: usize = 200_000;

/// How elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Implicit VR, little endian.
    ImplicitLittle,
    /// Explicit VR, little endian.
    ExplicitLittle,
    /// Explicit VR, big endian.
    ExplicitBig,
}

/// The parts of a data set that a film needs.
#[derive(Debug)]
pub(super) struct DataSet<'a> {
    /// The elements of [`READ`] before Pixel Data, encoded as they were.
    pub(super) head: Vec<u8>,
    /// The value of Pixel Data (7FE0,0010).
    pub(super) pixel_data: PixelData<'a>,
}

/// The value of Pixel Data, still encoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PixelData<'a> {
    /// Uncompressed cells.
    Native {
        /// The cells.
        value: &'a [u8],
        /// Whether they are 16-bit words even where a cell has 8 bits (VR OW).
        words: bool,
    },
    /// The fragments of a compressed image, without the basic offset table.
    Encapsulated(Vec<&'a [u8]>),
}

/// The header of an element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) tag: Tag,
    vr: VR,
    length: u32,
    value_at: usize,
}

impl Header {
    /// The header at `at`.
    pub(super) fn read(bytes: &[u8], at: usize, encoding: Encoding) -> Result<Self, DecodeError> {
        let field = |from: usize, n: usize| {
            bytes.get(at + from..at + from + n).ok_or_else(|| {
                damaged(format!("expected an element at byte {at}, found the end of the file ({} bytes)", bytes.len()))
            })
        };
        let big = encoding == Encoding::ExplicitBig;
        let u16_at = |from| {
            field(from, 2)
                .map(|b| if big { u16::from_be_bytes([b[0], b[1]]) } else { u16::from_le_bytes([b[0], b[1]]) })
        };
        let u32_at = |from| {
            field(from, 4).map(|b| {
                let b = [b[0], b[1], b[2], b[3]];
                if big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
            })
        };
        let tag = Tag(u16_at(0)?, u16_at(2)?);
        if tag.0 == 0xFFFE || encoding == Encoding::ImplicitLittle {
            return Ok(Self { tag, vr: implied_vr(tag), length: u32_at(4)?, value_at: at + 8 });
        }
        let vr = field(4, 2)?;
        let vr = VR::from_binary([vr[0], vr[1]])
            .ok_or_else(|| damaged(format!("expected a value representation in element {tag} at byte {at}")))?;
        if has_long_length(vr) {
            return Ok(Self { tag, vr, length: u32_at(8)?, value_at: at + 12 });
        }
        Ok(Self { tag, vr, length: u16_at(6)?.into(), value_at: at + 8 })
    }

    /// Where the value ends; an error if that is beyond `limit`.
    fn value_end(&self, limit: usize) -> Result<usize, DecodeError> {
        let left = limit.saturating_sub(self.value_at);
        if self.length as usize > left {
            return Err(damaged(format!("expected {} bytes in element {}, found {left}", self.length, self.tag)));
        }
        Ok(self.value_at + self.length as usize)
    }

    /// The value of an element of defined length.
    pub(super) fn value<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        Ok(&bytes[self.value_at..self.value_end(bytes.len())?])
    }

    /// Where the next element starts, for an element of defined length.
    pub(super) fn end(&self, bytes: &[u8]) -> Result<usize, DecodeError> {
        self.value_end(bytes.len())
    }

    fn is_sequence(&self) -> bool {
        self.vr == VR::SQ || self.length == UNDEFINED
    }
}

/// Walks the elements of `bytes` up to Pixel Data.
pub(super) fn split(bytes: &[u8], encoding: Encoding) -> Result<DataSet<'_>, DecodeError> {
    let mut head = Vec::new();
    // Where each open sequence or item ends; `None` where a delimitation item says so.
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut at = 0;
    let mut top_level_at = 0;
    for _ in 0..MAX_ELEMENTS {
        while open.last().is_some_and(|&end| end == Some(at)) {
            open.pop();
        }
        if open.is_empty() {
            keep(&mut head, bytes, top_level_at..at, encoding)?;
            top_level_at = at;
        }
        if at == bytes.len() && open.is_empty() {
            return Err(super::attributes::wrong(tags::PIXEL_DATA, "a value", "none"));
        }
        let header = Header::read(bytes, at, encoding)?;
        let limit = open.iter().rev().find_map(|&end| end).unwrap_or(bytes.len());
        if header.value_at > limit {
            return Err(damaged(format!("expected element {} to end inside its sequence", header.tag)));
        }
        let end = |header: &Header| (header.length != UNDEFINED).then(|| header.value_end(limit)).transpose();
        at = match header.tag {
            ITEM_DELIMITATION | SEQUENCE_DELIMITATION => {
                if !matches!(open.pop(), Some(None)) {
                    return Err(damaged(format!("expected no delimitation item at byte {at}")));
                }
                header.value_at
            }
            tags::PIXEL_DATA if open.is_empty() => {
                let pixel_data = pixel_data(bytes, &header, encoding)?.0;
                return Ok(DataSet { head, pixel_data });
            }
            tags::PIXEL_DATA if header.length == UNDEFINED => pixel_data(bytes, &header, encoding)?.1,
            ITEM => {
                open.push(end(&header)?);
                header.value_at
            }
            _ if header.is_sequence() => {
                open.push(end(&header)?);
                header.value_at
            }
            _ => header.value_end(limit)?,
        };
        if open.len() > MAX_DEPTH {
            return Err(damaged(format!("expected at most {MAX_DEPTH} levels of sequences and items, found more")));
        }
    }
    Err(damaged(format!("expected at most {MAX_ELEMENTS} elements, found more")))
}

/// Appends the top-level element in `range` to `head` if it is one that is read.
fn keep(
    head: &mut Vec<u8>,
    bytes: &[u8],
    range: std::ops::Range<usize>,
    encoding: Encoding,
) -> Result<(), DecodeError> {
    if !range.is_empty() && READ.contains(&Header::read(bytes, range.start, encoding)?.tag) {
        head.extend_from_slice(&bytes[range]);
    }
    Ok(())
}

/// The value of Pixel Data and where the next element starts.
fn pixel_data<'a>(bytes: &'a [u8], header: &Header, encoding: Encoding) -> Result<(PixelData<'a>, usize), DecodeError> {
    if header.length != UNDEFINED {
        let words = header.vr != VR::OB;
        return Ok((PixelData::Native { value: header.value(bytes)?, words }, header.end(bytes)?));
    }
    let mut items = Vec::new();
    let mut at = header.value_at;
    loop {
        let item = Header::read(bytes, at, encoding)?;
        match item.tag {
            ITEM if item.length != UNDEFINED && items.len() < MAX_ELEMENTS => {
                items.push(item.value(bytes)?);
                at = item.end(bytes)?;
            }
            SEQUENCE_DELIMITATION => {
                // PS3.5 A.4: the first item is the basic offset table, which may be empty.
                let fragments = items.split_off(items.len().min(1));
                return Ok((PixelData::Encapsulated(fragments), item.value_at));
            }
            _ => return Err(damaged(format!("expected a fragment of Pixel Data at byte {at}"))),
        }
    }
}

/// The VR that the dictionary gives, as far as the walk must know it.
fn implied_vr(tag: Tag) -> VR {
    match StandardDataDictionary.by_tag(tag).map(|entry| entry.vr()) {
        Some(VirtualVr::Exact(vr)) => vr,
        Some(VirtualVr::Px | VirtualVr::Ox) => VR::OW,
        _ => VR::UN,
    }
}

/// PS3.5 7.1.2: these VRs have two reserved bytes and a length of 32 bits.
fn has_long_length(vr: VR) -> bool {
    matches!(
        vr,
        VR::OB
            | VR::OD
            | VR::OF
            | VR::OL
            | VR::OV
            | VR::OW
            | VR::SQ
            | VR::SV
            | VR::UC
            | VR::UN
            | VR::UR
            | VR::UT
            | VR::UV
    )
}

fn damaged(reason: String) -> DecodeError {
    DecodeError::damaged(Format::Dicom, reason)
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::uids;

    use super::*;
    use crate::radiograph::dicom::synthetic::{BIG_ENDIAN, Synthetic};
    use crate::radiograph::{Limits, decode};

    #[test]
    fn a_film_cut_anywhere_is_refused() {
        let film = Synthetic::words(3, 2, 12, &[0, 1, 2, 3, 4, 5]);
        for uid in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN, BIG_ENDIAN] {
            let whole = film.data_set(uid);
            for cut in 0..whole.len() {
                assert!(decode(&whole[..cut], &Limits::default()).is_err(), "{uid}, {cut} of {}", whole.len());
            }
        }
    }

    #[test]
    fn what_follows_the_pixel_data_does_not_matter() {
        let mut bytes = Synthetic::words(3, 2, 12, &[0, 1, 2, 3, 4, 5]).file(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let whole = decode(&bytes, &Limits::default()).expect("a film").pixels;
        bytes.extend([0; 37]);
        assert_eq!(decode(&bytes, &Limits::default()).expect("a film").pixels, whole);
    }

    #[test]
    fn only_the_elements_that_are_read_are_parsed() {
        let bytes = Synthetic::words(3, 2, 12, &[0, 1, 2, 3, 4, 5])
            .with_lut(tags::MODALITY_LUT_SEQUENCE, [1, 0, 16], &[7])
            .data_set(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let parts = split(&bytes, Encoding::ExplicitLittle).expect("a data set");
        let holds = |text: &[u8]| parts.head.windows(text.len()).any(|window| window == text);
        assert!(!holds(b"Doe^Jane") && holds(b"MONOCHROME2"));
        assert_eq!(parts.pixel_data, PixelData::Native { value: &[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0], words: true });
    }

    #[test]
    fn deep_nesting_and_endless_elements_are_refused() {
        let sequence = [0x08, 0x00, 0x40, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
        let item = [0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF];
        let deep = [&sequence[..], &item].concat().repeat(100_000);
        let empty = [0x08, 0x00, 0x70, 0x00, b'L', b'O', 0, 0].repeat(MAX_ELEMENTS + 1);
        for (bytes, reason) in [(deep, "levels of sequences"), (empty, "elements, found more")] {
            let message = split(&bytes, Encoding::ExplicitLittle).expect_err(reason).to_string();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn an_element_longer_than_its_sequence_is_refused() {
        let mut bytes = vec![0x08, 0x00, 0x40, 0x11, b'S', b'Q', 0, 0, 18, 0, 0, 0];
        bytes.extend([0xFE, 0xFF, 0x00, 0xE0, 10, 0, 0, 0]);
        bytes.extend([0x08, 0x00, 0x50, 0x11, b'U', b'I', 4, 0, b'1', b'.', b'2', b'.']);
        bytes.extend([0; 64]);
        let message = split(&bytes, Encoding::ExplicitLittle).expect_err("too long").to_string();
        assert!(message.contains("expected 4 bytes in element (0008,1150), found 2"), "{message}");
    }
}
