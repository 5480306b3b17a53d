//! An artifact: any bytes, and a written one with some of its bytes changed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stackkit_backup::fuzzing::artifact_reader(bytes));
