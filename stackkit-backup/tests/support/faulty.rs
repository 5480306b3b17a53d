//! An object store that fails at call n.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Nothing was done.
    Before,
    /// Everything was done, and the answer was lost.
    After,
}

#[derive(Debug)]
pub(crate) struct Plan {
    calls: AtomicUsize,
    fail_at: AtomicUsize,
    when: When,
    /// Parts are not taken any more.
    stalled: AtomicBool,
    /// Objects whose names end like this lose their last byte, and nobody is told.
    lossy: Mutex<Option<&'static str>>,
}

impl Plan {
    /// From now on every object whose name ends with `ending` loses its last byte.
    pub(crate) fn lose_bytes(&self, ending: &'static str) {
        *self.lossy.lock().unwrap() = Some(ending);
    }

    fn loses(&self, path: &Path) -> bool {
        self.lossy.lock().unwrap().is_some_and(|ending| path.as_ref().ends_with(ending))
    }

    /// Fails call number `fail_at`, from 0.
    pub(crate) fn new(fail_at: usize, when: When) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            fail_at: AtomicUsize::new(fail_at),
            when,
            stalled: AtomicBool::new(false),
            lossy: Mutex::new(None),
        })
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// From now on every part hangs.
    pub(crate) fn stall_parts(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }

    /// Fails call number `call` instead.
    pub(crate) fn fail_at(&self, call: usize) {
        self.fail_at.store(call, Ordering::SeqCst);
    }

    /// No call fails any more.
    pub(crate) fn heal(&self) {
        self.fail_at(usize::MAX);
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let now = self.calls.fetch_add(1, Ordering::SeqCst) == self.fail_at.load(Ordering::SeqCst);
        match self.when {
            When::Before if now => Err(injected()),
            When::After if now => work.await.and_then(|_| Err(injected())),
            _ => work.await,
        }
    }
}

async fn cut(store: &dyn ObjectStore, path: &Path) -> Result<()> {
    let whole = store.get(path).await?.bytes().await?;
    store.put(path, whole.slice(..whole.len() - 1).into()).await.map(drop)
}

fn injected() -> Error {
    Error::Generic { store: "Faulty", source: "injected".into() }
}

#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) plan: Arc<Plan>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let put = self.plan.call(self.inner.put_opts(location, payload, opts)).await?;
        if self.plan.loses(location) {
            cut(&*self.inner, location).await?;
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.plan.call(self.inner.put_multipart_opts(location, opts)).await?;
        let (store, path) = (Arc::clone(&self.inner), location.clone());
        Ok(Box::new(FaultyUpload { inner, plan: Arc::clone(&self.plan), store, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.plan.call(self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.plan.call(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.plan.call(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.plan.call(self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    plan: Arc<Plan>,
    store: Arc<dyn ObjectStore>,
    path: Path,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, plan) = (self.inner.put_part(data), Arc::clone(&self.plan));
        Box::pin(async move {
            if plan.stalled.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            plan.call(part).await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.plan.call(self.inner.complete()).await?;
        if self.plan.loses(&self.path) {
            cut(&*self.store, &self.path).await?;
        }
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
