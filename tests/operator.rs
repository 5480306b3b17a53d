//! What an unlucky operator of a PostgreSQL database meets: every error says what, where and what to do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stackkit_fixtures::{PostgresOptions, PostgresServer, wait_until};
use tokio::runtime::Runtime;

use crate::site::Site;
use crate::tool::{SmallDisk, Test, example, finish, shell};
use crate::vendor::{program, run, server, server_with};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("a_service_is_one_line_of_a_backup", a_service_is_one_line_of_a_backup).needs(&["postgres"]),
    Test::new("an_export_that_fails_leaves_nothing", an_export_that_fails_leaves_nothing).needs(&["postgres", "root"]),
    Test::new("what_can_not_be_imported_is_told_by_its_name", what_can_not_be_imported_is_told_by_its_name)
        .needs(&["postgres"]),
    Test::new("a_name_of_a_database_keeps_to_its_line", a_name_of_a_database_keeps_to_its_line).needs(&["postgres"]),
    Test::new("an_interrupted_import_names_what_removes_it", an_interrupted_import_names_what_removes_it)
        .needs(&["postgres"]),
    Test::new("what_a_dump_does_not_hold_is_an_answer", what_a_dump_does_not_hold_is_an_answer).needs(&["postgres"]),
    Test::new("a_restore_takes_the_connections_that_there_are", a_restore_takes_the_connections_that_there_are)
        .needs(&["postgres"]),
    Test::new("a_statement_that_fails_is_the_service_s", a_statement_that_fails_is_the_service_s).needs(&["postgres"]),
    Test::new("a_part_never_replaces_the_whole", a_part_never_replaces_the_whole).needs(&["postgres"]),
    Test::new("the_commands_of_the_document_work", the_commands_of_the_document_work).needs(&["postgres"]),
    Test::new("what_a_newer_version_left_is_told", what_a_newer_version_left_is_told).needs(&["postgres"]),
];

/// The most that a step may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn execute(runtime: &Runtime, server: &PostgresServer, sql: &str) {
    runtime.block_on(server.execute_in("postgres", sql)).unwrap();
}

/// The databases whose names begin so.
fn databases(runtime: &Runtime, server: &PostgresServer, prefix: &str) -> Vec<String> {
    let sql = format!("select datname from pg_database where starts_with(datname, '{prefix}') order by 1");
    let rows = runtime.block_on(server.query_in("postgres", &sql)).unwrap();
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

fn a_service_is_one_line_of_a_backup() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    let told = run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    let of_db = |text: &str, word: &str| text.lines().filter(|line| line.contains("db") && line.contains(word)).count();
    assert_eq!((of_db(&told.stdout, "KiB"), of_db(&told.stderr, "stored as")), (1, 1), "{told:?}");

    let told = run(&site, &server, &["--json", "backup", "--unencrypted"]).expect(0);
    let manifest: Value = serde_json::from_str(&told.stdout).unwrap();
    let services = manifest["services"].as_array().unwrap();
    let artifacts =
        services.iter().find(|service| service["id"] == "db").unwrap()["artifacts"].as_array().unwrap().len();
    assert!(artifacts > 4, "{manifest}");
    let steps: Vec<Value> = told.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_db = |step: &str| steps.iter().filter(|value| value["service"] == "db" && value["step"] == step).count();
    assert_eq!((of_db("stored"), of_db("dumped")), (artifacts, 1), "{}", told.stderr);
}

fn an_export_that_fails_leaves_nothing() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    let more = "create table more as select g, repeat(md5(g::text), 20) from generate_series(1, 5000) g";
    runtime.block_on(server.execute_in("shop", more)).unwrap();
    run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    let small = site.folder.path().join("small");
    let _disk = SmallDisk::mount(&small, "1m");
    let export = |format: &str, out: &Path| {
        run(&site, &server, &["export", "latest/db", "--format", format, "--out", out.to_str().unwrap()])
    };
    for format in ["custom", "directory", "plain"] {
        let full = export(format, &small.join("x")).expect(2);
        assert!(full.stderr.contains("the disk is full") && full.stderr.contains("small/x"), "{full:?}");
        assert_eq!(fs::read_dir(&small).unwrap().count(), 0, "{format} left something");
        let nowhere = export(format, &site.folder.path().join("none/x")).expect(2);
        assert!(nowhere.stderr.contains("none/x, hint=make its folder first"), "{nowhere:?}");
        let there = export(format, &site.volume()).expect(2);
        assert!(there.stderr.contains("there already (path=") && there.stderr.contains("hint="), "{there:?}");
    }
    let mut full = program(&site, &server, &["export", "latest/db", "--format", "custom", "--out", "-"]);
    full.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    assert!(finish(full).expect(2).stderr.contains("the disk is full (path=-)"));
}

fn what_can_not_be_imported_is_told_by_its_name() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    let at = |name: &str| site.folder.path().join(name);
    let whole = at("whole");
    let (tool, url) = (server.bin_dir().join("pg_dump"), server.url_of("shop"));
    shell(&format!("'{}' -Fc -f '{}' '{url}'", tool.display(), whole.display()));
    let bytes = fs::read(&whole).unwrap();
    fs::write(at("cut"), &bytes[..2000]).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("packed"), b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    fs::create_dir(at("folder")).unwrap();
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for (name, why) in [
        ("cut", "ends too early"),
        ("empty", "the file is empty"),
        ("packed", "unpack it first (by=gzip"),
        ("folder", "toc.dat"),
        ("pipe", "write it to a disk first"),
        ("none", "no such file"),
    ] {
        let file = at(name).display().to_string();
        let told = run(&site, &server, &["import", &file, "--into", &server.url_of("imported"), "--yes"]).expect(2);
        assert!(told.stderr.contains(why) && told.stderr.contains(&format!("path={file}")), "{name}: {told:?}");
    }
    assert!(databases(&runtime, &server, "imported").is_empty());
}

fn a_name_of_a_database_keeps_to_its_line() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    execute(&runtime, &server, "create database \"x\n  drop database all\u{1b}[2J\"");
    let url = server.url_of("x%0A%20%20drop%20database%20all%1B%5B2J");
    let to = format!("db={url}");
    for rest in [&["--plan"][..], &["--yes"]] {
        let args = [&["restore", "--only", "db", "--to", &to], rest].concat();
        let told = run(&site, &server, &args).expect(0).stdout;
        assert!(told.contains(r"x\n  drop database all\u{1b}[2J"), "{told}");
        assert!(!told.contains('\u{1b}') && !told.lines().any(|line| line.starts_with("  drop")), "{told}");
    }
    let told = run(&site, &server, &["recover", &url, "--remove-old", "all", "--plan"]).expect(0).stdout;
    assert_eq!(told.lines().count(), 2, "{told}");
}

fn an_interrupted_import_names_what_removes_it() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    let file = site.folder.path().join("slow.sql");
    fs::write(&file, "create table t (x int);\nselect pg_sleep(600);\n").unwrap();
    let url = server.url_of("late");
    let args = ["import", file.to_str().unwrap(), "--trusted", "--into", &url, "--yes"];
    let child = program(&site, &server, &args).spawn().unwrap();
    let sleeps = "select 1 from pg_stat_activity where query like '%pg_sleep(600)%' and datname like 'late%'";
    let is_there = async || (!server.query_in("postgres", sleeps).await.ok()?.is_empty()).then_some(());
    runtime.block_on(wait_until("the import runs", LIMIT, is_there)).unwrap();
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("`stackctl recover` removes what was begun"), "{stderr}");
    assert_eq!(databases(&runtime, &server, "late").len(), 1);
    let done = run(&site, &server, &["recover", &url, "--yes"]).expect(0);
    assert!(done.stdout.contains("1 steps done"), "{}", done.stdout);
    assert!(databases(&runtime, &server, "late").is_empty());
}

fn what_a_dump_does_not_hold_is_an_answer() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    for (flag, name) in [("--table", "none"), ("--table", "public.*"), ("--schema", "none")] {
        let told = run(&site, &server, &["restore", "--only", "db", flag, name, "--plan"]).expect(1);
        assert!(told.stderr.contains(&format!("name={name}")) && told.stderr.contains("names are exact"), "{told:?}");
    }
    run(&site, &server, &["export", "latest/db", "--table", "none", "--format", "plain", "--out", "-"]).expect(1);
    run(&site, &server, &["restore", "--only", "db", "--jobs", "0", "--plan"]).expect(2);
}

fn a_restore_takes_the_connections_that_there_are() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server_with(&runtime, PostgresOptions::new().with_setting("max_connections", "12"));
    run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    let many: String = (0..60).map(|number| format!("create table t{number} as select {number} x;")).collect();
    runtime.block_on(server.execute_in("shop", &many)).unwrap();
    run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    let told = run(&site, &server, &["restore", "--only", "db", "--jobs", "1000", "--yes"]).expect(0);
    assert!(told.stdout.contains("connections for the restore"), "{told:?}");
}

fn a_statement_that_fails_is_the_service_s() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    runtime.block_on(server.execute_in("shop", "create table price as select '1 €' x")).unwrap();
    run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    execute(&runtime, &server, "create database narrow encoding 'LATIN1' locale 'C' template template0");
    let to = format!("db={}", server.url_of("narrow"));
    let told = run(&site, &server, &["restore", "--only", "db", "--to", &to, "--yes"]).expect(3);
    assert!(
        told.stderr.contains("entry=TABLE DATA \"public\".\"price\"") && told.stderr.contains("target=old"),
        "{told:?}"
    );
    assert_eq!(databases(&runtime, &server, "narrow"), ["narrow"]);
}

/// One table is put back in place or beside, never alone in the place of all; what was not chosen stays as it is.
fn a_part_never_replaces_the_whole() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    let change = "insert into small values (2); create table late (); delete from orders";
    runtime.block_on(server.execute_in("shop", change)).unwrap();
    let restore =
        |rest: &[&str]| run(&site, &server, &[&["restore", "--only", "db", "--table", "orders"], rest].concat());
    let plan = restore(&["--plan"]).expect(0);
    assert!(plan.stdout.contains("missing: the consent to lose from shop all that was not chosen"), "{plan:?}");
    restore(&["--yes"]).expect(3);
    assert_eq!(databases(&runtime, &server, "shop"), ["shop"]);
    let done = restore(&["--strategy", "in-place", "--yes"]).expect(0);
    assert!(done.stdout.contains("what was chosen is restored"), "{done:?}");
    restore(&["--strategy", "new=part", "--yes"]).expect(0);
    let counts = "select (select count(*) from orders) || '|' || (select count(*) from small)";
    assert_eq!(runtime.block_on(server.query_in("shop", counts)).unwrap()[0][0].as_deref(), Some("5000|2"));
    let count = "select count(*) from orders";
    assert_eq!(runtime.block_on(server.query_in("part", count)).unwrap()[0][0].as_deref(), Some("5000"));
    restore(&["--force", "--yes"]).expect(0);
    assert_eq!(databases(&runtime, &server, "shop__old_").len(), 1);
}

/// The one block of the adapter's page that an operator copies, line by line.
fn the_commands_of_the_document_work() {
    let runtime = runtime();
    let server = server(&runtime);
    let page = include_str!("../stackkit-adapters/postgres/README.md");
    let (_, section) = page.split_once("## An operator's whole job").unwrap();
    let block = section.split("```").nth(1).unwrap().strip_prefix("sh\n").unwrap();
    assert!(block.lines().count() > 20, "{block}");
    let folder = tempfile::tempdir().unwrap();
    let program = example("stackctl");
    let paths = format!("{}:{}", program.parent().unwrap().display(), server.bin_dir().display());
    let script = format!(
        "set -eu; cd '{folder}'; export PATH=\"{paths}:$PATH\" DATABASE_URL='{url}' REPOSITORY='file://{folder}/repository' \
         PGHOST='{host}' PGPORT={port} PGUSER=postgres\n{block}",
        folder = folder.path().display(),
        url = server.url_of("shop"),
        host = server.socket_dir().display(),
        port = server.port(),
    );
    let told = shell(&script);
    assert_eq!(told.matches("what was chosen is restored").count(), 2, "{told}");
    let sum = "select count(*)::text from orders";
    for database in ["shop", "orders_only", "shop_copy", "orders_theirs"] {
        assert_eq!(
            runtime.block_on(server.query_in(database, sum)).unwrap()[0][0].as_deref(),
            Some("5000"),
            "{database}"
        );
    }
}

fn what_a_newer_version_left_is_told() {
    let (runtime, site) = (runtime(), Site::new(8));
    let server = server(&runtime);
    let (newer, left) = ("shop__sk_20261121_141303_007", "shop__sk_20261121_141303_008");
    for name in [newer, left] {
        runtime.block_on(server.create_database(name)).unwrap();
    }
    let recover = |rest: &[&str]| run(&site, &server, &[&["recover", "db"], rest].concat()).expect(0);
    let comment = |journal: &str| execute(&runtime, &server, &format!("comment on database {newer} is '{journal}'"));
    comment(r#"{"stackkit":2,"state":"parked","target":"shop"}"#);
    for rest in [&["--plan"][..], &["--yes"], &["--remove-old", "all", "--yes"]] {
        let told = recover(rest).text();
        assert!(told.contains(newer) && told.contains("recover it with that version"), "{told}");
        assert_eq!(databases(&runtime, &server, "shop__sk_"), [newer, left]);
    }
    // What has a journal of this version goes; the note stands beside the report.
    let started = r#""old_data":"keep","started":"2026-11-21T14:13:03Z","pid":1}"#;
    let own = format!(r#"{{"stackkit":1,"state":"filling","target":"shop","target_oid":null,"kept_as":"",{started}"#);
    execute(&runtime, &server, &format!("comment on database {left} is '{own}'"));
    let told = recover(&["--yes"]);
    assert!(told.stdout.contains(left) && told.stderr.contains("recover it with that version"), "{told:?}");
    assert_eq!(databases(&runtime, &server, "shop__sk_"), [newer]);
}
