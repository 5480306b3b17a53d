//! Base backups: streamed, checked as the vendor checks them, and started from.

use std::path::Path;
use std::time::Duration;

use stackkit_core::backup::{
    ArtifactSource, DumpContext, DumpReport, RestoreContext, RestoreOptions, RestorePlan, TargetState,
};
use stackkit_core::process::{Tool, User, find_user, is_root};
use stackkit_core::{BackupProvider, Census, ErrorKind, Result};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server, postgres_server_on, wait_until};
use stackkit_postgres::{BaseBackup, Postgres};
use tempfile::TempDir;

use crate::memory::Memory;
use crate::standby::standby;
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_server_starts_from_a_restored_base_backup,
    a_base_backup_is_counted_and_inspected,
    the_vendor_verifies_what_was_streamed,
    a_base_backup_of_a_server_that_writes_has_all_its_wal,
    inspect_finds_damage_in_a_base_backup,
    a_data_directory_is_never_overwritten,
    an_empty_data_directory_is_filled,
    a_base_backup_that_is_not_the_expected_one_is_not_put_in_place,
    what_a_base_backup_lacks_is_told_before_it_runs,
    a_dropped_base_backup_leaves_nothing_on_the_server,
    a_cut_restore_of_a_base_backup_is_named_and_cleared,
    a_base_backup_of_a_standby_is_told_and_starts_alone,
];

/// Long enough for a server to start, or the tool to run, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

const OBJECTS: &str = "create table orders (id int primary key, t text, b bytea); \
    insert into orders select g, repeat('ä', g % 300), decode(md5(g::text), 'hex') from generate_series(1, 5000) g; \
    create index on orders (t); create table \"Zeichen ü\" as select 1 x; select lo_from_bytea(0, '\\xdeadbeef')";

async fn server() -> PostgresServer {
    let options = PostgresOptions::new().with_setting("wal_level", "replica").with_setting("max_wal_senders", "4");
    let server = postgres_server(options).await.expect("a server");
    server.create_database("shop").await.expect("a database");
    server.execute_in("shop", OBJECTS).await.expect("objects");
    server
}

/// The handle on the database, with tools of the server's own version.
fn handle(server: &PostgresServer, database: &str) -> Postgres {
    let config = Postgres::from_url(&server.url_of(database)).expect("a URL").config().clone();
    Postgres::new(config.with_content_digests(true).with_tool_dir(server.bin_dir()))
}

async fn dump(backup: &BaseBackup) -> Result<(Memory, DumpReport)> {
    let sink = Memory::default();
    let report = backup.begin(&DumpContext::new()).await?.run(&sink).await?;
    Ok((sink.sealed(), report))
}

fn owner() -> Option<User> {
    is_root().then(|| find_user(&["postgres", "nobody"]).expect("a user"))
}

/// A directory that the server's user may pass through.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    give(directory.path());
    directory
}

fn give(path: &Path) {
    let Some(user) = owner() else { return };
    std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).expect("an owner");
    let Ok(entries) = std::fs::read_dir(path) else { return };
    entries.for_each(|entry| give(&entry.expect("an entry").path()));
}

/// A program of the server's own version, run as the user that may run servers.
fn tool(server: &PostgresServer, name: &str) -> Tool {
    owner().into_iter().fold(Tool::new(server.bin_dir().join(name)), Tool::user)
}

/// What a server on the restored directory holds.
async fn restored_census(data: &Path) -> Census {
    let copy = postgres_server_on(data, PostgresOptions::new()).await.expect("a server on the restored directory");
    handle(&copy, "shop").census().await.expect("a census")
}

fn expecting(report: &DumpReport) -> RestoreContext {
    RestoreContext::new().with_expected(report.census.clone())
}

async fn plan(backup: &BaseBackup, memory: &Memory) -> RestorePlan {
    backup.plan_restore(memory, &RestoreOptions::new()).await.expect("a plan")
}

async fn a_server_starts_from_a_restored_base_backup() {
    let server = server().await;
    let place = directory();
    let data = place.path().join("data");
    let backup = handle(&server, "shop").base_backup().with_restore_to(&data);
    let (memory, report) = dump(&backup).await.expect("a base backup");
    let plan = plan(&backup, &memory).await;
    assert_eq!((plan.missing.as_slice(), plan.is_destructive()), (&[][..], false), "{plan}");
    let restored = backup.restore(plan, &memory, &expecting(&report)).await.expect("a restore");
    assert_eq!(restored.census, report.census);
    assert!(restored.warnings.iter().any(|note| note.contains("restore_command")), "{:?}", restored.warnings);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&data).expect("a directory").permissions());
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(restored_census(&data).await, handle(&server, "shop").census().await.expect("a census"));
}

async fn a_base_backup_is_counted_and_inspected() {
    let server = server().await;
    let backup = handle(&server, "shop").base_backup();
    let pinned = backup.begin(&DumpContext::new()).await.expect("a start");
    let position = pinned.point().position.clone().expect("a position");
    assert!(position.contains('/') && position.ends_with("on timeline 1"), "{position}");
    let memory = Memory::default();
    let report = pinned.run(&memory).await.expect("a base backup");
    let memory = memory.sealed();
    let count = |name: &str| report.census.count(name);
    assert_eq!(count("databases"), backup.census().await.expect("a census").count("databases"));
    assert!(count("files") > 900 && count("wal_segments") > 0, "{:?}", report.census);
    assert_eq!(report.vendor.tool.as_deref(), Some("pg_basebackup"));
    assert_eq!(report.warnings, Vec::<String>::new());
    let info = &memory.artifacts()[0];
    let read = Box::new(std::io::Cursor::new(memory.bytes()));
    let inspection = backup.inspect(info, read).await.expect("an inspection");
    assert_eq!(inspection.census, report.census);
}

async fn the_vendor_verifies_what_was_streamed() {
    let server = server().await;
    let (memory, _report) = dump(&handle(&server, "shop").base_backup()).await.expect("a base backup");
    let place = directory();
    let tar = place.path().join("base.tar");
    std::fs::write(&tar, memory.bytes()).expect("a file");
    let data = place.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    Tool::new("/bin/tar").arg("-xf").arg(&tar).arg("-C").arg(&data).output(LONG).await.expect("tar reads it");
    give(&data);
    tool(&server, "pg_verifybackup").arg(&data).output(LONG).await.expect("the vendor's check passes");
    std::fs::write(data.join("base/1/1259"), b"changed").expect("a file");
    tool(&server, "pg_verifybackup").arg(&data).output(LONG).await.expect_err("the vendor's check can fail");
}

/// Segments that are full and recycled while the tool is held up stay until it has fetched them.
async fn a_base_backup_of_a_server_that_writes_has_all_its_wal() {
    let server = server().await;
    let place = directory();
    let data = place.path().join("data");
    let backup = handle(&server, "shop").base_backup().with_restore_to(&data);
    let pinned = backup.begin(&DumpContext::new()).await.expect("a start");
    for round in 0..5 {
        let write = format!("insert into \"Zeichen ü\" values ({round}); select pg_switch_wal()");
        server.execute_in("shop", &write).await.expect("a write");
        server.execute_in("shop", "checkpoint").await.expect("a checkpoint");
    }
    let memory = Memory::default();
    let report = pinned.run(&memory).await.expect("a base backup");
    assert!(report.census.count("wal_segments") >= 5, "{:?}", report.census);
    let memory = memory.sealed();
    let plan = plan(&backup, &memory).await;
    backup.restore(plan, &memory, &expecting(&report)).await.expect("a restore");
    let found = restored_census(&data).await;
    assert_eq!(found.count("tables.public.Zeichen ü.rows"), 6, "what was written while it ran is in it");
    assert_eq!(found, handle(&server, "shop").census().await.expect("a census"));
}

async fn inspect_finds_damage_in_a_base_backup() {
    let server = server().await;
    let backup = handle(&server, "shop").base_backup();
    let (memory, _report) = dump(&backup).await.expect("a base backup");
    let whole = memory.bytes();
    let info = &memory.artifacts()[0];
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    // The last kibibyte may be zeros that nobody checks, as the vendor does not.
    let ends = [0, 511, 512, whole.len() / 3, whole.len() / 2, whole.len() - 100_000];
    let cut = ends.map(|end| ("cut", whole[..end].to_vec()));
    let broken = [2000, whole.len() / 3, whole.len() - 20_000].map(|at| ("flipped", flipped(at)));
    for (what, bytes) in cut.into_iter().chain(broken) {
        let length = bytes.len();
        let error = backup.inspect(info, Box::new(std::io::Cursor::new(bytes))).await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Integrity, "{what} {length}: {error:?}");
    }
    let (foreign, _report) = crate::memory::dump(&handle(&server, "shop")).await.expect("a dump");
    let info = &foreign.artifacts()[0];
    let error = backup.inspect(info, Box::new(std::io::Cursor::new(Vec::new()))).await.expect_err("another format");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

async fn a_data_directory_is_never_overwritten() {
    let server = server().await;
    let place = directory();
    let data = place.path().join("data");
    let backup = handle(&server, "shop").base_backup();
    let (memory, report) = dump(&backup).await.expect("a base backup");
    let error = backup.plan_restore(&memory, &RestoreOptions::new()).await.expect_err("no directory was named");
    assert_eq!(error.kind(), ErrorKind::Config);

    let backup = backup.with_restore_to(&data);
    let stale = plan(&backup, &memory).await;
    std::fs::create_dir(&data).expect("a directory");
    let error = backup.restore(stale, &memory, &expecting(&report)).await.map(drop).expect_err("it came meanwhile");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)));
    std::fs::write(data.join("precious"), b"data").expect("a file");
    let refused = plan(&backup, &memory).await;
    assert!(refused.missing[0].contains("empty directory"), "{refused}");
    backup.restore(refused, &memory, &expecting(&report)).await.map(drop).expect_err("it holds something");
    assert_eq!(std::fs::read(data.join("precious")).expect("the file"), b"data");
}

async fn an_empty_data_directory_is_filled() {
    let server = server().await;
    let place = directory();
    let data = place.path().join("data");
    let backup = handle(&server, "shop").base_backup().with_restore_to(&data);
    let (memory, report) = dump(&backup).await.expect("a base backup");
    std::fs::create_dir(&data).expect("a directory");
    let empty = plan(&backup, &memory).await;
    backup.restore(empty, &memory, &expecting(&report)).await.expect("an empty directory is filled");
    assert!(data.join("PG_VERSION").is_file() && !place.path().join("data.partial").exists());
    let nowhere = backup.with_restore_to(place.path().join("none/data"));
    let plan = plan(&nowhere, &memory).await;
    assert!(plan.missing[0].contains("none"), "{plan}");
}

async fn a_base_backup_that_is_not_the_expected_one_is_not_put_in_place() {
    let server = server().await;
    let place = directory();
    let backup = handle(&server, "shop").base_backup().with_restore_to(place.path().join("data"));
    let (memory, report) = dump(&backup).await.expect("a base backup");
    let other = RestoreContext::new().with_expected(report.census.clone().with_count("databases", 99));
    let fresh = plan(&backup, &memory).await;
    let error = backup.restore(fresh, &memory, &other).await.map(drop).expect_err("another census");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error}");
    let mut bytes = memory.bytes();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = memory.with_bytes(&bytes);
    let fresh = plan(&backup, &damaged).await;
    let error = backup.restore(fresh, &damaged, &expecting(&report)).await.map(drop).expect_err("damage");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error}");
    assert_eq!(std::fs::read_dir(place.path()).expect("a directory").count(), 0, "nothing is left");
}

async fn refused(service: &Postgres, kind: ErrorKind, words: &str) {
    let begun = service.base_backup().begin(&DumpContext::new()).await;
    let error = begun.map(drop).expect_err("something is lacking");
    assert!(error.kind() == kind && error.to_string().contains(words), "{error:?}");
}

async fn what_a_base_backup_lacks_is_told_before_it_runs() {
    let minimal = postgres_server(PostgresOptions::new().with_setting("wal_level", "minimal")).await.expect("a server");
    refused(&handle(&minimal, "postgres"), ErrorKind::Config, "wal_level").await;
    drop(minimal);

    let server = server().await;
    server.execute_in("shop", "create role plain login").await.expect("a role");
    let plain = Postgres::from_url(&server.url_of("shop").replace("postgres@", "plain@")).expect("a URL");
    refused(&plain, ErrorKind::PermissionDenied, "ALTER ROLE <role> REPLICATION").await;
    server.execute_in("shop", "alter role plain replication").await.expect("the right");
    dump(&plain.base_backup()).await.expect("the right is enough");

    let place = directory();
    let tablespace = format!("create tablespace aside location '{}'", place.path().display());
    server.execute_in("shop", &tablespace).await.expect("a tablespace");
    refused(&handle(&server, "shop"), ErrorKind::Unsupported, "aside").await;
}

async fn a_dropped_base_backup_leaves_nothing_on_the_server() {
    let server = server().await;
    let backup = handle(&server, "shop").base_backup();
    let held = "select (select count(*) from pg_replication_slots), (select count(*) from pg_stat_replication)";
    let holds = async || server.query_in("shop", held).await.expect("counts")[0].clone();
    let pinned = backup.begin(&DumpContext::new()).await.expect("a start");
    assert_eq!(holds().await[0].as_deref(), Some("1"), "the WAL is held");
    drop(pinned);
    let nothing = async || (holds().await == [Some("0".to_owned()), Some("0".to_owned())]).then_some(());
    wait_until("slot and walsender to go", LONG, nothing).await.expect("nothing is left");
}

async fn a_cut_restore_of_a_base_backup_is_named_and_cleared() {
    let server = server().await;
    let place = directory();
    let data = place.path().join("data");
    let backup = handle(&server, "shop").base_backup().with_restore_to(&data);
    let (memory, report) = dump(&backup).await.expect("a base backup");
    let fresh = plan(&backup, &memory).await;
    let left = place.path().join("data.partial");
    let expected = expecting(&report);
    let begun = async || left.join("backup_label").exists().then_some(());
    tokio::select! {
        ended = backup.restore(fresh, &memory, &expected) => panic!("it ended: {ended:?}"),
        begun = wait_until("the restore to begin", LONG, begun) => begun.expect("it begins"),
    }
    assert!(left.is_dir() && !data.exists());
    let second = plan(&backup, &memory).await;
    assert!(second.is_destructive() && second.to_string().contains("data.partial"), "{second}");
    backup.restore(second, &memory, &expecting(&report)).await.expect("a restore");
    assert!(data.join("PG_VERSION").is_file() && !left.exists());
}

async fn a_base_backup_of_a_standby_is_told_and_starts_alone() {
    // Of pages that were torn a backup of a standby could not be mended.
    let options = PostgresOptions::new().with_setting("wal_level", "replica").with_setting("max_wal_senders", "4");
    let primary = postgres_server(options.with_setting("full_page_writes", "on")).await.expect("a server");
    primary.create_database("shop").await.expect("a database");
    primary.execute_in("shop", OBJECTS).await.expect("objects");
    let standby = standby(&primary).await;
    let config = Postgres::from_url(&standby.url()).expect("a URL").config().clone().with_database("shop");
    let below = Postgres::new(config.with_content_digests(true).with_tool_dir(primary.bin_dir()));
    let ready = async || below.census().await.ok();
    let before = wait_until("the standby", LONG, ready).await.expect("a standby");
    let place = directory();
    let data = place.path().join("data");
    let backup = below.base_backup().with_restore_to(&data);
    let (memory, report) = dump(&backup).await.expect("a base backup");
    let is_told = |warnings: &[String]| warnings.iter().any(|warning| warning.contains("standby.signal is removed"));
    assert!(is_told(&report.warnings), "{:?}", report.warnings);
    let fresh = plan(&backup, &memory).await;
    let restored = backup.restore(fresh, &memory, &expecting(&report)).await.expect("a restore");
    assert!(is_told(&restored.warnings), "{:?}", restored.warnings);
    std::fs::remove_file(data.join("standby.signal")).expect("the file that was told of");
    let copy = postgres_server_on(&data, PostgresOptions::new()).await.expect("a server on the restored directory");
    assert_eq!(handle(&copy, "shop").census().await.expect("a census"), before);
    copy.execute_in("shop", "create table later as select 1 as x").await.expect("it follows nobody");
}
