//! What the page says, and that everybody can read it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stackkit_core::health::{Axis, Finding, ServiceReport, Severity, Status};
use stackkit_core::{Error, ErrorKind, Observation, Phase, ServiceId};

use super::charts::{SEGMENTS, Segment, segments};
use super::samples::{Sample, now};
use super::{CONTENT_SECURITY_POLICY, SCRIPT, STYLE};

const SHOP: [(&str, &str, &[&str]); 4] = [
    ("web", "http", &["api"]),
    ("api", "http", &["postgres"]),
    ("postgres", "postgres", &[]),
    ("backups", "backup", &[]),
];

async fn shop() -> Sample {
    Sample::healthy(&SHOP).await
}

fn fail(service: &mut ServiceReport) {
    let error = Error::new(ErrorKind::Unreachable, "nothing accepts connections there")
        .with_service(service.id.clone())
        .with_phase(Phase::Connect);
    service.status = Status::Unhealthy;
    service.since = now() - Duration::from_secs(185);
    service.failure = Some((&error).into());
}

fn suffer(service: &mut ServiceReport) {
    fail(service);
    service.status = Status::Unknown;
    service.caused_by = vec![ServiceId::new("postgres").unwrap()];
}

/// The text of a fragment's element of that id, tags taken out.
fn text_of(fragment: &str, id: &str) -> String {
    let from = fragment.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("nothing is called {id}"));
    let rest = &fragment[from..];
    let end = rest[1..].find(" id=\"service-").map_or(rest.len(), |end| end + 1);
    let mut text = String::new();
    let mut in_tag = true;
    for letter in rest[..end].chars() {
        match letter {
            '<' => in_tag = true,
            '>' => in_tag = false,
            _ if in_tag => {}
            _ => text.push(letter),
        }
        if letter == '<' && !text.ends_with('|') {
            text.push('|');
        }
    }
    text
}

#[tokio::test(start_paused = true)]
async fn what_others_need_comes_first() {
    let fragment = shop().await.fragment();
    let at = |id: &str| fragment.find(&format!("id=\"service-{id}\"")).unwrap();
    assert!(at("postgres") < at("api") && at("api") < at("web"), "{fragment}");
    assert!(text_of(&fragment, "service-web").contains("needs |api"), "{}", text_of(&fragment, "service-web"));
}

#[tokio::test(start_paused = true)]
async fn a_cause_is_told_once_with_its_failure() {
    let mut shop = shop().await;
    shop.change("postgres", fail).change("api", suffer).change("web", suffer);
    let fragment = shop.fragment();
    assert_eq!(fragment.matches("nothing accepts connections there").count(), 1, "{fragment}");
    let cause = text_of(&fragment, "service-postgres");
    assert!(cause.contains("Unhealthy|for |3 min|"), "{cause}");
    assert!(cause.contains("|nothing accepts connections there|unreachable · in phase connect|"), "{cause}");
    assert!(text_of(&fragment, "service-web").contains("Unknown because of |postgres|."));
    assert!(fragment.contains("postgres is unhealthy; 2 services suffer from it."), "{fragment}");
}

#[tokio::test(start_paused = true)]
async fn details_are_shown_only_where_they_may_be() {
    let mut shop = shop().await;
    let finding = Finding::new("pg.disk", Axis::Risk, Severity::Warning, "the disk is full soon").with_hint("free it");
    shop.change("postgres", fail).change("api", |api| api.exceeded = vec![finding]);
    let seen = Observation::new().gauge("backup_age_seconds", 18_720.0).gauge("verify_age_seconds", 108_000.0);
    shop.change("backups", |backups| backups.observation = Some(Arc::new(seen)));
    let secrets = ["nothing accepts", "the disk is full soon", "free it", "pg.disk", "store.internal", "Last backup"];
    let shown = shop.fragment();
    assert!(secrets.iter().all(|secret| shown.contains(secret)), "{shown}");
    assert!(text_of(&shown, "service-backups").contains("Last backup |5 h 12 min| ago · verified |1 d 6 h| ago"));
    shop.details = false;
    let hidden = shop.page();
    assert!(!secrets.iter().any(|secret| hidden.contains(secret)), "{hidden}");
    assert!(hidden.contains("postgres is unhealthy."));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_never_markup() {
    let mut shop = shop().await;
    let hostile = r#"</li><script>alert("1")</script><img src=x onerror='x'>"#;
    shop.report.stack = hostile.into();
    let finding = Finding::new("a.b", Axis::Risk, Severity::Warning, hostile).with_hint(hostile);
    shop.change("api", |api| {
        api.exceeded = vec![finding];
        api.endpoint = hostile.into();
    });
    let page = shop.page();
    assert_eq!(page.matches("<script>").count(), 1, "{page}");
    assert!(!page.contains("<img"), "{page}");
    assert_eq!(page.matches("&lt;/li&gt;&lt;script&gt;").count(), 5, "{page}");
}

#[tokio::test(start_paused = true)]
async fn drain_and_maintenance_are_told() {
    let mut shop = shop().await;
    shop.change("postgres", |postgres| {
        fail(postgres);
        postgres.maintenance_until = Some(now() + Duration::from_secs(5400));
    });
    shop.report.draining = true;
    let fragment = shop.fragment();
    assert!(fragment.contains("Draining: it takes no new requests"), "{fragment}");
    assert!(fragment.contains("Every other service is healthy."), "{fragment}");
    assert!(fragment.contains("3 healthy · 1 in maintenance"), "{fragment}");
    let row = text_of(&fragment, "service-postgres");
    assert!(row.contains("Maintenance|until |19:45 UTC| · is unhealthy"), "{row}");
}

#[tokio::test(start_paused = true)]
async fn before_the_first_probe_nothing_is_claimed() {
    let mut shop = shop().await;
    for (id, ..) in SHOP {
        shop.change(id, |service| {
            service.status = Status::Unknown;
            service.checked_at = None;
            service.latency_ms = None;
        });
        let history = shop.history(id);
        history.minutes.clear();
        history.availability.day_ratio = None;
    }
    let fragment = shop.fragment();
    assert!(fragment.contains("all 4 services are unknown."), "{fragment}");
    let row = text_of(&fragment, "service-postgres");
    assert!(row.contains("Unknown|not probed yet|no latency yet|no availability yet"), "{row}");
    assert!(!fragment.contains("<polyline"), "{fragment}");
}

#[tokio::test(start_paused = true)]
async fn a_day_is_96_quarters_of_an_hour() {
    let mut shop = shop().await;
    shop.down_for("api", 20);
    let history = shop.history("api");
    history.minutes.iter_mut().take(90).for_each(|minute| (minute.status, minute.ready_ratio) = (None, None));
    let bar = segments(history, now());
    assert_eq!(bar[..6], [Segment::Nothing; 6]);
    assert_eq!(bar[6..SEGMENTS - 2], [Segment::Healthy; SEGMENTS - 8]);
    assert_eq!(bar[SEGMENTS - 2..], [Segment::Down; 2]);
    let fragment = shop.fragment();
    assert!(fragment.contains("Ready 98.61 % of the last 24 hours; not ready in 2 of 96 quarter hours"), "{fragment}");
}

#[tokio::test(start_paused = true)]
async fn the_page_asks_nobody_else_and_has_all_landmarks() {
    let page = shop().await.page();
    // The only addresses are names of formats.
    assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count() + 3, "kinds of 2 rows");
    for (what, count) in [
        ("<html lang=\"en\">", 1),
        ("<main ", 1),
        ("<h1>", 1),
        ("<h2 ", 1),
        ("<h3 ", 4),
        ("role=\"status\"", 2),
        ("aria-live=\"polite\"", 1),
        ("<li class=\"row healthy\"", 4),
        ("role=\"img\" aria-label=\"", 8),
        (" style=", 0),
        (" src=", 0),
        ("url(", 0),
        ("@import", 0),
    ] {
        assert_eq!(page.matches(what).count(), count, "{what}\n{page}");
    }
}

#[test]
fn the_policy_has_the_hashes_of_the_style_and_the_script() {
    for (directive, content) in [("style-src", STYLE), ("script-src", SCRIPT)] {
        let digest = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
        let wanted = format!("{directive} 'sha256-{}'", STANDARD.encode(digest));
        assert!(CONTENT_SECURITY_POLICY.contains(&wanted), "{wanted}");
    }
}

#[test]
fn the_script_waits_as_long_as_the_server_says() {
    let millis = super::SILENCE_MAX.as_millis();
    assert!(SCRIPT.contains(&format!("const SILENCE_MAX_MS = {millis};")), "{millis}");
}

mod contrast {
    use super::STYLE;

    /// What WCAG 2.2 asks of text at level AA, criterion 1.4.3.
    const TEXT: f64 = 4.5;
    /// What it asks of drawings and icons, criterion 1.4.11.
    const DRAWING: f64 = 3.0;

    /// The value of a colour in the light or the dark half of the style.
    fn colour(theme: usize, name: &str) -> [f64; 3] {
        let halves: Vec<&str> = STYLE.splitn(2, "prefers-color-scheme: dark").collect();
        let half = halves[theme];
        let from = half.find(&format!("--{name}: #")).unwrap_or_else(|| panic!("no colour is called {name}"));
        let digits = &half[from + name.len() + 5..][..6];
        [0, 2, 4].map(|at| f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0)
    }

    /// The relative luminance of WCAG 2.2.
    fn luminance(colour: [f64; 3]) -> f64 {
        let [red, green, blue] =
            colour.map(|part| if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    fn ratio(a: [f64; 3], b: [f64; 3]) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn black_on_white_is_21() {
        assert!((ratio([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9);
    }

    #[test]
    fn every_pair_of_colours_can_be_read_in_light_and_dark() {
        let grounds = ["panel", "degraded-tint", "unknown-tint", "unhealthy-tint", "maintenance-tint"];
        let own = ["healthy", "degraded", "unknown", "unhealthy", "maintenance"];
        let bars = ["bar-healthy", "bar-degraded", "bar-unhealthy", "bar-nothing", "line-median"];
        let mut pairs = vec![("text", "ground", TEXT), ("faint", "ground", TEXT)];
        for ground in grounds {
            pairs.extend(["text", "faint", "link"].map(|text| (text, ground, TEXT)));
            pairs.extend(own.map(|state| (state, ground, TEXT)));
            pairs.extend(bars.map(|bar| (bar, ground, DRAWING)));
        }
        pairs.extend([
            ("hero-healthy-text", "hero-healthy", TEXT),
            ("hero-degraded-text", "hero-degraded", TEXT),
            ("hero-unknown-text", "hero-unknown", TEXT),
            ("hero-unhealthy-text", "hero-unhealthy", TEXT),
        ]);
        for theme in [0, 1] {
            for (front, back, least) in &pairs {
                let found = ratio(colour(theme, front), colour(theme, back));
                assert!(found >= *least, "{front} on {back} in theme {theme}: {found:.2}, not {least}");
            }
        }
    }
}
