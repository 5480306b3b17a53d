//! Writes SQL text, as `pg_restore --file` prints it: definitions in the order of the table of contents, rows as `COPY`
//! blocks among them.

use std::collections::BTreeMap;

use stackkit_core::Result;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::parts::{Blobs, Rows};
use super::{ExportReport, Job, failed};
use crate::archive::{Entry, text};
use crate::options::Owners;
use crate::restore::script::{Script, Style};

type Writer<'a> = &'a mut (dyn AsyncWrite + Send + Unpin);

/// What a session is set to before anything else. A setting that the server does not know is not sent: the text runs on
/// every version. `\restrict` is left out, which older versions of `psql` refuse; nothing here asks for a backslash.
const HEAD: &str = "SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
";

/// How many bytes of a large object one statement carries, in hex.
const BLOB_BYTES: usize = 64 * 1024;

/// Of the database itself: the text runs in one that is there.
const LEFT_OUT: [&str; 2] = ["DATABASE", "DATABASE PROPERTIES"];

/// Kinds that come behind everything else: grants may lock their giver out.
const GRANTS: [&str; 2] = ["ACL", "DEFAULT ACL"];

/// Kinds that come behind grants, which they may need.
const LAST: [&str; 2] = ["EVENT TRIGGER", "MATERIALIZED VIEW DATA"];

/// Writes the whole text.
pub(super) async fn write(job: &Job<'_>, out: Writer<'_>) -> Result<ExportReport> {
    let mut report = job.report();
    let mut plain = Plain { job, script: Script::default(), groups: BTreeMap::new(), out };
    plain.put(HEAD.as_bytes()).await?;
    let mut is_left_out = false;
    for pass in [Pass::First, Pass::Grants, Pass::Last] {
        let mut entries = job.entries().await?;
        while let Some(entry) = entries.next().await? {
            match Pass::of(&entry) {
                Some(of_entry) if of_entry == pass => plain.entry(entry, &mut report).await?,
                None if pass == Pass::First && entry.kind != LEFT_OUT[0] => is_left_out = true,
                _ => {}
            }
        }
    }
    if is_left_out {
        let what =
            "settings, grants and comment of the database itself are not in the text, which runs in one that is there";
        report.warnings.push(what.to_owned());
    }
    Ok(report)
}

/// When an entry is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Grants,
    Last,
}

impl Pass {
    fn of(entry: &Entry) -> Option<Self> {
        let is_of_database = LEFT_OUT.contains(&entry.kind.as_str()) || entry.tag.starts_with("DATABASE ");
        let pass = match entry.kind.as_str() {
            kind if GRANTS.contains(&kind) => Self::Grants,
            kind if LAST.contains(&kind) => Self::Last,
            _ => Self::First,
        };
        (!is_of_database).then_some(pass)
    }
}

struct Plain<'a, 'b> {
    job: &'a Job<'a>,
    script: Script,
    /// The groups of large objects, which grants refer to.
    groups: BTreeMap<i32, Entry>,
    out: Writer<'b>,
}

impl Plain<'_, '_> {
    async fn entry(&mut self, entry: Entry, report: &mut ExportReport) -> Result<()> {
        if entry.has_data && entry.kind == "BLOBS" {
            if report.large_objects == 0 {
                report.large_objects = self.blobs().await?;
            }
            return Ok(());
        }
        if entry.has_data {
            report.tables += 1;
            return self.rows(&entry).await;
        }
        let style = Style { owners: Owners::Restore, privileges: true, sets_path: false };
        let groups: BTreeMap<i32, &Entry> = self.groups.iter().map(|(id, entry)| (*id, entry)).collect();
        let sql = self.script.write(&entry, &style, &groups);
        self.put(&text::encode(&sql)).await?;
        if entry.kind == "BLOB METADATA" {
            self.groups.insert(entry.dump_id, entry);
        }
        Ok(())
    }

    /// The rows end with the mark that `psql` waits for.
    async fn rows(&mut self, entry: &Entry) -> Result<()> {
        self.put(&text::encode(&entry.copy)).await?;
        let mut rows = Rows::new(self.job.source, self.job.database, entry.dump_id)?;
        while let Some(piece) = rows.next().await? {
            self.put(&piece).await?;
        }
        Ok(())
    }

    /// Large objects exist and are empty; each is filled piece by piece.
    async fn blobs(&mut self) -> Result<u64> {
        let mut blobs = Blobs::new(self.job.source, self.job.database);
        let mut count = 0;
        while let Some(number) = blobs.next().await? {
            count += 1;
            let mut offset = 0_u64;
            while let Some(piece) = blobs.piece().await? {
                for part in piece.chunks(BLOB_BYTES) {
                    let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
                    let sql = format!("SELECT pg_catalog.lo_put({number}, {offset}, '\\x{hex}');\n");
                    self.put(sql.as_bytes()).await?;
                    offset += part.len() as u64;
                }
            }
        }
        Ok(count)
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).await.map_err(failed)
    }
}
