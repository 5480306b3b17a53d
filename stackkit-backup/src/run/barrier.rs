//! The barrier: every service's point in time is pinned before any byte moves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use stackkit_core::backup::{Dump, DumpContext};
use stackkit_core::{Error, ErrorKind, Result, Service};

use super::sink::Shared;
use crate::error::contained;
use crate::progress::ProgressEvent;

/// A service, and its pinned dump or why there is none.
pub(crate) struct Pinned {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) dump: Result<Box<dyn Dump>>,
}

/// All services, in the order of the stack.
pub(crate) struct Barrier {
    pub(crate) services: Vec<Pinned>,
    /// Between the first and the last `begin` that returned a point.
    pub(crate) spread: Duration,
}

/// Pins all points together. Unless failures are allowed, the first one ends it and releases what is pinned.
pub(crate) async fn pin_all(
    services: &[Arc<dyn Service>],
    context: &DumpContext,
    deadline: Duration,
    allow_failures: bool,
    shared: &Shared,
) -> Result<Barrier> {
    let begin = |(place, service): (usize, &Arc<dyn Service>)| {
        let service = Arc::clone(service);
        async move {
            let dump = begin(&*service, context, deadline).await.map_err(|e| e.with_service(service.id().clone()));
            (place, shared.clock.instant(), Pinned { service, dump })
        }
    };
    let mut begins: FuturesUnordered<_> = services.iter().enumerate().map(begin).collect();
    let (mut pinned, mut instants) = (Vec::new(), Vec::new());
    while let Some((place, instant, one)) = begins.next().await {
        let service = one.service.id().clone();
        match &one.dump {
            Ok(_) => {
                instants.push(instant);
                shared.progress.tell(|| ProgressEvent::Pinned { service });
            }
            Err(error) if !allow_failures => {
                shared.progress.tell(|| ProgressEvent::Failed { service, message: error.to_string() });
            }
            // Told when the others run.
            Err(_) => {}
        }
        match one.dump {
            Err(error) if !allow_failures => return Err(error),
            dump => pinned.push((place, Pinned { dump, ..one })),
        }
    }
    pinned.sort_unstable_by_key(|(place, _)| *place);
    let spread = match (instants.iter().min(), instants.iter().max()) {
        (Some(first), Some(last)) => last.duration_since(*first),
        _ => Duration::ZERO,
    };
    Ok(Barrier { services: pinned.into_iter().map(|(_, pinned)| pinned).collect(), spread })
}

async fn begin(service: &dyn Service, context: &DumpContext, deadline: Duration) -> Result<Box<dyn Dump>> {
    let provider = service
        .backup_provider()
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, "the service can't be backed up"))?;
    tokio::time::timeout(deadline, contained("begin", provider.begin(context))).await.map_err(|e| {
        Error::new(ErrorKind::Timeout, "the point in time was not pinned within its deadline")
            .with_operation("begin")
            .with_context("deadline_s", deadline.as_secs())
            .with_source(e)
    })?
}
