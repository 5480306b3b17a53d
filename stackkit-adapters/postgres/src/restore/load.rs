//! Fills an empty database from a dump, by several connections.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;
use stackkit_core::backup::{ArtifactName, ArtifactReader, ArtifactSource};
use stackkit_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, Take};
use tokio::sync::Notify;

use super::rows::RowReader;
use super::schedule::{Node, SMALL_WEIGHT, Schedule};
use super::script::{self, Style};
use super::select::Selection;
use super::session::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, DEADLOCK, DEADLOCK_TRIES, Loading, named};
use super::toc::Toc;
use super::weights::is_btree;
use super::work::{self, Step, Work};
use super::{analyze, blobs, connections};
use crate::archive::Entry;
use crate::config::PostgresConfig;
use crate::layout::{DataFile, DatabaseLayout, Part};
use crate::sql::identifier;
use crate::wire::CopyIn;

/// Members of an archive that are at most so far apart are read in one go: their headers, and padding. A range of its own
/// costs a whole frame of the repository.
const GAP_BYTES_MAX: u64 = 64 * 1024;

/// What is loaded, and into what.
pub(crate) struct Loader<'a> {
    pub(crate) config: &'a PostgresConfig,
    pub(crate) source: &'a dyn ArtifactSource,
    /// The database that is filled.
    pub(crate) database: &'a str,
    pub(crate) layout: &'a DatabaseLayout,
    pub(crate) toc: &'a Toc,
    pub(crate) style: Style,
    pub(crate) jobs: usize,
    /// What of it is restored.
    pub(crate) selection: &'a Selection,
}

/// What one run of steps shares.
struct Run<'a> {
    loader: &'a Loader<'a>,
    work: &'a Work,
    /// The large objects of each entry that makes many.
    blob_entries: &'a BTreeMap<i32, &'a Entry>,
    schedule: Mutex<Schedule>,
    /// Told whenever a step ended.
    ended: Notify,
    /// How many rows the server took of each data file.
    rows: Mutex<BTreeMap<usize, u64>>,
    blobs: Mutex<u64>,
}

impl Loader<'_> {
    /// Fills the database. Every error of a statement is one of the restore, and names its entry. Gives warnings.
    pub(crate) async fn run(&self) -> Result<Vec<String>> {
        let (mut sessions, few) = connections::open(self.config, self.database, self.toc, self.jobs).await?;
        self.fill(&mut sessions).await?;
        // Without statistics the first queries would be planned blindly.
        let mut warnings = analyze::run(&mut sessions).await?;
        warnings.extend(few);
        warnings.extend(sessions.into_iter().flat_map(|loading| loading.warnings));
        Ok(warnings)
    }

    /// Makes and fills everything, by these connections.
    pub(crate) async fn fill(&self, sessions: &mut [Loading]) -> Result<()> {
        let entries = &self.toc.entries;
        let work = work::plan(entries, self.layout, sessions.len(), &|entry| self.selection.takes(entry))?;
        let is_many = |entry: &&Entry| entry.kind == "BLOB METADATA";
        let blob_entries: BTreeMap<i32, &Entry> =
            entries.iter().filter(is_many).map(|entry| (entry.dump_id, entry)).collect();
        self.steps(sessions, &work, &blob_entries).await?;
        if let Some(first) = sessions.first_mut() {
            self.in_order(first, &work.grants, &blob_entries).await?;
            self.in_order(first, &work.last, &blob_entries).await?;
        }
        Ok(())
    }

    /// Runs entries one after the other, many in one round trip.
    async fn in_order(
        &self,
        loading: &mut Loading,
        indexes: &[usize],
        blob_entries: &BTreeMap<i32, &Entry>,
    ) -> Result<()> {
        let mut batch: Vec<(&Entry, String)> = Vec::new();
        let mut bytes = 0;
        for index in indexes {
            let entry = &self.toc.entries[*index];
            let sql = loading.script.write(entry, &self.style, blob_entries);
            if !batch.is_empty() && (batch.len() >= BATCH_ENTRIES_MAX || bytes + sql.len() > BATCH_BYTES_MAX) {
                loading.run(&batch).await?;
                batch.clear();
                bytes = 0;
            }
            bytes += sql.len();
            batch.push((entry, sql));
        }
        loading.run(&batch).await
    }

    async fn steps(&self, sessions: &mut [Loading], work: &Work, blob_entries: &BTreeMap<i32, &Entry>) -> Result<()> {
        let run = Run {
            loader: self,
            work,
            blob_entries,
            schedule: Mutex::new(Schedule::new(work.nodes.clone())),
            ended: Notify::new(),
            rows: Mutex::default(),
            blobs: Mutex::default(),
        };
        try_join_all(sessions.iter_mut().map(|session| run.worker(session))).await?;
        let blobs = *run.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let has_blobs = work.steps.iter().any(|step| matches!(step, Step::Blobs(_)));
        if has_blobs && blobs != self.layout.blobs_count {
            let error = Error::integrity("the dump does not hold all its large objects");
            return Err(error.with_context("expected", self.layout.blobs_count).with_context("found", blobs));
        }
        Ok(())
    }
}

/// What a worker does next.
enum Next {
    Batch(Vec<usize>),
    Wait,
    Done,
}

impl Run<'_> {
    /// Runs steps until none is left.
    async fn worker(&self, loading: &mut Loading) -> Result<()> {
        loop {
            // Made before looking, so that no end goes unnoticed.
            let ended = self.ended.notified();
            match self.next()? {
                Next::Done => return Ok(()),
                Next::Wait => ended.await,
                Next::Batch(batch) => {
                    self.batch(loading, &batch).await?;
                    self.with_schedule(|schedule| schedule.end(&batch));
                    self.ended.notify_waiters();
                }
            }
        }
    }

    fn next(&self) -> Result<Next> {
        let (batch, is_done, stuck) = self.with_schedule(|schedule| {
            let batch = schedule.take();
            let stuck = (batch.is_empty() && schedule.is_stuck()).then(|| schedule.waiting()).flatten();
            (batch, schedule.is_done(), stuck)
        });
        match (batch.is_empty(), is_done, stuck) {
            (false, _, _) => Ok(Next::Batch(batch)),
            (_, true, _) => Ok(Next::Done),
            (_, _, Some(step)) => {
                let error = Error::integrity("the entries of the table of contents wait for each other");
                Err(match self.entry_of(&self.work.steps[step]) {
                    Some(entry) => named(error, entry, ""),
                    None => error,
                })
            }
            _ => Ok(Next::Wait),
        }
    }

    fn with_schedule<T>(&self, with: impl FnOnce(&mut Schedule) -> T) -> T {
        with(&mut self.schedule.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One step, or several that are nothing but statements.
    async fn batch(&self, loading: &mut Loading, batch: &[usize]) -> Result<()> {
        match batch.first().map(|index| &self.work.steps[*index]) {
            Some(Step::Made(entries)) => self.loader.in_order(loading, entries, self.blob_entries).await,
            Some(Step::Rows(members)) => self.rows(loading, members).await,
            Some(Step::Stream(file)) => self.stream(loading, *file).await,
            Some(Step::Loaded(file)) => self.loaded(*file),
            Some(Step::Blobs(archive)) => self.blobs(loading, *archive).await,
            _ => self.statements(loading, batch).await,
        }
    }

    async fn statements(&self, loading: &mut Loading, batch: &[usize]) -> Result<()> {
        let mut statements = Vec::with_capacity(batch.len());
        for index in batch {
            let step = &self.work.steps[*index];
            let Some(entry) = self.entry_of(step) else { continue };
            let style = &self.loader.style;
            let sql = match step {
                Step::Build(_, sql) | Step::Attach(_, sql) => loading.script.place(entry, style, sql),
                _ => loading.script.write(entry, style, self.blob_entries),
            };
            statements.push((entry, self.helped(&self.work.nodes[*index], sql)));
        }
        loading.run(&statements).await
    }

    /// Lets the server share the build of a large b-tree among processes of its own where too few builds are left to
    /// keep all connections at work.
    fn helped(&self, node: &Node, sql: String) -> String {
        if node.weight < SMALL_WEIGHT || !is_btree(&sql) {
            return sql;
        }
        let left = self.with_schedule(|schedule| schedule.large_left());
        let helpers = self.loader.jobs.saturating_sub(left);
        format!("SET max_parallel_maintenance_workers = {helpers};\n{sql}")
    }

    fn entry_of(&self, step: &Step) -> Option<&Entry> {
        match step {
            Step::Entry(index) | Step::Build(index, _) | Step::Attach(index, _) => self.loader.toc.entries.get(*index),
            Step::Stream(file) | Step::Loaded(file) => {
                self.work.loads.get(file).and_then(|load| self.loader.toc.entries.get(load.entry))
            }
            Step::Made(_) | Step::Rows(_) | Step::Blobs(_) => None,
        }
    }

    /// Loads pieces of data files that are in one artifact.
    async fn rows(&self, loading: &mut Loading, members: &[(usize, usize)]) -> Result<()> {
        let files = &self.loader.layout.tables;
        for group in groups(files, members) {
            let Some((file, part)) = group.first() else { continue };
            let first = &files[*file].parts[*part];
            let end = group.last().and_then(|(file, part)| files[*file].parts[*part].end());
            let (mut data, stop) = self.open(first, end).await?;
            let mut at = first.offset;
            for member in group {
                let part = &files[member.0].parts[member.1];
                skip(&mut data, part.offset.saturating_sub(at)).await?;
                at = part.end().unwrap_or(at);
                let mut tries_left = DEADLOCK_TRIES;
                // A partition's rows may meet a statement on the table above it; what lost is read again.
                while let Err(error) = self.piece(loading, member, &mut data).await {
                    tries_left -= 1;
                    if tries_left == 0 || loading.in_transaction || error.code() != Some(DEADLOCK) {
                        return Err(error);
                    }
                    data = self.open(part, end).await?.0;
                }
            }
            let rest = drain(&mut data).await?;
            if end.is_some() && at + rest != stop {
                return Err(Error::integrity("an archive of tables is cut").with_context("artifact", &first.artifact));
            }
        }
        Ok(())
    }

    /// A reader from where `first` begins. What is nearly whole is opened as a whole, with what stands before and behind
    /// the rows, so that all of it is checked. Gives where the reader ends, too.
    async fn open(&self, first: &Part, end: Option<u64>) -> Result<(ArtifactReader, u64)> {
        let name = ArtifactName::new(&first.artifact)?;
        let whole = self.loader.source.info(&name)?.plain_bytes;
        if let Some(end) = end.filter(|end| *end > whole) {
            return Err(Error::integrity("an artifact is shorter than contents.json says")
                .with_context("artifact", &name)
                .with_context("expected", end)
                .with_context("found", whole));
        }
        let start = if first.offset <= GAP_BYTES_MAX { 0 } else { first.offset };
        let end = end.filter(|end| whole - end > GAP_BYTES_MAX).unwrap_or(whole);
        let mut data = match (start, end == whole) {
            (0, true) => self.loader.source.open(&name).await?,
            _ => self.loader.source.open_range(&name, start..end).await?,
        };
        skip(&mut data, first.offset - start).await?;
        Ok((data, end))
    }

    /// One piece of a data file: `data` begins with it.
    async fn piece(&self, loading: &mut Loading, member: (usize, usize), data: &mut ArtifactReader) -> Result<()> {
        let part = &self.loader.layout.tables[member.0].parts[member.1];
        let Some((entry, sql)) = self.statement(member.0)? else { return Ok(()) };
        let copied = async {
            let mut copy = loading.copy(&sql).await?;
            self.send(&mut copy, member, data.take(part.bytes.unwrap_or(u64::MAX))).await?;
            copy.finish().await
        };
        self.count(member.0, copied.await.map_err(|error| named(error, entry, &entry.copy))?);
        Ok(())
    }

    /// All pieces of a data file in one statement.
    async fn stream(&self, loading: &mut Loading, file: usize) -> Result<()> {
        let mut tries_left = DEADLOCK_TRIES;
        while let Err(error) = self.stream_once(loading, file).await {
            tries_left -= 1;
            if tries_left == 0 || loading.in_transaction || error.code() != Some(DEADLOCK) {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn stream_once(&self, loading: &mut Loading, file: usize) -> Result<()> {
        let Some((entry, sql)) = self.statement(file)? else { return Ok(()) };
        let copied = async {
            let mut copy = loading.copy(&sql).await?;
            for (at, part) in self.loader.layout.tables[file].parts.iter().enumerate() {
                let (mut data, stop) = self.open(part, part.end()).await?;
                self.send(&mut copy, (file, at), (&mut data).take(part.bytes.unwrap_or(u64::MAX))).await?;
                let rest = drain(&mut data).await?;
                if part.end().is_some_and(|end| end + rest != stop) {
                    return Err(Error::integrity("an artifact is cut").with_context("artifact", &part.artifact));
                }
            }
            copy.finish().await
        };
        self.count(file, copied.await.map_err(|error| named(error, entry, &entry.copy))?);
        Ok(())
    }

    /// Sends one piece of a data file, which is all that `data` has.
    async fn send<R: AsyncRead + Unpin + Send>(
        &self,
        copy: &mut CopyIn<'_>,
        (file, part): (usize, usize),
        data: Take<R>,
    ) -> Result<()> {
        let parts = &self.loader.layout.tables[file].parts;
        let mut rows = RowReader::new(data, part + 1 == parts.len());
        copy.send(&mut rows).await?;
        match parts[part].bytes.is_some() && rows.into_inner().limit() > 0 {
            true => Err(Error::integrity("the rows of a table are cut")),
            false => Ok(()),
        }
    }

    /// The entry of a data file and the statement that loads it, if it is wanted.
    fn statement(&self, file: usize) -> Result<Option<(&Entry, String)>> {
        let Some(load) = self.work.loads.get(&file) else { return Ok(None) };
        let entry = &self.loader.toc.entries[load.entry];
        let unknown = || Error::integrity("the statement that copies rows is of an unknown form");
        let sql = script::copy(entry, load.freeze, &self.loader.layout.encoding);
        let sql = sql.ok_or_else(|| named(unknown(), entry, &entry.copy))?;
        // Statements of one message are one transaction: the table is new in it, so its rows can be frozen.
        let empty = load.freeze.then(|| format!("TRUNCATE ONLY {}; ", table(&self.loader.layout.tables[file])));
        Ok(Some((entry, empty.unwrap_or_default() + &sql)))
    }

    fn count(&self, file: usize, rows: u64) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner).entry(file).or_default() += rows;
    }

    /// Compares how many rows came with how many were dumped.
    fn loaded(&self, file: usize) -> Result<()> {
        let data = &self.loader.layout.tables[file];
        let found = self.rows.lock().unwrap_or_else(PoisonError::into_inner).get(&file).copied().unwrap_or(0);
        match data.rows {
            Some(expected) if expected != found => Err(Error::integrity("a table has not the rows that were dumped")
                .with_context("table", format!("{}.{}", data.schema, data.table))
                .with_context("expected", expected)
                .with_context("found", found)),
            _ => Ok(()),
        }
    }

    async fn blobs(&self, loading: &mut Loading, archive: usize) -> Result<()> {
        let name = ArtifactName::new(&self.loader.layout.blobs[archive])?;
        let data = self.loader.source.open(&name).await?;
        let loaded = blobs::load(&mut loading.wire, loading.in_transaction, data).await;
        let count = loaded.map_err(|error| error.with_context("artifact", &name))?;
        *self.blobs.lock().unwrap_or_else(PoisonError::into_inner) += count;
        Ok(())
    }
}

/// The table of a data file, as SQL wants it.
fn table(file: &DataFile) -> String {
    format!("{}.{}", identifier(&file.schema), identifier(&file.table))
}

/// The members that are read in one go each: neighbours in the artifact.
fn groups(files: &[DataFile], members: &[(usize, usize)]) -> Vec<Vec<(usize, usize)>> {
    let mut groups: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut end: Option<u64> = None;
    for (file, part) in members {
        let place = &files[*file].parts[*part];
        let is_near = end.is_some_and(|end| place.offset >= end && place.offset - end <= GAP_BYTES_MAX);
        match groups.last_mut() {
            Some(group) if is_near && place.bytes.is_some() => group.push((*file, *part)),
            _ => groups.push(vec![(*file, *part)]),
        }
        end = place.end();
    }
    groups
}

async fn skip(data: &mut ArtifactReader, bytes: u64) -> Result<()> {
    let skipped = tokio::io::copy(&mut data.take(bytes), &mut tokio::io::sink()).await;
    match skipped {
        Ok(skipped) if skipped == bytes => Ok(()),
        Ok(_short) => Err(Error::integrity("an archive of tables is cut")),
        Err(error) => Err(unread(error)),
    }
}

/// Reads to the end: only there a repository knows that all bytes were those that it stored.
async fn drain(data: &mut ArtifactReader) -> Result<u64> {
    tokio::io::copy(data, &mut tokio::io::sink()).await.map_err(unread)
}

fn unread(error: std::io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| Error::io("read the artifact", error))
}
