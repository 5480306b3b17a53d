//! How the steps of a restore come about. Pure.

use std::collections::{BTreeMap, BTreeSet};

use stackkit_core::{Error, ErrorKind, Result};

use super::first;
use super::key::{self, Key};
use super::schedule::{Lock, Node, SMALL_WEIGHT};
use super::streams;
use super::weights::{COPY_BYTES, PARTS_BYTES, SORT_BYTES, STATEMENT_WEIGHT, index_speed};
use super::work::{Load, Step, VIA_ROOT, Work};
use crate::archive::{Entry, Section};
use crate::layout::{DataFile, DatabaseLayout};

/// From this size on a table's rows are frozen as they are loaded. A smaller one would pay more for its new files than it
/// saves: measured, 3 ms against 0.3.
const FREEZE_BYTES_MIN: u64 = 1 << 20;

/// What is known while steps are made.
pub(super) struct Builder<'a> {
    entries: &'a [Entry],
    layout: &'a DatabaseLayout,
    by_id: BTreeMap<i32, usize>,
    /// The data entry of each table, by the table's.
    data_of: BTreeMap<i32, i32>,
    /// The bytes of each table's rows, by the table's entry.
    bytes_of: BTreeMap<i32, u64>,
    /// The step that completes each entry.
    done_by: BTreeMap<i32, usize>,
    /// Steps whose needs are the entry's, to be looked up when every entry has its step.
    open: Vec<(usize, Vec<i32>)>,
    /// The step that makes the last of what comes before the rows.
    all_made: Option<usize>,
    /// The tables that belong to others, and those.
    partitions: BTreeSet<i32>,
    /// The last step of large objects.
    blobs_step: Option<usize>,
    jobs: usize,
    work: Work,
}

impl<'a> Builder<'a> {
    pub(super) fn new(entries: &'a [Entry], layout: &'a DatabaseLayout, work: Work, jobs: usize) -> Self {
        let by_id: BTreeMap<i32, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.dump_id, index)).collect();
        let mut builder = Self {
            entries,
            layout,
            by_id,
            data_of: BTreeMap::new(),
            bytes_of: BTreeMap::new(),
            done_by: BTreeMap::new(),
            open: Vec::new(),
            all_made: None,
            partitions: entries
                .iter()
                .filter(|entry| entry.kind == "TABLE ATTACH")
                .flat_map(|e| e.depends_on.clone())
                .collect(),
            blobs_step: None,
            jobs,
            work,
        };
        let sizes: BTreeMap<i32, u64> = layout.tables.iter().map(|file| (file.dump_id, bytes(file))).collect();
        for data in entries.iter().filter(|entry| entry.kind == "TABLE DATA") {
            let tables: Vec<i32> = builder.tables(data).collect();
            for table in tables {
                builder.data_of.insert(table, data.dump_id);
                let bytes = sizes.get(&data.dump_id).copied().unwrap_or(0);
                *builder.bytes_of.entry(table).or_default() += bytes;
            }
        }
        builder
    }

    /// The tables among the entries that `entry` depends on.
    fn tables(&self, entry: &Entry) -> impl Iterator<Item = i32> {
        let is_table = |id: &i32| self.by_id.get(id).is_some_and(|index| self.entries[*index].kind == "TABLE");
        entry.depends_on.iter().copied().filter(is_table)
    }

    pub(super) fn build(mut self, first: &[usize], pending: &[usize]) -> Result<Work> {
        let made_for = self.make(first);
        let wanted: BTreeSet<usize> = pending.iter().copied().collect();
        self.rows(&wanted, pending)?;
        for index in pending {
            let entry = &self.entries[*index];
            match entry.kind.as_str() {
                "TABLE DATA" => {}
                "BLOBS" | "BLOB COMMENTS" if entry.has_data => self.blobs(entry),
                "CONSTRAINT" => self.constraint(*index, entry),
                _ => self.statement(*index, entry),
            }
        }
        let via_root: Vec<usize> = self.via_root();
        for (step, ids) in std::mem::take(&mut self.open) {
            let needs: Vec<usize> = ids.iter().filter_map(|id| self.done_by.get(id)).copied().collect();
            self.work.nodes[step].needs.extend(needs);
            if !matches!(self.work.steps[step], Step::Rows(_) | Step::Stream(_) | Step::Loaded(_)) {
                self.work.nodes[step].needs.extend(&via_root);
            }
        }
        for step in 0..self.work.steps.len() {
            let made = self.made_before(step, &made_for);
            self.work.nodes[step].needs.extend(made);
        }
        Ok(self.work)
    }

    /// The steps that make what comes before the rows, one after the other. Gives for each table the last of them that
    /// changes it, or takes it for something else.
    fn make(&mut self, first: &[usize]) -> BTreeMap<i32, usize> {
        let mut made_for = BTreeMap::new();
        for batch in first::batches(self.entries, first) {
            let weight = STATEMENT_WEIGHT * batch.len() as u64;
            let node = Node { weight, needs: self.all_made.into_iter().collect(), ..Node::default() };
            let step = self.push(Step::Made(batch.clone()), node);
            for entry in batch.iter().map(|index| &self.entries[*index]) {
                self.done_by.insert(entry.dump_id, step);
                made_for.insert(entry.dump_id, step);
                made_for.extend(entry.depends_on.iter().map(|id| (*id, step)));
            }
            self.all_made = Some(step);
        }
        made_for
    }

    /// What of it a step waits for: rows for their tables only, everything else for all.
    fn made_before(&self, step: usize, made_for: &BTreeMap<i32, usize>) -> Option<usize> {
        let files: Vec<usize> = match &self.work.steps[step] {
            Step::Made(_) | Step::Loaded(_) => return None,
            Step::Rows(members) => members.iter().map(|(file, _)| *file).collect(),
            Step::Stream(file) => vec![*file],
            _ => return self.all_made,
        };
        let mut last = None;
        for file in files {
            let entry = &self.entries[self.work.loads[&file].entry];
            // Rows that find their partition by themselves need all of them, and a table of an extension is made by it.
            let is_own = !entry.definition.starts_with(VIA_ROOT);
            let table = self.tables(entry).next().filter(|table| is_own && self.is_plain(*table));
            last = last.max(table.map_or(self.all_made, |table| made_for.get(&table).copied()));
        }
        last
    }

    /// Whether a table's rows concern nothing but the table.
    fn is_plain(&self, table: i32) -> bool {
        let entry = |id: &i32| self.by_id.get(id).map(|index| &self.entries[*index]);
        entry(&table).is_some_and(|table| {
            let needs: Vec<&Entry> = table.depends_on.iter().filter_map(entry).collect();
            !self.partitions.contains(&table.dump_id) && first::is_plain(table, &needs)
        })
    }

    /// Where rows find their partition by themselves, no table is complete before all of them are in.
    fn via_root(&self) -> Vec<usize> {
        let is_such = |load: &&Load| self.entries[load.entry].definition.starts_with(VIA_ROOT);
        let loads = self.work.loads.values().filter(is_such);
        loads.filter_map(|load| self.done_by.get(&self.entries[load.entry].dump_id)).copied().collect()
    }

    fn push(&mut self, step: Step, node: Node) -> usize {
        self.work.steps.push(step);
        self.work.nodes.push(node);
        self.work.nodes.len() - 1
    }

    /// The steps of data files: one for each part, one for all that share an archive.
    fn rows(&mut self, wanted: &BTreeSet<usize>, pending: &[usize]) -> Result<()> {
        let streamed = self.streamed(wanted, pending);
        let mut archives: BTreeMap<&str, Vec<(u64, usize, usize)>> = BTreeMap::new();
        for (file, data) in self.layout.tables.iter().enumerate() {
            let index = self.by_id.get(&data.dump_id).copied();
            let index = index.ok_or_else(|| misfit(data.dump_id))?;
            if !wanted.contains(&index) {
                continue;
            }
            let entry = &self.entries[index];
            if entry.copy.is_empty() {
                let message = "the rows of the archive are SQL statements, not those of COPY (pg_dump --inserts)";
                return Err(Error::new(ErrorKind::Unsupported, message).with_context("table", &entry.tag));
            }
            let is_stream = streamed.contains(&file);
            let is_whole = (data.parts.len() == 1 || is_stream) && !entry.definition.starts_with(VIA_ROOT);
            let is_large = data.parts.iter().any(|part| part.bytes.is_none()) || bytes(data) >= FREEZE_BYTES_MIN;
            let freeze = is_whole && is_large && self.tables(entry).next().is_some();
            self.work.loads.insert(file, Load { entry: index, freeze });
            if is_stream {
                self.stream_step(file, entry);
                continue;
            }
            for (part, place) in data.parts.iter().enumerate() {
                archives.entry(&place.artifact).or_default().push((place.offset, file, part));
            }
        }
        let loaded: BTreeSet<usize> = self.work.loads.values().map(|load| load.entry).collect();
        let is_data = |index: &&usize| self.entries[**index].kind == "TABLE DATA";
        if let Some(without) = wanted.difference(&loaded).find(is_data) {
            return Err(misfit(self.entries[*without].dump_id));
        }
        self.row_steps(archives);
        Ok(())
    }

    /// The data files of several parts that are better loaded by one connection.
    fn streamed(&self, wanted: &BTreeSet<usize>, pending: &[usize]) -> BTreeSet<usize> {
        let mut ways: BTreeMap<i32, streams::Way> = BTreeMap::new();
        let mut all = 0;
        for (file, data) in self.layout.tables.iter().enumerate() {
            let Some(index) = self.by_id.get(&data.dump_id).filter(|index| wanted.contains(index)) else { continue };
            let load = bytes(data) / COPY_BYTES;
            all += load;
            let is_one = data.parts.len() > 1 && !self.entries[*index].definition.starts_with(VIA_ROOT);
            if let Some(table) = self.tables(&self.entries[*index]).next().filter(|_| is_one) {
                ways.insert(table, streams::Way { file, load, after: 0 });
            }
        }
        for entry in pending.iter().map(|index| &self.entries[*index]) {
            let weight = self.reads(entry);
            all += weight;
            for table in self.tables(entry) {
                if let Some(way) = ways.get_mut(&table) {
                    way.after = way.after.max(weight);
                }
            }
        }
        streams::choose(ways.into_values().collect(), all, self.jobs)
    }

    fn stream_step(&mut self, file: usize, entry: &Entry) {
        let data = &self.layout.tables[file];
        let weight = bytes(data) / COPY_BYTES + STATEMENT_WEIGHT;
        let step = self.push(Step::Stream(file), Node { weight, ..Node::default() });
        self.open.push((step, entry.depends_on.clone()));
        self.loaded_step(file, vec![step]);
    }

    fn loaded_step(&mut self, file: usize, needs: Vec<usize>) {
        let step = self.push(Step::Loaded(file), Node { needs, ..Node::default() });
        self.done_by.insert(self.layout.tables[file].dump_id, step);
    }

    fn row_steps(&mut self, archives: BTreeMap<&str, Vec<(u64, usize, usize)>>) {
        let mut parts_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for mut members in archives.into_values() {
            members.sort_unstable();
            let members: Vec<(usize, usize)> = members.into_iter().map(|(_, file, part)| (file, part)).collect();
            let bytes: u64 = members.iter().map(|(file, part)| self.part_bytes(*file, *part)).sum();
            let own: BTreeSet<i32> = members.iter().map(|(file, _)| self.layout.tables[*file].dump_id).collect();
            let needs =
                members.iter().flat_map(|(file, _)| self.entries[self.work.loads[file].entry].depends_on.iter());
            let needs: Vec<i32> = needs.copied().filter(|id| !own.contains(id)).collect();
            let weight = bytes / COPY_BYTES + STATEMENT_WEIGHT;
            let step = self.push(Step::Rows(members.clone()), Node { weight, ..Node::default() });
            self.open.push((step, needs));
            members.iter().for_each(|(file, _)| parts_of.entry(*file).or_default().push(step));
        }
        for (file, needs) in parts_of {
            self.loaded_step(file, needs);
        }
    }

    fn part_bytes(&self, file: usize, part: usize) -> u64 {
        self.layout.tables[file].parts.get(part).and_then(|part| part.bytes).unwrap_or(0)
    }

    /// All archives of large objects belong to the first entry of their kind: what depends on another waits for all.
    fn blobs(&mut self, entry: &Entry) {
        let of_all = "BLOBS";
        if self.blobs_step.is_none() && entry.kind == of_all {
            for archive in 0..self.layout.blobs.len() {
                let node = Node { weight: SMALL_WEIGHT, ..Node::default() };
                self.blobs_step = Some(self.push(Step::Blobs(archive), node));
            }
        }
        if let Some(step) = self.blobs_step {
            self.done_by.insert(entry.dump_id, step);
        }
    }

    /// What an entry weighs for the rows that it reads.
    fn reads(&self, entry: &Entry) -> u64 {
        let bytes = self.bytes_read(entry);
        match entry.kind.as_str() {
            "INDEX" => bytes / index_speed(&entry.definition),
            "CONSTRAINT" if key::split(entry).is_none() => bytes / PARTS_BYTES,
            "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" => bytes / SORT_BYTES,
            _ => 0,
        }
    }

    fn statement(&mut self, index: usize, entry: &Entry) {
        let is_index = entry.kind == "INDEX";
        let node = Node {
            weight: STATEMENT_WEIGHT + self.reads(entry),
            locks: self.locks(entry, if is_index { Lock::Shared } else { Lock::Exclusive }),
            may_share: true,
            needs: Vec::new(),
        };
        let step = self.push(Step::Entry(index), node);
        self.done_by.insert(entry.dump_id, step);
        self.open.push((step, self.needs(entry)));
    }

    fn constraint(&mut self, index: usize, entry: &Entry) {
        let has_rows = self.tables(entry).any(|table| self.data_of.contains_key(&table) && !self.is_root(table));
        let Some(Key { build, attach }) = has_rows.then(|| key::split(entry)).flatten() else {
            return self.statement(index, entry);
        };
        let weight = STATEMENT_WEIGHT + self.bytes_read(entry) / SORT_BYTES;
        let locks = self.locks(entry, Lock::Shared);
        let build = self.push(Step::Build(index, build), Node { weight, locks, may_share: true, needs: Vec::new() });
        self.open.push((build, self.needs(entry)));
        let node = Node {
            weight: STATEMENT_WEIGHT,
            locks: self.locks(entry, Lock::Exclusive),
            may_share: true,
            needs: vec![build],
        };
        let attach = self.push(Step::Attach(index, attach), node);
        self.done_by.insert(entry.dump_id, attach);
    }

    /// A partitioned table can't take an index as its constraint.
    fn is_root(&self, table: i32) -> bool {
        let entry = self.by_id.get(&table).map(|index| &self.entries[*index]);
        entry.is_some_and(|entry| entry.definition.contains("\nPARTITION BY "))
    }

    /// What an entry waits for: where it depends on a table, that table's rows.
    fn needs(&self, entry: &Entry) -> Vec<i32> {
        let repoints = entry.section == Section::PostData;
        let repointed = |id: &i32| match self.data_of.get(id) {
            Some(data) if repoints => *data,
            _ => *id,
        };
        entry.depends_on.iter().map(repointed).collect()
    }

    /// The tables that an entry of the last section locks: those that it depends on.
    fn locks(&self, entry: &Entry, lock: Lock) -> Vec<(i32, Lock)> {
        if entry.section != Section::PostData {
            return Vec::new();
        }
        self.tables(entry).map(|table| (table, lock)).collect()
    }

    fn bytes_read(&self, entry: &Entry) -> u64 {
        self.tables(entry).filter_map(|table| self.bytes_of.get(&table)).max().copied().unwrap_or(0)
    }
}

/// How many bytes a data file has, if its parts were measured.
fn bytes(file: &DataFile) -> u64 {
    file.parts.iter().filter_map(|part| part.bytes).sum()
}

fn misfit(dump_id: i32) -> Error {
    Error::integrity("contents.json and the table of contents do not fit each other").with_context("toc_id", dump_id)
}
