//! Where the data set starts and how it is written (PS3.10 7.1), with or without file meta information.

use std::borrow::Cow;
use std::io::Read;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::{Codec, DataRWAdapter, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::{TransferSyntax, TransferSyntaxRegistry, entries};

use super::attributes::wrong;
use super::structure::{Encoding, Header};
use crate::radiograph::{DecodeError, Format, Limits};

/// A file's data set and how to read it.
pub(super) struct File<'a> {
    /// The transfer syntax, as the file states it or as the data set looks.
    pub(super) syntax: &'static TransferSyntax,
    /// Its element encoding.
    pub(super) encoding: Encoding,
    /// The data set, inflated where it was deflated.
    pub(super) data_set: Cow<'a, [u8]>,
}

impl<'a> File<'a> {
    /// Reads the file meta information, or guesses the transfer syntax where there is none.
    pub(super) fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        let preamble = if bytes.get(128..132) == Some(b"DICM") { 132 } else { 0 };
        let bytes = &bytes[preamble..];
        if !is_file_meta(bytes) {
            let encoding = guess(bytes).ok_or_else(|| {
                DecodeError::damaged(Format::Dicom, "expected file meta information or a data set after the preamble")
            })?;
            return Ok(Self { syntax: encoding.syntax(), encoding, data_set: Cow::Borrowed(bytes) });
        }
        let (syntax, start) = file_meta(bytes)?;
        let encoding = Encoding::of(syntax);
        let rest = &bytes[start..];
        let data_set = match syntax.codec() {
            Codec::Dataset(Some(adapter)) => Cow::Owned(inflate(rest, adapter.as_ref(), limits)?),
            Codec::Dataset(None) => return Err(unsupported(syntax)),
            _ => Cow::Borrowed(rest),
        };
        Ok(Self { syntax, encoding, data_set })
    }
}

impl Encoding {
    /// The encoding of a transfer syntax; all but two are explicit little endian.
    fn of(syntax: &TransferSyntax) -> Self {
        let plain = [Self::ImplicitLittle, Self::ExplicitBig];
        plain.into_iter().find(|encoding| encoding.uid() == syntax.uid()).unwrap_or(Self::ExplicitLittle)
    }

    /// The transfer syntax that says nothing but this.
    pub(super) fn syntax(self) -> &'static TransferSyntax {
        registered(self.uid()).expect("the registry has the three plain syntaxes")
    }

    fn uid(self) -> &'static str {
        match self {
            Self::ImplicitLittle => entries::IMPLICIT_VR_LITTLE_ENDIAN.uid(),
            Self::ExplicitLittle => entries::EXPLICIT_VR_LITTLE_ENDIAN.uid(),
            Self::ExplicitBig => entries::EXPLICIT_VR_BIG_ENDIAN.uid(),
        }
    }
}

/// That a transfer syntax cannot be read here.
pub(super) fn unsupported(syntax: &TransferSyntax) -> DecodeError {
    DecodeError::unsupported(Format::Dicom, format!("the transfer syntax {} ({})", syntax.name(), syntax.uid()))
}

/// Whether `bytes` may start a DICOM file without preamble: file meta information or a data set.
///
/// A data set starts with group 0008, in practice with one of its first elements.
pub(in crate::radiograph) fn looks_like_a_data_set(bytes: &[u8]) -> bool {
    is_file_meta(bytes) || guess(bytes).is_some()
}

fn is_file_meta(bytes: &[u8]) -> bool {
    Header::read(bytes, 0, Encoding::ExplicitLittle).is_ok_and(|header| header.tag.0 == 0x0002)
}

fn guess(bytes: &[u8]) -> Option<Encoding> {
    // Explicit first: two letters of a VR would be an implicit length of more than 16,000.
    [Encoding::ExplicitLittle, Encoding::ExplicitBig, Encoding::ImplicitLittle].into_iter().find(|&encoding| {
        Header::read(bytes, 0, encoding).is_ok_and(|header| {
            let Tag(group, element) = header.tag;
            group == 0x0008 && element <= 0x0070 && header.value(bytes).is_ok_and(|value| value.len() <= 1024)
        })
    })
}

/// The transfer syntax and where the data set starts.
fn file_meta(bytes: &[u8]) -> Result<(&'static TransferSyntax, usize), DecodeError> {
    let mut at = 0;
    let mut syntax = None;
    while let Ok(header) = Header::read(bytes, at, Encoding::ExplicitLittle)
        && header.tag.0 == 0x0002
    {
        if header.tag == tags::TRANSFER_SYNTAX_UID {
            let uid = std::str::from_utf8(header.value(bytes)?).unwrap_or_default().trim_matches([' ', '\0']);
            syntax =
                Some(registered(uid).ok_or_else(|| wrong(header.tag, "a transfer syntax of PS3.5", "an unknown UID"))?);
        }
        at = header.end(bytes)?;
    }
    Ok((syntax.ok_or_else(|| wrong(tags::TRANSFER_SYNTAX_UID, "a value", "none"))?, at))
}

fn registered(uid: &str) -> Option<&'static TransferSyntax> {
    TransferSyntaxRegistry.get(uid)
}

fn inflate(
    deflated: &[u8],
    adapter: &(dyn DataRWAdapter + Send + Sync),
    limits: &Limits,
) -> Result<Vec<u8>, DecodeError> {
    let limit = limits.max_alloc_bytes.saturating_sub(deflated.len() as u64);
    let mut data_set = Vec::new();
    adapter
        .adapt_reader(Box::new(deflated))
        .take(limit.saturating_add(1))
        .read_to_end(&mut data_set)
        .map_err(|_| DecodeError::damaged(Format::Dicom, "expected a deflated data set, found a damaged one"))?;
    if data_set.len() as u64 > limit {
        let needed = limits.max_alloc_bytes.saturating_add(1);
        return Err(DecodeError::TooMuchMemory { format: Format::Dicom, needed, limit: limits.max_alloc_bytes });
    }
    Ok(data_set)
}
