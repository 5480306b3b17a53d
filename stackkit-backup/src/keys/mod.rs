//! Keys: who can read a backup, and who is believed to have made it.
//!
//! A [`Recipient`] is public and lies beside the backups; what is encrypted to it can be read with the [`Identity`] that
//! it belongs to, which a machine that only makes backups need not have.

mod bech32;
mod command;
mod file;
mod identity;
mod identity_file;
mod recipient;
mod sign;

pub use identity::Identity;
pub use recipient::Recipient;
pub(crate) use sign::{SIGNATURE_BYTES, hex};
pub use sign::{SigningKey, TrustedKey};
