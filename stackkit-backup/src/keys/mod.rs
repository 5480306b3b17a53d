//! Keys: who can read a backup, and who is believed to have made it.

mod file;
mod sign;

pub(crate) use sign::{SIGNATURE_BYTES, hex};
pub use sign::{SigningKey, TrustedKey};
