//! The server fixtures themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use libtest_mimic::Trial;
use stackkit_core::health::Tier;
use stackkit_core::process::Tool;
use stackkit_core::{ErrorKind, Service};
use stackkit_fixtures::conformance::{Outcome, check, probe, refused, same, trial};
use stackkit_fixtures::{
    BucketKind, PostgresOptions, RedisOptions, RedisReply, minio, minio_server, postgres, postgres_server, redis,
    redis_with,
};
use stackkit_redis::{Redis, RedisConfig};

use crate::{child, lifecycle};

const CHILD_DEADLINE: Duration = Duration::from_secs(100);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("servers::redis_stops_and_starts_again", "redis", redis_stops_and_starts),
        trial("servers::redis_replies_of_every_shape", "redis", redis_replies),
        trial("servers::redis_speaks_tls_and_knows_users", "redis", redis_tls_and_users),
        trial("servers::redis_that_dies_tells_its_last_words", "redis", redis_dies),
        trial("servers::postgres_databases_are_fresh_and_dropped", "postgres", postgres_databases),
        trial("servers::postgres_stops_and_starts_again", "postgres", postgres_stops_and_starts),
        trial("servers::postgres_that_dies_tells_its_last_words", "postgres", postgres_dies),
        trial("servers::a_taken_port_is_known_by_the_last_words", "postgres", taken_port),
        trial("servers::minio_makes_buckets_of_every_kind", "minio", minio_buckets),
        trial("servers::minio_stops_and_starts_again", "minio", minio_stops_and_starts),
        trial("servers::initdb_runs_once_for_many_processes", "postgres", one_template),
        trial("servers::a_missing_server_is_ignored_or_required", "redis", missing_server),
    ]
}

async fn redis_stops_and_starts() -> Outcome {
    let mut server = redis_with(RedisOptions::new().with_tcp().with_password("a b:c@d/e")).await?;
    server.command(&["SET", "kept", "yes"]).await?;
    let addresses = (server.url(), server.tcp_url());
    server.stop().await?;
    same("the process of a stopped server", &None, &server.pid())?;
    refused("a command to a stopped server", &[ErrorKind::Unreachable], server.command(&["PING"]).await)?;
    server.start().await?;
    same("the addresses", &addresses, &(server.url(), server.tcp_url()))?;
    same("the data", &"yes".to_owned(), &server.command(&["GET", "kept"]).await?.text())?;
    let tcp = server.tcp_url().expect("a TCP port was asked for");
    for url in [server.url(), tcp] {
        probe(&(std::sync::Arc::new(Redis::from_url(&url)?) as _), Tier::Vitals).await?;
    }
    Ok(())
}

async fn minio_buckets() -> Outcome {
    let server = minio().await?;
    let mut names = std::collections::BTreeSet::new();
    for kind in [BucketKind::Plain, BucketKind::Versioned, BucketKind::Locking, BucketKind::Plain] {
        names.insert(server.bucket_of(kind).await?);
    }
    same("different buckets", &4, &names.len())?;
    same("the server of the next test", &server.endpoint(), &minio().await?.endpoint())?;
    check(!format!("{server:?}").contains(server.secret_key()), || "the secret key can be seen".to_owned())
}

async fn minio_stops_and_starts() -> Outcome {
    let mut server = minio_server().await?;
    let endpoint = server.endpoint();
    check(endpoint != minio().await?.endpoint(), || "the private server is the shared one".to_owned())?;
    server.stop().await?;
    refused("a bucket on a stopped server", &[ErrorKind::Unreachable], server.bucket().await)?;
    server.start().await?;
    same("the endpoint", &endpoint, &server.endpoint())?;
    server.bucket().await?;
    Ok(())
}

async fn redis_replies() -> Outcome {
    let server = redis().await?;
    same("nothing", &RedisReply::Nil, &server.command(&["GET", "none"]).await?)?;
    same("a number", &RedisReply::Integer(2), &server.command(&["RPUSH", "list", "a", ""]).await?)?;
    let list = RedisReply::Array(vec![RedisReply::Bytes(b"a".to_vec()), RedisReply::Bytes(Vec::new())]);
    same("a list", &list, &server.command(&["LRANGE", "list", "0", "-1"]).await?)?;
    let nested = server.command(&["EVAL", "return {{1,{}},2}", "0"]).await?;
    let inner = RedisReply::Array(vec![RedisReply::Integer(1), RedisReply::Array(Vec::new())]);
    same("a nested list", &RedisReply::Array(vec![inner, RedisReply::Integer(2)]), &nested)?;
    let error = refused("a wrong command", &[ErrorKind::ToolFailed], server.command(&["LPUSH", "list"]).await)?;
    same("the code", &Some("ERR"), &error.code())
}

async fn redis_tls_and_users() -> Outcome {
    let scratch = tempfile::tempdir()?;
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (scratch.path().join("tls.crt"), scratch.path().join("tls.key"));
    fs::write(&certificate, issued.cert.pem())?;
    fs::write(&key, issued.signing_key.serialize_pem())?;
    let options = RedisOptions::new().with_tls(&certificate, &key).with_user("reader", "correct horse", "~* +@all");
    let server = redis_with(options).await?;
    let settings = server.socket().with_file_name("redis.conf");
    same("the mode of the settings", &0o600, &(fs::metadata(settings)?.permissions().mode() & 0o777))?;
    let port = server.tls_url().and_then(|url| url.rsplit(':').next().and_then(|port| port.parse().ok()));
    let config = RedisConfig::new("localhost", port.expect("a TLS port was asked for"))
        .with_tls(true)
        .with_ca_file(&certificate)
        .with_username("reader")
        .with_password("correct horse");
    let service: std::sync::Arc<dyn Service> = std::sync::Arc::new(Redis::new(config));
    probe(&service, Tier::Vitals).await?;
    Ok(())
}

async fn redis_dies() -> Outcome {
    let options = RedisOptions::new().with_password("canary-secret").with_setting("no-such-setting", "canary-secret");
    let error = refused("a server with a wrong setting", &[ErrorKind::ToolFailed], redis_with(options).await)?;
    let text = error.chain().to_string();
    check(text.contains("no-such-setting"), || format!("no last words in {text:?}"))?;
    check(!text.contains("canary"), || format!("a secret in {text:?}"))
}

async fn postgres_databases() -> Outcome {
    let (one, two) = (postgres().await?, postgres().await?);
    one.execute("create table here (n int); insert into here values (1), (null)").await?;
    same("the rows", &vec![vec![Some("1".to_owned())], vec![None]], &one.query("select n from here").await?)?;
    let tables = "select count(*) from pg_class where relname = 'here'";
    same("the tables of the other one", &vec![vec![Some("0".to_owned())]], &two.query(tables).await?)?;
    let error = refused("a wrong statement", &[ErrorKind::ToolFailed], two.execute("select nothing").await)?;
    same("the code", &Some("42703"), &error.code())?;
    probe(&(std::sync::Arc::new(one.service()?) as _), Tier::Vitals).await?;
    let sql = format!("select count(*) from pg_database where datname = '{}'", one.database());
    drop(one);
    same("databases of a dropped fixture", &vec![vec![Some("0".to_owned())]], &two.query(&sql).await?)
}

async fn postgres_stops_and_starts() -> Outcome {
    let mut server = postgres_server(PostgresOptions::new().with_tcp("correct horse")).await?;
    server.create_database("quoted \" name").await?;
    server.execute_in("quoted \" name", "create table kept ()").await?;
    let url = server.url();
    server.stop().await?;
    refused("a stopped server", &[ErrorKind::Unreachable], server.execute_in("postgres", "select 1").await)?;
    server.start().await?;
    same("the URL", &url, &server.url())?;
    let tcp = server.tcp_url_of("postgres").expect("TCP was asked for");
    probe(&(std::sync::Arc::new(stackkit_postgres::Postgres::from_url(&tcp)?) as _), Tier::Vitals).await?;
    server.execute_in("quoted \" name", "select from kept").await?;
    Ok(())
}

async fn postgres_dies() -> Outcome {
    let options = PostgresOptions::new().with_setting("no_such_parameter", "1");
    let error = refused("a server with a wrong parameter", &[ErrorKind::ToolFailed], postgres_server(options).await)?;
    let text = error.chain().to_string();
    check(text.contains("no_such_parameter"), || format!("no last words in {text:?}"))
}

/// A fixture takes another port when its own was taken meanwhile; it knows that by these words only.
async fn taken_port() -> Outcome {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let redis = redis_with(RedisOptions::new().with_setting("port", &port)).await;
    let options = PostgresOptions::new().with_setting("listen_addresses", "127.0.0.1").with_setting("port", &port);
    let postgres = postgres_server(options).await;
    for outcome in [redis.map(drop), postgres.map(drop)] {
        let error = refused("a server on a taken port", &[ErrorKind::ToolFailed], outcome)?;
        let text = error.chain().to_string();
        check(text.contains("Address already in use"), || format!("other last words: {text}"))?;
    }
    Ok(())
}

/// Three processes that find an empty cache make one template, and each gets its server.
async fn one_template() -> Outcome {
    let (root, cache) = (lifecycle::root(), tempfile::tempdir()?);
    let run = || child::tool(child::EXIT_WITH_STATIC, root.path()).env("STACKKIT_FIXTURES_CACHE", cache.path());
    let runs =
        tokio::try_join!(run().output(CHILD_DEADLINE), run().output(CHILD_DEADLINE), run().output(CHILD_DEADLINE))?;
    same("what the processes say", &[b"ready\n".to_vec(), b"ready\n".to_vec(), b"ready\n".to_vec()], &runs.into())?;
    let names = fs::read_dir(cache.path())?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut templates: Vec<String> = names.filter(|name| name != "postgresql.lock").collect();
    templates.sort_unstable();
    check(templates.len() == 1 && templates[0].starts_with("postgresql-"), || {
        format!("the cache holds {templates:?}")
    })?;
    lifecycle::nothing_stays(root.path()).await
}

/// Runs a trial of this binary where no Redis is to be found.
async fn missing_server() -> Outcome {
    let run = |required: &str| {
        let binary = std::env::current_exe().expect("the path of this binary");
        Tool::new(binary)
            .args(["servers::redis_replies_of_every_shape", "--exact"])
            .env("STACKKIT_REDIS_BIN", "/nowhere")
            .env("STACKKIT_REQUIRE", required)
            .output(CHILD_DEADLINE)
    };
    let ignored = String::from_utf8_lossy(&run("postgres").await?).into_owned();
    let reason = ["redis-server is not installed", "/nowhere", "cargo xtask servers", "1 ignored"];
    for words in reason {
        check(ignored.contains(words), || format!("{words:?} is not in {ignored}"))?;
    }
    refused("a trial of a required store without its server", &[ErrorKind::ToolFailed], run("redis").await).map(drop)
}
