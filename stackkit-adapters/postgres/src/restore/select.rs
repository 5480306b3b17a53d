//! Which entries a restore of some schemas or tables takes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use stackkit_core::{Error, ErrorKind, Result};

use super::script::qualified;
use crate::archive::{Entry, Section};
use crate::layout::ABSENT;

/// The schema of a table that is named without one.
const SCHEMA_DEFAULT: &str = "public";

/// Kinds of relations that can be chosen by name.
const RELATIONS: [&str; 5] = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"];

/// Kinds before the data that belong to another entry.
const BELONGS: [&str; 6] = ["DEFAULT", "TABLE ATTACH", "SEQUENCE OWNED BY", "COMMENT", "ACL", "SECURITY LABEL"];

/// Kinds of data.
const DATA: [&str; 4] = ["TABLE DATA", "SEQUENCE SET", "MATERIALIZED VIEW DATA", "STATISTICS DATA"];

/// What a selection comes to.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// The entries that are taken, by number; nothing if all are.
    wanted: Option<BTreeSet<i32>>,
    /// Those of them that were chosen themselves, by name or as a part of a chosen schema or table.
    chosen: BTreeSet<i32>,
    /// What is left out although it belongs to something chosen, and what comes without its rows.
    pub(crate) warnings: Vec<String>,
}

impl Selection {
    /// The entries of these schemas and tables with all that belongs to them and all that they need. With neither it is
    /// everything.
    ///
    /// # Errors
    /// `NotFound` for a name that the dump does not hold.
    pub(crate) fn new(entries: &[Entry], schemas: &[String], tables: &[String]) -> Result<Self> {
        if schemas.is_empty() && tables.is_empty() {
            return Ok(Self::default());
        }
        let is_schema = |entry: &&Entry| entry.kind == "SCHEMA";
        let mut chooser = Chooser {
            entries,
            by_id: entries.iter().map(|entry| (entry.dump_id, entry)).collect(),
            schemas: entries.iter().rev().filter(is_schema).map(|entry| (entry.tag.as_str(), entry.dump_id)).collect(),
            whole: BTreeSet::new(),
            wanted: BTreeSet::new(),
            left_out: BTreeSet::new(),
        };
        schemas.iter().try_for_each(|schema| chooser.schema(schema))?;
        tables.iter().try_for_each(|table| chooser.table(table))?;
        while chooser.grow() {}
        let warnings = chooser.warnings();
        Ok(Self { wanted: Some(chooser.wanted), chosen: chooser.whole, warnings })
    }

    /// Exactly these entries.
    pub(crate) fn of(ids: BTreeSet<i32>) -> Self {
        Self { chosen: ids.clone(), wanted: Some(ids), warnings: Vec::new() }
    }

    /// Whether an entry was chosen itself, and does not come only because something else needs it.
    pub(crate) fn is_chosen(&self, entry: &Entry) -> bool {
        self.is_all() || self.chosen.contains(&entry.dump_id)
    }

    /// Whether an entry is taken.
    pub(crate) fn takes(&self, entry: &Entry) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&entry.dump_id))
    }

    /// Whether everything is taken.
    pub(crate) fn is_all(&self) -> bool {
        self.wanted.is_none()
    }
}

struct Chooser<'a> {
    entries: &'a [Entry],
    by_id: BTreeMap<i32, &'a Entry>,
    /// The entries that make schemas, by name.
    schemas: BTreeMap<&'a str, i32>,
    /// What was chosen, with its rows.
    whole: BTreeSet<i32>,
    /// What is taken: the chosen, what belongs to it, and what it needs.
    wanted: BTreeSet<i32>,
    /// What belongs to something chosen and can't be had without something that was not.
    left_out: BTreeSet<i32>,
}

impl Chooser<'_> {
    fn schema(&mut self, name: &str) -> Result<()> {
        let is_in = |entry: &&Entry| match entry.kind.as_str() {
            "SCHEMA" => entry.tag == name,
            _ => entry.schema.as_deref() == Some(name) && entry.section == Section::PreData && !belongs(entry),
        };
        let found: Vec<i32> = self.entries.iter().filter(is_in).map(|entry| entry.dump_id).collect();
        self.choose(found, "the dump does not hold this schema", name)
    }

    fn table(&mut self, name: &str) -> Result<()> {
        // A name may hold dots itself: the first that fits is meant.
        let splits = name.match_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
        let pairs: Vec<(&str, &str)> = splits.chain([(SCHEMA_DEFAULT, name)]).collect();
        let named = |entry: &&Entry| {
            let (schema, tag) = (entry.schema.as_deref().unwrap_or_default(), entry.tag.as_str());
            RELATIONS.contains(&entry.kind.as_str()) && pairs.contains(&(schema, tag))
        };
        let found: Vec<i32> = self.entries.iter().filter(named).map(|entry| entry.dump_id).take(1).collect();
        self.choose(found, "the dump does not hold this table", name)
    }

    fn choose(&mut self, found: Vec<i32>, message: &str, name: &str) -> Result<()> {
        if found.is_empty() {
            let error = Error::new(ErrorKind::NotFound, message).with_code(ABSENT).with_context("name", name);
            return Err(error.with_context("hint", "names are exact, and a table without a schema is one of public"));
        }
        self.wanted.extend(&found);
        self.whole.extend(found);
        Ok(())
    }

    /// Takes what follows from what is taken already; whether there was something.
    fn grow(&mut self) -> bool {
        let before = (self.wanted.len(), self.whole.len());
        for entry in self.entries {
            self.partitions_and_sequences(entry);
            if !self.wanted.contains(&entry.dump_id) && self.is_part(entry) {
                self.part(entry);
            }
            if self.wanted.contains(&entry.dump_id) {
                self.prerequisites(entry);
            }
        }
        before != (self.wanted.len(), self.whole.len())
    }

    /// A chosen table's partitions and the sequences of its columns are chosen with it.
    fn partitions_and_sequences(&mut self, entry: &Entry) {
        let of = match entry.kind.as_str() {
            "TABLE ATTACH" if entry.depends_on.iter().any(|id| self.is_chosen_above(*id, entry)) => "TABLE",
            "SEQUENCE OWNED BY" if entry.depends_on.iter().any(|id| self.is_whole(*id, "TABLE")) => "SEQUENCE",
            "SEQUENCE" if entry.depends_on.iter().any(|id| self.is_whole(*id, "TABLE")) => {
                self.wanted.insert(entry.dump_id);
                self.whole.insert(entry.dump_id);
                return;
            }
            _ => return,
        };
        let others = entry.depends_on.iter().filter(|id| self.kind(**id) == of);
        let others: Vec<i32> = others.copied().collect();
        self.wanted.extend(&others);
        self.whole.extend(others);
    }

    /// Whether a chosen table is the one that `attach` puts a partition into; the entry has the partition's name. A partition
    /// may have partitions itself, and does not choose the table above it.
    fn is_chosen_above(&self, id: i32, attach: &Entry) -> bool {
        let is_partition =
            self.by_id.get(&id).is_some_and(|table| table.tag == attach.tag && table.schema == attach.schema);
        self.whole.contains(&id) && self.is_root(id) && !is_partition
    }

    /// Whether an entry is a part of something that is taken.
    fn is_part(&self, entry: &Entry) -> bool {
        let is_data = DATA.contains(&entry.kind.as_str());
        let of = |id: &i32| match is_data {
            true => self.whole.contains(id) || (self.wanted.contains(id) && self.kind(*id) == "SEQUENCE"),
            false => {
                self.wanted.contains(id) && (self.whole.contains(id) || self.by_id.get(id).is_some_and(|e| belongs(e)))
            }
        };
        belongs(entry) && entry.depends_on.iter().any(of)
    }

    /// Takes a part, unless it leads to a table that was not chosen.
    fn part(&mut self, entry: &Entry) {
        let is_strange = |id: &&i32| match self.kind(**id) {
            "TABLE" => !self.whole.contains(*id) && (entry.kind != "TABLE DATA"),
            _ => false,
        };
        // A statistic, a rule or a policy may well read another table, which then comes without its rows.
        let is_link = matches!(entry.kind.as_str(), "FK CONSTRAINT" | "TABLE ATTACH" | "INDEX ATTACH");
        let to_unknown_index = entry.kind == "INDEX ATTACH"
            && entry.depends_on.iter().any(|id| self.by_id.contains_key(id) && !self.wanted.contains(id));
        if is_link && (entry.depends_on.iter().any(|id| is_strange(&id)) || to_unknown_index) {
            self.left_out.insert(entry.dump_id);
            return;
        }
        self.left_out.remove(&entry.dump_id);
        self.wanted.insert(entry.dump_id);
    }

    /// Takes what a taken entry needs before it, and the schema it is in.
    fn prerequisites(&mut self, entry: &Entry) {
        for id in &entry.depends_on {
            let is_before = self.by_id.get(id).is_some_and(|needed| needed.section == Section::PreData);
            let is_key = matches!(self.kind(*id), "CONSTRAINT" | "INDEX");
            if is_before || is_key {
                self.wanted.insert(*id);
            }
        }
        self.wanted.extend(entry.schema.as_deref().and_then(|schema| self.schemas.get(schema)));
    }

    fn kind(&self, id: i32) -> &str {
        self.by_id.get(&id).map_or("", |entry| entry.kind.as_str())
    }

    fn is_whole(&self, id: i32, kind: &str) -> bool {
        self.whole.contains(&id) && self.kind(id) == kind
    }

    fn is_root(&self, id: i32) -> bool {
        self.by_id.get(&id).is_some_and(|entry| entry.definition.contains("\nPARTITION BY "))
    }

    fn warnings(&self) -> Vec<String> {
        let left_out = self.left_out.iter().filter_map(|id| self.by_id.get(id));
        let left_out = left_out.map(|entry| {
            format!("{} {} is left out: it leads to a table that was not chosen", entry.kind, qualified(entry))
        });
        let without = |entry: &&Entry| {
            let is_table = matches!(entry.kind.as_str(), "TABLE" | "FOREIGN TABLE") && !self.is_root(entry.dump_id);
            is_table && self.wanted.contains(&entry.dump_id) && !self.whole.contains(&entry.dump_id)
        };
        let without = self.entries.iter().filter(without);
        let without = without
            .map(|entry| format!("the table {} comes without its rows: something chosen needs it", qualified(entry)));
        let objects = self.large_objects();
        let objects = (objects > 0).then(|| format!("{objects} large objects are left out: they belong to no table"));
        left_out.chain(without).chain(objects).collect()
    }

    fn large_objects(&self) -> usize {
        let of = |entry: &Entry| match entry.kind.as_str() {
            "BLOB" => 1,
            "BLOB METADATA" => entry.definition.lines().filter(|line| !line.trim().is_empty()).count(),
            _ => 0,
        };
        self.entries.iter().filter(|entry| !self.wanted.contains(&entry.dump_id)).map(of).sum()
    }
}

/// Whether an entry is a part of another one.
fn belongs(entry: &Entry) -> bool {
    entry.section != Section::PreData || BELONGS.contains(&entry.kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::samples::entry;

    fn of(dump_id: i32, kind: &str, depends_on: &[i32]) -> Entry {
        let mut entry = entry(dump_id, kind);
        entry.depends_on = depends_on.to_vec();
        entry
    }

    fn chosen(entries: &[Entry], tables: &[&str]) -> (Vec<i32>, Vec<String>) {
        let tables: Vec<String> = tables.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection::new(entries, &[], &tables).expect("a selection");
        let ids = entries.iter().filter(|entry| selection.takes(entry)).map(|entry| entry.dump_id).collect();
        (ids, selection.warnings)
    }

    #[test]
    fn a_table_brings_what_belongs_to_it_and_what_it_needs() {
        let entries = [
            of(1, "TYPE", &[]),
            of(2, "TABLE", &[1]),
            of(3, "SEQUENCE", &[]),
            of(4, "SEQUENCE OWNED BY", &[2, 3]),
            of(5, "DEFAULT", &[2, 3]),
            of(6, "TABLE DATA", &[2]),
            of(7, "SEQUENCE SET", &[3]),
            of(8, "CONSTRAINT", &[2]),
            of(9, "COMMENT", &[8]),
            of(10, "TABLE", &[]),
            of(11, "TABLE DATA", &[10]),
            of(12, "FK CONSTRAINT", &[2, 10]),
            of(13, "ACL", &[2]),
            of(14, "TYPE", &[]),
        ];
        let (ids, warnings) = chosen(&entries, &["public.x2"]);
        assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8, 9, 13]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("FK CONSTRAINT"), "{warnings:?}");
        let (both, warnings) = chosen(&entries, &["x2", "x10"]);
        assert!(both.contains(&12) && warnings.is_empty(), "{both:?} {warnings:?}");
        assert_eq!(chosen(&entries, &["x10"]).0, [10, 11]);
    }

    #[test]
    fn a_partitioned_table_brings_its_partitions() {
        let mut root = of(1, "TABLE", &[]);
        root.definition = "CREATE TABLE public.x1 (\n    a date\n)\nPARTITION BY RANGE (a);\n".to_owned();
        let entries = [root, of(2, "TABLE", &[]), of(3, "TABLE ATTACH", &[1, 2]), of(4, "TABLE DATA", &[2])];
        assert_eq!(chosen(&entries, &["x1"]).0, [1, 2, 3, 4]);
        let (ids, warnings) = chosen(&entries, &["x2"]);
        assert_eq!((ids, warnings.len()), (vec![2, 4], 1));
    }

    #[test]
    fn a_partition_that_has_partitions_does_not_bring_the_table_above() {
        let parted = |id| {
            let mut table = of(id, "TABLE", &[]);
            table.definition = "CREATE TABLE t (\n    a date\n)\nPARTITION BY RANGE (a);\n".to_owned();
            table
        };
        let attach = |id, child: &Entry, parent: i32| {
            let mut attach = of(id, "TABLE ATTACH", &[parent, child.dump_id]);
            (attach.tag, attach.schema) = (child.tag.clone(), child.schema.clone());
            attach
        };
        let (root, middle, leaf) = (parted(1), parted(2), of(3, "TABLE", &[]));
        let (upper, lower) = (attach(4, &middle, 1), attach(5, &leaf, 2));
        let entries = [root, middle, leaf, upper, lower, of(6, "TABLE DATA", &[3])];
        assert_eq!(chosen(&entries, &["x2"]).0, [2, 3, 5, 6]);
        assert_eq!(chosen(&entries, &["x1"]).0, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_view_of_another_table_gets_it_without_rows() {
        let entries = [of(1, "TABLE", &[]), of(2, "VIEW", &[1]), of(3, "TABLE DATA", &[1])];
        let (ids, warnings) = chosen(&entries, &["x2"]);
        assert_eq!(ids, [1, 2]);
        assert!(warnings[0].contains("without its rows"), "{warnings:?}");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let entries = [of(1, "TABLE", &[])];
        let error = Selection::new(&entries, &["nowhere".into()], &[]).expect_err("no such schema");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(Selection::new(&entries, &[], &[]).expect("all").is_all());
    }
}
