//! What can be done, and with which statement.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One kind of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MaintenanceAction {
    /// `VACUUM`: the room of dead rows can be used again.
    Vacuum,
    /// `VACUUM (ANALYZE)`: the same, and fresh statistics.
    VacuumAnalyze,
    /// `VACUUM (FREEZE)`: the age of the table's transactions begins anew.
    VacuumFreeze,
    /// `VACUUM (FULL, ANALYZE)`: the table is rewritten, and nobody can read or write it meanwhile. Refused without
    /// [`MaintenanceTask::with_force`].
    VacuumFull,
    /// `ANALYZE`: fresh statistics.
    Analyze,
    /// `REINDEX INDEX CONCURRENTLY`: one index is built anew beside itself.
    Reindex,
    /// `REINDEX TABLE CONCURRENTLY`: all indexes of a table.
    ReindexTable,
    /// `DROP INDEX CONCURRENTLY` of an index that is not valid: what a concurrent build that failed has left.
    DropInvalidIndex,
}

impl MaintenanceAction {
    /// The statement for `relation`, a name that is quoted already.
    #[must_use]
    pub fn sql(self, relation: &str) -> String {
        let start = match self {
            Self::Vacuum => "VACUUM",
            Self::VacuumAnalyze => "VACUUM (ANALYZE)",
            Self::VacuumFreeze => "VACUUM (FREEZE)",
            Self::VacuumFull => "VACUUM (FULL, ANALYZE)",
            Self::Analyze => "ANALYZE",
            Self::Reindex => "REINDEX INDEX CONCURRENTLY",
            Self::ReindexTable => "REINDEX TABLE CONCURRENTLY",
            Self::DropInvalidIndex => "DROP INDEX CONCURRENTLY",
        };
        format!("{start} {relation}")
    }

    /// What it locks, and what that means for others.
    /// <https://www.postgresql.org/docs/current/explicit-locking.html>
    #[must_use]
    pub fn locks(self) -> &'static str {
        match self {
            Self::Vacuum | Self::VacuumAnalyze | Self::VacuumFreeze => {
                "SHARE UPDATE EXCLUSIVE: reads and writes go on; to give room at the end back to the disk it takes \
                 ACCESS EXCLUSIVE for a moment if nobody waits"
            }
            Self::VacuumFull => "ACCESS EXCLUSIVE: nobody reads or writes the table until the end",
            Self::Analyze => "SHARE UPDATE EXCLUSIVE: reads and writes go on",
            Self::Reindex | Self::ReindexTable => {
                "SHARE UPDATE EXCLUSIVE: reads and writes go on; it waits for the end of transactions that are open"
            }
            Self::DropInvalidIndex => {
                "SHARE UPDATE EXCLUSIVE: reads and writes go on; it waits for the end of transactions that use the table"
            }
        }
    }

    /// Whether it is done to an index.
    pub(crate) fn is_of_index(self) -> bool {
        matches!(self, Self::Reindex | Self::DropInvalidIndex)
    }

    /// Whether a failure may leave an index that is not valid.
    pub(crate) fn builds_indexes(self) -> bool {
        matches!(self, Self::Reindex | Self::ReindexTable)
    }

    /// Whether the owner of the database may do it, whoever owns the table.
    pub(crate) fn is_for_database_owner(self) -> bool {
        matches!(self, Self::Vacuum | Self::VacuumAnalyze | Self::VacuumFreeze | Self::VacuumFull | Self::Analyze)
    }
}

impl fmt::Display for MaintenanceAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql("").trim_end())
    }
}

/// One thing to do to one table or index.
///
/// ```
/// use stackkit_postgres::{MaintenanceAction, MaintenanceTask};
/// let task = MaintenanceTask::new(MaintenanceAction::VacuumAnalyze, "public.orders");
/// assert_eq!(task.to_string(), "VACUUM (ANALYZE) public.orders");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaintenanceTask {
    /// What to do.
    pub action: MaintenanceAction,
    /// To what: schema and name, each quoted as SQL wants it: `public.orders`, `"Lager"."Über"`.
    pub relation: String,
    /// Whether it may lock everybody out; only [`MaintenanceAction::VacuumFull`] asks for it.
    pub force: bool,
}

impl MaintenanceTask {
    /// `action` for the table or index called `relation`.
    pub fn new(action: MaintenanceAction, relation: impl Into<String>) -> Self {
        Self { action, relation: relation.into(), force: false }
    }

    /// Allows to lock everybody out of the table until the end.
    #[must_use]
    pub fn with_force(mut self) -> Self {
        self.force = true;
        self
    }
}

impl fmt::Display for MaintenanceTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action.sql(&self.relation))
    }
}
