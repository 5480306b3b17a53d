//! Checks an artifact's stored bytes, and finds where they are damaged.

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_core::{Error, ErrorKind, Result};

use super::is_damage;
use super::report::Finding;
use crate::error::storage;
use crate::keys::Identity;
use crate::pipeline::{FrameIndex, FrameSpan, Layout, OwnPlace, Plain, Pool, Stored, stored_hash, unpack};

/// Damaged frames that are told of one artifact. More say nothing that these don't.
const FINDINGS_MAX: usize = 16;

/// Checks that the object is there and as long as the manifest says.
///
/// # Errors
/// `NotFound`, `Integrity`; the storage's kinds.
pub(crate) async fn check_size(store: &dyn ObjectStore, layout: &Layout) -> Result<()> {
    let found = size_bytes(store, layout).await?;
    match found == layout.stored_bytes {
        true => Ok(()),
        false => Err(Error::integrity("the object is of another size")
            .with_context("expected", layout.stored_bytes)
            .with_context("found", found)),
    }
}

async fn size_bytes(store: &dyn ObjectStore, layout: &Layout) -> Result<u64> {
    Ok(store.head(&layout.path).await.map_err(|e| storage("check an artifact", &layout.path, e))?.size)
}

/// Checks size and hash of the stored bytes; tells how many were read until now.
///
/// # Errors
/// As [`check_size`].
pub(super) async fn check_stored(store: &dyn ObjectStore, layout: &Layout, tell: &(dyn Fn(u64) + Sync)) -> Result<()> {
    check_size(store, layout).await?;
    match stored_hash(store, layout, tell).await? == layout.stored_blake3 {
        true => Ok(()),
        false => Err(Error::integrity("the stored bytes are not those of the backup")),
    }
}

/// Finds what is damaged in an artifact that is known to be wrong; nothing if its stored bytes are the manifest's. Frames
/// of an encrypted artifact are told only with an identity that reads it.
///
/// # Errors
/// Only if it can't be looked at.
pub(super) async fn locate(
    store: &dyn ObjectStore,
    layout: &Layout,
    identity: Option<&Identity>,
) -> Result<Vec<Finding>> {
    let size_bytes = match size_bytes(store, layout).await {
        Ok(size_bytes) => size_bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(vec![Finding::new(None, None, "the object is missing")]);
        }
        Err(error) if is_damage(&error) => return Ok(vec![Finding::new(None, None, error.to_string())]),
        Err(error) => return Err(error),
    };
    if size_bytes < layout.stored_bytes {
        let message = format!("the object is cut: {size_bytes} of {} bytes are left", layout.stored_bytes);
        let finding = match open(store, layout, identity).await? {
            Opened::Stored(stored) => walk(store, &stored, size_bytes).await?,
            Opened::Finding(_) => Finding::new(Some(size_bytes), None, ""),
        };
        return Ok(vec![Finding { message, ..finding }]);
    }
    if size_bytes > layout.stored_bytes {
        let message = format!("the object has {} bytes too many", size_bytes - layout.stored_bytes);
        return Ok(vec![Finding::new(Some(layout.stored_bytes), None, message)]);
    }
    match check_stored(store, layout, &|_| {}).await {
        Ok(()) => return Ok(Vec::new()),
        Err(error) if is_damage(&error) => {}
        Err(error) => return Err(error),
    }
    let stored = match open(store, layout, identity).await? {
        Opened::Stored(stored) => stored,
        Opened::Finding(finding) => return Ok(vec![finding]),
    };
    match stored.index(store).await {
        Ok(index) => among_frames(store, &stored, &index).await,
        Err(error) if is_damage(&error) => Ok(vec![walk(store, &stored, size_bytes).await?]),
        Err(error) => Err(error),
    }
}

/// An artifact that can be looked into, or what is to say if it can't.
enum Opened {
    Stored(Stored),
    Finding(Finding),
}

async fn open(store: &dyn ObjectStore, layout: &Layout, identity: Option<&Identity>) -> Result<Opened> {
    match Stored::open(store, layout.clone(), identity).await {
        Ok(stored) => Ok(Opened::Stored(stored)),
        Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Unauthenticated) => {
            let message = "the stored bytes are not those of the backup; an identity would tell where";
            Ok(Opened::Finding(Finding::new(None, None, message)))
        }
        Err(error) if is_damage(&error) => Ok(Opened::Finding(Finding::new(Some(0), None, error.message()))),
        Err(error) => Err(error),
    }
}

/// Follows the frames from the start without an index, up to the first that is damaged or cut.
async fn walk(store: &dyn ObjectStore, stored: &Stored, size_bytes: u64) -> Result<Finding> {
    let pool = Pool::get()?;
    let layout = stored.layout();
    let left = stored.compressed_before(size_bytes);
    let (mut at, mut frame) = (0_u64, 0_u64);
    while frame < layout.frames {
        let plain_bytes = plain_bytes_of(layout, frame);
        let most = zstd::compress_bound(plain_bytes) as u64;
        let bytes = stored.read_whole(store, at..at.saturating_add(most).min(left)).await;
        let whole = match bytes {
            Ok(bytes) => whole_frame(pool, bytes, plain_bytes).await,
            Err(error) if is_damage(&error) => None,
            Err(error) => return Err(error),
        };
        let Some(compressed_bytes) = whole else {
            return Ok(Finding::new(Some(stored.offset_of(at)), Some(frame), "the frame is damaged"));
        };
        at += compressed_bytes;
        frame += 1;
    }
    Ok(Finding::new(Some(stored.offset_of(at)), None, "the frame index is damaged"))
}

/// How many plain bytes a frame holds: all are full but the last.
fn plain_bytes_of(layout: &Layout, frame: u64) -> usize {
    let before = frame.saturating_mul(layout.frame_bytes);
    usize::try_from(layout.plain_bytes.saturating_sub(before).min(layout.frame_bytes)).unwrap_or(usize::MAX)
}

/// The stored size of the frame at the start of `bytes`, if it is whole.
async fn whole_frame(pool: &'static Pool, bytes: Bytes, plain_bytes: usize) -> Option<u64> {
    let size = zstd::zstd_safe::find_frame_compressed_size(&bytes).ok().filter(|size| *size <= bytes.len())?;
    unpack(pool, bytes.slice(..size), plain_bytes).await.ok()?;
    Some(size as u64)
}

/// Checks each frame by itself.
async fn among_frames(store: &dyn ObjectStore, stored: &Stored, index: &FrameIndex) -> Result<Vec<Finding>> {
    let pool = Pool::get()?;
    let (mut damaged, mut changed) = (Vec::new(), Vec::new());
    for (frame, span) in (0_u64..).zip(index.spans()) {
        match check_frame(pool, store, stored, &span).await {
            Ok(Frame::Same) => {}
            Ok(Frame::Changed) => changed.push((frame, span)),
            Err(error) if is_damage(&error) => damaged.push((frame, span)),
            Err(error) => return Err(error),
        }
        if damaged.len() == FINDINGS_MAX {
            break;
        }
    }
    let tell = |found: Vec<(u64, FrameSpan)>, message: &str| {
        let one = |(frame, span): (u64, FrameSpan)| {
            Finding::new(Some(stored.offset_of(span.stored.start)), Some(frame), message)
        };
        found.into_iter().take(FINDINGS_MAX).map(one).collect()
    };
    // Some bits of a frame mean nothing to zstd. Only frames that this version would write otherwise can have such a
    // flip; if all would be, another version wrote them and nothing can be told apart.
    let telling = changed.len() == 1 || changed.len() < index.len();
    Ok(match (damaged.is_empty(), changed.is_empty(), telling) {
        (false, ..) => tell(damaged, "the frame is damaged"),
        (true, false, true) => tell(changed, "the frame is not the one that was stored"),
        _ => vec![Finding::new(None, None, "the frames are whole, but not those that were stored")],
    })
}

/// A frame that can be decompressed.
enum Frame {
    /// Compressing its content again gives the same bytes.
    Same,
    /// It does not.
    Changed,
}

async fn check_frame(pool: &'static Pool, store: &dyn ObjectStore, stored: &Stored, span: &FrameSpan) -> Result<Frame> {
    let compressed = stored.read(store, span.stored.clone()).await?;
    let plain = unpack(pool, compressed.clone(), span.plain_bytes()).await?;
    let packed = pool.compress(0, Plain::Shared(plain), &OwnPlace::new()).await?;
    let packed = packed.await.map_err(|e| Error::unexpected("a compression thread ended").with_source(e))??;
    Ok(if packed.bytes[..] == compressed[..] { Frame::Same } else { Frame::Changed })
}
