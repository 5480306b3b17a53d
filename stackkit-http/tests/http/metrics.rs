//! `/metrics`.

use axum::http::StatusCode;
use stackkit_core::ServiceExt;
use stackkit_http::{operator_router, router};

use crate::script::{Mood, Script, get, get_with, header, probed, send, shop, stack};

const OPEN: &[(&str, &str)] = &[("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];

#[tokio::test(start_paused = true)]
async fn both_text_formats_are_golden_files() {
    let monitor = probed(&shop()).await;
    let app = operator_router(&monitor);
    for (headers, content_type, golden) in [
        (&[][..], "text/plain; version=0.0.4; charset=utf-8", include_str!("../golden/metrics.prom")),
        (
            OPEN,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            include_str!("../golden/metrics.openmetrics"),
        ),
    ] {
        assert_eq!(
            header(&send(&app, "GET", "/metrics", headers).await, "content-type").as_deref(),
            Some(content_type)
        );
        let (status, body) = get_with(&app, "/metrics", headers).await;
        assert_eq!(status, StatusCode::OK);
        // Metrics are added, never changed or removed.
        let gone: Vec<&str> = golden.lines().filter(|line| !body.lines().any(|found| found == *line)).collect();
        assert!(gone.is_empty(), "{gone:#?} is gone; the body is:\n{body}");
        assert_eq!(body.ends_with("\n# EOF\n"), !headers.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_names_are_escaped_and_too_many_are_one() {
    let monitor = probed(&stack([Script::new("cache", Mood::Hostile).into()])).await;
    let (_, body) = get(&operator_router(&monitor), "/metrics").await;
    for line in [
        r#"stackkit_script_table_bytes{service="cache",table="say \"hi\""} 1000000"#,
        r#"stackkit_script_table_bytes{service="cache",table="back\\slash"} 1000000"#,
        r#"stackkit_script_table_bytes{service="cache",table="two\nlines"} 1000000"#,
        r#"stackkit_script_table_bytes{service="cache",table="Grüße 🦀"} 1000000"#,
        r#"stackkit_script_table_bytes{service="cache",table="a=\"b\",c"} 1000000"#,
        r#"stackkit_script_evictions_total{service="cache"} 7"#,
        r#"stackkit_script_fork_seconds{service="cache"} 1.25"#,
        r#"stackkit_script_stray_ratio{service="cache"} 0.125"#,
        r#"# HELP stackkit_script_fork_seconds The latest fork \\ "took"\nso long (INFO stats: latest_fork_usec)"#,
        r#"stackkit_finding{service="cache",code="script.fork.slow",severity="warning",axis="risk"} 1"#,
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is missing in\n{body}");
    }
    let tables: Vec<&str> = body.lines().filter(|line| line.starts_with("stackkit_script_table_bytes{")).collect();
    assert_eq!(tables.len(), 50, "the cap holds");
    // 200 tables of 0 to 199 bytes, of which the 44 largest are kept beside the five that are larger.
    let others: u32 = (0..156).sum();
    let line = format!("stackkit_script_table_bytes{{service=\"cache\",table=\"other\"}} {others}");
    assert!(tables.contains(&line.as_str()), "{line} is missing in {tables:?}");
}

#[tokio::test(start_paused = true)]
async fn hidden_details_leave_the_engines_own_metrics() {
    let monitor = probed(&stack([Script::new("cache", Mood::Hostile).informational()])).await;
    let (_, body) = get(&router(&monitor), "/metrics").await;
    let names = body.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(['{', ' ']).next().unwrap());
    for name in names {
        let own = ["stackkit_health_", "stackkit_probe_", "stackkit_service"];
        assert!(own.iter().any(|own| name.starts_with(own)), "{name}");
    }
    assert!(
        body.contains("stackkit_health_status{service=\"cache\",kind=\"script\",state=\"degraded\"} 1\n"),
        "{body}"
    );
}
