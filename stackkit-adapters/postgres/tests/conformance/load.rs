//! The restore of a dump of many artifacts, by a folder that `pg_dump` itself wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, DumpReport, RestoreContext, RestoreOptions,
    TargetState, VendorInfo,
};
use stackkit_core::process::Tool;
use stackkit_core::{BackupProvider, Error, ErrorKind, Result, async_trait};
use stackkit_fixtures::PostgresFixture;
use stackkit_postgres::{Owners, Postgres, PostgresDump, PostgresRestore, Strategy};

use crate::backup::filled;
use crate::memory::{Memory, restore};
use crate::parallel_dump::parallel;
use crate::restore::{WIPE, content, databases_like};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_folder_is_loaded_and_equal,
    a_failing_statement_names_its_entry,
    a_cut_table_leaves_the_old_data,
    a_missing_row_leaves_the_old_data,
    a_new_database_leaves_the_old_one_alone,
    one_table_is_restored_without_reading_the_others,
    owners_are_mapped_or_skipped,
    every_artifact_is_inspected,
    a_parallel_dump_is_loaded_and_equal,
];

/// How long the vendor's tools may take.
const TOOL_TIMEOUT: Duration = Duration::from_secs(60);

/// A dump of the fixture's database by the vendor's tool, in stackkit's layout.
pub(crate) async fn folder(postgres: &PostgresFixture, service: &Postgres) -> (Memory, DumpReport) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dump");
    let tool = |name: &str| Tool::new(postgres.server().bin_dir().join(name)).env("LC_ALL", "C");
    let url = format!("--dbname={}", postgres.url());
    let dump = tool("pg_dump").args(["--format=directory", "--compress=0", &url]).arg("--file").arg(&path);
    dump.output(TOOL_TIMEOUT).await.expect("a folder");
    let list = tool("pg_restore").arg("--list").arg(&path).output(TOOL_TIMEOUT).await.expect("a list");
    let memory = in_layout(&path, &String::from_utf8_lossy(&list)).await;
    let census = service.census().await.expect("a census");
    (memory.sealed(), DumpReport::new(census, VendorInfo::new("PostgreSQL")))
}

/// The files of a folder as artifacts, with the `contents.json` that tells where everything is.
async fn in_layout(path: &Path, list: &str) -> Memory {
    let memory = Memory::default();
    let read = |name: &str| std::fs::read(path.join(name)).expect(name);
    let mut tables = Vec::new();
    for line in list.lines() {
        let Some((id, rest)) = line.split_once(';') else { continue };
        let Some((_, name)) = rest.split_once(" TABLE DATA ") else { continue };
        let id: i32 = id.trim().parse().expect("a number");
        let artifact = format!("{id}.dat");
        let data = read(&artifact);
        let words: Vec<&str> = name.rsplitn(2, ' ').collect();
        let (schema, table) = names(words[1]);
        tables.push(serde_json::json!({
            "dump_id": id, "schema": schema, "table": table,
            "rows": data.iter().filter(|byte| **byte == b'\n').count() - 3,
            "parts": [{ "artifact": artifact, "bytes": data.len() }],
        }));
        memory.put(&artifact, "postgresql-copy-text", data);
    }
    memory.put("toc.dat", "postgresql-toc", read("toc.dat"));
    let blobs = blobs(path, &memory).await;
    let database = serde_json::json!({
        "name": "shop", "encoding": "UTF8", "tables": tables,
        "blobs": if blobs == 0 { vec![] } else { vec!["blobs.000.tar"] }, "blobs_count": blobs,
    });
    let contents = serde_json::json!({ "version": 1, "server_version": "15", "databases": [database] });
    memory.put("contents.json", "stackkit-postgresql-contents", contents.to_string().into_bytes());
    memory
}

/// Schema and table of a line of `pg_restore --list`, whose words are not quoted.
fn names(words: &str) -> (String, String) {
    let known = BTreeMap::from([("Schräg \"zitiert\" Tabelle mit 'Zeichen'.x", 2)]);
    let words_of_schema = known.get(words).copied().unwrap_or(1);
    let at = words.match_indices(' ').nth(words_of_schema - 1).expect("two names").0;
    (words[..at].to_owned(), words[at + 1..].to_owned())
}

async fn blobs(path: &Path, memory: &Memory) -> usize {
    let mut files: Vec<String> = std::fs::read_dir(path)
        .expect("a folder")
        .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("blob_"))
        .collect();
    files.sort();
    if !files.is_empty() {
        let tar = Tool::new("/bin/tar").args(["--format=ustar", "--create", "--directory"]).arg(path).args(&files);
        let tar = tar.output(TOOL_TIMEOUT).await.expect("an archive");
        memory.put("blobs.000.tar", "tar-pax", tar);
    }
    files.len()
}

async fn a_folder_is_loaded_and_equal() {
    let (postgres, service) = filled().await;
    let before = content(&postgres, postgres.database()).await;
    let (memory, report) = folder(&postgres, &service).await;
    postgres.execute(WIPE).await.expect("a wipe");
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census, report.census);
    assert_eq!(content(&postgres, postgres.database()).await, before);
    assert!(databases_like(&postgres, "__sk_").await.is_empty());
    // Since 18 a column that must not be null is a constraint too.
    let keys = "select string_agg(conname || ' ' || pg_get_constraintdef(oid), '|' order by 1) from pg_constraint \
        where conrelid in ('bytes'::regclass, 'refers'::regclass) and contype <> 'n'";
    let keys = postgres.query(keys).await.expect("keys")[0][0].clone().expect("keys");
    assert_eq!(keys, "bytes_pkey PRIMARY KEY (id)|refers_id_fkey FOREIGN KEY (id) REFERENCES bytes(id) DEFERRABLE");
}

async fn a_failing_statement_names_its_entry() {
    let (postgres, service) = filled().await;
    let (memory, report) = folder(&postgres, &service).await;
    let toc = memory.bytes_of("toc.dat");
    // In the body of a view, with the length that it had.
    let from = b"FROM public.events";
    let at = toc.windows(from.len()).position(|window| window == from).expect("a view");
    let mut broken = toc.clone();
    broken[at..at + from.len()].copy_from_slice(b"FROM public.eventz");
    memory.put("toc.dat", "postgresql-toc", broken);
    let error = restore(&service, &memory.sealed(), &report).await.expect_err("no such table");
    assert_eq!((error.code(), error.target()), (Some("42P01"), Some(TargetState::Old)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("toc_id=") && text.contains("VIEW \"public\".") && text.contains("sql=CREATE"), "{text}");
    assert!(databases_like(&postgres, "__").await.is_empty());
}

async fn a_cut_table_leaves_the_old_data() {
    let (postgres, service) = filled().await;
    let (memory, report) = folder(&postgres, &service).await;
    let name = memory.names().into_iter().find(|name| memory.bytes_of(name).len() > 10_000 && name.ends_with(".dat"));
    let name = name.expect("a large table");
    let mut bytes = memory.bytes_of(&name);
    bytes.truncate(bytes.len() - 6);
    memory.put(&name, "postgresql-copy-text", bytes);
    let error = restore(&service, &memory.sealed(), &report).await.expect_err("a cut table");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error:?}");
    assert!(databases_like(&postgres, "__").await.is_empty());
}

async fn a_missing_row_leaves_the_old_data() {
    let (postgres, service) = filled().await;
    let (memory, _report) = folder(&postgres, &service).await;
    let contents = String::from_utf8(memory.bytes_of("contents.json")).expect("text");
    let contents = contents.replace("\"rows\":101", "\"rows\":102");
    memory.put("contents.json", "stackkit-postgresql-contents", contents.into_bytes());
    let memory = memory.sealed();
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let error = service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("a row is missing");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error:?}");
    assert!(error.to_string().contains("public.bytes"), "{error}");
}

pub(crate) fn with(service: &Postgres, options: PostgresRestore) -> Postgres {
    Postgres::new(service.config().clone().with_restore(options))
}

async fn a_new_database_leaves_the_old_one_alone() {
    let (postgres, service) = filled().await;
    let before = content(&postgres, postgres.database()).await;
    let (memory, report) = folder(&postgres, &service).await;
    let name = format!("{}_beside", postgres.database());
    let target = with(&service, PostgresRestore::new().with_strategy(Strategy::IntoNew(name.clone())).with_jobs(3));
    let plan = target.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(!plan.is_destructive(), "{plan}");
    is_stale(&service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("another strategy"));
    let restored = restore(&target, &memory, &report).await.expect("a restore");
    assert_eq!((restored.census, restored.old_data_kept_as), (report.census.clone(), None));
    assert_eq!(content(&postgres, &name).await, before);
    assert_eq!(service.census().await.expect("a census"), report.census);
    the_name_is_taken(&target, &memory).await;
    removed(&postgres, &name).await;
}

async fn the_name_is_taken(target: &Postgres, memory: &Memory) {
    let plan = target.plan_restore(memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("exists")), "{plan}");
}

fn is_stale(error: &Error) {
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)), "{error:?}");
}

async fn removed(postgres: &PostgresFixture, database: &str) {
    let drop = format!("drop database {database} with (force)");
    postgres.server().execute_in("postgres", &drop).await.expect("dropped");
}

/// A source that notes what is read of it.
struct Counting {
    inner: Memory,
    opened: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl ArtifactSource for Counting {
    fn artifacts(&self) -> &[ArtifactInfo] {
        self.inner.artifacts()
    }

    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader> {
        self.opened.lock().expect("no panic").insert(name.to_string());
        self.inner.open(name).await
    }

    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        self.opened.lock().expect("no panic").insert(name.to_string());
        self.inner.open_range(name, plain_bytes).await
    }
}

async fn one_table_is_restored_without_reading_the_others() {
    let (postgres, service) = filled().await;
    let (memory, _report) = folder(&postgres, &service).await;
    let source = Counting { inner: memory, opened: Mutex::default() };
    let name = format!("{}_one", postgres.database());
    let options = PostgresRestore::new().with_strategy(Strategy::IntoNew(name.clone())).only_tables(["public.refers"]);
    let target = with(&service, options);
    let plan = target.plan_restore(&source, &RestoreOptions::new()).await.expect("a plan");
    assert_eq!(plan.missing, Vec::<String>::new());
    assert!(plan.warnings.iter().any(|warning| warning.contains("FK CONSTRAINT")), "{plan}");
    assert_eq!(plan.artifacts.len(), 3, "contents.json, toc.dat and the table's data: {:?}", plan.artifacts);
    let restored = target.restore(plan.clone(), &source, &RestoreContext::new()).await.expect("a restore");
    assert_eq!(restored.census.count("tables.public.refers.rows"), 2);
    assert_eq!(restored.census.count("objects.tables"), 1, "{:?}", restored.census);
    let wanted: BTreeSet<String> = plan.artifacts.iter().map(ToString::to_string).collect();
    assert_eq!(*source.opened.lock().expect("no panic"), wanted);
    removed(&postgres, &name).await;
    other_choices_are_told(&service, &source).await;
}

async fn other_choices_are_told(service: &Postgres, source: &Counting) {
    let schema = PostgresRestore::new().only_schemas(["Schr\u{e4}g \"zitiert\""]);
    let plan = with(service, schema).plan_restore(source, &RestoreOptions::new()).await.expect("a plan");
    assert_eq!(plan.artifacts.len(), 3, "{:?}", plan.artifacts);
    let unknown = with(service, PostgresRestore::new().only_tables(["nowhere"]));
    let error = unknown.plan_restore(source, &RestoreOptions::new()).await.expect_err("no such table");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

async fn owners_are_mapped_or_skipped() {
    let (postgres, service) = filled().await;
    let name = postgres.database();
    let (old, new) = (format!("old_{name}"), format!("new_{name}"));
    let setup = format!(
        "create role {old}; create role {new}; alter table no_rows owner to {old}; grant select on bytes to {old}"
    );
    postgres.execute(&setup).await.expect("roles");
    let (memory, report) = folder(&postgres, &service).await;
    postgres.execute(&format!("drop owned by {old}; drop role {old}")).await.expect("no role");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().filter(|missing| missing.contains(&old)).count() == 2, "{plan}");
    let owner = "select tableowner from pg_tables where tablename = 'no_rows'";
    let map = PostgresRestore::new().with_owners(Owners::Map(vec![(old.clone(), new.clone())])).without_privileges();
    let skip = PostgresRestore::new().with_owners(Owners::Skip).without_privileges();
    for (options, expected) in [(map, new.as_str()), (skip, "postgres")] {
        restore(&with(&service, options), &memory, &report).await.expect("a restore");
        assert_eq!(postgres.query(owner).await.expect("an owner")[0][0].as_deref(), Some(expected));
    }
}

async fn every_artifact_is_inspected() {
    let (postgres, service) = filled().await;
    let (memory, _report) = folder(&postgres, &service).await;
    let mut rows = 0;
    for info in memory.artifacts() {
        let data = memory.open(info.name()).await.expect("an artifact");
        let inspection = service.inspect(info, data).await.expect("whole");
        rows += inspection.census.count("rows");
        let mut cut = memory.bytes_of(info.name().as_str());
        // Of an empty table there is nothing but the end mark; a tar ends in blocks of nothing.
        let cut_bytes = match cut.len() {
            0..10 => cut.len(),
            length if info.spec.format.starts_with("tar") => length - 1000,
            length => 700.min(length / 2 + 1),
        };
        cut.truncate(cut.len() - cut_bytes);
        let error = service.inspect(info, Box::new(std::io::Cursor::new(cut))).await.expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::Integrity, "{}: {error:?}", info.name());
    }
    let census = service.census().await.expect("a census");
    let expected: u64 = census.counts.iter().filter(|(name, _)| name.ends_with(".rows")).map(|(_, count)| count).sum();
    assert_eq!(rows, expected);
}

async fn a_parallel_dump_is_loaded_and_equal() {
    let (postgres, service) = filled().await;
    let before = content(&postgres, postgres.database()).await;
    let options = PostgresDump::new().with_jobs(2).with_split_bytes(8192).with_row_hashes(true);
    let (memory, report) = parallel(&service, options).await.expect("a dump");
    postgres.execute(WIPE).await.expect("a wipe");
    let service = with(&service, PostgresRestore::new().with_jobs(3));
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census.counts, report.census.counts);
    assert_eq!(content(&postgres, postgres.database()).await, before);
    for info in memory.artifacts() {
        let data = memory.open(info.name()).await.expect("an artifact");
        service.inspect(info, data).await.unwrap_or_else(|error| panic!("{}: {error:?}", info.name()));
    }
}
