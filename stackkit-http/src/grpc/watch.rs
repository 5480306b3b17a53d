//! One call of `Watch`.

use std::pin::Pin;

use futures_util::Stream;
use stackkit_core::health::Snapshot;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::message::{HealthCheckResponse, ServingStatus};
use super::status;

/// Its answers.
pub(super) type Watching = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

/// Tells how one name is, at once and at each change.
pub(super) struct Watcher {
    snapshot: Snapshot,
    name: String,
    /// What was told last.
    last: Option<ServingStatus>,
    is_over: bool,
    /// Its place among [`GRPC_WATCHERS_MAX`](super::GRPC_WATCHERS_MAX).
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    pub(super) fn new(snapshot: Snapshot, name: String, place: OwnedSemaphorePermit) -> Self {
        Self { snapshot, name, last: None, is_over: false, _place: place }
    }

    /// The next answer; the last one is that the monitor is gone.
    pub(super) async fn next(&mut self) -> Option<Result<HealthCheckResponse, Status>> {
        while !self.is_over {
            let status = status::of(&self.snapshot.report(), &self.name).unwrap_or(ServingStatus::ServiceUnknown);
            if self.last.replace(status) != Some(status) {
                return Some(Ok(status.into()));
            }
            if !self.snapshot.changed().await {
                self.is_over = true;
                return Some(Err(Status::unavailable("nothing is probed any more")));
            }
        }
        None
    }
}
