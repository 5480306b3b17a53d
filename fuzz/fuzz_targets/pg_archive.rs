//! Archives of PostgreSQL: header, table of contents, blocks of data, the list of contents, tar headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stackkit_postgres::fuzzing::pg_archive(bytes));
