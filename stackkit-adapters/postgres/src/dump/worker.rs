//! A connection that reads one unit after the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use stackkit_core::backup::{ArtifactSink, ArtifactWriter};
use stackkit_core::{Error, ErrorKind, Result};

use super::blobs::{self, Objects};
use super::bundle::Bundle;
use super::by_hand;
use super::catalog;
use super::copy::GIVE_BACK;
use super::pin::bytes;
use super::table::{DataEntry, Piece};
use super::units::Unit;
use crate::layout::{Part, formats};
use crate::wire::{CopyOut, Wire};

/// Up to this size a table is put beside others: an artifact of its own costs more than it saves. It is also what a
/// worker keeps in memory, as an archive says a file's size before its content.
const SMALL_BYTES_MAX: usize = 1 << 20;

/// What ends the data of a table in an archive.
const END: &[u8] = b"\\.\n\n\n";

/// What the workers of a database share.
pub(super) struct Work<'a> {
    pub(super) sink: &'a dyn ArtifactSink,
    /// What the names of artifacts begin with.
    pub(super) prefix: &'a str,
    pub(super) entries: &'a [DataEntry],
    /// The `WHERE` of each entry that has one.
    pub(super) conditions: &'a [Option<String>],
    pub(super) units: &'a [Unit],
    pub(super) objects: Objects,
    pub(super) hash: bool,
    pub(super) state: State,
}

/// How far the workers are.
#[derive(Debug, Default)]
pub(super) struct State {
    next: AtomicUsize,
    bundles: AtomicUsize,
    /// Units whose table somebody waits to change; only who holds the lock already can read it.
    refused: Mutex<Vec<usize>>,
    done: Mutex<Vec<(usize, Piece)>>,
    pub(super) next_batch: AtomicUsize,
    pub(super) blob_bundles: AtomicUsize,
    /// The archives of large objects that were stored.
    pub(super) blobs: Mutex<Vec<String>>,
}

impl State {
    /// The units that were refused, which then are not any more.
    pub(super) fn take_refused(&self) -> Vec<usize> {
        std::mem::take(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The archives of large objects that were stored, in the order of their names.
    pub(super) fn take_blobs(&self) -> Vec<String> {
        let mut blobs = std::mem::take(&mut *self.blobs.lock().unwrap_or_else(PoisonError::into_inner));
        blobs.sort_unstable();
        blobs
    }

    /// What was stored, by unit.
    pub(super) fn take_done(&self) -> Vec<(usize, Piece)> {
        std::mem::take(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A session in the snapshot, and the archive that it puts small tables into.
pub(super) struct Worker<'a> {
    wire: &'a mut Wire,
    work: &'a Work<'a>,
    bundle: Option<Bundle>,
    /// Whether the session has the locks already.
    has_locks: bool,
}

impl<'a> Worker<'a> {
    /// A worker that locks each table before it reads it.
    pub(super) fn new(wire: &'a mut Wire, work: &'a Work<'a>) -> Self {
        Self { wire, work, bundle: None, has_locks: false }
    }

    /// A worker over the session that has the locks.
    pub(super) fn with_locks(wire: &'a mut Wire, work: &'a Work<'a>) -> Self {
        Self { has_locks: true, ..Self::new(wire, work) }
    }

    /// Reads units until there are none, then large objects.
    pub(super) async fn run(mut self) -> Result<()> {
        let next = || self.work.state.next.fetch_add(1, Ordering::Relaxed);
        let mut at = next();
        while let Some(unit) = self.work.units.get(at) {
            self.unit(at, unit).await?;
            at = next();
        }
        blobs::run(self.wire, self.work).await?;
        self.finish().await
    }

    /// Reads these units.
    pub(super) async fn run_these(mut self, units: &[usize]) -> Result<()> {
        for at in units {
            if let Some(unit) = self.work.units.get(*at) {
                self.unit(*at, unit).await?;
            }
        }
        self.finish().await
    }

    async fn finish(self) -> Result<()> {
        match self.bundle {
            Some(bundle) => bundle.finish().await,
            None => Ok(()),
        }
    }

    async fn unit(&mut self, at: usize, unit: &Unit) -> Result<()> {
        match self.copy(unit).await {
            Ok(piece) => {
                self.work.state.done.lock().unwrap_or_else(PoisonError::into_inner).push((at, piece));
                Ok(())
            }
            Err(error) if catalog::is_locked(&error) && !self.has_locks => {
                self.wire.execute(GIVE_BACK.as_bytes()).await?;
                self.work.state.refused.lock().unwrap_or_else(PoisonError::into_inner).push(at);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn copy(&mut self, unit: &Unit) -> Result<Piece> {
        let entry = self.work.entries.get(unit.entry).ok_or_else(|| Error::unexpected("a unit has no entry"))?;
        let condition = self.work.conditions.get(unit.entry).and_then(Option::as_deref);
        let source = entry.source()?;
        let statement = source.statement(condition, unit.range);
        let statement = if self.has_locks { statement } else { source.locked(&statement) };
        let named = |error: Error| match error.kind() {
            ErrorKind::Busy if !self.has_locks => error,
            _ => error.with_context("table", &source.table),
        };
        let mut copy = self.wire.copy_out(&bytes(&statement), self.work.hash).await.map_err(named)?;
        let is_small = unit.range.is_none() && unit.bytes <= SMALL_BYTES_MAX as u64;
        let stored = match is_small {
            true => small(&mut copy, self.work, entry, &mut self.bundle).await,
            false => large(&mut copy, self.work, entry, unit, BytesMut::new()).await,
        };
        let part = stored.map_err(|error| error.with_context("table", &source.table))?;
        let (rows, hash) = copy.counted();
        Ok(Piece { part, rows, hash })
    }
}

/// Puts a table beside others, if it is as small as it seems.
async fn small(copy: &mut CopyOut<'_>, work: &Work<'_>, entry: &DataEntry, open: &mut Option<Bundle>) -> Result<Part> {
    let mut content = BytesMut::new();
    while let Some(chunk) = copy.chunk().await? {
        content.extend_from_slice(&chunk);
        if content.len() > SMALL_BYTES_MAX {
            let whole = Unit { entry: 0, part: 0, range: None, bytes: 0 };
            return large(copy, work, entry, &whole, content).await;
        }
    }
    content.extend_from_slice(END);
    let mut bundle = match open.take() {
        Some(bundle) => bundle,
        None => {
            let number = work.state.bundles.fetch_add(1, Ordering::Relaxed);
            Bundle::create(work.sink, work.prefix, &format!("tables.{number:03}.tar")).await?
        }
    };
    let size = content.len() as u64;
    let offset = bundle.begin(&format!("{}.dat", entry.dump_id), size)?;
    bundle.append(&content).await?;
    bundle.end();
    let part = Part { artifact: bundle.name().to_owned(), offset, bytes: Some(size) };
    match bundle.is_full() {
        true => bundle.finish().await?,
        false => *open = Some(bundle),
    }
    Ok(part)
}

/// Puts a table, or a part of it, into an artifact of its own: `head`, which was read already, and the rest.
async fn large(
    copy: &mut CopyOut<'_>,
    work: &Work<'_>,
    entry: &DataEntry,
    unit: &Unit,
    head: BytesMut,
) -> Result<Part> {
    let part = if unit.range.is_some() { format!(".{:03}", unit.part) } else { String::new() };
    let spec = by_hand::spec(work.prefix, &format!("{}.dat{part}", entry.dump_id), formats::ROWS)?;
    let name = spec.name.to_string();
    let mut writer = work.sink.create(spec).await?;
    let is_last = unit.range.is_none_or(|range| range.to.is_none());
    let mut size = 0;
    let mut chunk = if head.is_empty() { copy.chunk().await? } else { Some(head.freeze()) };
    while let Some(rows) = chunk {
        size += rows.len() as u64;
        // The server goes on while the storage takes what is there.
        let ((), next) = tokio::try_join!(writer.write(rows), copy.chunk())?;
        chunk = next;
    }
    size += end(writer.as_mut(), is_last).await?;
    writer.finish().await?;
    Ok(Part { artifact: name, offset: 0, bytes: Some(size) })
}

/// Writes the end of a table's data, behind its last part only.
async fn end(writer: &mut dyn ArtifactWriter, is_last: bool) -> Result<u64> {
    if !is_last {
        return Ok(0);
    }
    writer.write(bytes::Bytes::from_static(END)).await?;
    Ok(END.len() as u64)
}
