//! A directory as a datastore for stackkit: probe, dump, restore, census.

mod archive;
