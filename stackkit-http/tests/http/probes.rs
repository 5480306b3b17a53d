//! `/livez`, `/readyz`, `/startupz` and `/groupz`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::to_bytes;
use axum::http::StatusCode;
use stackkit_core::{Monitor, ServiceExt};
use stackkit_http::{operator_router, router};

use crate::script::{BODY_BYTES_MAX, Mood, Script, get, header, probed, send, shop, stack, until};

#[tokio::test(start_paused = true)]
async fn verbose_readyz_has_a_line_for_each_service() {
    let monitor = probed(&shop()).await;
    let (status, body) = get(&operator_router(&monitor), "/readyz?verbose").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        "[+]postgres ok\n\
         [+]uploads degraded: script.disk.near\n\
         [-]cache (optional) unhealthy: connect: nothing listens (host=store.internal)\n\
         readyz check passed\n"
    );
    let (_, body) = get(&router(&monitor), "/readyz?verbose").await;
    assert_eq!(
        body,
        "[+]postgres ok\n\
         [+]uploads degraded: reason withheld\n\
         [-]cache (optional) unhealthy: reason withheld\n\
         readyz check passed\n"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ready_before_the_first_probe() {
    let monitor = Monitor::start(&stack([Script::new("postgres", Mood::Silent).into()]));
    let app = operator_router(&monitor);
    assert_eq!(get(&app, "/livez").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(get(&app, "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()));
    assert_eq!(get(&app, "/startupz").await, (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()));
    let (status, body) = get(&app, "/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "[-]postgres unknown: no probe has ended yet\nreadyz check failed\n");
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_a_required_service_and_startup_does_not() {
    let service = Script::new("cache", Mood::Well);
    let mood = service.mood.clone();
    let monitor = probed(&stack([service.into()])).await;
    let app = router(&monitor);
    assert_eq!(get(&app, "/readyz").await.0, StatusCode::OK);
    *mood.lock().unwrap() = Mood::Down;
    until(&monitor, |monitor| !monitor.report().ready).await;
    for path in ["/readyz", "/readyz/cache", "/groupz/ready", "/groupz/ready/cache", "/health", "/health/cache"] {
        assert_eq!(get(&app, path).await.0, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    for path in ["/livez", "/startupz", "/startupz/cache", "/metrics", "/status"] {
        assert_eq!(get(&app, path).await.0, StatusCode::OK, "{path}");
    }
    *mood.lock().unwrap() = Mood::Well;
    until(&monitor, |monitor| monitor.report().ready).await;
    assert_eq!(get(&app, "/readyz").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_is_excluded_does_not_count() {
    let services = ["postgres", "cache"].map(|id| Script::new(id, Mood::Down).into());
    let monitor = probed(&stack(services)).await;
    until(&monitor, |monitor| monitor.report().services.iter().all(|service| !service.status.is_ready())).await;
    let app = router(&monitor);
    assert_eq!(get(&app, "/readyz?exclude=cache").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let both = "/readyz?exclude=cache&exclude=postgres";
    assert_eq!(get(&app, both).await, (StatusCode::OK, "ok\n".to_owned()));
    let (status, body) = get(&app, &format!("{both}&exclude=nobody&verbose")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        "[+]postgres excluded: ok\n\
         [+]cache excluded: ok\n\
         warn: some health checks cannot be excluded: no matches for \"nobody\"\n\
         readyz check passed\n"
    );
}

#[tokio::test(start_paused = true)]
async fn each_group_holds_its_own_members() {
    let monitor = probed(&stack([
        Script::new("worker", Mood::Well).local().in_groups(["live", "night"]),
        Script::new("cache", Mood::Well).into(),
    ]))
    .await;
    let app = router(&monitor);
    for path in ["/livez/worker", "/groupz/night/worker", "/readyz/cache", "/startupz/cache", "/health/worker"] {
        assert_eq!(get(&app, path).await.0, StatusCode::OK, "{path}");
    }
    for path in
        ["/livez/cache", "/readyz/worker", "/readyz/nobody", "/groupz/day", "/groupz/day/worker", "/health/nobody"]
    {
        assert_eq!(get(&app, path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(get(&app, "/livez?verbose").await.1, "[+]worker ok\nlivez check passed\n");
    assert_eq!(get(&app, "/groupz/night?verbose").await.1, "[+]worker ok\nnight check passed\n");
    assert_eq!(get(&app, "/readyz/cache").await.1, "[+]cache ok\n");
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_drains_is_alive_and_not_ready() {
    let monitor = probed(&stack([Script::new("cache", Mood::Well).into()])).await;
    let app = router(&monitor);
    monitor.begin_drain();
    assert_eq!(get(&app, "/livez").await.0, StatusCode::OK);
    assert_eq!(get(&app, "/startupz").await.0, StatusCode::OK);
    let (status, body) = get(&app, "/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "[+]cache ok\n[-]drain failed: the stack is told to end\nreadyz check failed\n");
    assert_eq!(get(&app, "/readyz?exclude=cache").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn a_router_without_its_monitor_does_not_stay_green() {
    let monitor = probed(&stack([Script::new("postgres", Mood::Well).into()])).await;
    let app = operator_router(&monitor);
    assert_eq!(get(&app, "/readyz?verbose").await.0, StatusCode::OK);
    drop(monitor);
    tokio::time::advance(Duration::from_secs(3600)).await;
    let (status, body) = get(&app, "/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "[-]postgres unknown: the last probe is too old\nreadyz check failed\n");
    assert_eq!(get(&app, "/health").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn requests_probe_nothing() {
    let service = Script::new("postgres", Mood::Well);
    let probes = service.probes.clone();
    let monitor = probed(&stack([service.into()])).await;
    let app = operator_router(&monitor);
    let before = probes.load(Ordering::Relaxed);
    for path in ["/health", "/readyz?verbose", "/metrics", "/status"] {
        for _ in 0..1000 {
            assert_eq!(get(&app, path).await.0, StatusCode::OK);
        }
    }
    assert_eq!(probes.load(Ordering::Relaxed), before, "time stands still, so only a request can have probed");
}

#[tokio::test(start_paused = true)]
async fn headers_methods_and_head() {
    let monitor = probed(&shop()).await;
    let app = router(&monitor);
    for (path, content_type, cache) in [
        ("/livez", "text/plain; charset=utf-8", "no-store"),
        ("/readyz", "text/plain; charset=utf-8", "no-store"),
        ("/startupz?verbose", "text/plain; charset=utf-8", "no-store"),
        ("/readyz/postgres", "text/plain; charset=utf-8", "no-store"),
        ("/health", "application/json", "no-cache"),
        ("/health/postgres", "application/json", "no-cache"),
        ("/health.draft", "application/health+json", "no-cache"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "no-cache"),
        ("/status", "text/html; charset=utf-8", "no-cache"),
    ] {
        let head = send(&app, "HEAD", path, &[]).await;
        assert_eq!(head.status(), StatusCode::OK, "{path}");
        assert_eq!(header(&head, "content-type").as_deref(), Some(content_type), "{path}");
        assert_eq!(header(&head, "cache-control").as_deref(), Some(cache), "{path}");
        let length = get(&app, path).await.1.len().to_string();
        assert_eq!(header(&head, "content-length"), Some(length), "{path}");
        assert!(to_bytes(head.into_body(), BODY_BYTES_MAX).await.unwrap().is_empty(), "{path}");
        assert_eq!(send(&app, "POST", path, &[]).await.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}
