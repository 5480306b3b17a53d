//! What a server lets happen: settings, rights, `pg_hba.conf`.

use std::io::Write;

use stackkit_core::health::{Severity, Tier};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::Postgres;

use crate::health::{LONG, probe};
use crate::vitals::{codes, reason};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_careless_server_is_told_everything,
    a_sound_role_on_a_sound_server_is_told_nothing,
    lines_of_pg_hba_are_judged_by_who_may_come,
    who_may_not_read_pg_hba_is_told_the_grant,
];

async fn server(options: PostgresOptions) -> PostgresServer {
    postgres_server(options).await.expect("a server")
}

async fn a_careless_server_is_told_everything() {
    let options = PostgresOptions::new().with_tcp("postgres");
    let server = server(options.with_setting("fsync", "off").with_setting("full_page_writes", "off")).await;
    let md5 = "alter database postgres set password_encryption = md5";
    server.execute_in("postgres", md5).await.expect("a setting");
    let service = Postgres::from_url(&server.tcp_url_of("postgres").expect("tcp")).expect("a URL");
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    let found = codes(&service, &seen);
    for code in [
        "pg.fsync.off",
        "pg.posture.full_page_writes",
        "pg.posture.md5",
        "pg.posture.password_default",
        "pg.posture.superuser",
        "pg.posture.synchronous_commit",
    ] {
        assert!(found.contains(&code.to_owned()), "{code} is missing: {found:?}");
    }
    let fsync = seen.findings.iter().find(|finding| finding.code == "pg.fsync.off").expect("a finding");
    assert_eq!(fsync.severity, Severity::Critical);
}

async fn a_sound_role_on_a_sound_server_is_told_nothing() {
    let options = PostgresOptions::new().with_setting("fsync", "on").with_setting("full_page_writes", "on");
    let server = server(options.with_setting("synchronous_commit", "on")).await;
    server.execute_in("postgres", "create role watcher login; grant pg_monitor to watcher").await.expect("a role");
    let service = Postgres::from_url(&server.url().replace("postgres@", "watcher@")).expect("a URL");
    for tier in [Tier::Vitals, Tier::Inventory] {
        let seen = probe(&service, tier, LONG).await.expect("an observation");
        assert_eq!(codes(&service, &seen), Vec::<String>::new());
    }
}

async fn lines_of_pg_hba_are_judged_by_who_may_come() {
    let server = server(PostgresOptions::new()).await;
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let file = server.query_in("postgres", "show hba_file").await.expect("a path")[0][0].clone().expect("a path");
    let counts = async || {
        let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
        let counts = ["hba_trust_count", "hba_cleartext_count", "hba_md5_count"].map(|name| seen.value(name));
        (counts, codes(&service, &seen))
    };
    let append = |lines: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).open(&file).expect("the file");
        file.write_all(lines.as_bytes()).expect("lines");
    };
    append("\nlocal all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 md5\n");
    append("hostssl all all 10.0.0.0/8 password\nhostssl all all 10.0.0.0/8 scram-sha-256\n");
    let (local, found) = counts().await;
    assert_eq!(local, [Some(0.0); 3], "this machine, and passwords inside TLS, are no risk");
    assert!(!found.iter().any(|code| code.contains("hba")), "{found:?}");
    append("host all all 10.0.0.0/8 trust\nhost all all all trust\nhost all all 10.0.0.0/8 password\n");
    append("hostnossl all all 10.0.0.0/8 md5\n");
    let (remote, found) = counts().await;
    assert_eq!(remote, [Some(2.0), Some(1.0), Some(1.0)]);
    for code in ["pg.posture.hba_trust", "pg.posture.hba_cleartext", "pg.posture.hba_md5"] {
        assert!(found.contains(&code.to_owned()), "{code} is missing: {found:?}");
    }
}

async fn who_may_not_read_pg_hba_is_told_the_grant() {
    let server = server(PostgresOptions::new()).await;
    server.execute_in("postgres", "create role watcher login; grant pg_monitor to watcher").await.expect("a role");
    let service = Postgres::from_url(&server.url().replace("postgres@", "watcher@")).expect("a URL");
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    let grant = "permission: GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO <role>";
    assert_eq!(reason(&seen, "hba_trust_count"), grant);
    assert!(seen.value("wal_size_bytes").expect("a size") > 0.0, "pg_monitor may list the WAL");
    let sql = "grant execute on function pg_hba_file_rules() to watcher";
    server.execute_in("postgres", sql).await.expect("a grant");
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    assert!(seen.value("hba_trust_count").is_some(), "that grant is enough");
}
