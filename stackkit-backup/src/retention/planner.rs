//! From backups and rules to a plan: no I/O, no clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stackkit_core::Result;

use super::plan::{RetentionAction, RetentionDecision, RetentionPlan, RetentionReason};
use super::policy::{Period, Retention};
use crate::id::BackupId;

/// What retention must know of a backup: a light extract of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackupSummary {
    /// Its id.
    pub id: BackupId,
    /// Its stack.
    pub stack: String,
    /// When it began. It decides the order, with the id among equals.
    pub started: Timestamp,
    /// What is there.
    pub state: SummaryState,
    /// Its tags.
    pub tags: Vec<String>,
    /// Until when the storage keeps it from being deleted, as its manifest says; `None`: it does not.
    pub retain_until: Option<Timestamp>,
    /// The bytes of its artifacts in the storage.
    pub stored_bytes: u64,
    /// The BLAKE3 of its manifest, 64 hex digits; `None` if it can't be used.
    pub manifest_blake3: Option<String>,
    /// Whether its deletion was announced.
    pub announcement: Announcement,
}

/// What is there of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SummaryState {
    /// A backup of every service.
    Complete,
    /// A backup that misses a service.
    Partial,
    /// A manifest that is damaged or can't be trusted, and why.
    Unusable(String),
}

impl fmt::Display for SummaryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Unusable(_) => "unusable",
        })
    }
}

/// Whether the deletion of a backup was announced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Announcement {
    /// It was not.
    #[default]
    None,
    /// It was, and may be done after this time.
    PurgeAfter(Timestamp),
    /// There is an announcement that is damaged, another backup's, or not signed by a key that is trusted, and why.
    Unusable(String),
}

impl BackupSummary {
    /// A complete backup without tags.
    #[must_use]
    pub fn new(id: BackupId, stack: impl Into<String>, manifest_blake3: impl Into<String>) -> Self {
        Self {
            id,
            stack: stack.into(),
            started: id.time(),
            state: SummaryState::Complete,
            tags: Vec::new(),
            retain_until: None,
            stored_bytes: 0,
            manifest_blake3: Some(manifest_blake3.into()),
            announcement: Announcement::None,
        }
    }

    fn is_announced(&self) -> bool {
        matches!(self.announcement, Announcement::PurgeAfter(_))
    }

    fn age_order(&self) -> (Timestamp, BackupId) {
        (self.started, self.id)
    }
}

/// All that a plan is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inventory {
    /// The repository's id.
    pub repository: String,
    /// When it was taken. What began later is dated in the future.
    pub taken_at: Timestamp,
    /// The backups, in any order.
    pub backups: Vec<BackupSummary>,
    /// The newest backup of each stack whose content was checked and found good.
    pub verified: BTreeSet<BackupId>,
}

impl Inventory {
    /// An inventory in which nothing was verified.
    #[must_use]
    pub fn new(repository: impl Into<String>, taken_at: Timestamp, backups: Vec<BackupSummary>) -> Self {
        Self { repository: repository.into(), taken_at, backups, verified: BTreeSet::new() }
    }

    /// Names a backup that was verified.
    #[must_use]
    pub fn with_verified(mut self, id: BackupId) -> Self {
        self.verified.insert(id);
        self
    }
}

impl Retention {
    /// Decides over every backup of an inventory. It asks nobody and changes nothing.
    ///
    /// Beside the rules of the policy:
    /// - A stack's last complete backup and its newest verified one are kept; so is one that is dated in the future,
    ///   that the storage locks, or whose manifest or announced deletion can't be trusted.
    /// - A partial backup is kept as long as no complete one of its stack is newer.
    /// - A backup whose deletion was announced takes no place, and is purged only while no rule keeps it, counted as if
    ///   it had not been announced.
    ///
    /// # Errors
    /// `Config` if the policy is empty; see [`validate`](Self::validate).
    pub fn plan(&self, inventory: &Inventory) -> Result<RetentionPlan> {
        self.validate()?;
        let mut stacks: BTreeMap<&str, Vec<&BackupSummary>> = BTreeMap::new();
        for backup in &inventory.backups {
            stacks.entry(&backup.stack).or_default().push(backup);
        }
        let mut decisions = Vec::with_capacity(inventory.backups.len());
        for backups in stacks.values_mut() {
            backups.sort_by_key(|backup| Reverse(backup.age_order()));
            let stack = StackRules::new(self, inventory, backups);
            decisions.extend(backups.iter().map(|backup| stack.decide(backup)));
        }
        RetentionPlan::new(inventory.repository.clone(), inventory.taken_at, self.clone(), decisions)
    }
}

/// The rules, applied to the backups of one stack.
struct StackRules<'a> {
    policy: &'a Retention,
    inventory: &'a Inventory,
    /// The newest complete backup.
    last_complete: Option<&'a BackupSummary>,
    /// What is that much younger is kept by the rule of that name.
    within: Option<Timestamp>,
    /// What the places that are counted give to each backup.
    places: BTreeMap<BackupId, Vec<RetentionReason>>,
}

impl<'a> StackRules<'a> {
    /// `backups` are one stack's, newest first.
    fn new(policy: &'a Retention, inventory: &'a Inventory, backups: &[&'a BackupSummary]) -> Self {
        let counts =
            |backup: &&&BackupSummary| backup.state == SummaryState::Complete && backup.started <= inventory.taken_at;
        let all: Vec<_> = backups.iter().filter(counts).copied().collect();
        let (announced, alive): (Vec<_>, Vec<_>) = all.iter().copied().partition(|backup| backup.is_announced());
        let mut places = places(policy, &alive);
        if !announced.is_empty() {
            let mut with_announced = self::places(policy, &all);
            places.extend(announced.iter().filter_map(|backup| with_announced.remove_entry(&backup.id)));
        }
        let last_complete = alive.first().or(all.first()).copied();
        let newest = last_complete.map(|backup| policy.local(backup.started));
        let within = policy.within().zip(newest).map(|(length, newest)| length.before(&newest));
        Self { policy, inventory, last_complete, within, places }
    }

    fn decide(&self, backup: &BackupSummary) -> RetentionDecision {
        let mut reasons = self.places.get(&backup.id).cloned().unwrap_or_default();
        reasons.extend(self.direct_reasons(backup));
        reasons.extend(self.guards(backup));
        let keep = reasons.iter().any(RetentionReason::keeps);
        if let Announcement::PurgeAfter(purge_after) = backup.announcement {
            reasons.push(RetentionReason::Announced { purge_after });
        }
        if !keep && backup.state != SummaryState::Partial {
            reasons.push(RetentionReason::NoRule);
        }
        RetentionDecision {
            backup: backup.id,
            stack: backup.stack.clone(),
            state: backup.state.clone(),
            started: backup.started,
            stored_bytes: backup.stored_bytes,
            manifest_blake3: backup.manifest_blake3.clone(),
            announced: backup.is_announced(),
            action: if keep { RetentionAction::Keep } else { RetentionAction::Delete },
            reasons,
        }
    }

    /// The rules that look at nothing but the backup.
    fn direct_reasons(&self, backup: &BackupSummary) -> Vec<RetentionReason> {
        let mut reasons = Vec::new();
        let past = backup.started <= self.inventory.taken_at;
        if let Some(length) = self.policy.within()
            && past
            && self.within.is_some_and(|within| backup.started >= within)
        {
            reasons.push(RetentionReason::Within { span: length.to_string() });
        }
        let kept_tags = backup.tags.iter().filter(|tag| self.policy.tags().contains(tag.as_str()));
        reasons.extend(kept_tags.map(|tag| RetentionReason::Tag { tag: tag.clone() }));
        reasons.extend(self.policy.keeps_id(&backup.id).then_some(RetentionReason::Id));
        reasons
    }

    /// What holds whatever the rules are.
    fn guards(&self, backup: &BackupSummary) -> Vec<RetentionReason> {
        let now = self.inventory.taken_at;
        let mut reasons = Vec::new();
        if self.last_complete.is_some_and(|last| std::ptr::eq(last, backup)) {
            reasons.push(RetentionReason::LastComplete);
        }
        if self.inventory.verified.contains(&backup.id) {
            reasons.push(RetentionReason::NewestVerified);
        }
        if backup.started > now {
            reasons.push(RetentionReason::Future);
        }
        if let Some(until) = backup.retain_until.filter(|until| *until > now) {
            reasons.push(RetentionReason::Locked { until });
        }
        if let Announcement::Unusable(message) = &backup.announcement {
            reasons.push(RetentionReason::UnusableTombstone { message: message.clone() });
        }
        match &backup.state {
            SummaryState::Complete => {}
            SummaryState::Unusable(message) => {
                reasons.push(RetentionReason::Unusable { message: message.clone() });
            }
            SummaryState::Partial => {
                let superseded = self.last_complete.is_some_and(|last| last.age_order() > backup.age_order());
                reasons.extend((!superseded).then_some(RetentionReason::NewerThanComplete));
                reasons.push(RetentionReason::Partial);
            }
        }
        reasons
    }
}

/// What the rules that count places give to each of a stack's complete backups, newest first.
fn places(policy: &Retention, backups: &[&BackupSummary]) -> BTreeMap<BackupId, Vec<RetentionReason>> {
    let mut places: BTreeMap<BackupId, Vec<RetentionReason>> = BTreeMap::new();
    let mut give = |backup: &BackupSummary, reason| places.entry(backup.id).or_default().push(reason);
    let Some(newest) = backups.first().map(|backup| policy.local(backup.started)) else { return places };
    for (place, backup) in (1..).zip(backups.iter().take(policy.last())) {
        give(backup, RetentionReason::Last { place, of: policy.last() });
    }
    for (period, count) in policy.slots() {
        for (backup, slot) in newest_of_each(policy, period, backups).take(count) {
            give(backup, RetentionReason::Slot { period, slot });
        }
    }
    for (period, length) in policy.slots_within() {
        let (since, span) = (length.before(&newest), length.to_string());
        let recent = newest_of_each(policy, period, backups).take_while(|(backup, _)| backup.started >= since);
        for (backup, slot) in recent {
            give(backup, RetentionReason::SlotWithin { period, slot, span: span.clone() });
        }
    }
    places
}

/// The newest backup of each period that has one, newest first.
fn newest_of_each<'a>(
    policy: &Retention,
    period: Period,
    backups: &[&'a BackupSummary],
) -> impl Iterator<Item = (&'a BackupSummary, String)> {
    // A clock that is set back at midnight shows the end of a day twice, so that a day need not be one stretch of time.
    let mut seen = HashSet::new();
    backups.iter().filter_map(move |backup| {
        let slot = period.slot(&policy.local(backup.started));
        seen.insert(slot.clone()).then_some((*backup, slot))
    })
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
