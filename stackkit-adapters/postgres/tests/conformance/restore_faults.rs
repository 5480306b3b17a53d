//! Restores over connections, servers and settings that fail: the target is told right, and what is left is named.

use std::time::Duration;

use stackkit_core::backup::{DumpReport, RestoreContext, RestoreOptions, RestoreReport, TargetState};
use stackkit_core::{BackupProvider, Error, ErrorKind, Result};
use stackkit_fixtures::{PoolMode, PostgresOptions, pgbouncer, wait_until};
use stackkit_postgres::{Engine, Postgres, PostgresDump, PostgresRestore, RemoveOld};

use crate::memory::{Memory, dump, restore};
use crate::recover::{Part, Shop, Stuck};
use crate::tap::{Last, Tap};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    cut_while_it_fills_the_target_is_old,
    cut_before_each_message_of_the_swap_the_target_is_told_right,
    cut_after_each_message_of_the_swap_the_target_is_told_right,
    a_server_that_crashes_while_data_is_loaded_keeps_the_old_data,
    a_server_that_crashes_in_the_swap_keeps_the_old_data,
    timeouts_of_the_server_the_role_and_the_database_do_not_end_a_restore,
    a_lock_on_a_table_of_the_target_does_not_stop_a_restore,
];

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// More messages than the restore sends.
const MESSAGES_MAX: usize = 5_000;

impl Shop {
    /// The dump to restore.
    async fn dumped(&self) -> (Memory, DumpReport) {
        dump(&self.service("source")).await.expect("a dump")
    }

    /// What the outcome says is what clients find, and every database that is left over is named.
    async fn told_right(&self, restored: &Result<RestoreReport>) {
        let content = self.content().await;
        let beside = self.beside().await;
        match restored {
            Ok(report) => {
                assert_eq!(content, "new");
                let kept: Vec<String> = report.old_data_kept_as.iter().cloned().collect();
                assert_eq!(beside, kept);
            }
            Err(error) => {
                assert_eq!((error.target(), content.as_str()), (Some(TargetState::Old), "old"), "{error:?}");
                let named =
                    |name: &String| error.context().any(|(key, value)| key == "left_over_database" && value == name);
                assert!(beside.iter().all(named), "{beside:?}: {error:?}");
            }
        }
    }

    /// Removes what is left, and makes the data old again.
    async fn as_before(&self) {
        let service = self.service("shop");
        let at_work = "select 1 from pg_stat_activity where application_name in ('stackkit', 'pg_restore')";
        let gone =
            async || self.server.query_in("postgres", at_work).await.is_ok_and(|rows| rows.is_empty()).then_some(());
        wait_until("the sessions are gone", PATIENCE, gone).await.expect("no session");
        let plan = service.plan_recovery().await.expect("a plan");
        service.recover(plan).await.expect("recovered");
        let plan = service.plan_removal_of_old(RemoveOld::All).await.expect("a plan");
        service.recover(plan).await.expect("removed");
        assert_eq!(self.beside().await, Vec::<String>::new());
        self.server.execute_in("shop", "update t set x = 'old'; update u set x = 'old'").await.expect("reset");
    }
}

/// Plans and restores.
async fn run(service: &Postgres, memory: &Memory, report: &DumpReport) -> Result<RestoreReport> {
    let old = |error: Error| error.with_target(TargetState::Old);
    let plan = service.plan_restore(memory, &RestoreOptions::new()).await.map_err(old)?;
    service.restore(plan, memory, &RestoreContext::new().with_expected(report.census.clone())).await
}

async fn cut_while_it_fills_the_target_is_old() {
    let (failed, done) = cut_at_steps_of(Part::Filling).await;
    assert!(failed > 0 && done == 0, "{failed} failed, {done} done");
}

async fn cut_before_each_message_of_the_swap_the_target_is_told_right() {
    let (failed, _done) = cut_at_steps_of(Part::Swap(Last::Dropped)).await;
    assert!(failed > 8, "{failed} failed");
}

async fn cut_after_each_message_of_the_swap_the_target_is_told_right() {
    let (failed, done) = cut_at_steps_of(Part::Swap(Last::Delivered)).await;
    assert!(failed > 8 && done > 0, "{failed} failed, {done} done");
}

/// How many restores failed, and how many were done all the same.
async fn cut_at_steps_of(part: Part) -> (usize, usize) {
    let shop = Shop::start(PostgresOptions::new()).await;
    let tap = Tap::start(shop.server.port()).await;
    let service = Postgres::from_url(&tap.url(&shop.url("shop"), shop.server.port())).expect("a URL");
    let (memory, report) = shop.dumped().await;
    tap.arm(MESSAGES_MAX, Last::Dropped, || {});
    run(&service, &memory, &report).await.expect("a restore");
    let messages = tap.sent();
    assert!(!tap.disarm());
    shop.as_before().await;
    let (mut failed, mut done) = (0, 0);
    for (at, last) in part.of(messages) {
        tap.arm(at, last, || {});
        let restored = run(&service, &memory, &report).await;
        tap.disarm();
        if restored.is_ok() {
            done += 1
        } else {
            failed += 1
        }
        shop.told_right(&restored).await;
        shop.as_before().await;
    }
    (failed, done)
}

async fn a_server_that_crashes_while_data_is_loaded_keeps_the_old_data() {
    let mut shop = Shop::start(PostgresOptions::new()).await;
    // The constraint holds the restore up until the server is gone.
    let slow = "create function slow(text) returns boolean language sql as $$ \
            select case when current_database() ~ '__sk_' then pg_catalog.pg_sleep(60) is not null else true end $$; \
        alter table u add check (slow(x))";
    shop.server.execute_in("source", slow).await.expect("a constraint");
    let (memory, report) = shop.dumped().await;
    let service = shop.service("shop");
    let restoring = tokio::spawn(async move { run(&service, &memory, &report).await });
    let asleep = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname ~ '__sk_'";
    let asleep =
        async || shop.server.query_in("postgres", asleep).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
    wait_until("the restore loads", PATIENCE, asleep).await.expect("a load");
    shop.server.restart_immediate().await.expect("a server");
    let restored = restoring.await.expect("no panic");
    assert!(restored.is_err());
    shop.told_right(&restored).await;
    shop.as_before().await;
}

async fn a_server_that_crashes_in_the_swap_keeps_the_old_data() {
    let mut shop = Shop::start(PostgresOptions::new()).await;
    let (memory, report) = shop.dumped().await;
    let service = shop.service("shop");
    let stuck = Stuck::connect(&shop).await;
    let restoring = tokio::spawn(async move { run(&service, &memory, &report).await });
    stuck.wait_for_renames(&shop).await;
    shop.server.restart_immediate().await.expect("a server");
    let restored = restoring.await.expect("no panic");
    let error = restored.as_ref().expect_err("the server crashed before the commit");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    shop.told_right(&restored).await;
    assert_eq!(shop.beside().await, Vec::<String>::new());
    shop.restore().await;
}

async fn timeouts_of_the_server_the_role_and_the_database_do_not_end_a_restore() {
    let shop = Shop::start(PostgresOptions::new()).await;
    // Longer than any of them, in a statement of the load.
    let slow = "create function slow(text) returns boolean language sql as \
            $$ select pg_catalog.pg_sleep(0.004) is not null $$; alter table u add check (slow(x)) not valid";
    shop.server.execute_in("source", slow).await.expect("a constraint");
    let (memory, report) = shop.dumped().await;
    shop.run("create role restorer superuser login").await;
    for name in ["statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "lock_timeout"] {
        let set = format!(
            "alter role postgres set {name} = 0; alter system set {name} = '400ms'; \
             alter role restorer set {name} = '300ms'; alter database shop set {name} = '200ms'"
        );
        shop.run(&set).await;
    }
    shop.run("select pg_reload_conf()").await;
    let url = shop.server.url_of("shop").replace("postgres@", "restorer@");
    let service = Postgres::from_url(&url).expect("a URL");
    restore(&service, &memory, &report).await.expect("a restore");
    let settings = "select count(*) from pg_db_role_setting s, unnest(setconfig) c, pg_database d \
        where s.setdatabase = d.oid and d.datname = 'shop'";
    let kept = shop.server.query_in("postgres", settings).await.expect("settings");
    assert_eq!(kept, [[Some("4".to_owned())]], "the database's own settings come with the swap");
}

/// The session that holds it is ended at the swap; only reading the target waits, with a limit.
async fn a_lock_on_a_table_of_the_target_does_not_stop_a_restore() {
    let shop = Shop::start(PostgresOptions::new()).await;
    let (memory, report) = shop.dumped().await;
    let service = Postgres::new(shop.service("shop").config().clone().with_lock_timeout(Duration::from_millis(300)));
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let share = shop.server.query_in("shop", "begin; lock table t in exclusive mode; select pg_sleep(60)");
    let restoring = async {
        let asleep = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = 'shop'";
        let asleep =
            async || shop.server.query_in("postgres", asleep).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
        wait_until("the lock is held", PATIENCE, asleep).await.expect("a lock");
        service.restore(plan, &memory, &RestoreContext::new().with_expected(report.census.clone())).await
    };
    let (held, restored) = tokio::join!(share, restoring);
    held.expect_err("its session was ended");
    restored.expect("a restore");
    assert_eq!(shop.content().await, "new");

    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let exclusive = shop.server.query_in("shop", "begin; lock table t; select pg_sleep(60)");
    let restoring = async {
        let asleep = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = 'shop'";
        let asleep =
            async || shop.server.query_in("postgres", asleep).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
        wait_until("the lock is held", PATIENCE, asleep).await.expect("a lock");
        service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("the target can't be read")
    };
    let error = tokio::select! {
        ended = exclusive => panic!("it sleeps for a minute: {ended:?}"),
        error = restoring => error,
    };
    assert_eq!((error.kind(), error.target()), (ErrorKind::Busy, Some(TargetState::Old)), "{error:?}");
    assert_eq!(shop.beside().await.len(), 1);
}

/// Needs pgbouncer.
pub(crate) async fn a_pooler_in_transaction_mode_is_explained() -> Result<()> {
    let shop = Shop::start(PostgresOptions::new()).await;
    let (memory, report) = shop.dumped().await;
    let pooler = pgbouncer(&shop.server, PoolMode::Transaction).await?;
    let service = Postgres::from_url(&pooler.url_of("shop")).expect("a URL");
    let restored = run(&service, &memory, &report).await;
    let error = restored.as_ref().expect_err("locks of a session vanish");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.to_string().contains("a pooler in transaction mode is in between"), "{error}");
    shop.told_right(&restored).await;
    assert_eq!(shop.beside().await, Vec::<String>::new());
    Ok(())
}

/// Needs pgbouncer.
pub(crate) async fn a_pooler_in_session_mode_is_enough() -> Result<()> {
    let shop = Shop::start(PostgresOptions::new()).await;
    // `pg_restore` sends options, which pgbouncer refuses.
    let parallel = PostgresDump::new().with_engine(Engine::Parallel);
    let source = Postgres::new(shop.service("source").config().clone().with_dump(parallel));
    let (memory, report) = dump(&source).await.expect("a dump");
    let pooler = pgbouncer(&shop.server, PoolMode::Session).await?;
    // The fixture has two connections for a database.
    let one = PostgresRestore::new().with_jobs(1);
    let config = Postgres::from_url(&pooler.url_of("shop")).expect("a URL").config().clone().with_restore(one);
    let service = Postgres::new(config);
    let restored = run(&service, &memory, &report).await;
    restored.as_ref().expect("a restore");
    shop.told_right(&restored).await;
    Ok(())
}
