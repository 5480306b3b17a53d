//! Redis for stackkit: probe, dump, restore, census.
