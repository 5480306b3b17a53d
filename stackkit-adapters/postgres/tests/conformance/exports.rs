//! Exports, read by the vendor's tools.

use std::path::Path;

use libtest_mimic::Completion;
use stackkit_core::backup::{RestoreContext, RestoreOptions};
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::{
    Archive, Engine, ExportCompression, ExportFormat, ExportOptions, ExportTo, Postgres, PostgresConfig, PostgresDump,
    export,
};

use crate::archives::{
    Other, TOOL_TIMEOUT, artifacts, common_content, content, import, own_server, pg_dump, pg_restore, same, server,
    tool,
};
use crate::memory::dump;
use crate::{Case, cases};

/// What every version runs.
pub(crate) const CORE: &[Case] = cases![exports_are_restored_by_their_own_pg_restore];

pub(crate) const CASES: &[Case] = cases![
    an_export_to_a_stream_is_restored,
    one_table_is_exported,
    a_table_that_is_not_there_is_not_exported,
    a_parallel_dump_is_exported,
    an_export_as_sql_runs_through_psql,
];

/// Cases that need another version than the suite's, and are ignored without it.
pub(crate) const OTHERS: &[Other] = &[
    ("exports_are_restored_by_pg_restore_17", || Box::pin(exports_are_restored_by_pg_restore_17())),
    ("a_dump_of_15_is_exported_for_later_versions", || Box::pin(a_dump_of_15_is_exported_for_later_versions())),
    ("statistics_of_18_leave_and_enter", || Box::pin(statistics_of_18_leave_and_enter())),
    ("a_dump_of_17_is_exported_for_15", || Box::pin(a_dump_of_17_is_exported_for_15())),
];

/// Exports in every format, for the reader of `reader`, restored by it.
async fn exported_is_restored(server: &PostgresServer, reader: &PostgresServer, ways: &[ExportOptions]) {
    let directory = tempfile::tempdir().expect("a directory");
    let dump = directory.path().join("shop.dump");
    pg_dump(server, &["-Fc"], &dump).await;
    let archive = Archive::open(&dump).await.expect("an archive");
    let is_same_version = server.major() == reader.major();
    let of_both = async |server: &PostgresServer, database: &str| match is_same_version {
        true => content(server, database).await,
        false => common_content(server, database).await,
    };
    let expected = of_both(server, "shop").await;
    for (at, options) in ways.iter().enumerate() {
        let path = directory.path().join(format!("export{at}"));
        let report = export(&archive, options, ExportTo::Path(path.clone())).await;
        let report = report.unwrap_or_else(|error| panic!("{options:?}: {}", error.chain()));
        assert_eq!((report.tables, report.large_objects), (8, 8), "{options:?}");
        for jobs in ["-j1", "-j4"] {
            let database = format!("export{at}{}", &jobs[1..]);
            pg_restore(reader.bin_dir(), reader, &database, &[jobs], &path).await;
            assert_eq!(of_both(reader, &database).await, expected, "{options:?} {jobs}");
        }
        let again = export(&archive, options, ExportTo::Path(path)).await.expect_err("it is there");
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("a directory").collect();
    assert_eq!(left.len(), ways.len() + 1, "nothing else is left: {left:?}");
}

fn ways(major: u32, compressions: &[ExportCompression]) -> Vec<ExportOptions> {
    let formats = [ExportFormat::Directory, ExportFormat::Custom];
    let ways = |format| {
        let options =
            move |packing: &ExportCompression| ExportOptions::new(format).for_major(major).with_compression(*packing);
        compressions.iter().map(options)
    };
    formats.into_iter().flat_map(ways).collect()
}

async fn exports_are_restored_by_their_own_pg_restore() {
    let server = own_server().await;
    let ways = ways(server.major(), &[ExportCompression::None, ExportCompression::Gzip]);
    exported_is_restored(&server, &server, &ways).await;
}

/// The oldest archive format that is written, read by `pg_restore` of every later version.
async fn a_dump_of_15_is_exported_for_later_versions() -> Completion {
    let server = server(15).await.expect("a server");
    let mut read_by = 0;
    for major in [16, 17, 18] {
        let Ok(reader) = postgres_server(PostgresOptions::new().with_major(major)).await else { continue };
        exported_is_restored(&server, &reader, &ways(major, &[ExportCompression::None, ExportCompression::Gzip])).await;
        read_by += 1;
    }
    if read_by == 0 { Completion::ignored_with("no later version is installed") } else { Completion::Completed }
}

/// What 18 knows about the rows is part of its archives when asked for.
async fn statistics_of_18_leave_and_enter() -> Completion {
    let server = match server(18).await {
        Ok(server) => server,
        Err(reason) => return Completion::ignored_with(reason),
    };
    server.execute_in("shop", "create index on bytes ((f * 2)); analyze").await.expect("statistics");
    let directory = tempfile::tempdir().expect("a directory");
    let dump = directory.path().join("shop.dump");
    pg_dump(&server, &["-Fc", "--statistics"], &dump).await;
    import(&server, "imported", &dump).await;
    assert_eq!(content(&server, "imported").await, content(&server, "shop").await);

    let archive = Archive::open(&dump).await.expect("an archive");
    for format in [ExportFormat::Custom, ExportFormat::Directory] {
        statistics_are_restored(&server, &archive, format, directory.path()).await;
    }
    statistics_are_left_out(&server, &archive, &directory.path().join("for 16")).await;
    statistics_alone_are_refused(&server, &directory.path().join("statistics")).await;
    Completion::Completed
}

async fn statistics_are_restored(server: &PostgresServer, archive: &Archive, format: ExportFormat, directory: &Path) {
    let database = format!("{format:?}").to_lowercase();
    let path = directory.join(&database);
    let report = export(archive, &ExportOptions::new(format), ExportTo::Path(path.clone())).await;
    assert_eq!(report.expect("an export").warnings, Vec::<String>::new());
    pg_restore(server.bin_dir(), server, &database, &["-j2", "--statistics"], &path).await;
    assert_eq!(content(server, &database).await, content(server, "shop").await);
    assert_eq!(known(server, &database).await, known(server, "shop").await, "{database}");
}

/// An older version has no place for them.
async fn statistics_are_left_out(server: &PostgresServer, archive: &Archive, path: &Path) {
    let options = ExportOptions::new(ExportFormat::Custom).for_major(16);
    let report = export(archive, &options, ExportTo::Path(path.to_owned())).await.expect("an export");
    assert!(report.warnings.iter().any(|warning| warning.starts_with("statistics of ")), "{:?}", report.warnings);
    if let Ok(reader) = postgres_server(PostgresOptions::new().with_major(16)).await {
        pg_restore(reader.bin_dir(), &reader, "for_16", &["-j2"], path).await;
        assert_eq!(common_content(&reader, "for_16").await, common_content(server, "shop").await);
    }
}

/// There is nothing that they are about: what is there stays.
async fn statistics_alone_are_refused(server: &PostgresServer, path: &Path) {
    pg_dump(server, &["-Fc", "--statistics-only"], path).await;
    let before = content(server, "shop").await;
    let archive = Archive::open(path).await.expect("an archive");
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let plan = service.plan_restore(&archive, &RestoreOptions::new()).await.expect("a plan");
    let error = service.restore(plan, &archive, &RestoreContext::new()).await.expect_err("no tables");
    assert!(error.chain().to_string().contains("does not exist"), "{}", error.chain());
    assert_eq!(content(server, "shop").await, before);
}

/// What the planner knows of the rows, without a look at them.
async fn known(server: &PostgresServer, database: &str) -> Vec<Vec<Option<String>>> {
    let sql = "select tablename, attname, n_distinct, most_common_vals::text, histogram_bounds::text from pg_stats \
        where schemaname not in ('pg_catalog', 'information_schema') order by 1, 2";
    let known = server.query_in(database, sql).await.expect("statistics");
    assert!(known.len() > 10, "{known:?}");
    known
}

async fn exports_are_restored_by_pg_restore_17() -> Completion {
    let server = match server(17).await {
        Ok(server) => server,
        Err(reason) => return Completion::ignored_with(reason),
    };
    let all = [ExportCompression::None, ExportCompression::Gzip, ExportCompression::Zstd];
    exported_is_restored(&server, &server, &ways(17, &all)).await;
    Completion::Completed
}

/// What 17 describes in groups, 15 reads one by one.
async fn a_dump_of_17_is_exported_for_15() -> Completion {
    let server = match server(17).await {
        Ok(server) => server,
        Err(reason) => return Completion::ignored_with(reason),
    };
    server.execute_in("shop", "grant select on table events to public").await.expect("a grant");
    let grant = "do $$ declare l oid; begin for l in select oid from pg_largeobject_metadata loop \
         execute format('grant select on large object %s to public', l); end loop; end $$";
    server.execute_in("shop", grant).await.expect("a grant");
    let reader = postgres_server(PostgresOptions::new().with_major(15)).await.expect("a server");
    exported_is_restored(&server, &reader, &ways(15, &[ExportCompression::None])).await;
    let granted = "select count(*) from pg_largeobject_metadata where lomacl::text like '%=r/%'";
    let granted = reader.query_in("export0j4", granted).await.expect("a count");
    assert_eq!(granted[0][0].as_deref(), Some("8"));
    Completion::Completed
}

/// A pipe can't be sought: the reader looks for the data by itself.
async fn an_export_to_a_stream_is_restored() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let (dump, path) = (directory.path().join("shop.dump"), directory.path().join("streamed"));
    pg_dump(&server, &["-Fc"], &dump).await;
    let archive = Archive::open(&dump).await.expect("an archive");
    let mut bytes = Vec::new();
    let options = ExportOptions::new(ExportFormat::Custom);
    export(&archive, &options, ExportTo::Stream(&mut bytes)).await.expect("an export");
    std::fs::write(&path, &bytes).expect("a file");
    for jobs in ["-j1", "-j2"] {
        let database = format!("streamed{}", &jobs[1..]);
        pg_restore(server.bin_dir(), &server, &database, &[jobs], &path).await;
        assert_eq!(content(&server, &database).await, content(&server, "shop").await);
    }
    // And we look for it as well.
    same("streamed", &artifacts(&archive).await, &path).await;
    let folder = export(&archive, &ExportOptions::new(ExportFormat::Directory), ExportTo::Stream(&mut bytes)).await;
    assert_eq!(folder.expect_err("a folder to a stream").kind(), ErrorKind::Config);
}

async fn one_table_is_exported() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let (dump, path) = (directory.path().join("shop.dump"), directory.path().join("one"));
    pg_dump(&server, &["-Fc"], &dump).await;
    let archive = Archive::open(&dump).await.expect("an archive");
    let options = ExportOptions::new(ExportFormat::Custom).only_tables(["bytes"]);
    let report = export(&archive, &options, ExportTo::Path(path.clone())).await.expect("an export");
    assert_eq!((report.tables, report.large_objects), (1, 0), "{report:?}");
    server.create_database("one").await.expect("a database");
    // Its trigger calls a function, which no table holds.
    server
        .execute_in("one", "create function touch() returns trigger language plpgsql as 'begin end'")
        .await
        .expect("SQL");
    let restore =
        tool(&server, "pg_restore").args(["--exit-on-error"]).arg(format!("--dbname={}", server.url_of("one")));
    restore.arg(&path).output(TOOL_TIMEOUT).await.expect("a restore");
    let sum = "select md5(string_agg(t::text, '|' order by t::text)) from bytes t";
    assert_eq!(server.query_in("one", sum).await.expect("rows"), server.query_in("shop", sum).await.expect("rows"));
    let names =
        "select string_agg(relname, ' ' order by relname) from pg_class where relnamespace = 'public'::regnamespace";
    assert_eq!(server.query_in("one", names).await.expect("names")[0][0].as_deref(), Some("bytes bytes_pkey"));
}

async fn a_table_that_is_not_there_is_not_exported() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let dump = directory.path().join("shop.dump");
    pg_dump(&server, &["-Fc"], &dump).await;
    let archive = Archive::open(&dump).await.expect("an archive");
    let missing = ExportOptions::new(ExportFormat::Custom).only_tables(["nothing"]);
    let error =
        export(&archive, &missing, ExportTo::Path(directory.path().join("x"))).await.expect_err("no such table");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// Our own dump, of many artifacts and of several parts a table, leaves by the same door.
async fn a_parallel_dump_is_exported() {
    let server = server(15).await.expect("a server");
    // Large objects are no part of it.
    server.execute_in("shop", "select lo_unlink(oid) from pg_largeobject_metadata").await.expect("SQL");
    let parallel = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(2).with_split_bytes(64 << 10);
    let config = PostgresConfig::from_url(&server.url_of("shop")).expect("a URL").with_dump(parallel);
    let (memory, _report) = dump(&Postgres::new(config)).await.expect("a dump");
    let directory = tempfile::tempdir().expect("a directory");
    for (at, options) in ways(15, &[ExportCompression::None, ExportCompression::Gzip]).iter().enumerate() {
        let (path, database) = (directory.path().join(format!("export{at}")), format!("export{at}"));
        export(&memory, options, ExportTo::Path(path.clone())).await.expect("an export");
        pg_restore(server.bin_dir(), &server, &database, &["-j2"], &path).await;
        assert_eq!(content(&server, &database).await, content(&server, "shop").await, "{options:?}");
    }
}

/// Every statement of the text must succeed.
async fn an_export_as_sql_runs_through_psql() {
    let server = server(15).await.expect("a server");
    server
        .execute_in("shop", "create role reader; grant select on events to reader; alter table bytes owner to reader")
        .await
        .expect("SQL");
    let directory = tempfile::tempdir().expect("a directory");
    server.execute_in("shop", "comment on database shop is 'a shop'").await.expect("a comment");
    let (dump, path) = (directory.path().join("shop.dump"), directory.path().join("shop.sql"));
    pg_dump(&server, &["-Fc"], &dump).await;
    written_as_sql(&dump, &path).await;
    runs_through_psql(&server, &path).await;
    assert_eq!(content(&server, "again").await, content(&server, "shop").await);
    assert_eq!(rights(&server, "again").await, rights(&server, "shop").await);
}

async fn written_as_sql(dump: &Path, path: &Path) {
    let archive = Archive::open(dump).await.expect("an archive");
    let options = ExportOptions::new(ExportFormat::Plain);
    let report = export(&archive, &options, ExportTo::Path(path.to_owned())).await.expect("an export");
    assert_eq!((report.tables, report.large_objects), (8, 8));
    assert!(report.warnings.iter().any(|warning| warning.contains("of the database itself")), "{:?}", report.warnings);
}

async fn rights(server: &PostgresServer, database: &str) -> Vec<Vec<Option<String>>> {
    let sql = "select relowner::regrole::text, relacl::text from pg_class where relname in ('bytes', 'events') \
        order by relname";
    server.query_in(database, sql).await.expect("rights")
}

/// Runs the text in the fresh database `again`.
async fn runs_through_psql(server: &PostgresServer, path: &Path) {
    server.create_database("again").await.expect("a database");
    let psql = tool(server, "psql").args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", "--output=/dev/null"]);
    let psql = psql.arg("--file").arg(path).arg(format!("--dbname={}", server.url_of("again")));
    psql.output(TOOL_TIMEOUT).await.unwrap_or_else(|error| panic!("psql: {}", error.chain()));
}
