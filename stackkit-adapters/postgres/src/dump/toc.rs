//! The table of contents, from a `pg_dump` that is ended as soon as it has told it.

use bytes::{Buf, BytesMut};
use stackkit_core::process::Child;
use stackkit_core::{Error, Result};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;

use super::dumper::Dumper;
use super::pin::Pin;
use crate::archive::{self, Entry, Header};
use crate::config::PostgresConfig;
use crate::wire::CHUNK_BYTES;

/// How long `pg_dump` waits for its locks. The tables are locked already, so whoever holds it up waits for us.
const LOCK_WAIT_MS: u128 = 2_000;

/// A table of contents that is being told. Dropping it ends the child.
#[derive(Debug)]
pub(super) struct Toc {
    child: Child,
    stdout: ChildStdout,
    buffer: BytesMut,
}

impl Toc {
    /// Starts `pg_dump` on the snapshot of `pin`.
    pub(super) async fn spawn(config: &PostgresConfig, tool: &Dumper, pin: &Pin) -> Result<Self> {
        let wait = config.lock_timeout.as_millis().clamp(1, LOCK_WAIT_MS);
        let mut args = vec![
            "--format=custom".to_owned(),
            "--compress=0".to_owned(),
            "--no-password".to_owned(),
            format!("--snapshot={}", pin.snapshot),
            format!("--lock-wait-timeout={wait}"),
        ];
        args.extend((pin.encoding != "SQL_ASCII").then(|| "--encoding=UTF8".to_owned()));
        args.extend(config.dump.arguments());
        let mut child = tool.start(config, &pin.database, args).await?;
        let stdout = child.take_stdout().ok_or_else(|| Error::unexpected("the tool has no standard output"))?;
        Ok(Self { child, stdout, buffer: BytesMut::new() })
    }

    /// Waits for the first bytes. When they come, `pg_dump` has read all catalogs and has all its locks.
    pub(super) async fn ready(&mut self) -> Result<()> {
        self.fill().await
    }

    /// The header, which comes first.
    pub(super) async fn header(&mut self) -> Result<Header> {
        loop {
            if let Some((header, used)) = archive::header(&self.buffer)? {
                self.buffer.advance(used);
                return Ok(header);
            }
            self.fill().await?;
        }
    }

    /// The next of the `header.entries` entries.
    pub(super) async fn entry(&mut self, header: &Header) -> Result<Entry> {
        loop {
            if let Some((entry, used)) = archive::entry(header, &self.buffer)? {
                self.buffer.advance(used);
                return Ok(entry);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        self.buffer.reserve(CHUNK_BYTES);
        let read = self.stdout.read_buf(&mut self.buffer).await;
        match read.map_err(|e| Error::io("read from pg_dump", e))? {
            0 => {
                self.child.wait().await?;
                Err(Error::integrity("pg_dump ended before its table of contents"))
            }
            _some => Ok(()),
        }
    }
}
