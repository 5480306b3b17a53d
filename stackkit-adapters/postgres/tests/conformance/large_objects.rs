//! Large objects of several owners through every export, read by the vendor's tools.

use std::path::Path;

use libtest_mimic::Completion;
use stackkit_core::ErrorKind;
use stackkit_core::backup::ArtifactSource;
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::{
    Archive, Engine, ExportCompression, ExportFormat, ExportOptions, ExportTo, Postgres, PostgresConfig, PostgresDump,
    export,
};

use crate::archives::{Other, TOOL_TIMEOUT, pg_dump, pg_restore, tool};
use crate::memory::{Memory, dump, restore};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![large_objects_survive_every_export];

/// Cases that need a version which describes large objects in groups.
pub(crate) const OTHERS: &[Other] = &[
    ("one_group_of_large_objects_is_restored_alone", || Box::pin(one_group_of_large_objects_is_restored_alone())),
    ("groups_are_read_by_libpgdump", || Box::pin(groups_are_read_by_libpgdump())),
    ("groups_are_told_to_older_readers", || Box::pin(groups_are_told_to_older_readers())),
    ("lists_of_large_objects_that_lie_are_told", || Box::pin(lists_of_large_objects_that_lie_are_told())),
];

/// The version from which on there are groups.
const GROUPS_SINCE: u32 = 17;

const ROLES: &str = "create role lo_a; create role lo_b; create role \"Lo \"\"c\"\"\";";

/// How many large objects [`MANY`] makes.
const COUNT: u64 = 2405;

/// Owners take turns, so that no group's objects stand together; those of the first two fill a group and a half. Beside
/// them one that is alone, one with a hole, one of nothing, the highest number, and such that a reader must skip.
const MANY: &str = "do $$ begin for n in 100001..102400 loop \
        perform lo_from_bytea(n, decode(repeat(md5(n::text), n % 4), 'hex')); \
        execute format('alter large object %s owner to %I', n, \
            case when n % 50 = 0 then 'Lo \"c\"' when n % 2 = 0 then 'lo_a' else current_user end); \
        if n % 50 = 1 then execute format('grant select, update on large object %s to lo_a, \"Lo \"\"c\"\"\"', n); end if; \
    end loop; end $$; \
    select lo_from_bytea(200000, 'alone'); alter large object 200000 owner to lo_b; grant select on large object 200000 to public; \
    select lo_from_bytea(200001, decode(repeat('00ff', 800000), 'hex')), lo_from_bytea(200002, decode(repeat('5c2e', 1500000), 'hex')), \
        lo_create(200003), lo_from_bytea(4294967295::oid, ''); \
    alter large object 200002 owner to lo_a; select lo_put(200003, 700000, 'behind a hole'); \
    comment on large object 100002 is 'it''s of a; and \\'; comment on large object 100050 is E'of c\\ntwo lines'; \
    comment on large object 200000 is 'alone'; comment on large object 4294967295 is 'the last';";

/// A server with the objects in `shop`.
async fn many() -> PostgresServer {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.create_database("shop").await.expect("a database");
    server.execute_in("shop", ROLES).await.expect("roles");
    server.execute_in("shop", MANY).await.expect("large objects");
    server
}

/// The same, if this version describes groups.
async fn many_in_groups() -> Result<PostgresServer, String> {
    let server = many().await;
    match server.major() {
        GROUPS_SINCE.. => Ok(server),
        older => Err(format!("pg_dump {older} describes each large object by itself")),
    }
}

/// Number, owner, grants, comment and content of each.
type Object = Vec<Option<String>>;

async fn objects(server: &PostgresServer, database: &str) -> Vec<Object> {
    let sql = "select m.oid, m.lomowner::regrole::text, m.lomacl::text, obj_description(m.oid, 'pg_largeobject'), \
        length(lo_get(m.oid)), md5(lo_get(m.oid)) from pg_largeobject_metadata m order by m.oid";
    server.query_in(database, sql).await.expect("large objects")
}

fn assert_same(expected: &[Object], found: &[Object], what: &str) {
    let other = expected.iter().zip(found).find(|(expected, found)| expected != found);
    assert_eq!((expected.len(), other), (found.len(), None), "{what}");
}

fn service(server: &PostgresServer, database: &str) -> Postgres {
    let parallel = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(2);
    Postgres::new(PostgresConfig::from_url(&server.url_of(database)).expect("a URL").with_dump(parallel))
}

async fn exported(source: &dyn ArtifactSource, options: &ExportOptions, path: &Path) {
    let report = export(source, options, ExportTo::Path(path.to_owned())).await;
    let report = report.unwrap_or_else(|error| panic!("{options:?}: {}", error.chain()));
    assert_eq!(report.large_objects, COUNT, "{options:?}");
}

async fn large_objects_survive_every_export() {
    let server = many().await;
    let expected = objects(&server, "shop").await;
    assert_eq!(expected.len() as u64, COUNT);
    let (memory, report) = dump(&service(&server, "shop")).await.expect("a dump");
    restore(&service(&server, "loaded"), &memory, &report).await.expect("a restore");
    assert_same(&expected, &objects(&server, "loaded").await, "loaded");
    let directory = tempfile::tempdir().expect("a directory");
    survive(&server, ("parallel", &memory), &expected, directory.path()).await;
    let archive = archive(&server, directory.path()).await;
    survive(&server, ("archive", &archive), &expected, directory.path()).await;
    without_places(&server, &memory, &directory.path().join("streamed")).await;
    assert_same(&expected, &objects(&server, "streamed").await, "streamed");
}

/// What the vendor's tool makes of `shop`.
async fn archive(server: &PostgresServer, directory: &Path) -> Archive {
    let path = directory.join("shop.dump");
    pg_dump(server, &["-Fc"], &path).await;
    Archive::open(&path).await.expect("an archive")
}

/// A dump, and what databases made of it are called.
type Source<'a> = (&'a str, &'a dyn ArtifactSource);

async fn survive(server: &PostgresServer, (name, source): Source<'_>, expected: &[Object], directory: &Path) {
    for (format, compression, jobs) in [
        (ExportFormat::Directory, ExportCompression::Gzip, "-j2"),
        (ExportFormat::Custom, ExportCompression::None, "-j2"),
        (ExportFormat::Custom, ExportCompression::Gzip, "-j1"),
        (ExportFormat::Plain, ExportCompression::None, ""),
    ] {
        let database = format!("{name}_{format:?}_{compression:?}").to_lowercase();
        let path = directory.join(&database);
        exported(source, &ExportOptions::new(format).with_compression(compression), &path).await;
        match format {
            ExportFormat::Plain => psql(server, &database, &path).await,
            _ => pg_restore(server.bin_dir(), server, &database, &[jobs], &path).await,
        }
        assert_same(expected, &objects(server, &database).await, &database);
    }
}

/// A pipe can't be sought: the reader looks for each group by itself.
async fn without_places(server: &PostgresServer, memory: &Memory, path: &Path) {
    let mut bytes = Vec::new();
    export(memory, &ExportOptions::new(ExportFormat::Custom), ExportTo::Stream(&mut bytes)).await.expect("an export");
    std::fs::write(path, &bytes).expect("a file");
    pg_restore(server.bin_dir(), server, "streamed", &["-j2"], path).await;
}

async fn psql(server: &PostgresServer, database: &str, path: &Path) {
    server.create_database(database).await.expect("a database");
    let psql = tool(server, "psql").args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", "--output=/dev/null"]);
    let psql = psql.arg("--file").arg(path).arg(format!("--dbname={}", server.url_of(database)));
    psql.output(TOOL_TIMEOUT).await.unwrap_or_else(|error| panic!("psql: {}", error.chain()));
}

/// What `pg_restore --list` says of the groups: the lines of each, by its first and last number and its owner.
async fn groups(server: &PostgresServer, path: &Path) -> Vec<(String, Vec<String>)> {
    let list = tool(server, "pg_restore").arg("--list").arg(path).output(TOOL_TIMEOUT).await.expect("a list");
    let list = String::from_utf8(list).expect("text");
    let of_kind = |line: &&str| line.contains(" BLOB METADATA - ") || line.contains(" BLOBS - ");
    let mut groups = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in list.lines().filter(of_kind) {
        let (_, named) = line.split_once(" - ").expect("a name");
        groups.entry(named.to_owned()).or_default().push(line.to_owned());
    }
    groups.into_iter().collect()
}

/// Those of `all` that belong to a group of this name.
fn of_group(all: &[Object], name: &str) -> Vec<Object> {
    let number = |object: &Object| object[0].as_ref().expect("a number").parse::<u32>().expect("a number");
    let numbers = name.split_once(' ').expect("an owner").0;
    let (first, last) = numbers.split_once("..").unwrap_or((numbers, numbers));
    let (first, last): (u32, u32) = (first.parse().expect("a number"), last.parse().expect("a number"));
    let leader = all.iter().find(|object| number(object) == first).expect("the first");
    let is_its = |object: &&Object| object[1..3] == leader[1..3] && (first..=last).contains(&number(object));
    // Grants and comments are entries of their own, which are not chosen here.
    let bare = |object: &Object| [&object[..2], &[None, None], &object[4..]].concat();
    all.iter().filter(is_its).map(bare).collect()
}

async fn one_group_of_large_objects_is_restored_alone() -> Completion {
    let server = match many_in_groups().await {
        Ok(server) => server,
        Err(reason) => return Completion::ignored_with(reason),
    };
    let (memory, _report) = dump(&service(&server, "shop")).await.expect("a dump");
    let directory = tempfile::tempdir().expect("a directory");
    let archive = archive(&server, directory.path()).await;
    let names = names(&groups(&server, &directory.path().join("shop.dump")).await);
    assert!(names.len() > 5, "{names:?}");
    for format in [ExportFormat::Custom, ExportFormat::Directory] {
        each_group_alone(&server, ("parallel", &memory), format, (&names, directory.path())).await;
        each_group_alone(&server, ("archive", &archive), format, (&names, directory.path())).await;
    }
    Completion::Completed
}

async fn each_group_alone(
    server: &PostgresServer,
    (name, source): Source<'_>,
    format: ExportFormat,
    (expected, directory): (&[String], &Path),
) {
    let all = objects(server, "shop").await;
    let path = directory.join(format!("{name}{format:?}"));
    exported(source, &ExportOptions::new(format), &path).await;
    let found = groups(server, &path).await;
    assert_eq!(names(&found), expected, "{name} {format:?}");
    for (at, (group, lines)) in found.iter().enumerate() {
        let database = format!("{name}_{format:?}_{at}").to_lowercase();
        let list = directory.join("list");
        std::fs::write(&list, lines.join("\n") + "\n").expect("a list");
        let chosen = format!("--use-list={}", list.display());
        pg_restore(server.bin_dir(), server, &database, &["-j2", &chosen], &path).await;
        let found = objects(server, &database).await;
        assert_same(&of_group(&all, group), &found, &format!("{name} {format:?} {group}"));
        assert!(!found.is_empty() && found.len() <= 1000, "{group}");
    }
}

fn names(groups: &[(String, Vec<String>)]) -> Vec<String> {
    groups.iter().map(|(name, _lines)| name.clone()).collect()
}

/// A reader that knows nothing of this project finds the same objects in the same groups as in the vendor's archive.
async fn groups_are_read_by_libpgdump() -> Completion {
    let server = match many_in_groups().await {
        Ok(server) => server,
        Err(reason) => return Completion::ignored_with(reason),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let [of_vendor, of_ours] = ["shop.dump", "export"].map(|name| directory.path().join(name));
    pg_dump(&server, &["-Fc", "-Z0"], &of_vendor).await;
    let archive = Archive::open(&of_vendor).await.expect("an archive");
    exported(&archive, &ExportOptions::new(ExportFormat::Custom), &of_ours).await;
    let [vendor, ours] = [of_vendor, of_ours].map(|path| libpgdump::load(&path).expect("an archive"));
    assert_eq!(vendor.blobs().len() as u64, COUNT);
    assert!(ours.blobs() == vendor.blobs(), "other objects, or in another order");
    Completion::Completed
}

/// Readers before 17 know each object by itself.
async fn groups_are_told_to_older_readers() -> Completion {
    let server = match many_in_groups().await {
        Ok(server) => server,
        Err(reason) => return Completion::ignored_with(reason),
    };
    let expected = objects(&server, "shop").await;
    let (memory, _report) = dump(&service(&server, "shop")).await.expect("a dump");
    let directory = tempfile::tempdir().expect("a directory");
    for major in [15, 16] {
        let Ok(reader) = postgres_server(PostgresOptions::new().with_major(major)).await else { continue };
        reader.execute_in("postgres", ROLES).await.expect("roles");
        for (format, jobs) in [(ExportFormat::Custom, "-j1"), (ExportFormat::Directory, "-j2")] {
            let database = format!("{format:?}").to_lowercase();
            let path = directory.path().join(format!("{database}{major}"));
            exported(&memory, &ExportOptions::new(format).for_major(major), &path).await;
            pg_restore(reader.bin_dir(), &reader, &database, &[jobs], &path).await;
            assert_same(&expected, &objects(&reader, &database).await, &format!("{major} {database}"));
        }
    }
    Completion::Completed
}

/// No object is left out, and none is written twice, whatever a list says.
async fn lists_of_large_objects_that_lie_are_told() -> Completion {
    let server = match many_in_groups().await {
        Ok(server) => server,
        Err(reason) => return Completion::ignored_with(reason),
    };
    let (memory, _report) = dump(&service(&server, "shop")).await.expect("a dump");
    let lists: Vec<String> = memory.names().into_iter().filter(|name| name.starts_with("blobs_")).collect();
    let whole: Vec<Vec<u8>> = lists.iter().map(|name| memory.bytes_of(name)).collect();
    let last = lists.len() - 1;
    let first_line = |list: &[u8]| list.split_inclusive(|byte| *byte == b'\n').next().expect("a line").to_vec();
    let directory = tempfile::tempdir().expect("a directory");
    let lies = [
        ("one is missing", 0, whole[0][first_line(&whole[0]).len()..].to_vec()),
        ("an empty list", last, Vec::new()),
        ("one is not there", 0, [&whole[0][..], b"7 blob_7.dat\n"].concat()),
        ("one is in two", last, [&whole[last][..], &first_line(&whole[0])].concat()),
        ("cut", 0, whole[0][..whole[0].len() - 1].to_vec()),
        ("no list", 0, b"7 toc.dat\n".to_vec()),
    ];
    for (what, at, lie) in lies {
        memory.put(&lists[at], "postgresql-blobs-toc", lie);
        for format in [ExportFormat::Custom, ExportFormat::Directory] {
            let path = directory.path().join("export");
            let error = export(&memory, &ExportOptions::new(format), ExportTo::Path(path.clone())).await;
            let error = error.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {}", error.chain());
            assert!(!path.exists(), "{what}");
        }
        memory.put(&lists[at], "postgresql-blobs-toc", whole[at].clone());
    }
    exported(&memory, &ExportOptions::new(ExportFormat::Custom), &directory.path().join("export")).await;
    Completion::Completed
}
