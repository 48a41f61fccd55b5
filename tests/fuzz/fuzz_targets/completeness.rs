//! Every walker of completeness on any bytes: none panics, and a whole film stays whole whatever is appended to it.
#![no_main]

use landmarkd::acquisition::{Completeness, completeness};
use libfuzzer_sys::fuzz_target;

// The first two bytes say where the rest is cut.
fuzz_target!(|input: &[u8]| {
    let Some((&[high, low], bytes)) = input.split_first_chunk() else { return };
    let cut = usize::from(u16::from_be_bytes([high, low])) % (bytes.len() + 1);
    let (early, late) = (completeness(&bytes[..cut]), completeness(bytes));
    // All but DICOM, whose elements may go on behind the pixels, end with their image: what was whole needs no more.
    let is_dicom = [cut, bytes.len()].iter().any(|&end| landmarkd::fuzzing::is_dicom(&bytes[..end]));
    if early == Completeness::Complete && !is_dicom {
        assert!(!matches!(late, Completeness::Incomplete { .. }), "whole at {cut} bytes, then {late:?}");
    }
});
