//! Redis for stackkit: probe, dump, restore, census.

pub mod rdb;
mod resp;
