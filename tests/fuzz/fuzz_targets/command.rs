//! Requests over MQTT: where answers go, and that they say what happens.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| landmarkd::fuzzing::command(bytes));
