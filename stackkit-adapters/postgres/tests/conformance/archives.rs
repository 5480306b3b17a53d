//! Archives of the vendor's tools: read as artifacts, and written for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use libtest_mimic::Completion;
use stackkit_core::backup::{ArtifactSource, RestoreContext, RestoreOptions};
use stackkit_core::process::Tool;
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::{Archive, Postgres};
use tokio::io::AsyncReadExt;

use crate::backup::OBJECTS;
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    archives_of_every_kind_hold_the_same,
    archives_of_every_kind_are_imported,
    an_archive_put_together_by_hand_is_restored,
    damage_of_an_archive_is_told,
];

/// Cases that need another version than the suite's, and are ignored without it.
pub(crate) const OTHERS: &[Other] =
    &[("archives_of_17_with_every_codec_hold_the_same", || Box::pin(archives_of_17_with_every_codec_hold_the_same()))];

/// One case that may be ignored.
pub(crate) type Other = (&'static str, fn() -> Pin<Box<dyn Future<Output = Completion>>>);

/// How long a tool may take on a busy machine.
pub(crate) const TOOL_TIMEOUT: Duration = Duration::from_secs(120);

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

/// [`server`] of the version that the suite runs.
pub(crate) async fn own_server() -> PostgresServer {
    let version = postgres_server(PostgresOptions::new()).await.expect("a server").major();
    server(version).await.expect("a server")
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

/// [`content`] without the names of what keeps nulls out, which are constraints from 18 on: what two versions can have in
/// common.
pub(crate) async fn common_content(server: &PostgresServer, database: &str) -> Vec<Vec<Option<String>>> {
    let mut content = content(server, database).await;
    let constraints = content.iter_mut().find(|row| row[0].as_deref() == Some("h")).expect("constraints");
    let names = constraints[1].take().expect("names");
    let names: Vec<&str> = names.split('|').filter(|name| !name.ends_with("_not_null")).collect();
    constraints[1] = Some(names.join("|"));
    content
}

/// Every artifact's bytes, but the table of contents' own time of writing.
pub(crate) async fn artifacts(source: &dyn ArtifactSource) -> BTreeMap<String, Vec<u8>> {
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

/// What the server's own `pg_dump` writes.
async fn ways_of(server: &PostgresServer) -> Vec<(&'static str, &'static [&'static str])> {
    let mut ways = WAYS.to_vec();
    for (name, arguments) in WAYS_SINCE_16.into_iter().filter(|_| server.major() >= 16) {
        let url = format!("--dbname={}", server.url_of("postgres"));
        let try_it = tool(server, "pg_dump").args(["-Fc", "--schema-only", arguments[1]]).arg(url);
        match try_it.output(TOOL_TIMEOUT).await {
            Ok(_) => ways.push((name, arguments)),
            Err(error) if error.chain().to_string().contains("this build does not support") => {
                eprintln!("{name} is left out: pg_dump {} was built without it", server.major());
            }
            Err(error) => panic!("{}", error.chain()),
        }
    }
    ways
}

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
    // From 16 on the tool adds a second table of contents to a file that a shell opened.
    let path = directory.path().join("custom.redirected");
    let shell = Tool::new("/bin/sh").args(["-c", r#""$0" -Fc "$1" > "$2""#]).arg(server.bin_dir().join("pg_dump"));
    shell.arg(url).arg(&path).output(TOOL_TIMEOUT).await.expect("an archive");
    same("custom.redirected", &expected, &path).await;
}

pub(crate) async fn same(name: &str, expected: &BTreeMap<String, Vec<u8>>, path: &Path) {
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
    let server = own_server().await;
    all_the_same(&server, &ways_of(&server).await).await;
}

/// What the vendor's tool of this version wrote comes back by our own loader.
async fn archives_of_every_kind_are_imported() {
    let server = own_server().await;
    let directory = tempfile::tempdir().expect("a directory");
    for (name, arguments) in ways_of(&server).await {
        let path = directory.path().join(name);
        pg_dump(&server, arguments, &path).await;
        import(&server, name, &path).await;
        assert_eq!(content(&server, name).await, content(&server, "shop").await, "{name}");
    }
}

/// Restores the archive at `path` into the database, which does not exist.
pub(crate) async fn import(server: &PostgresServer, database: &str, path: &Path) {
    let archive = Archive::open(path).await.unwrap_or_else(|error| panic!("{database}: {}", error.chain()));
    let service = Postgres::from_url(&server.url_of(database)).expect("a URL");
    let plan = service.plan_restore(&archive, &RestoreOptions::new()).await;
    let plan = plan.unwrap_or_else(|error| panic!("{database}: {}", error.chain()));
    assert_eq!(plan.missing, Vec::<String>::new(), "{database}");
    let restored = service.restore(plan, &archive, &RestoreContext::new()).await;
    restored.unwrap_or_else(|error| panic!("{database}: {}", error.chain()));
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
