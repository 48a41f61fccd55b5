//! The manifest of a model bundle.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| landmarkd::fuzzing::manifest(bytes));
