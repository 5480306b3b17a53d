//! The restore of a dump of several databases, and rows that are compared by their hashes.

use stackkit_core::backup::{DumpReport, RestoreContext, RestoreOptions, TargetState};
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::PostgresFixture;
use stackkit_postgres::{Databases, Postgres, PostgresDump, PostgresRestore, Strategy};

use crate::backup::filled;
use crate::memory::{Memory, restore};
use crate::parallel_dump::parallel;
use crate::restore::{WIPE, content, databases_like};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    several_databases_are_restored_together,
    the_plan_covers_every_database,
    one_of_several_is_restored,
    damage_in_one_leaves_all_old,
    a_failed_rename_of_one_leaves_all_old,
    several_do_not_go_into_one,
    what_is_left_of_several_is_recovered,
    a_changed_row_is_found_by_its_hash,
];

/// Three databases: the fixture's, one whose name has a dot, and one with nothing but a table. And the dump of them.
struct Three {
    postgres: PostgresFixture,
    service: Postgres,
    names: [String; 3],
    memory: Memory,
    report: DumpReport,
}

impl Three {
    async fn dumped() -> Self {
        let (postgres, service) = filled().await;
        let name = postgres.database();
        let names = [name.to_owned(), format!("{name}.b"), format!("{name}_c")];
        for (other, rows) in [(&names[1], 7), (&names[2], 1)] {
            postgres.server().create_database(other).await.expect("a database");
            let rows = format!("create table t as select g as id from generate_series(1, {rows}) g");
            postgres.server().execute_in(other, &rows).await.expect("rows");
        }
        let options = PostgresDump::new().with_databases(Databases::List(names.to_vec())).with_row_hashes(true);
        let (memory, report) = parallel(&service, options).await.expect("a dump");
        Self { postgres, service, names, memory, report }
    }

    fn with(&self, options: PostgresRestore) -> Postgres {
        Postgres::new(self.service.config().clone().with_restore(options))
    }

    /// How many rows the second and the third have.
    async fn rows(&self, database: &str) -> String {
        let rows = self.postgres.server().query_in(database, "select count(*) from t").await.expect("a count");
        rows[0][0].clone().expect("a count")
    }

    async fn execute(&self, database: &str, sql: &str) {
        self.postgres.server().execute_in(database, sql).await.expect(sql);
    }

    /// Removes what the fixture does not know of.
    async fn removed(self) {
        for mark in [".b", "_c"] {
            for name in databases_like(&self.postgres, mark).await {
                self.execute("postgres", &format!("drop database \"{name}\" with (force)")).await;
            }
        }
    }
}

async fn several_databases_are_restored_together() {
    let three = Three::dumped().await;
    let [first, second, third] = &three.names;
    let before = content(&three.postgres, first).await;
    three.postgres.execute(WIPE).await.expect("a wipe");
    three.execute(second, "delete from t where id > 1").await;
    three.execute("postgres", &format!("drop database \"{third}\"")).await;
    let restored = restore(&three.service, &three.memory, &three.report).await.expect("a restore");
    assert_eq!(restored.census.counts, three.report.census.counts);
    assert_eq!(content(&three.postgres, first).await, before);
    assert_eq!((three.rows(second).await.as_str(), three.rows(third).await.as_str()), ("7", "1"));
    old_ones_are_kept(&three, &restored.old_data_kept_as.expect("two names")).await;
    three.removed().await;
}

async fn old_ones_are_kept(three: &Three, names: &str) {
    let kept: Vec<&str> = names.split(", ").collect();
    assert_eq!((kept.len(), three.rows(kept[1]).await.as_str()), (2, "1"), "the old ones, as they were: {kept:?}");
}

async fn the_plan_covers_every_database() {
    let three = Three::dumped().await;
    let [_, second, third] = &three.names;
    assert_eq!(three.report.census.count(&format!("databases.\"{second}\".tables.public.t.rows")), 7);
    three.execute("postgres", &format!("drop database \"{third}\"")).await;
    let plan = three.service.plan_restore(&three.memory, &RestoreOptions::new()).await.expect("a plan");
    let text = plan.to_string();
    assert_eq!(plan.actions.len(), 3 + 3 + 1, "two are replaced, one is made: {text}");
    assert!(three.names.iter().all(|name| text.contains(&format!("database {name}"))), "{text}");
    three.execute(second, "insert into t values (1)").await;
    let stale = three.service.restore(plan, &three.memory, &RestoreContext::new()).await.expect_err("a row more");
    assert_eq!((stale.kind(), stale.target()), (ErrorKind::Incompatible, Some(TargetState::Old)), "{stale:?}");
    three.removed().await;
}

async fn one_of_several_is_restored() {
    let three = Three::dumped().await;
    let [_, second, third] = &three.names;
    three.execute(second, "delete from t").await;
    three.execute(third, "delete from t").await;
    let one = three.with(PostgresRestore::new().only_databases([second]));
    let plan = one.plan_restore(&three.memory, &RestoreOptions::new()).await.expect("a plan");
    let is_other = |name: String| name.starts_with("d1.") || name.starts_with("d3.");
    assert!(!plan.artifacts.iter().any(|name| is_other(name.to_string())), "{:?}", plan.artifacts);
    let restored = restore(&one, &three.memory, &three.report).await.expect("a restore");
    assert_eq!(restored.census.count(&format!("databases.\"{second}\".tables.public.t.rows")), 7);
    assert_eq!((three.rows(second).await.as_str(), three.rows(third).await.as_str()), ("7", "0"));
    let unknown = three.with(PostgresRestore::new().only_databases(["nowhere"]));
    let error = unknown.plan_restore(&three.memory, &RestoreOptions::new()).await.expect_err("no such database");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    three.removed().await;
}

async fn damage_in_one_leaves_all_old() {
    let three = Three::dumped().await;
    let [_, second, third] = &three.names;
    three.execute(second, "delete from t").await;
    let name = three.memory.names().into_iter().find(|name| name.starts_with("d3.tables")).expect("rows");
    let mut bytes = three.memory.bytes_of(&name);
    // The only row of the last database.
    let at = bytes.windows(3).position(|row| row == b"1\n\\").expect("a row");
    bytes[at] = b'2';
    three.memory.put(&name, "tar-pax", bytes);
    let error = restore(&three.service, &three.memory, &three.report).await.expect_err("another row");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error:?}");
    assert!(error.to_string().contains(&format!("database={third}")), "{error}");
    assert_eq!((three.rows(second).await.as_str(), three.rows(third).await.as_str()), ("0", "1"));
    for mark in ["__", ".b__", "_c__"] {
        assert!(databases_like(&three.postgres, mark).await.is_empty(), "{mark}");
    }
    three.removed().await;
}

async fn a_failed_rename_of_one_leaves_all_old() {
    let three = Three::dumped().await;
    let [_, second, third] = &three.names;
    three.execute(second, "delete from t").await;
    let mut plan = three.service.plan_restore(&three.memory, &RestoreOptions::new()).await.expect("a plan");
    // The renames before it succeed in their transaction.
    let detail = format!("old_database_kept_as.{third}");
    assert!(plan.details.insert(detail, "postgres".into()).is_some(), "{:?}", plan.details);
    let error = three.service.restore(plan, &three.memory, &RestoreContext::new()).await.expect_err("a taken name");
    assert_eq!((error.kind(), error.target()), (ErrorKind::AlreadyExists, Some(TargetState::Old)), "{error:?}");
    assert_eq!((three.rows(second).await.as_str(), three.rows(third).await.as_str()), ("0", "1"));
    for mark in ["__", ".b__", "_c__"] {
        assert!(databases_like(&three.postgres, mark).await.is_empty(), "{mark}");
    }
    three.removed().await;
}

async fn several_do_not_go_into_one() {
    let three = Three::dumped().await;
    let [_, second, _] = &three.names;
    let name = format!("{}_c_new", three.names[0]);
    let into = PostgresRestore::new().with_strategy(Strategy::IntoNew(name.clone()));
    let all = three.with(into.clone());
    let error = all.plan_restore(&three.memory, &RestoreOptions::new()).await.expect_err("three into one");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("only_databases"), "{error}");
    restore(&three.with(into.only_databases([second])), &three.memory, &three.report).await.expect("one into one");
    assert_eq!(three.rows(&name).await, "7");
    three.removed().await;
}

async fn what_is_left_of_several_is_recovered() {
    let three = Three::dumped().await;
    let [first, second, _] = &three.names;
    let left = format!("{second}__sk_20261121_141303_007");
    let journal = |of: &str| {
        format!(
            r#"{{"stackkit":1,"state":"filling","target":"{second}","of":"{of}","target_oid":null,"kept_as":"x",
            "old_data":"keep","started":"2026-11-21T14:13:03Z","pid":1}}"#
        )
    };
    three.postgres.server().create_database(&left).await.expect("a database");
    for (of, steps) in [("another", 0), (first.as_str(), 1)] {
        three.execute("postgres", &format!("comment on database \"{left}\" is '{}'", journal(of))).await;
        let plan = three.service.plan_recovery().await.expect("a plan");
        assert_eq!(plan.steps.len(), steps, "{plan}");
        three.service.recover(plan).await.expect("a recovery");
    }
    assert!(!databases_like(&three.postgres, ".b").await.contains(&left));
    assert_eq!(three.rows(second).await, "7", "the database itself is left alone");
    three.removed().await;
}

/// The same number of rows, one of another content.
pub(crate) fn change_a_row(memory: &Memory) {
    let row = b"\\\\x00ff00";
    let place = |bytes: &[u8]| bytes.windows(row.len()).position(|window| window == row);
    let has_row = |name: &String| name.starts_with("tables.") && place(&memory.bytes_of(name)).is_some();
    let name = memory.names().into_iter().find(has_row).expect("the row");
    let mut bytes = memory.bytes_of(&name);
    let at = place(&bytes).expect("a row");
    bytes[at + row.len() - 1] = b'1';
    memory.put(&name, "tar-pax", bytes);
}

async fn a_changed_row_is_found_by_its_hash() {
    let (postgres, service) = filled().await;
    let options = PostgresDump::new().with_row_hashes(true);
    let (memory, report) = parallel(&service, options).await.expect("a dump");
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert!(restored.warnings.iter().all(|warning| !warning.contains("not compared")), "{:?}", restored.warnings);
    change_a_row(&memory);
    let error = restore(&service, &memory, &report).await.expect_err("another row");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error:?}");
    assert!(error.to_string().contains("table=public.bytes"), "{error}");
    assert_eq!(databases_like(&postgres, "__sk_").await, Vec::<String>::new());
}
