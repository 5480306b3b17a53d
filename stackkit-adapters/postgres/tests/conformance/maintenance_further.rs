//! Maintenance of what stands beside a table: what it keeps aside, the partitions above it; and who may do it.

use stackkit_core::ErrorKind;
use stackkit_postgres::{MaintenanceAction, MaintenanceTask};

use crate::maintenance::{done, fixture, found, maintenance, plain};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    bloat_of_what_a_table_keeps_aside_is_found,
    a_partitioned_table_is_analyzed,
    the_grant_to_maintain_is_enough,
];

const TOAST_BLOAT: &str = "pg.maintenance.table.toast_bloat";

async fn bloat_of_what_a_table_keeps_aside_is_found() {
    let postgres = fixture(
        "create table t (id int, x text); alter table t alter x set storage external; \
         insert into t select g, repeat('x', 20000) from generate_series(1, 500) g; \
         create table packed (id int, x text); alter table packed alter x set storage external; \
         insert into packed select g, repeat('x', 19960) from generate_series(1, 100) g; delete from t where id % 5 <> 0",
    )
    .await;
    postgres.execute("vacuum t").await.expect("a vacuum");
    postgres.execute("vacuum packed").await.expect("a vacuum");
    let maintenance = maintenance(&postgres);
    let bloated = async |method: &str| {
        let found = found(&maintenance, TOAST_BLOAT, "public.t").await;
        let tables: Vec<_> = found.with_code(TOAST_BLOAT).collect();
        assert_eq!((tables.len(), tables[0].message.contains(method)), (1, true), "{found}");
        let (ratio, size) = (tables[0].numbers["bloat_ratio"], tables[0].numbers["size_bytes"]);
        assert!((0.7..0.85).contains(&ratio) && size > 1e7, "four fifths are gone: {ratio} of {size} ({method})");
        assert_eq!(tables[0].command, "VACUUM (FULL, ANALYZE) public.t");
    };
    bloated("estimated").await;
    let available = "select count(*) from pg_available_extensions where name = 'pgstattuple'";
    if postgres.query(available).await.expect("a count")[0][0].as_deref() == Some("1") {
        postgres.execute("create extension pgstattuple").await.expect("the extension");
        bloated("measured").await;
    }
    let full = MaintenanceTask::new(MaintenanceAction::VacuumFull, "public.t").with_force();
    let report = done(&maintenance, maintenance.plan(vec![full]).await.expect("a plan")).await;
    assert!(report.steps[0].bytes_after.expect("a size") * 3 < report.steps[0].bytes_before, "{report}");
    postgres.execute("vacuum t").await.expect("a vacuum");
    let found = maintenance.findings().await.expect("findings");
    assert_eq!(found.with_code(TOAST_BLOAT).count(), 0, "{found}");
}

/// The server's own workers analyze partitions, but not what is above them.
async fn a_partitioned_table_is_analyzed() {
    let postgres = fixture(
        "create table parted (id int) partition by range (id); \
         create table low partition of parted for values from (0) to (1000); \
         create table high partition of parted for values from (1000) to (9000) partition by range (id); \
         create table higher partition of high for values from (1000) to (9000); \
         create table none (id int) partition by range (id); \
         insert into parted select generate_series(0, 2999)",
    )
    .await;
    for leaf in ["low", "higher"] {
        postgres.execute(&format!("vacuum (analyze) {leaf}")).await.expect("statistics");
    }
    let maintenance = maintenance(&postgres);
    let code = "pg.maintenance.table.never_analyzed";
    let found = found(&maintenance, code, "public.parted").await;
    let relations: Vec<&str> = found.with_code(code).map(|finding| finding.relation.as_str()).collect();
    assert_eq!(relations, ["public.high", "public.parted"], "{found}");
    let finding = found.with_code(code).find(|finding| finding.relation == "public.parted").expect("a finding");
    assert_eq!((finding.numbers["live_rows_count"], finding.command.as_str()), (3000.0, "ANALYZE public.parted"));
    let plan = maintenance.plan_for(&found.findings).await.expect("a plan");
    done(&maintenance, plan).await;
    let rows = "select count(*) from pg_stats where inherited and tablename in ('parted', 'high')";
    assert_eq!(postgres.query(rows).await.expect("a count")[0][0].as_deref(), Some("2"));
    let mended = async || {
        let found = maintenance.findings().await.expect("findings");
        (found.with_code(code).count() == 0).then_some(())
    };
    let limit = std::time::Duration::from_secs(60);
    stackkit_fixtures::wait_until("the finding to go", limit, mended).await.expect("the command mends it");
}

async fn the_grant_to_maintain_is_enough() {
    let postgres =
        fixture("create table t as select g x from generate_series(1, 500) g; create index ti on t (x)").await;
    let (role, plain) = plain(&postgres).await;
    let task = MaintenanceTask::new;
    let tasks = || {
        vec![
            task(MaintenanceAction::VacuumAnalyze, "public.t"),
            task(MaintenanceAction::Reindex, "public.ti"),
            task(MaintenanceAction::ReindexTable, "public.t"),
            task(MaintenanceAction::VacuumFull, "public.t").with_force(),
        ]
    };
    let error = plain.plan(tasks()).await.expect_err("a right is missing");
    let has_grant = postgres.server().major() >= 17;
    assert_eq!((error.kind(), error.to_string().contains("GRANT MAINTAIN")), (ErrorKind::PermissionDenied, has_grant));
    if !has_grant {
        return;
    }
    for (grant, revoke) in [
        (format!("grant maintain on t to {role}"), format!("revoke maintain on t from {role}")),
        (format!("grant pg_maintain to {role}"), format!("revoke pg_maintain from {role}")),
    ] {
        postgres.execute(&grant).await.expect("a grant");
        let report = done(&plain, plain.plan(tasks()).await.expect("the right is enough")).await;
        assert_eq!((report.steps.len(), report.steps[0].role.as_str()), (4, role.as_str()));
        let plan = plain.plan(tasks()).await.expect("a plan");
        postgres.execute(&revoke).await.expect("revoked");
        let error = plain.apply(plan).await.map(drop).expect_err("the right is gone");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    }
}
