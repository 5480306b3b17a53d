//! Dump: what `pg_basebackup` writes to its standard output, checked while it passes.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use stackkit_core::backup::{
    ArtifactName, ArtifactSink, ArtifactSpec, Consistency, DumpContext, DumpReport, PointInTime, VendorInfo,
};
use stackkit_core::process::Child;
use stackkit_core::{Dump, Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;

use crate::client::{Session, text};
use crate::dump::Server;
use crate::physical::label::Label;
use crate::physical::verify::Verifier;
use crate::physical::{ARTIFACT, BaseBackup, FORMAT};
use crate::tools::{self, VendorTool, Version};

/// From this version on the server writes a manifest: <https://www.postgresql.org/docs/13/backup-manifest-format.html>.
const MANIFEST_SINCE: Version = Version(130_000);

/// How much is gathered before it is handed on: a pipe gives 64 KiB at a time, and a codec behind the sink works best
/// on larger pieces.
const CHUNK_BYTES: usize = 256 * 1024;

/// How to restore the artifact by hand.
const RESTORE_COMMAND: &str = "mkdir -m 700 NEW_DATA && tar -x -f - -C NEW_DATA && pg_ctl -D NEW_DATA start";

/// A replication slot that ends with the session: it keeps the WAL until the tool has fetched it.
const HOLD_WAL: &str = "SELECT pg_create_physical_replication_slot('stackkit_base_' || pg_backend_pid(), true, true)";

/// A base backup that has begun: the tool waits until somebody reads on.
pub(crate) struct PinnedBackup {
    service: BaseBackup,
    /// Holds the replication slot.
    session: Session,
    source: Source,
    server: Server,
    tool: VendorTool,
    point: PointInTime,
    warnings: Vec<String>,
}

/// The tool and what came of it.
struct Source {
    child: Child,
    stdout: ChildStdout,
    /// What was read and not handed on yet.
    buffer: BytesMut,
    verifier: Verifier,
}

impl BaseBackup {
    /// Checks what can be known before anything runs, then lets the tool get as far as the position of the start.
    pub(crate) async fn pin(&self, cx: &DumpContext) -> Result<PinnedBackup> {
        let config = self.config();
        let session = Session::open_long(config, &config.database).await?;
        let server = Server::of(&session).await?;
        check_server(&session, &server).await?;
        let tool = tools::find("pg_basebackup", config, server.version).await?;
        let warnings = hold_wal(&session).await?;
        let mut source = Source::start(self, &tool)?;
        let label = source.label().await?;
        let point = PointInTime::new(cx.clock.now(), Consistency::Snapshot).with_position(label.position());
        Ok(PinnedBackup { service: self.clone(), session, source, server, tool, point, warnings })
    }
}

/// Refuses what would fail later, in words that say what to do.
async fn check_server(session: &Session, server: &Server) -> Result<()> {
    let refuse = |kind, message: &str| Err(Error::new(kind, message).with_context("server", &server.version_text));
    if server.version < MANIFEST_SINCE {
        return refuse(ErrorKind::Unsupported, "servers before version 13 write no backup manifest");
    }
    let sql = "SELECT rolreplication OR rolsuper, current_setting('wal_level'), current_setting('max_wal_senders') \
        FROM pg_roles WHERE rolname = current_user";
    let row = session.row(sql).await?;
    if text(&row, 0)? != "t" {
        let error = Error::new(ErrorKind::PermissionDenied, "a base backup needs the right to replicate");
        return Err(error.with_context("grant", "ALTER ROLE <role> REPLICATION"));
    }
    if text(&row, 1)? == "minimal" {
        return refuse(ErrorKind::Config, "wal_level is minimal; set wal_level = replica and restart the server");
    }
    if text(&row, 2)? == "0" {
        return refuse(ErrorKind::Config, "max_wal_senders is 0; set it to 2 or more and restart the server");
    }
    let tablespaces = "SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1";
    let rows = session.rows(tablespaces).await?;
    let names = rows.iter().map(|row| text(row, 0)).collect::<Result<Vec<&str>>>()?;
    if names.is_empty() {
        return Ok(());
    }
    let message = "pg_basebackup streams clusters without tablespaces of their own only";
    Err(Error::new(ErrorKind::Unsupported, message).with_context("tablespaces", names.join(", ")))
}

/// Without a slot the server may remove WAL before it is fetched, and the tool then fails: so a warning is enough.
async fn hold_wal(session: &Session) -> Result<Vec<String>> {
    match session.execute(HOLD_WAL).await {
        Ok(()) => Ok(Vec::new()),
        Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Saturated) => Ok(vec![
            "no replication slot is free: the server may have removed WAL before the end of a long backup".to_owned(),
        ]),
        Err(error) => Err(error),
    }
}

impl Source {
    fn start(service: &BaseBackup, tool: &VendorTool) -> Result<Self> {
        let config = service.config();
        let mut child = tool
            .command(config, &config.database)?
            .args(["--format=tar", "--pgdata=-", "--wal-method=fetch", "--checkpoint=fast"])
            .args(["--manifest-checksums=CRC32C", "--no-password", "--label=stackkit"])
            .stdout_piped()
            .spawn()?;
        let stdout = child.take_stdout().ok_or_else(|| Error::unexpected("the tool has no standard output"))?;
        let verifier = Verifier::default();
        Ok(Self { child, stdout, buffer: BytesMut::new(), verifier })
    }

    /// Reads as far as the label, which the server sends first, when its checkpoint is done.
    async fn label(&mut self) -> Result<Label> {
        while self.verifier.label().is_none() {
            let before = self.buffer.len();
            if self.fill().await? == 0 {
                self.child.wait().await.map_err(with_needs)?;
                return Err(Error::integrity("pg_basebackup ended before it wrote where recovery starts"));
            }
            let fresh = self.buffer.get(before..).unwrap_or_default();
            self.verifier.push(fresh)?;
        }
        self.verifier.label().ok_or_else(|| Error::unexpected("the label was read and is gone"))
    }

    /// The next chunk, checked; empty at the end.
    async fn chunk(&mut self) -> Result<Bytes> {
        while self.buffer.len() < CHUNK_BYTES {
            let before = self.buffer.len();
            if self.fill().await? == 0 {
                break;
            }
            let fresh = self.buffer.get(before..).unwrap_or_default();
            self.verifier.push(fresh)?;
        }
        Ok(self.buffer.split().freeze())
    }

    async fn fill(&mut self) -> Result<usize> {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(CHUNK_BYTES);
        }
        self.stdout.read_buf(&mut self.buffer).await.map_err(|e| Error::io("read from pg_basebackup", e))
    }
}

/// What a tool that was refused by the server needs; the roles and settings were checked before.
fn with_needs(error: Error) -> Error {
    error.with_context("needs", "a replication line in pg_hba.conf, and a free walsender (max_wal_senders)")
}

#[async_trait]
impl Dump for PinnedBackup {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let service = self.service.clone();
        self.stream(sink).await.map_err(service.named("dump"))
    }
}

impl PinnedBackup {
    /// The artifact is finished only after the tool ended well and all that the manifest lists has come.
    async fn stream(mut self, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let spec = ArtifactSpec::new(ArtifactName::new(ARTIFACT)?, FORMAT)
            .with_media_type("application/x-tar")
            .with_restore_command(RESTORE_COMMAND);
        let mut writer = sink.create(spec).await?;
        loop {
            let chunk = self.source.chunk().await?;
            if chunk.is_empty() {
                break;
            }
            writer.write(chunk).await?;
        }
        let stderr = self.source.child.wait().await?;
        let verified = self.source.verifier.finish()?;
        drop(self.session);
        writer.finish().await?;
        let vendor = VendorInfo::new("PostgreSQL")
            .with_server_version(&self.server.version_text)
            .with_tool("pg_basebackup", self.tool.version.to_string());
        let warnings = self.warnings.into_iter().chain(tools::lines(&stderr)).chain(verified.warnings);
        Ok(DumpReport::new(verified.census, vendor).with_warnings(warnings))
    }
}
