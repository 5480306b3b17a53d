//! What the catalogs say of the tables of a database.

use std::collections::BTreeMap;

use stackkit_core::{Error, ErrorKind, Result};
use tokio_postgres::SimpleQueryRow;

use crate::archive::text::{decode, encode};
use crate::census;
use crate::client::Session;
use crate::error::PostgresError;
use crate::sql::identifier;
use crate::wire::{Row, Wire, value};

/// How many holders of locks an error names.
const HOLDERS_SHOWN: usize = 5;

/// Tables whose rows a dump may carry, and partitioned ones: what `pg_dump` locks. Of extensions only what they say is
/// the user's. The order is that of locking, and the same in every dump.
const TABLES: &str = "\
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, \
        EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
            AND d.objid = c.oid AND d.deptype = 'e') AS member \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p')";

/// The condition on `c` and `n` that what users made fulfils, and what they keep in an extension's.
pub(super) const USERS_OWN: &str = "\
    c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
        AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
            AND d.objid = c.oid AND d.deptype = 'e') \
            OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig)))";

/// The SQLSTATE of a right that is missing.
pub(super) const DENIED: &str = "42501";

/// What a scan of each table has before it: pages, bytes beside them, the access method, and which rows are the user's.
const FACTS: &str = "\
    SELECT c.oid, pg_relation_size(c.oid) / current_setting('block_size')::int8, \
        pg_relation_size(c.oid) + coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0), \
        coalesce((SELECT amname = 'heap' FROM pg_catalog.pg_am WHERE oid = c.relam), false), \
        (SELECT e.extcondition[array_position(e.extconfig, c.oid)] FROM pg_catalog.pg_extension e \
            WHERE c.oid = ANY (e.extconfig) LIMIT 1) \
    FROM pg_catalog.pg_class c WHERE c.oid = ANY";

/// Who holds, or waits for, what bars reading: of any table of this database.
const HOLDERS: &str = "\
    SELECT format('%I.%I', n.nspname, c.relname), l.pid, coalesce(a.application_name, ''), l.granted \
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid() \
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
        AND c.relkind IN ('r', 'p') ORDER BY l.granted DESC, 1";

/// A table, by the names that the archive's text has for bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) is_partitioned: bool,
    pub(super) is_unlogged: bool,
    /// Whether an extension made it.
    pub(super) is_member: bool,
}

impl Table {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            oid: number(row, 0)?,
            schema: name(row, 1)?,
            name: name(row, 2)?,
            is_partitioned: value(row, 3)? == "p",
            is_unlogged: value(row, 4)? == "u",
            is_member: value(row, 5)? == "t",
        })
    }

    /// The name as SQL wants it.
    pub(super) fn sql(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}

/// What is known of a table before it is read.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) pages: u64,
    /// Of itself and of what it keeps outside of its rows.
    pub(super) bytes: u64,
    /// Whether a range of pages can be read.
    pub(super) is_heap: bool,
    /// The `WHERE` of a table of an extension's own rows and the user's.
    pub(super) condition: Option<String>,
}

/// The tables to lock, as the transaction sees them.
pub(super) async fn tables(wire: &mut Wire, condition: Option<&str>) -> Result<Vec<Table>> {
    let condition = condition.map_or_else(String::new, |condition| format!("AND {condition}"));
    let rows = wire.rows(&format!("{TABLES} AND {USERS_OWN} {condition} ORDER BY 2, 3")).await?;
    rows.iter().map(Table::read).collect()
}

/// What is known of each of these tables, by its number. No others: their sizes would have to wait for who locks them.
pub(super) async fn facts(wire: &mut Wire, tables: impl Iterator<Item = u32>) -> Result<BTreeMap<u32, Facts>> {
    let tables = tables.map(|table| table.to_string()).collect::<Vec<_>>().join(",");
    let facts = |row: &Row| {
        let condition = row.get(4).and_then(Option::as_ref).map(|text| decode(text)).filter(|text| !text.is_empty());
        let is_heap = value(row, 3)? == "t";
        Ok((number(row, 0)?, Facts { pages: number(row, 1)?, bytes: number(row, 2)?, is_heap, condition }))
    };
    wire.rows(&format!("{FACTS} ('{{{tables}}}'::oid[])")).await?.iter().map(facts).collect()
}

/// The names in a census of tables that are counted as part of another one.
pub(super) async fn units(wire: &mut Wire) -> Result<BTreeMap<u32, String>> {
    let relations = census::RELATIONS;
    let sql = format!("SELECT oid, unit_schema, unit_name FROM ({relations}) r WHERE unit_name IS NOT NULL");
    let unit = |row: &Row| Ok((number(row, 0)?, census::path(&name(row, 1)?, &name(row, 2)?)));
    wire.rows(&sql).await?.iter().map(unit).collect()
}

/// `error`, a lock that was not to be had, with who has it.
pub(super) async fn name_holders(wire: &mut Wire, error: Error) -> Error {
    name_holders_by(wire, HOLDERS, error).await
}

/// [`name_holders`] where a query of its own finds them: what is locked, the process, its application, and whether it has
/// the lock or waits for it.
pub(crate) async fn name_holders_by(wire: &mut Wire, query: &str, error: Error) -> Error {
    let Ok(rows) = wire.rows(query).await else { return error };
    let text = |row: &Row, index: usize| row.get(index)?.as_ref().map(|bytes| decode(bytes));
    let shown = |row: &Row| holder([0, 1, 2, 3].map(|index| text(row, index)));
    with_holders(error, rows.iter().filter_map(shown).collect())
}

/// [`name_holders`] in a session of the driver.
pub(super) async fn name_holders_in(session: &Session, error: Error) -> Error {
    let Ok(rows) = session.rows(HOLDERS).await else { return error };
    let shown = |row: &SimpleQueryRow| holder([0, 1, 2, 3].map(|index| row.get(index).map(str::to_owned)));
    with_holders(error, rows.iter().filter_map(shown).collect())
}

/// A row of [`HOLDERS`] in words.
fn holder(row: [Option<String>; 4]) -> Option<String> {
    let [Some(table), Some(pid), Some(application), Some(granted)] = row else { return None };
    let does = if granted == "t" { "holds" } else { "waits for" };
    let who = if application.is_empty() { String::new() } else { format!(" ({application})") };
    Some(format!("pid {pid}{who} {does} {table}"))
}

fn with_holders(error: Error, mut holders: Vec<String>) -> Error {
    holders.truncate(HOLDERS_SHOWN);
    match holders.is_empty() {
        true => error,
        false => error.with_context("blockers", holders.join(", ")),
    }
}

/// The whole number in column `index`.
pub(super) fn number<T: std::str::FromStr>(row: &Row, index: usize) -> Result<T> {
    Ok(value(row, index)?.parse().map_err(|_not_a_number| PostgresError::Answer("a whole number"))?)
}

/// The name in column `index`, which may be no UTF-8.
pub(super) fn name(row: &Row, index: usize) -> Result<String> {
    let bytes = row.get(index).and_then(Option::as_ref);
    Ok(decode(bytes.ok_or(PostgresError::Answer("a value that is not null"))?))
}

/// Locks `tables` for reading, in the transaction that is open.
pub(super) async fn lock(wire: &mut Wire, tables: &[Table]) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(Table::sql).collect();
    let sql = format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", names.join(", ONLY "));
    wire.execute(&encode(&sql)).await
}

/// Whether a failed lock was only not to be had now.
pub(crate) fn is_locked(error: &Error) -> bool {
    error.kind() == ErrorKind::Busy && error.code() == Some("55P03")
}
