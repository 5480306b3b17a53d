//! A file of the encryption, and what is encrypted.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stackkit_backup::fuzzing::age_file(bytes));
