//! One connection of a restore, and how it runs the statements of entries.

use stackkit_core::{Error, ErrorKind, Result};

use super::script::{Script, qualified};
use super::toc::Toc;
use crate::archive::{Entry, text};
use crate::config::PostgresConfig;
use crate::toc::is_of_server;
use crate::wire::{CopyIn, Wire};

/// How much memory all builds of indexes use together: enough to sort some million keys without a file, and half of what
/// a small server has.
const BUILD_MEMORY_KIB: usize = 512 * 1024;

/// What one build gets at least: the server's default.
const BUILD_MEMORY_KIB_MIN: usize = 64 * 1024;

/// What `pg_restore` sets, what decides how values and statements are read, and what makes a restore into a database that
/// nobody uses fast. No setting that a server from version 12 on does not know.
const SETTINGS: &str = "SET lock_timeout = 0; SET client_min_messages = warning; SET check_function_bodies = false; \
    SET xmloption = content; SET array_nulls = on; \
    SET transform_null_equals = off; SET default_tablespace = ''; SET synchronous_commit = off; SET max_parallel_maintenance_workers = 0; \
    SET default_table_access_method = heap";

/// How many statements share a round trip at most, and with it a transaction: each holds locks until its end.
pub(crate) const BATCH_ENTRIES_MAX: usize = 64;

/// How much SQL is sent at once at most, unless one entry alone has more.
pub(crate) const BATCH_BYTES_MAX: usize = 256 * 1024;

/// How often a statement is tried that lost to another session: the server's own vacuum, as a rule.
pub(crate) const DEADLOCK_TRIES: u32 = 5;

/// The SQLSTATE of a deadlock.
pub(crate) const DEADLOCK: &str = "40P01";

/// The SQLSTATE of a right that is missing (`insufficient_privilege`).
const DENIED: &str = "42501";

/// How much of a statement an error shows.
const EXCERPT_CHARS: usize = 160;

/// Kinds whose statements may hold passwords.
const SECRET_KINDS: [&str; 3] = ["USER MAPPING", "SUBSCRIPTION", "SERVER"];

/// A connection to the database that is filled.
#[derive(Debug)]
pub(crate) struct Loading {
    pub(crate) wire: Wire,
    pub(crate) script: Script,
    /// Whether all that it does is one transaction, which outlives a statement that fails and is tried again.
    pub(crate) in_transaction: bool,
    /// What was left out.
    pub(crate) warnings: Vec<String>,
}

impl Loading {
    /// Opens one of `jobs` connections and gives it the settings of the archive, its encoding among them.
    pub(crate) async fn open(config: &PostgresConfig, database: &str, toc: &Toc, jobs: usize) -> Result<Self> {
        let mut wire = Wire::open(config, database).await?;
        let memory = (BUILD_MEMORY_KIB / jobs.max(1)).max(BUILD_MEMORY_KIB_MIN);
        wire.execute(format!("{SETTINGS}; SET maintenance_work_mem = {memory}").as_bytes()).await?;
        for entry in &toc.entries {
            if matches!(entry.kind.as_str(), "ENCODING" | "STDSTRINGS" | "SEARCHPATH") {
                wire.execute(&text::encode(&entry.definition)).await.map_err(|error| named(error, entry, ""))?;
            }
        }
        Ok(Self { wire, script: Script::default(), in_transaction: false, warnings: Vec::new() })
    }

    /// Runs the SQL of entries in one transaction. If it fails they run again one by one, so that the error names the
    /// entry.
    pub(crate) async fn run(&mut self, batch: &[(&Entry, String)]) -> Result<()> {
        if let [(entry, sql)] = batch {
            return self.run_one(entry, sql).await;
        }
        let sql: String = batch.iter().map(|(_, sql)| sql.as_str()).collect();
        match self.send(&sql).await {
            Err(error) if error.kind() == ErrorKind::Unreachable => return Err(error),
            Err(_named_below) => {}
            Ok(()) => return Ok(()),
        }
        for (entry, sql) in batch {
            self.run_one(entry, sql).await?;
        }
        Ok(())
    }

    async fn run_one(&mut self, entry: &Entry, sql: &str) -> Result<()> {
        match self.tries(sql).await {
            Err(error) if error.code() == Some(DENIED) && is_of_server(entry) => {
                // What it had set is undone.
                self.script = Script::default();
                let what = format!("{} {}", entry.kind, entry.tag);
                self.warnings.push(format!("{what} is left out: it needs the rights of the one who set the server up"));
                Ok(())
            }
            done => done.map_err(|error| named(error, entry, sql)),
        }
    }

    async fn tries(&mut self, sql: &str) -> Result<()> {
        for _try in 1..DEADLOCK_TRIES {
            match self.send(sql).await {
                Err(error) if error.code() == Some(DEADLOCK) => {}
                done => return done,
            }
        }
        self.send(sql).await
    }

    /// Runs statements wholly or not at all.
    pub(crate) async fn send(&mut self, sql: &str) -> Result<()> {
        if sql.is_empty() {
            return Ok(());
        }
        if !self.in_transaction {
            return self.wire.execute(&text::encode(sql)).await;
        }
        let whole = format!("SAVEPOINT stackkit;\n{sql}\n;RELEASE SAVEPOINT stackkit");
        let done = self.wire.execute(&text::encode(&whole)).await;
        if done.as_ref().is_err_and(|error| error.kind() != ErrorKind::Unreachable) {
            self.wire.execute(b"ROLLBACK TO SAVEPOINT stackkit; RELEASE SAVEPOINT stackkit").await?;
        }
        done
    }

    /// Begins a copy of rows; `sql` ends with the `COPY`.
    pub(crate) async fn copy(&mut self, sql: &str) -> Result<CopyIn<'_>> {
        self.wire.copy_in(&text::encode(sql)).await
    }
}

/// An error of an entry, which it names.
pub(crate) fn named(error: Error, entry: &Entry, sql: &str) -> Error {
    let error = error
        .with_context("toc_id", entry.dump_id)
        .with_context("entry", format!("{} {}", entry.kind, qualified(entry)));
    if sql.is_empty() || SECRET_KINDS.contains(&entry.kind.as_str()) {
        return error;
    }
    let words: Vec<&str> = sql.split_whitespace().collect();
    let excerpt: String = words.join(" ").chars().take(EXCERPT_CHARS).collect();
    error.with_context("sql", excerpt)
}
