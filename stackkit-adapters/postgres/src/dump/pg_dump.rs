//! [`Engine::PgDump`](crate::Engine::PgDump): `pg_dump` on a snapshot that this process holds, counted in the same snapshot.

use async_trait::async_trait;
use bytes::BytesMut;
use stackkit_core::backup::{
    ArtifactName, ArtifactSink, ArtifactSpec, ArtifactWriter, Consistency, DumpContext, DumpReport, PointInTime,
    VendorInfo,
};
use stackkit_core::process::Child;
use stackkit_core::{Census, Dump, Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;

use super::{PIN_TRIES, Server, catalog};
use crate::census::{self, Depth, Relation};
use crate::client::{Session, text};
use crate::service::Postgres;
use crate::tools::{self, VendorTool};

/// The one artifact of a dump.
pub(crate) const ARTIFACT: &str = "database.dump";

/// Its format: `pg_dump --format=custom`.
pub(crate) const FORMAT: &str = "postgresql-custom";

/// How to restore the artifact by hand.
const RESTORE_COMMAND: &str =
    "createdb --template=template0 NEW_DATABASE && pg_restore --exit-on-error --dbname=NEW_DATABASE";

/// How much is gathered before it is handed on: a pipe gives 64 KiB at a time, and a codec behind the sink works best
/// on larger pieces.
const CHUNK_BYTES: usize = 256 * 1024;

/// A pinned snapshot. Dropping it ends the connection, and with it transaction, snapshot and locks.
#[derive(Debug)]
pub(crate) struct PinnedDump {
    service: Postgres,
    session: Session,
    server: Server,
    tool: VendorTool,
    encoding: String,
    snapshot: Snapshot,
    point: PointInTime,
}

#[derive(Debug)]
struct Snapshot {
    id: String,
    position: String,
    relations: Vec<Relation>,
}

impl Postgres {
    pub(super) async fn pin_for_pg_dump(&self, cx: &DumpContext) -> Result<PinnedDump> {
        let config = self.config();
        let session = Session::open_long(config, &config.database).await?;
        let server = Server::of(&session).await?;
        let tool = tools::find("pg_dump", config, server.version).await?;
        // Not what a role or a database may have set: a row might hold what that can't express.
        let encoding = text(&session.row("SELECT current_setting('server_encoding')").await?, 0)?.to_owned();
        let snapshot = pin_snapshot(&session, server.standby).await?;
        let point = PointInTime::new(cx.clock.now(), Consistency::Snapshot).with_position(&snapshot.position);
        Ok(PinnedDump { service: self.clone(), session, server, tool, encoding, snapshot, point })
    }
}

/// Locks every table, then exports a snapshot that sees exactly those tables.
///
/// The locks come first because `TRUNCATE` and rewriting `ALTER TABLE` do not respect snapshots: between the
/// snapshot and the locks of `pg_dump` they would leave a table empty in the dump, without an error.
async fn pin_snapshot(session: &Session, standby: bool) -> Result<Snapshot> {
    let mut last = Error::new(ErrorKind::Busy, "tables keep being created and dropped");
    for _try in 0..PIN_TRIES {
        let relations = census::relations(session).await?;
        match lock_and_export(session, &relations, standby).await {
            Ok((id, position)) if census::relations(session).await? == relations => {
                return Ok(Snapshot { id, position, relations });
            }
            Ok(_tables_came) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => last = error,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                session.execute("ROLLBACK").await?;
                let tables = census::unreadable(session).await?;
                return Err(if tables.is_empty() { error } else { error.with_context("tables", tables.join(", ")) });
            }
            Err(error) if catalog::is_locked(&error) => {
                session.execute("ROLLBACK").await?;
                return Err(catalog::name_holders_in(session, error).await);
            }
            Err(error) => return Err(error),
        }
        session.execute("ROLLBACK").await?;
    }
    Err(last)
}

async fn lock_and_export(session: &Session, relations: &[Relation], standby: bool) -> Result<(String, String)> {
    let mut sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;".to_owned();
    if !relations.is_empty() {
        let names: Vec<String> = relations.iter().map(Relation::sql).collect();
        sql.push_str(&format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE;", names.join(", ONLY ")));
    }
    session.execute(&sql).await?;
    let position = if standby { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_lsn()" };
    let export = format!("SELECT pg_export_snapshot(), {position}");
    let row = session.row(&export).await?;
    Ok((text(&row, 0)?.to_owned(), text(&row, 1)?.to_owned()))
}

#[async_trait]
impl Dump for PinnedDump {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let named = self.service.named("dump");
        self.stream(sink).await.map_err(&named)
    }
}

impl PinnedDump {
    /// The artifact is finished only after both the tool and the count ended well; on any error the child, the
    /// writer and the connection are dropped.
    async fn stream(&self, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let spec = ArtifactSpec::new(ArtifactName::new(ARTIFACT)?, FORMAT).with_restore_command(RESTORE_COMMAND);
        let mut writer = sink.create(spec).await?;
        let child = self.spawn()?;
        let (stderr, census) = tokio::try_join!(pump(child, writer.as_mut()), self.count())?;
        // The locks held until now: a table that lost its own may have been emptied before the tool reached it.
        self.session.execute("COMMIT").await?;
        writer.finish().await?;
        let vendor = VendorInfo::new("PostgreSQL")
            .with_server_version(&self.server.version_text)
            .with_tool("pg_dump", self.tool.version.to_string());
        let warnings = tools::lines(&stderr).into_iter();
        Ok(DumpReport::new(census, vendor).with_warnings(warnings.chain(self.one_way())))
    }

    /// What to know of an archive that can't be restored into the server that it is of.
    fn one_way(&self) -> Option<String> {
        let (tool, server) = (self.tool.version, self.server.version);
        tools::sends_new_settings(tool, server).then(|| {
            let server = server.series_name();
            format!(
                "only pg_restore 17 or newer reads what pg_dump {tool} wrote, and a server of version {server} \
                 refuses its settings: install the client package of version {server}"
            )
        })
    }

    fn spawn(&self) -> Result<Child> {
        let config = self.service.config();
        let lock_ms = config.lock_timeout.as_millis().max(1);
        self.tool
            .command(config, &config.database)?
            .args(["--format=custom", "--compress=0", "--no-password"])
            .arg(format!("--encoding={}", self.encoding))
            .arg(format!("--snapshot={}", self.snapshot.id))
            .arg(format!("--lock-wait-timeout={lock_ms}"))
            .stdout_piped()
            .spawn()
    }

    async fn count(&self) -> Result<Census> {
        let depth = Depth { digests: self.service.config().content_digests, standby: self.server.standby };
        census::take(&self.session, &self.snapshot.relations, depth).await
    }
}

/// Moves the child's output into `writer` and waits for its end. Gives what it wrote to standard error.
async fn pump(mut child: Child, writer: &mut dyn ArtifactWriter) -> Result<String> {
    let mut stdout = child.take_stdout().ok_or_else(|| Error::unexpected("the tool has no standard output"))?;
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    loop {
        let read = stdout.read_buf(&mut buffer).await.map_err(|e| Error::io("read from pg_dump", e))?;
        let is_end = read == 0;
        if buffer.len() >= CHUNK_BYTES || (is_end && !buffer.is_empty()) {
            writer.write(buffer.split().freeze()).await?;
        }
        if is_end {
            return child.wait().await;
        }
        if buffer.capacity() == buffer.len() {
            buffer.reserve(CHUNK_BYTES);
        }
    }
}
