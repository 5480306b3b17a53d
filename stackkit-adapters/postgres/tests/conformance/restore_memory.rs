//! How much memory a restore takes, seen from outside of the process that restores; values of many megabytes on their way.

use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bytes::Bytes;
use libtest_mimic::Completion;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactReceipt, ArtifactSink, ArtifactSource, ArtifactSpec,
    ArtifactWriter, DumpContext, RestoreContext, RestoreOptions,
};
use stackkit_core::{BackupProvider, Error, Result, async_trait};
use stackkit_fixtures::PostgresFixture;
use stackkit_postgres::{Engine, Postgres, PostgresDump, PostgresRestore};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::parallel_dump_memory::{HUGE, HUGE_UNSET};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![values_of_many_megabytes_come_back];

/// Names the folder and the database, with a blank between, in the environment of a process that restores and tells how
/// much memory that took.
pub(crate) const CHILD: &str = "STACKKIT_TEST_RESTORE_MEMORY";

/// Connections that load.
const JOBS: usize = 2;

/// 32 MiB, and 8 for each connection, as of a dump.
const PEAK_KIB_MAX: u64 = (32 + 8 * JOBS as u64) * 1024;

/// What a folder says of its artifacts.
const LIST: &str = "artifacts.json";

/// Artifacts as files in a folder: nothing of them is held.
#[derive(Debug, Clone)]
struct Folder {
    path: PathBuf,
    artifacts: Vec<ArtifactInfo>,
}

struct FileWriter {
    spec: ArtifactSpec,
    file: tokio::fs::File,
    bytes: u64,
}

impl Folder {
    /// The folder once all artifacts are in it.
    fn read(path: PathBuf) -> Self {
        let list = std::fs::read(path.join(LIST)).expect("a list");
        Self { artifacts: serde_json::from_slice(&list).expect("JSON"), path }
    }

    /// Says what is in it.
    fn seal(&self, specs: &[(ArtifactSpec, u64)]) {
        let info = |(spec, bytes): &(ArtifactSpec, u64)| ArtifactInfo::new(spec.clone(), *bytes, "");
        let infos: Vec<ArtifactInfo> = specs.iter().map(info).collect();
        std::fs::write(self.path.join(LIST), serde_json::to_vec(&infos).expect("JSON")).expect("a file");
    }
}

/// The folder as a sink, which notes what was finished.
struct Filling<'a> {
    folder: &'a Folder,
    specs: std::sync::Mutex<Vec<ArtifactSpec>>,
}

#[async_trait]
impl ArtifactSink for Filling<'_> {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        let file = tokio::fs::File::create(self.folder.path.join(spec.name.as_str())).await;
        self.specs.lock().expect("no panic").push(spec.clone());
        Ok(Box::new(FileWriter { spec, file: file.map_err(|error| Error::io("create", error))?, bytes: 0 }))
    }
}

#[async_trait]
impl ArtifactWriter for FileWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bytes += chunk.len() as u64;
        self.file.write_all(&chunk).await.map_err(|error| Error::io("write", error))
    }

    async fn finish(mut self: Box<Self>) -> Result<ArtifactReceipt> {
        self.file.flush().await.map_err(|error| Error::io("flush", error))?;
        Ok(ArtifactReceipt::new(self.spec.name, self.bytes, ""))
    }
}

#[async_trait]
impl ArtifactSource for Folder {
    fn artifacts(&self) -> &[ArtifactInfo] {
        &self.artifacts
    }

    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader> {
        let file = tokio::fs::File::open(self.path.join(name.as_str())).await;
        Ok(Box::new(file.map_err(|error| Error::io("open", error))?))
    }

    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        let failed = |error| Error::io("open", error);
        let mut file = tokio::fs::File::open(self.path.join(name.as_str())).await.map_err(failed)?;
        file.seek(std::io::SeekFrom::Start(plain_bytes.start)).await.map_err(failed)?;
        Ok(Box::new(file.take(plain_bytes.end - plain_bytes.start)))
    }
}

/// What the child does: a restore from a folder, and the most memory that the process had, in KiB.
pub(crate) fn child(told: &str) -> u64 {
    let (folder, url) = told.split_once(' ').expect("a folder and a URL");
    let folder = Folder::read(folder.into());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = Postgres::from_url(url).expect("a URL").config().clone();
        let service = Postgres::new(config.with_restore(PostgresRestore::new().with_jobs(JOBS)));
        let plan = service.plan_restore(&folder, &RestoreOptions::new()).await.expect("a plan");
        service.restore(plan, &folder, &RestoreContext::new()).await.expect("a restore");
    });
    let status = std::fs::read_to_string("/proc/self/status").expect("the process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A text of 40 MB beside a `bytea` of 20 MB, which is 40 MB as text, and small rows.
async fn values_of_many_megabytes_come_back() {
    come_back(40, 20).await;
}

/// A text of 300 MB, and a `bytea` of 200 MB, which is 400 MB as text.
pub(crate) async fn huge_values_come_back() -> Completion {
    if std::env::var_os(HUGE).is_none() {
        return Completion::ignored_with(HUGE_UNSET);
    }
    come_back(300, 200).await;
    Completion::Completed
}

/// The sums of all values, which the server makes.
const SUMS: &str = "select count(*), string_agg(md5(t) || md5(b), ',' order by id) from wide";

/// Dumps values of so many megabytes into a folder, restores them by another process, and compares them on the server.
async fn come_back(text: u32, bytes: u32) {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    // A digit at each end of a value that is nothing but repeated tells a piece that is lost or comes twice.
    let make = format!(
        "create table wide (id int, t text, b bytea); alter table wide alter t set storage external, \
         alter b set storage external; insert into wide values (0, '', ''), (1, null, null); \
         insert into wide select 2, '1' || repeat(E'0123\\\\5\\t789abcdefghi', {text} * 50000) || '2', ''; \
         insert into wide select 3, '', '\\x01'::bytea || decode(repeat('00ff5c0a', {bytes} * 250000), 'hex') || '\\x02'; \
         insert into wide select g, md5(g::text), decode(md5(g::text), 'hex') from generate_series(4, 1000) g"
    );
    postgres.execute(&make).await.expect("values");
    let before = postgres.query(SUMS).await.expect("sums");
    let place = tempfile::tempdir().expect("a directory");
    let bytes = dumped(&postgres, Folder { path: place.path().to_owned(), artifacts: Vec::new() }).await;
    postgres.execute("truncate wide").await.expect("a change");
    let peak = restored(&postgres, place.path().display().to_string()).await;
    assert_eq!(postgres.query(SUMS).await.expect("sums"), before, "the server finds the same values");
    eprintln!("a restore of {} MB had {} MiB at most", bytes / 1_000_000, peak / 1024);
    assert!(peak <= PEAK_KIB_MAX, "{peak} KiB");
}

/// Dumps into the folder; how many bytes it came to.
async fn dumped(postgres: &PostgresFixture, folder: Folder) -> u64 {
    let config = Postgres::from_url(&postgres.url()).expect("a URL").config().clone();
    let options = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(JOBS).with_row_hashes(true);
    let service = Postgres::new(config.with_dump(options));
    let filling = Filling { folder: &folder, specs: std::sync::Mutex::default() };
    service.begin(&DumpContext::new()).await.expect("a snapshot").run(&filling).await.expect("a dump");
    let length = |spec: &ArtifactSpec| std::fs::metadata(folder.path.join(spec.name.as_str())).expect("a file").len();
    let specs = filling.specs.into_inner().expect("no panic");
    let specs: Vec<(ArtifactSpec, u64)> = specs.into_iter().map(|spec| (spec.clone(), length(&spec))).collect();
    folder.seal(&specs);
    specs.iter().map(|(_spec, bytes)| bytes).sum()
}

/// Restores by a process of its own; the most memory that it had, in KiB.
async fn restored(postgres: &PostgresFixture, folder: String) -> u64 {
    let told = format!("{folder} {}", postgres.url());
    let restore = move || {
        #[expect(clippy::disallowed_methods, reason = "the peak is that of a process of its own")]
        let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
        command.env(CHILD, told).stderr(Stdio::inherit()).output()
    };
    let output = tokio::task::spawn_blocking(restore).await.expect("no panic").expect("a process");
    assert!(output.status.success(), "the restore fails");
    String::from_utf8(output.stdout).expect("UTF-8").trim().parse().expect("a number")
}
