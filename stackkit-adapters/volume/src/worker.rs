//! Blocking work on the runtime's pool, owned by whoever waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::error::{Result, VolumeError};

/// Tells blocking work that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// `Cancelled` once the work is unwanted; to be asked at least once per entry of a tree, and per buffer of a file.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(VolumeError::Cancelled),
            false => Ok(()),
        }
    }

    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Blocking work in progress. Dropping it makes the work stop at its next step and clean up after itself; the runtime
/// waits for it when it shuts down.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    handle: JoinHandle<T>,
    cancel: Cancel,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts `work` on the runtime's pool of blocking threads.
    pub(crate) fn start(work: impl FnOnce(&Cancel) -> T + Send + 'static) -> Self {
        let cancel = Cancel::default();
        let seen = cancel.clone();
        Self { handle: tokio::task::spawn_blocking(move || work(&seen)), cancel }
    }

    /// Waits for the result.
    pub(crate) async fn join(mut self) -> Result<T> {
        (&mut self.handle).await.map_err(|error| VolumeError::Worker(Some(error)))
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
