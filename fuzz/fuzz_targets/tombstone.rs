//! The announcement of a deletion.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stackkit_backup::fuzzing::tombstone(bytes));
