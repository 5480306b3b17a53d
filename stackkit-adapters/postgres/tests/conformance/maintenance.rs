//! Maintenance: what is found, planned and done.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit_core::{ErrorKind, Result};
use stackkit_fixtures::{PostgresFixture, wait_until};
use stackkit_postgres::{
    MaintenanceAction, MaintenanceFindings, MaintenanceLimits, MaintenanceOutcome, MaintenancePlan, MaintenanceReport,
    MaintenanceTask, Postgres, PostgresMaintenance,
};

use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    tables_that_want_vacuum_and_statistics_are_found,
    bloat_is_estimated_and_measured,
    indexes_that_are_not_worth_their_writes_are_found,
    an_index_that_is_not_valid_is_built_anew,
    the_age_of_a_table_is_found_and_frozen,
    a_plan_is_shown_and_done_with_progress_and_audit,
    a_rewrite_needs_a_name_and_force,
    a_plan_of_another_table_is_refused,
    a_role_without_the_right_is_told_the_grant,
    the_owner_of_a_database_may_vacuum_it,
    a_locked_table_fails_its_step_alone,
    a_rebuild_that_failed_is_named_and_cleared,
    a_dropped_maintenance_is_cancelled_on_the_server,
];

/// Long enough for statistics to arrive, or a lock to be taken, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

pub(crate) async fn fixture(setup: &str) -> PostgresFixture {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    postgres.execute(setup).await.expect("objects");
    postgres
}

/// Small tables count, and nobody is waited for.
pub(crate) fn maintenance(postgres: &PostgresFixture) -> PostgresMaintenance {
    let config = postgres.service().expect("a handle").config().clone();
    let limits = MaintenanceLimits::new().with_rows_min(100).with_bloat_bytes_min(100 * 1024);
    let limits = limits.with_unused_index_bytes_min(8 * 1024);
    Postgres::new(config.with_lock_timeout(Duration::from_millis(300))).maintenance().with_limits(limits)
}

/// The findings, as soon as the statistics have this one.
pub(crate) async fn found(maintenance: &PostgresMaintenance, code: &str, relation: &str) -> MaintenanceFindings {
    let look = async || {
        let found = maintenance.findings().await.expect("findings");
        let is_there = found.with_code(code).any(|finding| finding.relation == relation);
        is_there.then_some(found)
    };
    wait_until(&format!("{code} of {relation}"), LONG, look).await.expect("a finding")
}

pub(crate) async fn done(maintenance: &PostgresMaintenance, plan: MaintenancePlan) -> MaintenanceReport {
    let report = maintenance.apply(plan).await.expect("a report");
    assert!(report.is_complete(), "{report}");
    report
}

async fn tables_that_want_vacuum_and_statistics_are_found() {
    let postgres = fixture(
        "create schema \"Lager\"; create table \"Lager\".\"Über 'x'\" (id int primary key, t text); \
         insert into \"Lager\".\"Über 'x'\" select g, 'x' from generate_series(1, 2000) g; \
         create table small as select 1 x; delete from \"Lager\".\"Über 'x'\" where id > 1000",
    )
    .await;
    let (maintenance, table) = (maintenance(&postgres), "\"Lager\".\"Über 'x'\"");
    let found = found(&maintenance, "pg.maintenance.table.dead_rows", table).await;
    let dead = found.with_code("pg.maintenance.table.dead_rows").next().expect("dead rows");
    assert_eq!((dead.numbers["dead_rows_count"], dead.numbers["dead_ratio"]), (1000.0, 0.5), "{dead}");
    assert_eq!(dead.command, format!("VACUUM (ANALYZE) {table}"));
    for code in ["pg.maintenance.table.never_vacuumed", "pg.maintenance.table.never_analyzed"] {
        let relations: Vec<&str> = found.with_code(code).map(|finding| finding.relation.as_str()).collect();
        assert_eq!(relations, [table], "{code}");
    }
    let plan = maintenance.plan_for(&found.findings).await.expect("a plan");
    let statements: Vec<String> = plan.steps.iter().map(|step| step.sql()).collect();
    assert_eq!(statements, [format!("VACUUM (ANALYZE) {table}")], "three findings, one statement");
    done(&maintenance, plan).await;
    let mended = async || {
        let found = maintenance.findings().await.expect("findings").findings;
        (!found.iter().any(|finding| finding.code.contains(".table."))).then_some(())
    };
    wait_until("the findings to go", LONG, mended).await.expect("the command mends it");
}

async fn bloat_is_estimated_and_measured() {
    let postgres = fixture(
        "create table t (id int primary key, t text) with (fillfactor = 100); \
         insert into t select g, repeat('x', 100) from generate_series(1, 20000) g; \
         create table packed as select g id, repeat('x', 100) t from generate_series(1, 20000) g; \
         delete from t where id % 5 <> 0",
    )
    .await;
    postgres.execute("vacuum (analyze) t").await.expect("statistics");
    postgres.execute("vacuum (analyze) packed").await.expect("statistics");
    let maintenance = maintenance(&postgres);
    let bloated = async |method: &str| {
        let found = found(&maintenance, "pg.maintenance.table.bloat", "public.t").await;
        let tables: Vec<_> = found.with_code("pg.maintenance.table.bloat").collect();
        assert_eq!((tables.len(), tables[0].message.contains(method)), (1, true), "{found}");
        let ratio = tables[0].numbers["bloat_ratio"];
        assert!((0.7..0.9).contains(&ratio), "four fifths are gone: {ratio} ({method})");
        assert_eq!(found.with_code("pg.maintenance.index.bloat").count(), 1, "its index too: {found}");
        found
    };
    let found = bloated("estimated").await;
    let plan = maintenance.plan_for(&found.findings).await.expect("a plan");
    assert!(plan.steps.iter().any(|step| step.sql() == "REINDEX INDEX CONCURRENTLY public.t_pkey"), "{plan}");
    let left_out = plan.warnings.iter().find(|warning| warning.contains("VACUUM (FULL, ANALYZE) public.t"));
    assert!(left_out.is_some_and(|warning| warning.contains("force")), "{plan}");
    let available = "select count(*) from pg_available_extensions where name = 'pgstattuple'";
    if postgres.query(available).await.expect("a count")[0][0].as_deref() == Some("1") {
        postgres.execute("create schema ext; create extension pgstattuple schema ext").await.expect("the extension");
        bloated("measured").await;
    }
    done(&maintenance, plan).await;
    let found = maintenance.findings().await.expect("findings");
    assert_eq!(found.with_code("pg.maintenance.index.bloat").count(), 0, "{found}");
}

async fn indexes_that_are_not_worth_their_writes_are_found() {
    let postgres = fixture(
        "create table t (id int primary key, a int, b int); insert into t select g, g, 1 from generate_series(1, 500) g; \
         create index ta on t (a); create index ta_again on t (a); create unique index ta_unique on t (a); \
         create index ta_desc on t (a desc); create index ta_part on t (a) where a > 5; analyze t",
    )
    .await;
    let maintenance = maintenance(&postgres);
    let broken = "create unique index concurrently tb on t (b)";
    assert_eq!(postgres.execute(broken).await.expect_err("b is not unique").code(), Some("23505"));
    let found = found(&maintenance, "pg.maintenance.index.invalid", "public.tb").await;
    let relations = |code: &str| -> Vec<String> { found.with_code(code).map(|f| f.relation.clone()).collect() };
    assert_eq!(relations("pg.maintenance.index.duplicate"), ["public.ta", "public.ta_again"], "the unique one stays");
    let unused = ["public.ta", "public.ta_again", "public.ta_desc", "public.ta_part"];
    assert_eq!(relations("pg.maintenance.index.unused"), unused);
    let plan = maintenance.plan_for(&found.findings).await.expect("a plan");
    assert!(!plan.steps.iter().any(|step| step.action == MaintenanceAction::DropInvalidIndex), "{plan}");
    assert!(plan.warnings.iter().any(|warning| warning.contains("DROP INDEX CONCURRENTLY public.ta_again")), "{plan}");
}

async fn an_index_that_is_not_valid_is_built_anew() {
    let postgres = fixture("create table t (b int); insert into t values (1), (1)").await;
    let maintenance = maintenance(&postgres);
    let broken = "create unique index concurrently tb on t (b)";
    assert_eq!(postgres.execute(broken).await.expect_err("b is not unique").code(), Some("23505"));
    postgres.execute("delete from t").await.expect("unique now");
    let reindex = MaintenanceTask::new(MaintenanceAction::Reindex, "public.tb");
    done(&maintenance, maintenance.plan(vec![reindex]).await.expect("a plan")).await;
    let valid = "select indisvalid from pg_index where indexrelid = 'tb'::regclass";
    assert_eq!(postgres.query(valid).await.expect("a row")[0][0].as_deref(), Some("t"));
    let drop_valid = MaintenanceTask::new(MaintenanceAction::DropInvalidIndex, "public.tb");
    let error = maintenance.plan(vec![drop_valid]).await.expect_err("it is valid");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
}

async fn the_age_of_a_table_is_found_and_frozen() {
    let postgres = fixture("create table t as select 1 x").await;
    for _ in 0..20 {
        postgres.execute("select txid_current()").await.expect("a transaction");
    }
    let limits = MaintenanceLimits::new().with_wraparound_age_min(20);
    let maintenance = maintenance(&postgres).with_limits(limits);
    let found = found(&maintenance, "pg.maintenance.table.wraparound", "public.t").await;
    let finding = found.findings.iter().find(|finding| finding.relation == "public.t").expect("a finding");
    assert!(finding.numbers["age_transactions"] >= 20.0 && finding.command == "VACUUM (FREEZE) public.t", "{finding}");
    let plan = maintenance.plan_for(std::slice::from_ref(finding)).await.expect("a plan");
    done(&maintenance, plan).await;
    let age = "select age(relfrozenxid) < 20 from pg_class where relname = 't'";
    assert_eq!(postgres.query(age).await.expect("an age")[0][0].as_deref(), Some("t"));
}

/// A table whose index takes seconds to build: the function slept not while the rows came.
const SLOW: &str = "create function slow(x int) returns int immutable language sql as 'select x'; \
    create table t (id int primary key); insert into t select g from generate_series(1, 400) g; \
    create index ts on t (slow(id)); \
    create or replace function slow(x int) returns int immutable language plpgsql as \
        'begin perform pg_sleep(0.01); return x; end'";

async fn a_plan_is_shown_and_done_with_progress_and_audit() {
    let postgres = fixture(SLOW).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let maintenance = maintenance(&postgres).with_progress(move |progress| {
        sink.lock().expect("no panic").push(progress.clone());
    });
    let task = |action, relation: &str| MaintenanceTask::new(action, relation);
    let tasks = vec![
        task(MaintenanceAction::VacuumAnalyze, "public.t"),
        task(MaintenanceAction::Analyze, "public.t"),
        task(MaintenanceAction::Reindex, "public.ts"),
        task(MaintenanceAction::ReindexTable, "public.t"),
    ];
    let plan = maintenance.plan(tasks).await.expect("a plan");
    assert!(plan.to_string().contains("SHARE UPDATE EXCLUSIVE"), "{plan}");
    let report = done(&maintenance, plan).await;
    let first = &report.steps[0];
    assert_eq!((first.role.as_str(), first.database.as_str()), ("postgres", postgres.database()));
    assert!(report.steps[2].duration_ms >= 1000 && first.bytes_before > 0 && first.bytes_after.is_some(), "{report}");
    let seen = seen.lock().expect("no panic");
    let phases = |step| -> Vec<&str> { seen.iter().filter(|p| p.step == step).map(|p| p.phase.as_str()).collect() };
    for step in 1..=4 {
        assert_eq!((phases(step).first(), phases(step).last()), (Some(&"starting"), Some(&"ended")), "{seen:?}");
    }
    assert!(phases(3).iter().any(|phase| phase.starts_with("building index")), "the server's own words: {seen:?}");
}

async fn a_rewrite_needs_a_name_and_force() {
    let postgres = fixture(
        "create table t as select g id, repeat('x', 500) t from generate_series(1, 5000) g; delete from t where id > 10",
    )
    .await;
    let maintenance = maintenance(&postgres);
    let full = MaintenanceTask::new(MaintenanceAction::VacuumFull, "public.t");
    let error = maintenance.plan(vec![full.clone()]).await.expect_err("no force");
    assert_eq!(error.kind(), ErrorKind::Config);
    let vacuum = MaintenanceTask::new(MaintenanceAction::Vacuum, "public.t");
    let plan = maintenance.plan(vec![full.with_force(), vacuum]).await.expect("a plan");
    assert!(plan.to_string().contains("ACCESS EXCLUSIVE"), "{plan}");
    let report = done(&maintenance, plan.clone()).await;
    let after = report.steps[0].bytes_after.expect("a size");
    assert!(after * 10 < report.steps[0].bytes_before, "{report}");
    let error = maintenance.apply(plan).await.map(drop).expect_err("it was rewritten");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
}

async fn a_plan_of_another_table_is_refused() {
    let postgres = fixture("create table t as select 1 x; create view v as select 1 x; create index ti on t (x)").await;
    let maintenance = maintenance(&postgres);
    let vacuum = |relation: &str| vec![MaintenanceTask::new(MaintenanceAction::Vacuum, relation)];
    let plan = maintenance.plan(vacuum("public.t")).await.expect("a plan");
    let stored = serde_json::to_string(&plan).expect("JSON");
    postgres.execute("alter table t rename to other; create table t as select 2 x").await.expect("another table");
    let plan: MaintenancePlan = serde_json::from_str(&stored).expect("a plan");
    let error = maintenance.apply(plan).await.map(drop).expect_err("another table has the name");
    assert!(error.kind() == ErrorKind::Incompatible && error.to_string().contains("public.t"), "{error}");
    let kind = async |relation: &str| maintenance.plan(vacuum(relation)).await.expect_err(relation).kind();
    assert_eq!((kind("public.none").await, kind("public.v").await), (ErrorKind::NotFound, ErrorKind::NotFound));
    assert_eq!(kind("public.ti").await, ErrorKind::Config, "an index is not vacuumed");
}

/// A role that may only log in, and its maintenance.
pub(crate) async fn plain(postgres: &PostgresFixture) -> (String, PostgresMaintenance) {
    let role = format!("r_{}", postgres.database());
    postgres.execute(&format!("create role {role} login")).await.expect("a role");
    let url = postgres.url().replace("postgres@", &format!("{role}@"));
    let limits = MaintenanceLimits::new().with_rows_min(100);
    (role, Postgres::from_url(&url).expect("a URL").maintenance().with_limits(limits))
}

async fn a_role_without_the_right_is_told_the_grant() {
    let postgres = fixture("create table t as select g from generate_series(1, 500) g").await;
    let (_role, plain) = plain(&postgres).await;
    let vacuum = vec![MaintenanceTask::new(MaintenanceAction::Vacuum, "public.t")];
    let error = plain.plan(vacuum.clone()).await.expect_err("a right is missing");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("GRANT "), "{error}");
    let found = found(&plain, "pg.maintenance.table.never_vacuumed", "public.t").await;
    let plan = plain.plan_for(&found.findings).await.expect("a plan");
    assert!(plan.steps.is_empty() && plan.warnings.iter().any(|warning| warning.contains("GRANT ")), "{plan}");
}

async fn the_owner_of_a_database_may_vacuum_it() {
    let postgres = fixture("create table t as select g from generate_series(1, 500) g").await;
    let (role, plain) = plain(&postgres).await;
    let vacuum = vec![MaintenanceTask::new(MaintenanceAction::Vacuum, "public.t")];
    let forged = maintenance(&postgres).plan(vacuum.clone()).await.expect("a plan");
    let error = plain.apply(forged).await.map(drop).expect_err("a right is missing");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    postgres.execute(&format!("alter database {} owner to {role}", postgres.database())).await.expect("an owner");
    let plan = plain.plan(vacuum).await.expect("the owner of the database may vacuum");
    assert_eq!(done(&plain, plan).await.steps[0].role, role);
}

/// Runs `work` while another session holds what `hold` takes, seen by `is_held`.
async fn while_held<T>(postgres: &PostgresFixture, hold: &str, is_held: &str, work: impl Future<Output = T>) -> T {
    let holding = format!("begin; {hold}; select pg_sleep(60)");
    let holder = postgres.execute(&holding);
    let held = async || {
        let rows = postgres.query(is_held).await.expect("a count");
        (rows[0][0].as_deref() != Some("0")).then_some(())
    };
    let worked = async {
        wait_until("the lock", LONG, held).await.expect("a lock");
        work.await
    };
    let worked = tokio::select! {
        ended = holder => panic!("the lock was given up: {ended:?}"),
        worked = worked => worked,
    };
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(60)' \
        and datname = current_database() and pid <> pg_backend_pid()";
    postgres.query(end).await.expect("the holder is ended");
    let free = async || (postgres.query(is_held).await.expect("a count")[0][0].as_deref() == Some("0")).then_some(());
    wait_until("the end of the lock", LONG, free).await.expect("no lock");
    worked
}

const IS_LOCKED: &str = "select count(*) from pg_locks where granted and relation = 't'::regclass \
    and mode = 'AccessShareLock' and pid <> pg_backend_pid()";

async fn a_locked_table_fails_its_step_alone() {
    let postgres = fixture("create table t as select 1 x; create table free as select 1 x").await;
    let maintenance = maintenance(&postgres);
    let task = |relation: &str| MaintenanceTask::new(MaintenanceAction::VacuumFull, relation).with_force();
    let plan = maintenance.plan(vec![task("public.t"), task("public.free")]).await.expect("a plan");
    let report = while_held(&postgres, "table t", IS_LOCKED, maintenance.apply(plan)).await.expect("a report");
    assert!(!report.is_complete());
    let MaintenanceOutcome::Failed { kind, code, .. } = &report.steps[0].outcome else { panic!("{report}") };
    assert_eq!((*kind, code.as_deref()), (ErrorKind::Busy, Some("55P03")));
    assert_eq!(report.steps[1].outcome, MaintenanceOutcome::Done, "{report}");
}

/// A rebuild waits for transactions that are older, and gives up at the lock timeout.
async fn failed_rebuild(postgres: &PostgresFixture, maintenance: &PostgresMaintenance) -> Result<MaintenanceReport> {
    let reindex = MaintenanceTask::new(MaintenanceAction::Reindex, "public.ti");
    let plan = maintenance.plan(vec![reindex]).await.expect("a plan");
    while_held(postgres, "table t", IS_LOCKED, maintenance.apply(plan)).await
}

async fn a_rebuild_that_failed_is_named_and_cleared() {
    let postgres =
        fixture("create table t as select g x from generate_series(1, 500) g; create index ti on t (x)").await;
    let maintenance = maintenance(&postgres);
    let report = failed_rebuild(&postgres, &maintenance).await.expect("a report");
    assert_eq!((report.is_complete(), report.leftovers.as_slice()), (false, &["public.ti_ccnew".to_owned()][..]));
    let found = found(&maintenance, "pg.maintenance.index.invalid", "public.ti_ccnew").await;
    let finding = found.with_code("pg.maintenance.index.invalid").next().expect("a finding");
    assert_eq!(finding.command, "DROP INDEX CONCURRENTLY public.ti_ccnew");
    let again = MaintenanceTask::new(MaintenanceAction::Reindex, "public.ti");
    let plan = maintenance.plan(vec![again]).await.expect("a plan");
    let statements: Vec<String> = plan.steps.iter().map(|step| step.sql()).collect();
    assert_eq!(statements, ["DROP INDEX CONCURRENTLY public.ti_ccnew", "REINDEX INDEX CONCURRENTLY public.ti"]);
    let report = done(&maintenance, plan).await;
    assert_eq!((report.steps[0].bytes_after, report.leftovers.len()), (None, 0));
}

async fn a_dropped_maintenance_is_cancelled_on_the_server() {
    let postgres = fixture(&SLOW.replace("0.01", "0.5")).await;
    let maintenance = maintenance(&postgres);
    let reindex = MaintenanceTask::new(MaintenanceAction::Reindex, "public.ts");
    let plan = maintenance.plan(vec![reindex]).await.expect("a plan");
    let running = "select count(*) from pg_stat_activity where query like 'REINDEX%' and state = 'active' \
        and datname = current_database()";
    let runs = async || postgres.query(running).await.expect("a count")[0][0].as_deref() == Some("1");
    let begun = async || runs().await.then_some(());
    tokio::select! {
        ended = maintenance.apply(plan) => panic!("it ended: {ended:?}"),
        begun = wait_until("the rebuild to begin", LONG, begun) => begun.expect("it begins"),
    }
    let gone = async || (!runs().await).then_some(());
    // Less than the server needs to notice by itself that the client is gone.
    wait_until("the rebuild to end", Duration::from_secs(5), gone).await.expect("200 s of work are not done");
    let found = found(&maintenance, "pg.maintenance.index.invalid", "public.ts_ccnew").await;
    let invalid: Vec<_> = found.with_code("pg.maintenance.index.invalid").cloned().collect();
    done(&maintenance, maintenance.plan_for(&invalid).await.expect("a plan")).await;
}
