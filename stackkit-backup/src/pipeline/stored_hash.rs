//! The hash of an object's bytes as they are stored, which needs no key.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResultPayload, ObjectStore};
use stackkit_core::{Error, ErrorKind, Result};

use super::{Layout, Pool, Subtree, Tree};
use crate::error::storage;

/// Bytes that are read at once: few requests, little enough for a core's cache, and a power of two, so that each is a
/// subtree of the hash.
const READ_BYTES: usize = 1 << 20;

/// Reads in flight: enough that some are hashed while others arrive.
const READS_AHEAD: usize = 6;

/// Hashes the object, which should be as long as `layout` says; `tell` hears how many bytes are read.
///
/// # Errors
/// `NotFound`; `Integrity` if the object ends before; the storage's kinds.
pub(crate) async fn stored_hash(
    store: &dyn ObjectStore,
    layout: &Layout,
    tell: &(dyn Fn(u64) + Sync),
) -> Result<String> {
    let pool = Pool::get()?;
    let file = open(store, layout).await?;
    let end = |start: u64| start.saturating_add(READ_BYTES as u64).min(layout.stored_bytes);
    let starts = (0..layout.stored_bytes).step_by(READ_BYTES);
    let pieces = (0_u64..).zip(starts).map(|(number, start)| {
        let file = file.clone();
        async move {
            let piece = match file {
                Some(file) => file.hash(layout, number, start..end(start)).await?,
                None => {
                    let bytes: Bytes = layout.fetch(store, start..end(start)).await?;
                    pool.run(move || Subtree::of(READ_BYTES, number, &bytes)).await?
                }
            };
            Ok::<_, Error>((piece, end(start)))
        }
    });
    let mut pieces = stream::iter(pieces).buffered(READS_AHEAD);
    let mut hash = Tree::default();
    while let Some((piece, read_bytes)) = pieces.try_next().await? {
        hash.push(&piece.ok_or_else(|| Error::unexpected("stored bytes could not be hashed"))?);
        tell(read_bytes);
    }
    Ok(hash.hash().to_hex().to_string())
}

/// An object that is a file of this machine. It is read here, into the same buffers again and again: a store makes new
/// ones each time, and to touch their pages costs as much as to hash them.
#[derive(Clone)]
struct Local {
    file: Arc<File>,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// The object's file; `None` if it is not on this machine, or is empty.
async fn open(store: &dyn ObjectStore, layout: &Layout) -> Result<Option<Local>> {
    if !cfg!(unix) || layout.stored_bytes == 0 {
        return Ok(None);
    }
    // Of a store in a network only one byte is asked for, because it sends what it is asked for.
    let options = GetOptions { range: Some((0..1).into()), ..GetOptions::default() };
    let got = store.get_opts(&layout.path, options).await;
    let got = got.map_err(|e| storage("read an artifact", &layout.path, e))?;
    Ok(match got.payload {
        GetResultPayload::File(file, _) => Some(Local { file: Arc::new(file), free: Arc::default() }),
        GetResultPayload::Stream(_) => None,
    })
}

impl Local {
    async fn hash(self, layout: &Layout, number: u64, range: std::ops::Range<u64>) -> Result<Option<Subtree>> {
        let (start, wanted) = (range.start, usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        // A piece that nobody waits for any more is read to its end.
        let hashed = tokio::task::spawn_blocking(move || {
            let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut buffer = kept.unwrap_or_else(|| vec![0; READ_BYTES]);
            let found = read_at(&self.file, &mut buffer[..wanted.min(READ_BYTES)], start)?;
            let piece = Subtree::of(READ_BYTES, number, &buffer[..found]);
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
            Ok((piece, found))
        });
        let hashed = hashed.await;
        let hashed = hashed.map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?;
        let named = |e| Error::io("read an artifact", e).with_context("object", &layout.path);
        let (piece, found) = hashed.map_err(named)?;
        match found == wanted {
            true => Ok(piece),
            false => Err(layout.damaged("the object ends too early", start + found as u64)),
        }
    }
}

/// Reads until `buffer` is full or the file ends, and gives how much it read.
#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], start: u64) -> std::io::Result<usize> {
    use std::os::unix::fs::FileExt;
    let mut found = 0;
    while found < buffer.len() {
        match file.read_at(&mut buffer[found..], start + found as u64) {
            Ok(0) => break,
            Ok(read) => found += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Never asked: no file is opened here.
#[cfg(not(unix))]
fn read_at(_: &File, _: &mut [u8], _: u64) -> std::io::Result<usize> {
    Err(std::io::ErrorKind::Unsupported.into())
}
