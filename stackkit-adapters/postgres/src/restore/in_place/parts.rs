//! Which entries of a dump a restore in place replaces, which it only makes where they are missing, and how the objects of
//! the former are dropped. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::archive::{Entry, Section};
use crate::restore::select::Selection;
use crate::restore::work::{VIA_ROOT, is_outside};

/// Kinds of relations.
const RELATIONS: [&str; 5] = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"];

/// Kinds of types.
const TYPES: [&str; 2] = ["TYPE", "DOMAIN"];

/// Kinds of routines.
const ROUTINES: [&str; 3] = ["FUNCTION", "PROCEDURE", "AGGREGATE"];

/// Further kinds that stand by themselves. They are dropped by their own statements, after what may use them.
const OTHERS: [&str; 18] = [
    "PUBLICATION",
    "STATISTICS",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "OPERATOR",
    "CAST",
    "TRANSFORM",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH TEMPLATE",
    "TEXT SEARCH PARSER",
    "COLLATION",
    "CONVERSION",
    "USER MAPPING",
    "SERVER",
    "FOREIGN DATA WRAPPER",
    "PROCEDURAL LANGUAGE",
    "ACCESS METHOD",
];

/// How many large objects are removed in one statement.
const BLOBS_PER_QUERY: usize = 1000;

/// The entries of a dump, as a restore in place takes them.
pub(crate) struct Parts<'a> {
    /// What is dropped and made again, with all that belongs to it.
    pub(crate) replaced: Vec<&'a Entry>,
    /// What stays if it is there: schemas, and what a chosen table needs.
    pub(crate) kept: Vec<&'a Entry>,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(entries: &'a [Entry], selection: &Selection) -> Self {
        let taken: Vec<&Entry> = entries.iter().filter(|entry| selection.takes(entry) && !is_outside(entry)).collect();
        let stands_alone = |entry: &Entry| entry.section == Section::PreData && !is_part(entry);
        let is_kept = |entry: &Entry| {
            stands_alone(entry)
                && (matches!(entry.kind.as_str(), "SCHEMA" | "EXTENSION") || !selection.is_chosen(entry))
        };
        let kept: Vec<&Entry> = taken.iter().copied().filter(|entry| is_kept(entry)).collect();
        let of_kept: BTreeSet<i32> = match selection.is_all() {
            true => BTreeSet::new(),
            false => left_alone(&taken, &kept),
        };
        let is_replaced = |entry: &&Entry| !is_kept(entry) && !of_kept.contains(&entry.dump_id);
        Self { replaced: taken.iter().copied().filter(is_replaced).collect(), kept }
    }

    /// The entries that are loaded.
    pub(crate) fn selection(&self) -> Selection {
        Selection::of(self.ids())
    }

    pub(crate) fn ids(&self) -> BTreeSet<i32> {
        self.replaced.iter().map(|entry| entry.dump_id).collect()
    }

    /// Schema and name of relations.
    pub(crate) fn relations(&self) -> Vec<(&str, &str)> {
        self.named(&RELATIONS)
    }

    /// Schema and name of types.
    pub(crate) fn types(&self) -> Vec<(&str, &str)> {
        self.named(&TYPES)
    }

    fn named(&self, kinds: &[&str]) -> Vec<(&str, &str)> {
        let of = self.replaced.iter().filter(|entry| kinds.contains(&entry.kind.as_str()));
        of.map(|entry| name(entry)).collect()
    }

    /// Routines as the statements that drop them name them: with schema and arguments.
    pub(crate) fn routines(&self) -> Vec<&str> {
        let of = self.replaced.iter().filter(|entry| ROUTINES.contains(&entry.kind.as_str()));
        of.filter_map(|entry| {
            let rest = entry.drop.trim_end_matches(['\n', ';']).strip_prefix("DROP ")?;
            rest.strip_prefix(entry.kind.as_str()).map(str::trim_start)
        })
        .collect()
    }

    /// Whether rows are of a table that an extension makes.
    pub(crate) fn is_of_extension(&self, data: &Entry) -> bool {
        let is_needed = |entry: &&&Entry| entry.kind == "EXTENSION" && data.depends_on.contains(&entry.dump_id);
        self.kept.iter().any(|entry| is_needed(&entry))
    }

    /// Whether the dump makes an object of this kind.
    pub(crate) fn makes(&self, kind: &str) -> bool {
        self.replaced.iter().any(|entry| entry.kind == kind)
    }

    /// Whether the dump makes the object of this kind that its entry calls so.
    pub(crate) fn makes_tagged(&self, kind: &str, schema: &str, tag: &str) -> bool {
        self.replaced.iter().any(|entry| entry.kind == kind && name(entry) == (schema, tag))
    }

    /// The entries that set something of a trigger that a partition has from the table above it.
    pub(crate) fn of_inherited_triggers(&self) -> BTreeSet<i32> {
        let is_such =
            |entry: &&&Entry| entry.kind == "TRIGGER" && !entry.definition.trim_start().starts_with("CREATE ");
        self.replaced.iter().filter(|entry| is_such(entry)).map(|entry| entry.dump_id).collect()
    }

    /// Tables whose rows find their partition through the top of its tree, which is not restored.
    pub(crate) fn without_root(&self, entries: &[Entry]) -> Vec<&'a Entry> {
        let made: BTreeSet<i32> = self.replaced.iter().map(|entry| entry.dump_id).collect();
        let above: BTreeMap<(&str, &str), &Entry> =
            entries.iter().filter(|entry| entry.kind == "TABLE ATTACH").map(|entry| (name(entry), entry)).collect();
        let tables: BTreeMap<i32, &Entry> =
            entries.iter().filter(|entry| entry.kind == "TABLE").map(|entry| (entry.dump_id, entry)).collect();
        let is_cut = |data: &Entry| {
            let mut at = name(data);
            while let Some(attach) = above.get(&at) {
                if !made.contains(&attach.dump_id) {
                    return true;
                }
                let others = attach.depends_on.iter().filter_map(|id| tables.get(id)).copied();
                let Some(parent) = others.map(name).find(|table| *table != at) else { return false };
                at = parent;
            }
            false
        };
        let is_through = |entry: &&&Entry| entry.kind == "TABLE DATA" && entry.definition.starts_with(VIA_ROOT);
        self.replaced.iter().filter(|entry| is_through(entry) && is_cut(entry)).copied().collect()
    }

    /// What drops event triggers, which would see everything else.
    pub(crate) fn drops_before(&self) -> Vec<(&'a Entry, String)> {
        self.drops(&["EVENT TRIGGER"])
    }

    /// What drops the other kinds, in the reverse order of the dump.
    pub(crate) fn drops_after(&self) -> Vec<(&'a Entry, String)> {
        self.drops(&OTHERS)
    }

    fn drops(&self, kinds: &[&str]) -> Vec<(&'a Entry, String)> {
        let of = self.replaced.iter().rev().filter(|entry| kinds.contains(&entry.kind.as_str()));
        of.filter_map(|entry| {
            let start = format!("DROP {} ", entry.kind);
            let rest = entry.drop.strip_prefix(&start)?;
            Some((*entry, format!("{start}IF EXISTS {rest}")))
        })
        .collect()
    }

    /// What removes the large objects that the dump holds.
    pub(crate) fn drops_blobs(&self) -> Vec<String> {
        let numbers: Vec<&str> = self.replaced.iter().flat_map(|entry| blobs(entry)).collect();
        let drop = |numbers: &[&str]| {
            format!(
                "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid IN ({})",
                numbers.join(", ")
            )
        };
        numbers.chunks(BLOBS_PER_QUERY).map(drop).collect()
    }

    /// How many large objects the dump holds.
    pub(crate) fn blobs_count(&self) -> usize {
        self.replaced.iter().map(|entry| blobs(entry).len()).sum()
    }
}

/// Schema and name.
fn name(entry: &Entry) -> (&str, &str) {
    (entry.schema.as_deref().unwrap_or_default(), entry.tag.as_str())
}

fn blobs(entry: &Entry) -> Vec<&str> {
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match entry.kind.as_str() {
        "BLOB" => Some(entry.tag.as_str()).filter(is_number).into_iter().collect(),
        "BLOB METADATA" => entry.definition.lines().map(str::trim).filter(is_number).collect(),
        _ => Vec::new(),
    }
}

/// Whether an entry before the data belongs to another one.
fn is_part(entry: &Entry) -> bool {
    let kinds = ["DEFAULT", "TABLE ATTACH", "SEQUENCE OWNED BY", "COMMENT", "ACL", "SECURITY LABEL"];
    kinds.contains(&entry.kind.as_str())
}

/// The entries that belong only to objects that stay: keys of tables that are needed, values of sequences.
fn left_alone(taken: &[&Entry], kept: &[&Entry]) -> BTreeSet<i32> {
    let mut left: BTreeSet<i32> = kept.iter().map(|entry| entry.dump_id).collect();
    let known: BTreeSet<i32> = taken.iter().map(|entry| entry.dump_id).collect();
    loop {
        let belongs = |entry: &&&Entry| {
            let mut needs = entry.depends_on.iter().filter(|id| known.contains(id)).peekable();
            let is_part = entry.section != Section::PreData || is_part(entry);
            is_part && !left.contains(&entry.dump_id) && needs.peek().is_some() && needs.all(|id| left.contains(id))
        };
        let more: Vec<i32> = taken.iter().filter(belongs).map(|entry| entry.dump_id).collect();
        if more.is_empty() {
            return left;
        }
        left.extend(more);
    }
}
