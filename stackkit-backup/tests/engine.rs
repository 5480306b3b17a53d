//! The engine against storages that fail and repositories that are damaged.
fn main() {}
