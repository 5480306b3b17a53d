//! Who sees details.

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
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
/// What the page says where a token shows what is hidden, and what it says elsewhere.
const LINK: &str = r#" <a href="?login">Show them with the token</a>"#;
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
        assert_eq!(get_with(&app, path, &[("authorization", &basic("ops:k9#xq-2Lw!"))]).await, right, "{path}");
        for wrong in ["Bearer k9#xq-2Lw", "Bearer", "Basic azk=", &basic("k9#xq-2Lw!:k9#xq-2Lw"), ""] {
            let (status, body) = get_with(&app, path, &[("authorization", wrong)]).await;
            assert_eq!((status, body.replace(LINK, "")), get(&hidden, path).await, "{path}");
        }
        let (status, body) = get(&app, path).await;
        assert_eq!((status, body.replace(LINK, "")), get(&hidden, path).await, "{path}");
    }
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[tokio::test(start_paused = true)]
async fn a_browser_is_asked_for_the_token_and_the_page_and_its_events_carry_it() {
    let monitor = probed(&shop()).await;
    let app = with_token(&monitor);
    assert!(get(&app, "/status").await.1.contains(LINK));
    for wrong in ["", "Bearer k9", &basic("k9#xq-2Lw!:"), &basic("ops:k9#xq-2Lw")] {
        let refused = send(&app, "GET", "/status?login", &[("authorization", wrong)]).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{wrong}");
        let challenge = header(&refused, "www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm=\"stackkit\""), "{challenge}");
        assert_eq!(header(&refused, "cache-control").as_deref(), Some("no-store"));
        let (_, body) = get_with(&app, "/status?login", &[("authorization", wrong)]).await;
        assert!(!body.contains("cache") && DETAILS.iter().all(|detail| !body.contains(detail)), "{body}");
    }
    let right = basic("ops:k9#xq-2Lw!");
    let right = [("authorization", right.as_str())];
    let (status, page) = get_with(&app, "/status?login", &right).await;
    assert_eq!(
        (status, page.contains("nothing listens"), page.contains(LINK)),
        (StatusCode::OK, true, false),
        "{page}"
    );
    let events = send(&app, "GET", "/status/events?login", &right).await;
    let first = events.into_body().into_data_stream().next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("nothing listens"));
    for (app, why) in [(router(&monitor), "nobody may"), (operator_router(&monitor), "everybody may already")] {
        let (status, page) = get(&app, "/status?login").await;
        assert_eq!((status, page.contains("?login")), (StatusCode::OK, false), "{why}");
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
