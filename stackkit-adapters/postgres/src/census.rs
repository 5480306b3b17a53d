//! Counts what a database holds.

use std::collections::HashSet;

use stackkit_core::{Census, Result};

use crate::client::{Session, number, text};
use crate::error::PostgresError;
use crate::sql::identifier;
use crate::wire::{Wire, value};

/// How many tables are counted in one round trip: enough that small tables do not cost one each, few enough that the
/// statement stays small.
const TABLES_PER_QUERY: usize = 64;

/// How many tables an error names.
const UNREADABLE_SHOWN: usize = 5;

/// Relations whose rows a dump carries, and partitioned tables: what `pg_dump` locks. Members of extensions are made by
/// `CREATE EXTENSION`; materialized views are computed anew by a restore, so their rows may differ.
///
/// Beside a partition stands the topmost table above it that is partitioned by the hash of an enum: such a hash is of the
/// value's OID, which a restore changes, so `pg_dump` has the rows loaded through the root and they move
/// (`unsafe_partitions` in `pg_dump.c`).
pub(crate) const RELATIONS: &str = "\
    SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.oid, u.nspname AS unit_schema, u.relname AS unit_name \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN LATERAL ( \
        SELECT un.nspname, uc.relname FROM pg_catalog.pg_partition_ancestors(c.oid) WITH ORDINALITY a(relid, height) \
        JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = a.relid JOIN pg_catalog.pg_class uc ON uc.oid = a.relid \
        JOIN pg_catalog.pg_namespace un ON un.oid = uc.relnamespace WHERE t.partclass::oid[] && ARRAY( \
            SELECT oc.oid FROM pg_catalog.pg_opclass oc JOIN pg_catalog.pg_am am ON am.oid = oc.opcmethod \
            WHERE oc.opcname = 'enum_ops' AND am.amname = 'hash') \
        ORDER BY a.height DESC LIMIT 1) u ON c.relispartition AND c.relkind = 'r' \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' \
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
            AND d.objid = c.oid AND d.deptype = 'e') \
    ORDER BY 1, 2";

/// How many objects there are of each kind that a dump carries. Left out is what servers make by themselves, and what
/// differs between versions: the schema `public`, `plpgsql`, constructors of range types, clones on partitions.
const OBJECTS: &str = "\
    WITH own AS (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'), \
    member AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'), \
    relation AS (SELECT c.* FROM pg_class c JOIN own ON own.oid = c.relnamespace WHERE c.relpersistence <> 't' {c} \
        AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)) \
    SELECT kind, count(*) FROM ( \
        SELECT CASE relkind WHEN 'v' THEN 'views' WHEN 'm' THEN 'materialized_views' WHEN 'S' THEN 'sequences' \
            WHEN 'f' THEN 'foreign_tables' WHEN 'c' THEN 'composite_types' ELSE 'tables' END AS kind \
            FROM relation WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') \
        UNION ALL SELECT 'indexes' FROM pg_index i JOIN relation r ON r.oid = i.indrelid \
            WHERE i.indisready AND (i.indisvalid OR r.relkind = 'p') \
        UNION ALL SELECT 'constraints' FROM pg_constraint k JOIN relation r ON r.oid = k.conrelid \
            WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conparentid = 0 \
        UNION ALL SELECT 'triggers' FROM pg_trigger t JOIN relation r ON r.oid = t.tgrelid \
            WHERE NOT t.tgisinternal AND NOT r.relispartition \
        UNION ALL SELECT 'functions' FROM pg_proc p JOIN own ON own.oid = p.pronamespace \
            WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid \
                AND d.deptype IN ('e', 'i')) {p} \
        UNION ALL SELECT CASE typtype WHEN 'e' THEN 'enum_types' ELSE 'domains' END FROM pg_type t \
            JOIN own ON own.oid = t.typnamespace WHERE typtype IN ('e', 'd') {t} \
            AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid) \
        UNION ALL SELECT 'schemas' FROM pg_namespace n JOIN own ON own.oid = n.oid WHERE n.nspname <> 'public' {n} \
            AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_namespace'::regclass AND m.objid = n.oid) \
        UNION ALL SELECT 'extensions' FROM pg_extension WHERE extname <> 'plpgsql' {e} \
        UNION ALL SELECT 'large_objects' FROM pg_largeobject_metadata WHERE {l} \
    ) o GROUP BY 1";

/// The objects of a dump that does not hold all, by the numbers that they have in their catalogs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selected {
    pub(crate) relations: Vec<String>,
    pub(crate) functions: Vec<String>,
    pub(crate) types: Vec<String>,
    pub(crate) schemas: Vec<String>,
    pub(crate) extensions: Vec<String>,
    pub(crate) large_objects: bool,
}

/// The query that counts objects: all, or those that are selected.
pub(crate) fn objects(selected: Option<&Selected>) -> String {
    let all = ["{c}", "{p}", "{t}", "{n}", "{e}"];
    let Some(selected) = selected else {
        return all.iter().fold(OBJECTS.replace("{l}", "true"), |sql, place| sql.replace(place, ""));
    };
    let any = |column: &str, numbers: &[String]| format!("{column} = ANY ('{{{}}}'::oid[])", numbers.join(","));
    // A composite type is known by its type, and counted by its relation.
    let relations = [any("c.oid", &selected.relations), any("c.reltype", &selected.types)].join(" OR ");
    OBJECTS
        .replace("{c}", &format!("AND ({relations})"))
        .replace("{p}", &format!("AND {}", any("p.oid", &selected.functions)))
        .replace("{t}", &format!("AND {}", any("t.oid", &selected.types)))
        .replace("{n}", &format!("AND {}", any("n.oid", &selected.schemas)))
        .replace("{e}", &format!("AND {}", any("pg_extension.oid", &selected.extensions)))
        .replace("{l}", if selected.large_objects { "true" } else { "false" })
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Relation {
    schema: String,
    name: String,
    is_partitioned: bool,
    is_unlogged: bool,
    /// The table within which a restore may move its rows.
    unit: Option<(String, String)>,
}

impl Relation {
    /// The name as SQL wants it.
    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// The name in a census, shared by partitions between which rows may move: parts are quoted only where a dot or
    /// quote in them could be misread.
    fn path(&self) -> String {
        let (schema, name) = self.unit.as_ref().map_or((&self.schema, &self.name), |(schema, name)| (schema, name));
        path(schema, name)
    }

    /// What to count it in: itself without its children, or the whole table within which its rows may move.
    fn counted(&self) -> String {
        match &self.unit {
            Some((schema, name)) => format!("{}.{}", identifier(schema), identifier(name)),
            None => format!("ONLY {}", self.sql()),
        }
    }
}

/// What the names of a database's counts begin with in the census of a dump of several.
pub(crate) fn prefix(database: &str) -> String {
    format!("databases.{}.", part(database))
}

/// A name as a part of one with dots.
fn part(name: &str) -> String {
    if name.contains(['.', '"']) { identifier(name) } else { name.to_owned() }
}

/// The name of a table in a census.
pub(crate) fn path(schema: &str, name: &str) -> String {
    format!("tables.{}.{}", part(schema), part(name))
}

/// The tables of the session's database, as its transaction sees them.
pub(crate) async fn relations(session: &Session) -> Result<Vec<Relation>> {
    let read = |row: &tokio_postgres::SimpleQueryRow| {
        Ok(Relation {
            schema: text(row, 0)?.to_owned(),
            name: text(row, 1)?.to_owned(),
            is_partitioned: text(row, 2)? == "p",
            is_unlogged: text(row, 3)? == "u",
            unit: row.get(5).zip(row.get(6)).map(|(schema, name)| (schema.to_owned(), name.to_owned())),
        })
    };
    session.rows(RELATIONS).await?.iter().map(read).collect()
}

/// The names of tables that the role may not read, [`UNREADABLE_SHOWN`] at most.
pub(crate) async fn unreadable(session: &Session) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT format('%I.%I', nspname, relname) FROM ({RELATIONS}) r WHERE NOT has_table_privilege(oid, 'SELECT') \
         OR NOT has_schema_privilege(nspname, 'USAGE') LIMIT {UNREADABLE_SHOWN}"
    );
    session.rows(&sql).await?.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect()
}

/// What is counted beside rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Depth {
    /// A hash of each table's content, too.
    pub(crate) digests: bool,
    /// The server is a standby, where unlogged tables can't be read and a dump carries no rows of them.
    pub(crate) standby: bool,
}

/// Counts `relations` and the objects of the database, as the session's transaction sees them.
pub(crate) async fn take(session: &Session, relations: &[Relation], depth: Depth) -> Result<Census> {
    let mut census = Census::new();
    let has_no_rows = |relation: &Relation| relation.is_partitioned || (depth.standby && relation.is_unlogged);
    let mut units = HashSet::new();
    let is_first_of_unit = |relation: &&Relation| relation.unit.is_none() || units.insert(relation.unit.clone());
    let relations = relations.iter().filter(|relation| !has_no_rows(relation));
    let relations: Vec<&Relation> = relations.filter(is_first_of_unit).collect();
    for batch in relations.chunks(TABLES_PER_QUERY) {
        let sql: Vec<String> = batch.iter().map(|relation| count_sql(relation, depth.digests)).collect();
        let rows = session.rows(&sql.join(";")).await?;
        for (relation, row) in batch.iter().zip(&rows) {
            census = census.with_count(format!("{}.rows", relation.path()), number(row, 0)?);
            if let Some(digest) = row.get(1) {
                census = census.with_digest(format!("{}.content", relation.path()), digest);
            }
        }
    }
    for row in session.rows(&objects(None)).await? {
        census = census.with_count(format!("objects.{}", text(&row, 0)?), number(&row, 1)?);
    }
    Ok(census)
}

/// The digest of a table that is called `t`: the SHA-256 of the sum of all rows' 64-bit hashes, which does not depend on
/// their order. `(t.*)` is the row even where a column is called `t`.
pub(crate) const DIGEST: &str =
    "encode(sha256(convert_to(coalesce(sum(hashtextextended((t.*)::text, 0)::numeric), 0)::text, 'UTF8')), 'hex')";

/// Counts a table.
fn count_sql(relation: &Relation, digest: bool) -> String {
    let digest = if digest { DIGEST } else { "NULL" };
    format!("SELECT count(*), {digest} FROM {} AS t", relation.counted())
}

/// Counts what a transaction that is under way sees, its own work included. With `only`, the rows of these tables alone, by
/// schema and name: of the others the role may have no right to read any.
pub(crate) async fn of_transaction(
    wire: &mut Wire,
    digests: bool,
    only: Option<&HashSet<(&str, &str)>>,
) -> Result<Census> {
    let mut census = Census::new();
    let mut units = HashSet::new();
    let mut relations = Vec::new();
    for row in wire.rows(RELATIONS).await? {
        let name = (value(&row, 0)?, value(&row, 1)?);
        if only.is_some_and(|only| !only.contains(&name)) {
            continue;
        }
        // A part of a table stands for itself where the table is not counted as a whole.
        let unit = if only.is_none() && row.get(5).is_some_and(Option::is_some) {
            Some((value(&row, 5)?.to_owned(), value(&row, 6)?.to_owned()))
        } else {
            None
        };
        let relation = Relation {
            schema: value(&row, 0)?.to_owned(),
            name: value(&row, 1)?.to_owned(),
            is_partitioned: value(&row, 2)? == "p",
            is_unlogged: value(&row, 3)? == "u",
            unit,
        };
        let is_first_of_unit = relation.unit.is_none() || units.insert(relation.unit.clone());
        if !relation.is_partitioned && is_first_of_unit {
            relations.push(relation);
        }
    }
    let whole = |text: &str| text.parse::<u64>().map_err(|_not_a_number| PostgresError::Answer("a whole number"));
    for batch in relations.chunks(TABLES_PER_QUERY) {
        let sql: Vec<String> = batch.iter().map(|relation| count_sql(relation, digests)).collect();
        for (relation, row) in batch.iter().zip(wire.rows(&sql.join(";")).await?) {
            census = census.with_count(format!("{}.rows", relation.path()), whole(value(&row, 0)?)?);
            if digests {
                census = census.with_digest(format!("{}.content", relation.path()), value(&row, 1)?);
            }
        }
    }
    for row in wire.rows(&objects(None)).await? {
        census = census.with_count(format!("objects.{}", value(&row, 0)?), whole(value(&row, 1)?)?);
    }
    Ok(census)
}

/// Counts a whole database in one snapshot, over a connection of its own.
pub(crate) async fn of_database(session: &Session, digests: bool) -> Result<Census> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_is_in_recovery()";
    let standby = text(&session.row(begin).await?, 0)? == "t";
    let relations = relations(session).await?;
    let census = take(session, &relations, Depth { digests, standby }).await?;
    session.execute("COMMIT").await?;
    Ok(census)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(schema: &str, name: &str) -> Relation {
        Relation { schema: schema.into(), name: name.into(), is_partitioned: false, is_unlogged: false, unit: None }
    }

    #[test]
    fn census_names_are_plain_unless_they_could_be_misread() {
        assert_eq!(relation("public", "Größe x").path(), "tables.public.Größe x");
        assert_eq!(relation("a.b", "c").path(), "tables.\"a.b\".c");
        assert_ne!(relation("a.b", "c").path(), relation("a", "b.c").path());
    }

    #[test]
    fn names_are_quoted_in_sql() {
        assert!(count_sql(&relation("s", "a\"; DROP TABLE x"), false).contains("ONLY \"s\".\"a\"\"; DROP TABLE x\""));
    }
}
