//! Roles that may do less than a superuser, and locks that others hold.

use std::time::Duration;

use stackkit_core::backup::{DumpContext, RestoreOptions, TargetState};
use stackkit_core::health::Tier;
use stackkit_core::{BackupProvider, Clock, Error, ErrorKind, HealthCheck, ProbeContext};
use stackkit_fixtures::PostgresFixture;
use stackkit_postgres::{Engine, Postgres, PostgresDump};

use crate::memory::{dump, restore};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    an_ordinary_role_restores_its_own_database,
    a_table_that_may_not_be_read_is_named,
    row_security_fails_a_dump,
    a_locked_table_is_busy,
    shadowed_functions_are_not_called,
    two_connections_are_enough_for_a_dump,
    what_a_dump_may_not_read_is_named,
    a_sequence_that_may_not_be_read_is_named_with_its_grant,
];

/// A role of its own for the case, and the service that logs in as it.
async fn role(postgres: &PostgresFixture, attributes: &str) -> (String, Postgres) {
    let role = format!("r_{}", postgres.database());
    postgres.execute(&format!("create role {role} login {attributes}")).await.expect("a role");
    let url = postgres.url().replace("postgres@", &format!("{role}@"));
    (role, Postgres::from_url(&url).expect("a URL"))
}

async fn an_ordinary_role_restores_its_own_database() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (role, service) = role(&postgres, "createdb").await;
    let name = postgres.database();
    let setup = format!(
        "alter database {name} owner to {role}; set role {role}; \
         create table t as select g from generate_series(1, 1000) g; comment on database {name} is 'mine'"
    );
    postgres.execute(&setup).await.expect("a table");
    let (memory, report) = dump(&service).await.expect("a dump");
    postgres.execute("delete from t").await.expect("a loss");
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census, report.census);
    let owner = "select pg_get_userbyid(datdba) || shobj_description(oid, 'pg_database') \
        from pg_database where datname = current_database()";
    assert_eq!(postgres.query(owner).await.expect("an owner")[0][0], Some(format!("{role}mine")));

    postgres.execute(&format!("alter role postgres in database {name} set work_mem = '5MB'")).await.expect("a setting");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("alter the role postgres")), "{plan}");
}

async fn a_table_that_may_not_be_read_is_named() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    postgres
        .execute(
            "create table open as select 1 x; create table \"shut 'it\" as select 1 x; grant select on open to public",
        )
        .await
        .expect("tables");
    let (role, service) = role(&postgres, "").await;
    let error = service.begin(&DumpContext::new()).await.map(drop).expect_err("a right is missing");
    assert_eq!((error.kind(), error.code()), (ErrorKind::PermissionDenied, Some("42501")), "{error:?}");
    assert!(error.to_string().contains("shut 'it") && !error.to_string().contains("open"), "{error}");
    let grant = format!("grant=GRANT SELECT ON TABLE public.\"shut 'it\" TO {role}");
    assert!(error.to_string().contains(&grant), "{error}");
}

async fn row_security_fails_a_dump() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (role, service) = role(&postgres, "").await;
    let setup = format!(
        "create table t as select g from generate_series(1, 10) g; grant select on t to {role}; \
         alter table t enable row level security; create policy part on t using (g < 5)"
    );
    postgres.execute(&setup).await.expect("a policy");
    let error = dump(&service).await.map(drop).expect_err("rows would be left out");
    assert!(matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ToolFailed), "{error:?}");
    assert_eq!(service.census().await.expect_err("rows would be left out").kind(), ErrorKind::PermissionDenied);
}

async fn a_locked_table_is_busy() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    postgres.execute("create table t as select 1 x").await.expect("a table");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    let service = Postgres::new(service.config().clone().with_lock_timeout(Duration::from_millis(200)));
    let (memory, report) = dump(&service).await.expect("a dump");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let locked = postgres.execute("begin; lock table t in access exclusive mode; select pg_sleep(60)");
    let waits = async {
        let held = "select 1 / count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted \
            and relation = 't'::regclass";
        while postgres.query(held).await.is_err() {
            tokio::task::yield_now().await;
        }
        let busy = |error: Error| assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        busy(service.begin(&DumpContext::new()).await.map(drop).expect_err("locked"));
        busy(service.census().await.map(drop).expect_err("locked"));
        busy(service.plan_restore(&memory, &RestoreOptions::new()).await.map(drop).expect_err("locked"));
        let cx = stackkit_core::backup::RestoreContext::new().with_expected(report.census.clone());
        let error = service.restore(plan, &memory, &cx).await.map(drop).expect_err("locked");
        assert_eq!(error.target(), Some(TargetState::Old));
        busy(error);
    };
    tokio::select! {
        ended = locked => panic!("the lock was given up: {ended:?}"),
        waited = tokio::time::timeout(Duration::from_secs(20), waits) => waited.expect("nothing hangs"),
    }
}

/// A role's own `search_path` may put a schema that others write to before the system's.
async fn shadowed_functions_are_not_called() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (role, service) = role(&postgres, "superuser").await;
    let setup = format!(
        "create schema evil; create table evil.called (x text); create table t as select 1 x; \
         create function evil.set_config(text, text, boolean) returns text language sql \
             as $$ insert into evil.called values ('set_config'); select '' $$; \
         create function evil.pg_is_in_recovery() returns boolean language sql \
             as $$ insert into evil.called values ('pg_is_in_recovery'); select false $$; \
         alter role {role} set search_path = evil, pg_catalog"
    );
    postgres.execute(&setup).await.expect("a trap");
    let cx = ProbeContext::new(Tier::Inventory, Clock::system().instant() + Duration::from_secs(20));
    service.probe(&cx).await.expect("an observation");
    let (memory, report) = dump(&service).await.expect("a dump");
    restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(report.census.count("tables.evil.called.rows"), 0);
    let called = postgres.query("select count(*) from evil.called").await.expect("a count");
    assert_eq!(called[0][0].as_deref(), Some("0"));
}

/// One holds the snapshot, the other one is that of `pg_dump`, then that of the only reader.
async fn two_connections_are_enough_for_a_dump() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (role, service) = role(&postgres, "connection limit 2").await;
    let fill = "create table t as select g from generate_series(1, 1000) g; grant select on t to public";
    postgres.execute(fill).await.expect("a table");
    let options = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(1);
    let service = Postgres::new(service.config().clone().with_dump(options));
    for _dump in 0..5 {
        let (_memory, report) = dump(&service).await.expect("a dump");
        assert_eq!(report.census.count("tables.public.t.rows"), 1000);
        // The last connections of a dump end after it.
        let sessions = format!("select 1 from pg_stat_activity where usename = '{role}'");
        while !postgres.query(&sessions).await.expect("sessions").is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

/// A sequence, a large object, a table, one in a schema that is closed: no rows are left out in silence.
async fn what_a_dump_may_not_read_is_named() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (_role, service) = role(&postgres, "").await;
    let options = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(1);
    let service = Postgres::new(service.config().clone().with_dump(options));
    for (make, named, unmake) in [
        ("create sequence shut", "shut", "drop sequence shut"),
        ("select lo_create(4711)", "4711", "select lo_unlink(4711)"),
        ("create table \"shut \"\" it\" (x int)", "shut \"\" it", "drop table \"shut \"\" it\""),
        (
            "create schema shut; create table shut.t (x serial)",
            "GRANT USAGE ON SCHEMA shut TO",
            "drop schema shut cascade",
        ),
    ] {
        postgres.execute(make).await.expect(make);
        let error = dump(&service).await.map(drop).expect_err(make);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{make}: {error:?}");
        assert!(error.chain().to_string().contains(named), "{make}: {}", error.chain());
        postgres.execute(unmake).await.expect(unmake);
    }
    dump(&service).await.expect("all may be read");
}

/// `pg_dump` only says it in words; the grants that the error names are all that was missing.
async fn a_sequence_that_may_not_be_read_is_named_with_its_grant() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (role, service) = role(&postgres, "").await;
    let setup = format!(
        "create table t (x serial, \"it's\" int generated always as identity); create sequence unrelated; \
         grant select on t, unrelated to {role}"
    );
    postgres.execute(&setup).await.expect("a table");
    let filtered = PostgresDump::new().only_tables(["public.t"]);
    for options in [filtered, PostgresDump::new()] {
        let service = Postgres::new(service.config().clone().with_dump(options));
        let error = service.begin(&DumpContext::new()).await.map(drop).expect_err("a right is missing");
        assert_eq!((error.kind(), error.code()), (ErrorKind::PermissionDenied, Some("42501")), "{error:?}");
        let context: Vec<_> = error.context().collect();
        assert!(context.contains(&("sequences", "public.\"t_it's_seq\", public.t_x_seq")), "{error}");
        assert!(!error.to_string().contains("unrelated"), "{error}");
    }
    let error = service.begin(&DumpContext::new()).await.map(drop).expect_err("a right is missing");
    let grants = error.context().find(|(key, _)| *key == "grant").expect("the grants").1.to_owned();
    postgres.execute(&grants).await.expect("the grants as they are");
    dump(&service).await.expect("all may be read");
}
