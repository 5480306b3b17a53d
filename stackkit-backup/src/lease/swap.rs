//! A lease as an object of a storage with compare-and-swap.
//!
//! No time is written or compared: a holder counts its ttl from the moment before it sent a write, and who waits counts
//! it from the moment after it saw that write, both on their own monotonic clocks. The write had its effect between
//! the two, so the holder gives up before anybody can take over, by two margins.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::UpdateVersion;
use object_store::path::Path;
use stackkit_core::{Clock, Error, ErrorKind, Result};
use tokio::time::Instant;

use super::owner::{self, Owner};
use super::record::Record;
use super::{Claim, WaitFor, margin, pause};
use crate::storage::Storage;

/// In how many parts of the ttl a holder renews: two attempts may fail.
const RENEWALS_IN_TTL: u32 = 3;

/// How long a holder waits after a failed renewal, as a part of the ttl: long enough not to press a storage that
/// struggles, short enough for several attempts.
const RETRIES_IN_TTL: u32 = 12;

/// What a write of a lease is called in errors.
const WRITE: &str = "write a lease";

/// The longest that a lease is waited for: a century, which every monotonic clock can hold, whatever a lease says.
const PATIENCE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A lease that is held.
#[derive(Debug)]
pub(super) struct Swap {
    storage: Storage,
    clock: Clock,
    path: Path,
    /// What was written when the lease was got.
    record: Record,
    owner: Owner,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    /// What the next write replaces.
    version: UpdateVersion,
    /// When the write that counts was sent.
    sent: Instant,
}

/// A holder as somebody who waits saw it.
struct Seen {
    bytes: Bytes,
    version: UpdateVersion,
    since: Instant,
}

/// Why a renewal failed.
enum Trouble {
    /// Somebody else has the lease.
    Lost(Error),
    /// It may still be held.
    Failed(Error),
}

impl Trouble {
    fn into_error(self) -> Error {
        match self {
            Self::Lost(error) | Self::Failed(error) => error,
        }
    }
}

/// What there is in place of a lease.
enum Found {
    Nothing,
    Lease(Box<Record>, Bytes, UpdateVersion),
}

impl Swap {
    /// Waits for the lease and takes it.
    ///
    /// # Errors
    /// `Busy` naming the holder when `claim.wait` is over; `Integrity` or `Incompatible` if the object is no lease;
    /// `PermissionDenied` and the storage's other kinds.
    pub(super) async fn acquire(storage: &Storage, clock: &Clock, claim: &Claim<'_>) -> Result<Self> {
        let path = Path::from(super::LEASES).join(format!("{}.json", claim.name));
        let wanted = Record::new(claim.purpose, claim.ttl);
        let owner = Owner::new(wanted.random());
        let wait_for = claim.wait_for;
        let mut taking = Taking { storage, clock, path, wanted, owner, wait_for, seen: None, moves: false };
        let deadline = clock.deadline(claim.wait);
        loop {
            let found = find(storage, &taking.path).await?;
            let (version, before) = match found {
                Found::Nothing => (None, None),
                Found::Lease(record, bytes, version)
                    if !record.is_held() || taking.ran_out(&record, &bytes, &version) =>
                {
                    (Some(version), Some(record))
                }
                Found::Lease(record, ..) => {
                    taking.wait(deadline, &record).await?;
                    continue;
                }
            };
            if let Some(state) = taking.write(version, before.as_deref()).await? {
                if let Some(before) = before {
                    owner::forget(before.random());
                }
                let Taking { path, wanted: record, owner, .. } = taking;
                let (storage, clock) = (storage.clone(), clock.clone());
                return Ok(Self { storage, clock, path, record, owner, state: Mutex::new(state) });
            }
            // Somebody was faster: look again, with the deadline in mind.
            taking.lost_race(deadline).await?;
        }
    }

    /// Renews until that fails for too long, and says why it did. Never ends otherwise.
    pub(super) async fn keep(&self) -> Error {
        let mut next = self.renewal();
        let mut last = None;
        loop {
            tokio::time::sleep_until(next.min(self.valid_until())).await;
            if let Some(expired) = self.expired() {
                return match last {
                    Some(error) => expired.with_source(error),
                    None => expired,
                };
            }
            let retry = self.clock.instant() + pause(self.record.ttl() / RETRIES_IN_TTL);
            let attempt = self.clock.instant() + self.record.ttl() / RENEWALS_IN_TTL;
            match tokio::time::timeout_at(attempt.min(self.valid_until()), self.renew()).await {
                Ok(Ok(())) => last = None,
                Ok(Err(Trouble::Lost(error))) => return error,
                Ok(Err(Trouble::Failed(error))) => {
                    tracing::warn!(error = %error.chain(), lease = %self.path, "a lease could not be renewed yet");
                    last = Some(error);
                }
                Err(_elapsed) => tracing::warn!(lease = %self.path, "the renewal of a lease took too long"),
            }
            next = self.renewal().max(retry);
        }
    }

    /// The error of a holder that could not renew in time.
    pub(super) fn expired(&self) -> Option<Error> {
        (self.clock.instant() >= self.valid_until()).then(|| {
            Error::new(ErrorKind::Cancelled, "the lease could not be renewed in time, so the work under it was stopped")
                .with_context("object", &self.path)
                .with_context("ttl_s", self.record.ttl().as_secs())
        })
    }

    /// Proves that the lease is still held: by a renewal if one is due, else by reading it.
    ///
    /// # Errors
    /// `Busy` naming the new holder; `Cancelled` if it was not renewed in time; the storage's kinds.
    pub(super) async fn check(&self) -> Result<()> {
        if let Some(expired) = self.expired() {
            return Err(expired);
        }
        match self.clock.instant() >= self.renewal() {
            true => self.renew().await.map_err(Trouble::into_error)?,
            false => self.still_mine(find(&self.storage, &self.path).await?).map(drop)?,
        }
        // The answer may have come late.
        self.expired().map_or(Ok(()), Err)
    }

    /// Says that the lease is free.
    ///
    /// # Errors
    /// `Busy` if it was taken over before; the storage's kinds.
    pub(super) async fn release(&self) -> Result<()> {
        let bytes = self.record.released().to_bytes()?;
        loop {
            let version = self.state().version.clone();
            let written = self.storage.update(WRITE, &self.path, bytes.clone(), version.clone()).await;
            let Err(error) = written else {
                self.owner.holds_nothing();
                return Ok(());
            };
            match find(&self.storage, &self.path).await {
                // The answer was lost, not the write.
                Ok(Found::Lease(_, found, _)) if found == bytes => {
                    self.owner.holds_nothing();
                    return Ok(());
                }
                Ok(found) => {
                    let (_, found) = self.still_mine(found)?;
                    // A renewal whose answer was lost changed it: once more, with what is there now.
                    if error.kind() != ErrorKind::Busy || found == version {
                        return Err(error);
                    }
                    self.state().version = found;
                }
                Err(_unreadable) => return Err(error),
            }
        }
    }

    async fn renew(&self) -> Result<(), Trouble> {
        // Twice: a write of this same holder whose answer never came may have been before the first.
        match self.renew_once().await? {
            true => Ok(()),
            false => self.renew_once().await.map(drop),
        }
    }

    /// Whether it had an effect; if not, the lease is held, and the next attempt knows its version.
    async fn renew_once(&self) -> Result<bool, Trouble> {
        let bytes = self.record.again().to_bytes().map_err(Trouble::Failed)?;
        let version = self.state().version.clone();
        let sent = self.clock.instant();
        let error = match self.storage.update(WRITE, &self.path, bytes.clone(), version).await {
            Ok(version) => {
                *self.state() = State { version, sent };
                return Ok(true);
            }
            Err(error) => error,
        };
        let found = find(&self.storage, &self.path).await.map_err(Trouble::Failed)?;
        let (found, version) = self.still_mine(found).map_err(Trouble::Lost)?;
        let mut state = self.state();
        state.version = version;
        match error.kind() {
            // The answer was lost, not the write.
            _ if found == bytes => {
                state.sent = sent;
                Ok(true)
            }
            ErrorKind::Busy => Ok(false),
            _ => Err(Trouble::Failed(error)),
        }
    }

    fn still_mine(&self, found: Found) -> Result<(Bytes, UpdateVersion)> {
        match found {
            Found::Lease(record, bytes, version) if record.same_holder(&self.record) && record.is_held() => {
                Ok((bytes, version))
            }
            Found::Lease(record, ..) => {
                Err(record.busy("the lease was taken over by somebody else").with_context("object", &self.path))
            }
            Found::Nothing => Err(Error::new(ErrorKind::Busy, "the lease was removed while it was held")
                .with_context("object", &self.path)),
        }
    }

    /// From when on a renewal is due.
    fn renewal(&self) -> Instant {
        self.state().sent + self.record.ttl() / RENEWALS_IN_TTL
    }

    /// When the holder stops believing that it holds.
    fn valid_until(&self) -> Instant {
        let ttl = self.record.ttl();
        self.state().sent + ttl.saturating_sub(margin(ttl))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who wants a lease.
struct Taking<'a> {
    storage: &'a Storage,
    clock: &'a Clock,
    path: Path,
    wanted: Record,
    owner: Owner,
    wait_for: WaitFor,
    seen: Option<Seen>,
    /// Whether it was seen to change while it was held.
    moves: bool,
}

impl Taking<'_> {
    /// Whether the holder was seen unchanged for its ttl and a margin, or is known to be gone.
    fn ran_out(&mut self, record: &Record, bytes: &Bytes, version: &UpdateVersion) -> bool {
        let now = self.clock.instant();
        let same = |seen: &&Seen| seen.bytes == *bytes && seen.version == *version;
        match self.seen.as_ref().filter(same) {
            Some(seen) => now >= seen.since + patience(record) || owner::is_abandoned(record.random()),
            None if owner::is_abandoned(record.random()) => true,
            None => {
                self.moves |= self.seen.is_some();
                self.seen = Some(Seen { bytes: bytes.clone(), version: version.clone(), since: now });
                false
            }
        }
    }

    /// Waits until it is worth to look again.
    async fn wait(&self, deadline: Instant, holder: &Record) -> Result<()> {
        let now = self.clock.instant();
        let lives = self.moves || owner::is_here(holder.random());
        if now >= deadline || (self.wait_for == WaitFor::TheDead && lives) {
            return Err(holder.busy("somebody else holds the lease").with_context("object", &self.path));
        }
        let free = self.seen.as_ref().map_or(deadline, |seen| seen.since + patience(holder));
        tokio::time::sleep_until((now + pause(super::POLL)).min(free).min(deadline)).await;
        Ok(())
    }

    /// Waits a moment after a write that somebody else's came before.
    async fn lost_race(&self, deadline: Instant) -> Result<()> {
        let now = self.clock.instant();
        if now >= deadline {
            return Err(
                Error::new(ErrorKind::Busy, "others got the lease each time").with_context("object", &self.path)
            );
        }
        tokio::time::sleep_until((now + pause(super::POLL)).min(deadline)).await;
        Ok(())
    }

    /// Tries to become the holder; `None` if somebody else was faster.
    async fn write(&mut self, version: Option<UpdateVersion>, before: Option<&Record>) -> Result<Option<State>> {
        self.wanted = before.map_or_else(|| self.wanted.again(), |before| self.wanted.after(before));
        let bytes = self.wanted.to_bytes()?;
        let sent = self.clock.instant();
        self.owner.may_hold();
        let written = match version {
            None => create(self.storage, &self.path, bytes.clone()).await,
            Some(version) => self.storage.update(WRITE, &self.path, bytes.clone(), version).await,
        };
        let error = match written {
            Ok(version) => return Ok(Some(State { version, sent })),
            Err(error) => error,
        };
        let lost_race = matches!(error.kind(), ErrorKind::Busy | ErrorKind::AlreadyExists);
        match find(self.storage, &self.path).await {
            // The answer was lost, not the write.
            Ok(Found::Lease(_, found, version)) if found == bytes => Ok(Some(State { version, sent })),
            _ if lost_race => {
                self.owner.holds_nothing();
                Ok(None)
            }
            _ => Err(error),
        }
    }
}

/// How long a lease must stay unchanged before it may be taken over.
fn patience(record: &Record) -> Duration {
    let ttl = record.ttl();
    ttl.saturating_add(margin(ttl)).min(PATIENCE_MAX)
}

async fn find(storage: &Storage, path: &Path) -> Result<Found> {
    match storage.read_versioned("read a lease", path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error),
        Ok((bytes, version)) => {
            let record = Record::from_bytes(&bytes).map_err(|e| {
                e.with_operation("read a lease")
                    .with_context("object", path)
                    .with_context("help", "remove the object once nobody works under this lease")
            })?;
            Ok(Found::Lease(Box::new(record), bytes, version))
        }
    }
}

/// Writes the object that must not exist.
async fn create(storage: &Storage, path: &Path, bytes: Bytes) -> Result<UpdateVersion> {
    storage.create(WRITE, path, bytes.clone()).await?;
    let (found, version) = storage.read_versioned("read a lease", path).await?;
    match found == bytes {
        true => Ok(version),
        false => Err(Error::new(ErrorKind::Busy, "somebody else has the lease already").with_context("object", path)),
    }
}
