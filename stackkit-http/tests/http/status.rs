//! `/status` and its events.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use futures_util::{FutureExt, StreamExt};
use stackkit_core::ServiceExt;
use stackkit_http::{STATUS_EVENTS_CLIENTS_MAX, operator_router, router};

use crate::script::{CANARY, DEADLINE, Mood, Script, get, header, probed, send, shop, stack};

async fn listen(app: &Router) -> BodyDataStream {
    let response = send(app, "GET", "/status/events", &[]).await;
    assert_eq!(header(&response, "content-type").as_deref(), Some("text/event-stream"));
    Body::into_data_stream(response.into_body())
}

async fn next(events: &mut BodyDataStream) -> Option<String> {
    let event = tokio::time::timeout(DEADLINE, events.next()).await.expect("an event comes")?;
    Some(String::from_utf8(event.unwrap().to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_page_may_do_nothing_but_what_it_needs() {
    let monitor = probed(&stack([Script::new("cache", Mood::Well).into()])).await;
    let app = router(&monitor);
    let response = send(&app, "GET", "/status", &[]).await;
    assert!(header(&response, "content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(get(&app, "/status").await.1.contains("cache"));
}

/// What the page says of the report's age.
fn age(page: &str) -> &str {
    let (_, made) = page.split_once(r#"id="made">"#).unwrap();
    let (_, age) = made.split_once("<time data-age").unwrap();
    age.split_once('>').unwrap().1.split_once('<').unwrap().0
}

#[tokio::test(start_paused = true)]
async fn ages_go_on_when_the_monitor_is_gone() {
    let monitor = probed(&shop()).await;
    let app = router(&monitor);
    let clock = monitor.snapshot().clock().clone();
    drop(monitor);
    let later = async |seconds: u64| {
        clock.advance(Duration::from_secs(seconds));
        tokio::time::advance(Duration::from_secs(seconds)).await;
        get(&app, "/status").await.1
    };
    assert_eq!(age(&later(0).await), "0 s");
    assert_eq!(age(&later(12).await), "12 s");
    let stale = later(30).await;
    assert!(age(&stale) == "0 s" && stale.contains("are unknown"), "that nothing is known is news: {stale}");
    let old = later(7200).await;
    assert_eq!(age(&old), "2 h");
    assert!(old.contains("The last probe ended <time data-age"), "{old}");
    let mut events = listen(&app).await;
    assert_eq!(age(&next(&mut events).await.unwrap()), "2 h");
}

#[tokio::test(start_paused = true)]
async fn a_page_is_rendered_once_a_second_for_all() {
    let often = stackkit_core::Intervals::new().with_poll(Duration::from_secs(3600));
    let monitor = probed(&stack([Script::new("cache", Mood::Well).with_intervals(often)])).await;
    let app = router(&monitor);
    let tag = async |path| header(&send(&app, "GET", path, &[]).await, "etag").unwrap();
    let (page, health) = (tag("/status").await, tag("/health").await);
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_eq!(tag("/status").await, page);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_ne!(tag("/status").await, page);
    assert_eq!(tag("/health").await, health, "it has no ages");
}

#[test]
fn an_open_page_is_told_that_a_report_grew_stale_in_silence() {
    let runtime = |paused| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(paused).build().unwrap()
    };
    let probing = runtime(false);
    let monitor = probing.block_on(async { probed(&stack([Script::new("cache", Mood::Well).into()])).await });
    // Nobody drives its tasks from here on: it is there and does nothing.
    runtime(true).block_on(async {
        let mut events = listen(&router(&monitor)).await;
        assert!(next(&mut events).await.unwrap().contains("is healthy"));
        let mut later = Vec::new();
        while !later.last().is_some_and(|event: &String| event.contains("unknown")) {
            assert!(later.len() < 10, "{later:?}");
            later.push(next(&mut events).await.unwrap());
        }
    });
}

#[tokio::test(start_paused = true)]
async fn an_open_page_is_told_of_a_change_and_of_the_end() {
    let service = Script::new("cache", Mood::Well);
    let mood = service.mood.clone();
    let monitor = probed(&stack([service.optional()])).await;
    let app = operator_router(&monitor);
    let mut events = listen(&app).await;
    let first = next(&mut events).await.unwrap();
    assert!(first.starts_with("data: ") && first.ends_with("\n\n") && first.contains("cache"), "{first}");
    assert!(events.next().now_or_never().is_none(), "nothing changed and time stands still");
    *mood.lock().unwrap() = Mood::Down;
    loop {
        let event = next(&mut events).await.unwrap();
        assert!(!event.contains(CANARY), "{event}");
        if event.contains("unhealthy") {
            break;
        }
    }
    drop(monitor);
    assert_eq!(next(&mut events).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_kept_alive() {
    let clock = tokio::time::Instant::now();
    let often = stackkit_core::Intervals::new().with_poll(Duration::from_secs(3600));
    let monitor = probed(&stack([Script::new("cache", Mood::Well).with_intervals(often)])).await;
    let mut events = listen(&router(&monitor)).await;
    assert!(next(&mut events).await.unwrap().starts_with("data: "));
    let mut pings = 0;
    while clock.elapsed() < Duration::from_secs(60) {
        pings += usize::from(next(&mut events).await.unwrap() == "event: ping\ndata: .\n\n");
    }
    assert!(pings >= 5, "{pings}");
}

#[tokio::test(start_paused = true)]
async fn events_are_a_second_apart_and_the_pages_are_few() {
    let often = stackkit_core::Intervals::new().with_poll(Duration::from_millis(50));
    let monitor = probed(&stack([Script::new("cache", Mood::Well).with_intervals(often)])).await;
    let app = router(&monitor);
    let mut pages = Vec::new();
    for _ in 0..STATUS_EVENTS_CLIENTS_MAX {
        pages.push(listen(&app).await);
    }
    let refused = send(&app, "GET", "/status/events", &[]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(header(&refused, "retry-after").is_some());
    drop(pages.pop());
    let mut events = listen(&app).await;
    next(&mut events).await.unwrap();
    let started = tokio::time::Instant::now();
    for _ in 0..10 {
        next(&mut events).await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_secs(10), "{:?}", started.elapsed());
}
