//! A primary and the standby that streams from it.

use std::time::Duration;

use libtest_mimic::Completion;
use stackkit_core::health::Tier;
use stackkit_core::process::{Child, Tool, find_user, is_root};
use stackkit_fixtures::{PostgresServer, postgres_server, wait_until};
use stackkit_postgres::Postgres;
use tempfile::TempDir;

use crate::health::{LONG, probe};
use crate::vitals::{codes, labelled, reason, replicating};

/// The port in the name of the standby's socket.
const PORT: u16 = 5433;

/// A running standby; it is killed when dropped.
pub(crate) struct Standby {
    directory: TempDir,
    _server: Child,
}

impl Standby {
    /// The URL of its database `postgres`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@/postgres?host={}&port={PORT}", self.directory.path().display())
    }
}

/// The tool `name` of the server, run as the user that may run servers.
fn tool(primary: &PostgresServer, name: &str) -> Tool {
    let tool = Tool::new(primary.bin_dir().join(name));
    let user = is_root().then(|| find_user(&["postgres", "nobody"]).expect("a user"));
    user.into_iter().fold(tool, Tool::user)
}

/// A standby that lets no query hold up its replay.
pub(crate) async fn standby(primary: &PostgresServer) -> Standby {
    patient_standby(primary, Duration::ZERO).await
}

/// A standby whose replay waits that long for queries that are in its way.
pub(crate) async fn patient_standby(primary: &PostgresServer, delay: Duration) -> Standby {
    let directory = tempfile::tempdir().expect("a directory");
    if is_root() {
        let user = find_user(&["postgres", "nobody"]).expect("a user");
        std::os::unix::fs::chown(directory.path(), Some(user.uid), Some(user.gid)).expect("an owner");
    }
    let data = directory.path().join("data");
    let copy = tool(primary, "pg_basebackup").args(["-R", "-c", "fast", "-X", "stream", "-U", "postgres", "-h"]);
    let copy = copy.arg(primary.socket_dir()).arg("-p").arg(primary.port().to_string()).arg("-D").arg(&data);
    copy.output(Duration::from_secs(60)).await.expect("a copy");
    let socket = format!("unix_socket_directories={}", directory.path().display());
    let server = tool(primary, "postgres").arg("-D").arg(&data).arg("-p").arg(PORT.to_string());
    let server = server.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", &socket]);
    let delay = format!("max_standby_streaming_delay={}ms", delay.as_millis());
    let server = server.args(["-c", &delay, "-c", "max_standby_archive_delay=0", "-c", "hot_standby_feedback=off"]);
    // A standby must have room for at least what its primary has.
    let _server =
        server.args(["-c", "max_connections=200", "-c", "max_prepared_transactions=100"]).spawn().expect("a server");
    Standby { directory, _server }
}

pub(crate) async fn a_primary_and_its_standby_tell_of_each_other() -> Completion {
    let primary = postgres_server(replicating()).await.expect("a server");
    if !primary.bin_dir().join("pg_basebackup").exists() {
        return Completion::ignored_with("pg_basebackup is not installed");
    }
    let above = Postgres::from_url(&primary.url()).expect("a URL");
    let standby = standby(&primary).await;
    let below = Postgres::from_url(&standby.url()).expect("a URL");
    primary.execute_in("postgres", "create table t as select generate_series(1, 1000)").await.expect("some WAL");
    let streams = async || {
        let seen = probe(&above, Tier::Vitals, LONG).await.expect("vitals of the primary");
        (labelled(&seen, "standby_lag_bytes", "walreceiver") == Some(0.0)).then_some(seen)
    };
    let seen = wait_until("the standby to catch up", LONG, streams).await.expect("it catches up");
    assert_eq!(labelled(&seen, "standby_streaming_bool", "walreceiver"), Some(1.0));
    assert_eq!((seen.value("standbys_count"), seen.info["role"].as_str()), (Some(1.0), "primary"));
    assert_eq!(codes(&above, &seen), Vec::<String>::new());
    let idle = async || {
        let seen = probe(&below, Tier::Vitals, LONG).await.ok()?;
        (seen.value("replication_lag_seconds") == Some(0.0)).then_some(seen)
    };
    let seen = wait_until("the standby to have replayed all", LONG, idle).await.expect("an idle standby is not behind");
    assert_eq!((seen.value("wal_receiver_running_bool"), seen.info["role"].as_str()), (Some(1.0), "standby"));
    assert!(codes(&below, &seen).is_empty());
    primary.execute_in("postgres", "create role plain login").await.expect("a role");
    let plain = Postgres::from_url(&primary.url().replace("postgres@", "plain@")).expect("a URL");
    let seen = probe(&plain, Tier::Vitals, LONG).await.expect("vitals");
    assert_eq!(reason(&seen, "standby_lag_bytes"), "permission: GRANT pg_monitor TO <role>");
    Completion::Completed
}
