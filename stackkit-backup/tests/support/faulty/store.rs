//! The store and its uploads: every call of another kind goes through the plan.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::{Name, Plan, Puts, injected};

/// The name of the call that uploads a part.
pub(crate) const PUT_PART: &str = "put a part";

/// A store whose calls a [`Plan`] counts and fails.
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

/// Shortens a stored object to `left` of its bytes; nobody is told.
async fn cut(store: &dyn ObjectStore, path: &Path, left: impl FnOnce(usize) -> usize) -> Result<()> {
    let whole = store.get(path).await?.bytes().await?;
    store.put(path, whole.slice(..left(whole.len())).into()).await.map(drop)
}

fn half(bytes: usize) -> usize {
    bytes / 2
}

fn half_of(payload: &PutPayload) -> PutPayload {
    let whole = Bytes::from(payload.clone());
    whole.slice(..half(whole.len())).into()
}

/// The object with a body that breaks off in the middle.
async fn torn_body(found: Result<GetResult>) -> Option<GetResult> {
    let GetResult { payload, meta, range, attributes, extensions } = found.ok()?;
    let whole = GetResult {
        payload,
        meta: meta.clone(),
        range: range.clone(),
        attributes: attributes.clone(),
        extensions: extensions.clone(),
    };
    let bytes = whole.bytes().await.ok()?;
    let body = stream::iter([Ok(bytes.slice(..half(bytes.len()))), Err(injected())]);
    Some(GetResult { payload: GetResultPayload::Stream(Box::pin(body)), meta, range, attributes, extensions })
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (half, half_opts) = (half_of(&payload), opts.clone());
        // What is changed by compare-and-swap lies in a storage that puts whole objects.
        let whole = self.plan.puts == Puts::Whole || location.prefix_matches(&Path::from("leases"));
        let torn = async {
            if !whole {
                drop(self.inner.put_opts(location, half, half_opts).await);
            }
        };
        let put = self.plan.call(Name("put", location), self.inner.put_opts(location, payload, opts), torn).await?;
        if self.plan.loses(location) {
            cut(&*self.inner, location, |bytes| bytes - 1).await?;
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let made = self.inner.put_multipart_opts(location, opts);
        let inner = self.plan.call(Name("create an upload", location), made, async {}).await?;
        let (store, path) = (Arc::clone(&self.inner), location.clone());
        Ok(Box::new(FaultyUpload { inner, plan: Arc::clone(&self.plan), store, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let name = match (&options.range, options.head) {
            (_, true) => "head",
            (Some(_), _) => "get a range",
            (None, _) => "get",
        };
        let broken = Mutex::new(None);
        let again = options.clone();
        let torn = async {
            if !again.head {
                let found = torn_body(self.inner.get_opts(location, again).await).await;
                *broken.lock().unwrap() = found;
            }
        };
        let found = self.plan.call(Name(name, location), self.inner.get_opts(location, options), torn).await;
        let broken = broken.lock().unwrap().take();
        broken.map_or(found, Ok)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.plan.call(Name("get ranges", location), self.inner.get_ranges(location, ranges), async {}).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, plan) = (Arc::clone(&self.inner), Arc::clone(&self.plan));
        let deleted = locations.then(move |location| {
            let (inner, plan) = (Arc::clone(&inner), Arc::clone(&plan));
            async move {
                let location = location?;
                plan.call(Name("delete", &location), inner.delete(&location), async {}).await?;
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (plan, path) = (Arc::clone(&self.plan), prefix.cloned().unwrap_or_default());
        let (all, again) = (self.inner.list(prefix), self.inner.list(prefix));
        let listed = async move {
            let first = Mutex::new(Vec::new());
            let torn = async {
                let mut some: Vec<_> = again.collect().await;
                some.truncate(half(some.len()));
                *first.lock().unwrap() = some;
            };
            let listed = plan.call(Name("list", &path), all.try_collect::<Vec<_>>(), torn).await;
            let mut items = first.into_inner().unwrap();
            match listed {
                Ok(all) => items = all.into_iter().map(Ok).collect(),
                Err(error) => items.push(Err(error)),
            }
            stream::iter(items)
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        self.plan.call(Name("list folders", &path), self.inner.list_with_delimiter(prefix), async {}).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let again = options.clone();
        let torn = async {
            if self.inner.copy_opts(from, to, again).await.is_ok() {
                cut(&*self.inner, to, half).await.unwrap();
            }
        };
        self.plan.call(Name("copy", to), self.inner.copy_opts(from, to, options), torn).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.plan.call(Name("rename", to), self.inner.rename_opts(from, to, options), async {}).await
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
        // The upload below orders its parts by these calls, so the number is taken here too.
        let (plan, path, number) = (Arc::clone(&self.plan), self.path.clone(), self.plan.number(PUT_PART));
        let torn = plan.tears(number);
        let part = self.inner.put_part(if torn { half_of(&data) } else { data });
        Box::pin(async move {
            if plan.is_dead() || plan.stalled.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let name = Name(PUT_PART, &path);
            match torn {
                true => plan.numbered(number, name, async { Ok(()) }, async { drop(part.await) }).await,
                false => plan.numbered(number, name, part, async {}).await,
            }
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.plan.call(Name("complete", &self.path), self.inner.complete(), async {}).await?;
        if self.plan.loses(&self.path) {
            cut(&*self.store, &self.path, |bytes| bytes - 1).await?;
        }
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.plan.call(Name("abort", &self.path), self.inner.abort(), async {}).await
    }
}
