//! Reads one artifact: ranges of stored bytes, cut into frames, decompressed on the pool, handed out in order.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blake3::Hasher;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_core::backup::ArtifactReader;
use stackkit_core::{Error, Result};
use tokio_util::io::StreamReader;

use super::{FRAME_BYTES_MAX, FrameIndex, FrameSpan, Pool};
use crate::error::storage;

/// Stored bytes that are read at once: enough that a request's latency hides, little enough for constant memory.
const READ_BYTES: u64 = 2 << 20;

/// Reads in flight: one that is decompressed, one that arrives.
const READS_AHEAD: usize = 2;

/// Decompressed frames that wait beyond one for each thread.
const FRAMES_AHEAD_EXTRA: usize = 1;

/// What a manifest says of an artifact's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) path: Path,
    pub(crate) plain_bytes: u64,
    pub(crate) plain_blake3: String,
    pub(crate) stored_bytes: u64,
    pub(crate) stored_blake3: String,
    /// Plain bytes in each frame but the last.
    pub(crate) frame_bytes: u64,
    pub(crate) frames: u64,
    pub(crate) index_offset: u64,
}

impl Layout {
    /// Reads the frame index and checks it against the manifest.
    ///
    /// # Errors
    /// `Integrity` naming the offset of the index; the storage's kinds.
    pub(crate) async fn index(&self, store: &dyn ObjectStore) -> Result<FrameIndex> {
        let damaged = || {
            Error::integrity("the frame index is damaged")
                .with_context("object", &self.path)
                .with_context("offset", self.index_offset)
        };
        let size_bytes = FrameIndex::encoded_bytes(self.frames);
        if self.index_offset.checked_add(size_bytes) != Some(self.stored_bytes) {
            return Err(damaged());
        }
        let bytes = self.fetch(store, self.index_offset..self.stored_bytes).await?;
        let index = FrameIndex::decode(&bytes).map_err(|e| damaged().with_source(e))?;
        let (stored_max, plain_max) = index.largest();
        let sane = index.totals() == (self.index_offset, self.plain_bytes)
            && u64::from(plain_max) <= FRAME_BYTES_MAX
            && u64::from(stored_max) <= 2 * FRAME_BYTES_MAX;
        if sane { Ok(index) } else { Err(damaged()) }
    }

    /// Reads exactly `range` of the stored object.
    ///
    /// # Errors
    /// `Integrity` if it ends before; the storage's kinds.
    pub(crate) async fn fetch(&self, store: &dyn ObjectStore, range: Range<u64>) -> Result<Bytes> {
        let (start, wanted) = (range.start, range.end - range.start);
        let bytes = store.get_range(&self.path, range).await;
        let bytes = bytes.map_err(|e| storage("read an artifact", &self.path, e))?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        Err(Error::integrity("the object ends too early")
            .with_context("object", &self.path)
            .with_context("offset", start + bytes.len() as u64))
    }
}

/// One frame on its way to the reader.
struct Frame {
    stored: Bytes,
    plain: Bytes,
}

type Frames = Pin<Box<dyn Stream<Item = io::Result<Frame>> + Send>>;

/// Frames that lie beside each other and are read at once.
fn batches(spans: Vec<FrameSpan>) -> Vec<Vec<FrameSpan>> {
    let mut batches: Vec<Vec<FrameSpan>> = Vec::new();
    for span in spans {
        match batches.last_mut() {
            Some(batch) if span.stored.end - batch[0].stored.start <= READ_BYTES => batch.push(span),
            _ => batches.push(vec![span]),
        }
    }
    batches
}

/// Decompresses one frame, which must hold exactly `plain_bytes`.
pub(crate) async fn unpack(pool: &'static Pool, stored: Bytes, plain_bytes: usize) -> Result<Bytes> {
    Ok(Bytes::from_owner(pool.decompress(stored, plain_bytes).await?))
}

/// Some frames, in order. Nothing runs unless it is polled, and dropping it ends all of it.
fn frames(store: Arc<dyn ObjectStore>, layout: Arc<Layout>, spans: Vec<FrameSpan>) -> Result<Frames> {
    let pool = Pool::get()?;
    let reads = stream::iter(batches(spans)).map(move |batch| {
        let (store, layout) = (Arc::clone(&store), Arc::clone(&layout));
        async move {
            let (start, end) = (batch[0].stored.start, batch[batch.len() - 1].stored.end);
            let bytes = layout.fetch(&*store, start..end).await?;
            let cut = move |span: FrameSpan| {
                let at = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
                let stored = bytes.slice(at(span.stored.start)..at(span.stored.end));
                Ok::<_, Error>((Arc::clone(&layout), stored, span))
            };
            Ok(stream::iter(batch.into_iter().map(cut)))
        }
    });
    let frames = reads.buffered(READS_AHEAD).try_flatten().map(move |frame| async move {
        let (layout, stored, span) = frame?;
        let plain = unpack(pool, stored.clone(), span.plain_bytes()).await;
        let plain =
            plain.map_err(|e| e.with_context("object", &layout.path).with_context("offset", span.stored.start))?;
        Ok(Frame { stored, plain })
    });
    Ok(Box::pin(frames.buffered(pool.threads() + FRAMES_AHEAD_EXTRA).map_err(|e: Error| io::Error::other(e))))
}

/// The running check of a whole artifact: both hashes are compared before its end is told.
struct Checked {
    frames: Frames,
    plain: Hasher,
    stored: Hasher,
    index: FrameIndex,
    layout: Arc<Layout>,
    ended: Ended,
}

/// Whether a reader came to its end, with both hashes right.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended(Arc<AtomicBool>);

impl Ended {
    pub(crate) fn is_true(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Checked {
    fn end(&mut self) -> io::Result<()> {
        self.stored.update(&self.index.encode());
        let same = |hash: &Hasher, expected: &str| hash.finalize().to_hex().as_str() == expected;
        let wrong = match (same(&self.stored, &self.layout.stored_blake3), same(&self.plain, &self.layout.plain_blake3))
        {
            (true, true) => {
                self.ended.0.store(true, Ordering::Release);
                return Ok(());
            }
            (false, _) => "the stored bytes are not those of the backup",
            (true, false) => "the plain bytes are not those of the backup",
        };
        Err(io::Error::other(Error::integrity(wrong).with_context("object", &self.layout.path)))
    }
}

/// Streams the plain bytes from the start; the end comes only if the hashes are the manifest's.
pub(crate) async fn read_all(store: Arc<dyn ObjectStore>, layout: Layout) -> Result<(ArtifactReader, Ended)> {
    let index = layout.index(&*store).await?;
    let layout = Arc::new(layout);
    let frames = frames(store, Arc::clone(&layout), index.spans().collect())?;
    let ended = Ended::default();
    let checked = Checked { frames, plain: Hasher::new(), stored: Hasher::new(), index, layout, ended: ended.clone() };
    let stream = stream::try_unfold(checked, |mut checked| async move {
        match checked.frames.next().await.transpose()? {
            Some(frame) => {
                checked.stored.update(&frame.stored);
                checked.plain.update(&frame.plain);
                Ok(Some((frame.plain, checked)))
            }
            None => checked.end().map(|()| None),
        }
    });
    Ok((Box::new(StreamReader::new(Box::pin(stream))), ended))
}

/// Streams `range` of the plain bytes; reads only the frames that it touches.
pub(crate) async fn read_range(
    store: Arc<dyn ObjectStore>,
    layout: Layout,
    range: Range<u64>,
) -> Result<ArtifactReader> {
    if range.start > range.end || range.end > layout.plain_bytes {
        return Err(Error::config("the range lies beyond the artifact's end")
            .with_context("range", format!("{}..{}", range.start, range.end))
            .with_context("plain_bytes", layout.plain_bytes));
    }
    let index = layout.index(&*store).await?;
    let touched = |span: &FrameSpan| span.plain.start < range.end && range.start < span.plain.end;
    let spans: Vec<_> = index.spans().filter(touched).collect();
    let mut position = spans.first().map_or(range.start, |span| span.plain.start);
    let plain = frames(store, Arc::new(layout), spans)?.map_ok(move |frame| {
        let start = position;
        position += frame.plain.len() as u64;
        let at = |offset: u64| usize::try_from(offset.clamp(start, position) - start).unwrap_or(usize::MAX);
        frame.plain.slice(at(range.start)..at(range.end))
    });
    Ok(Box::new(StreamReader::new(Box::pin(plain))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_fit_one_read_are_read_at_once() {
        let mut index = FrameIndex::default();
        for size in [READ_BYTES - 10, 10, 1, 3 * READ_BYTES, 5] {
            index.push(usize::try_from(size).unwrap(), 1).unwrap();
        }
        let sizes: Vec<_> = batches(index.spans().collect()).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
    }
}
