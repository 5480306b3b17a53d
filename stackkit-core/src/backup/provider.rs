//! What a datastore offers to the backup engine.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::{
    ArtifactInfo, ArtifactReader, ArtifactSink, ArtifactSource, Census, RestoreContext, RestoreOptions, RestorePlan,
    RestoreReport,
};
use crate::clock::Clock;
use crate::error::Result;
use crate::service::Service;

/// A datastore that can be dumped and restored in its vendor's own format.
#[async_trait]
pub trait BackupProvider: Service {
    /// Pins the point in time and returns fast: within 1 s on an idle server.
    ///
    /// What it holds (a snapshot, a lock, a replication connection) is released when the [`Dump`] is run or
    /// dropped, and even when this process is killed.
    ///
    /// # Errors
    /// `ToolMissing` before anything is pinned; the kinds of connecting; `PermissionDenied`.
    ///
    /// # Cancel safety
    /// Dropping the future releases everything.
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>>;

    /// Reads one artifact to its end and parses it as the vendor would, without a server.
    ///
    /// # Errors
    /// `Integrity` if the vendor would refuse it; `Unsupported` for a format of another provider.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    async fn inspect(&self, artifact: &ArtifactInfo, data: ArtifactReader) -> Result<Inspection>;

    /// Says what a restore would do. Changes nothing.
    ///
    /// # Errors
    /// The kinds of connecting; `Incompatible` if the artifacts can't be restored here at all.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    async fn plan_restore(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan>;

    /// Carries out a plan. Until its last step the old data is intact, wherever the store can do that.
    ///
    /// Without a plan there is no restore:
    /// ```compile_fail,E0061
    /// # use stackkit_core::backup::{ArtifactSource, BackupProvider, RestoreContext};
    /// # async fn overwrite(provider: &dyn BackupProvider, source: &dyn ArtifactSource) -> stackkit_core::Result<()> {
    /// provider.restore(source, &RestoreContext::new()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Incompatible` if the target changed since the plan was made. Every error of a restore carries a
    /// [`TargetState`](crate::backup::TargetState): which data the target holds.
    ///
    /// # Cancel safety
    /// Dropping the future ends children and connections; the target then holds what the documentation of the
    /// adapter says. Safe to call again with a fresh plan.
    async fn restore(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport>;

    /// Counts what the live store holds; cheap enough to run after each restore.
    ///
    /// # Errors
    /// The kinds of connecting and reading.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    async fn census(&self) -> Result<Census>;
}

/// A dump whose point in time is pinned and whose bytes have not moved yet.
#[async_trait]
pub trait Dump: Send {
    /// The point that [`BackupProvider::begin`] pinned.
    fn point(&self) -> &PointInTime;

    /// Streams vendor-native, uncompressed bytes in constant memory; may write several artifacts at once.
    ///
    /// # Errors
    /// Any failure of the source, one after the last byte included. Artifacts that were finished before it may be in the
    /// sink: they belong to no backup, as only the report tells that a dump is whole, and who made the sink removes them.
    /// One that was still being written is not finished.
    ///
    /// # Cancel safety
    /// Dropping the future ends children and connections. What is in the sink then is as after an error.
    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport>;
}

/// What the engine tells a dump.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DumpContext {
    /// Where time comes from.
    pub clock: Clock,
}

impl DumpContext {
    /// A context with the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes time from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

/// How the parts of a dump belong together in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Consistency {
    /// Everything is of one moment.
    Snapshot,
    /// Each object is whole, but they are of different moments while the dump ran.
    PerObject,
}

/// The moment that a dump shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointInTime {
    /// Wall-clock time at which it was pinned.
    pub taken_at: Timestamp,
    /// The vendor's own position: an LSN, a replication offset.
    pub position: Option<String>,
    /// How the parts belong together.
    pub consistency: Consistency,
}

impl PointInTime {
    /// A point without a vendor position.
    #[must_use]
    pub fn new(taken_at: Timestamp, consistency: Consistency) -> Self {
        Self { taken_at, position: None, consistency }
    }

    /// Sets the vendor's position.
    #[must_use]
    pub fn with_position(mut self, position: impl Into<String>) -> Self {
        self.position = Some(position.into());
        self
    }
}

/// Which vendor software made a dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VendorInfo {
    /// The vendor's name for the store, such as `PostgreSQL`.
    pub name: String,
    /// The version of the server.
    pub server_version: Option<String>,
    /// The vendor tool that was used, if one was.
    pub tool: Option<String>,
    /// Its version.
    pub tool_version: Option<String>,
}

impl VendorInfo {
    /// A vendor of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets the server's version.
    #[must_use]
    pub fn with_server_version(mut self, version: impl Into<String>) -> Self {
        self.server_version = Some(version.into());
        self
    }

    /// Sets the tool and its version.
    #[must_use]
    pub fn with_tool(mut self, tool: impl Into<String>, version: impl Into<String>) -> Self {
        self.tool = Some(tool.into());
        self.tool_version = Some(version.into());
        self
    }
}

/// What a dump reports at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DumpReport {
    /// Counts of exactly what was dumped.
    pub census: Census,
    /// What the reader of the report should know: a file that was skipped, a count that is missing.
    pub warnings: Vec<String>,
    /// Which software made it.
    pub vendor: VendorInfo,
}

impl DumpReport {
    /// A report without warnings.
    #[must_use]
    pub fn new(census: Census, vendor: VendorInfo) -> Self {
        Self { census, warnings: Vec::new(), vendor }
    }

    /// Adds warnings.
    #[must_use]
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }
}

/// What parsing an artifact found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inspection {
    /// How many entries, records or members it holds.
    pub entries: u64,
    /// Counts that could be taken without a server.
    pub census: Census,
    /// What is odd but not wrong.
    pub warnings: Vec<String>,
}

impl Inspection {
    /// An inspection that found `entries` entries.
    #[must_use]
    pub fn new(entries: u64) -> Self {
        Self { entries, ..Self::default() }
    }

    /// Sets the counts.
    #[must_use]
    pub fn with_census(mut self, census: Census) -> Self {
        self.census = census;
        self
    }

    /// Adds warnings.
    #[must_use]
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }
}
