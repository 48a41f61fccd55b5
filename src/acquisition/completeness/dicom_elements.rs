//! Headers of DICOM data elements, items and delimiters (PS3.5 7.1, 7.5), in each transfer syntax.

use super::bytes::{Order, array};
use super::verdict::{Completeness, incomplete};

/// How a data set is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) order: Order,
    /// Whether each element states its value representation.
    pub(super) explicit: bool,
}

impl Syntax {
    pub(super) const IMPLICIT_LITTLE: Self = Self { order: Order::Little, explicit: false };
    pub(super) const EXPLICIT_LITTLE: Self = Self { order: Order::Little, explicit: true };
    pub(super) const EXPLICIT_BIG: Self = Self { order: Order::Big, explicit: true };
}

/// A length of 0xFFFFFFFF is `None`: undefined, closed by a delimiter.
pub(super) enum Header {
    Element(Element),
    Item { length: Option<u32>, value_at: usize },
    ItemEnd { value_at: usize },
    SequenceEnd { value_at: usize },
}

pub(super) struct Element {
    pub(super) tag: u32,
    pub(super) representation: Option<[u8; 2]>,
    pub(super) length: Option<u32>,
    pub(super) value_at: usize,
}

/// The longest value an implicit data set's first element (group length, character set, image type, UID) has.
const MAX_FIRST_VALUE_BYTES: u32 = 256;

/// The representations whose length is four bytes, after two reserved ones (PS3.5 table 7.1-1).
const LONG_FORM: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];
const SHORT_FORM: [&[u8; 2]; 21] = [
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
];

/// What begins at `at`.
pub(super) fn header(bytes: &[u8], at: usize, syntax: Syntax) -> Result<Header, Completeness> {
    let order = syntax.order;
    let cut = incomplete("the DICOM file ends inside a data element");
    let (Some(group), Some(number)) = (order.u16(bytes, at), order.u16(bytes, at + 2)) else { return Err(cut) };
    let tag = u32::from(group) << 16 | u32::from(number);
    if tag == 0 {
        return Err(incomplete("the DICOM file has zeros where a data element should be"));
    }
    let long = |at: usize| order.u32(bytes, at).ok_or(cut).map(|length| Some(length).filter(|&l| l != u32::MAX));
    let value_at = at + 8;
    if group == 0xFFFE {
        let length = long(at + 4)?;
        return match number {
            0xE000 => Ok(Header::Item { length, value_at }),
            0xE00D => Ok(Header::ItemEnd { value_at }),
            0xE0DD => Ok(Header::SequenceEnd { value_at }),
            _ => Err(Completeness::Unknown),
        };
    }
    if !syntax.explicit {
        return Ok(Header::Element(Element { tag, representation: None, length: long(at + 4)?, value_at }));
    }
    let Some(representation) = array::<2>(bytes, at + 4) else { return Err(cut) };
    let (length, value_at) = if LONG_FORM.contains(&&representation) {
        (long(at + 8)?, at + 12)
    } else if representation.iter().all(u8::is_ascii_uppercase) {
        (Some(u32::from(order.u16(bytes, at + 6).ok_or(cut)?)), value_at)
    } else {
        return Err(Completeness::Unknown);
    };
    Ok(Header::Element(Element { tag, representation: Some(representation), length, value_at }))
}

/// The encoding of the data set that seems to begin at `at` (with group 0002 or 0008), or `None` where none does.
pub(super) fn starts_data_set(bytes: &[u8], at: usize) -> Option<Syntax> {
    let [a, b, _, _, r0, r1] = array::<6>(bytes, at)?;
    let stated = LONG_FORM.iter().chain(&SHORT_FORM).any(|known| **known == [r0, r1]);
    let length = Order::Little.u32(bytes, at + 4)?;
    match (a, b) {
        (2 | 8, 0) if stated => Some(Syntax::EXPLICIT_LITTLE),
        (0, 2 | 8) if stated => Some(Syntax::EXPLICIT_BIG),
        (8, 0) if length <= MAX_FIRST_VALUE_BYTES && length.is_multiple_of(2) => Some(Syntax::IMPLICIT_LITTLE),
        _ => None,
    }
}
