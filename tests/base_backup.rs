//! A whole cluster in an encrypted repository: what comes back is what the vendor verifies, and a server starts from it.

use std::path::Path;
use std::time::Duration;

use stackkit::backup::BackupId;
use stackkit::postgres::BaseBackup;
use stackkit::process::Tool;
use stackkit::{ErrorKind, Postgres, Repository, RestoreOptions, Service, Stack, VerifyLevel};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server, postgres_server_on};

use crate::drill::encrypted;
use crate::tool::{Test, files};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[Test::new(
    "a_cluster_comes_back_from_an_encrypted_repository",
    a_cluster_comes_back_from_an_encrypted_repository,
)
.needs(&["postgres"])];

/// Long enough for a vendor's tool on a busy machine.
const LONG: Duration = Duration::from_secs(60);

const FILL: &str = "create table orders as select i, repeat(md5(i::text), i % 40) h from generate_series(1, 20000) i;
    create index on orders (h text_pattern_ops); create role clerk; grant select on orders to clerk;
    select lo_from_bytea(4711, 'a large object')";

const SUM: &str = "select md5(string_agg(o::text, '|' order by i)), (select md5(lo_get(4711))),
    has_table_privilege('clerk', 'orders', 'select') from orders o";

async fn server() -> PostgresServer {
    let options = PostgresOptions::new().with_setting("wal_level", "replica").with_setting("max_wal_senders", "4");
    let server = postgres_server(options).await.unwrap();
    server.create_database("shop").await.unwrap();
    server.execute_in("shop", FILL).await.unwrap();
    server
}

/// The database and its whole cluster, as two services of one stack.
fn stack(server: &PostgresServer, restore_to: &Path) -> (Stack, BaseBackup) {
    let config = Postgres::from_url(&server.url_of("shop")).unwrap().config().clone();
    let orders = Postgres::new(config.with_tool_dir(server.bin_dir())).with_id("orders");
    let cluster = orders.base_backup().with_restore_to(restore_to);
    (Stack::builder("shop").service(orders).service(cluster.clone()).build().unwrap(), cluster)
}

fn a_cluster_comes_back_from_an_encrypted_repository() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let server = server().await;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (stack, cluster) = stack(&server, &data);
        let repository = encrypted(&folder.path().join("repository")).await;
        let backup = repository.backup(&stack).run().await.unwrap();
        let before = server.query_in("shop", SUM).await.unwrap();
        is_encrypted(&folder.path().join("repository"));
        let verified = repository.verify(backup.id(), VerifyLevel::Content).await.unwrap();
        assert!(verified.is_ok(), "{verified}");

        server.execute_in("shop", "truncate orders").await.unwrap();
        let only = RestoreOptions::new().only([cluster.id().as_str()]);
        let plan = repository.plan_restore(backup.id(), &stack, &only).await.unwrap();
        assert_eq!(plan.services.len(), 1, "{plan}");
        let report = repository.apply_restore(plan, &stack).await.unwrap();
        assert!(report.services[0].census.count("files") > 900, "{report}");

        let verify = Tool::new(server.bin_dir().join("pg_verifybackup")).arg(&data);
        verify.output(LONG).await.unwrap_or_else(|error| panic!("{}", error.chain()));
        let restored = postgres_server_on(&data, PostgresOptions::new()).await.unwrap();
        assert_eq!(restored.query_in("shop", SUM).await.unwrap(), before);
        nothing_is_overwritten(&repository, &stack, &only, backup.id()).await;
    });
}

/// The base backup is one artifact, and that is an age file.
fn is_encrypted(repository: &Path) {
    let stored = files(repository);
    let mut artifacts = stored.iter().filter(|path| path.to_str().unwrap().contains("-physical/"));
    let base = artifacts.next().expect("an artifact");
    assert!(base.ends_with("orders-physical/base.tar.zst.age") && artifacts.next().is_none(), "{stored:?}");
    assert!(std::fs::read(base).unwrap().starts_with(b"age-encryption.org/v1\n"));
}

/// The directory that was restored is data now.
async fn nothing_is_overwritten(repository: &Repository, stack: &Stack, only: &RestoreOptions, backup: &BackupId) {
    let plan = repository.plan_restore(backup, stack, only).await.unwrap();
    assert!(plan.to_string().contains("an absent or empty directory"), "{plan}");
    let error = repository.apply_restore(plan, stack).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
}
