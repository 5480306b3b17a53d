//! What becomes of a backup that does not come to its end.

use std::sync::Arc;
use std::time::Duration;

use stackkit_core::Error;

use super::sink::Shared;

/// How long a failed backup waits for its storing tasks to end. They are aborted by then; only a provider that keeps a
/// writer for itself can make this wait.
const ABANDON_DEADLINE: Duration = Duration::from_secs(10);

/// Removes a backup that does not come to its end.
pub(super) struct Unfinished {
    shared: Arc<Shared>,
    is_armed: bool,
}

impl Unfinished {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), is_armed: true }
    }

    /// From now on only [`abandon`](Self::abandon) removes anything.
    pub(super) fn disarm(&mut self) {
        self.is_armed = false;
    }

    /// Removes everything and hands the error on.
    pub(super) async fn abandon(&mut self, error: Error) -> Error {
        self.disarm();
        let (storage, folder) = (&self.shared.storage, &self.shared.folder);
        // The dumps are dropped, so their storing tasks end; nothing is written after this.
        self.shared.tasks.close();
        if tokio::time::timeout(ABANDON_DEADLINE, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(%folder, "an artifact of a failed backup is still being written");
        }
        // A bucket keeps the parts of an upload that was dropped, and does not show them.
        if let Err(left) = storage.abort_uploads_below(folder).await {
            tracing::warn!(error = %left.chain(), %folder, "a failed backup left unfinished uploads");
        }
        if let Err(left) = storage.remove_folder(folder).await {
            tracing::warn!(error = %left.chain(), %folder, "a failed backup left objects");
        }
        error
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_armed {
            self.shared.storage.remove_folder_now(&self.shared.folder);
        }
    }
}
