//! A stream of any length in constant memory: zeros, encrypted, from a generator into a store that only counts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use stackkit_backup::{Identity, Repository, RepositoryOptions};
use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSink, ArtifactSource, ArtifactSpec, Consistency, Dump,
    DumpContext, DumpReport, Inspection, PointInTime, RestoreContext, RestoreOptions, RestorePlan, RestoreReport,
    VendorInfo,
};
use stackkit_core::process::Tool;
use stackkit_core::{BackupProvider, Census, Endpoint, Error, Result, Service, ServiceId, Stack};

use crate::support::FRAME;
use crate::support::counting::Counting;

/// The variable that makes this program the one that is measured: how many GiB of zeros it backs up. In the test's own
/// environment it asks for another size than the usual one.
const SIZE: &str = "STACKKIT_TEST_ZEROS_GIB";

/// The variable that tells the program apart from the test.
const CHILD: &str = "STACKKIT_TEST_ZEROS_CHILD";

/// The usual size: half a minute of a core, in a debug build too, where everything that touches each byte is optimised.
const GIB: u64 = 100;

/// The most memory that the whole process may take, tests and runtime included.
const RSS_MIB_MAX: u64 = 48;

/// The longest that the test waits, on a machine that has much else to do.
const DEADLINE: Duration = Duration::from_secs(900);

fn gib() -> u64 {
    std::env::var(SIZE).ok().map_or(GIB, |gib| gib.parse().unwrap())
}

pub(crate) async fn a_stream_of_any_length_takes_constant_memory() {
    let child = Tool::new(std::env::current_exe().unwrap()).env(CHILD, "1").env(SIZE, gib().to_string());
    let said = String::from_utf8(child.output(DEADLINE).await.unwrap()).unwrap();
    let rss_mib: u64 = said.trim().parse().unwrap();
    assert!(rss_mib <= RSS_MIB_MAX, "{} GiB took {rss_mib} MiB of memory", gib());
}

/// The program that is measured: it says its peak memory in MiB. `None` if this is not it.
#[expect(clippy::print_stdout, reason = "the test reads it")]
pub(crate) fn child() -> Option<()> {
    std::env::var_os(CHILD)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(back_up(gib() << 30)).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("{}", peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10);
    Some(())
}

async fn back_up(bytes: u64) -> Result<()> {
    let store = Arc::new(Counting::default());
    let options = RepositoryOptions::new().encrypt_to(Identity::generate()?.recipients()[0]);
    let repository = Repository::with_store(Arc::clone(&store) as _, options).await?;
    let stack = Stack::builder("shop").service(Zeros { id: ServiceId::new("zeros")?, bytes }).build()?;
    let backup = repository.backup(&stack).run().await?;
    let (_, artifact) = backup.manifest().artifacts().next().unwrap();
    assert_eq!((artifact.plain.bytes, artifact.stored.bytes), (bytes, store.bytes()));
    Ok(())
}

/// A datastore that holds zeros.
#[derive(Debug)]
struct Zeros {
    id: ServiceId,
    bytes: u64,
}

impl Service for Zeros {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        "zeros"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::local("memory", "/zeros")
    }
    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[async_trait]
impl BackupProvider for Zeros {
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        let point = PointInTime::new(cx.clock.now(), Consistency::Snapshot);
        Ok(Box::new(ZerosDump { bytes: self.bytes, point }))
    }
    async fn inspect(&self, _: &ArtifactInfo, _: ArtifactReader) -> Result<Inspection> {
        Err(Error::unexpected("zeros are only dumped"))
    }
    async fn plan_restore(&self, _: &dyn ArtifactSource, _: &RestoreOptions) -> Result<RestorePlan> {
        Err(Error::unexpected("zeros are only dumped"))
    }
    async fn restore(&self, _: RestorePlan, _: &dyn ArtifactSource, _: &RestoreContext) -> Result<RestoreReport> {
        Err(Error::unexpected("zeros are only dumped"))
    }
    async fn census(&self) -> Result<Census> {
        Ok(Census::new())
    }
}

struct ZerosDump {
    bytes: u64,
    point: PointInTime,
}

#[async_trait]
impl Dump for ZerosDump {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let mut writer = sink.create(ArtifactSpec::new(ArtifactName::new("zeros")?, "bytes")).await?;
        let zeros = Bytes::from(vec![0; FRAME]);
        for _ in 0..self.bytes / FRAME as u64 {
            writer.write(zeros.clone()).await?;
        }
        writer.finish().await?;
        Ok(DumpReport::new(Census::new(), VendorInfo::new("Zeros")))
    }
}
