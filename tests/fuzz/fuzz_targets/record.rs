//! Stored records of the outbox, and that what is encoded decodes to itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| landmarkd::fuzzing::record(bytes));
