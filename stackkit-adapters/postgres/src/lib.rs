//! PostgreSQL for stackkit: probe, dump, restore, census.
