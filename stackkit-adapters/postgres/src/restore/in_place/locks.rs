//! The locks of a restore in place: what it takes, what it sees under them, and who holds it up.

use stackkit_core::{Error, Result};

use super::around::is_joined;
use super::live::{self, Dependent, Live};
use super::parts::Parts;
use crate::dump::{is_locked, name_holders_by};
use crate::target;
use crate::wire::{Wire, value};

/// Large objects have no locks of their own that a writer waits for. Only superusers may lock their table.
const BLOBS: &str = "SELECT has_table_privilege('pg_catalog.pg_largeobject', 'UPDATE')";

/// Who is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barred {
    /// A plan, which only reads: by who has a table for itself.
    Reading,
    /// A restore, which drops: by whoever uses what it drops.
    Dropping,
}

/// Locks the tables among `objects` against everybody, after those beside them that dropping them locks: in the order in
/// which others come to a partition, and to a row that refers to another one.
pub(super) async fn lock_all(wire: &mut Wire, objects: &[Live]) -> Result<()> {
    let joined = format!(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND {} ORDER BY 1",
        is_joined(objects)
    );
    let joined = wire.rows(&joined).await?;
    let mut all: Vec<String> = joined.iter().map(|row| Ok(value(row, 0)?.to_owned())).collect::<Result<_>>()?;
    all.extend(tables(objects));
    lock(wire, &all).await
}

/// Locks `tables` against everybody.
pub(super) async fn lock(wire: &mut Wire, tables: &[String]) -> Result<()> {
    match tables.is_empty() {
        true => Ok(()),
        false => {
            let sql = format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", tables.join(", ONLY "));
            wire.execute(sql.as_bytes()).await
        }
    }
}

/// Keeps others from writing large objects, where this role may.
pub(super) async fn lock_blobs(wire: &mut Wire) -> Result<()> {
    let row = wire.rows(BLOBS).await?.pop().unwrap_or_default();
    match value(&row, 0)? {
        "t" => wire.execute(b"LOCK TABLE pg_catalog.pg_largeobject IN SHARE ROW EXCLUSIVE MODE").await,
        _ => Ok(()),
    }
}

/// The tables among `objects`, as SQL calls them.
pub(super) fn tables(objects: &[Live]) -> Vec<String> {
    objects.iter().filter(|live| live.kind == "TABLE").map(|live| live.name.clone()).collect()
}

/// The tables that go with `objects` and that the dump does not hold.
pub(super) fn tables_beside(dependents: &[Dependent]) -> Vec<String> {
    dependents.iter().filter_map(|dependent| dependent.table.clone()).collect()
}

/// What of the database a restore replaces, at this moment. Rows of tables that it leaves alone are not looked at: whoever
/// writes them loses nothing.
pub(super) async fn fingerprint(
    wire: &mut Wire,
    parts: &Parts<'_>,
    objects: &[Live],
    dependents: &[Dependent],
) -> Result<String> {
    let tables = [tables(objects), tables_beside(dependents)].concat();
    target::fingerprint_of(wire, &tables, parts.blobs_count() > 0).await
}

/// `error` of the transaction that is open, with who holds it up if it is a lock that was not to be had.
pub(super) async fn named(wire: &mut Wire, parts: &Parts<'_>, barred: Barred, error: Error) -> Error {
    if !is_locked(&error) || wire.execute(b"ROLLBACK").await.is_err() {
        return error;
    }
    let Ok(objects) = live::objects(wire, parts, false).await else { return error };
    name_holders_by(wire, &holders(&objects, barred), error).await
}

/// Who holds a lock, or waits for one, on `objects` or on a table that dropping them locks too.
fn holders(objects: &[Live], barred: Barred) -> String {
    let relations = objects.iter().filter(|live| live.is_relation()).map(|live| live.oid.as_str());
    let relations = relations.chain(["0"]).collect::<Vec<_>>().join(", ");
    let mode = match barred {
        Barred::Reading => "l.mode = 'AccessExclusiveLock'",
        Barred::Dropping => "true",
    };
    format!(
        "SELECT DISTINCT format('%I.%I', n.nspname, c.relname), l.pid, coalesce(a.application_name, ''), l.granted \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid() AND {mode} \
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
            AND (c.oid IN ({relations}) OR {joined}) ORDER BY 4 DESC, 1, 2",
        joined = is_joined(objects)
    )
}
