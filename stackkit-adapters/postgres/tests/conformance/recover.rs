//! Processes that are killed in a restore, at every message that they send, and what `recover` makes of it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stackkit_core::backup::DumpContext;
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server, wait_until};
use stackkit_postgres::{Databases, Postgres, PostgresDump, PostgresRestore, RecoveryPlan, RemoveOld};

use tokio_util::task::AbortOnDropHandle;

use crate::memory::{dump, restore};
use crate::tap::{Last, Tap, When};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    killed_while_it_fills_the_target_is_old,
    killed_before_each_message_of_the_swap_the_target_is_old_or_new,
    killed_after_each_message_of_the_swap_the_target_is_old_or_new,
    killed_while_the_renames_wait,
    a_restore_that_runs_is_left_alone,
    a_stale_recovery_is_refused,
    a_swap_in_two_steps_of_former_versions_is_settled,
    replaced_databases_are_removed_when_their_time_is_over,
];

/// Says what to restore, as JSON of [`Urls`], in the environment of a process that restores and does nothing else.
pub(crate) const CHILD: &str = "STACKKIT_TEST_RESTORE";

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// More messages than a restore of [`SHOP`] sends.
const MESSAGES_MAX: usize = 5_000;

/// The messages from the end of filling on: a second connection and its start, the journal, the swap.
const SWAP_MESSAGES: usize = 16;

/// At so many messages before that a restore is killed.
const FILLING_STEPS: usize = 12;

/// Two tables that say which database they are of.
pub(crate) const SHOP: &str = "create table t as select g, 'WHICH'::text as x from generate_series(1, 200) g; \
    create table u as select g, 'WHICH'::text as x from generate_series(1, 200) g; create index on t (x)";

/// A server with the database `shop`, which holds `old`, and `source`, which holds `new`.
pub(crate) struct Shop {
    pub(crate) server: PostgresServer,
}

impl Shop {
    pub(crate) async fn start(options: PostgresOptions) -> Self {
        let server = postgres_server(options.with_tcp("correct-horse-41")).await.expect("a server");
        for (name, content) in [("shop", "old"), ("source", "new")] {
            server.create_database(name).await.expect("a database");
            server.execute_in(name, &SHOP.replace("WHICH", content)).await.expect("tables");
        }
        Self { server }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        self.server.tcp_url_of(database).expect("TCP")
    }

    pub(crate) fn service(&self, database: &str) -> Postgres {
        Postgres::from_url(&self.server.url_of(database)).expect("a URL")
    }

    /// Which data clients find: all of one kind.
    pub(crate) async fn content(&self) -> String {
        let sql = "select distinct x from (table t union all table u) both_tables";
        let rows = self.server.query_in("shop", sql).await.expect("clients can connect");
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0][0].clone().expect("a value")
    }

    /// Runs statements that are no transaction.
    pub(crate) async fn run(&self, sql: &str) {
        for statement in sql.split("; ") {
            self.server.execute_in("postgres", statement).await.expect(statement);
        }
    }

    /// The databases that stand beside the target.
    pub(crate) async fn beside(&self) -> Vec<String> {
        let sql = "select datname from pg_database where starts_with(datname, 'shop_') order by 1";
        self.server.query_in("postgres", sql).await.expect("names").into_iter().flatten().flatten().collect()
    }

    /// A plan as soon as no restore runs any more: a session whose client is dead ends with its statement.
    async fn plan(&self) -> RecoveryPlan {
        let at_work = "select 1 from pg_stat_activity where application_name in ('stackkit', 'pg_restore')";
        let gone =
            async || self.server.query_in("postgres", at_work).await.is_ok_and(|rows| rows.is_empty()).then_some(());
        wait_until("the killed restore's sessions are gone", PATIENCE, gone).await.expect("no session");
        let plan = self.service("shop").plan_recovery().await.expect("a plan");
        assert_eq!(plan.notes, Vec::<String>::new());
        plan
    }

    /// Recovers, and finds that nothing is left to do.
    async fn recover(&self) {
        let service = self.service("shop");
        let plan = self.plan().await;
        let text = plan.to_string();
        service.recover(plan).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let plan = service.plan_recovery().await.expect("a plan");
        assert_eq!((plan.steps, plan.notes), (Vec::new(), Vec::new()), "{text}");
        let beside = self.beside().await;
        assert!(beside.iter().all(|name| name.starts_with("shop__old_")), "{beside:?}");
    }

    /// As it was at the begin.
    async fn reset(&self) {
        let service = self.service("shop");
        let plan = service.plan_removal_of_old(RemoveOld::All).await.expect("a plan");
        service.recover(plan).await.expect("removed");
        assert_eq!(self.beside().await, Vec::<String>::new());
        self.server.execute_in("shop", "update t set x = 'old'; update u set x = 'old'").await.expect("reset");
    }

    pub(crate) async fn restore(&self) {
        let (memory, report) = dump(&self.service("source")).await.expect("a dump");
        restore(&self.service("shop"), &memory, &report).await.expect("a restore");
        assert_eq!(self.content().await, "new");
    }
}

/// What a process restores, and into what.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Urls {
    pub(crate) source: String,
    pub(crate) target: String,
    /// The databases that are restored together; none for the one that the URL names.
    pub(crate) databases: Vec<String>,
}

impl Urls {
    /// One database, through the tap.
    fn of(shop: &Shop, tap: &Tap) -> Self {
        let target = tap.url(&shop.url("shop"), shop.server.port());
        Self { source: shop.server.url_of("source"), target, databases: Vec::new() }
    }

    /// The process.
    fn spawn(&self) -> Child {
        #[expect(clippy::disallowed_methods, reason = "this very program, as a process of its own")]
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        let urls = serde_json::to_string(self).expect("JSON");
        command.env(CHILD, urls).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process")
    }
}

/// Dumps and restores, as a process of its own.
pub(crate) fn child(urls: &str) {
    let Urls { source, target, databases } = serde_json::from_str(urls).expect("JSON");
    let databases = if databases.is_empty() { Databases::Configured } else { Databases::List(databases) };
    let options = PostgresDump::new().with_databases(databases);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = |url: &str| Postgres::from_url(url).expect("a URL").config().clone();
        let source = Postgres::new(config(&source).with_dump(options));
        let (memory, report) = dump(&source).await.expect("a dump");
        restore(&Postgres::new(config(&target)), &memory, &report).await.expect("a restore");
    });
}

async fn ended(mut child: Child) -> bool {
    let status = tokio::task::spawn_blocking(move || child.wait()).await.expect("no panic").expect("a status");
    status.success()
}

/// Kills a restore at its message number `at`; false if it did not send so many.
async fn kill_at(urls: &Urls, tap: &Tap, at: usize, last: Last) -> bool {
    kill_when(urls, tap, When::Number(at), last).await
}

/// Kills a restore at that message; false if it did not send it.
pub(crate) async fn kill_when(urls: &Urls, tap: &Tap, when: When, last: Last) -> bool {
    let pid = Arc::new(AtomicI32::new(0));
    let victim = Arc::clone(&pid);
    tap.arm_when(when, last, move || {
        let victim = Pid::from_raw(victim.load(Ordering::SeqCst)).expect("the child is known");
        kill_process(victim, Signal::KILL).expect("it runs");
    });
    let child = urls.spawn();
    pid.store(i32::try_from(child.id()).expect("a process id"), Ordering::SeqCst);
    let is_done = ended(child).await;
    assert_eq!(tap.disarm(), !is_done, "it ends well, or is killed at {when:?}");
    !is_done
}

async fn killed_while_it_fills_the_target_is_old() {
    let seen = killed_at_steps_of(Part::Filling).await;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["old"]);
}

async fn killed_before_each_message_of_the_swap_the_target_is_old_or_new() {
    let seen = killed_at_steps_of(Part::Swap(Last::Dropped)).await;
    assert!(seen.get("old") > Some(&(SWAP_MESSAGES / 2)), "{seen:?}");
}

async fn killed_after_each_message_of_the_swap_the_target_is_old_or_new() {
    let seen = killed_at_steps_of(Part::Swap(Last::Delivered)).await;
    assert!(seen.get("old") > Some(&(SWAP_MESSAGES / 2)) && seen.contains_key("new"), "{seen:?}");
}

/// How often the target was found old, and how often new.
async fn killed_at_steps_of(part: Part) -> BTreeMap<String, usize> {
    let shop = Shop::start(PostgresOptions::new()).await;
    let tap = Tap::start(shop.server.port()).await;
    let urls = Urls::of(&shop, &tap);
    assert!(!kill_at(&urls, &tap, MESSAGES_MAX, Last::Dropped).await);
    let messages = tap.sent();
    assert_eq!(shop.content().await, "new");
    shop.reset().await;
    let mut seen = BTreeMap::<String, usize>::new();
    for (at, last) in part.of(messages) {
        kill_at(&urls, &tap, at, last).await;
        *seen.entry(settled(&shop).await).or_default() += 1;
    }
    shop.restore().await;
    seen
}

/// Which messages of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Some of those until all is filled: they differ in little.
    Filling,
    /// All of the swap.
    Swap(Last),
}

impl Part {
    /// At which of so many messages to strike.
    pub(crate) fn of(self, messages: usize) -> Vec<(usize, Last)> {
        let first_last = messages.saturating_sub(SWAP_MESSAGES);
        let stride = (first_last / FILLING_STEPS).max(1);
        match self {
            Self::Filling => (1..first_last).step_by(stride).map(|at| (at, Last::Delivered)).collect(),
            // The number of messages varies by those that end sessions: a few more are tried.
            Self::Swap(last) => (first_last..messages + 2).map(|at| (at, last)).collect(),
        }
    }
}

/// Recovers, and gives which data there is, wholly; then all is as at the begin.
async fn settled(shop: &Shop) -> String {
    shop.recover().await;
    let content = shop.content().await;
    assert!(["old", "new"].contains(&content.as_str()), "{content}");
    shop.reset().await;
    content
}

/// The last of the former two statements of the swap is at work in the server when its client dies.
async fn killed_while_the_renames_wait() {
    let shop = Shop::start(PostgresOptions::new()).await;
    let tap = Tap::start(shop.server.port()).await;
    // A stopped process can't be ended, so the renames wait for it.
    let stuck = Stuck::connect(&shop).await;
    let child = Urls::of(&shop, &tap).spawn();
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
    stuck.wait_for_renames(&shop).await;
    kill_process(pid, Signal::KILL).expect("it runs");
    assert!(!ended(child).await);
    drop(stuck);
    // The server does not see that the client is gone before it is done.
    settled(&shop).await;
    shop.restore().await;
}

/// A session of the database `shop` whose server process is stopped. It goes on when dropped.
pub(crate) struct Stuck {
    pid: Pid,
    _session: AbortOnDropHandle<()>,
}

impl Stuck {
    pub(crate) async fn connect(shop: &Shop) -> Self {
        let url = shop.server.url_of("shop");
        let service = Postgres::from_url(&url).expect("a URL");
        // A dump that does not go on is a session.
        let dump = service.begin(&DumpContext::new()).await;
        let dump = dump.expect("a session");
        let sql = "select pid from pg_stat_activity where datname = 'shop' and state = 'idle in transaction'";
        let rows = shop.server.query_in("postgres", sql).await.expect("sessions");
        let pid: i32 = rows[0][0].as_deref().expect("a value").parse().expect("a number");
        let pid = Pid::from_raw(pid).expect("a process id");
        kill_process(pid, Signal::STOP).expect("it runs");
        let holding = tokio::spawn(async move {
            let _dump = dump;
            std::future::pending::<()>().await;
        });
        Self { pid, _session: AbortOnDropHandle::new(holding) }
    }

    /// Until the swap waits for this session to end.
    pub(crate) async fn wait_for_renames(&self, shop: &Shop) {
        let sql = "select 1 from pg_stat_activity where query like 'ALTER DATABASE%COMMIT' and state = 'active'";
        let waits =
            async || shop.server.query_in("postgres", sql).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
        wait_until("the renames wait", PATIENCE, waits).await.expect("a swap");
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        // It may be gone with the server.
        let _ = kill_process(self.pid, Signal::CONT);
    }
}

async fn a_restore_that_runs_is_left_alone() {
    let shop = Shop::start(PostgresOptions::new()).await;
    let stuck = Stuck::connect(&shop).await;
    let service = shop.service("shop");
    let looking = async {
        stuck.wait_for_renames(&shop).await;
        let plan = service.plan_recovery().await.expect("a plan");
        assert_eq!((plan.steps.len(), plan.notes.len()), (0, 1), "{plan}");
        assert!(plan.to_string().contains("is being filled by a restore that runs"), "{plan}");
        service.recover(plan).await.expect("nothing to do");
        drop(stuck);
    };
    tokio::join!(shop.restore(), looking);
}

async fn a_stale_recovery_is_refused() {
    let shop = Shop::start(PostgresOptions::new()).await;
    shop.restore().await;
    let service = shop.service("shop");
    let plan = service.plan_removal_of_old(RemoveOld::All).await.expect("a plan");
    assert_eq!(plan.steps.len(), 1, "{plan}");
    let kept = plan.steps[0].database.clone();
    let rename = format!("alter database {kept} rename to rescued");
    shop.server.execute_in("postgres", &rename).await.expect("renamed");
    let error = service.recover(plan.clone()).await.expect_err("it has another name");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    let fresh = service.plan_removal_of_old(RemoveOld::All).await.expect("a plan");
    assert!(fresh.steps.is_empty(), "what somebody renamed is theirs: {fresh}");
    let mut forged = fresh;
    forged.steps = plan.steps;
    forged.steps[0].database = "source".to_owned();
    let error = service.recover(forged).await.expect_err("no plan had this step");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    shop.server.query_in("source", "table t").await.expect("it is there");
}

/// The halves of a swap that was two renames with the old database closed, and what each becomes.
async fn a_swap_in_two_steps_of_former_versions_is_settled() {
    let shop = Shop::start(PostgresOptions::new()).await;
    let stamp = "20261121_141303_007";
    let old = format!("shop__old_{stamp}");
    let filled = format!("create database shop__sk_{stamp} template source");
    let close = "alter database shop allow_connections false";
    let aside = format!("{close}; alter database shop rename to {old}");
    for (left, content, beside) in [
        (format!("{filled}; {close}"), "old", 0),
        (format!("{filled}; {aside}"), "new", 1),
        (format!("alter database {old} allow_connections false"), "new", 1),
        (format!("drop database {old}; {aside}"), "new", 0),
    ] {
        shop.run(&left).await;
        shop.recover().await;
        assert_eq!((shop.content().await.as_str(), shop.beside().await.len()), (content, beside), "{left}");
        for name in shop.beside().await {
            shop.server.query_in(&name, "table t").await.expect("clients can connect");
        }
    }
}

async fn replaced_databases_are_removed_when_their_time_is_over() {
    let shop = Shop::start(PostgresOptions::new()).await;
    let (memory, report) = dump(&shop.service("source")).await.expect("a dump");
    let keeping = |time| {
        let restore = PostgresRestore::new().with_keep_old(time);
        Postgres::new(shop.service("shop").config().clone().with_restore(restore))
    };
    for time in [Duration::ZERO, Duration::from_secs(3600)] {
        restore(&keeping(time), &memory, &report).await.expect("a restore");
    }
    shop.restore().await;
    assert_eq!(shop.beside().await.len(), 3);
    let service = shop.service("shop");
    for (which, left) in [(RemoveOld::Expired, 2), (RemoveOld::Expired, 2), (RemoveOld::All, 0)] {
        let plan = service.plan_removal_of_old(which).await.expect("a plan");
        service.recover(plan).await.expect("removed");
        assert_eq!(shop.beside().await.len(), left);
    }
    assert_eq!(shop.content().await, "new");
}
