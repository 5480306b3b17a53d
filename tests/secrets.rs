//! A canary password must appear in no output, log, error, process list, manifest or file of the repository.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use stackkit_fixtures::{PostgresOptions, PostgresServer, RedisFixture, RedisOptions, postgres_server, redis_with};

use crate::tool::{Outcome, Test, command, files, finish};

const CANARY: &str = "canary-7f3a9c-password";

/// What this file tests.
pub(crate) const TESTS: &[Test] =
    &[Test::new("a_canary_password_appears_nowhere", a_canary_password_appears_nowhere).needs(&["postgres", "redis"])];

struct Site {
    postgres: PostgresServer,
    redis: RedisFixture,
    folder: tempfile::TempDir,
    /// Everything that was printed.
    printed: String,
}

impl Site {
    async fn start() -> Self {
        let postgres = postgres_server(PostgresOptions::new().with_tcp(CANARY)).await.unwrap();
        postgres.create_database("shop").await.unwrap();
        let fill = "create table t as select i, md5(i::text) h from generate_series(1, 200000) i";
        postgres.execute_in("shop", fill).await.unwrap();
        let redis = redis_with(RedisOptions::new().with_tcp().with_password(CANARY)).await.unwrap();
        redis.command(&["SET", "k", "v"]).await.unwrap();
        Self { postgres, redis, folder: tempfile::tempdir().unwrap(), printed: String::new() }
    }

    fn command(&self, rest: &[&str]) -> Command {
        let repository = format!("file://{}", self.folder.path().join("repository").display());
        let mut args = vec!["--service", "db=env:DB_URL", "--service", "cache=env:CACHE_URL"];
        args.extend(["--stack", "shop", "--repository", &repository]);
        args.extend(rest);
        let mut command = command("stackctl", &args);
        command
            .env("DB_URL", self.postgres.tcp_url_of("shop").unwrap())
            .env("CACHE_URL", self.redis.tcp_url().unwrap());
        command.env("RUST_LOG", "trace");
        command
    }

    fn run(&mut self, rest: &[&str]) -> Outcome {
        let outcome = finish(self.command(rest));
        self.printed.push_str(&outcome.text());
        outcome
    }
}

/// The argument lists of all processes of this machine that can be read.
fn argument_lists() -> String {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .fold(String::new(), |all, line| all + &String::from_utf8_lossy(&line) + "\n")
}

fn assert_clean(place: &str, text: &str) {
    let at = text.find(CANARY);
    assert!(at.is_none(), "the password stands in {place}: …{}", &text[at.unwrap_or(0).saturating_sub(200)..]);
}

fn a_canary_password_appears_nowhere() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(check());
}

async fn check() {
    let mut site = Site::start().await;
    assert!(site.postgres.tcp_url_of("shop").unwrap().contains(CANARY), "the test would test nothing");
    assert!(site.redis.tcp_url().unwrap().contains(CANARY), "the test would test nothing");

    site.run(&["health"]).expect(0);
    site.run(&["--json", "health"]).expect(0);
    let mut backup = site.command(&["backup", "--unencrypted"]).spawn().unwrap();
    let mut pg_dump_seen = false;
    while backup.try_wait().unwrap().is_none() {
        let lists = argument_lists();
        pg_dump_seen |= lists.contains("pg_dump");
        assert_clean("an argument list", &lists);
        std::thread::park_timeout(Duration::from_millis(2));
    }
    assert!(pg_dump_seen, "the process list was never looked at while pg_dump ran");
    let output = backup.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    site.printed += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());

    for args in [&["list"][..], &["--json", "list"], &["verify", "--level", "content"], &["doctor"]] {
        site.run(args).expect(0);
    }
    site.run(&["restore", "latest", "--plan"]).expect(0);
    site.run(&["--json", "restore", "latest", "--yes"]).expect(0);
    site.redis.stop().await.unwrap();
    site.postgres.stop().await.unwrap();
    for args in [&["health"][..], &["--json", "health"], &["wait", "--timeout", "1s"], &["backup", "--unencrypted"]] {
        let outcome = site.run(args);
        assert_ne!(outcome.code, Some(0), "{outcome:?}");
    }
    assert_clean("the output", &site.printed);
    assert_files_clean(site.folder.path());
}

fn assert_files_clean(folder: &Path) {
    let all = files(folder);
    assert!(all.iter().any(|path| path.ends_with("manifest.json")), "{all:?}");
    for path in all {
        let bytes = fs::read(&path).unwrap();
        assert_clean(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
        if path.extension().is_some_and(|ending| ending == "zst") {
            let plain = zstd::decode_all(bytes.as_slice()).unwrap();
            assert_clean(&path.display().to_string(), &String::from_utf8_lossy(&plain));
        }
    }
}
