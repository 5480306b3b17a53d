//! The example programs, run as a user runs them.

use crate::tool::{Test, command, finish, stackctl};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("the_quickstart_runs_without_any_server", the_quickstart_runs_without_any_server),
    Test::new("the_demo_brings_three_real_stores_back", the_demo_brings_three_real_stores_back)
        .needs(&["postgres", "redis"]),
    Test::new("the_nightly_backup_does_what_it_shows", the_nightly_backup_does_what_it_shows)
        .needs(&["postgres", "redis"]),
    Test::new("a_datastore_of_ones_own_is_probed", a_datastore_of_ones_own_is_probed),
];

fn the_quickstart_runs_without_any_server() {
    let outcome = finish(command("quickstart", &[])).expect(0);
    assert!(outcome.stdout.contains("every file, mode and byte is back: 2000 files"), "{}", outcome.stdout);
}

fn the_demo_brings_three_real_stores_back() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    let outcome = finish(command("demo", &[repository.to_str().unwrap()])).expect(0);
    for line in ["/readyz says 503", "/readyz says 200", "every count and content hash is as before", "as a drill"] {
        assert!(outcome.stdout.contains(line), "{line} is missing in:\n{}", outcome.stdout);
    }
    assert!(repository.join("stackkit.json").exists());
}

fn the_nightly_backup_does_what_it_shows() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (postgres, redis) = runtime
        .block_on(async { (stackkit_fixtures::postgres().await.unwrap(), stackkit_fixtures::redis().await.unwrap()) });
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let made = stackctl(&["--json", "keygen", "--out", keys.to_str().unwrap()]).expect(0);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let (recipient, signing_key) = (made["recipient"].as_str().unwrap(), made["signing_key_file"].as_str().unwrap());
    let repository = format!("file://{}", folder.path().join("repository").display());
    let identity = made["identity_file"].as_str().unwrap();
    let run = |args: &[&str]| {
        let mut nightly = command("nightly_backup", args);
        nightly.env("DATABASE_URL", postgres.url()).env("REDIS_URL", redis.url());
        finish(nightly).expect(0)
    };
    run(&[&repository, recipient, signing_key]);
    let second = run(&[&repository, recipient, signing_key, identity]);
    for line in ["nothing is wrong", "keep", "points in time within", "restore of backup"] {
        assert!(second.stdout.contains(line), "{line} is missing in:\n{}", second.stdout);
    }
}

fn a_datastore_of_ones_own_is_probed() {
    finish(command("custom_service", &[])).expect(0);
}
