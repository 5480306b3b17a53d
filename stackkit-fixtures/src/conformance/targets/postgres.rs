//! PostgreSQL.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use stackkit_core::backup::ArtifactInfo;
use stackkit_core::process::Tool;
use stackkit_core::{Result, Secret, Service};
use stackkit_postgres::{Postgres, PostgresConfig};
use tokio::sync::OnceCell;

use crate::conformance::target::{Capability, Fault, Instance, Seed, Target};
use crate::conformance::targets::{UNICODE, VENDOR_TOOL_TIMEOUT};
use crate::net::RefusedPort;
use crate::postgres::{PostgresOptions, PostgresServer, postgres_kind, postgres_server};

const PASSWORD: &str = "canary-of-the-postgres-suite";

/// One server with a password for all instances; each has a database of its own.
static SERVER: OnceCell<PostgresServer> = OnceCell::const_new();
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// Objects of every kind that a dump must carry, and a quarter of a megabyte of rows.
const SMALL: &str = r#"
create schema shop;
create type shop.state as enum ('new', 'paid', 'sent');
create table shop.orders (
    id bigint generated always as identity primary key,
    state shop.state not null default 'new',
    placed_at timestamptz not null,
    total numeric(12, 2) check (total >= 0),
    details jsonb,
    note text
);
insert into shop.orders (state, placed_at, total, details, note)
    select (enum_range(null::shop.state))[1 + n % 3], timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute',
           n / 7.0, jsonb_build_object('n', n), repeat(md5(n::text), 4)
    from generate_series(1, 2000) n;
create table shop.lines (order_id bigint references shop.orders on delete cascade, position int, sku text,
    primary key (order_id, position));
insert into shop.lines select id, 1, 'sku-' || id from shop.orders where id <= 500;
create index lines_by_sku on shop.lines (sku) where position > 0;
create view shop.paid as select id, total from shop.orders where state = 'paid';
create materialized view shop.totals as select state, sum(total) as total from shop.orders group by state;
create function shop.twice(n int) returns int language sql immutable as 'select n * 2';
create table public.events (at date, payload bytea) partition by range (at);
create table public.events_2026 partition of public.events for values from ('2026-01-01') to ('2027-01-01');
insert into public.events select date '2026-01-01' + n, decode(lpad(to_hex(n), 8, '0'), 'hex')
    from generate_series(0, 99) n;
create table public.nothing ();
select lo_from_bytea(0, '\x00ff');
"#;

/// Every schema that is not the server's own, and all large objects.
const WIPE: &str = "
do $$ declare name text; begin
    for name in select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema' loop
        execute format('drop schema %I cascade', name);
    end loop;
end $$;
create schema public;
select lo_unlink(oid) from pg_largeobject_metadata;
";

/// Makes a directory archive of the artifacts: files of small tables come out of their archives, parts are joined.
const UNPACK: &str = "set -e; for tar in *.tar; do [ ! -e \"$tar\" ] || tar -xf \"$tar\"; done; \
    for part in *.dat.000; do [ ! -e \"$part\" ] || cat \"${part%.000}\".[0-9]* > \"${part%.000}\"; done";

/// The catalogue, as text that does not depend on object numbers.
const CATALOGUE: &[&str] = &[
    "select table_schema, table_name, column_name, ordinal_position, udt_name, column_default, is_nullable, is_identity
        from information_schema.columns where table_schema !~ '^(pg_|information_schema)' order by 1, 2, 4",
    "select schemaname, relname, relkind from (select n.nspname as schemaname, c.relname, c.relkind from pg_class c
        join pg_namespace n on n.oid = c.relnamespace) relations
        where schemaname !~ '^(pg_|information_schema)' order by 1, 2, 3",
    "select indexdef from pg_indexes where schemaname !~ '^(pg_|information_schema)' order by 1",
    "select conrelid::regclass::text, conname, pg_get_constraintdef(c.oid) from pg_constraint c
        join pg_namespace n on n.oid = c.connamespace
        where nspname !~ '^(pg_|information_schema)' order by 1, 2",
    "select schemaname, viewname, definition from pg_views where schemaname !~ '^(pg_|information_schema)' order by 1, 2",
    "select nspname, proname, prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where nspname !~ '^(pg_|information_schema)' order by 1, 2, 3",
    "select schemaname, sequencename, last_value, increment_by from pg_sequences order by 1, 2",
    "select t.typname, e.enumlabel from pg_enum e join pg_type t on t.oid = e.enumtypid order by 1, e.enumsortorder",
    "select oid, md5(lo_get(oid)) from pg_largeobject_metadata order by 1",
];

/// For each table a query that hashes its rows in an order of their own.
const TABLES: &str = r#"
select format('select %L, count(*), md5(coalesce(string_agg(t::text, chr(10) order by t::text collate "C"), ''''))
    from %s t', c.oid::regclass, c.oid::regclass)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and n.nspname !~ '^(pg_|information_schema)' order by 1"#;

/// The PostgreSQL adapter as a target: a database each on one server that asks for a password.
#[must_use]
pub fn postgres() -> impl Target {
    PostgresTarget
}

struct PostgresTarget;

#[async_trait]
impl Target for PostgresTarget {
    fn name(&self) -> &'static str {
        postgres_kind()
    }

    fn code_prefix(&self) -> &'static str {
        "pg"
    }

    fn capabilities(&self) -> Vec<Capability> {
        use Capability::{Backup, Health, Network, Password, VendorTool};
        vec![Health, Backup, Network, Password, VendorTool]
    }

    async fn instance(&self) -> Result<Box<dyn Instance>> {
        let server = SERVER.get_or_try_init(|| postgres_server(PostgresOptions::new().with_tcp(PASSWORD))).await?;
        // A restore keeps the replaced database under a name that begins with this one; the width tells 1 from 10.
        let database = format!("suite_{:06}", DATABASES.fetch_add(1, Ordering::Relaxed));
        server.create_database(&database).await?;
        Ok(Box::new(PostgresInstance { server, database, absent: RefusedPort::bind()? }))
    }
}

struct PostgresInstance {
    server: &'static PostgresServer,
    database: String,
    absent: RefusedPort,
}

impl PostgresInstance {
    fn handle(&self, address: SocketAddr, password: Secret) -> Arc<dyn Service> {
        let config = PostgresConfig::new(address.ip().to_string(), &self.database)
            .with_port(address.port())
            .with_password(password)
            .with_tool_dir(self.server.bin_dir());
        Arc::new(Postgres::new(config))
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.server.port()))
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        self.server.execute_in(&self.database, sql).await
    }
}

#[async_trait]
impl Instance for PostgresInstance {
    fn service(&self) -> Arc<dyn Service> {
        self.handle(self.address(), Secret::new(PASSWORD))
    }

    fn faulty(&self, fault: &Fault) -> Option<Arc<dyn Service>> {
        Some(match fault {
            Fault::Absent => self.handle(self.absent.address(), Secret::new(PASSWORD)),
            Fault::WrongPassword(wrong) => self.handle(self.address(), wrong.clone()),
            Fault::Address(address) => self.handle(*address, Secret::new(PASSWORD)),
        })
    }

    fn password(&self) -> Option<Secret> {
        Some(Secret::new(PASSWORD))
    }

    async fn seed(&self, seed: Seed) -> Result<()> {
        match seed {
            Seed::Empty => Ok(()),
            Seed::Small => self.execute(SMALL).await,
            Seed::UnicodeAndBinary => {
                self.execute("create table bytes (b bytea); insert into bytes values ('\\x00ff0a5c'), ('')").await?;
                for text in UNICODE {
                    let (name, value) = (text.replace('"', "\"\""), text.replace('\'', "''"));
                    let sql = format!(
                        "create table \"{name}\" (\"{name}\" text); insert into \"{name}\" values ('{value}'), ('')"
                    );
                    self.execute(&sql).await?;
                }
                Ok(())
            }
        }
    }

    async fn change(&self) -> Result<()> {
        self.execute("insert into shop.orders (placed_at, note) values (now(), 'changed')").await
    }

    async fn wipe(&self) -> Result<()> {
        self.execute(WIPE).await
    }

    async fn content(&self) -> Result<String> {
        let client = self.server.client(&self.database).await?;
        let tables = client.query(TABLES).await?.into_iter().flatten().flatten();
        let queries = CATALOGUE.iter().map(ToString::to_string).chain(tables);
        let mut hasher = blake3::Hasher::new();
        for query in queries {
            hasher.update(format!("{:?}", client.query(&query).await?).as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    async fn held(&self) -> Result<u64> {
        let sql = format!("select count(*) from pg_stat_activity where datname ~ '^{}'", self.database);
        let rows = self.server.query_in("postgres", &sql).await?;
        let count = rows.into_iter().flatten().flatten().next().and_then(|count| count.parse().ok());
        count.ok_or_else(|| stackkit_core::Error::unexpected("a count is no number"))
    }

    /// The artifacts are the files of one archive: its table of contents is read with all the others.
    async fn vendor_reads(&self, artifact: &ArtifactInfo, file: &Path) -> Result<()> {
        let Some(folder) = file.parent().filter(|_folder| artifact.name().as_str() == "toc.dat") else {
            return Ok(());
        };
        let unpack = Tool::new("/bin/sh").directory(folder).args(["-c", UNPACK]);
        unpack.output(VENDOR_TOOL_TIMEOUT).await?;
        let tool = Tool::new(self.server.bin_dir().join("pg_restore")).args(["--file", "/dev/null"]).arg(folder);
        tool.output(VENDOR_TOOL_TIMEOUT).await.map(drop)
    }
}

impl Drop for PostgresInstance {
    fn drop(&mut self) {
        self.server.drop_databases(&self.database);
    }
}
