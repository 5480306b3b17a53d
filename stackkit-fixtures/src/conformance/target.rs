//! What an adapter tells the suite of its store.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use stackkit_core::backup::ArtifactInfo;
use stackkit_core::{Result, Secret, Service};

/// What a store can do; scenarios that need more are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// It has a health check.
    Health,
    /// It has a backup provider.
    Backup,
    /// It is reached over TCP, so it can be refused, and swallowed by a black hole.
    Network,
    /// It asks for a password.
    Password,
    /// The vendor has a tool that reads an artifact without a server.
    VendorTool,
    /// Its artifacts carry a checksum of their own over all bytes.
    Checksum,
}

/// What to put into an empty store. The same seed gives the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seed {
    /// Nothing.
    Empty,
    /// Some objects of every kind that the store has; at least 256 KiB, so that a dump takes several writes.
    Small,
    /// Names and values of all of Unicode, of zero bytes and of bytes that are no text; the empty value.
    UnicodeAndBinary,
}

/// How a handle is made unable to work.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is where it looks: a refused address, a missing directory.
    Absent,
    /// It knows another password.
    WrongPassword(Secret),
    /// It talks to this address.
    Address(SocketAddr),
}

/// A store that the suite can make as many of as it needs.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// The store's name, as `STACKKIT_REQUIRE` spells it: `redis`.
    fn name(&self) -> &'static str;

    /// The first word of its findings' codes: its name, unless overridden.
    fn code_prefix(&self) -> &'static str {
        self.name()
    }

    /// What it can do.
    fn capabilities(&self) -> Vec<Capability>;

    /// An empty store that nobody else uses, gone when it is dropped.
    ///
    /// # Errors
    /// `ToolMissing` if its server is not installed; the trial is then ignored, or failed if it is required.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing.
    async fn instance(&self) -> Result<Box<dyn Instance>>;
}

/// One private store.
#[async_trait]
pub trait Instance: Send + Sync {
    /// A handle on it, with connections of its own.
    fn service(&self) -> Arc<dyn Service>;

    /// A handle that can't work, if the store has that fault.
    fn faulty(&self, fault: &Fault) -> Option<Arc<dyn Service>>;

    /// The password that [`Instance::service`] uses, if it uses one.
    fn password(&self) -> Option<Secret> {
        None
    }

    /// Fills the empty store.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Cancel safety
    /// Some of it may have been written.
    async fn seed(&self, seed: Seed) -> Result<()>;

    /// Changes something that was seeded: adds one object.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Cancel safety
    /// It may have been changed.
    async fn change(&self) -> Result<()>;

    /// Removes everything.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Cancel safety
    /// Some of it may have been removed.
    async fn wipe(&self) -> Result<()>;

    /// A hash of all that the store holds, taken by other means than the adapter's.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn content(&self) -> Result<String>;

    /// How many connections, locks or snapshots the store holds for handles, as the store itself tells.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn held(&self) -> Result<u64>;

    /// Lets the vendor's tool read the artifact that was written to `file`, if the vendor has one. The other artifacts of
    /// the dump are in the same folder.
    ///
    /// # Errors
    /// `ToolFailed` if the tool refuses it.
    ///
    /// # Cancel safety
    /// Dropping the future ends the tool.
    async fn vendor_reads(&self, artifact: &ArtifactInfo, file: &Path) -> Result<()> {
        let _ = (artifact, file);
        Ok(())
    }
}
