//! What a prune would do.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, Result};

use super::planner::SummaryState;
use super::policy::{Period, Retention};
use crate::id::BackupId;
use crate::run::format_bytes;

/// What is done with a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RetentionAction {
    /// It stays as it is.
    Keep,
    /// Its deletion is announced, or done if the grace of the announcement has passed.
    Delete,
}

impl fmt::Display for RetentionAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Delete => "delete",
        })
    }
}

/// Why a backup is kept or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RetentionReason {
    /// It is among the newest.
    Last {
        /// Its place, from 1.
        place: usize,
        /// How many are kept.
        of: usize,
    },
    /// It is the newest of a period that is kept.
    Slot {
        /// The kind of the period.
        period: Period,
        /// Which one.
        slot: String,
    },
    /// It is not much older than the newest.
    Within {
        /// How much older it may be.
        span: String,
    },
    /// It is the newest of a period that is not much older than the newest backup.
    SlotWithin {
        /// The kind of the period.
        period: Period,
        /// Which one.
        slot: String,
        /// How much older it may be.
        span: String,
    },
    /// It has a tag that is kept.
    Tag {
        /// The tag.
        tag: String,
    },
    /// It was named.
    Id,
    /// It is its stack's newest complete backup, which is never deleted.
    LastComplete,
    /// It is its stack's newest backup whose content was checked and found good, which is never deleted.
    NewestVerified,
    /// It is dated in the future: it takes no place, and its time can't be judged.
    Future,
    /// Its manifest can't be used, so nothing is known of it.
    Unusable {
        /// Why.
        message: String,
    },
    /// The storage keeps it from being deleted.
    Locked {
        /// Until when.
        until: Timestamp,
    },
    /// It is partial, and no complete backup of its stack is newer.
    NewerThanComplete,
    /// Its deletion is announced in a way that can't be trusted.
    UnusableTombstone {
        /// Why.
        message: String,
    },
    /// It is partial: it takes no place, and there is a newer complete backup.
    Partial,
    /// Its deletion was announced.
    Announced {
        /// When it may be deleted.
        purge_after: Timestamp,
    },
    /// No rule keeps it.
    NoRule,
}

impl RetentionReason {
    /// Whether it is a reason to keep a backup. One is enough.
    #[must_use]
    pub fn keeps(&self) -> bool {
        !matches!(self, Self::Partial | Self::Announced { .. } | Self::NoRule)
    }
}

impl fmt::Display for RetentionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last { place, of } => write!(f, "last {place} of {of}"),
            Self::Slot { period, slot } => write!(f, "{period} slot {slot}"),
            Self::Within { span } => write!(f, "within {span}"),
            Self::SlotWithin { period, slot, span } => write!(f, "{period} slot {slot} within {span}"),
            Self::Tag { tag } => write!(f, "tag {tag}"),
            Self::Id => f.write_str("named by its id"),
            Self::LastComplete => f.write_str("the last complete backup"),
            Self::NewestVerified => f.write_str("the newest verified backup"),
            Self::Future => f.write_str("dated in the future"),
            Self::Unusable { message } => write!(f, "its manifest can't be used: {message}"),
            Self::Locked { until } => write!(f, "locked until {until}"),
            Self::NewerThanComplete => f.write_str("partial, and no complete backup is newer"),
            Self::UnusableTombstone { message } => write!(f, "its tombstone can't be trusted: {message}"),
            Self::Partial => f.write_str("partial: never counts"),
            Self::Announced { purge_after } => write!(f, "announced, to be purged after {purge_after}"),
            Self::NoRule => f.write_str("no rule keeps it"),
        }
    }
}

/// What a prune would do with one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RetentionDecision {
    /// The backup.
    pub backup: BackupId,
    /// Its stack.
    pub stack: String,
    /// What is there.
    pub state: SummaryState,
    /// When it began.
    pub started: Timestamp,
    /// The bytes of its artifacts in the storage; 0 if its manifest can't be used.
    pub stored_bytes: u64,
    /// The BLAKE3 of the manifest that the decision was made from; `None` if it can't be used.
    pub manifest_blake3: Option<String>,
    /// Whether its deletion was announced before.
    pub announced: bool,
    /// What is done.
    pub action: RetentionAction,
    /// All reasons for it, never none. Reasons to keep stand beside those to delete if it is kept in spite of them.
    pub reasons: Vec<RetentionReason>,
}

/// What a plan does to a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RetentionTotals {
    /// How many backups are kept, of those whose deletion was not announced before.
    pub kept: usize,
    /// How many deletions this plan announces.
    pub announced: usize,
    /// How many were announced before.
    pub pending: usize,
    /// The stored bytes of all that is deleted sooner or later.
    pub deleted_bytes: u64,
}

impl RetentionTotals {
    /// Whether more than half of the backups that were not announced before are deleted.
    #[must_use]
    pub fn needs_force(&self) -> bool {
        self.announced > self.kept
    }
}

/// What a prune would do, backup by backup: plain data that can be shown, stored and applied later. `Display` prints a
/// table.
///
/// It is tied to the bytes of each manifest. [`Repository::apply_retention`](crate::Repository::apply_retention) looks
/// at the repository again, and deletes only what the plan *and* the same policy at that moment delete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[must_use = "a plan deletes nothing until it is applied"]
#[non_exhaustive]
pub struct RetentionPlan {
    /// The repository that it was made from.
    pub repository: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// The rules.
    pub policy: Retention,
    /// Each backup, by stack and then newest first.
    pub decisions: Vec<RetentionDecision>,
    /// The BLAKE3 over all of the above: a plan that was stored is applied as it was shown, or not at all.
    pub fingerprint: String,
    forced: bool,
}

impl RetentionPlan {
    pub(super) fn new(
        repository: String,
        made_at: Timestamp,
        policy: Retention,
        decisions: Vec<RetentionDecision>,
    ) -> Result<Self> {
        let mut plan = Self { repository, made_at, policy, decisions, fingerprint: String::new(), forced: false };
        plan.fingerprint = plan.compute_fingerprint()?;
        Ok(plan)
    }

    /// Allows it to delete more than half of a stack's backups.
    pub fn force(mut self) -> Self {
        self.forced = true;
        self
    }

    /// Whether [`force`](Self::force) was said.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.forced
    }

    /// What is deleted.
    pub fn deletions(&self) -> impl Iterator<Item = &RetentionDecision> {
        self.decisions.iter().filter(|decision| decision.action == RetentionAction::Delete)
    }

    /// What it does to each stack.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<&str, RetentionTotals> {
        let mut stacks: BTreeMap<&str, RetentionTotals> = BTreeMap::new();
        for decision in &self.decisions {
            let totals = stacks.entry(&decision.stack).or_default();
            match (decision.announced, decision.action) {
                (true, _) => totals.pending += 1,
                (false, RetentionAction::Keep) => totals.kept += 1,
                (false, RetentionAction::Delete) => totals.announced += 1,
            }
            if decision.action == RetentionAction::Delete {
                totals.deleted_bytes = totals.deleted_bytes.saturating_add(decision.stored_bytes);
            }
        }
        stacks
    }

    /// The stacks that lose more than half of their backups, so that [`force`](Self::force) must be said.
    #[must_use]
    pub fn needs_force(&self) -> Vec<&str> {
        self.totals().into_iter().filter(|(_, totals)| totals.needs_force()).map(|(stack, _)| stack).collect()
    }

    /// Checks that nobody changed the plan since it was made.
    ///
    /// # Errors
    /// `Integrity` if somebody did.
    pub(super) fn check(&self) -> Result<()> {
        match self.compute_fingerprint()? == self.fingerprint {
            true => Ok(()),
            false => Err(Error::integrity("the retention plan is not the one that was made: make it again")),
        }
    }

    /// Checks that it deletes no more than allowed.
    ///
    /// # Errors
    /// `Config` if it deletes more than half of a stack's backups and was not forced.
    pub(super) fn check_brake(&self) -> Result<()> {
        match self.needs_force().first() {
            Some(stack) if !self.forced => Err(Error::config(
                "the plan deletes more than half of a stack's backups: look at it, and say force if that is meant",
            )
            .with_context("stack", stack)),
            _ => Ok(()),
        }
    }

    fn compute_fingerprint(&self) -> Result<String> {
        let content = (&self.repository, self.made_at, &self.policy, &self.decisions);
        let mut hash = blake3::Hasher::new();
        serde_json::to_writer(&mut hash, &content)
            .map_err(|e| Error::config("the retention plan can't be written as JSON").with_source(e))?;
        Ok(hash.finalize().to_hex().to_string())
    }
}

impl fmt::Display for RetentionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "retention of repository {}: keep {}", self.repository, self.policy)?;
        let totals = self.totals();
        let mut stack = None;
        for decision in &self.decisions {
            if stack.replace(decision.stack.as_str()) != Some(decision.stack.as_str()) {
                let totals = totals.get(decision.stack.as_str()).copied().unwrap_or_default();
                writeln!(f, "stack {}: {totals}", decision.stack)?;
            }
            writeln!(f, "{decision}")?;
        }
        match self.needs_force().join(", ") {
            stacks if stacks.is_empty() => write!(f, "{} backups are deleted", self.deletions().count()),
            stacks if self.forced => write!(f, "more than half of the backups are deleted, as forced: {stacks}"),
            stacks => write!(f, "more than half of the backups would be deleted; it must be forced: {stacks}"),
        }
    }
}

impl fmt::Display for RetentionTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, announced, pending, deleted_bytes } = self;
        write!(f, "{kept} kept, {announced} to delete, {pending} announced before, {}", format_bytes(*deleted_bytes))
    }
}

impl fmt::Display for RetentionDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (action, state) = (self.action.to_string(), self.state.to_string());
        let bytes = format_bytes(self.stored_bytes);
        write!(f, "  {action:<6}  {}  {state:<8}  {bytes:>10}  ", self.backup)?;
        let reasons: Vec<_> = self.reasons.iter().map(ToString::to_string).collect();
        f.write_str(&reasons.join(", "))
    }
}
