//! What the fuzzers in `fuzz/` call. Each function takes any bytes, and panics where a promise is broken.
#![allow(clippy::panic, reason = "a fuzzer is told by a panic that a promise is broken")]

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_core::backup::ArtifactReader;
use stackkit_core::{Result, Secret};
use tokio::io::AsyncReadExt;
use tokio_util::task::TaskTracker;

use crate::age;
use crate::keys::Identity;
use crate::manifest::{Manifest, canonical};
use crate::pipeline::{
    Destination, FRAME_BYTES, FRAME_BYTES_MAX, FrameIndex, Layout, Parts, Writer, read_all, read_range,
};

/// Number of frames, descriptor, magic: what an index ends with.
const FOOTER_BYTES: usize = 9;

/// The bytes of one edit: where, and what is flipped there.
const EDIT_BYTES: usize = 3;

/// The most plain bytes that are read out of one input: the index of a few bytes can promise terabytes.
const PLAIN_BYTES_MAX: u64 = 4 * FRAME_BYTES_MAX;

/// A manifest is refused, or what is written of it reads as the same manifest.
pub fn manifest(input: &[u8]) {
    for text in with_checksum(input) {
        if let Ok(manifest) = Manifest::from_json(&text) {
            let written = manifest.to_json().unwrap_or_default();
            let again = Manifest::from_json(written.as_bytes()).ok();
            assert!(again == Some(manifest), "a manifest that was read is written as another: {written}");
        }
    }
}

/// The record of a lease is refused, or it survives being written again.
pub fn lease(input: &[u8]) {
    rewritten(input, |text| crate::lease::rewrite_record(text).map(|text| text.to_vec()));
}

/// A tombstone is refused, or it survives being written again.
pub fn tombstone(input: &[u8]) {
    rewritten(input, |text| crate::retention::rewrite_tombstone(text).map(String::into_bytes));
}

/// What was read once is read again, and then nothing changes any more.
fn rewritten(input: &[u8], rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    for text in with_checksum(input) {
        if let Some(again) = rewrite(&text) {
            assert!(rewrite(&again).as_ref() == Some(&again), "a document that was read is written as another");
        }
    }
}

/// The input, and if it is JSON the same with the right checksum, so that the members behind it are reached.
fn with_checksum(input: &[u8]) -> Vec<Vec<u8>> {
    let sealed = serde_json::from_slice(input).ok().and_then(|document| canonical::seal(document).ok());
    [input.to_vec()].into_iter().chain(sealed.map(String::into_bytes)).collect()
}

/// An index is refused, or it is exactly what is written again.
pub fn frame_index(input: &[u8]) {
    if let Ok(index) = FrameIndex::decode(input) {
        assert_eq!(index.encode(), input, "an index that was read is written differently");
        let (stored, plain) = index.totals();
        let end = index.spans().last().map_or((0, 0), |span| (span.stored.end, span.plain.end));
        assert_eq!((stored, plain), end, "the spans do not add up");
    }
}

/// The first byte says how the rest is read: as an artifact of its own, or as plain bytes that are written as one, with
/// edits of the stored bytes before them; either encrypted or not. An edited artifact never gives other bytes than those
/// that were written.
pub fn artifact_reader(input: &[u8]) {
    let Some((mode, input)) = input.split_first() else { return };
    let key = if mode & 2 == 0 { None } else { Some(identity()) };
    block_on(async {
        match mode & 1 {
            0 => any_artifact(input, key).await,
            _ => edited_artifact(input, key).await,
        }
    });
}

/// A file of the encryption, as it is and as the content of one.
pub fn age_file(input: &[u8]) {
    let key = identity();
    // What opens may be anything: the seal says that somebody with the public key made it.
    drop(age::decrypt(key, input));
    let Ok(mut sealed) = age::encrypt(&key.recipients(), input) else { panic!("bytes can't be encrypted") };
    assert!(age::decrypt(key, &sealed).is_ok_and(|plain| *plain == input), "what was encrypted is not what comes back");
    let at = input.iter().fold(0, |at, byte| (at * 31 + usize::from(*byte)) % sealed.len());
    sealed[at] ^= 1 << (at % 8);
    assert!(age::decrypt(key, &sealed).is_err(), "a change of byte {at} is not found");
}

/// One identity for all inputs, so that a corpus can hold what is encrypted to it.
fn identity() -> &'static Identity {
    static KEY: OnceLock<Identity> = OnceLock::new();
    let text = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    KEY.get_or_init(|| match Identity::parse(&Secret::from(text.to_owned())) {
        Ok(identity) => identity,
        Err(error) => panic!("the identity of the tests is none: {error}"),
    })
}

/// Reads bytes as an artifact whose manifest says of them what they say of themselves.
async fn any_artifact(compressed: &[u8], key: Option<&Identity>) {
    let tail = compressed.len().checked_sub(FOOTER_BYTES).map(|at| &compressed[at..at + 4]);
    let frames = tail.map_or(0, |word| word.iter().rev().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)));
    let index_bytes = FrameIndex::encoded_bytes(frames);
    let index_offset = (compressed.len() as u64).saturating_sub(index_bytes);
    let index = usize::try_from(index_offset).ok().and_then(|at| FrameIndex::decode(&compressed[at..]).ok());
    let plain_bytes = index.as_ref().map_or(0, |index| index.totals().1);
    if plain_bytes > PLAIN_BYTES_MAX {
        return;
    }
    let stored = match key.map(|key| age::encrypt(&key.recipients(), compressed)) {
        None => compressed.to_vec(),
        Some(sealed) => sealed.unwrap_or_default(),
    };
    let layout = Layout {
        path: Path::from("artifact"),
        plain_bytes,
        plain_blake3: String::new(),
        stored_bytes: stored.len() as u64,
        stored_blake3: blake3::hash(&stored).to_hex().to_string(),
        frame_bytes: FRAME_BYTES as u64,
        frames,
        index_offset,
        encrypted_to: key.map(|key| key.recipients().iter().map(ToString::to_string).collect()),
    };
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    put(&store, &layout.path, stored).await;
    let whole = read(read_all(Arc::clone(&store), layout.clone(), key).await.map(|(reader, _)| reader)).await;
    assert!(whole.is_none(), "bytes whose hash nobody knows were taken for an artifact");
    drop(read(read_range(store, layout, key, plain_bytes / 3..plain_bytes).await).await);
}

async fn edited_artifact(input: &[u8], key: Option<&Identity>) {
    let Some((edits, rest)) = input.split_first() else { return };
    let edits = usize::from(edits % 8).min(rest.len() / EDIT_BYTES);
    let (edits, plain) = rest.split_at(edits * EDIT_BYTES);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let Ok(layout) = write(&store, plain, key).await else { panic!("bytes in memory can't be written") };
    let good = stored(&store, &layout.path).await;
    let mut bytes = good.to_vec();
    for edit in edits.chunks_exact(EDIT_BYTES) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] ^= edit[2];
    }
    let changed = bytes != good;
    put(&store, &layout.path, bytes).await;
    let whole = read(read_all(Arc::clone(&store), layout.clone(), key).await.map(|(reader, _)| reader)).await;
    match whole {
        Some(whole) => assert!(whole == plain && !changed, "damage was not found"),
        None => assert!(changed, "an artifact as it was written is refused"),
    }
    let (start, end) = (layout.plain_bytes / 3, layout.plain_bytes);
    if let Some(range) = read(read_range(store, layout, key, start..end).await).await {
        let expected = usize::try_from(start).map_or(&[][..], |start| &plain[start..]);
        assert_eq!(range, expected, "a range gives other bytes than were written");
    }
}

async fn write(store: &Arc<dyn ObjectStore>, plain: &[u8], key: Option<&Identity>) -> Result<Layout> {
    let path = Path::from("artifact");
    let recipients = key.map(Identity::recipients).unwrap_or_default();
    let to = Destination { store, parts: Parts::Local, recipients: &recipients };
    let mut writer = Writer::open(to, path.clone(), &TaskTracker::new()).await?;
    writer.write(Bytes::copy_from_slice(plain)).await?;
    let stored = writer.finish().await?;
    Ok(Layout {
        path,
        plain_bytes: stored.plain_bytes,
        plain_blake3: stored.plain_blake3,
        stored_bytes: stored.stored_bytes,
        stored_blake3: stored.stored_blake3,
        frame_bytes: FRAME_BYTES as u64,
        frames: stored.frames,
        index_offset: stored.index_offset,
        encrypted_to: key.map(|_| recipients.iter().map(ToString::to_string).collect()),
    })
}

/// Everything that a reader gives; `None` if it fails.
async fn read(reader: Result<ArtifactReader>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.ok()?.read_to_end(&mut bytes).await.ok()?;
    Some(bytes)
}

async fn put(store: &Arc<dyn ObjectStore>, path: &Path, bytes: Vec<u8>) {
    assert!(store.put(path, bytes.into()).await.is_ok(), "memory does not take bytes");
}

async fn stored(store: &Arc<dyn ObjectStore>, path: &Path) -> Bytes {
    match store.get(path).await {
        Ok(found) => found.bytes().await.unwrap_or_default(),
        Err(_) => Bytes::new(),
    }
}

/// Runs `work` on this thread's runtime, which is made once: an input costs microseconds.
fn block_on(work: impl Future<Output = ()>) {
    thread_local! {
        static RUNTIME: RefCell<Option<tokio::runtime::Runtime>> = const { RefCell::new(None) };
    }
    RUNTIME.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
        }
        if let Some(runtime) = kept {
            runtime.block_on(work);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The corpus of every target, as every test run of the crate reads it.
    #[test]
    fn the_corpus_breaks_nothing() {
        for (name, target) in
            [("manifest", manifest as fn(&[u8])), ("frame_index", frame_index), ("artifact_reader", artifact_reader)]
        {
            let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
            let files = std::fs::read_dir(&corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display()));
            let inputs: Vec<_> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
            assert!(!inputs.is_empty(), "{name} has no corpus");
            inputs.iter().for_each(|input| target(input));
        }
    }

    /// Otherwise the fuzzers would start before the parsers.
    #[test]
    fn the_corpus_is_read() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let sealed = |name: &str| with_checksum(&std::fs::read(corpus.join(name)).unwrap()).pop().unwrap();
        assert!(Manifest::from_json(&sealed("manifest/golden-v1")).is_ok());
        assert!(crate::lease::rewrite_record(&sealed("lease/held")).is_some());
        assert!(crate::retention::rewrite_tombstone(&sealed("tombstone/announced")).is_some());
        assert!(age::decrypt(identity(), &std::fs::read(corpus.join("age_file/two-recipients")).unwrap()).is_ok());
    }
}
