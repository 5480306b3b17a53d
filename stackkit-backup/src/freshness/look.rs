//! What a probe reads of the repository, so that a storage that hangs costs one request.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use stackkit_core::health::Tier;
use stackkit_core::{Error, ErrorKind, Result};

use super::place::{PlaceSeen, Probe};
use crate::repository::{Marker, Repository};
use crate::verify::Last;

/// What a look at the repository found.
pub(super) struct Looked {
    /// Its marker is another one than when it was opened.
    pub(super) changed: bool,
    /// `None`: no inventory was taken.
    pub(super) last: Option<Last>,
    /// `None`: no inventory was taken.
    pub(super) place: Option<PlaceSeen>,
}

pub(super) type Look = Pin<Box<dyn Future<Output = Result<Looked>> + Send>>;

/// A look that goes back to its slot if it is dropped before its end.
pub(super) struct Pending<'a> {
    pub(super) slot: &'a Mutex<Option<Look>>,
    pub(super) look: Option<Look>,
}

impl Pending<'_> {
    pub(super) async fn finish(mut self) -> Result<Looked> {
        let Some(look) = &mut self.look else { return Err(Error::unexpected("there is nothing to look at")) };
        let looked = look.await;
        self.look = None;
        looked
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // A future that panicked must not be polled again.
        if let Some(look) = self.look.take().filter(|_| !std::thread::panicking()) {
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
        }
    }
}

pub(super) async fn look(repository: Repository, stack: String, tier: Tier, probe: Option<Probe>) -> Result<Looked> {
    let changed = match Marker::read(repository.storage()).await {
        Ok(marker) => marker != *repository.marker(),
        // Somebody put something else in its place.
        Err(error) if matches!(error.kind(), ErrorKind::Integrity | ErrorKind::Incompatible) => true,
        Err(error) => return Err(error),
    };
    if tier != Tier::Inventory {
        return Ok(Looked { changed, last: None, place: None });
    }
    let last = repository.last(&stack, repository.clock().now()).await?;
    let place = PlaceSeen::look(&repository, probe.as_ref()).await;
    Ok(Looked { changed, last: Some(last), place: Some(place) })
}
