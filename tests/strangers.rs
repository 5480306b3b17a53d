//! A backup of real stores, read with nothing of this project: `age`, `zstd` and the vendors' own tools.

use std::path::{Path, PathBuf};

use stackkit_fixtures::{PostgresOptions, RedisFixture, postgres_server, redis};

use crate::keys::Keys;
use crate::site::Site;
use crate::tool::{Test, command, files, finish, shell};

/// What this file tests.
pub(crate) const TESTS: &[Test] =
    &[Test::new("the_vendors_tools_read_every_artifact", the_vendors_tools_read_every_artifact)
        .needs(&["postgres", "redis", "age"])];

async fn fill(redis: &RedisFixture) {
    redis.command(&["SET", "greeting", "hello"]).await.unwrap();
    redis.command(&["RPUSH", "list", "a", "b"]).await.unwrap();
}

fn the_vendors_tools_read_every_artifact() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (postgres, redis) = runtime.block_on(async {
        let postgres = postgres_server(PostgresOptions::new()).await.unwrap();
        postgres.create_database("shop").await.unwrap();
        let fill_table = "create table orders as select i, md5(i::text) h from generate_series(1, 5000) i";
        postgres.execute_in("shop", fill_table).await.unwrap();
        let redis = redis().await.unwrap();
        fill(&redis).await;
        (postgres, redis)
    });
    let site = Site::new(64 * 1024);
    let keys = Keys::make(&site, "keys");
    let (db, cache) = ("db=env:DB_URL", "cache=env:CACHE_URL");
    let (recipient, signing_key) = (keys.recipient(), keys.signing_key());
    let args = site.args(&[
        "--service",
        db,
        "--service",
        cache,
        "backup",
        "--recipient",
        &recipient,
        "--signing-key",
        &signing_key,
    ]);
    let mut backup = command("stackctl", &args.iter().map(String::as_str).collect::<Vec<_>>());
    backup.env("DB_URL", postgres.url_of("shop")).env("CACHE_URL", redis.url());
    finish(backup).expect(0);

    let stored: Vec<PathBuf> = files(&site.repository().join("backups"));
    let artifact = |service: &str| {
        let is_wanted =
            |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "age") && is_of(path, service);
        stored.iter().find(is_wanted).unwrap_or_else(|| panic!("no artifact of {service} in {stored:?}"))
    };
    let plain = |service: &str| format!("age -d -i '{}' '{}' | zstd -dc", keys.identity(), artifact(service).display());
    let tables = shell(&format!("{} | pg_restore -l", plain("db")));
    assert!(tables.contains("TABLE DATA public orders"), "{tables}");
    let rows = shell(&format!("{} | pg_restore -a -t orders -f - | grep -c '^[0-9]'", plain("db")));
    assert_eq!(rows.trim(), "5000");

    let rdb = site.folder.path().join("dump.rdb");
    let checked = shell(&format!("{} > '{rdb}'; redis-check-rdb '{rdb}'", plain("cache"), rdb = rdb.display()));
    assert!(checked.contains("2 keys read") && checked.contains("RDB looks OK"), "{checked}");

    let listed = shell(&format!("{} | tar -t", plain("uploads")));
    assert!((0..8).all(|number| listed.contains(&format!("./file-{number}\n"))), "{listed}");

    for manifest in stored.iter().filter(|path| path.ends_with("manifest.json")) {
        let signature = manifest.with_file_name("manifest.sig");
        let checked = shell(&format!(
            "openssl pkeyutl -verify -pubin -inkey '{}' -rawin -in '{}' -sigfile '{}'",
            keys.trust(),
            manifest.display(),
            signature.display()
        ));
        assert!(checked.contains("Verified Successfully"), "{checked}");
    }
}

fn is_of(path: &Path, service: &str) -> bool {
    path.components().any(|part| part.as_os_str() == service)
}
