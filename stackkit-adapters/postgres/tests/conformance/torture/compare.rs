//! Two databases compared by what `pg_dump` says of them, and a dump read by `pg_restore`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use stackkit_core::backup::ArtifactSource;
use stackkit_core::process::Tool;
use stackkit_fixtures::PostgresServer;
use tokio::io::AsyncReadExt;

use crate::memory::Memory;
use crate::torture::{TOOL_LIMIT, tool, tool_of};

/// How many differences a failed case shows.
const SHOWN: usize = 5;
/// How much of each.
const SHOWN_CHARS: usize = 400;

/// What `pg_dump` says of a database, without what depends on the order of its making.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// The statements, entry by entry.
    entries: Vec<String>,
    /// The rows of each `COPY` statement. Those of several partitions are one where they go through the root.
    rows: BTreeMap<String, Vec<String>>,
}

impl Picture {
    pub(crate) async fn of(server: &PostgresServer, database: &str) -> Self {
        Self::by(server, server, database).await
    }

    /// What the `pg_dump` of another server's version says.
    pub(crate) async fn by(tools: &PostgresServer, server: &PostgresServer, database: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("dump.sql");
        let tool = tool_of(tools, server, "pg_dump").arg(format!("--dbname={database}")).arg("--file").arg(&file);
        tool.output(TOOL_LIMIT).await.unwrap_or_else(|error| panic!("{database}: {}", error.chain()));
        Self::read(&std::fs::read(file).expect("a dump"))
    }

    /// Reads a plain dump, byte by byte: not every encoding is UTF-8.
    fn read(text: &[u8]) -> Self {
        let text: String = text.iter().map(|byte| char::from(*byte)).collect();
        let mut entries = vec![String::new()];
        let mut rows = BTreeMap::<String, Vec<String>>::new();
        let mut lines = text.split('\n');
        while let Some(line) = lines.next() {
            if line.starts_with("-- Name: ") || line.starts_with("-- Data for Name: ") {
                entries.push(String::new());
            }
            if line.starts_with("COPY ") && line.ends_with(" FROM stdin;") {
                let of_table = rows.entry(line.to_owned()).or_default();
                of_table.extend(lines.by_ref().take_while(|line| *line != "\\.").map(str::to_owned));
                of_table.sort_unstable();
            } else if !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ") && line != "--" {
                let entry = entries.last_mut().expect("never empty");
                entry.push_str(line);
                entry.push('\n');
            }
        }
        entries.iter_mut().for_each(|entry| entry.truncate(entry.trim_end().len()));
        entries.sort_unstable();
        Self { entries, rows }
    }

    /// Fails where they differ, and shows where.
    pub(crate) fn assert_same(&self, restored: &Self, what: &str) {
        let mut differences = self.other_entries(restored);
        differences.extend(self.lost_rows(restored));
        assert_none(differences, what);
        assert_eq!(self.entries.len(), restored.entries.len(), "{what}: as many entries");
    }

    /// Fails where the statements differ, whatever the rows are.
    pub(crate) fn assert_same_entries(&self, restored: &Self, what: &str) {
        assert_none(self.other_entries(restored), what);
        assert_eq!(self.entries.len(), restored.entries.len(), "{what}: as many entries");
    }

    fn other_entries(&self, restored: &Self) -> Vec<String> {
        let [before, after] = [self, restored].map(|picture| picture.entries.iter().collect::<BTreeSet<_>>());
        let lost = before.difference(&after).map(|entry| ("lost", *entry));
        let new = after.difference(&before).map(|entry| ("new", *entry));
        lost.chain(new).map(|(what, text)| format!("{what}: {}", cut(text))).collect()
    }

    /// Fails where the rows differ. Another version says statements in other words.
    pub(crate) fn assert_same_rows(&self, restored: &Self, what: &str) {
        assert_none(self.lost_rows(restored), what);
    }

    /// Fails where there are other objects, by kind, schema, name and owner.
    pub(crate) fn assert_same_names(&self, restored: &Self, what: &str) {
        let names = |picture: &Self| -> Vec<String> {
            let first = |entry: &String| entry.lines().next().unwrap_or_default().to_owned();
            picture.entries.iter().map(first).filter(|line| line.starts_with("-- ")).collect()
        };
        let [mut before, mut after] = [names(self), names(restored)];
        before.sort_unstable();
        after.sort_unstable();
        let other = before.iter().zip(&after).find(|(before, after)| before != after);
        assert_eq!((before.len(), other), (after.len(), None), "{what}");
    }

    /// The same without what says that a column takes no null: from 18 on that has a name, which no older version knows.
    pub(crate) fn without_not_null(&self) -> Self {
        let bare = |line: &str| {
            let Some(column) = line.trim_end_matches(',').strip_suffix(" NOT NULL") else { return line.to_owned() };
            let named = column.rsplit_once(" CONSTRAINT ").filter(|(_, name)| !name.contains(' '));
            let comma = if line.ends_with(',') { "," } else { "" };
            format!("{}{comma}", named.map_or(column, |(column, _)| column))
        };
        let entry = |entry: &String| {
            let lines = entry.lines().filter(|line| !is_of_inherited(line));
            lines.map(bare).collect::<Vec<_>>().join("\n")
        };
        Self { entries: self.entries.iter().map(entry).collect(), rows: self.rows.clone() }
    }

    /// Tables whose rows differ.
    fn lost_rows(&self, restored: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (table, rows) in &self.rows {
            let after = restored.rows.get(table).map(Vec::as_slice).unwrap_or_default();
            if rows != after {
                let missing = rows.iter().find(|row| after.binary_search(row).is_err()).map_or("", |row| cut(row));
                let count = (rows.len(), after.len());
                differences.push(format!("{table} {count:?} rows, a lost one: {missing}"));
            }
        }
        if let Some(table) = restored.rows.keys().find(|table| !self.rows.contains_key(*table)) {
            differences.push(format!("new: {table}"));
        }
        differences
    }
}

/// Whether the line says of an inherited column that it takes no null, under a name or none.
fn is_of_inherited(line: &str) -> bool {
    let named = line.strip_prefix("    CONSTRAINT ").and_then(|line| line.split_once(" NOT NULL "));
    line.starts_with("    NOT NULL ") || named.is_some_and(|(name, _column)| !name.contains(' '))
}

fn assert_none(mut differences: Vec<String>, what: &str) {
    differences.truncate(SHOWN);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n---\n"));
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_CHARS)]
}

/// Puts a dump together in a directory as its documentation tells, and gives what `pg_restore` reads.
pub(crate) async fn by_hand(dump: &Memory, directory: &Path) -> std::path::PathBuf {
    for info in dump.artifacts() {
        let name = info.spec.name.to_string();
        let mut bytes = Vec::new();
        dump.open(&info.spec.name).await.expect("an artifact").read_to_end(&mut bytes).await.expect("its bytes");
        std::fs::write(directory.join(&name), bytes).expect("a file");
        if name == "database.dump" {
            return directory.join(name);
        }
    }
    let script = "set -e; for tar in *.tar; do [ -e \"$tar\" ] && tar -xf \"$tar\" && rm \"$tar\"; done; \
        for part in *.dat.000; do [ -e \"$part\" ] && cat \"${part%.000}\".[0-9]* > \"${part%.000}\" \
        && rm \"$part\" ; done; true";
    let shell = Tool::new("/bin/sh").directory(directory).args(["-c", script]);
    shell.output(TOOL_LIMIT).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    directory.to_owned()
}

/// How often `pg_restore` is tried where its own connections stop each other.
const VENDOR_TRIES: u32 = 5;

/// What it says then. Its connections attach an index while another makes a foreign key of partitions (3 of 92 times, on its
/// own archives too), and grant on a table, as somebody who got the right to, while another still grants on the schema:
/// an archive tells of no need between these. By one connection all of it goes well.
const VENDOR_RACES: [&str; 2] = ["deadlock detected", "permission denied for schema"];

/// Restores with the `pg_restore` of `server` into a new database of it.
pub(crate) async fn pg_restore(server: &PostgresServer, args: &[&str], archive: &Path, database: &str) {
    let mut tries_left = VENDOR_TRIES;
    loop {
        tries_left -= 1;
        server.create_database(database).await.expect("a database");
        let tool = tool(server, "pg_restore").args(args).arg("--exit-on-error");
        let tool = tool.arg(format!("--dbname={database}")).arg(archive);
        let Err(error) = tool.output(TOOL_LIMIT).await else { return };
        let error = error.chain().to_string();
        let is_race = args.contains(&"-j2") && VENDOR_RACES.iter().any(|race| error.contains(race));
        assert!(tries_left > 0 && is_race, "pg_restore {args:?}: {error}");
        // Not dropped: a subscription in it forbids that.
        let aside = format!("alter database \"{database}\" rename to \"{database} {tries_left}\"");
        server.execute_in("postgres", &aside).await.expect("put aside");
    }
}
