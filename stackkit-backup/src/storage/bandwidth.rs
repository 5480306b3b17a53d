//! A limit of the bytes per second that a repository moves.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use stackkit_core::Clock;
use tokio::time::Instant;

/// Nanoseconds in a second.
const SECOND_NS: u128 = 1_000_000_000;

/// Hands out time to those who move bytes: each waits until all bytes before its own had their time.
#[derive(Debug)]
struct Pace {
    bytes_per_second: NonZeroU64,
    free: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(bytes_per_second: NonZeroU64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second, free: Mutex::new(None) })
    }

    /// Waits until `bytes` may be moved. After a pause the first are moved at once: what was not used is not saved up.
    /// Whoever is dropped while it waits leaves its time unused.
    async fn wait(&self, bytes: usize) {
        let start = self.reserve(bytes, Clock::system().instant());
        tokio::time::sleep_until(start).await;
    }

    /// When `bytes` may be moved.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let needed_ns = bytes as u128 * SECOND_NS / u128::from(self.bytes_per_second.get());
        let needed = Duration::from_nanos(u64::try_from(needed_ns).unwrap_or(u64::MAX));
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.map_or(now, |free| free.max(now));
        *free = Some(start.checked_add(needed).unwrap_or(start));
        start
    }
}

/// A store whose bytes, both ways together, keep to a pace. Files of this machine are read as fast as they can be.
///
/// The pace is kept between the parts of uploads and the pieces of downloads: a part itself goes as fast as it can.
#[derive(Debug)]
pub(super) struct Paced {
    inner: Arc<dyn ObjectStore>,
    pace: Arc<Pace>,
}

impl Paced {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, bytes_per_second: NonZeroU64) -> Self {
        Self { inner, pace: Pace::new(bytes_per_second) }
    }
}

impl fmt::Display for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} bytes/s", self.inner, self.pace.bytes_per_second)
    }
}

#[async_trait]
impl ObjectStore for Paced {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.pace.wait(payload.content_length()).await;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(PacedUpload { inner, pace: Arc::clone(&self.pace) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await?;
        found.payload = match found.payload {
            GetResultPayload::Stream(stream) => {
                let pace = Arc::clone(&self.pace);
                let paced = stream.then(move |chunk| {
                    let pace = Arc::clone(&pace);
                    async move {
                        if let Ok(bytes) = &chunk {
                            pace.wait(bytes.len()).await;
                        }
                        chunk
                    }
                });
                GetResultPayload::Stream(paced.boxed())
            }
            other => other,
        };
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let found = self.inner.get_ranges(location, ranges).await?;
        self.pace.wait(found.iter().map(Bytes::len).sum()).await;
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
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

#[derive(Debug)]
struct PacedUpload {
    inner: Box<dyn MultipartUpload>,
    pace: Arc<Pace>,
}

#[async_trait]
impl MultipartUpload for PacedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = data.content_length();
        // The order of the parts is the order of these calls, so only the sending waits.
        let (part, pace) = (self.inner.put_part(data), Arc::clone(&self.pace));
        Box::pin(async move {
            pace.wait(bytes).await;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    const RATE: NonZeroU64 = NonZeroU64::new(1000).unwrap();

    fn paced() -> Arc<Paced> {
        Arc::new(Paced::new(Arc::new(InMemory::new()), RATE))
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_share_the_pace() {
        let store = paced();
        let began = Instant::now();
        let upload = |name: &'static str| {
            let store = Arc::clone(&store);
            async move {
                let mut upload = store.put_multipart(&Path::from(name)).await.unwrap();
                for _ in 0..5 {
                    upload.put_part(vec![0_u8; 1000].into()).await.unwrap();
                }
                upload.complete().await.unwrap();
            }
        };
        tokio::join!(upload("a"), upload("b"));
        // Ten parts of a second each; the first begins at once, and nobody waits after the last.
        assert_eq!(began.elapsed().as_secs(), 9);
        store.put(&Path::from("c"), vec![0_u8; 1].into()).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn downloads_keep_the_pace_and_pauses_are_not_saved_up() {
        let store = paced();
        let path = Path::from("a");
        store.put(&path, vec![7_u8; 3000].into()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap().len(), 3000);
        }
        assert_eq!(began.elapsed().as_secs(), 6);
        let ranges = store.get_ranges(&path, &[0..10, 20..30]).await.unwrap();
        assert_eq!(ranges.len(), 2);
        assert_eq!(began.elapsed().as_secs(), 9);
    }

    #[test]
    fn absurd_sizes_and_rates_do_not_overflow() {
        let pace = Pace::new(NonZeroU64::MIN);
        let now = Clock::system().instant();
        assert_eq!(pace.reserve(usize::MAX, now), now);
        let _ = pace.reserve(usize::MAX, now);
        let pace = Pace::new(NonZeroU64::MAX);
        assert_eq!(pace.reserve(usize::MAX, now), now);
    }
}
