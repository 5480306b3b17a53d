//! How long a backup's objects are locked.

use std::time::Duration;

use jiff::Timestamp;
use stackkit_core::{Error, ErrorKind, Result};

use crate::repository::Repository;
use crate::retention::Retention;

/// What says how long.
#[derive(Debug, Clone)]
pub(super) enum Retain {
    For(Duration),
    Until(Timestamp),
    By(Box<Retention>),
}

impl Retain {
    /// Until when, as far as that is known before the dumps: a policy is asked at their end, by
    /// [`by_policy`](Self::by_policy).
    ///
    /// # Errors
    /// `Unsupported` if the storage has no locks; `Config` for a time that is none, or a policy without rules.
    pub(super) fn until(&self, repository: &Repository, started: Timestamp) -> Result<Option<Timestamp>> {
        if !repository.capabilities().object_lock {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the repository's storage can't lock a backup against deletion",
            ));
        }
        let until = match self {
            Self::Until(until) => Some(*until),
            Self::For(time) => started.checked_add(*time).ok(),
            Self::By(policy) => return policy.validate().map(|()| None),
        };
        match until.filter(|until| *until > started).and_then(whole_seconds) {
            Some(until) => Ok(Some(until)),
            None => Err(Error::config("the time until which a backup is locked is not a time after its start")),
        }
    }

    /// Until when a policy locks a complete backup; `None` also if no policy was given.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(super) async fn by_policy(
        &self,
        repository: &Repository,
        stack: &str,
        started: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let Self::By(policy) = self else { return Ok(None) };
        let others = match policy.lock_looks_back_to(started) {
            None => Vec::new(),
            Some(since) => {
                let began = |entry: crate::BackupEntry| {
                    let is_complete = entry.is_complete();
                    entry.manifest().filter(|_| is_complete).map(|manifest| manifest.started)
                };
                repository.entries_since(stack, since, began).await?
            }
        };
        let others: Vec<_> = others.into_iter().flatten().collect();
        Ok(policy.lock_until(started, &others).and_then(whole_seconds))
    }
}

/// Storages know whole seconds; the manifest must not promise less or more than they keep.
fn whole_seconds(until: Timestamp) -> Option<Timestamp> {
    match until.subsec_nanosecond() {
        0 => Some(until),
        _ => Timestamp::from_second(until.as_second() + 1).ok(),
    }
}
