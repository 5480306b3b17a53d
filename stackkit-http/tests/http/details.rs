//! Who sees details.

use axum::http::StatusCode;
use stackkit_core::{Monitor, Secret};
use stackkit_http::{Details, RouterOptions, operator_router, router, router_with};

use crate::script::{CANARY, get, get_with, header, probed, send, shop};

/// Every view of the stack.
const PATHS: [&str; 16] = [
    "/livez?verbose",
    "/readyz",
    "/readyz?verbose",
    "/readyz?verbose&exclude=cache",
    "/readyz/cache",
    "/startupz?verbose",
    "/groupz/ready?verbose",
    "/groupz/ready/cache",
    "/health",
    "/health/cache",
    "/health.json",
    "/health.draft",
    "/health.simple",
    "/health.spring",
    "/metrics",
    "/status",
];
/// What only those may see who may see details: endpoints, failures, findings, measurements, facts.
const DETAILS: [&str; 7] =
    ["store.internal", "nothing listens", "script.disk.near", "86 %", "memory_used", "1024", "1.2\""];

fn with_token(monitor: &Monitor) -> axum::Router {
    router_with(monitor, RouterOptions::new().with_details(Details::Token(Secret::new("k9#xq-2Lw!"))))
}

#[tokio::test(start_paused = true)]
async fn nothing_but_statuses_and_names_unless_details_are_open() {
    let monitor = probed(&shop()).await;
    let app = router(&monitor);
    for path in PATHS {
        let (_, body) = get_with(&app, path, &[("authorization", "Bearer k9#xq-2Lw!")]).await;
        for detail in DETAILS {
            assert!(!body.contains(detail), "{path} tells {detail}: {body}");
        }
    }
    let open = operator_router(&monitor);
    let all = async |path| get(&open, path).await.1;
    let told =
        [all("/health").await, all("/metrics").await, all("/readyz?verbose").await, all("/status").await].join("");
    for detail in DETAILS {
        assert!(told.contains(detail), "{detail} is told nowhere, so the test above shows nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_opens_what_is_hidden_without_it() {
    let monitor = probed(&shop()).await;
    let (app, hidden, open) = (with_token(&monitor), router(&monitor), operator_router(&monitor));
    for path in PATHS {
        let right = get_with(&app, path, &[("authorization", "Bearer k9#xq-2Lw!")]).await;
        assert_eq!(right, get(&open, path).await, "{path}");
        for wrong in ["Bearer k9#xq-2Lw", "Bearer", "Basic azk=", ""] {
            let wrong = get_with(&app, path, &[("authorization", wrong)]).await;
            assert_eq!(wrong, get(&hidden, path).await, "{path}");
        }
        assert_eq!(get(&app, path).await, get(&hidden, path).await, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn caches_are_told_what_an_answer_hangs_on() {
    let monitor = probed(&shop()).await;
    let app = with_token(&monitor);
    let response = send(&app, "GET", "/health", &[]).await;
    assert_eq!(header(&response, "vary").as_deref(), Some("accept, authorization"));
    assert_eq!(header(&response, "cache-control").as_deref(), Some("private, no-cache"));
    let tag = header(&response, "etag").unwrap();
    let right = [("authorization", "Bearer k9#xq-2Lw!"), ("if-none-match", tag.as_str())];
    assert_eq!(send(&app, "GET", "/health", &right).await.status(), StatusCode::OK, "the tag is of the brief body");
}

#[tokio::test(start_paused = true)]
async fn no_view_carries_driver_text_or_the_token() {
    let monitor = probed(&shop()).await;
    for app in [router(&monitor), operator_router(&monitor), with_token(&monitor)] {
        for path in PATHS {
            let response = send(&app, "GET", path, &[("authorization", "Bearer k9#xq-2Lw!")]).await;
            let headers = format!("{:?}", response.headers());
            let (_, body) = get_with(&app, path, &[("authorization", "Bearer k9#xq-2Lw!")]).await;
            for secret in [CANARY, "k9#xq-2Lw!"] {
                assert!(!body.contains(secret) && !headers.contains(secret), "{path}: {body}");
            }
        }
    }
    let options = RouterOptions::new().with_details(Details::Token(Secret::new("k9#xq-2Lw!")));
    assert!(!format!("{options:?}").contains("k9"));
}
