//! What `pg_restore` would send for an entry: its definition, and what stands beside it in the entry. Pure.
//!
//! The rules are those of `_printTocEntry` in `pg_backup_archiver.c`.

use std::collections::BTreeMap;

use crate::archive::Entry;
use crate::column_options;
use crate::options::Owners;
use crate::sql::{identifier, literal};

/// Kinds that have an owner, and whose name follows from schema and tag.
const OWNED_BY_NAME: [&str; 18] = [
    "COLLATION",
    "CONVERSION",
    "DOMAIN",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "MATERIALIZED VIEW",
    "PROCEDURAL LANGUAGE",
    "PUBLICATION",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
];

/// Kinds that have an owner, and whose name stands in the statement that drops them.
const OWNED_BY_DROP: [&str; 6] =
    ["AGGREGATE", "FUNCTION", "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURE"];

/// The kind of relation of a partitioned table: its access method is only a default for its partitions.
const PARTITIONED: char = 'p';

/// How entries are turned into SQL.
#[derive(Debug, Clone, Default)]
pub(crate) struct Style {
    pub(crate) owners: Owners,
    pub(crate) privileges: bool,
    /// Whether definitions name no schema and rely on the path: archives from before 10.3.
    pub(crate) sets_path: bool,
}

impl Style {
    /// Who owns here what `owner` owned there; nothing if owners are not restored.
    pub(crate) fn owner<'a>(&'a self, owner: &'a str) -> Option<&'a str> {
        match &self.owners {
            _ if owner.is_empty() => None,
            Owners::Skip => None,
            Owners::Restore => Some(owner),
            Owners::Map(pairs) => {
                let to = pairs.iter().find(|(from, _)| from == owner).map(|(_, to)| to.as_str());
                Some(to.unwrap_or(owner))
            }
        }
    }
}

/// Writes the SQL of one session after another: it knows what the session has set.
#[derive(Debug, Default)]
pub(crate) struct Script {
    tablespace: Option<String>,
    access_method: Option<String>,
    schema: Option<String>,
}

impl Script {
    /// The whole SQL of an entry; empty if there is nothing to do for it. `of_blobs` gives the large objects that a
    /// grant on many of them is for.
    pub(crate) fn write(&mut self, entry: &Entry, style: &Style, blobs: &BTreeMap<i32, &Entry>) -> String {
        let definition = definition(entry, style, blobs);
        if definition.trim().is_empty() {
            return String::new();
        }
        let mut sql = String::new();
        self.places(entry, style, &mut sql);
        sql.push_str(&definition);
        if !definition.ends_with('\n') {
            sql.push('\n');
        }
        if let Some(owner) = style.owner(&entry.owner) {
            own(entry, owner, &mut sql);
        }
        if let Some(method) = partitioned_method(entry) {
            sql.push_str(&format!("ALTER TABLE {} SET ACCESS METHOD {};\n", qualified(entry), identifier(method)));
        }
        sql
    }

    /// A statement of our own for an entry, in the entry's place.
    pub(crate) fn place(&mut self, entry: &Entry, style: &Style, statement: &str) -> String {
        let mut sql = String::new();
        self.places(entry, style, &mut sql);
        sql.push_str(statement);
        sql.push('\n');
        sql
    }

    fn places(&mut self, entry: &Entry, style: &Style, sql: &mut String) {
        let mut set = |known: &mut Option<String>, wanted: Option<&str>, statement: &dyn Fn(&str) -> String| {
            if let Some(wanted) = wanted
                && known.as_deref() != Some(wanted)
            {
                sql.push_str(&statement(wanted));
                *known = Some(wanted.to_owned());
            }
        };
        if style.sets_path {
            let schema = entry.schema.as_deref().filter(|schema| !schema.is_empty());
            let path = |schema: &str| match schema == "pg_catalog" {
                true => "SET search_path = pg_catalog;\n".to_owned(),
                false => format!("SET search_path = {}, pg_catalog;\n", identifier(schema)),
            };
            set(&mut self.schema, schema, &path);
        }
        let tablespace = |name: &str| match name.is_empty() {
            true => "SET default_tablespace = '';\n".to_owned(),
            false => format!("SET default_tablespace = {};\n", identifier(name)),
        };
        set(&mut self.tablespace, entry.tablespace.as_deref(), &tablespace);
        if !is_partitioned(entry) {
            let method = |name: &str| format!("SET default_table_access_method = {};\n", identifier(name));
            set(&mut self.access_method, entry.access_method.as_deref().filter(|name| !name.is_empty()), &method);
        }
    }
}

/// Whether the entry is a partitioned table, which only archives from 1.16 on tell by themselves.
fn is_partitioned(entry: &Entry) -> bool {
    u32::try_from(entry.relation_kind) == Ok(u32::from(PARTITIONED))
}

fn partitioned_method(entry: &Entry) -> Option<&str> {
    entry.access_method.as_deref().filter(|name| is_partitioned(entry) && !name.is_empty())
}

/// The definition as it is sent.
fn definition(entry: &Entry, style: &Style, blobs: &BTreeMap<i32, &Entry>) -> String {
    match entry.kind.as_str() {
        "ACL" | "DEFAULT ACL" if !style.privileges => String::new(),
        "BLOB METADATA" => per_blob(&entry.definition, "SELECT pg_catalog.lo_create('", "')"),
        "ACL" if entry.tag.starts_with("LARGE OBJECTS") => {
            let of = entry.depends_on.iter().find_map(|id| blobs.get(id));
            of.map(|of| per_blob_grants(&entry.definition, &of.definition)).unwrap_or_default()
        }
        // An old archive names the owner in the statement itself.
        "SCHEMA" if style.owners == Owners::Skip && entry.definition.contains(" AUTHORIZATION ") => {
            format!("CREATE SCHEMA {};\n", identifier(&entry.tag))
        }
        _ => column_options::without_internal(&entry.definition).into_owned(),
    }
}

/// One statement for each of the numbers, which stand one a line.
fn per_blob(numbers: &str, before: &str, after: &str) -> String {
    let numbers = numbers.lines().map(str::trim).filter(|number| !number.is_empty());
    numbers.map(|number| format!("{before}{number}{after};\n")).collect()
}

/// Grants on many large objects are written once, for the first of them: the same for each.
fn per_blob_grants(grants: &str, numbers: &str) -> String {
    const OBJECT: &str = "LARGE OBJECT ";
    let mut out = String::new();
    let mut is_quoted = false;
    let ends = |character: char| {
        is_quoted ^= character == '"';
        character == ';' && !is_quoted
    };
    for statement in grants.split_terminator(ends).map(str::trim).filter(|statement| !statement.is_empty()) {
        match statement.split_once(OBJECT) {
            Some((before, after)) => {
                let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
                out.push_str(&per_blob(numbers, &format!("{before}{OBJECT}"), after));
            }
            None => out.push_str(&format!("{statement};\n")),
        }
    }
    out
}

/// The statement that gives an object its owner.
fn own(entry: &Entry, owner: &str, sql: &mut String) {
    if entry.drop.is_empty() {
        return;
    }
    let owner = identifier(owner);
    if entry.kind == "BLOB METADATA" {
        sql.push_str(&per_blob(&entry.definition, "ALTER LARGE OBJECT ", &format!(" OWNER TO {owner}")));
        return;
    }
    if let Some(object) = object(entry) {
        sql.push_str(&format!("ALTER {object} OWNER TO {owner};\n"));
    }
}

/// The object as `ALTER` names it, if it has an owner.
fn object(entry: &Entry) -> Option<String> {
    let kind = entry.kind.as_str();
    if kind == "BLOB" {
        return Some(format!("LARGE OBJECT {}", entry.tag));
    }
    if kind == "VIEW" || OWNED_BY_NAME.contains(&kind) {
        return Some(format!("{kind} {}", qualified(entry)));
    }
    if OWNED_BY_DROP.contains(&kind) {
        return entry.drop.trim_end_matches(['\n', ';']).strip_prefix("DROP ").map(str::to_owned);
    }
    None
}

/// The object's name with its schema, quoted.
pub(crate) fn qualified(entry: &Entry) -> String {
    match entry.schema.as_deref().filter(|schema| !schema.is_empty()) {
        Some(schema) => format!("{}.{}", identifier(schema), identifier(&entry.tag)),
        None => identifier(&entry.tag),
    }
}

/// The `COPY` statement of a data entry with the options of this restore. Nothing if the entry has none, or not in the
/// form that `pg_dump` writes.
pub(crate) fn copy(entry: &Entry, freeze: bool, encoding: &str) -> Option<String> {
    let head = entry.copy.trim_end().strip_suffix(';')?.trim_end();
    let head = head.strip_suffix("FROM stdin")?;
    let freeze = if freeze { "FREEZE, " } else { "" };
    Some(format!("{head}FROM stdin WITH ({freeze}ENCODING {})", literal(encoding)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::samples::entry;

    fn write(entry: &Entry, style: &Style) -> String {
        Script::default().write(entry, style, &BTreeMap::new())
    }

    fn owned(kind: &str, drop: &str) -> Entry {
        let mut entry = entry(7, kind);
        (entry.owner, entry.drop) = ("app".to_owned(), drop.to_owned());
        entry
    }

    #[test]
    fn owners_are_set_mapped_or_skipped() {
        let style = |owners| Style { owners, privileges: true, sets_path: false };
        let table = owned("TABLE", "DROP TABLE public.x7;\n");
        assert!(write(&table, &style(Owners::Restore)).ends_with("ALTER TABLE \"public\".\"x7\" OWNER TO \"app\";\n"));
        let map = Owners::Map(vec![("app".into(), "me".into())]);
        assert!(write(&table, &style(map)).ends_with("OWNER TO \"me\";\n"));
        assert!(!write(&table, &style(Owners::Skip)).contains("OWNER"));
        let function = owned("FUNCTION", "DROP FUNCTION public.f(a integer);\n");
        assert!(write(&function, &Style::default()).contains("ALTER FUNCTION public.f(a integer) OWNER TO \"app\";"));
        assert!(!write(&owned("INDEX", "DROP INDEX x;"), &Style::default()).contains("OWNER"));
    }

    #[test]
    fn places_are_set_when_they_change() {
        let mut script = Script::default();
        let mut table = entry(1, "TABLE");
        (table.tablespace, table.access_method) = (Some(String::new()), Some("heap".to_owned()));
        let mut write = |entry: &Entry| script.write(entry, &Style::default(), &BTreeMap::new());
        let both = "SET default_tablespace = '';\nSET default_table_access_method = \"heap\";\n";
        assert!(write(&table).starts_with(both));
        assert_eq!(write(&table), table.definition);
        table.tablespace = Some("fast".to_owned());
        assert!(write(&table).starts_with("SET default_tablespace = \"fast\";\n--"));
        (table.relation_kind, table.access_method) = (112, Some("columnar".to_owned()));
        assert!(write(&table).ends_with("ALTER TABLE \"public\".\"x1\" SET ACCESS METHOD \"columnar\";\n"));
    }

    #[test]
    fn many_large_objects_in_one_entry() {
        let mut blobs = owned("BLOB METADATA", "SELECT pg_catalog.lo_unlink('16400');");
        blobs.definition = "16400\n16401\n".to_owned();
        let sql = write(&blobs, &Style::default());
        assert!(sql.starts_with("SELECT pg_catalog.lo_create('16400');\nSELECT pg_catalog.lo_create('16401');\n"));
        assert!(sql.ends_with("ALTER LARGE OBJECT 16401 OWNER TO \"app\";\n"));
        let mut grant = entry(8, "ACL");
        grant.tag = "LARGE OBJECTS 16400..16401".to_owned();
        grant.definition = "GRANT SELECT ON LARGE OBJECT 16400 TO \"a;b\";\n".to_owned();
        grant.depends_on = vec![7];
        let style = Style { privileges: true, ..Style::default() };
        let sql = Script::default().write(&grant, &style, &BTreeMap::from([(7, &blobs)]));
        let each = |number| format!("GRANT SELECT ON LARGE OBJECT {number} TO \"a;b\";\n");
        assert_eq!(sql, each(16400) + &each(16401));
    }

    #[test]
    fn copies_get_their_options() {
        let mut data = entry(1, "TABLE DATA");
        data.copy = "COPY public.t (a, \"b FROM stdin\") FROM stdin;\n".to_owned();
        let sql = copy(&data, true, "LATIN1").expect("a form that is known");
        assert_eq!(sql, "COPY public.t (a, \"b FROM stdin\") FROM stdin WITH (FREEZE, ENCODING 'LATIN1')");
        data.copy.clear();
        assert_eq!(copy(&data, false, "UTF8"), None);
    }
}
