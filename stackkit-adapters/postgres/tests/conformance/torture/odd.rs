//! Databases and roles that are not the usual ones: other encodings, hostile settings, few rights, other versions.

use libtest_mimic::Completion;
use stackkit_core::ErrorKind;
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::Postgres;

use crate::memory::{dump, restore};
use crate::torture::compare::{Picture, by_hand, pg_restore};
use crate::torture::{ENGINES, config, run_file, run_if_built, server, service};

/// What a cluster may say to everybody, and what of it changes text, or how text is read.
const HOSTILE: [(&str, &str); 23] = [
    ("default_tablespace", "torture_space"),
    ("datestyle", "SQL, DMY"),
    ("intervalstyle", "sql_standard"),
    ("extra_float_digits", "-10"),
    ("bytea_output", "escape"),
    ("timezone", "Asia/Kathmandu"),
    ("xmloption", "document"),
    ("xmlbinary", "hex"),
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "off"),
    ("search_path", "values"),
    ("row_security", "on"),
    ("client_min_messages", "error"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("synchronize_seqscans", "on"),
    ("default_transaction_isolation", "serializable"),
    ("check_function_bodies", "on"),
    ("statement_timeout", "100"),
    ("lock_timeout", "1"),
    ("idle_in_transaction_session_timeout", "50"),
    ("default_toast_compression", "pglz"),
    ("client_encoding", "LATIN1"),
];

pub(super) async fn hostile_settings_change_nothing() {
    let server = server().await;
    server.create_database("torture").await.expect("a database");
    run_file(&server, "torture", "values").await;
    run_if_built(&server, "torture", "documents").await;
    let nulls = "create function \"values\".is_null(int) returns boolean language sql return $1 = null; \
        create view \"values\".no_rows as select 1 as x where 1 = null";
    server.execute_in("torture", nulls).await.expect("a comparison with null");
    let before = Picture::of(&server, "torture").await;
    let set = HOSTILE.map(|(name, value)| format!("alter role all set {name} = '{value}'"));
    for engine in ENGINES {
        server.execute_in("postgres", &set.join("; ")).await.expect("settings");
        let (memory, report) = dump(&service(&server, "torture", engine)).await.expect("a dump");
        let name = format!("restored_{engine:?}");
        let restored = restore(&service(&server, &name, engine), &memory, &report).await;
        restored.unwrap_or_else(|error| panic!("{engine:?}: {}", error.chain()));
        server.execute_in("postgres", "alter role all reset all").await.expect("no settings");
        before.assert_same(&Picture::of(&server, &name).await, &name);
    }
}

/// Every character of LATIN1, in rows and in names.
const LATIN1: &str = "create schema \"sch\u{f6}n\"; create table \"sch\u{f6}n\".\"\u{fc}ber\" (\"\u{e4}\" text, n int); \
    insert into \"sch\u{f6}n\".\"\u{fc}ber\" select chr(g), g from generate_series(1, 255) g; \
    comment on table \"sch\u{f6}n\".\"\u{fc}ber\" is '\u{ff}\u{d8}'; create type stimmung as enum ('m\u{fc}de'); \
    create table moods (m stimmung default 'm\u{fc}de'); insert into moods default values; select lo_from_bytea(4711, '\\xff00fe')";

/// Every byte but 0, in rows only.
const BYTES: &str = "create table bytes (t text, n int); insert into bytes select convert_from(decode(lpad(to_hex(g), 2, '0'), \
    'hex'), 'SQL_ASCII'), g from generate_series(1, 255) g; insert into bytes select string_agg(t, '' order by n) from bytes";

pub(super) async fn other_encodings_survive() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    for (encoding, content) in [("LATIN1", LATIN1), ("SQL_ASCII", BYTES)] {
        let create = format!("create database \"{encoding}\" template template0 encoding '{encoding}' locale 'C'");
        server.execute_in("postgres", &create).await.expect("a database");
        server.execute_in(encoding, content).await.expect("content");
        let before = Picture::of(&server, encoding).await;
        for engine in ENGINES {
            let (memory, report) = dump(&service(&server, encoding, engine)).await.expect("a dump");
            let name = format!("{encoding}_{engine:?}");
            let restored = restore(&service(&server, &name, engine), &memory, &report).await;
            restored.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
            before.assert_same(&Picture::of(&server, &name).await, &name);
        }
    }
}

/// What an ordinary role may make.
const ORDINARY: &str = "create schema mine; create type mine.mood as enum ('ok'); create domain mine.d as int check (value > 0); \
    create table mine.t (id bigint generated always as identity primary key, m mine.mood, d mine.d, twice int generated \
    always as (d * 2) stored); insert into mine.t (m, d) select 'ok', g from generate_series(1, 500) g; create index on mine.t (d); \
    create table mine.r (id bigint references mine.t, x text) partition by hash (id); create table mine.r0 partition of mine.r \
    for values with (modulus 1, remainder 0); insert into mine.r select g, 'x' from generate_series(1, 100) g; \
    create view mine.v as select * from mine.t; create materialized view mine.mv as select count(*) from mine.v; \
    create function mine.f() returns trigger language plpgsql as $$ begin return new; end $$; \
    create trigger tr before insert on mine.t for each row execute function mine.f(); \
    alter table mine.t enable row level security; create policy p on mine.t using (d < 5); grant select on mine.t to public; \
    select lo_from_bytea(4711, 'mine'); comment on table mine.t is 'mine'; comment on schema mine is 'mine'; \
    create sequence mine.s start 5; create statistics mine.st on m, d from mine.t; \
    alter default privileges in schema mine grant select on tables to public";

pub(super) async fn an_ordinary_role_restores_what_it_made() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    let role = "create role plain login createdb";
    server.execute_in("postgres", role).await.expect("a role");
    server.execute_in("postgres", "create database torture owner plain template template0").await.expect("a database");
    server.execute_in("torture", &format!("set role plain; {ORDINARY}")).await.expect("objects");
    let before = Picture::of(&server, "torture").await;
    for engine in ENGINES {
        let plain = |database: &str| Postgres::new(config(&server, database, engine).with_user("plain"));
        let (memory, report) = dump(&plain("torture")).await.expect("a dump");
        let name = format!("restored_{engine:?}");
        let restored = restore(&plain(&name), &memory, &report).await;
        restored.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        before.assert_same(&Picture::of(&server, &name).await, &name);
    }
}

/// An index whose concurrent build failed is no reason to fail, nor is it built.
pub(super) async fn invalid_indexes_are_left_out() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server
        .execute_in("postgres", "create table twice as select 1 as x from generate_series(1, 2)")
        .await
        .expect("rows");
    let build = server.execute_in("postgres", "create unique index concurrently broken on twice (x)").await;
    build.expect_err("the rows are not unique");
    for engine in ENGINES {
        let (memory, report) = dump(&service(&server, "postgres", engine)).await.expect("a dump");
        let name = format!("restored_{engine:?}");
        restore(&service(&server, &name, engine), &memory, &report).await.expect("a restore");
        let indexes = server.query_in(&name, "select count(*) from pg_index where indrelid = 'twice'::regclass").await;
        assert_eq!(indexes.expect("a count")[0][0].as_deref(), Some("0"), "{engine:?}");
    }
}

const VECTORS: &str = "create extension vector; create table v (id int primary key, e vector(3), h halfvec(3), s sparsevec(5)); \
    insert into v select g, array[g, -g, g / 3.0]::real[]::vector, array[g, 0, 1]::real[]::vector::halfvec, \
        ('{1:' || g || '}/5')::sparsevec from generate_series(1, 500) g; insert into v (id) values (0); \
    create index on v using hnsw (e vector_l2_ops) with (m = 8, ef_construction = 32); \
    create index on v using ivfflat (e vector_cosine_ops) with (lists = 5); create index on v using hnsw (h halfvec_ip_ops)";

/// Where pgvector is installed.
pub(crate) async fn vectors_survive() -> Completion {
    let server = match postgres_server(PostgresOptions::new()).await {
        Ok(server) => server,
        Err(error) => panic!("{}", error.chain()),
    };
    let there = "select from pg_available_extensions where name = 'vector'";
    if server.query_in("postgres", there).await.expect("extensions").is_empty() {
        return Completion::ignored_with("pgvector is not installed for this version");
    }
    server.create_database("torture").await.expect("a database");
    server.execute_in("torture", VECTORS).await.expect("vectors");
    comes_back(&server).await;
    Completion::Completed
}

async fn comes_back(server: &PostgresServer) {
    let before = Picture::of(server, "torture").await;
    for engine in ENGINES {
        let (memory, report) = dump(&service(server, "torture", engine)).await.expect("a dump");
        let name = format!("restored_{engine:?}");
        let restored = restore(&service(server, &name, engine), &memory, &report).await;
        restored.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        before.assert_same(&Picture::of(server, &name).await, &name);
    }
}

/// The `pg_restore` of a later version reads what was dumped here, into a server of that version.
pub(crate) async fn later_versions_read_the_dump() -> Completion {
    let server = server().await;
    server.create_database("torture").await.expect("a database");
    run_file(&server, "torture", "values").await;
    let mut seen = 0;
    for major in [16, 17, 18].into_iter().filter(|major| *major > server.major()) {
        match postgres_server(PostgresOptions::new().with_major(major)).await {
            Ok(later) => reads_the_dump(&later, &server).await,
            Err(error) if error.kind() == ErrorKind::ToolMissing => continue,
            Err(error) => panic!("{}", error.chain()),
        }
        seen += 1;
    }
    if seen == 0 { Completion::ignored_with("no later version is installed") } else { Completion::Completed }
}

async fn reads_the_dump(later: &PostgresServer, server: &PostgresServer) {
    let before = Picture::of(server, "torture").await;
    for engine in ENGINES {
        let (memory, _report) = dump(&service(server, "torture", engine)).await.expect("a dump");
        let directory = tempfile::tempdir().expect("a directory");
        let archive = by_hand(&memory, directory.path()).await;
        for jobs in ["-j1", "-j2"] {
            let name = format!("by_hand_{engine:?}{jobs}");
            pg_restore(later, &[jobs], &archive, &name).await;
            before.assert_same_rows(&Picture::of(later, &name).await, &format!("{name} of {}", later.major()));
        }
    }
}
