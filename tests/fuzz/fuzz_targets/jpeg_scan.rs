//! JPEG headers, entropy-coded scans, and the decoder of 12-bit films.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| landmarkd::fuzzing::jpeg_scan(bytes));
