//! Looks at this machine's files without ever piling up threads.

use std::sync::Arc;

use stackkit_core::{Error, ProbeContext, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout_at;

use crate::error::CheckError;
use crate::name::answer_by;

/// Runs at most one look at a time, on a thread of its own.
///
/// A file system that hangs (a network file system whose server is gone) holds a thread in the kernel where nothing can end
/// it. So there is one such thread at most, it is none of the runtime's, and probes that find it still there say `stuck`.
#[derive(Debug)]
pub(crate) struct Looker {
    slot: Arc<Semaphore>,
}

impl Default for Looker {
    fn default() -> Self {
        Self { slot: Arc::new(Semaphore::new(1)) }
    }
}

impl Looker {
    /// Runs `work` once, and waits for it until shortly before the probe's deadline.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        cx: &ProbeContext,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let looked = timeout_at(answer_by(cx), async {
            let permit = Arc::clone(&self.slot).acquire_owned().await;
            let permit = permit.map_err(|_closed| Error::from(CheckError::Looker(None)))?;
            on_thread(permit, work).await
        });
        looked.await.map_err(|_elapsed| Error::from(CheckError::Stuck))?
    }
}

async fn on_thread<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let run = move || {
        let seen = work();
        // Before the answer: whoever gets it may look again at once.
        drop(permit);
        sender.send(seen).ok();
    };
    let thread = std::thread::Builder::new().name("stackkit look".to_owned()).spawn(run);
    thread.map_err(|error| Error::from(CheckError::Looker(Some(error))))?;
    receiver.await.map_err(|_closed| Error::from(CheckError::Looker(None)))?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use stackkit_core::health::Tier;
    use stackkit_core::{Clock, ErrorKind};

    use super::*;

    #[tokio::test]
    async fn a_look_that_hangs_takes_one_thread_and_the_next_say_stuck() {
        let looker = Looker::default();
        let (release, hanging) = mpsc::channel::<()>();
        let hanging = Arc::new(std::sync::Mutex::new(hanging));
        let started = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let (started, hanging) = (started.clone(), hanging.clone());
            let cx = ProbeContext::new(Tier::Process, Clock::system().deadline(Duration::from_millis(20)));
            let looked = looker.look(&cx, move || {
                started.fetch_add(1, Ordering::SeqCst);
                hanging.lock().unwrap().recv().ok();
                Ok(())
            });
            let error = looked.await.unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Timeout, Some("stuck")));
        }
        assert!(started.load(Ordering::SeqCst) <= 1, "a second thread was started");
        drop(release);
        let cx = ProbeContext::new(Tier::Process, Clock::system().deadline(Duration::from_secs(10)));
        assert_eq!(looker.look(&cx, || Ok(7)).await.unwrap(), 7);
    }
}
