//! One database, pinned: its tables are locked, its snapshot is exported, `pg_dump` is ready to tell what is in it.
//!
//! The locks come before the snapshot because `TRUNCATE` and rewriting `ALTER TABLE` do not respect snapshots: between
//! the snapshot and the locks of `pg_dump` they would leave a table empty in the dump, without an error. And they are our
//! own because those of `pg_dump` end with it.

use stackkit_core::{Error, ErrorKind, Result};

use super::catalog::{self, Table};
use super::dumper::Dumper;
use super::toc::Toc;
use super::{PIN_TRIES, Server, filter, rights};
use crate::archive::text::encode;
use crate::config::PostgresConfig;
use crate::sql::literal;
use crate::wire::{Wire, value};

/// What a reader of rows sets beside what every long session has: the order of rows is that of their pages.
const READER: &str = "SET synchronize_seqscans = off";

/// A pinned database. Dropping it ends the connection, and with it transaction, snapshot and locks.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) database: String,
    pub(super) wire: Wire,
    pub(super) snapshot: String,
    /// The place in the log, and its timeline: `0/1A2B3C4@1`.
    pub(super) position: String,
    pub(super) encoding: String,
    pub(super) tables: Vec<Table>,
}

/// A connection for reading rows of `database`, whose text is in `encoding`.
pub(crate) async fn reader(config: &PostgresConfig, database: &str, encoding: &str) -> Result<Wire> {
    let mut wire = Wire::open(config, database).await?;
    let client = if encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
    wire.execute(format!("{READER}; SET client_encoding = {client}").as_bytes()).await?;
    Ok(wire)
}

impl Pin {
    /// Connects to `database` and pins it.
    pub(super) async fn open(config: &PostgresConfig, database: &str, server: &Server) -> Result<Self> {
        let mut wire = Wire::open(config, database).await?;
        let row = wire.rows("SELECT current_setting('server_encoding')").await?.pop().unwrap_or_default();
        let encoding = value(&row, 0)?.to_owned();
        if encoding == "SQL_ASCII" {
            wire.execute(b"SET client_encoding = SQL_ASCII").await?;
        }
        wire.execute(READER.as_bytes()).await?;
        let (snapshot, position, tables) = pin(&mut wire, config, server.standby).await?;
        Ok(Self { database: database.to_owned(), wire, snapshot, position, encoding, tables })
    }

    /// Starts `pg_dump` on the snapshot and waits until it has its own locks.
    ///
    /// Who asked for a table in the meantime waits for us, and `pg_dump` behind it: then the snapshot is given up and
    /// another one is taken.
    pub(super) async fn ask(&mut self, config: &PostgresConfig, tool: &Dumper, server: &Server) -> Result<Toc> {
        let mut tries = PIN_TRIES;
        loop {
            let mut toc = Toc::spawn(config, tool, self).await?;
            match toc.ready().await {
                Ok(()) => return Ok(toc),
                Err(error) => {
                    drop(toc);
                    tries -= 1;
                    if tries == 0 || !self.is_waited_for().await? {
                        return Err(rights::of_tool(&mut self.wire, config, error).await);
                    }
                    self.wire.execute(b"ROLLBACK").await?;
                    let (snapshot, position, tables) = pin(&mut self.wire, config, server.standby).await?;
                    (self.snapshot, self.position, self.tables) = (snapshot, position, tables);
                }
            }
        }
    }

    /// Whether anybody waits for what this session holds.
    async fn is_waited_for(&mut self) -> Result<bool> {
        let sql = "SELECT count(*) FROM pg_catalog.pg_locks l WHERE NOT l.granted \
            AND pg_backend_pid() = ANY (pg_blocking_pids(l.pid))";
        let row = self.wire.rows(sql).await?.pop().unwrap_or_default();
        Ok(value(&row, 0)? != "0")
    }

    /// The statements that put another session into the same snapshot.
    pub(super) fn join(&self) -> String {
        let snapshot = literal(&self.snapshot);
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {snapshot}")
    }
}

/// Locks every table, then exports a snapshot that sees exactly those.
async fn pin(wire: &mut Wire, config: &PostgresConfig, standby: bool) -> Result<(String, String, Vec<Table>)> {
    let mut last = Error::new(ErrorKind::Busy, "tables keep being created and dropped");
    let condition = filter::condition(wire, &config.dump).await?;
    for _try in 0..PIN_TRIES {
        let tables = catalog::tables(wire, condition.as_deref()).await?;
        match lock_and_export(wire, &tables, standby).await {
            Ok((snapshot, position)) if catalog::tables(wire, condition.as_deref()).await? == tables => {
                return Ok((snapshot, position, tables));
            }
            Ok(_tables_came) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => last = error,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                wire.execute(b"ROLLBACK").await?;
                return Err(rights::named(wire, error, condition.as_deref()).await);
            }
            Err(error) if catalog::is_locked(&error) => {
                wire.execute(b"ROLLBACK").await?;
                return Err(catalog::name_holders(wire, error).await);
            }
            Err(error) => return Err(error),
        }
        wire.execute(b"ROLLBACK").await?;
    }
    Err(last)
}

async fn lock_and_export(wire: &mut Wire, tables: &[Table], standby: bool) -> Result<(String, String)> {
    wire.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    catalog::lock(wire, tables).await?;
    let position = match standby {
        true => "pg_last_wal_replay_lsn(), (SELECT timeline_id FROM pg_control_checkpoint())",
        // The name of a segment begins with its timeline.
        false => "lsn, ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::int FROM pg_current_wal_lsn() AS lsn",
    };
    let rows = wire.rows(&format!("SELECT pg_export_snapshot(), {position}")).await?;
    let row = rows.into_iter().next().unwrap_or_default();
    Ok((value(&row, 0)?.to_owned(), format!("{}@{}", value(&row, 1)?, value(&row, 2)?)))
}

/// The bytes of a statement that names things of the catalogs.
pub(super) fn bytes(sql: &str) -> Vec<u8> {
    encode(sql).into_owned()
}
