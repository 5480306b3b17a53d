//! Archives of the vendor's tools: read as artifacts, and written for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use libtest_mimic::Completion;
use stackkit_core::ErrorKind;
use stackkit_core::backup::ArtifactSource;
use stackkit_core::process::Tool;
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::{
    Archive, Engine, ExportCompression, ExportFormat, ExportOptions, ExportTo, Postgres, PostgresConfig, PostgresDump,
    export,
};
use tokio::io::AsyncReadExt;

use crate::backup::OBJECTS;
use crate::memory::dump;
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    archives_of_every_kind_hold_the_same,
    an_archive_put_together_by_hand_is_restored,
    damage_of_an_archive_is_told,
    exports_are_restored_by_pg_restore_15,
    an_export_to_a_stream_is_restored,
    one_table_is_exported,
    a_parallel_dump_is_exported,
];

/// Cases that need another version than the suite's, and are ignored without it.
pub(crate) const OTHERS: &[Other] = &[
    ("archives_of_17_with_every_codec_hold_the_same", || Box::pin(archives_of_17_with_every_codec_hold_the_same())),
    ("exports_are_restored_by_pg_restore_17", || Box::pin(exports_are_restored_by_pg_restore_17())),
    ("a_dump_of_17_is_exported_for_15", || Box::pin(a_dump_of_17_is_exported_for_15())),
];

/// One case that may be ignored.
pub(crate) type Other = (&'static str, fn() -> Pin<Box<dyn Future<Output = Completion>>>);

/// How long a tool may take on a busy machine.
const TOOL_TIMEOUT: Duration = Duration::from_secs(120);

/// Large objects of sizes around a member's padding, one that packs well, and one of nothing.
pub(crate) const BLOBS: &str = "select lo_from_bytea(0, decode(repeat('00', n), 'hex')) from (values (0), (1), (511), (512), \
     (513), (300000)) v(n); insert into bytes select 1000 + g, decode(repeat(md5(g::text), 40), 'hex') from \
     generate_series(1, 3000) g;";

/// A server of that version with one filled database, `shop`; the reason if there is none.
pub(crate) async fn server(major: u32) -> Result<PostgresServer, String> {
    let server = postgres_server(PostgresOptions::new().with_major(major)).await.map_err(|error| error.to_string())?;
    server.create_database("shop").await.expect("a database");
    server.execute_in("shop", OBJECTS).await.expect("objects");
    server.execute_in("shop", BLOBS).await.expect("large objects");
    Ok(server)
}

/// A tool of the server's version.
pub(crate) fn tool(server: &PostgresServer, name: &str) -> Tool {
    Tool::new(server.bin_dir().join(name))
}

/// Runs `pg_dump` of the server's version into `path`.
pub(crate) async fn pg_dump(server: &PostgresServer, arguments: &[&str], path: &Path) {
    let url = server.url_of("shop");
    let dump = tool(server, "pg_dump").args(arguments).arg("--file").arg(path).arg(format!("--dbname={url}"));
    dump.output(TOOL_TIMEOUT).await.unwrap_or_else(|error| panic!("pg_dump {arguments:?}: {}", error.chain()));
}

/// Restores `path` into a fresh database by `pg_restore` of `by`, any error being one.
pub(crate) async fn pg_restore(by: &Path, server: &PostgresServer, database: &str, arguments: &[&str], path: &Path) {
    server.create_database(database).await.expect("a database");
    let url = server.url_of(database);
    let restore = Tool::new(by.join("pg_restore")).args(["--exit-on-error", "--no-password"]).args(arguments);
    let restore = restore.arg(format!("--dbname={url}")).arg(path);
    restore.output(TOOL_TIMEOUT).await.unwrap_or_else(|error| panic!("pg_restore {arguments:?}: {}", error.chain()));
}

/// What a database holds: the rows of every table, sequences, large objects.
pub(crate) async fn content(server: &PostgresServer, database: &str) -> Vec<Vec<Option<String>>> {
    let sql = r#"
        select 'a', md5(string_agg(t::text, '|' order by t::text)) from "Schräg ""zitiert"""."Tabelle mit 'Zeichen'.x" t
        union all select 'b', md5(string_agg(t::text, '|' order by t::text)) from events t
        union all select 'c', md5(string_agg(t::text, '|' order by t::text)) from bytes t
        union all select 'd', md5(string_agg(t::text, '|' order by t::text)) from per_day t
        union all select 'e', last_value::text from lonely
        union all select 'f', md5(string_agg(oid || lo_get(oid)::text, '|' order by oid)) from pg_largeobject_metadata
        union all select 'g', obj_description('events'::regclass) || twice(4)
        union all select 'h', string_agg(conname, '|' order by conname) from pg_constraint where conrelid >= 16384
        union all select 'i', string_agg(relname, '|' order by relname) from pg_class
            where relkind in ('i', 'I', 'S') and oid >= 16384 and relnamespace <> 'pg_toast'::regnamespace
        order by 1"#;
    server.query_in(database, sql).await.expect("content")
}

/// Every artifact's bytes, but the table of contents' own time of writing.
async fn artifacts(source: &dyn ArtifactSource) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for artifact in source.artifacts() {
        let mut bytes = Vec::new();
        let mut reader = source.open(artifact.name()).await.expect("an artifact");
        reader.read_to_end(&mut bytes).await.unwrap_or_else(|error| panic!("{}: {error}", artifact.name()));
        let named = artifact.name().as_str().to_owned();
        let measured = bytes.len() as u64;
        let is_measured = !named.ends_with(".dat") || named == "toc.dat" || artifact.plain_bytes > 0;
        assert!(!is_measured || artifact.plain_bytes == measured, "{named} has {measured} bytes: {artifact:?}");
        all.insert(named, bytes);
    }
    all
}

/// The kinds of archives that every `pg_dump` writes.
const WAYS: [(&str, &[&str]); 5] = [
    ("custom.plain", &["-Fc", "-Z0"]),
    ("custom.gzip", &["-Fc"]),
    ("folder.gzip", &["-Fd"]),
    ("folder.parallel", &["-Fd", "-j2", "-Z1"]),
    ("tar", &["-Ft"]),
];

/// Those from 16 on, where they are built in.
const WAYS_SINCE_16: [(&str, &[&str]); 4] = [
    ("custom.lz4", &["-Fc", "--compress=lz4"]),
    ("folder.lz4", &["-Fd", "--compress=lz4:3"]),
    ("custom.zstd", &["-Fc", "--compress=zstd:5"]),
    ("folder.zstd", &["-Fd", "--compress=zstd:1"]),
];

/// Compares archives of all `ways` with a folder of plain files by the same tool.
async fn all_the_same(server: &PostgresServer, ways: &[(&str, &[&str])]) {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().join("folder.plain");
    pg_dump(server, &["-Fd", "-Z0"], &folder).await;
    let expected = artifacts(&Archive::open(&folder).await.expect("a folder")).await;
    assert!(expected.len() > 10 && expected.contains_key("blobs.000.tar"), "{:?}", expected.keys());
    for name in expected.keys().filter(|name| name.trim_end_matches(".dat").parse::<i32>().is_ok()) {
        assert_eq!(expected[name], std::fs::read(folder.join(name)).expect("a file"), "{name}");
    }
    for (name, arguments) in ways {
        let path = directory.path().join(name);
        pg_dump(server, arguments, &path).await;
        same(name, &expected, &path).await;
    }
    // Written to a pipe, an archive does not know where its data is.
    let url = format!("--dbname={}", server.url_of("shop"));
    let bytes = tool(server, "pg_dump").args(["-Fc", url.as_str()]).output(TOOL_TIMEOUT).await.expect("an archive");
    let path = directory.path().join("custom.pipe");
    std::fs::write(&path, bytes).expect("a file");
    same("custom.pipe", &expected, &path).await;
}

async fn same(name: &str, expected: &BTreeMap<String, Vec<u8>>, path: &Path) {
    let archive = Archive::open(path).await.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
    let found = artifacts(&archive).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
    for (artifact, bytes) in
        found.iter().filter(|(artifact, _)| !["toc.dat", "contents.json"].contains(&artifact.as_str()))
    {
        assert!(*bytes == expected[artifact], "{name}: {artifact} is another");
    }
}

async fn archives_of_every_kind_hold_the_same() {
    all_the_same(&server(15).await.expect("a server"), &WAYS).await;
}

async fn archives_of_17_with_every_codec_hold_the_same() -> Completion {
    match server(17).await {
        Ok(server) => all_the_same(&server, &[WAYS.as_slice(), &WAYS_SINCE_16].concat()).await,
        Err(reason) => return Completion::ignored_with(reason),
    }
    Completion::Completed
}

/// Writes every artifact of `source` into `folder`, as the documentation tells a person to.
async fn put_together(source: &dyn ArtifactSource, folder: &Path) {
    std::fs::create_dir(folder).expect("a folder");
    for (name, bytes) in artifacts(source).await {
        let path = folder.join(&name);
        std::fs::write(&path, bytes).expect("a file");
        if name.ends_with(".tar") {
            let tar = Tool::new("/bin/tar").arg("-xf").arg(&path).arg("-C").arg(folder);
            tar.output(TOOL_TIMEOUT).await.expect("a tar file");
        }
    }
}

async fn an_archive_put_together_by_hand_is_restored() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("shop.dump");
    pg_dump(&server, &["-Fc"], &path).await;
    let folder: PathBuf = directory.path().join("folder");
    put_together(&Archive::open(&path).await.expect("an archive"), &folder).await;
    pg_restore(server.bin_dir(), &server, "again", &["-j2"], &folder).await;
    assert_eq!(content(&server, "again").await, content(&server, "shop").await);
}

async fn damage_of_an_archive_is_told() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("shop.dump");
    pg_dump(&server, &["-Fc"], &path).await;
    let whole = std::fs::read(&path).expect("a file");
    let other = directory.path().join("other.dump");
    for (what, bytes, kind) in [
        ("nothing", Vec::new(), ErrorKind::Unsupported),
        ("text", b"-- PostgreSQL database dump\n".repeat(50), ErrorKind::Unsupported),
        ("cut in the contents", whole[..2000].to_vec(), ErrorKind::Integrity),
    ] {
        std::fs::write(&other, bytes).expect("a file");
        assert_eq!(Archive::open(&other).await.expect_err(what).kind(), kind, "{what}");
    }
    // Wherever the data is cut, reading all of it fails.
    for cut in [whole.len() - 1, whole.len() - 5, whole.len() * 3 / 4] {
        std::fs::write(&other, &whole[..cut]).expect("a file");
        assert_eq!(read_all(&other).await, Err(ErrorKind::Integrity), "cut at {cut} of {}", whole.len());
    }
    let missing = directory.path().join("missing");
    assert_eq!(Archive::open(&missing).await.expect_err("nothing").kind(), ErrorKind::NotFound);
}

/// Reads an archive to its end, or to its first error.
async fn read_all(path: &Path) -> Result<(), ErrorKind> {
    let archive = Archive::open(path).await.map_err(|error| error.kind())?;
    for artifact in archive.artifacts() {
        let mut reader = archive.open(artifact.name()).await.map_err(|error| error.kind())?;
        let read = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
        read.map_err(|error| error.downcast::<stackkit_core::Error>().expect("ours").kind())?;
    }
    Ok(())
}

/// Exports in every format, for the reader of `reader`, restored by it.
async fn exported_is_restored(server: &PostgresServer, reader: &PostgresServer, ways: &[ExportOptions]) {
    let directory = tempfile::tempdir().expect("a directory");
    let dump = directory.path().join("shop.dump");
    pg_dump(server, &["-Fc"], &dump).await;
    let archive = Archive::open(&dump).await.expect("an archive");
    let expected = content(server, "shop").await;
    for (at, options) in ways.iter().enumerate() {
        let path = directory.path().join(format!("export{at}"));
        let report = export(&archive, options, ExportTo::Path(path.clone())).await;
        let report = report.unwrap_or_else(|error| panic!("{options:?}: {}", error.chain()));
        assert_eq!((report.tables, report.large_objects), (8, 8), "{options:?}");
        for jobs in ["-j1", "-j4"] {
            let database = format!("export{at}{}", &jobs[1..]);
            pg_restore(reader.bin_dir(), reader, &database, &[jobs], &path).await;
            assert_eq!(content(reader, &database).await, expected, "{options:?} {jobs}");
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

async fn exports_are_restored_by_pg_restore_15() {
    let server = server(15).await.expect("a server");
    exported_is_restored(&server, &server, &ways(15, &[ExportCompression::None, ExportCompression::Gzip])).await;
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
