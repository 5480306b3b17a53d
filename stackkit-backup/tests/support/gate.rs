//! An object store that stops before one call until it is let on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// Which call waits: the first of an object whose name ends like this.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Before {
    Put(&'static str),
    Delete(&'static str),
}

#[derive(Debug, Clone)]
pub(crate) struct Gate {
    inner: Arc<dyn ObjectStore>,
    before: Before,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    passed: AtomicBool,
    reached: Notify,
    open: Notify,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, before: Before) -> Self {
        Self { inner, before, state: Arc::default() }
    }

    /// Waits until the call is about to be made.
    pub(crate) async fn reached(&self) {
        self.state.reached.notified().await;
    }

    /// Lets the call be made.
    pub(crate) fn open(&self) {
        self.state.open.notify_one();
    }

    async fn wait(&self, name: &str, path: &Path) {
        if path.as_ref().ends_with(name) && !self.state.passed.swap(true, Ordering::SeqCst) {
            self.state.reached.notify_one();
            self.state.open.notified().await;
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if let Before::Put(name) = self.before {
            self.wait(name, path).await;
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let gate = self.clone();
        let deleted = paths.then(move |path| {
            let gate = gate.clone();
            async move {
                let path = path?;
                if let Before::Delete(name) = gate.before {
                    gate.wait(name, &path).await;
                }
                gate.inner.delete(&path).await.map(|()| path)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
