//! A store that counts the bytes of large objects instead of keeping them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What was uploaded in parts: how many bytes, by path.
type Counted = Arc<Mutex<BTreeMap<Path, u64>>>;

/// The store. Objects that are put whole are kept.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    small: InMemory,
    counted: Counted,
}

impl Counting {
    /// All bytes that were uploaded in parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.counted.lock().unwrap().values().sum()
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.small.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload { path: location.clone(), bytes: Arc::default(), counted: Arc::clone(&self.counted) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let counted = self.counted.lock().unwrap().get(location).copied();
        let Some(size) = counted.filter(|_| options.head) else {
            return self.small.get_opts(location, options).await;
        };
        let last_modified = std::time::SystemTime::UNIX_EPOCH.into();
        let meta = ObjectMeta { location: location.clone(), last_modified, size, e_tag: None, version: None };
        let payload = GetResultPayload::Stream(Box::pin(futures_util::stream::empty()));
        let extensions = Default::default();
        Ok(GetResult { payload, meta, range: 0..size, attributes: Attributes::new(), extensions })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.small.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.small.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.small.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.small.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Upload {
    path: Path,
    bytes: Arc<Mutex<u64>>,
    counted: Counted,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = Arc::clone(&self.bytes);
        Box::pin(async move {
            *bytes.lock().unwrap() += data.content_length() as u64;
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.counted.lock().unwrap().insert(self.path.clone(), *self.bytes.lock().unwrap());
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
