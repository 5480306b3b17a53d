//! The cases, by what they are about.

pub(crate) mod backup;
pub(crate) mod chain;
pub(crate) mod copy;
pub(crate) mod damage;
pub(crate) mod encrypted;
pub(crate) mod faults;
pub(crate) mod flips;
pub(crate) mod freshness;
pub(crate) mod golden;
pub(crate) mod hooks;
pub(crate) mod killed;
pub(crate) mod lease;
#[cfg(feature = "s3")]
pub(crate) mod locks;
pub(crate) mod matrix;
pub(crate) mod model;
pub(crate) mod progress;
pub(crate) mod restore;
pub(crate) mod retention;
#[cfg(feature = "s3")]
pub(crate) mod s3;
pub(crate) mod schedule;
pub(crate) mod stream;
pub(crate) mod trust;
pub(crate) mod verify;
pub(crate) mod zeros;
