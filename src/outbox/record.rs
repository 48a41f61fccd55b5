//! The stored form of a queued event: a version byte, a fixed header, the event's text.
//!
//! ```text
//! byte 0       format, 2
//! byte 1..33   event id
//! byte 33..41  acquisition, milliseconds since 1970, signed, little endian
//! byte 41..    the event's JSON text without sequence, epoch and historical, deflated (RFC 1951)
//! ```
//!
//! Deflated, a result takes a third of its bytes in the archive, and a page less of what an exposure may write (R42).
//! Format 1 had the text as it is; it is read on.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::OutboxError;
use crate::report::{Draft, EventId, EventKind};

const FORMAT: u8 = 2;
const FORMAT_PLAIN: u8 = 1;
const HEADER_BYTES: usize = 41;

/// The bytes to store for `draft`; its kind and sequence are the key.
pub(super) fn encode(draft: &Draft) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + draft.body.len() / 2);
    bytes.push(FORMAT);
    bytes.extend_from_slice(draft.id.as_bytes());
    bytes.extend_from_slice(&millis(draft.acquired).to_le_bytes());
    let mut deflated = DeflateEncoder::new(bytes, Compression::default());
    let written = deflated.write_all(&draft.body).and_then(|()| deflated.finish());
    written.expect("memory takes every byte")
}

/// The draft that was stored under `sequence`.
pub(super) fn decode(kind: EventKind, sequence: u64, bytes: &[u8]) -> Result<Draft, OutboxError> {
    let is_deflated = match bytes.first() {
        Some(&FORMAT) => true,
        Some(&FORMAT_PLAIN) => false,
        found => return Err(OutboxError::Format { sequence, expected: FORMAT, found: found.copied() }),
    };
    let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(OutboxError::Cut { sequence })?;
    let (id, acquired) = header[1..].split_first_chunk::<32>().ok_or(OutboxError::Cut { sequence })?;
    let acquired = acquired.first_chunk::<8>().ok_or(OutboxError::Cut { sequence })?;
    let body = if is_deflated {
        let mut text = Vec::with_capacity(4 * body.len());
        DeflateDecoder::new(body).read_to_end(&mut text).map_err(|_| OutboxError::Cut { sequence })?;
        text
    } else {
        body.to_vec()
    };
    Ok(Draft { kind, id: EventId::from_bytes(*id), acquired: from_millis(i64::from_le_bytes(*acquired)), body })
}

/// Saturates some 292 million years from 1970.
fn millis(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

fn from_millis(millis: i64) -> SystemTime {
    let distance = Duration::from_millis(millis.unsigned_abs());
    let time = if millis < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What decodes encodes to a record that decodes to the same.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(draft) = decode(EventKind::Result, 1, bytes) {
        let again = decode(EventKind::Result, 1, &encode(&draft));
        assert_eq!(again.ok().as_ref(), Some(&draft));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(acquired: SystemTime) -> Draft {
        let id = EventId::of_result("a", "b", "c");
        Draft { kind: EventKind::Result, id, acquired, body: br#"{"data":{}}"#.to_vec() }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for ms in [0, 1, -1, 1_700_000_000_123, -62_135_596_800_000, i64::MIN, i64::MAX] {
            let draft = draft(from_millis(ms));
            assert_eq!(decode(EventKind::Result, 1, &encode(&draft)).expect("ours"), draft, "{ms}");
        }
    }

    #[test]
    fn a_record_of_another_format_or_a_cut_one_is_refused() {
        let whole = encode(&draft(SystemTime::UNIX_EPOCH));
        let mut newer = whole.clone();
        newer[0] = 3;
        let error = decode(EventKind::Result, 7, &newer).expect_err("newer");
        assert!(matches!(error, OutboxError::Format { sequence: 7, expected: 2, found: Some(3) }), "{error}");
        for cut in 0..whole.len() {
            assert!(decode(EventKind::Result, 7, &whole[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_record_of_the_format_before_is_read() {
        let draft = draft(SystemTime::UNIX_EPOCH);
        let mut plain = encode(&draft)[..HEADER_BYTES].to_vec();
        plain[0] = FORMAT_PLAIN;
        plain.extend_from_slice(&draft.body);
        assert_eq!(decode(EventKind::Result, 1, &plain).expect("ours"), draft);
    }
}
