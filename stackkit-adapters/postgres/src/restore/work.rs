//! What is to be done for a table of contents, and what of it waits for what. Pure.

use std::collections::{BTreeMap, BTreeSet};

use stackkit_core::{Error, ErrorKind, Result};

use super::key::{self, Key};
use super::schedule::{Lock, Node, SMALL_WEIGHT};
use crate::archive::{Entry, Section};
use crate::layout::{DataFile, DatabaseLayout};

/// What a comment at the start of a data entry says where rows find their partition by themselves
/// (`pg_dump --load-via-partition-root`): then a table's rows are in more than one entry.
pub(crate) const VIA_ROOT: &str = "-- load via partition root ";

/// How many bytes of `COPY` text a server takes in in a microsecond of one core, measured at 85 MB/s with a primary key
/// to come. The other figures are relative to it.
const COPY_BYTES: u64 = 85;
/// How many bytes of a table's text a scan with a sort handles in a microsecond: a b-tree, a check of a foreign key.
const SORT_BYTES: u64 = 300;
/// The same for indexes that take a value apart: GIN, GiST, SP-GiST.
const PARTS_BYTES: u64 = 25;
/// The same for indexes over vectors.
const VECTOR_BYTES: u64 = 4;
/// What a statement weighs that reads no rows.
const STATEMENT_WEIGHT: u64 = 300;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The statements of the entry with this index.
    Entry(usize),
    /// The index of a key, and of which entry.
    Build(usize, String),
    /// The constraint over it.
    Attach(usize, String),
    /// Rows from one artifact: each is the index of a data file of the layout and of a part of it. In the order in which
    /// they stand in the artifact.
    Rows(Vec<(usize, usize)>),
    /// All parts of this data file are in.
    Loaded(usize),
    /// The archive of large objects with this index.
    Blobs(usize),
}

/// How a data file is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load {
    /// The index of its entry.
    pub(crate) entry: usize,
    /// The table's name if it was made by this restore, is empty, and gets all its rows from one stream: then it is
    /// emptied and filled in one transaction, which freezes its rows.
    pub(crate) freeze: bool,
}

/// All of it, by phase.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Entries that come first, in their order.
    pub(crate) first: Vec<usize>,
    /// What runs then, by several connections.
    pub(crate) steps: Vec<Step>,
    pub(crate) nodes: Vec<Node>,
    /// How each data file of the layout is loaded; nothing for those that are not.
    pub(crate) loads: BTreeMap<usize, Load>,
    /// Grants, in their order.
    pub(crate) grants: Vec<usize>,
    /// Materialized views, event triggers and their comments, in their order.
    pub(crate) last: Vec<usize>,
}

/// When an entry's turn is: `_tocEntryRestorePass` of `pg_backup_archiver.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Main,
    Grants,
    Last,
}

fn pass(entry: &Entry) -> Pass {
    let of_event_trigger = entry.tag.starts_with("EVENT TRIGGER ");
    match entry.kind.as_str() {
        "ACL" | "ACL LANGUAGE" | "DEFAULT ACL" => Pass::Grants,
        "EVENT TRIGGER" | "MATERIALIZED VIEW DATA" => Pass::Last,
        "COMMENT" | "SECURITY LABEL" if of_event_trigger => Pass::Last,
        _ => Pass::Main,
    }
}

/// Whether an entry is no object of the database: settings of the archive, and the database itself.
pub(crate) fn is_outside(entry: &Entry) -> bool {
    match entry.kind.as_str() {
        "ENCODING" | "STDSTRINGS" | "SEARCHPATH" | "DATABASE" | "DATABASE PROPERTIES" => true,
        "ACL" | "COMMENT" | "SECURITY LABEL" => entry.tag.starts_with("DATABASE "),
        _ => false,
    }
}

/// Plans the work. Entries for which `is_wanted` is false are left out.
///
/// # Errors
/// `Unsupported` if the rows are SQL; `Integrity` if contents and layout do not fit each other.
pub(crate) fn plan(entries: &[Entry], layout: &DatabaseLayout, is_wanted: &dyn Fn(&Entry) -> bool) -> Result<Work> {
    let mut work = Work::default();
    let mut pending = Vec::new();
    let mut is_first = true;
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| !is_outside(entry) && is_wanted(entry)) {
        is_first &= !matches!(entry.section, Section::Data | Section::PostData) || makes_blobs(entry);
        match pass(entry) {
            Pass::Grants => work.grants.push(index),
            Pass::Last => work.last.push(index),
            Pass::Main if entry.section == Section::PreData || makes_blobs(entry) => work.first.push(index),
            Pass::Main if entry.section == Section::None && is_first => work.first.push(index),
            Pass::Main => pending.push(index),
        }
    }
    Builder::new(entries, layout, work).build(&pending)
}

/// Large objects are made before anything writes to them.
fn makes_blobs(entry: &Entry) -> bool {
    matches!(entry.kind.as_str(), "BLOB" | "BLOB METADATA")
}

struct Builder<'a> {
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
    /// The last step of large objects.
    blobs_step: Option<usize>,
    work: Work,
}

impl<'a> Builder<'a> {
    fn new(entries: &'a [Entry], layout: &'a DatabaseLayout, work: Work) -> Self {
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
            blobs_step: None,
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

    fn build(mut self, pending: &[usize]) -> Result<Work> {
        let wanted: BTreeSet<usize> = pending.iter().copied().collect();
        self.rows(&wanted)?;
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
            let needs = ids.iter().filter_map(|id| self.done_by.get(id)).copied();
            self.work.nodes[step].needs.extend(needs);
            if !matches!(self.work.steps[step], Step::Rows(_) | Step::Loaded(_)) {
                self.work.nodes[step].needs.extend(&via_root);
            }
        }
        Ok(self.work)
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
    fn rows(&mut self, wanted: &BTreeSet<usize>) -> Result<()> {
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
            let is_whole = data.parts.len() == 1 && !entry.definition.starts_with(VIA_ROOT);
            let freeze = is_whole && self.tables(entry).next().is_some();
            self.work.loads.insert(file, Load { entry: index, freeze });
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
            let step = self.push(Step::Loaded(file), Node { needs, ..Node::default() });
            self.done_by.insert(self.layout.tables[file].dump_id, step);
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

    fn statement(&mut self, index: usize, entry: &Entry) {
        let bytes = self.bytes_read(entry);
        let is_index = entry.kind == "INDEX";
        let reads = match entry.kind.as_str() {
            "INDEX" => bytes / index_speed(&entry.definition),
            "CONSTRAINT" => bytes / PARTS_BYTES,
            "FK CONSTRAINT" | "CHECK CONSTRAINT" => bytes / SORT_BYTES,
            _ => 0,
        };
        let node = Node {
            weight: STATEMENT_WEIGHT + reads,
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

/// How many bytes of a table's text a build of this index handles in a microsecond.
fn index_speed(definition: &str) -> u64 {
    let method = definition.split(" USING ").nth(1).unwrap_or_default();
    match method.split([' ', '(']).next().unwrap_or_default() {
        "gin" | "gist" | "spgist" => PARTS_BYTES,
        "hnsw" | "ivfflat" => VECTOR_BYTES,
        _ => SORT_BYTES,
    }
}

/// Whether the statement builds a b-tree, which several workers of the server can share.
pub(crate) fn is_btree(statement: &str) -> bool {
    statement.contains(" USING btree ")
}

fn misfit(dump_id: i32) -> Error {
    Error::integrity("contents.json and the table of contents do not fit each other").with_context("toc_id", dump_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Part;
    use crate::restore::samples::entry;

    fn file(dump_id: i32, places: &[(&str, u64)]) -> DataFile {
        let part = |(artifact, offset): &(&str, u64)| Part {
            artifact: (*artifact).to_owned(),
            offset: *offset,
            bytes: Some(8_500_000),
        };
        let parts = places.iter().map(part).collect();
        let (schema, table) = ("public".to_owned(), format!("t{dump_id}"));
        DataFile { dump_id, schema, table, rows: None, row_hash: None, parts }
    }

    fn layout(tables: Vec<DataFile>) -> DatabaseLayout {
        DatabaseLayout {
            name: "shop".into(),
            prefix: String::new(),
            position: None,
            encoding: "UTF8".into(),
            tables,
            blobs: Vec::new(),
            blobs_count: 0,
        }
    }

    fn of(dump_id: i32, kind: &str, depends_on: &[i32]) -> Entry {
        let mut entry = entry(dump_id, kind);
        entry.depends_on = depends_on.to_vec();
        entry.copy = "COPY t FROM stdin;\n".to_owned();
        if kind == "CONSTRAINT" {
            entry.definition = "ALTER TABLE ONLY t\n    ADD CONSTRAINT k PRIMARY KEY (id);\n".to_owned();
        }
        entry
    }

    /// The steps that a step waits for.
    fn needs<'a>(work: &'a Work, step: &Step) -> Vec<&'a Step> {
        let index = work.steps.iter().position(|other| other == step).expect("the step");
        work.nodes[index].needs.iter().map(|need| &work.steps[*need]).collect()
    }

    #[test]
    fn indexes_wait_for_their_own_rows_only() {
        let entries = [
            of(1, "TABLE", &[]),
            of(2, "TABLE", &[]),
            of(3, "TABLE DATA", &[1]),
            of(4, "TABLE DATA", &[2]),
            of(5, "CONSTRAINT", &[1]),
            of(6, "INDEX", &[2]),
            of(7, "FK CONSTRAINT", &[1, 2, 5]),
            of(8, "ACL", &[1]),
            of(9, "EVENT TRIGGER", &[]),
        ];
        let layout = layout(vec![file(3, &[("3.dat.000", 0), ("3.dat.001", 0)]), file(4, &[("4.dat", 0)])]);
        let work = plan(&entries, &layout, &|_| true).expect("a plan");
        assert_eq!((&work.first, &work.grants, &work.last), (&vec![0, 1], &vec![7], &vec![8]));
        let key = key::split(&entries[4]).expect("a key");
        let (build, attach) = (Step::Build(4, key.build), Step::Attach(4, key.attach));
        assert_eq!(needs(&work, &Step::Loaded(0)), [&Step::Rows(vec![(0, 0)]), &Step::Rows(vec![(0, 1)])]);
        assert_eq!(needs(&work, &build), [&Step::Loaded(0)]);
        assert_eq!(needs(&work, &Step::Entry(5)), [&Step::Loaded(1)]);
        assert_eq!(needs(&work, &Step::Entry(6)), [&Step::Loaded(0), &Step::Loaded(1), &attach]);
        assert!(!work.loads[&0].freeze && work.loads[&1].freeze, "only a table that comes in one stream");
    }

    #[test]
    fn small_tables_of_one_archive_are_one_step() {
        let entries = [of(1, "TABLE", &[]), of(2, "TABLE", &[]), of(3, "TABLE DATA", &[1]), of(4, "TABLE DATA", &[2])];
        let layout = layout(vec![file(3, &[("tables.000.tar", 2048)]), file(4, &[("tables.000.tar", 512)])]);
        let work = plan(&entries, &layout, &|_| true).expect("a plan");
        assert_eq!(work.steps[0], Step::Rows(vec![(1, 0), (0, 0)]), "in the order of the archive");
        let one = plan(&entries, &layout, &|entry| !matches!(entry.dump_id, 1 | 3)).expect("a plan");
        assert_eq!(one.steps[0], Step::Rows(vec![(1, 0)]), "only what is wanted");
    }

    #[test]
    fn rows_that_are_not_there_are_an_error() {
        let entries = [of(1, "TABLE", &[]), of(3, "TABLE DATA", &[1])];
        let error = plan(&entries, &layout(Vec::new()), &|_| true).expect_err("no file");
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(plan(&entries, &layout(vec![file(9, &[])]), &|_| true).is_err());
    }

    #[test]
    fn a_table_of_an_extension_is_not_emptied() {
        let entries = [of(1, "EXTENSION", &[]), of(3, "TABLE DATA", &[1])];
        let work = plan(&entries, &layout(vec![file(3, &[("3.dat", 0)])]), &|_| true).expect("a plan");
        assert!(!work.loads[&0].freeze);
    }
}
