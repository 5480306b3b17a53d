//! `/health` in its forms.

use axum::http::StatusCode;
use stackkit_core::ServiceExt;
use stackkit_http::{operator_router, router};

use crate::golden::assert_golden;
use crate::script::{Mood, Script, get, get_with, header, probed, send, shop, stack, until};

#[tokio::test(start_paused = true)]
async fn the_native_form_is_the_golden_file() {
    let monitor = probed(&shop()).await;
    let (status, body) = get(&router(&monitor), "/health").await;
    assert_eq!(status, StatusCode::OK);
    assert_golden(&body, include_str!("../golden/health-v1.json"));
    let (status, body) = get(&operator_router(&monitor), "/health").await;
    assert_eq!(status, StatusCode::OK);
    assert_golden(&body, include_str!("../golden/health-v1-verbose.json"));
}

#[tokio::test(start_paused = true)]
async fn one_service_is_its_entry_in_the_report() {
    let monitor = probed(&shop()).await;
    for app in [router(&monitor), operator_router(&monitor)] {
        let all: serde_json::Value = serde_json::from_str(&get(&app, "/health").await.1).unwrap();
        let one: serde_json::Value = serde_json::from_str(&get(&app, "/health/uploads").await.1).unwrap();
        let mut entry = all["services"][1].clone();
        entry["schema"] = "stackkit.health/1".into();
        assert_eq!(one, entry);
    }
}

#[tokio::test(start_paused = true)]
async fn the_other_forms_are_golden_files() {
    let monitor = probed(&stack([
        Script::new("postgres", Mood::Well).of_kind("postgresql").into(),
        Script::new("uploads", Mood::Warned).of_kind("volume").into(),
        Script::new("cache", Mood::Down).of_kind("redis").optional(),
    ]))
    .await;
    let (hidden, open) = (router(&monitor), operator_router(&monitor));
    for (app, path, golden) in [
        (&hidden, "/health.draft", include_str!("../golden/draft.json")),
        (&open, "/health.draft", include_str!("../golden/draft-details.json")),
        (&hidden, "/health.simple", include_str!("../golden/simple.json")),
        (&open, "/health.simple", include_str!("../golden/simple.json")),
        (&hidden, "/health.spring", include_str!("../golden/spring.json")),
        (&open, "/health.spring", include_str!("../golden/spring-details.json")),
    ] {
        let (status, body) = get(app, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_golden(&body, golden);
    }
}

#[tokio::test(start_paused = true)]
async fn accept_and_path_give_the_same_form() {
    let monitor = probed(&shop()).await;
    let app = router(&monitor);
    for (path, accept) in [
        ("/health.json", "application/json"),
        ("/health.json", "text/html, */*;q=0.8"),
        ("/health.draft", "application/health+json"),
        ("/health.simple", "application/vnd.stackkit.simple+json"),
        ("/health.spring", "application/vnd.spring-boot.actuator.v3+json"),
    ] {
        assert_eq!(get(&app, path).await, get_with(&app, "/health", &[("accept", accept)]).await, "{accept}");
    }
    assert_eq!(header(&send(&app, "GET", "/health", &[]).await, "vary").as_deref(), Some("accept"));
    assert_eq!(header(&send(&app, "GET", "/health.draft", &[]).await, "vary"), None);
}

#[tokio::test(start_paused = true)]
async fn every_form_says_that_a_stack_is_down_or_drains() {
    let monitor = probed(&stack([Script::new("cache", Mood::Down).of_kind("redis").into()])).await;
    until(&monitor, |monitor| !monitor.report().ready).await;
    let app = router(&monitor);
    for (path, word) in [
        ("/health.json", "\"ready\":false"),
        ("/health.draft", "{\"status\":\"fail\""),
        ("/health.simple", "{\"status\":\"unhealthy\",\"databases\":{\"cache\":\"disconnected\"}"),
        ("/health.spring", "{\"status\":\"DOWN\""),
    ] {
        let (status, body) = get(&app, path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(body.contains(word), "{path}: {body}");
    }
    monitor.begin_drain();
    assert!(get(&app, "/health.spring").await.1.starts_with("{\"status\":\"OUT_OF_SERVICE\""));
    assert!(get(&app, "/health").await.1.contains("\"draining\":true"));
}

#[tokio::test(start_paused = true)]
async fn a_known_tag_is_not_sent_again_until_the_report_changes() {
    let service = Script::new("cache", Mood::Well);
    let mood = service.mood.clone();
    let monitor = probed(&stack([service.into()])).await;
    let app = operator_router(&monitor);
    let tag = async |path: &str| header(&send(&app, "GET", path, &[]).await, "etag").unwrap();
    for path in ["/health", "/health.draft", "/health/cache", "/metrics", "/status"] {
        let tag = tag(path).await;
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let response = send(&app, "GET", path, &[("if-none-match", &known)]).await;
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{path} {known}");
            assert_eq!(header(&response, "etag").as_ref(), Some(&tag), "{path}");
        }
        let other = send(&app, "GET", path, &[("if-none-match", "\"x\"")]).await;
        assert_eq!(other.status(), StatusCode::OK, "{path}");
    }
    // One path, several bodies, each with a tag of its own.
    assert_ne!(tag("/health").await, tag("/health.draft").await);
    assert_ne!(header(&send(&router(&monitor), "GET", "/health", &[]).await, "etag").unwrap(), tag("/health").await);
    let before = tag("/health").await;
    *mood.lock().unwrap() = Mood::Down;
    until(&monitor, |monitor| !monitor.report().ready).await;
    // What says 503 is never taken from a cache.
    let known = tag("/health").await;
    assert_ne!(known, before);
    let down = send(&app, "GET", "/health", &[("if-none-match", &known)]).await;
    assert_eq!(down.status(), StatusCode::SERVICE_UNAVAILABLE);
}
