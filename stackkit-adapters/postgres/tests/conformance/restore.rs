//! Restore.

use std::time::Duration;

use libtest_mimic::Completion;
use stackkit_core::backup::{OldData, RestoreAction, RestoreContext, RestoreOptions, TargetState};
use stackkit_core::process::{Tool, find_user};
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::{PostgresFixture, PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::Postgres;

use crate::backup::{filled, filled_for_pg_dump};
use crate::memory::{Memory, dump, restore};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    wiped_and_restored_is_equal,
    the_replaced_database_is_kept_under_the_reported_name,
    the_replaced_database_is_dropped_if_wanted,
    a_missing_database_is_created,
    properties_of_the_database_stay,
    sessions_are_ended_at_the_swap,
    a_stale_plan_is_refused,
    a_plan_that_lacks_something_is_refused,
    the_documented_rights_are_enough,
    damage_leaves_the_old_data,
    a_wrong_census_leaves_the_old_data,
    a_failed_swap_is_undone,
    content_digests_are_compared,
    hostile_database_names,
    a_read_only_target_keeps_the_old_data,
    leftovers_are_told,
    the_maintenance_database_itself,
    a_plan_is_applied_once,
    encoding_and_locale_stay,
];

/// A tablespace on a file system of 40 MiB, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    async fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let user = find_user(&["postgres", "nobody"]).ok()?;
        let options = format!("size=40m,mode=700,uid={},gid={}", user.uid, user.gid);
        let mount = Tool::new("/bin/mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(directory.path());
        mount.output(Duration::from_secs(10)).await.ok()?;
        Some(Self(directory))
    }
}

impl Drop for SmallDisk {
    /// A failed trial must not leave its mount behind either.
    fn drop(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a drop has no runtime to run a tool in")]
        let mut umount = std::process::Command::new("/bin/umount");
        // A mount that stays shows in the list of mounts; there is nobody here to tell.
        let _ = umount.arg("--lazy").arg(self.0.path()).status();
    }
}

/// Needs root for a file system that is full soon.
pub(crate) async fn a_full_target_keeps_the_old_data() -> Completion {
    let Some(disk) = SmallDisk::mount().await else {
        return Completion::ignored_with("needs the right to mount a tmpfs");
    };
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    let tablespace = format!("create tablespace small location '{}'", disk.0.path().display());
    server.execute_in("postgres", &tablespace).await.expect("a tablespace");
    server.execute_in("postgres", "create database shop tablespace small").await.expect("a database");
    restore_without_room(&server).await;
    drop(server);
    drop(disk);
    Completion::Completed
}

/// Fills the database `shop` so that there is no room for a second one like it.
async fn restore_without_room(server: &PostgresServer) {
    let fill = "create table big as select g, repeat('x', 1000) from generate_series(1, 16000) g";
    server.execute_in("shop", fill).await.expect("16 MB of data");
    // Dropping a database writes all dirty pages; those of the old data must find room without it.
    server.execute_in("shop", "checkpoint").await.expect("a checkpoint");
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let (memory, report) = dump(&service).await.expect("a dump");
    let mut plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("free space")), "{plan}");
    // Whoever applies it all the same is told by the server.
    plan.missing.retain(|missing| !missing.contains("free space"));
    let cx = RestoreContext::new().with_expected(report.census.clone());
    let error = service.restore(plan, &memory, &cx).await.expect_err("the disk is full");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Io, Some(TargetState::Old)), "{error:?}");
    assert!(error.chain().to_string().contains("No space left on device"), "{error:?}");
    assert_eq!(service.census().await.expect("a census"), report.census);
    let left = "select count(*) from pg_database where starts_with(datname, 'shop__')";
    let left = server.query_in("postgres", left).await.expect("a count");
    assert_eq!(left[0][0].as_deref(), Some("0"));
}

async fn a_read_only_target_keeps_the_old_data() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.execute_in("postgres", "create table kept as select 1 as x").await.expect("a table");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let (memory, report) = dump(&service).await.expect("a dump");
    server.execute_in("postgres", "alter role postgres set default_transaction_read_only = on").await.expect("a role");
    let error = restore(&service, &memory, &report).await.expect_err("read-only");
    assert_eq!((error.kind(), error.code()), (ErrorKind::PermissionDenied, Some("25006")), "{error:?}");
    assert_eq!(error.target(), Some(TargetState::Old));
    assert_eq!(service.census().await.expect("a census"), report.census);
}

/// The content of every table and the values of sequences and large objects, in an order of its own.
pub(crate) async fn content(postgres: &PostgresFixture, database: &str) -> Vec<Vec<Option<String>>> {
    let sql = r#"
        select 'a', md5(string_agg(t::text, '|' order by t::text))
            from "Schräg ""zitiert"""."Tabelle mit 'Zeichen'.x" t
        union all select 'b', md5(string_agg(t::text, '|' order by t::text)) from events t
        union all select 'c', md5(string_agg(t::text, '|' order by t::text)) from bytes t
        union all select 'd', md5(string_agg(t::text, '|' order by t::text)) from per_day t
        union all select 'e', last_value::text from lonely
        union all select 'f', md5(string_agg(lo_get(oid)::text, '|' order by oid)) from pg_largeobject_metadata
        union all select 'g', obj_description('events'::regclass) || twice(4)
        order by 1"#;
    postgres.server().query_in(database, sql).await.expect("content")
}

pub(crate) const WIPE: &str = r#"drop schema public cascade; create schema public; drop schema "Schräg ""zitiert""" cascade;
    select lo_unlink(oid) from pg_largeobject_metadata"#;

pub(crate) async fn databases_like(postgres: &PostgresFixture, mark: &str) -> Vec<String> {
    let sql = format!("select datname from pg_database where starts_with(datname, '{}{mark}')", postgres.database());
    let rows = postgres.server().query_in("postgres", &sql).await.expect("names");
    rows.into_iter().filter_map(|mut row| row.remove(0)).collect()
}

async fn wiped_and_restored_is_equal() {
    let (postgres, service) = filled().await;
    let before = content(&postgres, postgres.database()).await;
    let (memory, report) = dump(&service).await.expect("a dump");
    postgres.execute(WIPE).await.expect("a wipe");
    assert_ne!(service.census().await.expect("a census"), report.census);
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census, report.census);
    assert_eq!(service.census().await.expect("a census"), report.census);
    assert_eq!(content(&postgres, postgres.database()).await, before);
    assert!(databases_like(&postgres, "__sk_").await.is_empty());
}

async fn the_replaced_database_is_kept_under_the_reported_name() {
    let (postgres, service) = filled().await;
    let (memory, report) = dump(&service).await.expect("a dump");
    postgres.execute("create table only_in_the_old as select 7 as x").await.expect("a table");
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    let kept = restored.old_data_kept_as.expect("a name");
    let rows = postgres.server().query_in(&kept, "select x from only_in_the_old").await.expect("the old data");
    assert_eq!(rows[0][0].as_deref(), Some("7"));
    postgres.execute("select 1 / (count(*) - 1) from pg_class where relname = 'only_in_the_old'").await.expect("gone");
}

async fn the_replaced_database_is_dropped_if_wanted() {
    let (postgres, service) = filled().await;
    let (memory, _report) = dump(&service).await.expect("a dump");
    let options = RestoreOptions::new().with_old_data(OldData::Remove);
    let plan = service.plan_restore(&memory, &options).await.expect("a plan");
    assert_eq!(plan.actions.last().map(|step| step.action), Some(RestoreAction::Drop));
    let restored = service.restore(plan, &memory, &RestoreContext::new()).await.expect("a restore");
    assert_eq!(restored.old_data_kept_as, None);
    assert!(databases_like(&postgres, "__old_").await.is_empty());
}

async fn a_missing_database_is_created() {
    let (postgres, service) = filled().await;
    let before = content(&postgres, postgres.database()).await;
    let (memory, report) = dump(&service).await.expect("a dump");
    let other = format!("{}_other", postgres.database());
    let target = Postgres::from_url(&postgres.server().url_of(&other)).expect("a URL");
    let plan = target.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(!plan.is_destructive(), "{plan}");
    let restored = restore(&target, &memory, &report).await.expect("a restore");
    assert_eq!((restored.old_data_kept_as, restored.census), (None, report.census));
    assert_eq!(content(&postgres, &other).await, before);
    postgres.server().execute_in("postgres", &format!("drop database {other}")).await.expect("cleaned up");
}

async fn properties_of_the_database_stay() {
    let (postgres, service) = filled().await;
    let name = postgres.database();
    let setup = format!(
        "create role reader_{name}; alter database {name} set search_path = \"Schräg \"\"zitiert\"\"\", public; \
         alter database {name} set work_mem = '9MB'; \
         alter role reader_{name} in database {name} set statement_timeout = 77; \
         grant connect on database {name} to reader_{name}; revoke temporary on database {name} from public; \
         comment on database {name} is 'it''s mine'; alter database {name} connection limit 55"
    );
    postgres.execute(&setup).await.expect("properties");
    let properties = format!(
        "select array(select setrole::regrole::text || setconfig::text from pg_db_role_setting \
             where setdatabase = d.oid order by 1)::text \
         || (select string_agg(a::text, ',' order by a::text) from aclexplode(datacl) a) \
         || datconnlimit || shobj_description(oid, 'pg_database') \
         from pg_database d where datname = '{name}'"
    );
    let before = postgres.query(&properties).await.expect("properties");
    let (memory, report) = dump(&service).await.expect("a dump");
    restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(postgres.query(&properties).await.expect("properties"), before);
}

async fn sessions_are_ended_at_the_swap() {
    let (postgres, service) = filled().await;
    let (memory, report) = dump(&service).await.expect("a dump");
    let busy = postgres.execute("select pg_sleep(60)");
    let restored = restore(&service, &memory, &report);
    let (busy, restored) = tokio::join!(busy, restored);
    assert!(busy.is_err(), "the session was ended");
    restored.expect("a restore");
}

async fn a_stale_plan_is_refused() {
    let (postgres, service) = filled().await;
    let (memory, report) = dump(&service).await.expect("a dump");
    let cx = RestoreContext::new().with_expected(report.census.clone());
    for change in [
        "insert into no_rows values (1)",
        "update bytes set f = 1 where id = 1",
        "delete from refers where id is null",
        "create table another (x int)",
        "alter table no_rows add column y int",
        "select lo_put(oid, 0, 'x') from pg_largeobject_metadata limit 1",
    ] {
        let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
        postgres.execute(change).await.expect(change);
        let error = service.restore(plan, &memory, &cx).await.expect_err(change);
        assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)), "{change}");
    }
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    postgres.execute("vacuum (freeze, analyze)").await.expect("maintenance");
    postgres.execute("create temp table scratch (id serial primary key, t text default 'x')").await.expect("a table");
    service.restore(plan, &memory, &cx).await.expect("maintenance changes nothing");
}

async fn a_plan_that_lacks_something_is_refused() {
    let (postgres, service) = filled().await;
    let role = format!("gone_{}", postgres.database());
    postgres.execute(&format!("create role {role}; alter table no_rows owner to {role}")).await.expect("a role");
    let (memory, _report) = dump(&service).await.expect("a dump");
    postgres.execute(&format!("alter table no_rows owner to postgres; drop role {role}")).await.expect("no role");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains(&role)), "{plan}");
    let error = service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("something is missing");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)));
    let limited = format!("limited_{}", postgres.database());
    postgres
        .execute(&format!(
            "create role {limited} login; grant select on all tables in schema public to {limited}; \
        grant select on all tables in schema \"Schräg \"\"zitiert\"\"\" to {limited}; \
        grant usage on schema \"Schräg \"\"zitiert\"\"\" to {limited}"
        ))
        .await
        .expect("a role");
    let limited = Postgres::from_url(&postgres.url().replace("postgres@", &format!("{limited}@"))).expect("a URL");
    let plan = limited.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("CREATEDB")), "{plan}");
    assert!(plan.missing.iter().any(|missing| missing.contains("ownership")), "{plan}");
    assert!(plan.missing.iter().any(|missing| missing.contains("membership in the role postgres")), "{plan}");
}

async fn the_documented_rights_are_enough() {
    let postgres = stackkit_fixtures::postgres().await.expect("a database");
    let role = format!("owner_{}", postgres.database());
    let database = postgres.database();
    postgres
        .execute(&format!("create role {role} login createdb; alter database {database} owner to {role}"))
        .await
        .expect("a role");
    let owner = Postgres::from_url(&postgres.url().replace("postgres@", &format!("{role}@"))).expect("a URL");
    let fill = format!("set role {role}; create schema s; create table s.t as select i from generate_series(1, 9) i");
    postgres.execute(&fill).await.expect("a table");
    let (memory, report) = dump(&owner).await.expect("a dump");
    let restored = restore(&owner, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census.count("tables.s.t.rows"), 9);
    // The kept database belongs to the role too, so neither may stay.
    let kept = restored.old_data_kept_as.expect("a name");
    let clean = format!("drop database {kept}; alter database {database} owner to postgres");
    for sql in clean.split("; ") {
        postgres.server().execute_in("postgres", sql).await.expect("cleaned up");
    }
}

async fn damage_leaves_the_old_data() {
    let (postgres, service) = filled_for_pg_dump().await;
    let before = content(&postgres, postgres.database()).await;
    let (memory, report) = dump(&service).await.expect("a dump");
    let mut bytes = memory.bytes();
    bytes.truncate(bytes.len() - 100);
    let memory = memory.with_bytes(&bytes);
    let error = restore(&service, &memory, &report).await.expect_err("a cut archive");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error:?}");
    assert_eq!(content(&postgres, postgres.database()).await, before);
    assert!(databases_like(&postgres, "__").await.is_empty(), "nothing is left over");
}

async fn a_wrong_census_leaves_the_old_data() {
    let (postgres, service) = filled().await;
    let (memory, mut report) = dump(&service).await.expect("a dump");
    report.census.add("tables.public.bytes.rows", 1);
    let error = restore(&service, &memory, &report).await.expect_err("a row is missing");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)));
    assert!(error.to_string().contains("tables.public.bytes.rows: expected 102, found 101"), "{error}");
    assert!(databases_like(&postgres, "__").await.is_empty());
}

async fn a_failed_swap_is_undone() {
    let (postgres, service) = filled().await;
    let (memory, _report) = dump(&service).await.expect("a dump");
    let mut plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    // The first rename fails: the name for the old data is taken.
    plan.details.insert("old_database_kept_as".into(), "postgres".into());
    let error = service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("the name is taken");
    assert_eq!((error.kind(), error.target()), (ErrorKind::AlreadyExists, Some(TargetState::Old)), "{error:?}");
    postgres.query("select count(*) from bytes").await.expect("the target accepts connections again");
    assert!(databases_like(&postgres, "__").await.is_empty());
}

async fn content_digests_are_compared() {
    let (postgres, service) = filled().await;
    let service = Postgres::new(service.config().clone().with_content_digests(true));
    let (memory, report) = dump(&service).await.expect("a dump");
    assert_eq!(report.census.digests["tables.public.bytes.content"].len(), 64);
    restore(&service, &memory, &report).await.expect("a restore");
    postgres.execute("update bytes set f = f + 1 where id = 1").await.expect("a change");
    let differences = report.census.diff(&service.census().await.expect("a census"));
    assert_eq!(differences.len(), 1, "{differences:?}");
    let mut wrong = report.clone();
    wrong.census.digests.insert("tables.public.bytes.content".into(), "0".into());
    let error = restore(&service, &memory, &wrong).await.expect_err("other content");
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

async fn hostile_database_names() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let long = "ü".repeat(31);
    for name in [r#"we"ird 'name' \x"#, "dbname=postgres host=elsewhere", "-starts-with-dash", long.as_str()] {
        postgres.server().create_database(name).await.expect(name);
        postgres.server().execute_in("postgres", "select 1").await.expect("a connection");
        let template = Postgres::from_url(&postgres.url()).expect("a URL");
        let service = Postgres::new(template.config().clone().with_database(name));
        let (memory, report): (Memory, _) = dump(&service).await.expect(name);
        restore(&service, &memory, &report).await.expect(name);
        let restored = restore(&service, &memory, &report).await.expect(name);
        assert!(restored.old_data_kept_as.expect("a name").len() <= 63);
    }
}

async fn leftovers_are_told() {
    let (postgres, service) = filled().await;
    let (memory, _report) = dump(&service).await.expect("a dump");
    let name = postgres.database();
    for left in [format!("{name}__sk_1"), format!("{name}__old_1")] {
        postgres.server().create_database(&left).await.expect("a database");
    }
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.warnings.iter().any(|warning| warning.contains("__sk_1")), "{plan}");
    assert!(!plan.warnings.iter().any(|warning| warning.contains("__old_1")), "{plan}");
    postgres.server().execute_in("postgres", &format!("drop database {name} with (force)")).await.expect("dropped");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.warnings.iter().any(|warning| warning.contains("__old_1")), "{plan}");
}

async fn the_maintenance_database_itself() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.execute_in("postgres", "create table kept as select 1 as x").await.expect("a table");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let (memory, report) = dump(&service).await.expect("a dump");
    server.execute_in("postgres", "drop table kept").await.expect("a wipe");
    restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(service.census().await.expect("a census"), report.census);
}

async fn encoding_and_locale_stay() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let name = format!("{}_locale", postgres.database());
    let server = postgres.server();
    let latin = format!("create database {name} template template0 encoding 'LATIN1' locale 'C'");
    let icu = format!("create database {name} template template0 encoding 'UTF8' locale_provider icu icu_locale 'de'");
    let like = format!("select to_jsonb(d) - 'oid' - 'datfrozenxid' from pg_database d where datname = '{name}'");
    for create in [latin, icu] {
        match server.execute_in("postgres", &create).await {
            Err(error) if error.code() == Some("0A000") => continue, // Built without ICU.
            created => created.expect(&create),
        }
        server.execute_in(&name, "create table t as select 'ä'::text as x").await.expect("a table");
        let before = server.query_in("postgres", &like).await.expect("properties");
        let service = Postgres::from_url(&server.url_of(&name)).expect("a URL");
        let (memory, report) = dump(&service).await.expect("a dump");
        let kept = restore(&service, &memory, &report).await.expect("a restore").old_data_kept_as.expect("a name");
        assert_eq!(server.query_in("postgres", &like).await.expect("properties"), before);
        for gone in [&name, &kept] {
            server.execute_in("postgres", &format!("drop database {gone} with (force)")).await.expect("dropped");
        }
    }
}

/// The second restore finds the first one's database, and must leave it alone.
async fn a_plan_is_applied_once() {
    let (postgres, service) = filled().await;
    let (memory, report) = dump(&service).await.expect("a dump");
    let mut plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let cx = RestoreContext::new().with_expected(report.census.clone());
    let both = tokio::join!(service.restore(plan.clone(), &memory, &cx), service.restore(plan.clone(), &memory, &cx));
    let refused = match both {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        other => panic!("one of two restores succeeds: {other:?}"),
    };
    assert_eq!((refused.kind(), refused.target()), (ErrorKind::AlreadyExists, Some(TargetState::Old)), "{refused:?}");
    assert_eq!(service.census().await.expect("a census"), report.census);

    let precious = format!("{}_precious", postgres.database());
    postgres.server().create_database(&precious).await.expect("a database");
    plan.fingerprint = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan").fingerprint;
    plan.details.insert("staging_database".into(), precious.clone());
    let error = service.restore(plan, &memory, &cx).await.expect_err("the name is taken");
    assert_eq!((error.kind(), error.target()), (ErrorKind::AlreadyExists, Some(TargetState::Old)), "{error:?}");
    postgres.server().query_in(&precious, "select 1").await.expect("it was not touched");
    postgres.server().execute_in("postgres", &format!("drop database {precious}")).await.expect("dropped");
}
