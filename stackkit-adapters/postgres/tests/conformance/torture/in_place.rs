//! Every class of object and every odd value, put back into the database itself after it was harmed.

use stackkit_core::BackupProvider;
use stackkit_core::backup::{RestoreAction, RestoreContext, RestoreOptions};
use stackkit_fixtures::PostgresServer;
use stackkit_postgres::{Engine, Postgres, PostgresRestore, Strategy};

use crate::memory::{Memory, dump, restore};
use crate::torture::compare::Picture;
use crate::torture::objects::SCHEMA;
use crate::torture::{ENGINES, config, run_if_built, server};

/// What a restore in place can't replace.
const REFUSED: &str = "drop subscription quiet";

/// Rows, columns, types, rights, owners and whole objects of each class are changed or gone.
const HARM: &str = "\
    drop publication \"of schemas\"; delete from shapes.by_range where at > '2020-06-01'; update shapes.tree set parent = null; alter table shapes.changed add later int; \
    alter table shapes.options drop column y; drop view logic.one cascade; drop function logic.standard(int, int) cascade; \
    drop table shapes.first cascade; alter type kinds.mood rename value 'ok' to 'fine'; \
    drop schema \"a.b\" cascade; drop publication chosen; drop aggregate kinds.total(int); \
    drop aggregate kinds.middle(float8 order by anyelement); select lo_unlink(70001); select lo_put(70002, 1, 'changed'); \
    drop event trigger watch_off; drop policy ins on logic.secured; alter table logic.secured disable row level security; \
    drop index shapes.\"Index \"\"x\"\"\"; alter table owned.t owner to postgres; revoke all on owned.t from torture_reader cascade; \
    drop operator class kinds.pearl_hash_ops using hash cascade; drop text search configuration kinds.\"Suche 'x'\"; \
    drop statistics shapes.plain_stats; alter sequence shapes.down restart with 3; drop server \"Server \"\"zwei\"\"\"; \
    comment on table shapes.tree is 'harmed'; drop materialized view logic.mat_one cascade; drop rule no_delete on logic.ruled; \
    drop trigger always_trigger on logic.watched; drop collation kinds.plain_c cascade; drop domain kinds.code cascade; \
    drop user mapping for torture_owner server nowhere; alter table shapes.by_range rename column body to other_body; \
    grant insert on shapes.tree to public; alter table shapes.child no inherit shapes.parent_a; \
    drop type kinds.pearl cascade; drop table shapes.hash_1; truncate shapes.indexed";

pub(super) async fn every_object_is_put_back_in_place() {
    let server = filled(&SCHEMA).await;
    server.execute_in("torture", REFUSED).await.expect(REFUSED);
    comes_back(&server, &HARM.split("; ").collect::<Vec<_>>()).await;
}

pub(super) async fn every_value_is_put_back_in_place() {
    let server = filled(&["values", "documents"]).await;
    let harm = [
        "drop table \"values\".bytes",
        "update \"values\".texts set t = 'x'",
        "alter table \"values\".times drop column i",
    ];
    comes_back(&server, &harm).await;
}

pub(super) async fn extensions_are_put_back_in_place() {
    let server = filled(&["extensions"]).await;
    let harm =
        ["delete from ext.uses", "drop server elsewhere cascade", "drop function ext.without_accents(text) cascade"];
    comes_back(&server, &harm).await;
}

async fn filled(files: &[&str]) -> PostgresServer {
    let server = server().await;
    server.create_database("torture").await.expect("a database");
    for file in files {
        run_if_built(&server, "torture", file).await;
    }
    server
}

/// Dumps, harms and restores with each engine: the database is what it was.
async fn comes_back(server: &PostgresServer, harm: &[&str]) {
    let before = Picture::of(server, "torture").await;
    for engine in ENGINES {
        let config = config(server, "torture", engine);
        let restoring = PostgresRestore::new().with_strategy(Strategy::InPlaceSingleTransaction);
        let service = Postgres::new(config.with_restore(restoring));
        let (memory, report) = dump(&service).await.expect("a dump");
        let what = format!("unharmed, {engine:?}");
        put_back(&service, &memory, &report, &what).await;
        before.assert_same(&Picture::of(server, "torture").await, &what);
        for sql in harm {
            server.execute_in("torture", sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain()));
        }
        let what = format!("harmed, {engine:?}");
        put_back(&service, &memory, &report, &what).await;
        before.assert_same(&Picture::of(server, "torture").await, &what);
    }
}

async fn put_back(service: &Postgres, memory: &Memory, report: &stackkit_core::backup::DumpReport, what: &str) {
    let plan = service.plan_restore(memory, &RestoreOptions::new()).await.expect("a plan");
    assert_eq!(plan.missing, Vec::<String>::new(), "{what}");
    let restored = restore(service, memory, report).await.unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    assert_eq!(restored.census.diff(&report.census), [], "{what}");
}

/// Every table of the schema by itself, with the keys from and to it, its place among partitions and parents, and its
/// publications. Those are left out with which something goes that the part does not hold: a view, a child.
pub(super) async fn each_table_alone_is_put_back_in_place() {
    let server = filled(&SCHEMA).await;
    // One that some partitions lack: the server itself gives it to a partition that gets its place again.
    server.execute_in("torture", "drop index shapes.only_root").await.expect("no such index");
    let before = Picture::of(&server, "torture").await;
    let config = config(&server, "torture", Engine::Parallel);
    let (memory, _report) = dump(&Postgres::new(config.clone())).await.expect("a dump");
    let (mut alone, mut refused) = (0, 0);
    for row in server.query_in("torture", TABLES).await.expect("tables") {
        let table = row[0].clone().expect("a name");
        let restoring = PostgresRestore::new().with_strategy(Strategy::InPlaceSingleTransaction).with_force(true);
        let service = Postgres::new(config.clone().with_restore(restoring.only_tables([&table])));
        let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
        if !plan.missing.is_empty() {
            assert!(plan.missing.iter().all(|missing| missing.contains("the topmost table above hash_")), "{plan}");
            refused += 1;
        } else if plan.actions.iter().all(|step| step.action != RestoreAction::Drop) {
            let restored = service.restore(plan, &memory, &RestoreContext::new()).await;
            restored.map(drop).unwrap_or_else(|error| panic!("{table}: {}", error.chain()));
            alone += 1;
        }
    }
    assert!(alone >= 60 && refused == 3, "{alone} alone, {refused} refused");
    before.assert_same(&Picture::of(&server, "torture").await, "each table");
}

/// Tables with rows of their own, and those that are partitioned; but not a partition of a partition that has partitions and a
/// key itself: the server refuses it its place (`DESIGN.md`).
const TABLES: &str = "select format('%s.%s', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
    where c.relkind in ('r', 'p') and n.nspname !~ '^pg_|^information_schema' and c.relname <> 'range_21_rest' order by c.oid";
