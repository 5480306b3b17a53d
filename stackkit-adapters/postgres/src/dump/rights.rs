//! What the role of a dump may not read, and the grants that mend it.

use stackkit_core::{Error, ErrorKind, Result};

use super::catalog::{self, USERS_OWN};
use crate::config::PostgresConfig;
use crate::wire::{Wire, value};

/// How many tables and sequences an error names.
const SHOWN: usize = 5;

/// Tables and sequences of a dump that the role may not read: whether it is a sequence, its name, its schema's, whether
/// the schema is what is closed, and the role.
const UNREADABLE: &str = "\
    SELECT c.relkind = 'S', format('%I.%I', n.nspname, c.relname), quote_ident(n.nspname), \
        has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'), quote_ident(current_user) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'S') AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";

/// A sequence that a table brings along, whatever the patterns of a dump say of its name.
const IS_OWNED: &str = "c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend o \
    WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.objid = c.oid \
        AND o.refclassid = 'pg_catalog.pg_class'::regclass AND o.deptype IN ('a', 'i'))";

/// What is missing, in words.
#[derive(Debug, Default)]
struct Missing {
    tables: Vec<String>,
    sequences: Vec<String>,
    grants: Vec<String>,
}

impl Missing {
    async fn read(wire: &mut Wire, condition: Option<&str>) -> Result<Self> {
        let condition = condition.map_or_else(String::new, |condition| format!("AND (({condition}) OR ({IS_OWNED}))"));
        let sql = format!("{UNREADABLE} AND {USERS_OWN} {condition} ORDER BY 2 LIMIT {SHOWN}");
        let mut missing = Self::default();
        for row in wire.rows(&sql).await? {
            let (relation, schema, role) = (catalog::name(&row, 1)?, catalog::name(&row, 2)?, catalog::name(&row, 5)?);
            let kind = if value(&row, 0)? == "t" { "SEQUENCE" } else { "TABLE" };
            if value(&row, 3)? == "f" {
                missing.grant(format!("GRANT USAGE ON SCHEMA {schema} TO {role}"));
            }
            if value(&row, 4)? == "f" {
                missing.grants.push(format!("GRANT SELECT ON {kind} {relation} TO {role}"));
            }
            let names = if kind == "SEQUENCE" { &mut missing.sequences } else { &mut missing.tables };
            names.push(relation);
        }
        Ok(missing)
    }

    /// One grant mends a schema for all that is in it.
    fn grant(&mut self, grant: String) {
        if !self.grants.contains(&grant) {
            self.grants.push(grant);
        }
    }

    fn told(self, error: Error) -> Error {
        let facts = [("tables", self.tables, ", "), ("sequences", self.sequences, ", "), ("grant", self.grants, "; ")];
        let given = facts.into_iter().filter(|(_, names, _)| !names.is_empty());
        given.fold(error, |error, (key, names, separator)| error.with_context(key, names.join(separator)))
    }
}

/// `error` of the server, with what the role may not read.
pub(super) async fn named(wire: &mut Wire, error: Error, condition: Option<&str>) -> Error {
    match Missing::read(wire, condition).await {
        Ok(missing) => missing.told(error),
        // The connection may be what failed; the error is the better one of the two.
        Err(_not_told) => error,
    }
}

/// `error` of `pg_dump`, told as what it is if the role may not read all: the tool says so in words only.
pub(super) async fn of_tool(wire: &mut Wire, config: &PostgresConfig, error: Error) -> Error {
    if error.kind() != ErrorKind::ToolFailed {
        return error;
    }
    let Ok(condition) = super::filter::condition(wire, &config.dump).await else { return error };
    match Missing::read(wire, condition.as_deref()).await {
        Ok(missing) if !missing.grants.is_empty() => {
            let denied = Error::new(ErrorKind::PermissionDenied, "a right is missing").with_code(catalog::DENIED);
            missing.told(denied).with_source(error)
        }
        _ => error,
    }
}
