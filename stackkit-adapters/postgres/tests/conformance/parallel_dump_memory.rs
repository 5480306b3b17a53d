//! How much memory a dump takes, seen from outside of the process that dumps.

use std::process::{Command, Stdio};

use bytes::Bytes;
use libtest_mimic::Completion;
use stackkit_core::backup::{ArtifactReceipt, ArtifactSink, ArtifactSpec, ArtifactWriter, DumpContext};
use stackkit_core::{BackupProvider, Result, async_trait};
use stackkit_postgres::{Engine, Postgres, PostgresDump};

use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![memory_does_not_grow_with_the_data];

/// Names the database in the environment of a process that dumps it and tells how much memory that took.
pub(crate) const CHILD: &str = "STACKKIT_TEST_DUMP_MEMORY";

/// Switches cases on that move gigabytes through the server.
pub(crate) const HUGE: &str = "STACKKIT_TEST_HUGE";

/// Why they are not run.
pub(crate) const HUGE_UNSET: &str = "it moves gigabytes through the server; STACKKIT_TEST_HUGE=1 runs it";

/// Connections that read.
const JOBS: usize = 2;

/// 32 MiB, and 8 for each connection.
const PEAK_KIB_MAX: u64 = (32 + 8 * JOBS as u64) * 1024;

/// Counts bytes and keeps none.
#[derive(Debug)]
struct Nothing;

#[derive(Debug)]
struct Counted(ArtifactSpec, u64);

#[async_trait]
impl ArtifactSink for Nothing {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(Counted(spec, 0)))
    }
}

#[async_trait]
impl ArtifactWriter for Counted {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.1 += chunk.len() as u64;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        Ok(ArtifactReceipt::new(self.0.name, self.1, ""))
    }
}

/// What the child does: a dump into nothing, and the most memory that the process had, in KiB.
pub(crate) fn child(url: &str) -> u64 {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let service = Postgres::from_url(url).expect("a URL");
        let options = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(JOBS).with_row_hashes(true);
        let service = Postgres::new(service.config().clone().with_dump(options));
        let pinned = service.begin(&DumpContext::new()).await.expect("a snapshot");
        let report = pinned.run(&Nothing).await.expect("a dump");
        assert_eq!(report.census.count("tables.public.wide.rows"), 3);
    });
    let status = std::fs::read_to_string("/proc/self/status").expect("the process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A text of 300 MB, and a `bytea` of 200 MB, which is 400 MB as text.
pub(crate) async fn memory_does_not_grow_with_huge_values() -> Completion {
    if std::env::var_os(HUGE).is_none() {
        return Completion::ignored_with(HUGE_UNSET);
    }
    let make = "create table wide (t text, b bytea); alter table wide alter t set storage external; \
        insert into wide select repeat('0123456789abcdef', 18750000); insert into wide values ('', ''), ('', ''); \
        insert into wide select '', convert_to(repeat('0123456789abcdef', 12500000), 'UTF8'); \
        delete from wide where ctid = '(0,2)'";
    measure(make, 700).await;
    Completion::Completed
}

/// Rows of 60 MB each, many rows, and thousands of large objects.
async fn memory_does_not_grow_with_the_data() {
    let make = "create table wide (t text); alter table wide alter t set storage external; \
        insert into wide select repeat('0123456789abcdef', 3750000) from generate_series(1, 3); \
        create table long as select g, md5(g::text) as t from generate_series(1, 1000000) g; \
        select count(lo_from_bytea(0, decode(repeat('ab', 3000), 'hex'))) from generate_series(1, 5000)";
    measure(make, 260).await;
}

async fn measure(make: &str, megabytes: u32) {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    postgres.execute(make).await.expect("data");
    let url = postgres.url();
    let dump = move || {
        #[expect(clippy::disallowed_methods, reason = "the peak is that of a process of its own")]
        let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
        command.env(CHILD, url).stderr(Stdio::inherit()).output()
    };
    let output = tokio::task::spawn_blocking(dump).await.expect("no panic").expect("a process");
    assert!(output.status.success(), "the dump fails");
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    let peak: u64 = told.trim().parse().expect("a number");
    eprintln!("a dump of {megabytes} MB had {} MiB at most", peak / 1024);
    assert!(peak <= PEAK_KIB_MAX, "{peak} KiB");
}
