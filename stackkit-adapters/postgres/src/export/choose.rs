//! Which entries of a table of contents are exported.

use std::collections::{HashSet, VecDeque};

use stackkit_core::{Error, ErrorKind, Result};

use super::ExportOptions;
use super::version::{Said, Translator};
use crate::archive::{Entry, Header, TocStream};
use crate::column_options;
use crate::layout::ABSENT;

/// What every archive begins with: it says how to read the rest.
const ALWAYS: [&str; 3] = ["ENCODING", "STDSTRINGS", "SEARCHPATH"];

/// What can be chosen by its name.
const BY_NAME: [&str; 6] = ["TABLE", "FOREIGN TABLE", "TABLE DATA", "SEQUENCE", "VIEW", "MATERIALIZED VIEW"];

/// What goes with something that it stands on.
const WITH_ONE: [&str; 15] = [
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "INDEX",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "COMMENT",
    "ACL",
    "SECURITY LABEL",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS",
];

/// What needs everything that it stands on.
const WITH_ALL: [&str; 5] =
    ["FK CONSTRAINT", "TABLE ATTACH", "INDEX ATTACH", "MATERIALIZED VIEW DATA", "STATISTICS DATA"];

/// What a first pass over a table of contents comes to.
pub(super) struct Chosen {
    /// The numbers of the entries of the dump that are exported; all if nothing.
    kept: Option<HashSet<i32>>,
    last_id: i32,
    /// How many entries are written.
    pub(super) count: u64,
    pub(super) warnings: Vec<String>,
}

/// Reads a table of contents once and notes what is exported.
///
/// # Errors
/// `NotFound` for a table that is not in it; `Unsupported` for what an older reader can't be told.
pub(super) async fn choose(mut toc: TocStream, header: &Header, options: &ExportOptions) -> Result<Chosen> {
    let mut selection = Selection::new(&options.tables);
    let mut last_id = 0;
    let mut chosen = Vec::new();
    let mut statistics = 0_u64;
    let is_older = header.version < toc.header().version;
    while let Some(entry) = toc.next().await? {
        last_id = last_id.max(entry.dump_id);
        if !selection.takes(&entry) {
            continue;
        }
        statistics += u64::from(entry.kind == "STATISTICS DATA");
        chosen.push(shape(entry, is_older));
    }
    selection.check()?;
    // What becomes of each is asked once more, now that the highest number is known.
    let mut translator = Translator::new(last_id);
    let mut count = 0;
    for entry in chosen {
        if let Said::Entries(entries) = translator.say(header, entry)? {
            count += entries.len() as u64;
        }
    }
    let mut warnings = Vec::new();
    if is_older && header.version < 116 && statistics > 0 {
        warnings.push(format!("statistics of {statistics} objects are left out: that version has no place for them"));
    }
    let kept = (!options.tables.is_empty()).then_some(selection.kept);
    Ok(Chosen { kept, last_id, count, warnings })
}

/// The entry with only what its translation asks for.
fn shape(entry: Entry, is_older: bool) -> Entry {
    let is_asked = is_older && (entry.kind == "BLOB METADATA" || entry.tag.starts_with("LARGE OBJECTS "));
    Entry {
        definition: if is_asked { entry.definition } else { String::new() },
        drop: String::new(),
        copy: String::new(),
        depends_on: if is_asked { entry.depends_on } else { Vec::new() },
        ..entry
    }
}

/// Which entries belong to some tables.
struct Selection {
    wanted: Vec<(String, String, bool)>,
    kept: HashSet<i32>,
}

impl Selection {
    fn new(tables: &[String]) -> Self {
        let split = |name: &String| match name.split_once('.') {
            Some((schema, table)) => (schema.to_owned(), table.to_owned(), false),
            None => ("public".to_owned(), name.clone(), false),
        };
        Self { wanted: tables.iter().map(split).collect(), kept: HashSet::new() }
    }

    /// Entries stand behind what they depend on, so one pass is enough.
    fn takes(&mut self, entry: &Entry) -> bool {
        if self.wanted.is_empty() || ALWAYS.contains(&entry.kind.as_str()) {
            return true;
        }
        let kind = entry.kind.as_str();
        let mut stands_on = entry.depends_on.iter().map(|id| self.kept.contains(id));
        let takes = (BY_NAME.contains(&kind) && named(&mut self.wanted, entry))
            || (WITH_ONE.contains(&kind) && stands_on.any(|is_kept| is_kept))
            || (WITH_ALL.contains(&kind) && !entry.depends_on.is_empty() && stands_on.all(|is_kept| is_kept));
        if takes {
            self.kept.insert(entry.dump_id);
        }
        takes
    }

    fn check(&self) -> Result<()> {
        match self.wanted.iter().find(|(_, _, is_found)| !is_found) {
            Some((schema, table, _)) => {
                let error = Error::new(ErrorKind::NotFound, "the dump does not hold that table").with_code(ABSENT);
                Err(error.with_context("table", format!("{schema}.{table}")))
            }
            None => Ok(()),
        }
    }
}

fn named(wanted: &mut [(String, String, bool)], entry: &Entry) -> bool {
    let is_wanted = |(schema, table, _): &&mut (String, String, bool)| {
        *table == entry.tag && Some(schema.as_str()) == entry.schema.as_deref()
    };
    let found = wanted.iter_mut().find(is_wanted);
    found.is_some_and(|(_, _, is_found)| {
        *is_found = true;
        true
    })
}

/// The entries that are written, in their order.
pub(super) struct Entries<'a> {
    toc: TocStream,
    header: &'a Header,
    kept: Option<&'a HashSet<i32>>,
    translator: Translator,
    ready: VecDeque<Entry>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(toc: TocStream, header: &'a Header, chosen: &'a Chosen) -> Self {
        let translator = Translator::new(chosen.last_id);
        Self { toc, header, kept: chosen.kept.as_ref(), translator, ready: VecDeque::new() }
    }

    /// The next one; nothing behind the last.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        while self.ready.is_empty() {
            let Some(mut entry) = self.toc.next().await? else { return Ok(None) };
            entry.definition = column_options::without_internal(&entry.definition).into_owned();
            let is_kept = |kept: &HashSet<i32>| kept.contains(&entry.dump_id) || ALWAYS.contains(&entry.kind.as_str());
            if self.kept.is_none_or(is_kept)
                && let Said::Entries(entries) = self.translator.say(self.header, entry)?
            {
                self.ready.extend(entries);
            }
        }
        Ok(self.ready.pop_front())
    }
}
