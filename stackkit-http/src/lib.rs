#![doc = include_str!("../README.md")]

mod json;
mod router;
mod status;
mod text;

pub use json::HEALTH_SCHEMA;
pub use router::{Details, RouterOptions, router, router_with};
