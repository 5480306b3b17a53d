//! One table or index as the catalogs know it, and what this role may do to it.

use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, Result};
use tokio_postgres::SimpleQueryRow;

use crate::client::{Session, number, text};
use crate::maintenance::task::MaintenanceAction;
use crate::sql::literal;

/// From this major version on the right to maintain can be granted (`MAINTAIN`, `pg_maintain`).
const MAINTAIN_SINCE: u32 = 17;

/// Which relation a name meant: another one that took the name since, or one that was rewritten, differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RelationId {
    /// Its `pg_class.oid`.
    pub oid: u32,
    /// Its `pg_class.relfilenode`, which every rewrite changes.
    pub filenode: u32,
}

/// What is to be maintained.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    /// Schema and name, quoted by the server.
    pub(crate) name: String,
    pub(crate) id: RelationId,
    /// The table: itself, or that of the index.
    pub(crate) table_oid: u32,
    pub(crate) is_index: bool,
    pub(crate) is_valid: bool,
    pub(crate) size_bytes: u64,
    owner: String,
    is_owner: bool,
    is_database_owner: bool,
    may_maintain: bool,
}

/// The relation called `name`.
fn query(name: &str, major: Option<u32>) -> String {
    let may_maintain = match major >= Some(MAINTAIN_SINCE) {
        true => "has_table_privilege(coalesce(i.indrelid, c.oid), 'MAINTAIN')",
        false => "false",
    };
    format!(
        "SELECT format('%I.%I', n.nspname, c.relname), c.oid, c.relfilenode, coalesce(i.indrelid, c.oid), \
         c.relkind IN ('i', 'I'), coalesce(i.indisvalid, true), \
         CASE WHEN c.relkind IN ('i', 'I') THEN pg_relation_size(c.oid) ELSE pg_total_relation_size(c.oid) END, \
         pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'), \
         (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()), {may_maintain} \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid \
         WHERE c.relkind IN ('r', 'm', 'p', 'i', 'I') AND c.oid = to_regclass({})",
        literal(name)
    )
}

/// The relation called `name`: schema and name, quoted as in SQL.
pub(crate) async fn by_name(session: &Session, name: &str) -> Result<Relation> {
    let rows = session.rows(&query(name, session.major)).await?;
    let row = rows.first().ok_or_else(|| {
        let message = "no table, materialized view or index has that name; write schema and name as in SQL";
        Error::new(ErrorKind::NotFound, message).with_context("relation", name)
    })?;
    read(row)
}

fn read(row: &SimpleQueryRow) -> Result<Relation> {
    let oid = |index| -> Result<u32> {
        u32::try_from(number(row, index)?).map_err(|_too_large| Error::unexpected("an oid is too large"))
    };
    let is = |index| Ok::<bool, Error>(text(row, index)? == "t");
    Ok(Relation {
        name: text(row, 0)?.to_owned(),
        id: RelationId { oid: oid(1)?, filenode: oid(2)? },
        table_oid: oid(3)?,
        is_index: is(4)?,
        is_valid: is(5)?,
        size_bytes: number(row, 6)?,
        owner: text(row, 7)?.to_owned(),
        is_owner: is(8)?,
        is_database_owner: is(9)?,
        may_maintain: is(10)?,
    })
}

impl Relation {
    /// Refuses what can't be done to it, or not by this role. PostgreSQL itself only warns and goes on with the next table.
    pub(crate) fn check(&self, action: MaintenanceAction, major: Option<u32>) -> Result<()> {
        if action.is_of_index() != self.is_index {
            let what = if self.is_index { "an index, and it is for tables" } else { "a table, and it is for indexes" };
            let error = Error::config(format!("{action} was asked for {what}"));
            return Err(error.with_context("relation", &self.name));
        }
        if action == MaintenanceAction::DropInvalidIndex && self.is_valid {
            let error = Error::new(ErrorKind::Incompatible, "the index is valid; only one that is not is dropped here");
            return Err(error.with_context("relation", &self.name));
        }
        let may_drop = action != MaintenanceAction::DropInvalidIndex && self.may_maintain;
        let may_vacuum = action.is_for_database_owner() && self.is_database_owner;
        if self.is_owner || may_drop || may_vacuum {
            return Ok(());
        }
        let grant = match major >= Some(MAINTAIN_SINCE) && action != MaintenanceAction::DropInvalidIndex {
            true => "GRANT MAINTAIN ON <table> TO <role>, or GRANT pg_maintain TO <role>".to_owned(),
            false => format!("GRANT {} TO <role>: only the owner may do it", crate::sql::identifier(&self.owner)),
        };
        let error = Error::new(ErrorKind::PermissionDenied, format!("the right to {action} is missing"));
        Err(error.with_context("relation", &self.name).with_context("grant", grant))
    }
}

/// The indexes that concurrent builds which failed have left on a table, and on which nobody works.
pub(crate) async fn leftovers(session: &Session, table_oid: u32) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.indrelid = {table_oid} AND NOT i.indisvalid \
         AND c.relkind = 'i' AND c.relname ~ '_cc(new|old)[0-9]*$' ORDER BY 1"
    );
    session.rows(&sql).await?.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect()
}
