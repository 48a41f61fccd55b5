//! Archives of model bundles: what is unpacked stays in its folder, and is small.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| landmarkd::fuzzing::archive(bytes));
