#![doc = include_str!("../README.md")]

mod bodies;
pub mod catalogue;
mod events;
#[cfg(feature = "grpc")]
mod grpc;
mod health;
mod metrics;
mod options;
mod query;
mod respond;
mod router;
mod status;
mod text;

pub use events::STATUS_EVENTS_CLIENTS_MAX;
#[cfg(feature = "grpc")]
pub use grpc::{GRPC_WATCHERS_MAX, GrpcHealth, grpc_service};
pub use health::HEALTH_SCHEMA;
pub use options::{Details, RouterOptions};
pub use router::{operator_router, router, router_with};
