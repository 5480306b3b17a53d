//! A manifest, as it is and with its checksum made right.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stackkit_backup::fuzzing::manifest(bytes));
