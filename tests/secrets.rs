//! A canary password must appear in no output, log, error, process list, manifest or file of the repository; no more
//! must the identity that decrypts, or the key that signs.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit::{Monitor, Repository, RepositoryOptions, RestoreOptions, ServiceId, Stack, service_with_id};
use stackkit_fixtures::{PostgresOptions, PostgresServer, RedisFixture, RedisOptions, postgres_server, redis_with};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::tool::{Outcome, Test, command, files, finish};

const CANARY: &str = "canary-7f3a9c-password";

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("a_canary_password_appears_nowhere", a_canary_password_appears_nowhere).needs(&["postgres", "redis"]),
    Test::new("a_private_key_appears_nowhere_but_in_its_file", a_private_key_appears_nowhere)
        .needs(&["postgres", "redis"]),
    Test::new("no_log_shows_a_password", no_log_shows_a_password).needs(&["postgres", "redis"]),
];

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

    fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn command(&self, rest: &[&str]) -> Command {
        let repository = format!("file://{}", self.repository().display());
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

    /// Runs it while looking at the process list, until `tool` was seen there too.
    fn run_watched(&mut self, rest: &[&str], tool: &str, secrets: &[&str]) {
        let mut command = self.command(rest).spawn().unwrap();
        let mut is_seen = false;
        while command.try_wait().unwrap().is_none() {
            let lists = argument_lists();
            is_seen |= lists.contains(tool);
            assert_clean("an argument list", &lists, secrets);
            std::thread::park_timeout(Duration::from_millis(2));
        }
        assert!(is_seen, "the process list was never looked at while {tool} ran");
        let output = command.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.printed += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
}

/// The argument lists of all processes of this machine that can be read.
fn argument_lists() -> String {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .fold(String::new(), |all, line| all + &String::from_utf8_lossy(&line) + "\n")
}

pub(crate) fn assert_clean(place: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!text.contains(secret), "{} stands in {place}", &secret[..secret.len().min(12)]);
    }
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
    site.run_watched(&["backup", "--unencrypted"], "pg_dump", &[CANARY]);
    for args in [&["list"][..], &["--json", "list"], &["verify", "--level", "content"]] {
        site.run(args).expect(0);
    }
    // Whatever it thinks of this machine's disk.
    site.run(&["doctor"]);
    site.run(&["restore", "latest", "--plan"]).expect(0);
    site.run_watched(&["--json", "restore", "latest", "--yes"], "stackctl", &[CANARY]);
    site.redis.stop().await.unwrap();
    site.postgres.stop().await.unwrap();
    for args in [&["health"][..], &["--json", "health"], &["wait", "--timeout", "1s"], &["backup", "--unencrypted"]] {
        let outcome = site.run(args);
        assert_ne!(outcome.code, Some(0), "{outcome:?}");
    }
    assert_clean("the output", &site.printed, &[CANARY]);
    assert_files_clean(&site.repository(), &[CANARY]);
}

fn a_private_key_appears_nowhere() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(check_keys());
}

async fn check_keys() {
    let mut site = Site::start().await;
    let keys = site.folder.path().join("keys");
    let file = |name: &str| keys.join(name).to_str().unwrap().to_owned();
    site.run(&["keygen", "--out", keys.to_str().unwrap()]).expect(0);
    let (identity, signing_key) = (file("identity.txt"), file("signing.key"));
    let line_of = |path: &str, is_wanted: fn(&&str) -> bool| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().find(is_wanted).unwrap().to_owned()
    };
    let identity_line = line_of(&identity, |line| line.starts_with("AGE-SECRET-KEY-1"));
    let signing_line = line_of(&signing_key, |line| !line.starts_with('-'));
    let secrets = [CANARY, &identity_line, &signing_line];
    assert!(secrets.iter().all(|secret| secret.len() > 16), "the test would test nothing");

    let (recipient, trust) = (file("recipient.txt"), file("trust.pem"));
    let backup = ["backup", "--recipient", &recipient, "--signing-key", &signing_key, "--encrypt-manifest"];
    site.run_watched(&backup, "pg_dump", &secrets);
    let vault = format!("cat {identity}");
    let (from_file, from_vault) = (["--identity", &identity], ["--identity-command", &vault]);
    let content = ["verify", "--trust", &trust, "--level", "content"];
    site.run(&[&content[..], &from_file].concat()).expect(0);
    site.run(&[&["--json"], &content[..], &from_vault].concat()).expect(0);
    site.run(&[&["doctor", "--trust", &trust], &from_vault[..]].concat());
    site.run_watched(&[&["restore", "--yes", "--trust", &trust], &from_vault[..]].concat(), "stackctl", &secrets);
    // Mistaken for each other, they are refused and not repeated.
    for mistaken in [
        &["verify", "--untrusted", "--level", "content", "--identity", &signing_key][..],
        &["verify", "--trust", &signing_key],
        &["verify", "--trust", &identity],
        &["backup", "--recipient", &identity],
        &["backup", "--recipient", &recipient, "--signing-key", &identity],
        &["backup", "--recipient", &identity_line],
        &["verify", "--trust", &trust, "--identity", &identity, "--passphrase", &identity_line],
        &["verify", "--trust", &trust, "--identity-command", &format!("echo {identity_line}x"), "--level", "content"],
    ] {
        let outcome = site.run(mistaken);
        assert_ne!(outcome.code, Some(0), "{mistaken:?}");
    }
    assert_clean("the output", &site.printed, &secrets);
    assert_files_clean(&site.repository(), &secrets);
}

/// Everything that is logged in this process, at every level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn no_log_shows_a_password() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let told = runtime.block_on(provoke());
    assert!(log.text().contains("probe failed"), "nothing was logged: the test would test nothing");
    assert_clean("the log", &log.text(), &[CANARY]);
    assert_clean("what the library says", &told, &[CANARY]);
}

/// Makes both stores fail in as many ways as there are phases; gives every error and value in every form.
async fn provoke() -> String {
    let Site { mut postgres, mut redis, folder, .. } = Site::start().await;
    let repository = format!("file://{}", folder.path().join("repository").display());
    let repository = Repository::open_or_create(&repository, RepositoryOptions::new().unencrypted()).await.unwrap();
    let (right, cache) = (postgres.tcp_url_of("shop").unwrap(), redis.tcp_url().unwrap().to_owned());
    // A wrong password that holds the canary, and is looked for as the right one is.
    let wrong = |url: &str| url.replace(CANARY, &format!("{CANARY}-wrong"));
    let stack = |db: &str, cache: &str| {
        let name = |id: &str| ServiceId::new(id).unwrap();
        let (db, cache) = (service_with_id(&name("db"), db).unwrap(), service_with_id(&name("cache"), cache).unwrap());
        Stack::builder("shop").service(db).service(cache).build().unwrap()
    };
    let (good, bad) = (stack(&right, &cache), stack(&wrong(&right), &wrong(&cache)));
    let mut told = format!("{good:?} {bad:?}");
    for stack in [&good, &bad] {
        let report = stack.check_now(&[]).await;
        told += &format!("{report} {report:?} {}", serde_json::to_string(&report).unwrap());
    }
    let backup = repository.backup(&good).run().await.unwrap();
    let plan = repository.plan_restore(backup.id(), &good, &RestoreOptions::new()).await.unwrap();
    told += &format!("{plan} {plan:?}");
    let mut errors = vec![
        repository.backup(&bad).run().await.unwrap_err(),
        repository.plan_restore(backup.id(), &bad, &RestoreOptions::new()).await.unwrap_err(),
        Monitor::start(&bad).wait_ready(Duration::from_secs(60)).await.unwrap_err(),
    ];
    redis.stop().await.unwrap();
    postgres.stop().await.unwrap();
    errors.push(repository.apply_restore(plan, &good).await.unwrap_err());
    errors.push(repository.backup(&good).run().await.unwrap_err());
    told += &format!("{}", good.check_now(&[]).await);
    errors.iter().for_each(|error| told += &format!("{error} {error:?} {}", error.chain()));
    told
}

fn assert_files_clean(folder: &Path, secrets: &[&str]) {
    let all = files(folder);
    assert!(all.iter().any(|path| path.ends_with("manifest.json")), "{all:?}");
    for path in all {
        let bytes = fs::read(&path).unwrap();
        assert_clean(&path.display().to_string(), &String::from_utf8_lossy(&bytes), secrets);
        if path.extension().is_some_and(|ending| ending == "zst") {
            let plain = zstd::decode_all(bytes.as_slice()).unwrap();
            assert_clean(&path.display().to_string(), &String::from_utf8_lossy(&plain), secrets);
        }
    }
}
