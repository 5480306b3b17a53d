//! Dump: the handshake of a replica, and the RDB that follows it, byte for byte.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use stackkit_core::backup::{
    ArtifactName, ArtifactSink, ArtifactSpec, ArtifactWriter, Consistency, DumpContext, DumpReport, PointInTime,
    VendorInfo,
};
use stackkit_core::{Dump, Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::census;
use crate::client::Connection;
use crate::error::{RedisError, unreadable};
use crate::metrics::Info;
use crate::probe::loading;
use crate::rdb::{Scan, Summary};
use crate::resp::{Body, Preamble, Reply, ServerError, push_command};
use crate::service::Redis;

/// The one artifact of a dump.
pub(crate) const ARTIFACT: &str = "dump.rdb";
/// Its format, as manifests name it.
pub(crate) const FORMAT: &str = "redis-rdb";

/// Bytes handed to the sink at once, always so many but for the last: few enough calls to be free, small enough beside the pipeline's 1 MiB frames.
const CHUNK_BYTES: usize = 512 << 10;
/// Bytes asked of the system at once.
const READ_BYTES: usize = 256 << 10;
/// Data sets below this are saved to the server's disk and sent from there. Above, they are streamed as they are
/// serialised, for which the server first waits `repl-diskless-sync-delay` (5 s by default): worth it only where writing
/// the file and reading it again would take about as long.
const DISKLESS_BYTES_MIN: u64 = 1 << 30;
/// The server's default for `repl-diskless-sync-delay`, where the user may not ask.
const DISKLESS_DELAY_DEFAULT_SECONDS: u64 = 5;

/// A replica's connection that waits for its RDB.
pub(crate) struct RedisDump {
    service: Redis,
    connection: Connection,
    info: Info,
    point: PointInTime,
}

impl Redis {
    /// Asks for a full synchronisation and waits until the server says which point it will be of.
    pub(crate) async fn begin_dump(&self, cx: &DumpContext) -> Result<RedisDump> {
        let mut connection = self.connect(self.connect_deadline()).await?;
        let commands: &[&[&[u8]]] = &[&[b"INFO"], &[b"CONFIG", b"GET", b"repl-diskless-sync-delay"]];
        let mut replies = connection.pipeline(commands, self.command_deadline()).await?.into_iter();
        let info = Info::from_reply(replies.next().ok_or(RedisError::Answer)?)?;
        if info.is("loading", "1") {
            return Err(loading(Some(&info)));
        }
        let delay_seconds = replies.next().and_then(|reply| reply.setting()).unwrap_or(DISKLESS_DELAY_DEFAULT_SECONDS);
        self.ask(&mut connection, streams(&info, delay_seconds)).await?;
        let position = timeout(self.config().sync_timeout, self.resync_position(&mut connection));
        let position = position.await.map_err(|_elapsed| busy_saving())??;
        let point = PointInTime::new(cx.clock.now(), Consistency::Snapshot).with_position(position);
        Ok(RedisDump { service: self.clone(), connection, info, point })
    }

    /// Introduces itself as a replica, and asks for a full synchronisation only then: a server refuses `PSYNC` while it
    /// still has something to say.
    async fn ask(&self, connection: &mut Connection, streamed: bool) -> Result<()> {
        let stall = self.config().stall_timeout;
        let introduction = introduction(streamed);
        connection.send(&introduction.concat(), stall).await?;
        for _ in &introduction {
            match connection.receive(stall).await? {
                Reply::Error(error) if error.code == "NOPERM" => return Err(refused(error)),
                // Servers before 7.0 do not know `rdb-only`: they would send commands after the RDB, but by then this
                // connection is closed.
                Reply::Error(_) | Reply::Status(_) => {}
                _ => return Err(RedisError::Answer.into()),
            }
        }
        let mut psync = Vec::new();
        push_command(&mut psync, &[b"PSYNC", b"?", b"-1"]);
        Ok(connection.send(&psync, stall).await?)
    }

    /// Replication id and offset. While another save runs the server makes a replica wait, and sends a line feed every
    /// second to say so.
    async fn resync_position(&self, connection: &mut Connection) -> Result<String> {
        match self.preamble(connection).await? {
            Preamble::FullResync { id, offset } => Ok(format!("{id}:{offset}")),
            Preamble::Refused(error) => Err(refused(error)),
            Preamble::Body(_) => Err(RedisError::Answer.into()),
        }
    }

    async fn preamble(&self, connection: &mut Connection) -> Result<Preamble> {
        loop {
            if let Some(line) = Preamble::take(connection.unread()).map_err(RedisError::Protocol)? {
                return Ok(line);
            }
            match connection.read_more(READ_BYTES, self.config().stall_timeout).await {
                Err(RedisError::Closed) => return Err(save_failed()),
                done => done?,
            }
        }
    }
}

/// Whether the server should stream while it serialises, instead of saving to its disk first.
fn streams(info: &Info, delay_seconds: u64) -> bool {
    let large = info.number::<u64>("used_memory_dataset").is_some_and(|bytes| bytes >= DISKLESS_BYTES_MIN);
    delay_seconds == 0 || large || info.is("rdb_last_bgsave_status", "err")
}

/// What a replica says that wants the RDB and no commands after it. Only one that announces `eof` can be streamed to.
fn introduction(streamed: bool) -> Vec<Vec<u8>> {
    let words: &[[&[u8]; 3]] = &[[b"REPLCONF", b"rdb-only", b"1"], [b"REPLCONF", b"capa", b"eof"]];
    let said = words.iter().take(if streamed { 2 } else { 1 });
    said.map(|words| {
        let mut command = Vec::new();
        push_command(&mut command, words);
        command
    })
    .collect()
}

#[async_trait]
impl Dump for RedisDump {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(mut self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let service = self.service.clone();
        self.stream(sink).await.map_err(service.named("dump"))
    }
}

impl RedisDump {
    async fn stream(&mut self, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let framing = match self.service.preamble(&mut self.connection).await? {
            Preamble::Body(framing) => framing,
            Preamble::Refused(error) => return Err(refused(error)),
            Preamble::FullResync { .. } => return Err(RedisError::Answer.into()),
        };
        let mut writer = sink.create(spec()?).await?;
        let mut scan = Scan::new();
        let mut body = Body::new(framing, self.connection.unread().split());
        while !body.ended() {
            if body.complete() || body.ready() >= CHUNK_BYTES {
                store(body.take(CHUNK_BYTES), &mut scan, writer.as_mut()).await?;
            } else {
                self.read(body.buffer()).await?;
            }
        }
        // A sound file is a dump; nothing is finished before it is known to be one.
        let summary = scan.finish().map_err(RedisError::Rdb)?;
        writer.finish().await?;
        Ok(report(&summary, &self.info))
    }

    async fn read(&mut self, buffer: &mut BytesMut) -> Result<()> {
        match self.connection.read_body(buffer, READ_BYTES, self.service.config().stall_timeout).await {
            Err(RedisError::Closed) => Err(save_failed()),
            done => Ok(done?),
        }
    }
}

async fn store(chunk: Bytes, scan: &mut Scan, writer: &mut dyn ArtifactWriter) -> Result<()> {
    scan.feed(&chunk).map_err(RedisError::Rdb)?;
    writer.write(chunk).await
}

fn spec() -> Result<ArtifactSpec> {
    Ok(ArtifactSpec::new(ArtifactName::new(ARTIFACT)?, FORMAT).with_restore_command(
        "with the server stopped and appendonly off, put the file as `dump.rdb` into its `dir` and start it",
    ))
}

fn report(summary: &Summary, info: &Info) -> DumpReport {
    let (name, version) = match info.text("valkey_version") {
        Some(version) => ("Valkey", version),
        None => ("Redis", info.version()),
    };
    let vendor = VendorInfo::new(name).with_server_version(version);
    let census = summary.content.as_ref().map(census::of_content).unwrap_or_default();
    let mut warnings = warnings(summary);
    if info.is("cluster_enabled", "1") {
        warnings.push("the server is part of a cluster: the dump holds the slots of this node only".to_owned());
    }
    DumpReport::new(census, vendor).with_warnings(warnings)
}

/// What is odd but not wrong about a file.
pub(crate) fn warnings(summary: &Summary) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(fault) = &summary.content {
        warnings.push(format!("the file is whole, but its keys are not counted: {fault}"));
    }
    if !summary.seal.checked {
        warnings
            .push("the file has no checksum (the server has rdbchecksum no): damage inside can't be seen".to_owned());
    }
    warnings
}

/// What a refusal of the handshake means, and what is needed.
fn refused(error: ServerError) -> Error {
    let need = match error.code.as_str() {
        "NOPERM" => Some("the user needs the rights +psync +replconf +info"),
        "NOMASTERLINK" => Some("a replica can be dumped only while it has a link to its master"),
        "ERR" if error.text.starts_with("unknown command") => {
            Some("the server hides PSYNC, as managed services do; dump from a server that has it")
        }
        _ => None,
    };
    let error = Error::from(RedisError::Server(error));
    match need {
        Some(need) => error.with_context("needs", need),
        None => error,
    }
}

/// The server lives, but is still busy with another save.
fn busy_saving() -> Error {
    Error::new(ErrorKind::Busy, "another save or dump kept the server busy for too long")
}

/// The server gives no reason: it closes.
fn save_failed() -> Error {
    Error::new(ErrorKind::Io, "the server ended the connection before the whole rdb was sent").with_context(
        "likely",
        "its background save failed, on a full or read-only disk or for lack of memory; see its log",
    )
}

/// Reads a file to its end.
pub(crate) async fn scan_all(reader: &mut (impl AsyncRead + Unpin)) -> Result<Summary> {
    let mut scan = Scan::new();
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        buffer.clear();
        if reader.read_buf(&mut buffer).await.map_err(unreadable)? == 0 {
            return Ok(scan.finish().map_err(RedisError::Rdb)?);
        }
        scan.feed(&buffer).map_err(RedisError::Rdb)?;
    }
}

/// The error for an artifact of another format.
pub(crate) fn foreign(format: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "the artifact is not an rdb file").with_context("format", format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaming_must_not_cost_more_than_the_disk() {
        let of = |text: &str, delay_seconds| streams(&Info::parse(text), delay_seconds);
        assert!(!of("used_memory_dataset:900000\nrdb_last_bgsave_status:ok", 5));
        assert!(of("used_memory_dataset:900000\nrdb_last_bgsave_status:ok", 0));
        assert!(of("used_memory_dataset:1073741824\n", 5));
        assert!(of("used_memory_dataset:1\nrdb_last_bgsave_status:err", 5));
        assert!(!of("", 5));
    }

    #[test]
    fn a_small_data_set_does_not_wait_for_other_replicas() {
        let text = |streamed| String::from_utf8(introduction(streamed).concat()).unwrap();
        assert!(!text(false).contains("eof"), "the server would wait repl-diskless-sync-delay");
        assert!(text(true).contains("capa\r\n$3\r\neof"));
    }

    #[test]
    fn a_refusal_says_what_is_needed() {
        let error = |code: &str, text: &str| refused(ServerError { code: code.into(), text: text.into() });
        let denied = error("NOPERM", "this user has no permissions to run the 'psync' command");
        assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
        assert!(denied.to_string().contains("+psync"), "{denied}");
        assert_eq!(error("NOMASTERLINK", "Can't SYNC while not connected with my master").kind(), ErrorKind::Busy);
        assert_eq!(error("ERR", "unknown command 'PSYNC'").kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_file_of_an_unknown_version_is_reported_not_counted() {
        let mut scan = Scan::new();
        scan.feed(&crate::rdb::Writer::new(40).finish()).unwrap();
        let report = report(&scan.finish().unwrap(), &Info::parse("redis_version:9.0.0"));
        assert_eq!(report.census, stackkit_core::Census::new());
        assert!(report.warnings[0].contains("version 40"), "{:?}", report.warnings);
    }
}
