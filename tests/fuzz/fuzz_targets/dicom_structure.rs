//! The element structure of DICOM data sets, and the headers of compressed images in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| landmarkd::fuzzing::dicom_structure(bytes));
