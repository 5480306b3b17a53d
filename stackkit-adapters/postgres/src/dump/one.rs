//! The copy of one pinned database.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use stackkit_core::backup::ArtifactSink;
use stackkit_core::{Census, Clock, Error, ErrorKind, Result};

use super::Server;
use super::blobs::{self, Groups, Objects};
use super::by_hand;
use super::catalog::{self, Table};
use super::digests;
use super::pin::{self, Pin};
use super::table::{DataEntry, Piece, TABLE_DATA};
use super::toc::Toc;
use super::units::{self, Cut, Unit};
use super::worker::{State, Work, Worker};
use crate::archive::{Compression, Data, Entry, Format, write};
use crate::census::{self, Selected};
use crate::column_options;
use crate::config::PostgresConfig;
use crate::layout::{DataFile, DatabaseLayout, TOC, formats};
use crate::wire::{CHUNK_BYTES, Wire, value};

/// How long the snapshot's own session waits for an index: for what other connections gave up on, and for hashes. It has the
/// lock of every table, so nothing but a rebuild is in its way, which ends by itself; that of the largest takes hours.
const REBUILD_WAIT: Duration = Duration::from_secs(6 * 60 * 60);

/// How long the snapshot's own session may live after another one of a standby was ended. The replay ends whoever is in
/// its way one after the other, and looks each 5 ms whether they are gone (`ResolveRecoveryConflictWithVirtualXIDs`).
const CONFLICT_WAIT: Duration = Duration::from_secs(1);

/// The pause between two looks at it.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);

/// What a database came to.
pub(super) struct Copied {
    pub(super) layout: DatabaseLayout,
    pub(super) census: Census,
    pub(super) warnings: Vec<String>,
}

/// What a table of contents says that matters for the copy.
#[derive(Debug, Default)]
struct Contents {
    /// The entries with rows.
    entries: Vec<DataEntry>,
    /// Those with large objects.
    groups: Groups,
    /// What is counted of a dump that does not hold all.
    selected: Selected,
}

/// Notes an object that is dumped, by the catalog that it is in.
fn select(selected: &mut Selected, entry: &Entry) {
    selected.large_objects |= entry.kind == blobs::CONTENT;
    // The numbers of catalogs never change: src/include/catalog.
    let into = match entry.table_oid.as_str() {
        "1259" => &mut selected.relations,
        "1255" => &mut selected.functions,
        "1247" => &mut selected.types,
        "2615" => &mut selected.schemas,
        "3079" => &mut selected.extensions,
        _ => return,
    };
    into.extend(entry.oid.bytes().all(|byte| byte.is_ascii_digit()).then(|| entry.oid.clone()));
}

/// The copy of one database.
pub(super) struct OneDatabase<'a> {
    pub(super) config: &'a PostgresConfig,
    pub(super) server: &'a Server,
    pub(super) sink: &'a dyn ArtifactSink,
    /// What the names of its artifacts begin with.
    pub(super) prefix: String,
    /// How many connections read.
    pub(super) jobs: usize,
}

impl OneDatabase<'_> {
    /// Copies it. The locks and the snapshot of `pin` hold until the end.
    pub(super) async fn copy(&self, mut pin: Pin, toc: Toc) -> Result<Copied> {
        match self.copied(&mut pin, toc).await {
            Err(error) if is_lost(&error, self.server.standby) => Err(lost(error)),
            Err(error) if self.server.standby => Err(explained(&mut pin, error).await),
            outcome => outcome,
        }
    }

    async fn copied(&self, pin: &mut Pin, toc: Toc) -> Result<Copied> {
        let Contents { entries, groups, selected } = self.contents(toc).await?;
        let locked: HashSet<u32> = pin.tables.iter().map(|table| table.oid).collect();
        if let Some(entry) = entries.iter().find(|entry| !locked.contains(&entry.oid)) {
            let error = Error::new(ErrorKind::Busy, "pg_dump tells of a table that was not locked");
            return Err(error.with_context("table", &entry.table));
        }
        let wait = format!("SET lock_timeout = {}", REBUILD_WAIT.as_millis());
        pin.wire.execute(wait.as_bytes()).await?;
        let objects = groups.store(&mut pin.wire, self.sink, &self.prefix).await?;
        let objects = Objects::new(&mut pin.wire, objects).await?;
        let facts = catalog::facts(&mut pin.wire, entries.iter().map(|entry| entry.oid)).await?;
        let cut = Cut { split_bytes: self.config.dump.split_bytes, jobs: self.jobs, server: self.server.version };
        let units = units::units(&entries, &facts, cut);
        let condition = |entry: &DataEntry| facts.get(&entry.oid).and_then(|facts| facts.condition.clone());
        let conditions: Vec<Option<String>> = entries.iter().map(condition).collect();
        let work = Work {
            sink: self.sink,
            prefix: &self.prefix,
            entries: &entries,
            conditions: &conditions,
            units: &units,
            objects,
            hash: self.config.dump.row_hashes,
            state: State::default(),
        };
        let mut warnings = self.run(&work, pin).await?;
        warnings.extend(self.left_out(pin));
        let tables = files(&entries, &units, work.state.take_done())?;
        let objects = census::objects(self.config.dump.is_filtered().then_some(&selected));
        let mut census = count(pin, &entries, &tables, &objects).await?;
        if self.config.content_digests {
            digests::add(&mut pin.wire, &mut census).await?;
        }
        // The locks held until now: a table that lost its own may have been emptied before it was read.
        pin.wire.execute(b"COMMIT").await?;
        let layout = DatabaseLayout {
            name: pin.database.clone(),
            prefix: self.prefix.clone(),
            position: Some(pin.position.clone()),
            encoding: if pin.encoding == "SQL_ASCII" { pin.encoding.clone() } else { "UTF8".to_owned() },
            tables,
            blobs: work.state.take_blobs(),
            blobs_count: work.objects.numbers.len() as u64,
        };
        Ok(Copied { layout, census, warnings })
    }

    /// What a standby can't tell: the rows of tables that are not in the log.
    fn left_out(&self, pin: &Pin) -> Option<String> {
        let unlogged = pin.tables.iter().filter(|table| table.is_unlogged && !table.is_partitioned);
        let names: Vec<String> = unlogged.map(Table::sql).collect();
        let is_told = self.server.standby && !names.is_empty();
        is_told.then(|| format!("a standby has no rows of unlogged tables: {}", names.join(", ")))
    }

    /// Stores the table of contents as a directory archive has it, and ends `pg_dump`. Gives the entries with rows,
    /// and those with large objects.
    async fn contents(&self, mut toc: Toc) -> Result<Contents> {
        let mut header = toc.header().await?;
        let read = header.clone();
        (header.format, header.compression) = (Format::Tar, Compression::None);
        let mut out = write::header(&header)?;
        let mut writer = self.sink.create(by_hand::spec(&self.prefix, TOC, formats::TOC)?).await?;
        let Contents { mut entries, mut groups, mut selected } = Contents::default();
        for _entry in 0..read.entries {
            let mut entry = toc.entry(&read).await?;
            if self.config.dump.is_filtered() {
                select(&mut selected, &entry);
            }
            let file = match (entry.kind.as_str(), groups.note(read.version, &entry)) {
                (TABLE_DATA, _) => {
                    entries.push(DataEntry::of(&entry)?);
                    format!("{}.dat", entry.dump_id)
                }
                (_, Some(file)) => file,
                _ if entry.has_data => {
                    let error = Error::new(ErrorKind::Unsupported, "this dump can't hold data of this kind");
                    return Err(error.with_context("kind", entry.kind));
                }
                _ => String::new(),
            };
            entry.definition = column_options::without_internal(&entry.definition).into_owned();
            entry.data = Data::File(file);
            write::entry(&header, &entry, &mut out)?;
            if out.len() >= CHUNK_BYTES {
                writer.write(Bytes::from(std::mem::take(&mut out))).await?;
            }
        }
        drop(toc);
        writer.write(Bytes::from(out)).await?;
        writer.finish().await?;
        Ok(Contents { entries, groups, selected })
    }

    /// Reads all units, by as many connections as the server has for us.
    /// Gives warnings.
    async fn run(&self, work: &Work<'_>, pin: &mut Pin) -> Result<Vec<String>> {
        let count = self.jobs.min(work.units.len() + work.objects.numbers.len()).max(1);
        let opened = join_all((0..count).map(|_worker| self.worker(pin))).await;
        let mut wires = Vec::new();
        for opened in opened {
            match opened {
                Ok(wire) => wires.push(wire),
                Err(error) if error.kind() == ErrorKind::Saturated => {}
                Err(error) => return Err(error),
            }
        }
        let few = format!("the server had {} of {count} connections for the dump", wires.len());
        let warnings = (wires.len() < count).then_some(few).into_iter().collect();
        if wires.is_empty() {
            Worker::with_locks(&mut pin.wire, work).run().await?;
            return Ok(warnings);
        }
        try_join_all(wires.iter_mut().map(|wire| Worker::new(wire, work).run())).await?;
        let refused = work.state.take_refused();
        Worker::with_locks(&mut pin.wire, work).run_these(&refused).await?;
        Ok(warnings)
    }

    /// A connection in the snapshot.
    async fn worker(&self, pin: &Pin) -> Result<Wire> {
        let mut wire = pin::reader(self.config, &pin.database, &pin.encoding).await?;
        wire.execute(pin.join().as_bytes()).await?;
        Ok(wire)
    }
}

/// Counts what was copied, by the names that a census of the database has: rows that a restore may move between partitions
/// are counted as one.
async fn count(pin: &mut Pin, entries: &[DataEntry], files: &[DataFile], objects: &str) -> Result<Census> {
    let paths = catalog::units(&mut pin.wire).await?;
    let mut hashes: BTreeMap<String, u64> = BTreeMap::new();
    let members = pin.tables.iter().filter(|table| table.is_member);
    let members: HashSet<u32> = members.map(|table| table.oid).collect();
    let mut census = Census::new();
    for (entry, file) in entries.iter().zip(files) {
        let own = || census::path(&entry.schema, &entry.table);
        let path = paths.get(&entry.oid).cloned().unwrap_or_else(own);
        if !members.contains(&entry.oid) {
            census.add(&format!("{path}.rows"), file.rows.unwrap_or_default());
        }
        if let Some(hash) = file.row_hash.as_ref().and_then(|hash| u64::from_str_radix(hash, 16).ok()) {
            let sum = hashes.entry(format!("{path}.row_hash")).or_default();
            *sum = sum.wrapping_add(hash);
        }
    }
    census.digests.extend(hashes.into_iter().map(|(name, sum)| (name, format!("{sum:016x}"))));
    for row in pin.wire.rows(objects).await? {
        census.add(&format!("objects.{}", value(&row, 0)?), catalog::number(&row, 1)?);
    }
    Ok(census)
}

/// Whether an error says that the snapshot is gone: a worker can't join it any more, or the standby had to go on.
fn is_lost(error: &Error, standby: bool) -> bool {
    // What a standby ends for its replay: serialization failure, and sessions that stand in its way.
    let conflict = standby && error.code().is_some_and(|code| ["40001", "57P01", "57P04"].contains(&code));
    // What SET TRANSACTION SNAPSHOT says of one that nobody holds.
    conflict || error.code().is_some_and(|code| ["22023", "55000"].contains(&code))
}

/// What failed on a standby may have failed because the snapshot went away. A connection whose rows wait for the storage is
/// ended without a word; the others in that snapshot are ended after it.
async fn explained(pin: &mut Pin, error: Error) -> Error {
    let deadline = Clock::system().deadline(CONFLICT_WAIT);
    loop {
        match pin.wire.execute(b"SELECT 1").await {
            Err(end) if is_lost(&end, true) => return lost(error),
            Err(_other) => return error,
            Ok(()) if error.kind() != ErrorKind::Unreachable || Clock::system().instant() >= deadline => return error,
            Ok(()) => tokio::time::sleep(CONFLICT_PAUSE).await,
        }
    }
}

/// `error`, which is told as what it is if the snapshot is gone.
pub(super) fn told(error: Error, standby: bool) -> Error {
    if is_lost(&error, standby) { lost(error) } else { error }
}

fn lost(error: Error) -> Error {
    let hint = "on a standby raise max_standby_streaming_delay or set hot_standby_feedback = on";
    Error::new(ErrorKind::Busy, "the snapshot of the dump was lost")
        .with_code("snapshot_lost")
        .with_context("hint", hint)
        .with_source(error)
}

/// The data files, in the order of the table of contents.
fn files(entries: &[DataEntry], units: &[Unit], done: Vec<(usize, Piece)>) -> Result<Vec<DataFile>> {
    let mut parts: Vec<Vec<(usize, Piece)>> = vec![Vec::new(); entries.len()];
    for (unit, piece) in done {
        let unit = units.get(unit).ok_or_else(|| Error::unexpected("a piece of no unit"))?;
        if let Some(parts) = parts.get_mut(unit.entry) {
            parts.push((unit.part, piece));
        }
    }
    let mut wanted = vec![0; entries.len()];
    for unit in units {
        wanted[unit.entry] += 1;
    }
    let mut files = Vec::with_capacity(entries.len());
    for ((entry, mut parts), wanted) in entries.iter().zip(parts).zip(wanted) {
        if parts.len() != wanted {
            return Err(Error::unexpected("a part of a table was not read").with_context("table", &entry.table));
        }
        parts.sort_by_key(|(part, _piece)| *part);
        files.push(entry.clone().file(parts.into_iter().map(|(_part, piece)| piece).collect()));
    }
    Ok(files)
}
