//! Restore: everything is checked, then the target is emptied and the file replayed with `RESTORE`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::BytesMut;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactSource, PlannedAction, RestoreAction, RestoreContext, RestorePlan, RestoreReport, TargetState,
};
use stackkit_core::{Error, ErrorKind, Result, Service};
use tokio::io::AsyncReadExt;

use crate::census;
use crate::client::Connection;
use crate::dump::{self, FORMAT, scan_all};
use crate::error::{RedisError, unreadable};
use crate::metrics::Info;
use crate::rdb::{Checksum, Content, Event, Fault, MAX_VALUE_BYTES, MAX_VERSION, Reader, Summary};
use crate::rehearsal::rehearse;
use crate::replay::Replay;
use crate::resp::{Reply, push_command};
use crate::service::Redis;

/// Bytes read of the artifact at once, which also sizes a batch of commands: about 100 KiB keeps the server busy, and
/// more gains nothing.
const READ_BYTES: usize = 96 << 10;
/// Batches without an answer: one is executed while the next is on its way.
const BATCHES_UNANSWERED_MAX: usize = 2;
/// Bytes of the artifact that a plan looks at: header and auxiliary fields take a few hundred.
const HEAD_BYTES: u64 = 4096;
/// `RESTORE` with `ABSTTL`, `IDLETIME` and `FREQ` is of this version.
const TARGET_MIN: (u16, u16) = (5, 0);
/// `proto-max-bulk-len` unless configured otherwise: the longest value that one command can carry.
const BULK_BYTES_DEFAULT: u64 = 512 << 20;
/// What `RESTORE` adds to a value: type, version, checksum.
const PAYLOAD_EXTRA_BYTES: u64 = 11;

impl Redis {
    /// Looks at the target and the artifact's head. Changes nothing.
    pub(crate) async fn plan(&self, source: &dyn ArtifactSource) -> Result<RestorePlan> {
        let artifact = rdb_artifact(source)?;
        let head = read_head(source, artifact).await?;
        let mut connection = self.connect(self.connect_deadline()).await?;
        let info = self.info(&mut connection).await?;
        let mut plan = RestorePlan::new(self.id().clone(), self.kind(), fingerprint(&info));
        plan.artifacts.push(artifact.name().clone());
        for keyspace in info.keyspaces() {
            let object = format!("database {} with {} keys", keyspace.database, keyspace.keys);
            plan.actions.push(PlannedAction::new(RestoreAction::Drop, object));
        }
        let libraries = libraries(&info);
        if libraries > 0 {
            plan.actions.push(PlannedAction::new(RestoreAction::Drop, format!("{libraries} function libraries")));
        }
        let replaced = info.number("used_memory_dataset").unwrap_or(0);
        plan.actions.push(match plan.actions.is_empty() {
            true => PlannedAction::new(RestoreAction::Create, "all databases from the file"),
            false => {
                PlannedAction::new(RestoreAction::Overwrite, "all databases from the file").with_size_bytes(replaced)
            }
        });
        if plan.is_destructive() {
            plan.warnings.push(
                "redis can't keep replaced data aside: it is gone once the restore starts writing; dump it first"
                    .to_owned(),
            );
        }
        plan.missing = obstacles(&info, &head);
        plan.details.insert("rdb_version".to_owned(), head.version.to_string());
        plan.details.insert("target_version".to_owned(), info.version().to_owned());
        Ok(plan)
    }

    /// Carries out a plan; each error says which data the target holds.
    pub(crate) async fn apply(
        &self,
        plan: &RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        let old = |error: Error| error.with_target(TargetState::Old);
        let artifact = self.accept(plan, source).map_err(old)?;
        let (content, summary) = self.check_artifact(source, artifact, cx).await.map_err(old)?;
        let (mut connection, info) = self.check_target(plan, &content).await.map_err(old)?;

        // From here on the old data is going.
        let partial = |error: Error| error.with_target(TargetState::Partial);
        self.empty(&mut connection, &info).await?;
        let version = rdb_version(info.version_pair()).min(summary.seal.header.version);
        let replay = self.replay(&mut connection, source, artifact, version).await.map_err(partial)?;
        let live = self.count_live().await.map_err(partial)?;
        let differences = census::differences(&content, &live);
        if !differences.is_empty() {
            let message = "the target does not hold what was restored: others write to it, or it evicts keys";
            return Err(partial(Error::integrity(message).with_context("differences", differences.join("; "))));
        }
        let mut warnings = dump::warnings(&summary);
        if replay.expired() > 0 {
            warnings.push(format!("{} keys had expired since the dump and were left out", replay.expired()));
        }
        let left_out = census::left_out(&content, &live);
        Ok(RestoreReport::new(self.id().clone(), live).with_left_out(left_out).with_warnings(warnings))
    }

    /// The artifact of a plan that is for this service and lacks nothing.
    fn accept<'a>(&self, plan: &RestorePlan, source: &'a dyn ArtifactSource) -> Result<&'a ArtifactInfo> {
        if plan.service != *self.id() || plan.kind != self.kind() {
            return Err(Error::new(ErrorKind::Incompatible, "the plan is for another service"));
        }
        if !plan.missing.is_empty() {
            let error = Error::new(ErrorKind::Incompatible, "the plan lacks what it needs");
            return Err(error.with_context("missing", plan.missing.join("; ")));
        }
        match plan.artifacts.as_slice() {
            [name] => source.info(name),
            _ => Err(Error::new(ErrorKind::Incompatible, "the plan does not name one artifact")),
        }
    }

    /// Reads the whole file: what is damaged or not understood is refused before the first write.
    async fn check_artifact(
        &self,
        source: &dyn ArtifactSource,
        artifact: &ArtifactInfo,
        cx: &RestoreContext,
    ) -> Result<(Content, Summary)> {
        let summary = scan_all(&mut source.open(artifact.name()).await?).await?;
        let content = summary.content.clone().map_err(RedisError::Rdb)?;
        if let Some(expected) = &cx.expected {
            let differences = expected.diff(&census::of_content(&content));
            if !differences.is_empty() {
                let list: Vec<String> = differences.iter().map(ToString::to_string).collect();
                let error = Error::integrity("the file does not hold what the dump counted");
                return Err(error.with_context("differences", list.join("; ")));
            }
        }
        Ok((content, summary))
    }

    /// Asks the target all that could refuse a record later. Changes nothing.
    async fn check_target(&self, plan: &RestorePlan, content: &Content) -> Result<(Connection, Info)> {
        let mut connection = self.connect(self.connect_deadline()).await?;
        let bulk_max = self.bulk_bytes_max(&mut connection).await?;
        for (database, _) in content.counts.databases() {
            let number = database.to_string();
            let selected = connection.call(&[b"SELECT", number.as_bytes()], self.command_deadline()).await;
            selected.map_err(|error| no_database(error, database))?;
        }
        let info = self.info(&mut connection).await?;
        let problems = misfits(&info, content, bulk_max);
        if !problems.is_empty() {
            let error = Error::new(ErrorKind::Incompatible, "the target can't hold the file");
            return Err(error.with_context("needs", problems.join("; ")));
        }
        if fingerprint(&info) != plan.fingerprint {
            return Err(Error::new(ErrorKind::Incompatible, "the target changed since the plan was made"));
        }
        rehearse(&mut connection, content.functions > 0 || libraries(&info) > 0, self.command_deadline()).await?;
        Ok((connection, info))
    }

    /// The longest value that one command can carry; the default where the user may not ask.
    async fn bulk_bytes_max(&self, connection: &mut Connection) -> Result<u64> {
        let command: &[&[u8]] = &[b"CONFIG", b"GET", b"proto-max-bulk-len"];
        let replies = connection.pipeline(&[command], self.command_deadline()).await?;
        Ok(replies.first().and_then(Reply::setting).unwrap_or(BULK_BYTES_DEFAULT))
    }

    /// Removes all keys, and the functions where there are any. The error says what is left: a server that refuses
    /// `FLUSHALL` has removed nothing, one that does not answer may have.
    async fn empty(&self, connection: &mut Connection, info: &Info) -> Result<()> {
        let partial = |error: Error| error.with_target(TargetState::Partial);
        let flushed = self.run(connection, &[b"FLUSHALL"]).await.map_err(partial)?;
        accepted(flushed).map_err(|error| error.with_context("needs", "FLUSHALL").with_target(TargetState::Old))?;
        if libraries(info) > 0 {
            let flushed = self.run(connection, &[b"FUNCTION", b"FLUSH", b"SYNC"]).await.map_err(partial)?;
            accepted(flushed).map_err(partial)?;
        }
        Ok(())
    }

    /// Sends a command that may take long and returns its reply, an error reply too.
    async fn run(&self, connection: &mut Connection, command: &[&[u8]]) -> Result<Reply> {
        let stall = self.config().stall_timeout;
        let mut bytes = Vec::new();
        push_command(&mut bytes, command);
        connection.send(&bytes, stall).await?;
        Ok(connection.receive(stall).await?)
    }

    /// Sends the file as commands. Verifies it again on the way, for the bytes were read anew.
    async fn replay(
        &self,
        connection: &mut Connection,
        source: &dyn ArtifactSource,
        artifact: &ArtifactInfo,
        version: u16,
    ) -> Result<Replay> {
        let mut replay = Replay::new(version, self.server_time_ms(connection).await?);
        let mut sender =
            Sender { connection, stall: self.config().stall_timeout, unanswered: VecDeque::new(), done: 0 };
        let (mut reader, mut checksum) = (Reader::new(), Checksum::new());
        let mut file = source.open(artifact.name()).await?;
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            buffer.clear();
            let read = file.read_buf(&mut buffer).await.map_err(unreadable)?;
            if read == 0 {
                break;
            }
            checksum.feed(&buffer);
            reader.feed(&buffer, &mut |event| replay.on(event)).map_err(RedisError::Rdb)?;
            if replay.commands().0.len() >= READ_BYTES {
                sender.send(&mut replay).await?;
            }
        }
        sender.send(&mut replay).await?;
        sender.finish().await?;
        reader.finish().and_then(|()| checksum.finish()).map_err(RedisError::Rdb)?;
        Ok(replay)
    }

    /// The target's clock decides what has expired, not ours.
    async fn server_time_ms(&self, connection: &mut Connection) -> Result<i64> {
        let reply = connection.call(&[b"TIME"], self.command_deadline()).await?;
        let number = |reply: &Reply| std::str::from_utf8(reply.bytes()?).ok()?.parse::<i64>().ok();
        match reply.array() {
            Some([seconds, micros]) => number(seconds).zip(number(micros)),
            _ => None,
        }
        .map(|(seconds, micros)| seconds.saturating_mul(1000).saturating_add(micros / 1000))
        .ok_or_else(|| RedisError::Answer.into())
    }
}

/// Sends batches and reads their answers one batch behind.
struct Sender<'a> {
    connection: &'a mut Connection,
    stall: Duration,
    /// Commands in each batch that is not answered yet.
    unanswered: VecDeque<usize>,
    /// Commands answered.
    done: u64,
}

impl Sender<'_> {
    async fn send(&mut self, replay: &mut Replay) -> Result<()> {
        let (bytes, count) = replay.commands();
        self.connection.send(bytes, self.stall).await?;
        self.unanswered.push_back(count);
        replay.clear();
        if self.unanswered.len() >= BATCHES_UNANSWERED_MAX { self.answer().await } else { Ok(()) }
    }

    async fn answer(&mut self) -> Result<()> {
        for _ in 0..self.unanswered.pop_front().unwrap_or(0) {
            let reply = self.connection.receive(self.stall).await?;
            accepted(reply).map_err(|error| error.with_context("commands_done", self.done))?;
            self.done += 1;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        while !self.unanswered.is_empty() {
            self.answer().await?;
        }
        Ok(())
    }
}

/// A file with more databases than the target has.
fn no_database(error: RedisError, database: u64) -> Error {
    let error = Error::from(error).with_context("database", database);
    if error.kind() == ErrorKind::NotFound { error.with_kind(ErrorKind::Incompatible) } else { error }
}

/// How many function libraries the server has.
fn libraries(info: &Info) -> u64 {
    info.number("number_of_libraries").unwrap_or(0)
}

/// Any reply but an error.
fn accepted(reply: Reply) -> Result<()> {
    match reply {
        Reply::Error(error) => Err(RedisError::Server(error).into()),
        _ => Ok(()),
    }
}

fn rdb_artifact(source: &dyn ArtifactSource) -> Result<&ArtifactInfo> {
    let artifact = source.artifacts().iter().find(|artifact| artifact.spec.format == FORMAT);
    artifact.ok_or_else(|| Error::new(ErrorKind::Incompatible, "the backup has no rdb file"))
}

/// What the first bytes of a file say.
#[derive(Debug, Default)]
struct Head {
    version: u16,
    used_memory_bytes: u64,
}

async fn read_head(source: &dyn ArtifactSource, artifact: &ArtifactInfo) -> Result<Head> {
    let mut bytes = Vec::new();
    let mut file = source.open_range(artifact.name(), 0..HEAD_BYTES.min(artifact.plain_bytes)).await?;
    let read = file.read_to_end(&mut bytes).await;
    read.map_err(unreadable)?;
    head(&bytes)
}

fn head(bytes: &[u8]) -> Result<Head> {
    let mut head = Head::default();
    let mut reader = Reader::new();
    let result = reader.feed(bytes, &mut |event| {
        if let Event::Aux { name: b"used-mem", value } = event {
            head.used_memory_bytes =
                std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        }
    });
    head.version = reader.version();
    match result {
        // A type that is unknown, or damage further on, is found again when the whole file is read.
        Err(fault @ (Fault::Magic | Fault::Valkey { .. } | Fault::Version { .. })) => {
            Err(RedisError::Rdb(fault).into())
        }
        _ => Ok(head),
    }
}

/// What changes when the target's data does: the server's run, its count of changes since its last save, when that was,
/// and the keys that do not expire. A write or a save in between makes it differ; an expiry alone does not.
fn fingerprint(info: &Info) -> String {
    let text = |name| info.text(name).unwrap_or("-");
    let (run, changes) = (text("run_id"), text("rdb_changes_since_last_save"));
    let mut fingerprint = format!("run={run};changes={changes};saved={}", text("rdb_last_save_time"));
    for keyspace in info.keyspaces() {
        let lasting = keyspace.keys.saturating_sub(keyspace.expiring);
        // Writing to a String does not fail.
        let _ = write!(fingerprint, ";db{}={lasting}", keyspace.database);
    }
    fingerprint
}

/// What a plan can already see to be in the way.
fn obstacles(info: &Info, head: &Head) -> Vec<String> {
    let mut missing = Vec::new();
    if info.version_pair() < TARGET_MIN {
        missing.push(format!("a server of version 5.0 or later; the target is {}", info.version()));
    }
    if info.is("role", "slave") {
        missing.push("a target that can be written: it is a replica".to_owned());
    }
    if info.is("cluster_enabled", "1") {
        missing.push("a target that is no part of a cluster".to_owned());
    }
    if info.is("loading", "1") {
        missing.push("a target that has finished loading its data".to_owned());
    }
    let max: u64 = info.number("maxmemory").unwrap_or(0);
    if max > 0 && head.used_memory_bytes > max {
        missing.push(format!("maxmemory of at least {} bytes; the target has {max}", head.used_memory_bytes));
    }
    missing
}

/// What only the whole file can show to be in the way.
fn misfits(info: &Info, content: &Content, bulk_bytes_max: u64) -> Vec<String> {
    let used_memory_bytes = content.aux.get("used-mem").and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let mut needs = obstacles(info, &Head { version: 0, used_memory_bytes });
    let version = rdb_version(info.version_pair());
    if content.needs_version > version {
        let needed = content.needs_version;
        needs.push(format!("a server that knows rdb version {needed}; the target knows {version}"));
    }
    if content.functions > 0 && info.version_pair() < (7, 0) {
        needs.push("a server of version 7.0 or later, for functions".to_owned());
    }
    let modular = content.module_fields > 0 || content.counts.has_modules();
    if modular && !info.has_modules() {
        needs.push("the modules whose data the file holds".to_owned());
    } else {
        let unread = content.module_types.iter().filter(|known| !info.may_read(known.name()));
        needs.extend(unread.map(|unread| format!("the module that has the type {}", unread.name())));
    }
    let limit = bulk_bytes_max.min(MAX_VALUE_BYTES).saturating_sub(PAYLOAD_EXTRA_BYTES);
    if content.largest_value_bytes > limit {
        let largest = content.largest_value_bytes;
        needs.push(format!("room for a value of {largest} bytes in one command; the limit is {limit}"));
    }
    needs
}

/// The newest RDB version that a server is sure to accept in `RESTORE`, of those that this crate knows.
fn rdb_version(server: (u16, u16)) -> u16 {
    match server {
        (..=2, _) => 6,
        (3, _) => 7,
        (4, _) => 8,
        (5 | 6, _) => 9,
        (7, 0 | 1) => 10,
        (7, 2 | 3) => 11,
        _ => MAX_VERSION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::{Scan, ValueKind, Writer};

    const TARGET: &str =
        "redis_version:7.0.15\nrun_id:abc\nrdb_changes_since_last_save:4\nrdb_last_save_time:100\nrole:master\n";

    #[test]
    fn a_fingerprint_changes_with_the_data_and_not_with_an_expiry() {
        let of = |more: &str| fingerprint(&Info::parse(&format!("{TARGET}{more}")));
        let before = of("db0:keys=10,expires=4,avg_ttl=1");
        assert_eq!(before, of("db0:keys=9,expires=3,avg_ttl=1"), "one expired");
        assert_ne!(before, of("db0:keys=10,expires=3,avg_ttl=1"));
        assert_ne!(before, of("db0:keys=10,expires=4,avg_ttl=1\nrdb_changes_since_last_save:5"));
        assert_ne!(before, of("db0:keys=10,expires=4,avg_ttl=1\nrun_id:def"));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let needs = |more: &str, content: &Content| misfits(&Info::parse(&format!("{TARGET}{more}")), content, 1000);
        let mut content = Content::default();
        assert!(needs("", &content).is_empty());
        content.needs_version = 11;
        content.largest_value_bytes = 990;
        content.module_fields = 1;
        content.functions = 1;
        content.aux.insert("used-mem".into(), "5000".into());
        let found = needs("maxmemory:4000\nrole:slave\ncluster_enabled:1\nredis_version:6.2.1", &content);
        assert_eq!(found.len(), 7, "{found:?}");
        content.counts.add(0, ValueKind::Module, false);
        let with_modules = needs("redis_version:7.2.0\nmodule:name=x,ver=1", &content);
        assert_eq!(with_modules, ["room for a value of 990 bytes in one command; the limit is 989"]);
    }

    #[test]
    fn a_module_that_comes_with_the_server_reads_its_own_values_only() {
        let (vectors, json) = (id("vectorset", 0), id("ReJSON-RL", 3));
        let needs = |modules: &str, ids: &[u64]| {
            let mut writer = Writer::new(10);
            writer.select(0);
            for (at, id) in ids.iter().enumerate() {
                let value = [&[0x81][..], &id.to_be_bytes(), b"\x02\x05\x00"].concat();
                writer.record(7, format!("k{at}").as_bytes(), &value);
            }
            let file = writer.finish();
            let mut scan = Scan::new();
            // A length that is cut is read again: its id counts once.
            file.chunks(5).for_each(|chunk| scan.feed(chunk).unwrap());
            let content = scan.finish().unwrap().content.unwrap();
            misfits(&Info::parse(&format!("{TARGET}{modules}")), &content, 1 << 20)
        };
        let (vectorset, lua) = ("module:name=vectorset,ver=1,api=1\r\n", "module:name=lua,ver=1,api=1\r\n");
        let unread = ["the module that has the type ReJSON-RL"];
        assert_eq!(needs(vectorset, &[vectors]), [""; 0]);
        assert_eq!(needs(vectorset, &[vectors, json, json]), unread);
        assert_eq!(needs(lua, &[json]), unread);
        assert_eq!(needs(&[lua, vectorset].concat(), &[vectors, json]), unread);
        assert_eq!(needs(&["module:name=ReJSON,ver=80400\r\n", vectorset].concat(), &[vectors, json]), [""; 0]);
        assert_eq!(needs("", &[json]), ["the modules whose data the file holds"]);
    }

    fn id(name: &str, version: u64) -> u64 {
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits = name.chars().fold(0, |id, letter| id << 6 | u64::try_from(letters.find(letter).unwrap()).unwrap());
        bits << 10 | version
    }

    #[test]
    fn a_head_tells_the_version_and_the_memory() {
        let file = Writer::new(11).aux("used-mem", "777").select(0).record(0, b"k", &[1, b'v']).finish();
        let found = head(&file[..file.len() - 12]).unwrap();
        assert_eq!((found.version, found.used_memory_bytes), (11, 777));
        assert_eq!(head(b"VALKEY080....").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(head(b"not an rdb file").unwrap_err().kind(), ErrorKind::Integrity);
    }

    #[test]
    fn footers_follow_the_server() {
        for (server, version) in [((5, 0), 9), ((6, 2), 9), ((7, 0), 10), ((7, 2), 11), ((7, 4), 12), ((8, 2), 12)] {
            assert_eq!(rdb_version(server), version);
        }
    }
}
