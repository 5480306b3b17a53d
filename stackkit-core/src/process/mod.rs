//! Child processes: supervised, in a group of their own, killed and reaped on drop.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> stackkit_core::Result<()> {
//! use stackkit_core::process::Tool;
//! let out = Tool::new("/bin/echo").arg("hello").output(std::time::Duration::from_secs(10)).await?;
//! assert_eq!(out, b"hello\n");
//! # Ok(())
//! # }
//! ```

mod child;
mod find;
mod stderr;
mod tool;
mod user;

pub use child::Child;
pub use find::{find_tool, path_directories};
pub use stderr::{STDERR_TAIL_BYTES, ToolStderr};
pub use tool::{OUTPUT_BYTES_MAX, Tool};
pub use user::{User, find_user, is_root};
