//! Dump: on a snapshot that this process holds, by connections of its own or by `pg_dump`.

mod blob_pages;
mod blobs;
mod bundle;
mod by_hand;
mod catalog;
mod copy;
mod digests;
mod dumper;
mod filter;
mod globals;
mod jobs;
mod one;
mod parallel;
mod pg_dump;
mod pin;
mod rights;
mod table;
mod toc;
mod units;
mod worker;

use stackkit_core::backup::DumpContext;
use stackkit_core::{Dump, Result};

use crate::client::{Session, number, text};
use crate::error::PostgresError;
use crate::options::Engine;
use crate::service::Postgres;
use crate::tools::Version;

pub(crate) use catalog::{is_locked, name_holders_by};
pub(crate) use copy::copy_out_of;
pub(crate) use pg_dump::{ARTIFACT, FORMAT};
pub(crate) use pin::reader;

/// How often pinning starts again because tables came or went between listing and locking them.
const PIN_TRIES: u32 = 5;

/// What the server is.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) version_text: String,
    pub(crate) version: Version,
    pub(crate) standby: bool,
}

impl Server {
    pub(crate) async fn of(session: &Session) -> Result<Self> {
        let sql = "SELECT split_part(current_setting('server_version'), ' ', 1), \
            current_setting('server_version_num'), pg_is_in_recovery()";
        let row = session.row(sql).await?;
        let version = u32::try_from(number(&row, 1)?).map_err(|_too_large| PostgresError::Answer("a version"))?;
        Ok(Self { version_text: text(&row, 0)?.to_owned(), version: Version(version), standby: text(&row, 2)? == "t" })
    }
}

impl Postgres {
    /// Pins the point in time for the configured engine.
    pub(crate) async fn pin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        match self.config().dump.engine {
            Engine::Parallel => Ok(Box::new(self.pin_for_copies(cx).await?)),
            Engine::PgDump => Ok(Box::new(self.pin_for_pg_dump(cx).await?)),
        }
    }
}
