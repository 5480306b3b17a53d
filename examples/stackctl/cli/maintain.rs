//! Arguments of the maintenance of PostgreSQL.

use clap::Args;

/// Without a name, all that is found is planned, but for what a person must decide.
#[derive(Debug, Args)]
pub(crate) struct MaintainArgs {
    /// Do what the plan says
    #[arg(long)]
    pub(crate) apply: bool,
    /// Only vacuum this table, schema.table as in SQL; may be given again
    #[arg(long, value_name = "TABLE")]
    pub(crate) vacuum: Vec<String>,
    /// Only freeze this table; may be given again
    #[arg(long, value_name = "TABLE")]
    pub(crate) freeze: Vec<String>,
    /// Only rewrite this table, which locks everybody out of it: needs --force; may be given again
    #[arg(long, value_name = "TABLE")]
    pub(crate) vacuum_full: Vec<String>,
    /// Only analyze this table; may be given again
    #[arg(long, value_name = "TABLE")]
    pub(crate) analyze: Vec<String>,
    /// Only build this index anew, concurrently; may be given again
    #[arg(long, value_name = "INDEX")]
    pub(crate) reindex: Vec<String>,
    /// Lock everybody out of a table where that was asked for by name
    #[arg(long)]
    pub(crate) force: bool,
}
