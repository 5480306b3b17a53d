//! The vendor's archives leave and enter by the program.

use std::fs::File;
use std::process::Command;

use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use tokio::runtime::Runtime;

use crate::site::Site;
use crate::tool::{Outcome, Test, command, finish, shell};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("a_backup_is_exported_for_pg_restore", a_backup_is_exported_for_pg_restore).needs(&["postgres"]),
    Test::new("archives_of_pg_dump_are_imported", archives_of_pg_dump_are_imported).needs(&["postgres"]),
    Test::new("a_part_is_imported_under_a_new_name", a_part_is_imported_under_a_new_name).needs(&["postgres"]),
    Test::new("sql_text_is_imported_when_trusted", sql_text_is_imported_when_trusted).needs(&["postgres"]),
];

const FILL: &str = "create table orders as select i, md5(i::text) h from generate_series(1, 5000) i;
    create table small (x int primary key); insert into small values (1); select lo_from_bytea(0, 'x')";

const SUM: &str =
    "select md5(string_agg(o::text, '|' order by i)) || (select count(*) from pg_largeobject_metadata) from orders o";

/// A server with a filled database `shop`.
pub(crate) fn server(runtime: &Runtime) -> PostgresServer {
    server_with(runtime, PostgresOptions::new())
}

pub(crate) fn server_with(runtime: &Runtime, options: PostgresOptions) -> PostgresServer {
    runtime.block_on(async {
        let server = postgres_server(options).await.unwrap();
        server.create_database("shop").await.unwrap();
        server.execute_in("shop", FILL).await.unwrap();
        server
    })
}

fn sum(runtime: &Runtime, server: &PostgresServer, database: &str) -> Option<String> {
    runtime.block_on(server.query_in(database, SUM)).unwrap()[0][0].clone()
}

/// `stackctl` with a service `db`.
pub(crate) fn program(site: &Site, server: &PostgresServer, rest: &[&str]) -> Command {
    let args = site.args(&[&["--service", "db=env:DB_URL"], rest].concat());
    let mut command = command("stackctl", &args.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("DB_URL", server.url_of("shop"));
    command
}

pub(crate) fn run(site: &Site, server: &PostgresServer, rest: &[&str]) -> Outcome {
    finish(program(site, server, rest))
}

fn a_backup_is_exported_for_pg_restore() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = server(&runtime);
    let site = Site::new(1024);
    run(&site, &server, &["backup", "--unencrypted"]).expect(0);
    let out = tempfile::tempdir().unwrap();
    let (folder, file) = (out.path().join("shop.dir"), out.path().join("shop.dump"));
    let (folder, file) = (folder.to_str().unwrap(), file.to_str().unwrap());
    let export = |rest: &[&str]| run(&site, &server, &[&["export", "latest/db"], rest].concat());

    export(&["--format", "directory", "--out", folder, "--for", "15", "--compress", "gzip"]).expect(0);
    export(&["--format", "custom", "--out", file]).expect(0);
    let again = export(&["--format", "custom", "--out", file]).expect(2);
    assert!(again.stderr.contains("there already"), "{}", again.stderr);
    let stream = out.path().join("streamed.dump");
    let mut streamed = program(&site, &server, &["export", "latest/db", "--format", "custom", "--out", "-"]);
    assert!(streamed.stdout(File::create(&stream).unwrap()).status().unwrap().success());

    for (database, path) in [("one", folder), ("two", file), ("three", stream.to_str().unwrap())] {
        runtime.block_on(server.create_database(database)).unwrap();
        let tool = server.bin_dir().join("pg_restore");
        shell(&format!("'{}' --exit-on-error -j2 -d '{}' '{path}'", tool.display(), server.url_of(database)));
        assert_eq!(sum(&runtime, &server, database), sum(&runtime, &server, "shop"), "{path}");
    }

    let table = out.path().join("small.dump");
    export(&["--format", "custom", "--out", table.to_str().unwrap(), "--table", "small"]).expect(0);
    let list = shell(&format!("'{}' -l '{}'", server.bin_dir().join("pg_restore").display(), table.display()));
    assert!(list.contains("TABLE DATA public small") && !list.contains("orders"), "{list}");
    export(&["--format", "custom", "--out", "/nonexistent/x", "--table", "none"]).expect(1);
    run(&site, &server, &["export", "latest/cache", "--format", "custom", "--out", "-"]).expect(1);
}

fn archives_of_pg_dump_are_imported() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = server(&runtime);
    let expected = sum(&runtime, &server, "shop");
    let site = Site::new(1024);
    let out = tempfile::tempdir().unwrap();
    for (at, format) in ["-Fc", "-Fd", "-Ft"].into_iter().enumerate() {
        let (path, database) = (out.path().join(format!("dump{at}")), format!("shop{at}"));
        let (tool, path) = (server.bin_dir().join("pg_dump"), path.to_str().unwrap());
        shell(&format!("'{}' {format} -f '{path}' '{}'", tool.display(), server.url_of("shop")));
        let into = server.url_of(&database);
        let planned = run(&site, &server, &["import", path, "--into", &into, "--plan"]).expect(0);
        assert!(planned.stdout.contains(&format!("create database {database}")), "{}", planned.stdout);
        // Nobody can be asked here.
        run(&site, &server, &["import", path, "--into", &into]).expect(2);
        run(&site, &server, &["import", path, "--into", &into, "--yes"]).expect(0);
        assert_eq!(sum(&runtime, &server, &database), expected, "{format}");
    }
    // Over what is there: the service's own database, whose old data is kept.
    runtime.block_on(server.execute_in("shop", "drop table orders")).unwrap();
    let path = out.path().join("dump0");
    let done =
        run(&site, &server, &["import", path.to_str().unwrap(), "--into", "db", "--yes", "--owners", "skip"]).expect(0);
    assert!(done.stdout.contains("kept as shop__old_"), "{}", done.stdout);
    assert_eq!(sum(&runtime, &server, "shop"), expected);
    let damaged = out.path().join("damaged");
    std::fs::write(&damaged, &std::fs::read(&path).unwrap()[..4000]).unwrap();
    run(&site, &server, &["import", damaged.to_str().unwrap(), "--into", "db", "--yes"]).expect(2);
    run(&site, &server, &["import", path.to_str().unwrap(), "--into", "nobody", "--yes"]).expect(2);
    assert_eq!(sum(&runtime, &server, "shop"), expected);
}

fn a_part_is_imported_under_a_new_name() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = server(&runtime);
    let site = Site::new(1024);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("dump");
    let tool = server.bin_dir().join("pg_dump");
    shell(&format!("'{}' -Fc -f '{}' '{}'", tool.display(), path.display(), server.url_of("shop")));
    let path = path.to_str().unwrap();
    let args = ["import", path, "--into", "db", "--strategy", "new=part", "--table", "small", "--jobs", "2", "--yes"];
    run(&site, &server, &args).expect(0);
    let tables =
        "select string_agg(relname, ',') from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";
    assert_eq!(runtime.block_on(server.query_in("part", tables)).unwrap()[0][0].as_deref(), Some("small"));
    run(&site, &server, &args).expect(3);
    let both = ["import", path, "--into", "db", "--remove-old", "--keep-old", "1h", "--yes"];
    run(&site, &server, &both).expect(2);
}

fn sql_text_is_imported_when_trusted() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = server(&runtime);
    let expected = sum(&runtime, &server, "shop");
    let site = Site::new(1024);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("shop.sql");
    let tool = server.bin_dir().join("pg_dump");
    shell(&format!("'{}' -Fp -f '{}' '{}'", tool.display(), path.display(), server.url_of("shop")));
    let changed = "update orders set h = 'new'; create table late ()";
    runtime.block_on(server.execute_in("shop", changed)).unwrap();
    let text = path.to_str().unwrap();
    let import = |rest: &[&str]| run(&site, &server, &[&["import", text, "--into", "db"], rest].concat());

    let refused = import(&["--yes"]).expect(2);
    assert!(refused.stderr.contains("say --trusted") && refused.stderr.contains("run programs"), "{}", refused.stderr);
    let planned = import(&["--trusted", "--plan"]).expect(0);
    assert!(planned.stdout.contains("rename database shop to shop__old_"), "{}", planned.stdout);
    import(&["--trusted", "--yes", "--owners", "skip"]).expect(2);
    assert_ne!(sum(&runtime, &server, "shop"), expected);
    let done = import(&["--trusted", "--yes"]).expect(0);
    assert!(done.stdout.contains("5001 rows copied; the old data is kept as shop__old_"), "{}", done.stdout);
    assert_eq!(sum(&runtime, &server, "shop"), expected);
    let late = "select to_regclass('late')::text";
    assert_eq!(runtime.block_on(server.query_in("shop", late)).unwrap()[0][0], None);

    // A command of psql, at the end: found before anything is run.
    let whole = std::fs::read_to_string(&path).unwrap();
    let line = format!("line={}", whole.lines().count() + 1);
    std::fs::write(&path, format!("{whole}\\! touch /nonexistent\n")).unwrap();
    let refused = import(&["--trusted", "--yes"]).expect(2);
    assert!(refused.stderr.contains(&line), "{line} {}", refused.stderr);
    std::fs::write(&path, "").unwrap();
    import(&["--trusted", "--yes"]).expect(2);
    assert_eq!(sum(&runtime, &server, "shop"), expected);
}
