//! Restore is plan, then apply.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::backup::{ArtifactName, Census, CensusDifference};
use crate::clock::Clock;
use crate::error::OneLine;
use crate::service::ServiceId;

/// What to do with the data that a restore replaces, where the store can keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OldData {
    /// Keep it under a name that the report gives.
    #[default]
    Keep,
    /// Remove it after the swap.
    Remove,
}

/// What the caller of a restore wants.
///
/// ```
/// use stackkit_core::backup::{OldData, RestoreOptions};
/// let options = RestoreOptions::new().only(["postgres"]).with_old_data(OldData::Remove);
/// assert!(options.includes("postgres") && !options.includes("cache"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// The services to restore; `None` is all that the backup and the stack have in common.
    pub only: Option<Vec<String>>,
    /// What becomes of the replaced data; [`OldData::Keep`] unless set.
    pub old_data: OldData,
}

impl RestoreOptions {
    /// All services, old data kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Restores only the services with these ids.
    #[must_use]
    pub fn only<I, T>(mut self, services: I) -> Self
    where
        I: IntoIterator<Item = T>,
        T: Into<String>,
    {
        self.only = Some(services.into_iter().map(Into::into).collect());
        self
    }

    /// Sets what becomes of the replaced data.
    #[must_use]
    pub fn with_old_data(mut self, old_data: OldData) -> Self {
        self.old_data = old_data;
        self
    }

    /// Whether the service with this id is wanted.
    #[must_use]
    pub fn includes(&self, service: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == service))
    }
}

/// What a step of a restore does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestoreAction {
    /// The object does not exist and will.
    Create,
    /// The object's content is replaced.
    Overwrite,
    /// The object is removed.
    Drop,
    /// The object gets another name.
    Rename,
}

impl RestoreAction {
    /// Whether data that exists is lost or moved by it.
    #[must_use]
    pub fn is_destructive(self) -> bool {
        !matches!(self, Self::Create)
    }
}

impl fmt::Display for RestoreAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Overwrite => "overwrite",
            Self::Drop => "drop",
            Self::Rename => "rename",
        })
    }
}

/// One step of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedAction {
    /// What is done.
    pub action: RestoreAction,
    /// To what: `database shop`, `keys of db 0`, `directory /srv/uploads`.
    pub object: String,
    /// The size of what is there, in bytes, if known.
    pub size_bytes: Option<u64>,
}

impl PlannedAction {
    /// A step without a known size.
    pub fn new(action: RestoreAction, object: impl Into<String>) -> Self {
        Self { action, object: object.into(), size_bytes: None }
    }

    /// Sets the size of what is there.
    #[must_use]
    pub fn with_size_bytes(mut self, size_bytes: u64) -> Self {
        self.size_bytes = Some(size_bytes);
        self
    }
}

impl fmt::Display for PlannedAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, OneLine(&self.object))?;
        match self.size_bytes {
            Some(bytes) => write!(f, " ({bytes} bytes)"),
            None => Ok(()),
        }
    }
}

/// What a restore of one service would do: plain data that can be shown, stored and applied later.
///
/// It carries a fingerprint of the target. A plan whose target changed since is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The service that is restored.
    pub service: ServiceId,
    /// Its kind.
    pub kind: String,
    /// What the target was when the plan was made; its meaning is the adapter's.
    pub fingerprint: String,
    /// The artifacts that are read.
    pub artifacts: Vec<ArtifactName>,
    /// The steps, in order.
    pub actions: Vec<PlannedAction>,
    /// What the reader of the plan should know.
    pub warnings: Vec<String>,
    /// What is needed and not there: a plan with entries here is refused by `restore`.
    pub missing: Vec<String>,
    /// What becomes of the replaced data.
    pub old_data: OldData,
    /// The adapter's own decisions, such as the name under which old data is kept.
    pub details: BTreeMap<String, String>,
}

impl RestorePlan {
    /// An empty plan for a target that looks like `fingerprint`.
    pub fn new(service: ServiceId, kind: impl Into<String>, fingerprint: impl Into<String>) -> Self {
        Self {
            service,
            kind: kind.into(),
            fingerprint: fingerprint.into(),
            artifacts: Vec::new(),
            actions: Vec::new(),
            warnings: Vec::new(),
            missing: Vec::new(),
            old_data: OldData::Keep,
            details: BTreeMap::new(),
        }
    }

    /// Whether data that exists is replaced, moved or removed.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        self.actions.iter().any(|step| step.action.is_destructive())
    }
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.service, self.kind)?;
        for action in &self.actions {
            writeln!(f, "  {action}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {}", OneLine(warning))?;
        }
        for missing in &self.missing {
            writeln!(f, "  missing: {}", OneLine(missing))?;
        }
        Ok(())
    }
}

/// What the engine tells a restore.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RestoreContext {
    /// Where time comes from.
    pub clock: Clock,
    /// The census of the dump: the new data must equal it before the old data goes. `None` skips the comparison.
    pub expected: Option<Census>,
}

impl RestoreContext {
    /// A context with the system's clock that compares nothing.
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

    /// Compares the new data with `census`.
    #[must_use]
    pub fn with_expected(mut self, census: Census) -> Self {
        self.expected = Some(census);
        self
    }
}

/// Which data a target holds after a restore, a failed one above all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// The data that was there before, untouched.
    Old,
    /// The restored data, complete.
    New,
    /// Neither: some of the restored data.
    Partial,
    /// Wholly the old or wholly the restored data: the store was lost in its last step and can't be asked which.
    Unknown,
}

impl TargetState {
    /// The state as the word that messages print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
            Self::Partial => "partial",
            Self::Unknown => "unknown",
        }
    }
}

/// What a restore of one service reports at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The service that was restored.
    pub service: ServiceId,
    /// Counts of what the target holds.
    pub census: Census,
    /// Counts of what the dump has and the target rightly does not: keys that had expired since. Empty in most restores.
    #[serde(default)]
    pub left_out: Census,
    /// Whether only a chosen part of the dump was restored, or what was restored stands beside other data: the census of the
    /// dump says nothing of the whole target then. The provider compared what it restored.
    #[serde(default)]
    pub is_part: bool,
    /// Where the replaced data is kept, if it is: a database or directory name.
    pub old_data_kept_as: Option<String>,
    /// What the reader of the report should know: keys that had expired, owners that could not be set.
    pub warnings: Vec<String>,
}

impl RestoreReport {
    /// A report of a target that holds `census`.
    #[must_use]
    pub fn new(service: ServiceId, census: Census) -> Self {
        Self { service, census, left_out: Census::new(), is_part: false, old_data_kept_as: None, warnings: Vec::new() }
    }

    /// Says what the dump has and the target rightly does not.
    #[must_use]
    pub fn with_left_out(mut self, left_out: Census) -> Self {
        self.left_out = left_out;
        self
    }

    /// Says whether only a chosen part was restored, or stands beside other data, and was compared by the provider.
    #[must_use]
    pub fn with_part(mut self, is_part: bool) -> Self {
        self.is_part = is_part;
        self
    }

    /// Where the target does not hold what the census of the dump, `expected`, says: what was left out rightly is no
    /// difference. Nothing if only a part was restored.
    ///
    /// ```
    /// use stackkit_core::{Census, ServiceId};
    /// use stackkit_core::backup::RestoreReport;
    /// let dumped = Census::new().with_count("keys.0", 3);
    /// let report = RestoreReport::new(ServiceId::new("cache").unwrap(), Census::new().with_count("keys.0", 2));
    /// assert_eq!(report.differences(&dumped).len(), 1);
    /// assert!(report.clone().with_part(true).differences(&dumped).is_empty());
    /// assert!(report.with_left_out(Census::new().with_count("keys.0", 1)).differences(&dumped).is_empty());
    /// ```
    #[must_use]
    pub fn differences(&self, expected: &Census) -> Vec<CensusDifference> {
        if self.is_part {
            return Vec::new();
        }
        let mut found = self.census.clone();
        self.left_out.counts.iter().for_each(|(name, count)| found.add(name, *count));
        expected.diff(&found)
    }

    /// Says where the replaced data is kept.
    #[must_use]
    pub fn with_old_data_kept_as(mut self, name: impl Into<String>) -> Self {
        self.old_data_kept_as = Some(name.into());
        self
    }

    /// Adds warnings.
    #[must_use]
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }
}
