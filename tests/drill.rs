//! Restore drills of real stores: PostgreSQL, Redis and a volume come back in private ones, are counted, and go.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit::backup::{
    ArtifactInfo, ArtifactReader, ArtifactSource, BackupId, CensusVerdict, DumpContext, Inspection, RestoreContext,
    RestorePlan, RestoreReport, ScratchRequest, ScratchStore, ScratchStores, VerifyReport,
};
use stackkit::{
    BackupProvider, Census, Dump, Endpoint, Identity, Repository, RepositoryOptions, RestoreOptions, Result, Service,
    ServiceId, SigningKey, Stack, VerifyLevel, Volume, async_trait,
};
use stackkit_fixtures::{PostgresFixture, RedisFixture};
use tokio::sync::Notify;

use crate::tool::{Test, files};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("three_stores_come_back_as_they_were", three_stores_come_back).needs(&["postgres", "redis"]),
    Test::new("what_is_lost_on_the_way_is_found", what_is_lost_on_the_way_is_found).needs(&["postgres", "redis"]),
    Test::new("a_drill_that_is_dropped_leaves_no_store", a_dropped_drill_leaves_no_store).needs(&["postgres", "redis"]),
];

/// The kinds of the stores, in the order of the stack.
const KINDS: [&str; 3] = ["postgresql", "redis", "volume"];
/// A scratch store is gone within milliseconds; a busy machine takes longer.
const GONE_DEADLINE: Duration = Duration::from_secs(60);

/// Three filled stores and one encrypted, signed backup of them.
struct Site {
    postgres: Arc<PostgresFixture>,
    _redis: RedisFixture,
    folder: tempfile::TempDir,
    stack: Stack,
    repository: Repository,
    backup: BackupId,
}

impl Site {
    async fn new() -> Self {
        let (postgres, redis) = tokio::try_join!(stackkit_fixtures::postgres(), stackkit_fixtures::redis()).unwrap();
        postgres
            .execute("create table orders as select i as id, md5(i::text) as note from generate_series(1, 2000) i")
            .await
            .unwrap();
        let script = "for i = 1, 500 do redis.call('SET', 'key:' .. i, i); redis.call('RPUSH', 'list:' .. i, i) end";
        redis.command(&["EVAL", script, "0"]).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let uploads = folder.path().join("uploads");
        fs::create_dir(&uploads).unwrap();
        for number in 0..20 {
            fs::write(uploads.join(format!("file-{number}")), vec![b'x'; 5000 * number]).unwrap();
        }
        let stack = Stack::builder("shop")
            .service(postgres.service().unwrap())
            .service(redis.service().unwrap())
            .service(Volume::new("uploads", &uploads))
            .build()
            .unwrap();
        let repository = encrypted(&folder.path().join("repository")).await;
        let backup = *repository.backup(&stack).run().await.unwrap().id();
        Self { postgres: Arc::new(postgres), _redis: redis, folder, stack, repository, backup }
    }

    fn scratch(&self, fault: Fault) -> Arc<Watched> {
        let postgres = Arc::clone(&self.postgres);
        Arc::new(Watched { fault, postgres, opened: Mutex::default(), filled: Arc::default() })
    }

    async fn drill(&self, scratch: &Watched) -> Result<VerifyReport> {
        let drill = self.repository.verification(&self.backup).level(VerifyLevel::Drill);
        drill.with_stack(&self.stack).with_scratch(scratch).run().await
    }
}

pub(crate) async fn encrypted(folder: &Path) -> Repository {
    let identity = Identity::generate().unwrap();
    let options = RepositoryOptions::new()
        .encrypt_to(identity.recipients().remove(0))
        .sign_with(SigningKey::generate().unwrap())
        .with_identity(identity);
    Repository::open_or_create(&format!("file://{}", folder.display()), options).await.unwrap()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

fn three_stores_come_back() {
    run(async {
        let site = Site::new().await;
        let scratch = site.scratch(Fault::None);
        let report = site.drill(&scratch).await.unwrap();
        assert!(report.is_ok(), "{report}");
        let drilled: Vec<_> = report.drills.iter().map(|drill| (drill.kind.as_str(), drill.census)).collect();
        assert_eq!(drilled, KINDS.map(|kind| (kind, CensusVerdict::Equal)), "{report}");
        assert!(report.drills.iter().all(|drill| drill.restored_bytes > 0), "{report}");
        assert!(report.artifacts.iter().all(|artifact| artifact.inspection.is_some()), "an artifact was not parsed");
        scratch.assert_gone(KINDS.len()).await;
        let evidence = site.repository.evidence(&site.backup).await.unwrap();
        assert!(evidence.len() == 1 && evidence[0].ok && evidence[0].level == VerifyLevel::Drill, "{evidence:?}");
        // The drill left the stores alone that it was the drill of.
        assert_eq!(files(&site.folder.path().join("uploads")).len(), 20);
    });
}

fn what_is_lost_on_the_way_is_found() {
    run(async {
        let site = Site::new().await;
        for damaged in KINDS {
            let scratch = site.scratch(Fault::Loses(damaged));
            let report = site.drill(&scratch).await.unwrap();
            assert!(!report.is_ok() && !report.is_restorable(), "{report}");
            for drill in &report.drills {
                let expected = if drill.kind == damaged { CensusVerdict::Different } else { CensusVerdict::Equal };
                assert_eq!((drill.census, drill.is_ok()), (expected, drill.kind != damaged), "{report}");
            }
            scratch.assert_gone(KINDS.len()).await;
        }
        let evidence = site.repository.evidence(&site.backup).await.unwrap();
        assert_eq!(evidence.len(), KINDS.len());
        for evidence in evidence {
            assert!(!evidence.ok && evidence.findings.iter().any(|text| text.contains("expected")), "{evidence:?}");
        }
    });
}

fn a_dropped_drill_leaves_no_store() {
    run(async {
        let site = Site::new().await;
        for (place, kind) in (1..).zip(KINDS) {
            let scratch = site.scratch(Fault::Hangs(kind));
            tokio::select! {
                ended = site.drill(&scratch) => panic!("a drill that hangs ended: {ended:?}"),
                () = scratch.filled.notified() => {}
            }
            scratch.assert_gone(place).await;
        }
        assert!(site.repository.evidence(&site.backup).await.unwrap().is_empty());
    });
}

/// What goes wrong in the scratch store of a kind, once it is restored.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// An item of it is not there.
    Loses(&'static str),
    /// The restore does not return.
    Hangs(&'static str),
}

/// The fixtures as scratch stores; remembers them, and puts faults into them.
#[derive(Debug)]
struct Watched {
    fault: Fault,
    /// A database of the server that the scratch databases are on.
    postgres: Arc<PostgresFixture>,
    opened: Mutex<Vec<Endpoint>>,
    filled: Arc<Notify>,
}

impl Watched {
    /// Waits until none of the stores that were made is there.
    async fn assert_gone(&self, made: usize) {
        let opened = self.opened.lock().unwrap().clone();
        assert_eq!(opened.len(), made);
        let gone = async {
            for endpoint in &opened {
                while self.is_there(endpoint).await {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::time::timeout(GONE_DEADLINE, gone).await.expect("a scratch store is still there");
    }

    async fn is_there(&self, endpoint: &Endpoint) -> bool {
        let path = endpoint.path.clone().unwrap();
        match (endpoint.scheme.as_str(), &endpoint.database) {
            ("postgres", Some(database)) => {
                let query = format!("select 1 from pg_database where starts_with(datname, '{database}')");
                !self.postgres.query(&query).await.unwrap().is_empty()
            }
            // A server that was killed leaves its socket's directory until that is removed.
            _ => PathBuf::from(path).parent().unwrap().exists(),
        }
    }
}

#[async_trait]
impl ScratchStores for Watched {
    async fn open(&self, request: &ScratchRequest) -> Result<Box<dyn ScratchStore>> {
        let store = stackkit_fixtures::scratch().open(request).await?;
        let service = store.service();
        self.opened.lock().unwrap().push(service.endpoint());
        let (postgres, filled) = (Arc::clone(&self.postgres), Arc::clone(&self.filled));
        let service = Arc::new(Faulty { service, fault: self.fault, postgres, filled });
        Ok(Box::new(Opened { store, service }))
    }
}

struct Opened {
    store: Box<dyn ScratchStore>,
    service: Arc<Faulty>,
}

#[async_trait]
impl ScratchStore for Opened {
    fn service(&self) -> Arc<dyn Service> {
        self.service.clone()
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.store.close().await
    }
}

/// A scratch store's service with a fault.
#[derive(Debug)]
struct Faulty {
    service: Arc<dyn Service>,
    fault: Fault,
    postgres: Arc<PostgresFixture>,
    filled: Arc<Notify>,
}

impl Faulty {
    fn provider(&self) -> &dyn BackupProvider {
        self.service.backup_provider().unwrap()
    }

    /// Takes one item out of the store.
    async fn lose(&self) {
        let endpoint = self.service.endpoint();
        let path = endpoint.path.unwrap();
        match self.service.kind() {
            "postgresql" => {
                let server = self.postgres.server();
                server.execute_in(&endpoint.database.unwrap(), "delete from orders where id = 7").await.unwrap();
            }
            "redis" => {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.write_all(b"DEL key:7\r\n").unwrap();
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b":1\r\n");
            }
            _ => fs::remove_file(Path::new(&path).join("file-7")).unwrap(),
        }
    }
}

impl Service for Faulty {
    fn id(&self) -> &ServiceId {
        self.service.id()
    }

    fn kind(&self) -> &'static str {
        self.service.kind()
    }

    fn endpoint(&self) -> Endpoint {
        self.service.endpoint()
    }

    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[async_trait]
impl BackupProvider for Faulty {
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        self.provider().begin(cx).await
    }

    async fn inspect(&self, artifact: &ArtifactInfo, data: ArtifactReader) -> Result<Inspection> {
        self.provider().inspect(artifact, data).await
    }

    async fn plan_restore(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        self.provider().plan_restore(source, options).await
    }

    async fn restore(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        let mut report = self.provider().restore(plan, source, cx).await?;
        match self.fault {
            Fault::Loses(kind) if kind == self.kind() => {
                self.lose().await;
                report.census = self.census().await?;
            }
            Fault::Hangs(kind) if kind == self.kind() => {
                self.filled.notify_one();
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        Ok(report)
    }

    async fn census(&self) -> Result<Census> {
        self.provider().census().await
    }
}
