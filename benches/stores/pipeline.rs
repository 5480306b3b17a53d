//! The pipeline: 2 GiB of COPY text through the engine into a local repository.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use stackkit::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSink, ArtifactSource, ArtifactSpec, BackupProvider, Census,
    Consistency, Dump, DumpContext, DumpReport, Inspection, PointInTime, RestoreContext, RestoreOptions, RestorePlan,
    RestoreReport, VendorInfo,
};
use stackkit::backup::{Repository, RepositoryOptions};
use stackkit::{Endpoint, Error, ErrorKind, Service, ServiceId, Stack};

use crate::rounds::{Contender, Rounds, Row, Sample};
use crate::{Result, data, run};

/// How much the provider hands over at a time: what a pipe of a vendor's tool gives is smaller, a file could give more.
const CHUNK_BYTES: usize = 1 << 20;

const CASE: &str = "copy-2gib";

/// Plays the rounds.
///
/// # Errors
/// If ours or a peer fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    let input = data::copy_text()?;
    warm(&input)?;
    let ours = Contender::new("stackkit", || {
        let out = data::scratch("pipeline-ours")?;
        run::ours("pipeline", CASE, [input.as_path(), &out])
    });
    let zstd = |name: &str, line: &'static str| {
        let input = input.clone();
        Contender::new(name, move || {
            let out = data::scratch("pipeline-zstd")?.join("out.zst");
            run::peer(CASE, line, &[("IN", &input), ("OUT", &out)])
        })
    };
    let mut peers = vec![
        zstd("zstd -T2 -1", r#"zstd -T2 -1 -q -o "$OUT" "$IN""#),
        zstd("zstd -T2 -1, synced like ours", r#"zstd -T2 -1 -q -o "$OUT" "$IN"; sync "$OUT""#),
    ];
    if run::is_installed("restic") {
        peers.push(Contender::new("restic backup --stdin", || restic(&input)));
    }
    rounds.play(ours, peers)
}

/// Reads the input once, so that every contender finds it in the page cache.
pub(crate) fn warm(input: &Path) -> Result {
    std::io::copy(&mut File::open(input)?, &mut std::io::sink())?;
    Ok(())
}

/// Restic encrypts always; it can't be told not to. A fresh repository each time, made outside the measurement.
fn restic(input: &Path) -> Result<Sample> {
    let repository = data::scratch("pipeline-restic")?;
    let env = [("IN", input), ("RESTIC_REPOSITORY", repository.as_path()), ("RESTIC_PASSWORD", Path::new("bench"))];
    run::peer(CASE, "restic -q --no-cache init", &env)?;
    run::peer(CASE, r#"restic -q --no-cache backup --stdin < "$IN""#, &env)
}

/// Backs up a file into a new repository.
pub(crate) async fn child(args: &[String]) -> Result {
    let [input, out] = args else { return Err("pipeline takes a file and a folder".into()) };
    let service = CopyFile { id: ServiceId::new("copy")?, path: PathBuf::from(input) };
    back_up(Stack::builder("bench").service(service).build()?, out).await
}

/// Backs up a stack into a new repository in the folder `out`.
pub(crate) async fn back_up(stack: Stack, out: &str) -> Result {
    let repository =
        Repository::open_or_create(&format!("file://{out}"), RepositoryOptions::new().unencrypted()).await?;
    repository.backup(&stack).run().await?;
    Ok(())
}

/// A file as a datastore: what is measured is the engine, so its dump is the file's bytes.
#[derive(Debug)]
struct CopyFile {
    id: ServiceId,
    path: PathBuf,
}

impl Service for CopyFile {
    fn id(&self) -> &ServiceId {
        &self.id
    }

    fn kind(&self) -> &'static str {
        "file"
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::local("file", self.path.display().to_string())
    }

    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[async_trait]
impl BackupProvider for CopyFile {
    async fn begin(&self, cx: &DumpContext) -> stackkit::Result<Box<dyn Dump>> {
        let file = File::open(&self.path).map_err(|error| Error::io("open", error))?;
        let point = PointInTime::new(cx.clock.now(), Consistency::Snapshot);
        Ok(Box::new(CopyDump { file, point }))
    }

    async fn inspect(&self, _: &ArtifactInfo, _: ArtifactReader) -> stackkit::Result<Inspection> {
        Err(one_way())
    }

    async fn plan_restore(&self, _: &dyn ArtifactSource, _: &RestoreOptions) -> stackkit::Result<RestorePlan> {
        Err(one_way())
    }

    async fn restore(
        &self,
        _: RestorePlan,
        _: &dyn ArtifactSource,
        _: &RestoreContext,
    ) -> stackkit::Result<RestoreReport> {
        Err(one_way())
    }

    async fn census(&self) -> stackkit::Result<Census> {
        Err(one_way())
    }
}

fn one_way() -> Error {
    Error::new(ErrorKind::Unsupported, "the file of the bench is only dumped")
}

struct CopyDump {
    file: File,
    point: PointInTime,
}

#[async_trait]
impl Dump for CopyDump {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> stackkit::Result<DumpReport> {
        let mut writer = sink.create(ArtifactSpec::new(ArtifactName::new("copy.sql")?, "text")).await?;
        let mut file = self.file;
        loop {
            let read = tokio::task::spawn_blocking(move || next(&mut file).map(|chunk| (file, chunk)));
            let read = read.await.map_err(|error| Error::unexpected("the reader ended early").with_source(error))?;
            let (rest, chunk) = read.map_err(|error| Error::io("read", error))?;
            if chunk.is_empty() {
                break;
            }
            file = rest;
            writer.write(chunk).await?;
        }
        writer.finish().await?;
        Ok(DumpReport::new(Census::new(), VendorInfo::new("file")))
    }
}

fn next(file: &mut File) -> std::io::Result<Bytes> {
    let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
    let read = file.read(&mut chunk)?;
    chunk.truncate(read);
    Ok(chunk.freeze())
}
