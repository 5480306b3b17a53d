//! [`Engine::Parallel`](crate::Engine::Parallel): several connections copy the rows of one snapshot.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use stackkit_core::backup::{
    ArtifactName, ArtifactSink, ArtifactSpec, Consistency, DumpContext, DumpReport, PointInTime, VendorInfo,
};
use stackkit_core::{Census, Dump, Error, ErrorKind, Result};

use super::Server;
use super::catalog;
use super::pin::{self, Pin};
use super::table::{DataEntry, Piece, TABLE_DATA};
use super::toc::Toc;
use super::units::{self, Cut, Unit};
use super::worker::{State, Work, Worker};
use crate::archive::{Compression, Data, Format, write};
use crate::census;
use crate::client::Session;
use crate::layout::{CONTENTS, DataFile, DatabaseLayout, LAYOUT_VERSION, Layout, TOC, formats};
use crate::options::JOBS_MAX_DEFAULT;
use crate::service::Postgres;
use crate::tools::{self, VendorTool};
use crate::wire::{CHUNK_BYTES, Wire, value};

/// Pinned databases whose rows have not moved yet.
#[derive(Debug)]
pub(super) struct PinnedCopies {
    service: Postgres,
    server: Server,
    tool: VendorTool,
    pinned: Vec<(Pin, Toc)>,
    jobs: usize,
    point: PointInTime,
}

impl Postgres {
    pub(super) async fn pin_for_copies(&self, cx: &DumpContext) -> Result<PinnedCopies> {
        let config = self.config();
        let session = Session::open_long(config, &config.database).await?;
        let server = Server::of(&session).await?;
        drop(session);
        let tool = tools::find("pg_dump", config, server.version).await?;
        let mut pin = Pin::open(config, &config.database, &server).await?;
        let toc = pin.ask(config, &tool, &server).await?;
        let point = PointInTime::new(cx.clock.now(), Consistency::Snapshot).with_position(&pin.position);
        let jobs = config.dump.jobs.unwrap_or(JOBS_MAX_DEFAULT);
        Ok(PinnedCopies { service: self.clone(), server, tool, pinned: vec![(pin, toc)], jobs, point })
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
    async fn copy(self, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let Self { service, server, tool, pinned, jobs, .. } = self;
        let mut report = Copied { census: Census::new(), databases: Vec::new(), warnings: Vec::new() };
        for (pin, toc) in pinned {
            let one = OneDatabase { service: &service, server: &server, sink, prefix: String::new(), jobs };
            one.copy(pin, toc, &mut report).await?;
        }
        let layout = Layout {
            version: LAYOUT_VERSION,
            server_version: server.version_text.clone(),
            databases: report.databases,
            globals: false,
        };
        store(sink, CONTENTS, formats::CONTENTS, layout.to_json()?).await?;
        let vendor = VendorInfo::new("PostgreSQL")
            .with_server_version(&server.version_text)
            .with_tool("pg_dump", tool.version.to_string());
        Ok(DumpReport::new(report.census, vendor).with_warnings(report.warnings))
    }
}

/// What the databases come to.
struct Copied {
    census: Census,
    databases: Vec<DatabaseLayout>,
    warnings: Vec<String>,
}

/// The copy of one database.
struct OneDatabase<'a> {
    service: &'a Postgres,
    server: &'a Server,
    sink: &'a dyn ArtifactSink,
    prefix: String,
    jobs: usize,
}

impl OneDatabase<'_> {
    async fn copy(&self, mut pin: Pin, toc: Toc, into: &mut Copied) -> Result<()> {
        let entries = self.contents(toc).await?;
        let facts = catalog::facts(&mut pin.wire).await?;
        if let Some(entry) = entries.iter().find(|entry| !pin.tables.iter().any(|table| table.oid == entry.oid)) {
            let error = Error::new(ErrorKind::Busy, "pg_dump tells of a table that was not locked");
            return Err(error.with_context("table", &entry.table));
        }
        let dump = &self.service.config().dump;
        let cut = Cut { split_bytes: dump.split_bytes, jobs: self.jobs, server: self.server.version };
        let units = units::units(&entries, &facts, cut);
        let condition = |entry: &DataEntry| facts.get(&entry.oid).and_then(|facts| facts.condition.clone());
        let conditions: Vec<Option<String>> = entries.iter().map(condition).collect();
        let work = Work {
            sink: self.sink,
            prefix: &self.prefix,
            entries: &entries,
            conditions: &conditions,
            units: &units,
            hash: dump.row_hashes,
            state: State::default(),
        };
        self.run(&work, &mut pin, &mut into.warnings).await?;
        let tables = files(&entries, &units, work.state.take_done())?;
        self.count(&mut pin, &entries, &tables, &mut into.census).await?;
        // The locks held until now: a table that lost its own may have been emptied before it was read.
        pin.wire.execute(b"COMMIT").await?;
        into.databases.push(DatabaseLayout {
            name: pin.database,
            prefix: self.prefix.clone(),
            position: Some(pin.position),
            encoding: if pin.encoding == "SQL_ASCII" { pin.encoding } else { "UTF8".to_owned() },
            tables,
            blobs: Vec::new(),
            blobs_count: 0,
        });
        Ok(())
    }

    /// Stores the table of contents as a directory archive has it, and ends `pg_dump`. Gives the entries with rows.
    async fn contents(&self, mut toc: Toc) -> Result<Vec<DataEntry>> {
        let mut header = toc.header().await?;
        let read = header.clone();
        (header.format, header.compression) = (Format::Tar, Compression::None);
        let mut out = write::header(&header)?;
        let spec = ArtifactSpec::new(ArtifactName::new(format!("{}{TOC}", self.prefix))?, formats::TOC);
        let mut writer = self.sink.create(spec.with_restore_command("pg_restore --list DIRECTORY")).await?;
        let mut entries = Vec::new();
        for _entry in 0..read.entries {
            let mut entry = toc.entry(&read).await?;
            let file = match entry.kind.as_str() {
                TABLE_DATA => {
                    entries.push(DataEntry::of(&entry)?);
                    format!("{}.dat", entry.dump_id)
                }
                _ if entry.has_data => {
                    let error = Error::new(ErrorKind::Unsupported, "this dump can't hold data of this kind");
                    return Err(error.with_context("kind", entry.kind));
                }
                _ => String::new(),
            };
            entry.data = Data::File(file);
            write::entry(&header, &entry, &mut out)?;
            if out.len() >= CHUNK_BYTES {
                writer.write(Bytes::from(std::mem::take(&mut out))).await?;
            }
        }
        drop(toc);
        writer.write(Bytes::from(out)).await?;
        writer.finish().await?;
        Ok(entries)
    }

    /// Reads all units, by as many connections as the server has for us.
    async fn run(&self, work: &Work<'_>, pin: &mut Pin, warnings: &mut Vec<String>) -> Result<()> {
        let count = self.jobs.min(work.units.len()).max(1);
        let opened = join_all((0..count).map(|_worker| self.worker(pin))).await;
        let mut wires = Vec::new();
        for opened in opened {
            match opened {
                Ok(wire) => wires.push(wire),
                Err(error) if error.kind() == ErrorKind::Saturated => {}
                Err(error) => return Err(error),
            }
        }
        if wires.len() < count {
            warnings.push(format!("the server had only {} of {count} connections for the dump", wires.len() + 1));
        }
        if wires.is_empty() {
            return Worker::with_locks(&mut pin.wire, work).run().await;
        }
        try_join_all(wires.iter_mut().map(|wire| Worker::new(wire, work).run())).await?;
        let refused = work.state.take_refused();
        Worker::with_locks(&mut pin.wire, work).run_these(&refused).await
    }

    /// A connection in the snapshot.
    async fn worker(&self, pin: &Pin) -> Result<Wire> {
        let mut wire = pin::reader(self.service.config(), &pin.database, &pin.encoding).await?;
        wire.execute(pin.join().as_bytes()).await?;
        Ok(wire)
    }

    /// Counts what was copied, by the names that a census of the database has.
    async fn count(&self, pin: &mut Pin, entries: &[DataEntry], files: &[DataFile], census: &mut Census) -> Result<()> {
        for (entry, file) in entries.iter().zip(files) {
            let is_member = pin.tables.iter().any(|table| table.oid == entry.oid && table.is_member);
            let path = census::path(&entry.schema, &entry.table);
            if !is_member {
                census.add(&format!("{path}.rows"), file.rows.unwrap_or_default());
            }
            if let Some(hash) = &file.row_hash {
                census.digests.insert(format!("{path}.row_hash"), hash.clone());
            }
        }
        for row in pin.wire.rows(census::OBJECTS).await? {
            census.add(&format!("objects.{}", value(&row, 0)?), catalog::number(&row, 1)?);
        }
        Ok(())
    }
}

/// The data files, in the order of the table of contents.
fn files(entries: &[DataEntry], units: &[Unit], done: Vec<(usize, Piece)>) -> Result<Vec<DataFile>> {
    let mut pieces: Vec<Vec<(usize, Piece)>> = vec![Vec::new(); entries.len()];
    for (unit, piece) in done {
        let unit = units.get(unit).ok_or_else(|| Error::unexpected("a piece of no unit"))?;
        if let Some(pieces) = pieces.get_mut(unit.entry) {
            pieces.push((unit.part, piece));
        }
    }
    let mut wanted = vec![0; entries.len()];
    units.iter().for_each(|unit| wanted[unit.entry] += 1);
    let file = |((entry, mut pieces), wanted): ((&DataEntry, Vec<(usize, Piece)>), usize)| {
        if pieces.len() != wanted {
            return Err(Error::unexpected("a part of a table was not read").with_context("table", &entry.table));
        }
        pieces.sort_by_key(|(part, _piece)| *part);
        Ok(entry.clone().file(pieces.into_iter().map(|(_part, piece)| piece).collect()))
    };
    entries.iter().zip(pieces).zip(wanted).map(file).collect()
}

/// Stores a whole artifact.
async fn store(sink: &dyn ArtifactSink, name: &str, format: &str, content: Vec<u8>) -> Result<()> {
    let mut writer = sink.create(ArtifactSpec::new(ArtifactName::new(name)?, format)).await?;
    writer.write(Bytes::from(content)).await?;
    writer.finish().await.map(drop)
}
