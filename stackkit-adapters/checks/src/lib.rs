//! Health checks of what is no datastore: web services, workers, ports, commands, disks, processes and connection pools; and a
//! webhook for transitions.

mod disk;
mod error;
mod exec;
mod function;
mod heartbeat;
#[cfg(feature = "http")]
mod http;
mod look;
mod name;
mod net;
mod pool;
mod process;
mod tcp;

pub use disk::DiskCheck;
pub use exec::ExecCheck;
pub use function::FnCheck;
pub use heartbeat::{Heartbeat, HeartbeatCheck};
#[cfg(feature = "http")]
pub use http::HttpCheck;
pub use pool::PoolCheck;
pub use process::ProcessCheck;
pub use tcp::TcpCheck;
