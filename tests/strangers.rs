//! A backup of real stores, read with nothing of this project: `age`, `zstd` and the vendors' own tools.

use std::path::{Path, PathBuf};

use stackkit_fixtures::{PostgresOptions, PostgresServer, RedisFixture, postgres_server, redis};

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
    let decrypt = |path: &Path| format!("age -d -i '{}' '{}' | zstd -dc", keys.identity(), path.display());
    let plain = |service: &str| decrypt(artifact(service));
    restored_by_its_commands(&postgres, &stored, &decrypt);

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

/// Runs the `restore_command` of each artifact of the database, in the order of the manifest, and nothing else.
fn restored_by_its_commands(postgres: &PostgresServer, stored: &[PathBuf], decrypt: &dyn Fn(&Path) -> String) {
    let manifest = stored.iter().find(|path| path.ends_with("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    let services = manifest["services"].as_array().unwrap();
    let db = services.iter().find(|service| service["id"] == "db").expect("the database");
    let work = tempfile::tempdir().unwrap();
    std::fs::create_dir(work.path().join("DIRECTORY")).unwrap();
    let environment = format!(
        "set -e; cd '{}'; export PATH='{}':$PATH PGHOST='{}' PGPORT={} PGUSER=postgres",
        work.path().display(),
        postgres.bin_dir().display(),
        postgres.socket_dir().display(),
        postgres.port()
    );
    let artifacts = db["artifacts"].as_array().unwrap();
    assert!(artifacts.len() > 3, "{artifacts:?}");
    for artifact in artifacts {
        let (name, command) = (artifact["name"].as_str().unwrap(), artifact["restore_command"].as_str().unwrap());
        let is_named = |path: &&PathBuf| is_of(path, "db") && path.ends_with(format!("{name}.zst.age"));
        let file = stored.iter().find(is_named).unwrap_or_else(|| panic!("no {name} in {stored:?}"));
        shell(&format!("{environment}; {} | ({command})", decrypt(file)));
    }
    let tables = shell(&format!("{environment}; pg_restore -l DIRECTORY"));
    assert!(tables.contains("TABLE DATA public orders"), "{tables}");
    shell(&format!("{environment}; createdb -T template0 again; pg_restore -e -j2 -d again DIRECTORY"));
    for database in ["NEW_DATABASE", "again"] {
        let content = "select count(*) || md5(string_agg(o::text, '|' order by i)) from orders o";
        let of = |database: &str| shell(&format!("{environment}; psql -qAtX -d {database} -c \"{content}\""));
        assert_eq!(of(database), of("shop"), "{database}");
        assert!(of(database).starts_with("5000"), "{}", of(database));
    }
}

fn is_of(path: &Path, service: &str) -> bool {
    path.components().any(|part| part.as_os_str() == service)
}
