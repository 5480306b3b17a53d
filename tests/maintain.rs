//! `stackctl maintain` against a real server.

use stackkit_fixtures::PostgresFixture;

use crate::tool::{Test, stackctl};

/// What this file tests.
pub(crate) const TESTS: &[Test] =
    &[Test::new("maintain_shows_first_and_works_only_when_told_to", shows_first_and_works_when_told_to)
        .needs(&["postgres"])];

/// The lines of a run, as JSON.
fn maintain(url: &str, args: &[&str], code: i32) -> Vec<serde_json::Value> {
    let service = format!("shop={url}");
    let outcome = stackctl(&[&["--json", "--service", &service, "maintain"], args].concat()).expect(code);
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn shows_first_and_works_when_told_to() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let postgres: PostgresFixture = runtime.block_on(async {
        let postgres = stackkit_fixtures::postgres().await.unwrap();
        let rows = "create table t as select g from generate_series(1, 5000) g; create index ti on t (g)";
        postgres.execute(rows).await.unwrap();
        postgres
    });
    let url = postgres.url();
    let shown = maintain(&url, &[], 0);
    assert_eq!((shown[0]["service"].as_str(), shown[1]["service"].as_str()), (Some("shop"), Some("shop")));
    let planned = shown[1]["steps"].as_array().unwrap();
    assert!(planned.iter().any(|step| step["relation"] == "public.t"), "{shown:?}");
    assert_eq!(runtime.block_on(is_vacuumed(&postgres)), "f", "nothing was done");

    let report = maintain(&url, &["--vacuum", "public.t", "--reindex", "public.ti", "--apply"], 0);
    let outcomes: Vec<&str> =
        report[1]["steps"].as_array().unwrap().iter().map(|step| step["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["done", "done"], "{report:?}");
    runtime.block_on(async {
        let vacuumed = async || (is_vacuumed(&postgres).await == "t").then_some(());
        let limit = std::time::Duration::from_secs(30);
        stackkit_fixtures::wait_until("the statistics", limit, vacuumed).await.unwrap();
    });
    maintain(&url, &["--vacuum-full", "public.t", "--apply"], 2);
    maintain(&url, &["--vacuum-full", "public.t", "--force", "--apply"], 0);
    maintain("redis://127.0.0.1:1", &[], 2);
}

async fn is_vacuumed(postgres: &PostgresFixture) -> String {
    let sql = "select last_vacuum is not null from pg_stat_user_tables where relname = 't'";
    postgres.query(sql).await.unwrap()[0][0].clone().unwrap()
}
