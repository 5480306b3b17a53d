//! [`Engine::Parallel`](crate::Engine::Parallel): several connections copy the rows of one snapshot.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use stackkit_core::backup::{
    ArtifactSink, ArtifactSpec, Consistency, DumpContext, DumpReport, PointInTime, VendorInfo,
};
use stackkit_core::{Census, Dump, Error, ErrorKind, Result};

use super::by_hand;
use super::dumper::Dumper;
use super::one::{self, OneDatabase};
use super::pin::Pin;
use super::toc::Toc;
use super::{Server, globals, jobs};
use crate::census;
use crate::client::{Session, text};
use crate::layout::{CONTENTS, GLOBALS, LAYOUT_VERSION, Layout, formats};
use crate::options::Databases;
use crate::service::Postgres;

/// The databases that a dump of all of them holds.
const DATABASES: &str = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate \
    AND datconnlimit <> -2 ORDER BY 1";

/// Pinned databases whose rows have not moved yet.
#[derive(Debug)]
pub(super) struct PinnedCopies {
    service: Postgres,
    server: Server,
    tool: Dumper,
    pinned: Vec<(Pin, Toc)>,
    jobs: usize,
    point: PointInTime,
    /// How long it took from the first snapshot to the last.
    spread: Duration,
}

impl Postgres {
    /// Pins every database that is wanted. Each has a snapshot of its own, as one can't be shared between databases.
    pub(super) async fn pin_for_copies(&self, cx: &DumpContext) -> Result<PinnedCopies> {
        let config = self.config();
        let session = Session::open_long(config, &config.database).await?;
        let server = Server::of(&session).await?;
        let tool = Dumper::find(config, server.version).await?;
        let names = self.wanted(&session).await?;
        let jobs = jobs::count(config, &session).await;
        session.close().await;
        let (taken_at, began) = (cx.clock.now(), cx.clock.instant());
        let opened = names.iter().map(|name| Pin::open(config, name, &server));
        let mut pins = try_join_all(opened).await?;
        let spread = cx.clock.instant().duration_since(began);
        let tocs = try_join_all(pins.iter_mut().map(|pin| pin.ask(config, &tool, &server))).await?;
        let consistency = if names.len() > 1 { Consistency::PerObject } else { Consistency::Snapshot };
        let position = pins.first().map(|pin| pin.position.clone()).unwrap_or_default();
        let point = PointInTime::new(taken_at, consistency).with_position(position);
        let pinned = pins.into_iter().zip(tocs).collect();
        Ok(PinnedCopies { service: self.clone(), server, tool, pinned, jobs, point, spread })
    }

    /// The databases to dump.
    async fn wanted(&self, session: &Session) -> Result<Vec<String>> {
        let config = self.config();
        let names = match &config.dump.databases {
            Databases::Configured => vec![config.database.clone()],
            Databases::List(names) => names.clone(),
            Databases::All => {
                let rows = session.rows(DATABASES).await?;
                rows.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect::<Result<_>>()?
            }
        };
        match names.is_empty() {
            true => Err(Error::config("no database is to be dumped").with_code("postgres.dump.databases.empty")),
            false => Ok(names),
        }
    }
}

#[async_trait]
impl Dump for PinnedCopies {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let service = self.service.clone();
        (*self).copy(sink).await.map_err(service.named("dump"))
    }
}

impl PinnedCopies {
    /// Copies one database after the other. What tells where everything is comes last: without it there is no dump.
    async fn copy(self, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let Self { service, server, tool, mut pinned, jobs, spread, .. } = self;
        let config = service.config();
        let globals = match pinned.first_mut() {
            Some((pin, _toc)) => {
                let sql = globals::sql(&mut pin.wire, config.dump.globals, server.version).await;
                sql.map_err(|error| one::told(error, server.standby))?
            }
            None => return Err(Error::new(ErrorKind::Unexpected, "nothing was pinned")),
        };
        let is_alone = pinned.len() == 1;
        let mut layout = Layout {
            version: LAYOUT_VERSION,
            server_version: server.version_text.clone(),
            databases: Vec::new(),
            globals: globals.is_some(),
        };
        if let Some(sql) = globals {
            store(sink, by_hand::spec("", GLOBALS, formats::SQL)?, sql).await?;
        }
        let (mut census, mut warnings) = (Census::new(), Vec::new());
        if !is_alone {
            warnings.push(format!("the databases are of moments up to {} ms apart", spread.as_millis()));
        }
        for (number, (pin, toc)) in (1..).zip(pinned) {
            let prefix = if is_alone { String::new() } else { format!("d{number}.") };
            let one = OneDatabase { config, server: &server, sink, prefix, jobs };
            let copied = one.copy(pin, toc).await?;
            let part = if is_alone { String::new() } else { census::prefix(&copied.layout.name) };
            let counts = copied.census.counts.into_iter().map(|(name, count)| (format!("{part}{name}"), count));
            census.counts.extend(counts);
            let digests = copied.census.digests.into_iter().map(|(name, digest)| (format!("{part}{name}"), digest));
            census.digests.extend(digests);
            warnings.extend(copied.warnings);
            layout.databases.push(copied.layout);
        }
        store(sink, by_hand::spec("", CONTENTS, formats::CONTENTS)?, layout.to_json()?).await?;
        let vendor = VendorInfo::new("PostgreSQL")
            .with_server_version(&server.version_text)
            .with_tool("pg_dump", tool.version.to_string());
        Ok(DumpReport::new(census, vendor).with_warnings(warnings))
    }
}

/// Stores a whole artifact.
async fn store(sink: &dyn ArtifactSink, spec: ArtifactSpec, content: Vec<u8>) -> Result<()> {
    let mut writer = sink.create(spec).await?;
    writer.write(Bytes::from(content)).await?;
    writer.finish().await.map(drop)
}
