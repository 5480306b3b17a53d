//! Leases: at most one prune of a repository, and at most one restore into a stack, at a time.
//!
//! Backups need none: their names are unique and nothing of theirs is ever written twice.
//!
//! In a directory a lease is a lock of the operating system on `leases/<name>.lock`; it ends with the process. In
//! any other storage it is the object `leases/<name>.json`, changed only by compare-and-swap. One repository never uses
//! both.
//!
//! A lease can't stop a process that stands still: between the answer of [`Lease::check`] and the effect of the deletion
//! after it there is a moment in which a holder can be suspended for longer than its ttl and two margins while somebody
//! else takes over. So what is done under a lease must be harmless when that happens: a prune deletes only what was
//! announced long before, and nothing in a repository is ever written a second time.

mod file;
mod owner;
mod record;
mod swap;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use stackkit_core::{Error, ErrorKind, Result};

use self::file::FileLock;
use self::swap::Swap;
use crate::repository::Repository;

/// The folder of all leases.
pub(crate) const LEASES: &str = "leases";

/// The lease of restores into a stack of this name, and of restores of its backups.
pub(crate) fn restores_of(stack: &str) -> String {
    format!("restore-{stack}")
}

/// The lease of whoever removes anything, and of a copy while it makes a backup exist.
pub(crate) const PRUNE: &str = "prune";

/// How long a lease of a holder that died keeps others out. Short for people who wait, and long for a network that
/// fails: a holder has three attempts to renew.
const TTL: Duration = Duration::from_secs(60);

/// How long somebody waits for a lease: long enough to take over from a holder that died.
const WAIT: Duration = Duration::from_secs(120);

/// How much earlier a holder gives up and how much later others take over, as a part of the ttl: what two monotonic
/// clocks may differ in that time, and more.
const MARGINS_IN_TTL: u32 = 6;

/// How often a lease that is waited for is looked at, before jitter.
const POLL: Duration = Duration::from_secs(1);

/// How a lease is asked for.
#[derive(Debug, Clone)]
pub(crate) struct LeaseOptions {
    ttl: Duration,
    wait: Duration,
    wait_for: WaitFor,
}

/// Which holders are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitFor {
    Anybody,
    /// Only those that show no sign of life: one that died can't give its lease back.
    TheDead,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { ttl: TTL, wait: WAIT, wait_for: WaitFor::Anybody }
    }
}

impl LeaseOptions {
    /// Sets how long a lease of a holder that died keeps others out; 60 s unless set. At least 1 ms.
    #[cfg(test)]
    pub(crate) fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl.max(Duration::from_millis(1));
        self
    }

    /// Sets how long to wait for another holder; 120 s unless set. Zero: not at all.
    pub(crate) fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Gives up as soon as the holder shows that it lives, and still takes over from one that died.
    pub(crate) fn only_from_the_dead(mut self) -> Self {
        self.wait_for = WaitFor::TheDead;
        self
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Claim<'a> {
    name: &'a str,
    purpose: &'a str,
    ttl: Duration,
    wait: Duration,
    wait_for: WaitFor,
}

/// The right to do something that only one may do at a time.
///
/// Dropped without [`release`](Self::release), a lease in a directory is free at once; any other is free for this process
/// at once, and for others when its ttl and a margin are over.
#[derive(Debug)]
#[must_use = "a lease that is dropped protects nothing"]
pub(crate) struct Lease {
    means: Means,
}

#[derive(Debug)]
enum Means {
    File(Box<FileLock>),
    Swap(Box<Swap>),
    /// The caller said that nobody else writes.
    Nothing,
}

impl Lease {
    /// Waits for the lease `name` and takes it; `purpose` is for people who find it held.
    ///
    /// # Errors
    /// `Busy` naming the holder if it does not become free in 120 s; `Unsupported` if the storage has neither
    /// compare-and-swap nor locks and [`single_writer`](crate::RepositoryOptions::single_writer) was not said;
    /// `PermissionDenied` if the repository can only be read; `Integrity` if what is there is no lease; the storage's
    /// kinds.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the lease as it is, or held by nobody: then it is free after its ttl and a margin.
    pub(crate) async fn acquire(repository: &Repository, name: &str, purpose: &str) -> Result<Self> {
        Self::acquire_with(repository, name, purpose, &LeaseOptions::default()).await
    }

    /// As [`acquire`](Self::acquire), with options.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub(crate) async fn acquire_with(
        repository: &Repository,
        name: &str,
        purpose: &str,
        options: &LeaseOptions,
    ) -> Result<Self> {
        let claim = Claim { name, purpose, ttl: options.ttl, wait: options.wait, wait_for: options.wait_for };
        let (storage, clock) = (repository.storage(), repository.clock());
        let taken = match storage.root() {
            Some(root) => FileLock::acquire(root, clock, &claim).await.map(|lock| Means::File(Box::new(lock))),
            None if can_swap(repository).await? => {
                Swap::acquire(storage, clock, &claim).await.map(|swap| Means::Swap(Box::new(swap)))
            }
            None => Err(Error::new(ErrorKind::Unsupported, "the storage has no compare-and-swap")),
        };
        let means = match taken {
            Err(error) if error.kind() == ErrorKind::Unsupported => match repository.options().is_single_writer() {
                true => Means::Nothing,
                false => return Err(unsupported(error).with_context("lease", name)),
            },
            taken => taken.map_err(|e| e.with_context("lease", name))?,
        };
        Ok(Self { means })
    }

    /// Does `work` and keeps the lease meanwhile. Once the lease is lost, `work` is dropped and not polled again.
    ///
    /// # Errors
    /// `Busy` naming the new holder if somebody took over; `Cancelled` if the lease could not be renewed in time;
    /// otherwise the error of `work`.
    ///
    /// # Cancel safety
    /// That of `work`; the lease is still held.
    pub(crate) async fn hold<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Means::Swap(swap) = &self.means else {
            return work.await;
        };
        let (mut work, mut keeping) = (pin!(work), pin!(swap.keep()));
        poll_fn(|cx| {
            if let Poll::Ready(lost) = keeping.as_mut().poll(cx) {
                return Poll::Ready(Err(lost));
            }
            // After a standstill the work may be woken before the timer of the renewal is.
            match swap.expired() {
                Some(expired) => Poll::Ready(Err(expired)),
                None => work.as_mut().poll(cx),
            }
        })
        .await
    }

    /// Makes sure that the lease is held at this moment: to be asked right before anything is destroyed.
    ///
    /// # Errors
    /// `Busy` naming the new holder if somebody took over; `Cancelled` if it was not renewed in time; the storage's
    /// kinds: then nobody knows, and nothing may be destroyed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn check(&self) -> Result<()> {
        match &self.means {
            Means::File(lock) => lock.check().await,
            Means::Swap(swap) => swap.check().await,
            Means::Nothing => Ok(()),
        }
    }

    /// Lets the next one have it.
    ///
    /// # Errors
    /// `Busy` if somebody took over before; the storage's kinds: then it is free after its ttl and a margin.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the lease free, or held by nobody until its ttl and a margin are over.
    pub(crate) async fn release(self) -> Result<()> {
        match self.means {
            Means::File(lock) => lock.release().await,
            Means::Swap(swap) => swap.release().await,
            Means::Nothing => Ok(()),
        }
    }
}

/// Reads the record of a lease and writes it again, for a fuzzer.
#[cfg(any(fuzzing, test))]
pub(crate) fn rewrite_record(bytes: &[u8]) -> Option<bytes::Bytes> {
    record::Record::from_bytes(bytes).ok()?.to_bytes().ok()
}

/// Whether the storage has compare-and-swap: what was found when the repository was made, or now if it had none then.
async fn can_swap(repository: &Repository) -> Result<bool> {
    Ok(repository.marker().capabilities().compare_and_swap || repository.storage().probe().await?.compare_and_swap)
}

fn unsupported(error: Error) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the storage has neither compare-and-swap nor file locks, so it can't be made sure that nobody else prunes or \
         restores now: say `RepositoryOptions::single_writer` if nobody does",
    )
    .with_source(error)
}

/// How much earlier than its ttl a holder gives up, and how much later others take over.
fn margin(ttl: Duration) -> Duration {
    ttl / MARGINS_IN_TTL
}

/// About `duration`, so that those who began to wait together do not ask together for ever.
fn pause(duration: Duration) -> Duration {
    duration.mul_f64(0.5 + fastrand::f64())
}
