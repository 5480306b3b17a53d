//! The hash of an object's bytes as they are stored, which needs no key.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResultPayload, ObjectStore};
use stackkit_core::{Error, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

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
    let pieces = match open(store, layout).await? {
        Some(file) => of_file(pool, file, layout).left_stream(),
        None => of_store(pool, store, layout).right_stream(),
    };
    let mut pieces = std::pin::pin!(pieces);
    let mut hash = Tree::default();
    let mut read_bytes = 0;
    while let Some(piece) = pieces.try_next().await? {
        hash.push(&piece.ok_or_else(|| Error::unexpected("stored bytes could not be hashed"))?);
        read_bytes = layout.stored_bytes.min(read_bytes + READ_BYTES as u64);
        tell(read_bytes);
    }
    Ok(hash.hash().to_hex().to_string())
}

/// The pieces of an object of any store: several are asked for at once.
fn of_store<'a>(
    pool: &'static Pool,
    store: &'a dyn ObjectStore,
    layout: &'a Layout,
) -> impl Stream<Item = Result<Option<Subtree>>> + 'a {
    let pieces = numbered(layout).map(move |(number, range)| async move {
        let bytes: Bytes = layout.fetch(store, range).await?;
        pool.run(move || Subtree::of(READ_BYTES, number, &bytes)).await
    });
    stream::iter(pieces).buffered(READS_AHEAD)
}

/// Each piece's number and place.
fn numbered(layout: &Layout) -> impl Iterator<Item = (u64, Range<u64>)> + use<> {
    let stored_bytes = layout.stored_bytes;
    let starts = (0..stored_bytes).step_by(READ_BYTES);
    (0_u64..).zip(starts.map(move |start| start..start.saturating_add(READ_BYTES as u64).min(stored_bytes)))
}

/// The object's file; `None` if it is not on this machine, or is empty.
async fn open(store: &dyn ObjectStore, layout: &Layout) -> Result<Option<File>> {
    if layout.stored_bytes == 0 {
        return Ok(None);
    }
    // Of a store in a network only one byte is asked for, because it sends what it is asked for.
    let options = GetOptions { range: Some((0..1).into()), ..GetOptions::default() };
    let got = store.get_opts(&layout.path, options).await;
    let got = got.map_err(|e| storage("read an artifact", &layout.path, e))?;
    Ok(match got.payload {
        GetResultPayload::File(file, _) => Some(file),
        GetResultPayload::Stream(_) => None,
    })
}

/// The pieces of a file of this machine. One thread reads it from its start, in order, because the system reads ahead for
/// whoever does, and into the same buffers again and again, because to touch new pages costs as much as to hash them; the pool
/// hashes.
fn of_file<'a>(
    pool: &'static Pool,
    file: File,
    layout: &'a Layout,
) -> impl Stream<Item = Result<Option<Subtree>>> + 'a {
    let (filled, mut read) = mpsc::channel(READS_AHEAD);
    let buffers: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let free = Arc::clone(&buffers);
    let ranges = numbered(layout);
    let reading = tokio::task::spawn_blocking(move || read_in_order(file, ranges, &free, &filled));
    let reading = AbortOnDropHandle::new(reading);
    let read = stream::poll_fn(move |context| {
        // Owned by who takes its pieces: it ends at the first that nobody takes.
        let _owned = &reading;
        read.poll_recv(context)
    });
    let hashed = read.map(move |piece: io::Result<Piece>| {
        let buffers = Arc::clone(&buffers);
        async move {
            let named = |e| Error::io("read an artifact", e).with_context("object", &layout.path);
            let Piece { number, range, buffer, found } = piece.map_err(named)?;
            if found as u64 != range.end - range.start {
                return Err(layout.damaged("the object ends too early", range.start + found as u64));
            }
            let (hashed, buffer) =
                pool.run(move || (Subtree::of(READ_BYTES, number, &buffer[..found]), buffer)).await?;
            buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
            Ok(hashed)
        }
    });
    hashed.buffered(pool.threads() + 1)
}

/// What was read of a piece.
struct Piece {
    number: u64,
    range: Range<u64>,
    buffer: Vec<u8>,
    found: usize,
}

fn read_in_order(
    mut file: File,
    ranges: impl Iterator<Item = (u64, Range<u64>)>,
    free: &Mutex<Vec<Vec<u8>>>,
    filled: &mpsc::Sender<io::Result<Piece>>,
) {
    // It was opened for one byte; where it stands then is the store's affair.
    let mut rewound = file.seek(SeekFrom::Start(0)).map(drop);
    for (number, range) in ranges {
        let kept = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = kept.unwrap_or_else(|| vec![0; READ_BYTES]);
        let wanted = usize::try_from(range.end - range.start).unwrap_or(READ_BYTES).min(READ_BYTES);
        let found = std::mem::replace(&mut rewound, Ok(())).and_then(|()| read_full(&mut file, &mut buffer[..wanted]));
        let piece = found.map(|found| Piece { number, range, buffer, found });
        let last = !piece.as_ref().is_ok_and(|piece| piece.found == wanted);
        if filled.blocking_send(piece).is_err() || last {
            return;
        }
    }
}

/// Reads until `buffer` is full or the file ends, and gives how much it read.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut found = 0;
    while found < buffer.len() {
        match file.read(&mut buffer[found..]) {
            Ok(0) => break,
            Ok(read) => found += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
