//! The configuration: its text, its checks, and that what is printed of it reads back.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| landmarkd::fuzzing::config(bytes));
