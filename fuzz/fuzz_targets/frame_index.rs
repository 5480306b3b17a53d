//! The index that closes an artifact.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stackkit_backup::fuzzing::frame_index(bytes));
