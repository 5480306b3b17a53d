//! Reads one artifact: ranges of stored bytes, decrypted and decompressed on the pool, handed out in order.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use stackkit_core::backup::ArtifactReader;
use stackkit_core::{Error, Result};
use tokio_util::io::StreamReader;

use super::subtrees::{SharedHash, Subtree, Tree, is_piece_size};
use super::{FrameSpan, Layout, Pool, Stored};
use crate::age::CHUNK_BYTES;
use crate::keys::Identity;

/// Stored bytes that are read at once: enough that a request's latency hides, little enough for constant memory.
const READ_BYTES: u64 = 2 << 20;

/// Reads in flight: one that is decompressed, one that arrives.
const READS_AHEAD: usize = 2;

/// Reads that are decrypted at once: one more than the next stage takes.
const UNSEALED_AHEAD: usize = 2;

/// Frames for each thread that are decompressed or wait to be taken: whoever takes them may be late by as much.
const FRAMES_AHEAD_PER_THREAD: usize = 3;

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;
type Frames = Pin<Box<dyn Stream<Item = io::Result<Frame>> + Send>>;

/// A frame's plain bytes, and what they are in the hash of all of them.
struct Frame {
    plain: Bytes,
    subtree: Option<Subtree>,
}

/// How compressed bytes are read piece by piece, so that little of a frame is in two pieces.
fn pieces(stored: &Stored, spans: &[FrameSpan], end: u64) -> Vec<Range<u64>> {
    let Some(start) = spans.first().map(|span| span.stored.start).or((end > 0).then_some(0)) else {
        return Vec::new();
    };
    match stored.layout().encrypted_to {
        None => whole_frames(spans, end),
        Some(_) => whole_chunks(start, end),
    }
}

/// Pieces that end where frames do.
fn whole_frames(spans: &[FrameSpan], end: u64) -> Vec<Range<u64>> {
    let tail = spans.last().map_or(0, |span| span.stored.end);
    let ranges = spans.iter().map(|span| span.stored.clone()).chain((tail < end).then_some(tail..end));
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match pieces.last_mut() {
            Some(piece) if range.end - piece.start <= READ_BYTES => piece.end = range.end,
            _ => pieces.push(range),
        }
    }
    pieces
}

/// Pieces that end where chunks do.
fn whole_chunks(start: u64, end: u64) -> Vec<Range<u64>> {
    let chunk = CHUNK_BYTES as u64;
    let mut pieces = Vec::new();
    let mut at = start;
    while at < end {
        let next = ((at / chunk) * chunk).saturating_add(READ_BYTES).min(end);
        pieces.push(at..next);
        at = next;
    }
    pieces
}

/// Compressed bytes, in order. Nothing runs unless it is polled, and dropping it ends all of it.
fn compressed(
    store: Arc<dyn ObjectStore>,
    stored: Arc<Stored>,
    pieces: Vec<Range<u64>>,
    hash: Option<SharedHash>,
) -> Pieces {
    let fetched = Arc::clone(&stored);
    let sealed = stream::iter(pieces).map(move |piece| {
        let (store, stored) = (Arc::clone(&store), Arc::clone(&fetched));
        async move { Ok::<_, Error>((stored.fetch(&*store, piece.clone()).await?, piece)) }
    });
    let opened = sealed.buffered(READS_AHEAD).map(move |read| {
        let stored = Arc::clone(&stored);
        let whole = hash.as_ref().zip(read.as_ref().ok()).map(|(hash, (sealed, _))| hash.take(sealed));
        async move {
            let (sealed, piece) = read?;
            stored.unseal(sealed, piece, whole).await
        }
    });
    Box::pin(opened.buffered(UNSEALED_AHEAD))
}

/// Cuts compressed bytes into frames.
struct Cutter {
    pieces: Pieces,
    rest: Bytes,
    spans: VecDeque<FrameSpan>,
}

impl Cutter {
    async fn next(&mut self) -> Result<Option<(Bytes, FrameSpan)>> {
        let Some(span) = self.spans.pop_front() else {
            // What follows the frames is read for its hash only.
            while self.pieces.try_next().await?.is_some() {}
            return Ok(None);
        };
        let wanted = usize::try_from(span.stored.end - span.stored.start).unwrap_or(usize::MAX);
        while self.rest.len() < wanted {
            let piece = self.pieces.try_next().await?;
            let mut piece = piece.ok_or_else(|| Error::unexpected("an artifact was read in too few pieces"))?;
            if self.rest.is_empty() {
                self.rest = piece;
                continue;
            }
            let missing = piece.split_to(piece.len().min(wanted - self.rest.len()));
            let mut frame = BytesMut::with_capacity(self.rest.len() + missing.len());
            frame.extend_from_slice(&self.rest);
            frame.extend_from_slice(&missing);
            if frame.len() == wanted {
                self.rest = piece;
                return Ok(Some((frame.freeze(), span)));
            }
            self.rest = frame.freeze();
        }
        Ok(Some((self.rest.split_to(wanted), span)))
    }
}

/// Decompresses one frame, which must hold exactly `plain_bytes`.
pub(crate) async fn unpack(pool: &'static Pool, stored: Bytes, plain_bytes: usize) -> Result<Bytes> {
    Ok(Bytes::from_owner(pool.decompress(stored, plain_bytes, |_| ()).await?.0))
}

/// The size of the pieces of the plain hash; `None` if the frames are no such pieces.
fn piece_bytes(layout: &Layout, spans: &[FrameSpan]) -> Option<usize> {
    let size = usize::try_from(layout.frame_bytes).ok().filter(|size| is_piece_size(*size))?;
    let (last, full) = spans.split_last()?;
    let pieces = full.iter().all(|span| span.plain_bytes() == size) && (1..=size).contains(&last.plain_bytes());
    pieces.then_some(size)
}

/// The plain bytes of some frames, in order, hashed as pieces of `piece_bytes`. Nothing runs unless it is polled, and dropping it ends all of it.
fn frames(pieces: Pieces, stored: Arc<Stored>, spans: Vec<FrameSpan>, piece_bytes: Option<usize>) -> Result<Frames> {
    let pool = Pool::get()?;
    let cutter = Cutter { pieces, rest: Bytes::new(), spans: spans.into() };
    let cut = stream::try_unfold(cutter, |mut cutter| async move {
        let frame = cutter.next().await?;
        Ok::<_, Error>(frame.map(|frame| (frame, cutter)))
    });
    let frames = cut.enumerate().map(move |(number, frame)| {
        let stored = Arc::clone(&stored);
        let hash = move |plain: &[u8]| piece_bytes.and_then(|size| Subtree::of(size, number as u64, plain));
        async move {
            let (compressed, span) = frame?;
            let plain = pool.decompress(compressed, span.plain_bytes(), hash).await;
            let offset = stored.offset_of(span.stored.start);
            let named = |e: Error| e.with_context("object", &stored.layout().path).with_context("offset", offset);
            plain.map(|(plain, subtree)| Frame { plain: Bytes::from_owner(plain), subtree }).map_err(named)
        }
    });
    let frames = frames.buffered(pool.threads() * FRAMES_AHEAD_PER_THREAD);
    Ok(Box::pin(frames.map_err(|e: Error| io::Error::other(e))))
}

/// The running check of a whole artifact: both hashes are compared before its end is told.
struct Checked {
    frames: Frames,
    plain: PlainHash,
    hash: SharedHash,
    stored: Arc<Stored>,
    ended: Ended,
}

/// The hash of the plain bytes: put together from those of the frames, if they are pieces of it.
enum PlainHash {
    Frames(Tree),
    Bytes(Box<Hasher>),
}

impl PlainHash {
    fn push(&mut self, frame: &Frame) {
        match (self, &frame.subtree) {
            (Self::Frames(tree), Some(subtree)) => tree.push(subtree),
            // The hash is wrong without it, as it should be.
            (Self::Frames(_), None) => {}
            (Self::Bytes(hasher), _) => {
                hasher.update(&frame.plain);
            }
        }
    }

    fn text(&mut self) -> String {
        let hash = match self {
            Self::Frames(tree) => std::mem::take(tree).hash(),
            Self::Bytes(hasher) => hasher.finalize(),
        };
        hash.to_hex().to_string()
    }
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
        let layout = self.stored.layout();
        let wrong = match (self.hash.text() == layout.stored_blake3, self.plain.text() == layout.plain_blake3) {
            (true, true) => {
                self.ended.0.store(true, Ordering::Release);
                return Ok(());
            }
            (false, _) => "the stored bytes are not those of the backup",
            (true, false) => "the plain bytes are not those of the backup",
        };
        Err(io::Error::other(Error::integrity(wrong).with_context("object", &layout.path)))
    }
}

/// Streams the plain bytes from the start; the end comes only if the hashes are the manifest's.
///
/// # Errors
/// `Config` without an identity for an encrypted artifact; `Unauthenticated` if none of its keys can read it;
/// `Integrity`; the storage's kinds. The reader's own errors carry the same.
pub(crate) async fn read_all(
    store: Arc<dyn ObjectStore>,
    layout: Layout,
    identity: Option<&Identity>,
) -> Result<(ArtifactReader, Ended)> {
    let stored = Arc::new(Stored::open(&*store, layout, identity).await?);
    let index = stored.index(&*store).await?;
    let spans: Vec<_> = index.spans().collect();
    let hash = SharedHash::default();
    hash.take(stored.head()).hash(stored.head());
    let piece_bytes = piece_bytes(stored.layout(), &spans);
    let plain = match piece_bytes {
        Some(_) => PlainHash::Frames(Tree::default()),
        None => PlainHash::Bytes(Box::default()),
    };
    let pieces = pieces(&stored, &spans, stored.compressed_bytes());
    let pieces = compressed(store, Arc::clone(&stored), pieces, Some(hash.clone()));
    let frames = frames(pieces, Arc::clone(&stored), spans, piece_bytes)?;
    let ended = Ended::default();
    let checked = Checked { frames, plain, hash, stored, ended: ended.clone() };
    let stream = stream::try_unfold(checked, |mut checked| async move {
        match checked.frames.next().await.transpose()? {
            Some(frame) => {
                checked.plain.push(&frame);
                Ok(Some((frame.plain, checked)))
            }
            None => checked.end().map(|()| None),
        }
    });
    Ok((Box::new(StreamReader::new(Box::pin(stream))), ended))
}

/// Streams `range` of the plain bytes; reads only the chunks and the frames that it touches.
///
/// # Errors
/// As [`read_all`]; `Config` for a range that the artifact does not have.
pub(crate) async fn read_range(
    store: Arc<dyn ObjectStore>,
    layout: Layout,
    identity: Option<&Identity>,
    range: Range<u64>,
) -> Result<ArtifactReader> {
    if range.start > range.end || range.end > layout.plain_bytes {
        return Err(Error::config("the range lies beyond the artifact's end")
            .with_context("range", format!("{}..{}", range.start, range.end))
            .with_context("plain_bytes", layout.plain_bytes));
    }
    let stored = Arc::new(Stored::open(&*store, layout, identity).await?);
    let index = stored.index(&*store).await?;
    let touched = |span: &FrameSpan| span.plain.start < range.end && range.start < span.plain.end;
    let spans: Vec<_> = index.spans().filter(touched).collect();
    let mut position = spans.first().map_or(range.start, |span| span.plain.start);
    let pieces = pieces(&stored, &spans, spans.last().map_or(0, |span| span.stored.end));
    let pieces = compressed(store, Arc::clone(&stored), pieces, None);
    let plain = frames(pieces, stored, spans, None)?.map_ok(move |Frame { plain, .. }| {
        let start = position;
        position += plain.len() as u64;
        let at = |offset: u64| usize::try_from(offset.clamp(start, position) - start).unwrap_or(usize::MAX);
        plain.slice(at(range.start)..at(range.end))
    });
    Ok(Box::new(StreamReader::new(Box::pin(plain))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::FrameIndex;
    use super::*;

    #[test]
    fn frames_that_fit_one_read_are_read_at_once() {
        let mut index = FrameIndex::default();
        for size in [READ_BYTES - 10, 10, 1, 3 * READ_BYTES, 5] {
            index.push(usize::try_from(size).unwrap(), 1).unwrap();
        }
        let spans: Vec<_> = index.spans().collect();
        let end = index.totals().0;
        let pieces = whole_frames(&spans, end + 20);
        assert_eq!(pieces, [0..READ_BYTES, READ_BYTES..READ_BYTES + 1, READ_BYTES + 1..end - 5, end - 5..end + 20]);
    }

    proptest! {
        #[test]
        fn pieces_of_chunks_follow_each_other(start in 0..5 * READ_BYTES, length in 0..5 * READ_BYTES) {
            let end = start + length;
            let mut at = start;
            for piece in whole_chunks(start, end) {
                prop_assert_eq!(piece.start, at);
                prop_assert!(piece.end > at && piece.end - at <= READ_BYTES);
                prop_assert!(piece.end == end || piece.end % CHUNK_BYTES as u64 == 0);
                at = piece.end;
            }
            prop_assert_eq!(at, end);
        }
    }
}
