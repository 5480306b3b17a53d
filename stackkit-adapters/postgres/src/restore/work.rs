//! What is to be done for a table of contents, and what of it waits for what. Pure.

use std::collections::BTreeMap;

use stackkit_core::Result;

use super::builder::Builder;
use super::schedule::Node;
use crate::archive::{Entry, Section};
use crate::layout::DatabaseLayout;

/// What a comment at the start of a data entry says where rows find their partition by themselves
/// (`pg_dump --load-via-partition-root`): then a table's rows are in more than one entry.
pub(crate) const VIA_ROOT: &str = "-- load via partition root ";

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// What comes before the rows: these entries in their order, in one round trip.
    Made(Vec<usize>),
    /// The statements of the entry with this index.
    Entry(usize),
    /// The index of a key, and of which entry.
    Build(usize, String),
    /// The constraint over it.
    Attach(usize, String),
    /// Rows from one artifact: each is the index of a data file of the layout and of a part of it. In the order in which
    /// they stand in the artifact.
    Rows(Vec<(usize, usize)>),
    /// All parts of this data file, one behind the other in one statement.
    Stream(usize),
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
    /// Whether the table was made by this restore, is empty, large enough, and gets all its rows from one stream: then it
    /// is emptied and filled in one transaction, which freezes its rows.
    pub(crate) freeze: bool,
}

/// All of it, by phase.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// What runs first, by several connections.
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

/// Plans the work for `jobs` connections. Entries for which `is_wanted` is false are left out.
///
/// # Errors
/// `Unsupported` if the rows are SQL; `Integrity` if contents and layout do not fit each other.
pub(crate) fn plan(
    entries: &[Entry],
    layout: &DatabaseLayout,
    jobs: usize,
    is_wanted: &dyn Fn(&Entry) -> bool,
) -> Result<Work> {
    let mut work = Work::default();
    let (mut first, mut pending) = (Vec::new(), Vec::new());
    let mut is_first = true;
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| !is_outside(entry) && is_wanted(entry)) {
        is_first &= !matches!(entry.section, Section::Data | Section::PostData) || makes_blobs(entry);
        match pass(entry) {
            Pass::Grants => work.grants.push(index),
            Pass::Last => work.last.push(index),
            Pass::Main if entry.section == Section::PreData || makes_blobs(entry) => first.push(index),
            Pass::Main if entry.section == Section::None && is_first => first.push(index),
            Pass::Main => pending.push(index),
        }
    }
    Builder::new(entries, layout, work, jobs).build(&first, &pending)
}

/// Large objects are made before anything writes to them.
fn makes_blobs(entry: &Entry) -> bool {
    matches!(entry.kind.as_str(), "BLOB" | "BLOB METADATA")
}

#[cfg(test)]
mod tests {
    use stackkit_core::ErrorKind;

    use super::*;
    use crate::layout::{DataFile, Part};
    use crate::restore::key;
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

    /// The steps that a step waits for, in the order in which that was found out.
    fn needs<'a>(work: &'a Work, step: &Step) -> Vec<&'a Step> {
        let index = work.steps.iter().position(|other| other == step).expect("the step");
        let mut seen = std::collections::BTreeSet::new();
        let needs = work.nodes[index].needs.iter().filter(|need| seen.insert(**need));
        needs.map(|need| &work.steps[*need]).collect()
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
        let work = plan(&entries, &layout, 8, &|_| true).expect("a plan");
        let made = Step::Made(vec![0, 1]);
        assert_eq!((&work.steps[0], &work.grants, &work.last), (&made, &vec![7], &vec![8]));
        let key = key::split(&entries[4]).expect("a key");
        let (build, attach) = (Step::Build(4, key.build), Step::Attach(4, key.attach));
        assert_eq!(needs(&work, &Step::Loaded(0)), [&Step::Rows(vec![(0, 0)]), &Step::Rows(vec![(0, 1)])]);
        assert_eq!(needs(&work, &Step::Rows(vec![(0, 0)])), [&made]);
        assert_eq!(needs(&work, &build), [&Step::Loaded(0), &made]);
        assert_eq!(needs(&work, &Step::Entry(5)), [&Step::Loaded(1), &made]);
        assert_eq!(needs(&work, &Step::Entry(6)), [&Step::Loaded(0), &Step::Loaded(1), &attach, &made]);
        assert!(!work.loads[&0].freeze && work.loads[&1].freeze, "only a table that comes in one stream");
    }

    #[test]
    fn small_tables_of_one_archive_are_one_step() {
        let entries = [of(1, "TABLE", &[]), of(2, "TABLE", &[]), of(3, "TABLE DATA", &[1]), of(4, "TABLE DATA", &[2])];
        let layout = layout(vec![file(3, &[("tables.000.tar", 2048)]), file(4, &[("tables.000.tar", 512)])]);
        let work = plan(&entries, &layout, 2, &|_| true).expect("a plan");
        assert_eq!(work.steps[1], Step::Rows(vec![(1, 0), (0, 0)]), "in the order of the archive");

        let one = plan(&entries, &layout, 2, &|entry| !matches!(entry.dump_id, 1 | 3)).expect("a plan");
        assert_eq!(one.steps[1], Step::Rows(vec![(1, 0)]), "only what is wanted");
    }

    #[test]
    fn rows_that_are_not_there_are_an_error() {
        let entries = [of(1, "TABLE", &[]), of(3, "TABLE DATA", &[1])];
        let error = plan(&entries, &layout(Vec::new()), 2, &|_| true).expect_err("no file");
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(plan(&entries, &layout(vec![file(9, &[])]), 2, &|_| true).is_err());
    }

    #[test]
    fn a_table_of_an_extension_is_not_emptied() {
        let entries = [of(1, "EXTENSION", &[]), of(3, "TABLE DATA", &[1])];
        let work = plan(&entries, &layout(vec![file(3, &[("3.dat", 0)])]), 2, &|_| true).expect("a plan");
        assert!(!work.loads[&0].freeze);
    }

    #[test]
    fn a_small_table_is_not_emptied_to_freeze_it() {
        let entries = [of(1, "TABLE", &[]), of(3, "TABLE DATA", &[1])];
        let mut small = file(3, &[("3.dat", 0)]);
        let is_frozen = |file: &DataFile| {
            plan(&entries, &layout(vec![file.clone()]), 2, &|_| true).expect("a plan").loads[&0].freeze
        };
        assert!(is_frozen(&small));
        small.parts[0].bytes = Some((1 << 20) - 1);
        assert!(!is_frozen(&small));
        small.parts[0].bytes = None;
        assert!(is_frozen(&small), "what was not measured may be large");
    }

    #[test]
    fn rows_wait_for_what_has_to_do_with_their_table_only() {
        let first = (1..=100).map(|id| of(id, "TABLE", &[]));
        let default = of(101, "DEFAULT", &[2]);
        let data = [of(201, "TABLE DATA", &[1]), of(202, "TABLE DATA", &[2]), of(203, "TABLE DATA", &[100])];
        let index = of(301, "INDEX", &[1]);
        let entries: Vec<Entry> = first.chain([default]).chain(data).chain([index]).collect();
        let files = [201, 202, 203].map(|id| file(id, &[(format!("{id}.dat").as_str(), 0)]));
        let work = plan(&entries, &layout(files.to_vec()), 2, &|_| true).expect("a plan");
        let (early, late) = (&work.steps[0], &work.steps[1]);
        assert!(matches!((early, late), (Step::Made(a), Step::Made(b)) if a.len() == 64 && b.len() == 37));
        let rows = |file| needs(&work, &Step::Rows(vec![(file, 0)]));
        assert_eq!((rows(0), rows(1), rows(2)), (vec![early], vec![early, late], vec![early, late][1..].to_vec()));
        assert_eq!(needs(&work, late), [early]);
        assert_eq!(needs(&work, &Step::Entry(104)), [&Step::Loaded(0), late]);
    }

    #[test]
    fn a_large_table_among_others_is_one_stream() {
        let entries = [of(1, "TABLE", &[]), of(2, "TABLE", &[]), of(3, "TABLE DATA", &[1]), of(4, "TABLE DATA", &[2])];
        let parts = [("3.dat.000", 0), ("3.dat.001", 0)];
        let both = layout(vec![file(3, &parts), file(4, &[("4.dat", 0), ("4.dat.000", 0), ("4.dat.001", 0)])]);
        let work = plan(&entries, &both, 1, &|_| true).expect("a plan");
        assert!(work.loads[&0].freeze && needs(&work, &Step::Loaded(0)) == [&Step::Stream(0)]);
        let alone = plan(&entries, &both, 2, &|entry| entry.dump_id % 2 == 1).expect("a plan");
        assert_eq!(needs(&alone, &Step::Loaded(0)), [&Step::Rows(vec![(0, 0)]), &Step::Rows(vec![(0, 1)])]);
    }
}
