//! A database of very many tables: what a restore thinks out must not grow with the square of their number.

use std::time::Duration;

use stackkit_core::Clock;

use super::samples::entry;
use super::schedule::Schedule;
use super::select::Selection;
use super::work;
use crate::archive::Entry;
use crate::layout::{DataFile, DatabaseLayout, Part};

/// How many tables.
const TABLES: i32 = 20_000;

/// What it may take in a debug build on a busy machine. One look at each pair of tables alone takes longer.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Tables of 64 bytes each with a key, an index and a grant, in schemas of which one is not in the dump: `public`.
fn database() -> (Vec<Entry>, DatabaseLayout) {
    let of = |dump_id, kind: &str, depends_on: Vec<i32>| {
        let mut entry = entry(dump_id, kind);
        entry.depends_on = depends_on;
        entry.copy = "COPY t FROM stdin;\n".to_owned();
        if kind == "CONSTRAINT" {
            entry.definition = "ALTER TABLE ONLY t\n    ADD CONSTRAINT k PRIMARY KEY (id);\n".to_owned();
        }
        entry
    };
    let kinds = ["TABLE", "TABLE DATA", "CONSTRAINT", "INDEX", "ACL"];
    let mut entries = Vec::new();
    for (kind, first) in kinds.into_iter().zip((0..).step_by(100_000)) {
        entries.extend((1..=TABLES).map(|n| of(first + n, kind, if first == 0 { Vec::new() } else { vec![n] })));
    }
    let file = |n: i32| {
        let artifact = format!("tables.{:03}.tar", n / 1000);
        let part = Part { artifact, offset: u64::from(n.unsigned_abs()) * 1024, bytes: Some(64) };
        let (schema, table) = ("public".to_owned(), format!("x{n}"));
        DataFile { dump_id: 100_000 + n, schema, table, rows: None, row_hash: None, parts: vec![part] }
    };
    let layout = DatabaseLayout {
        name: "shop".into(),
        prefix: String::new(),
        position: None,
        encoding: "UTF8".into(),
        tables: (1..=TABLES).map(file).collect(),
        blobs: Vec::new(),
        blobs_count: 0,
    };
    (entries, layout)
}

#[test]
fn very_many_tables_are_planned_in_a_moment() {
    let (entries, layout) = database();
    let clock = Clock::system();
    let began = clock.instant();
    let selection = Selection::new(&entries, &["public".to_owned()], &[]).expect("a selection");
    let work = work::plan(&entries, &layout, 2, &|entry| selection.takes(entry)).expect("a plan");
    let mut schedule = Schedule::new(work.nodes.clone());
    let mut ran = 0;
    while !schedule.is_done() {
        let batch = schedule.take();
        assert!(!batch.is_empty(), "nothing waits for itself");
        ran += batch.len();
        schedule.end(&batch);
    }
    assert_eq!(ran, work.steps.len());
    let took = clock.instant().duration_since(began);
    assert!(took < TIME_MAX, "{took:?}");
}
