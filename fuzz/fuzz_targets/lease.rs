//! The record of a lease.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stackkit_backup::fuzzing::lease(bytes));
