//! What stays around what a restore in place replaces, and is made again as it is in the database: foreign keys to tables
//! that stay, and the place among their partitions.

use stackkit_core::Result;

use super::live::Live;
use crate::wire::{Row, Wire, value};

/// The statements that make the foreign key `k` of `pg_constraint` again, with its comment.
pub(super) const KEY_AGAIN: &str = "(format('ALTER TABLE %s%s ADD CONSTRAINT %I %s', \
    CASE WHEN (SELECT relkind FROM pg_class WHERE oid = k.conrelid) = 'p' THEN '' ELSE 'ONLY ' END, k.conrelid::regclass, \
    k.conname, pg_get_constraintdef(k.oid)) \
    || coalesce(format('; COMMENT ON CONSTRAINT %I ON %s IS ', k.conname, k.conrelid::regclass) \
        || quote_literal(obj_description(k.oid, 'pg_constraint')), ''))";

/// Something that is made again: what it is called, and what makes it.
pub(super) type Again = (String, String);

/// What is made again around what is dropped.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Foreign keys, in the end.
    pub(super) keys: Vec<Again>,
    /// Places among partitions, once the partition has its rows and indexes.
    pub(super) places: Vec<Again>,
}

impl Around {
    /// The foreign keys of dropped tables to tables that stay, and those among them that are partitions of one that stays.
    pub(super) async fn of(wire: &mut Wire, objects: &[Live]) -> Result<Self> {
        let tables = oids(objects);
        let keys = format!(
            "SELECT pg_describe_object('pg_constraint'::regclass, k.oid, 0), {KEY_AGAIN} FROM pg_constraint k \
             WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid IN ({tables}) AND k.confrelid NOT IN ({tables}) \
             ORDER BY 1"
        );
        let places = format!(
            "SELECT format('the partition %s of %s', i.inhrelid::regclass, i.inhparent::regclass), \
                format('ALTER TABLE %s ATTACH PARTITION %s %s', i.inhparent::regclass, i.inhrelid::regclass, \
                pg_get_expr(c.relpartbound, c.oid)) \
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
             WHERE c.relispartition AND c.oid IN ({tables}) AND i.inhparent NOT IN ({tables}) ORDER BY 1"
        );
        let read = |row: &Row| Ok((value(row, 0)?.to_owned(), value(row, 1)?.to_owned()));
        let keys: Result<Vec<Again>> = wire.rows(&keys).await?.iter().map(read).collect();
        let places: Result<Vec<Again>> = wire.rows(&places).await?.iter().map(read).collect();
        Ok(Self { keys: keys?, places: places? })
    }
}

/// A condition on `c` of `pg_class`: it is a table beside `objects` that a foreign key joins to one of them, or the one above
/// a partition. Dropping locks it, too.
pub(super) fn is_joined(objects: &[Live]) -> String {
    let tables = oids(objects);
    format!(
        "(c.oid NOT IN ({tables}) AND (EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' \
            AND ((k.conrelid = c.oid AND k.confrelid IN ({tables})) OR (k.confrelid = c.oid AND k.conrelid IN ({tables})))) \
            OR EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid \
                WHERE i.inhparent = c.oid AND p.relispartition AND i.inhrelid IN ({tables}))))"
    )
}

/// The numbers of the tables among `objects`, as a list that is never empty.
fn oids(objects: &[Live]) -> String {
    let tables = objects.iter().filter(|live| live.is_table()).map(|live| live.oid.as_str());
    tables.chain(["0"]).collect::<Vec<_>>().join(", ")
}
