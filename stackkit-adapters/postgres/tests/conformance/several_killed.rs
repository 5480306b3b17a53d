//! Processes that are killed while they swap several databases: afterwards all are old, or all are new.

use std::collections::BTreeSet;
use std::time::Duration;

use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server, wait_until};
use stackkit_postgres::{Postgres, RemoveOld};

use crate::recover::{Urls, kill_when};
use crate::tap::{Last, Tap, When};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    killed_before_each_message_of_a_swap_of_several_all_are_old_or_all_new,
    killed_after_each_message_of_a_swap_of_several_all_are_old_or_all_new,
];

/// The databases of the backup. The first is the handle's.
const NAMES: [&str; 3] = ["shop", "crm", "a.b"];

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// More messages than such a restore sends.
const MESSAGES_MAX: usize = 5_000;

/// The last messages of it: the look at each database, and the transaction of the swap.
const SWAP_MESSAGES: usize = 12;

/// Those before: journals, and comparing. They differ in little, so not each is tried.
const MESSAGES_BEFORE: usize = 16;
const STRIDE: usize = 8;

/// How many messages it is varies with who does what, so it is tried on until so many restores came to their end.
const UNHARMED_MAX: usize = 2;

/// One server with the new data, and one with the old.
struct Several {
    source: PostgresServer,
    target: PostgresServer,
}

impl Several {
    async fn start() -> Self {
        let source = postgres_server(PostgresOptions::new()).await.expect("a server");
        let target = postgres_server(PostgresOptions::new().with_tcp("correct-horse-42")).await.expect("a server");
        for (server, content) in [(&source, "new"), (&target, "old")] {
            for name in NAMES {
                server.create_database(name).await.expect("a database");
                let rows = format!("create table t as select g, '{content}'::text as x from generate_series(1, 20) g");
                server.execute_in(name, &rows).await.expect("rows");
            }
        }
        Self { source, target }
    }

    fn handle(&self) -> Postgres {
        Postgres::from_url(&self.target.url_of(NAMES[0])).expect("a URL")
    }

    fn urls(&self, tap: &Tap) -> Urls {
        let target = self.target.tcp_url_of(NAMES[0]).expect("TCP");
        Urls {
            source: self.source.url_of(NAMES[0]),
            target: tap.url(&target, self.target.port()),
            databases: NAMES.map(str::to_owned).to_vec(),
        }
    }

    /// Which data clients find in all databases: of one kind.
    async fn content(&self) -> String {
        let mut found = BTreeSet::new();
        for name in NAMES {
            let rows = self.target.query_in(name, "select distinct x from t").await.expect("clients can connect");
            found.extend(rows.into_iter().flatten().flatten());
        }
        assert_eq!(found.len(), 1, "all are old or all are new: {found:?}");
        found.pop_first().expect("one")
    }

    /// The databases that stand beside those with the names.
    async fn beside(&self) -> Vec<String> {
        let sql = "select datname from pg_database where datname ~ '__(sk|old)_' order by 1";
        self.target.query_in("postgres", sql).await.expect("names").into_iter().flatten().flatten().collect()
    }

    /// Recovers, and gives which data there is; then all is as at the begin.
    async fn settled(&self) -> String {
        let at_work = "select 1 from pg_stat_activity where application_name = 'stackkit'";
        let gone =
            async || self.target.query_in("postgres", at_work).await.is_ok_and(|rows| rows.is_empty()).then_some(());
        wait_until("the killed restore's sessions are gone", PATIENCE, gone).await.expect("no session");
        let handle = self.handle();
        let plan = handle.plan_recovery().await.expect("a plan");
        assert_eq!(plan.notes, Vec::<String>::new());
        handle.recover(plan).await.expect("a recovery");
        let plan = handle.plan_recovery().await.expect("a plan");
        assert_eq!((plan.steps, plan.notes), (Vec::new(), Vec::new()));
        let content = self.content().await;
        self.replaced_ones_are_kept(if content == "new" { NAMES.len() } else { 0 }).await;
        self.reset().await;
        content
    }

    async fn replaced_ones_are_kept(&self, count: usize) {
        let beside = self.beside().await;
        assert!(beside.len() == count && beside.iter().all(|name| name.contains("__old_")), "{count}: {beside:?}");
        for name in &beside {
            let rows = self.target.query_in(name, "select distinct x from t").await.expect("clients can connect");
            assert_eq!(rows, [[Some("old".to_owned())]], "{name}");
        }
    }

    async fn reset(&self) {
        let handle = self.handle();
        let plan = handle.plan_removal_of_old(RemoveOld::All).await.expect("a plan");
        handle.recover(plan).await.expect("removed");
        assert_eq!(self.beside().await, Vec::<String>::new());
        for name in NAMES {
            self.target.execute_in(name, "update t set x = 'old'").await.expect("reset");
        }
    }
}

async fn killed_before_each_message_of_a_swap_of_several_all_are_old_or_all_new() {
    killed_at_each_message(Last::Dropped, "old").await;
}

async fn killed_after_each_message_of_a_swap_of_several_all_are_old_or_all_new() {
    killed_at_each_message(Last::Delivered, "new").await;
}

/// Kills at the message of the renames first, after which all are `renamed`, and then at each of the last messages.
async fn killed_at_each_message(last: Last, renamed: &str) {
    let several = Several::start().await;
    let tap = Tap::start(several.target.port()).await;
    let urls = several.urls(&tap);
    let killed_at = async |when| {
        let is_killed = kill_when(&urls, &tap, when, last).await;
        (is_killed, several.settled().await)
    };
    assert_eq!(killed_at(When::Holds("RENAME TO")).await, (true, renamed.to_owned()));
    assert_eq!(killed_at(When::Number(MESSAGES_MAX)).await, (false, "new".to_owned()));
    let swap = tap.sent().saturating_sub(SWAP_MESSAGES);
    let mut at = (swap.saturating_sub(MESSAGES_BEFORE)..swap).step_by(STRIDE).chain(swap..).map(When::Number);
    let (mut killed, mut unharmed) = (0, 0);
    while unharmed < UNHARMED_MAX {
        match killed_at(at.next().expect("it has no end")).await {
            (true, _old_or_new) => killed += 1,
            (false, content) => {
                assert_eq!(content, "new");
                unharmed += 1;
            }
        }
    }
    assert!(killed > SWAP_MESSAGES / 2, "{killed} killed");
}
