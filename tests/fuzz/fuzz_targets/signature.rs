//! Signatures of model bundles: none passes for another bundle.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| landmarkd::fuzzing::signature(bytes));
