//! What is left of restores, and what would be done about it: plain data.

use std::fmt;

use serde::{Deserialize, Serialize};
use stackkit_core::{OneLine, ServiceId};

/// What a plan of [`Postgres::plan_recovery`](crate::Postgres::plan_recovery) or
/// [`Postgres::plan_removal_of_old`](crate::Postgres::plan_removal_of_old) is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecoveryPurpose {
    /// To finish or undo what restores that were cut short left.
    Recovery,
    /// To remove replaced databases.
    RemovalOfOld(RemoveOld),
}

/// Which replaced databases are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RemoveOld {
    /// Those whose time is over: see [`PostgresRestore::with_keep_old`](crate::PostgresRestore::with_keep_old). One that
    /// was to be kept for ever is not among them.
    #[default]
    Expired,
    /// All of them.
    All,
}

/// What a step does to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecoveryAction {
    /// Removes it.
    Drop,
    /// Lets clients connect to it again.
    Open,
    /// Gives it the name of the database that the handle is configured with.
    Rename,
}

/// One step of a [`RecoveryPlan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecoveryStep {
    /// What is done.
    pub action: RecoveryAction,
    /// To which database.
    pub database: String,
    /// The server's own number of it: another database of that name is left alone.
    pub oid: String,
    /// Its size in bytes, if this role may ask for it.
    pub size_bytes: Option<u64>,
    /// Why.
    pub reason: String,
}

impl RecoveryStep {
    /// Whether both do the same to the same database.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.action, &self.database, &self.oid) == (other.action, &other.database, &other.oid)
    }
}

impl fmt::Display for RecoveryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.action {
            RecoveryAction::Drop => "drop",
            RecoveryAction::Open => "open",
            RecoveryAction::Rename => "name back",
        };
        write!(f, "{verb} database {}", OneLine(&self.database))?;
        if let Some(bytes) = self.size_bytes {
            write!(f, " ({bytes} bytes)")?;
        }
        write!(f, ": {}", OneLine(&self.reason))
    }
}

/// What would be done about the databases that restores left. Plain data that can be shown, stored and applied later.
///
/// It carries a fingerprint of these databases. A plan is refused if one of them changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecoveryPlan {
    /// The service whose database it is about.
    pub service: ServiceId,
    /// What it is for.
    pub purpose: RecoveryPurpose,
    /// What the databases were when the plan was made.
    pub fingerprint: String,
    /// The steps, in order; none if there is nothing to do.
    pub steps: Vec<RecoveryStep>,
    /// What is left alone, and why: a restore that runs, a database that may hold the latest data.
    pub notes: Vec<String>,
}

impl fmt::Display for RecoveryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if self.steps.is_empty() {
            write!(f, ": nothing to do")?;
        }
        for step in &self.steps {
            write!(f, "\n  {step}")?;
        }
        for note in &self.notes {
            write!(f, "\n  note: {}", OneLine(note))?;
        }
        Ok(())
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The service whose database it is about.
    pub service: ServiceId,
    /// The steps that were carried out: all of the plan.
    pub done: Vec<RecoveryStep>,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} steps done", self.service, self.done.len())?;
        for step in &self.done {
            write!(f, "\n  {step}")?;
        }
        Ok(())
    }
}
