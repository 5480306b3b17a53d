//! The hardest test of a backup: every class of object and every odd value, dumped, restored and compared by the
//! vendor's own tools.

mod compare;
mod cutter;
pub(crate) mod faults;
pub(crate) mod gate;
mod in_place;
pub(crate) mod later;
mod objects;
pub(crate) mod odd;
mod storm;

use std::time::Duration;

use stackkit_core::process::Tool;
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::{Engine, Postgres, PostgresConfig, PostgresDump, PostgresRestore};

use crate::{Case, cases};

/// What every version runs.
pub(crate) const CORE: &[Case] =
    cases![objects::every_object_survives, objects::every_value_survives, odd::hostile_settings_change_nothing];

pub(crate) const CASES: &[Case] = cases![
    objects::extensions_survive,
    in_place::every_object_is_put_back_in_place,
    in_place::every_value_is_put_back_in_place,
    in_place::extensions_are_put_back_in_place,
    in_place::each_table_alone_is_put_back_in_place,
    faults::a_connection_cut_anywhere_fails_a_dump,
    faults::a_crashed_server_fails_a_dump,
    faults::global_timeouts_do_not_end_a_dump,
    faults::a_full_storage_fails_a_dump,
    faults::who_holds_the_lock_is_told,
    faults::what_may_not_be_read_is_named,
    faults::forced_row_security_is_told,
    faults::a_server_without_connections_is_told,
    odd::other_encodings_survive,
    odd::an_ordinary_role_restores_what_it_made,
    odd::invalid_indexes_are_left_out,
    storm::changes_while_a_dump_runs_are_not_in_it,
    storm::changes_that_wait_for_a_dump_do_not_stop_it,
    storm::a_rebuild_that_takes_its_time_does_not_fail_a_dump,
    storm::a_storm_of_writers_keeps_the_totals,
];

/// Far more than any tool needs here; a busy machine must not fail a case.
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// The engines that every comparison is made with.
const ENGINES: [Engine; 2] = [Engine::PgDump, Engine::Parallel];

/// A server of its own: the schema has roles, a tablespace and a subscription, which belong to the cluster.
async fn server() -> PostgresServer {
    server_of(PostgresOptions::new()).await.expect("a server")
}

/// The same of another version.
async fn server_of(options: PostgresOptions) -> stackkit_core::Result<PostgresServer> {
    let server = postgres_server(options.with_setting("allow_in_place_tablespaces", "on")).await?;
    run_file(&server, "postgres", "cluster").await;
    Ok(server)
}

/// A program of the server's own version, told where the server is.
fn tool(server: &PostgresServer, program: &str) -> Tool {
    tool_of(server, server, program)
}

/// A program of the version of `tools`, told where the server is.
fn tool_of(tools: &PostgresServer, server: &PostgresServer, program: &str) -> Tool {
    let tool = Tool::new(tools.bin_dir().join(program)).args(["-U", "postgres", "-h"]).arg(server.socket_dir());
    tool.arg("-p").arg(server.port().to_string())
}

/// Runs `torture/NAME.sql`, each statement as a transaction of its own.
async fn run_file(server: &PostgresServer, database: &str, name: &str) {
    let file = format!("{}/tests/conformance/torture/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    let psql = tool(server, "psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", database]);
    psql.args(["-f", &file]).output(TOOL_LIMIT).await.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
}

/// What a file needs that not every server is built with: a query that fails, or has no row, without it.
const NEEDS: [(&str, &str); 3] = [
    ("documents", "select '<a/>'::xml"),
    ("icu", "select 'a' < 'b' collate \"de-x-icu\""),
    ("extensions", "select from pg_available_extensions where name = 'bloom'"),
];

/// [`run_file`], but for a file that needs what this server was built without, which is told.
async fn run_if_built(server: &PostgresServer, database: &str, name: &str) {
    if !is_built(server, name).await {
        eprintln!("{name}.sql is left out: this server was built without what it needs");
        return;
    }
    run_file(server, database, name).await;
}

/// Whether this server has what a file needs.
async fn is_built(server: &PostgresServer, name: &str) -> bool {
    match NEEDS.iter().find(|(file, _query)| *file == name) {
        Some((_file, query)) => server.query_in("postgres", query).await.is_ok_and(|rows| !rows.is_empty()),
        None => true,
    }
}

/// A handle on a database, which dumps by `engine`.
fn service(server: &PostgresServer, database: &str, engine: Engine) -> Postgres {
    Postgres::new(config(server, database, engine))
}

fn config(server: &PostgresServer, database: &str, engine: Engine) -> PostgresConfig {
    let config = PostgresConfig::from_url(&server.url_of("postgres")).expect("a URL").with_database(database);
    config
        .with_dump(PostgresDump::new().with_engine(engine).with_row_hashes(true))
        .with_restore(PostgresRestore::new().with_force(true))
        .with_content_digests(true)
}
