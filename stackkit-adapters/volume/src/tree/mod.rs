//! Directory trees: walked in one fixed order, read, written without leaving the target, swapped.

mod chunks;
mod file;
mod links;
mod meta;
mod names;
mod place;
mod remove;
mod reserved;
mod seal;
mod swap;
mod walk;
mod warnings;

pub(crate) use chunks::{CHUNK_BYTES, Chunks};
pub(crate) use file::{file_xattrs, hash_file, hash_zeros, holes, read_at};
pub(crate) use links::{Links, Node};
pub(crate) use meta::Meta;
pub(crate) use place::{Placer, components};
pub(crate) use swap::{Outcome, Staging, Strategy, left_overs};
pub(crate) use walk::{FileAccess, Found, Walk};
pub(crate) use warnings::Warnings;

/// The deepest nesting of directories that is walked or written. Each level holds a file descriptor open, and 1024
/// is the usual limit of a process.
pub(crate) const DEPTH_MAX: usize = 512;

/// What is said of a tree beyond [`DEPTH_MAX`].
const TOO_DEEP: &str = "directories are nested deeper than 512 levels";
