//! A dump of Redis into a file, against `redis-cli --rdb`.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use stackkit::backup::{ArtifactReceipt, ArtifactSink, ArtifactSpec, ArtifactWriter, BackupProvider as _, DumpContext};
use stackkit::{Error, Redis};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::rounds::{Contender, Rounds, Row, say};
use crate::{Result, data, inputs, run};

/// Most bytes that wait for the thread that writes the file; the default of 2 MiB would count as our memory.
const FILE_BUFFER_BYTES: usize = 1 << 18;

/// Plays the rounds: first with three keys, then with many of every type.
///
/// # Errors
/// If the server is missing, ours or the peer fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let server = runtime.block_on(stackkit_fixtures::redis())?;
    let socket = server.socket();
    let env: [(&str, &Path); 1] = [("SOCKET", &socket)];
    run::read(&sync_delay(5), &env)?;
    run::read(r#"redis-cli -s "$SOCKET" mset one 1 two 2 three 3"#, &env)?;
    let mut rows = dump(rounds, "dump-3-keys", &server.url(), &socket)?;

    let commands = inputs::redis_commands()?;
    say("filling Redis");
    run::peer("", r#"redis-cli -s "$SOCKET" --pipe < "$IN""#, &[("SOCKET", &socket), ("IN", &commands)])?;
    let keys: u64 = run::read(r#"redis-cli -s "$SOCKET" dbsize"#, &env)?.trim().parse()?;
    if keys < inputs::REDIS_KEYS {
        return Err(format!("Redis took {keys} keys of {}", inputs::REDIS_KEYS).into());
    }
    rows.extend(dump(rounds, "dump-320000-keys", &server.url(), &socket)?);
    run::read(&sync_delay(0), &env)?;
    rows.extend(dump(rounds, "dump-320000-now", &server.url(), &socket)?);
    Ok(rows)
}

/// A server waits before it serves a replica without a disk, so that others may join: 5 s in the vendor's default, which the first
/// two cases measure, and none in the last, which shows the transfer alone.
fn sync_delay(seconds: u32) -> String {
    format!(r#"redis-cli -s "$SOCKET" config set repl-diskless-sync yes repl-diskless-sync-delay {seconds}"#)
}

/// Both write the RDB to a file and sync it.
fn dump(rounds: &Rounds, case: &'static str, url: &str, socket: &Path) -> Result<Vec<Row>> {
    let ours = Contender::new("stackkit", || {
        let out = data::scratch("redis-ours")?.join("dump.rdb");
        run::ours("redis", case, [url.as_ref(), out.as_os_str()])
    });
    let peer = Contender::new("redis-cli --rdb", || {
        let out = data::scratch("redis-peer")?.join("dump.rdb");
        run::peer(case, r#"redis-cli -s "$SOCKET" --rdb "$OUT" 2>&1"#, &[("SOCKET", socket), ("OUT", &out)])
    });
    rounds.play(ours, vec![peer])
}

/// Dumps a Redis into a file.
pub(crate) async fn child(args: &[String]) -> Result {
    let [url, out] = args else { return Err("redis takes a URL and a file".into()) };
    let redis = Redis::from_url(url)?;
    let dump = redis.begin(&DumpContext::new()).await?;
    dump.run(&FileSink { path: PathBuf::from(out) }).await?;
    Ok(())
}

/// The one artifact of a dump as a plain file.
#[derive(Debug)]
struct FileSink {
    path: PathBuf,
}

#[async_trait]
impl ArtifactSink for FileSink {
    async fn create(&self, spec: ArtifactSpec) -> stackkit::Result<Box<dyn ArtifactWriter>> {
        let mut file = File::create_new(&self.path).await.map_err(|error| Error::io("create", error))?;
        file.set_max_buf_size(FILE_BUFFER_BYTES);
        Ok(Box::new(FileWriter { file, spec, plain_bytes: 0 }))
    }
}

struct FileWriter {
    file: File,
    spec: ArtifactSpec,
    plain_bytes: u64,
}

#[async_trait]
impl ArtifactWriter for FileWriter {
    async fn write(&mut self, chunk: Bytes) -> stackkit::Result<()> {
        self.plain_bytes += u64::try_from(chunk.len()).unwrap_or_default();
        self.file.write_all(&chunk).await.map_err(|error| Error::io("write", error))
    }

    /// The receipt carries no hash: `redis-cli` takes none either.
    async fn finish(mut self: Box<Self>) -> stackkit::Result<ArtifactReceipt> {
        self.file.flush().await.map_err(|error| Error::io("write", error))?;
        self.file.sync_all().await.map_err(|error| Error::io("sync", error))?;
        Ok(ArtifactReceipt::new(self.spec.name, self.plain_bytes, ""))
    }
}
