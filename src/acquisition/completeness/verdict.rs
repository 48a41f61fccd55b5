use super::{bmp, dicom, jpeg, png, tiff};

/// The shortest run of zeros at a file's end that may be blocks not yet written.
const ZERO_BLOCK_BYTES: usize = 512;

/// Shorter than any film; also what a file of a known format needs to show its signature (DICOM: 128 + 4 bytes).
const SIGNATURE_BYTES: usize = 132;

/// Whether a file is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Everything its structure announces is there.
    Complete,
    /// Nothing is missing, but it ends in zeros, as a pre-allocated file does before its last blocks are written.
    ///
    /// A film whose last rows are black looks the same, and nothing in the file tells the two apart; so such a file
    /// waits until `max_settle` has passed without a change, and is then taken for complete.
    ZeroTail,
    /// Something that its structure announces is missing.
    Incomplete {
        /// What is missing, for the refusal.
        why: &'static str,
    },
    /// No format we can walk, or one so damaged that more bytes cannot mend it: the decoder will say what is wrong.
    Unknown,
}

/// Whether `bytes`, a file's whole content, are a whole film.
///
/// The format is recognised by content: JPEG, PNG, BMP, TIFF, DICOM with or without preamble and file meta.
///
/// # Examples
/// ```
/// use landmarkd::acquisition::{Completeness, completeness};
/// assert_eq!(completeness(&[b'x'; 200]), Completeness::Unknown);
/// assert!(matches!(completeness(b"\xFF\xD8\xFF\xE0"), Completeness::Incomplete { .. }));
/// ```
#[must_use]
pub fn completeness(bytes: &[u8]) -> Completeness {
    match walk(bytes) {
        // What looks damaged may be blocks not yet written.
        Completeness::Unknown if unless_zero_tail(bytes) == Completeness::ZeroTail => Completeness::ZeroTail,
        verdict => verdict,
    }
}

fn walk(bytes: &[u8]) -> Completeness {
    if dicom::has_preamble(bytes) {
        // First of all: the preamble may make the file a TIFF too (PS3.10 7.1).
        dicom::walk(bytes)
    } else if bytes.starts_with(&jpeg::SIGNATURE) {
        jpeg::walk(bytes)
    } else if bytes.starts_with(&png::SIGNATURE) {
        png::walk(bytes)
    } else if bytes.starts_with(b"BM") {
        bmp::walk(bytes)
    } else if tiff::recognised(bytes) {
        tiff::walk(bytes)
    } else if dicom::starts_without_preamble(bytes) {
        dicom::walk(bytes)
    } else if bytes.len() < SIGNATURE_BYTES {
        incomplete("the file is shorter than any film")
    } else if bytes.iter().all(|&byte| byte == 0) {
        incomplete("the file holds nothing but zeros")
    } else {
        Completeness::Unknown
    }
}

pub(super) const fn incomplete(why: &'static str) -> Completeness {
    Completeness::Incomplete { why }
}

/// The verdict on a file whose structure is whole and whose last bytes are uncompressed pixels or unchecked data.
pub(super) fn unless_zero_tail(bytes: &[u8]) -> Completeness {
    let zeros = bytes.iter().rev().take(ZERO_BLOCK_BYTES).take_while(|&&byte| byte == 0).count();
    if zeros >= ZERO_BLOCK_BYTES { Completeness::ZeroTail } else { Completeness::Complete }
}

/// Whether [`completeness`] walks `bytes` as DICOM.
#[cfg(feature = "fuzzing")]
pub(crate) fn is_dicom(bytes: &[u8]) -> bool {
    let others: [&[u8]; 3] = [&jpeg::SIGNATURE, &png::SIGNATURE, b"BM"];
    let is_other = others.iter().any(|signature| bytes.starts_with(signature)) || tiff::recognised(bytes);
    dicom::has_preamble(bytes) || !is_other && dicom::starts_without_preamble(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_film_is_recognised_only_when_its_signature_is_there() {
        for (bytes, expected) in [
            (vec![], incomplete("the file is shorter than any film")),
            (vec![0; 4096], incomplete("the file holds nothing but zeros")),
            (vec![b'x'; 4096], Completeness::Unknown),
            (b"<html>".repeat(40), Completeness::Unknown),
        ] {
            assert_eq!(completeness(&bytes), expected, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn a_tail_is_zero_from_one_block_on() {
        let mut bytes = vec![1; 2000];
        bytes.extend([0; 511]);
        assert_eq!(unless_zero_tail(&bytes), Completeness::Complete);
        bytes.push(0);
        assert_eq!(unless_zero_tail(&bytes), Completeness::ZeroTail);
    }

    const SIGNATURES: [&[u8]; 8] = [
        b"\xFF\xD8\xFF",
        b"\x89PNG\r\n\x1A\n",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"\x08\0\x05\0CS\x0A\0",
        b"\x08\0\x05\0\x0A\0\0\0",
        b"\0\x08\0\x05CS\0\x0A",
    ];

    proptest! {
        #[test]
        fn no_bytes_make_a_walker_panic(which in 0usize..10, tail in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = SIGNATURES.get(which).map_or_else(Vec::new, |s| s.to_vec());
            if which == 8 {
                bytes = vec![0; 128];
                bytes.extend(b"DICM");
            }
            bytes.extend(tail);
            let _ = completeness(&bytes);
        }

        #[test]
        fn few_distinct_bytes_reach_deep_and_do_not_panic(
            which in 0usize..8,
            tail in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 8, 0x10, 0x28, 0xE0, 0xFE, 0xFF]), 0..600),
        ) {
            let mut bytes = SIGNATURES[which].to_vec();
            bytes.extend(tail);
            let _ = completeness(&bytes);
        }
    }
}
