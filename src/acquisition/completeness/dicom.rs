//! DICOM (PS3.5 section 7, PS3.10 section 7): data elements from the first to the end of Pixel Data.

use super::bytes::{array, end};
use super::dicom_elements::{Element, Header, Syntax, header, starts_data_set};
use super::verdict::{Completeness, incomplete, unless_zero_tail};

const PREAMBLE_BYTES: usize = 128;
/// Sequences within sequences; real films have a handful.
const MAX_DEPTH: usize = 64;
/// What a deflated data set may inflate to before its end is no longer looked for.
const MAX_INFLATED_BYTES: u64 = 1 << 30;

const ROWS: u32 = 0x0028_0010;
const COLUMNS: u32 = 0x0028_0011;
const SAMPLES_PER_PIXEL: u32 = 0x0028_0002;
const PHOTOMETRIC_INTERPRETATION: u32 = 0x0028_0004;
const NUMBER_OF_FRAMES: u32 = 0x0028_0008;
const BITS_ALLOCATED: u32 = 0x0028_0100;
const PIXEL_DATA: u32 = 0x7FE0_0010;
const TRANSFER_SYNTAX_UID: u32 = 0x0002_0010;

const ENDS_EARLY: Completeness = incomplete("the DICOM file ends inside a data element");

/// Whether this is a DICOM file as PS3.10 wants it.
pub(super) fn has_preamble(bytes: &[u8]) -> bool {
    array(bytes, PREAMBLE_BYTES) == Some(*b"DICM")
}

/// Whether this seems to be DICOM all the same: its first bytes read as file meta information or as group 0008.
pub(super) fn starts_without_preamble(bytes: &[u8]) -> bool {
    starts_data_set(bytes, 0).is_some()
}

/// The verdict on a file of which one of the two holds.
pub(super) fn walk(bytes: &[u8]) -> Completeness {
    let start = if has_preamble(bytes) { PREAMBLE_BYTES + 4 } else { 0 };
    meta(bytes, start).unwrap_or_else(|verdict| verdict)
}

/// Passes group 0002, which is explicit little endian whatever follows, and checks the data set behind it.
fn meta(bytes: &[u8], mut at: usize) -> Result<Completeness, Completeness> {
    let mut transfer_syntax: Option<&str> = None;
    while array(bytes, at) == Some([2, 0]) {
        let Header::Element(element) = header(bytes, at, Syntax::EXPLICIT_LITTLE)? else {
            return Ok(Completeness::Unknown);
        };
        let Some(length) = element.length else { return Ok(Completeness::Unknown) };
        let next = end(bytes, element.value_at, length).ok_or(ENDS_EARLY)?;
        if element.tag == TRANSFER_SYNTAX_UID {
            transfer_syntax = text(&bytes[element.value_at..next]);
        }
        at = next;
    }
    let syntax = match transfer_syntax {
        Some("1.2.840.10008.1.2.1.99") => return Ok(deflated(&bytes[at..])),
        Some("1.2.840.10008.1.2") => Syntax::IMPLICIT_LITTLE,
        Some("1.2.840.10008.1.2.2") => Syntax::EXPLICIT_BIG,
        Some(_) => Syntax::EXPLICIT_LITTLE,
        None if at >= bytes.len() => return Ok(ENDS_EARLY),
        None => starts_data_set(bytes, at).unwrap_or(Syntax::EXPLICIT_LITTLE),
    };
    DataSet { bytes, at, syntax, open: Vec::new(), image: Image::default() }.walk()
}

/// A value of type UI, CS or IS without its padding.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().map(|text| text.trim_matches(['\0', ' ']))
}

/// What decides how long native Pixel Data must be (PS3.3 C.7.6.3).
#[derive(Default)]
struct Image {
    rows: Option<u16>,
    columns: Option<u16>,
    bits_allocated: Option<u16>,
    samples: Option<u16>,
    frames: Option<u64>,
    /// Chroma is stored for every other column.
    half_chroma: bool,
    pixel_data: Option<PixelData>,
}

#[derive(Clone, Copy)]
enum PixelData {
    Native { length: u32, end: usize },
    Encapsulated,
}

impl Image {
    fn native_bytes(&self) -> Option<u64> {
        let pixels = u64::from(self.rows?) * u64::from(self.columns?);
        let samples = match (self.samples.unwrap_or(1), self.half_chroma) {
            (3, true) => 2,
            (samples, _) => u64::from(samples),
        };
        let bits = pixels.checked_mul(samples)?.checked_mul(u64::from(self.bits_allocated?))?;
        Some(bits.checked_mul(self.frames.unwrap_or(1))?.div_ceil(8))
    }
}

/// A sequence, its item, or the fragments of encapsulated pixels, of undefined length and not yet closed.
#[derive(Clone, Copy)]
struct Open {
    item: bool,
    syntax: Syntax,
}

struct DataSet<'a> {
    bytes: &'a [u8],
    at: usize,
    syntax: Syntax,
    open: Vec<Open>,
    image: Image,
}

impl DataSet<'_> {
    fn walk(mut self) -> Result<Completeness, Completeness> {
        while self.at < self.bytes.len() {
            if self.open.is_empty() && self.image.pixel_data.is_some() && self.only_zeros_left() {
                break;
            }
            let syntax = self.open.last().map_or(self.syntax, |open| open.syntax);
            let in_sequence = self.open.last().is_some_and(|open| !open.item);
            match (header(self.bytes, self.at, syntax)?, in_sequence) {
                (Header::Item { length, value_at }, true) => match length {
                    Some(length) => self.at = end(self.bytes, value_at, length).ok_or(ENDS_EARLY)?,
                    None => self.descend(Open { item: true, syntax }, value_at)?,
                },
                (Header::SequenceEnd { value_at }, true) => self.ascend(value_at),
                (Header::ItemEnd { value_at }, false) if !self.open.is_empty() => self.ascend(value_at),
                (Header::Element(element), false) => self.element(&element, syntax)?,
                _ => return Err(Completeness::Unknown),
            }
        }
        if !self.open.is_empty() {
            return Ok(incomplete("the DICOM file ends inside a sequence or before the end of its fragments"));
        }
        Ok(match self.image.pixel_data {
            None => incomplete("the DICOM file ends before its pixel data"),
            Some(PixelData::Native { length, .. }) if self.image.native_bytes() > Some(u64::from(length)) => {
                incomplete("the pixel data of the DICOM file is shorter than its rows and columns")
            }
            Some(PixelData::Native { end, .. }) if end == self.at => unless_zero_tail(self.bytes),
            Some(_) if self.at < self.bytes.len() => unless_zero_tail(self.bytes),
            Some(_) => Completeness::Complete,
        })
    }

    fn only_zeros_left(&self) -> bool {
        // Looked at in full only when the next element's tag is zero, which no element's is: once.
        self.bytes[self.at..].iter().take(4).all(|&byte| byte == 0)
            && self.bytes[self.at..].iter().all(|&byte| byte == 0)
    }

    fn descend(&mut self, open: Open, value_at: usize) -> Result<(), Completeness> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Completeness::Unknown);
        }
        self.open.push(open);
        self.at = value_at;
        Ok(())
    }

    fn ascend(&mut self, value_at: usize) {
        self.open.pop();
        self.at = value_at;
    }

    fn element(&mut self, element: &Element, syntax: Syntax) -> Result<(), Completeness> {
        let top = self.open.is_empty();
        let Some(length) = element.length else {
            if top && element.tag == PIXEL_DATA {
                self.image.pixel_data = Some(PixelData::Encapsulated);
            }
            // The items of a UN of undefined length are implicit little endian (PS3.5 6.2.2).
            let syntax = if element.representation == Some(*b"UN") { Syntax::IMPLICIT_LITTLE } else { syntax };
            return self.descend(Open { item: false, syntax }, element.value_at);
        };
        let next = end(self.bytes, element.value_at, length).ok_or(ENDS_EARLY)?;
        if top {
            self.attribute(element, length, next);
        }
        self.at = next;
        Ok(())
    }

    fn attribute(&mut self, element: &Element, length: u32, next: usize) {
        let number = self.syntax.order.u16(self.bytes, element.value_at).filter(|_| length >= 2);
        let value = &self.bytes[element.value_at..next];
        match element.tag {
            ROWS => self.image.rows = number,
            COLUMNS => self.image.columns = number,
            BITS_ALLOCATED => self.image.bits_allocated = number,
            SAMPLES_PER_PIXEL => self.image.samples = number,
            NUMBER_OF_FRAMES => self.image.frames = text(value).and_then(|text| text.parse().ok()),
            PHOTOMETRIC_INTERPRETATION => self.image.half_chroma = text(value).is_some_and(|t| t.contains("422")),
            PIXEL_DATA => self.image.pixel_data = Some(PixelData::Native { length, end: next }),
            _ => {}
        }
    }
}

/// A deflated data set (PS3.5 A.5) is whole when its deflate stream is.
fn deflated(bytes: &[u8]) -> Completeness {
    let mut inflater = flate2::Decompress::new(false);
    let mut window = vec![0; 1 << 16];
    loop {
        let read = usize::try_from(inflater.total_in()).unwrap_or(usize::MAX);
        let before = (inflater.total_in(), inflater.total_out());
        let rest = bytes.get(read..).unwrap_or_default();
        match inflater.decompress(rest, &mut window, flate2::FlushDecompress::None) {
            // Zeros in place of blocks still to come may be read as the end of a block of fixed codes (RFC 1951, 3.2.6).
            Ok(flate2::Status::StreamEnd) => return unless_zero_tail(bytes),
            Ok(_) if inflater.total_out() > MAX_INFLATED_BYTES => return Completeness::Unknown,
            Ok(_) if (inflater.total_in(), inflater.total_out()) == before => break,
            Ok(_) => {}
            // Zeros in place of blocks still to come are no deflate data either.
            Err(_) => return incomplete("the deflated data set of the DICOM file is damaged or not yet written"),
        }
    }
    incomplete("the deflated data set of the DICOM file has no end")
}

#[cfg(test)]
mod tests;
