//! The status page as a person sees it: in Chromium, over real services.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stackkit::health::Intervals;
use stackkit::http::{Details, RouterOptions};
use stackkit::{Monitor, Secret, Service as _, ServiceExt as _, Stack};
use stackkit_fixtures::{RedisFixture, VolumeFixture};
use tokio::runtime::Runtime;

use crate::chromium::Browser;
use crate::tool::Test;

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("a_row_turns_without_a_reload", a_row_turns_without_a_reload).needs(&["redis", "chromium"]),
    Test::new("it_is_whole_without_scripts", it_is_whole_without_scripts).needs(&["redis", "chromium"]),
    Test::new("it_says_when_the_connection_is_lost", it_says_when_the_connection_is_lost).needs(&["redis", "chromium"]),
    Test::new("a_browser_keeps_the_token", a_browser_keeps_the_token).needs(&["redis", "chromium"]),
    Test::new("it_fits_every_screen_in_light_and_dark", it_fits_every_screen_in_light_and_dark)
        .needs(&["redis", "chromium"]),
    Test::new("a_reader_of_the_screen_finds_its_way", a_reader_of_the_screen_finds_its_way)
        .needs(&["redis", "chromium"]),
];

/// The poll of the services under test, and of those that fail.
const POLL: Duration = Duration::from_millis(500);
/// The longest pause between two events of the stream, and what a busy machine takes to show one.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);
/// For what is not measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stack of a real Redis and a folder, served on a port of its own.
struct Shop {
    cache: RedisFixture,
    uploads: VolumeFixture,
    monitor: Monitor,
    url: String,
    server: Option<Server>,
}

impl Shop {
    async fn open() -> Self {
        let cache = stackkit_fixtures::redis().await.unwrap();
        let uploads = stackkit_fixtures::volume().unwrap();
        let intervals = || Intervals::new().with_poll(POLL).with_poll_failing(POLL).with_fall(1);
        let redis = cache.service().unwrap().with_id("cache");
        let volume = uploads.service().with_id("uploads");
        let stack = Stack::builder("shop")
            .service(volume.after(["cache"]).with_intervals(intervals()))
            .service(redis.with_intervals(intervals()))
            .build()
            .unwrap();
        let monitor = Monitor::start(&stack);
        monitor.wait_ready(PATIENCE).await.unwrap();
        let (url, server) = Server::start(&monitor, "127.0.0.1:0", Details::Open);
        Self { cache, uploads, monitor, url, server: Some(server) }
    }
}

/// The router on a runtime of its own, so that dropping it ends its open connections too.
struct Server(Option<Runtime>);

impl Server {
    fn start(monitor: &Monitor, address: &str, details: Details) -> (String, Self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/status", listener.local_addr().unwrap());
        let app = stackkit::http::router_with(monitor, RouterOptions::new().with_details(details));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
        (url, Self(Some(runtime)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

fn run(test: impl AsyncFnOnce(&Browser, &mut Shop)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut shop = Shop::open().await;
        Browser::with(async |browser| Box::pin(test(browser, &mut shop)).await).await;
        assert!(shop.uploads.path().exists());
    });
}

/// Whether the row of the service is in that state, and says so.
fn row_is(id: &str, class: &str, word: &str) -> String {
    format!(
        "document.querySelector('#service-{id}').classList.contains('{class}') \
         && document.querySelector('#service-{id} .word').textContent === '{word}'"
    )
}

fn a_row_turns_without_a_reload() {
    run(async |browser, shop| {
        browser.client.goto(&shop.url).await.unwrap();
        browser.until("document.querySelector('#link').className === 'live'", PATIENCE).await;
        browser.until(&row_is("cache", "healthy", "Healthy"), PATIENCE).await;
        browser.eval("(window.marker = 'here', document.querySelector('#service-uploads a').focus())").await;
        let origin = browser.eval("performance.timeOrigin").await;

        shop.cache.stop().await.unwrap();
        browser.until(&row_is("cache", "unhealthy", "Unhealthy"), POLL + SHOWN_WITHIN).await;
        browser.until("document.title === 'Unhealthy · shop'", PATIENCE).await;
        browser.until("document.querySelector('#verdict').textContent.includes('cache is unhealthy')", PATIENCE).await;
        browser
            .until("document.querySelector('#service-cache .note').textContent.includes('unreachable')", PATIENCE)
            .await;
        browser.picture("redis-stopped").await;

        shop.cache.start().await.unwrap();
        browser.until(&row_is("cache", "healthy", "Healthy"), POLL + SHOWN_WITHIN).await;
        browser.until("document.title === 'Healthy · shop'", PATIENCE).await;
        assert_eq!(browser.eval("window.marker").await, "here", "the page was loaded again");
        assert_eq!(browser.eval("performance.timeOrigin").await, origin, "the page was loaded again");
        let focused = "document.activeElement === document.querySelector('#service-uploads a')";
        assert_eq!(browser.eval(focused).await, true, "the focus was lost");

        let asked =
            browser.eval("performance.getEntriesByType('resource').map(entry => new URL(entry.name).pathname)").await;
        let asked: Vec<&str> = asked.as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
        assert!(asked.iter().all(|path| *path == "/status/events"), "{asked:?}");
        browser.picture("redis-again").await;

        // The policy is in force: even a script of the page's own could not ask somebody else.
        let told = "document.addEventListener('securitypolicyviolation', event => { window.refused = event.violatedDirective })";
        browser.eval(&format!("({told}, new Image().src = 'http://127.0.0.1:9/x.png')")).await;
        browser.until("window.refused === 'img-src'", PATIENCE).await;
    });
}

fn it_is_whole_without_scripts() {
    run(async |browser, shop| {
        browser.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
        browser.client.goto(&shop.url).await.unwrap();
        browser.until(&row_is("cache", "healthy", "Healthy"), PATIENCE).await;
        browser.until("document.querySelector('#link-text').textContent.includes('Without scripts')", PATIENCE).await;
        shop.cache.stop().await.unwrap();
        // The page asks for itself again by its own refresh.
        browser.until(&row_is("cache", "unhealthy", "Unhealthy"), PATIENCE).await;
        assert_eq!(browser.eval("performance.getEntriesByType('resource').length").await, 0);
        browser.picture("without-scripts").await;
    });
}

fn it_says_when_the_connection_is_lost() {
    run(async |browser, shop| {
        browser.client.goto(&shop.url).await.unwrap();
        browser.until("document.querySelector('#link').className === 'live'", PATIENCE).await;
        drop(shop.server.take());
        browser.until("document.querySelector('#link').className === 'lost'", PATIENCE).await;
        let text = browser.eval("document.querySelector('#link-text').textContent").await;
        assert!(text.as_str().unwrap().starts_with("Connection lost, last seen "), "{text}");
        browser.picture("connection-lost").await;

        let address = shop.url.trim_start_matches("http://").trim_end_matches("/status");
        shop.server = Some(Server::start(&shop.monitor, address, Details::Open).1);
        browser.until("document.querySelector('#link').className === 'live'", PATIENCE).await;
    });
}

fn a_browser_keeps_the_token() {
    run(async |browser, shop| {
        let token = Details::Token(Secret::new("canary-77f0"));
        let (url, _server) = Server::start(&shop.monitor, "127.0.0.1:0", token);
        let endpoint = shop.cache.service().unwrap().endpoint().to_string();
        let shows = format!("document.querySelector('#service-cache').textContent.includes({})", json!(endpoint));
        let link = "document.querySelector('.hidden a')";
        browser.client.goto(&url).await.unwrap();
        assert_eq!(browser.eval(&shows).await, false, "details are for those who know the token");
        let login = browser.eval(&format!("{link}.href")).await;
        assert_eq!(login, format!("{url}?login"));
        // As a person fills the dialogue in, which a browser without a window does not show.
        let known = login.as_str().unwrap().replacen("://", "://ops:canary-77f0@", 1);
        browser.client.goto(&known).await.unwrap();
        browser.client.goto(&url).await.unwrap();
        browser.client.goto(login.as_str().unwrap()).await.unwrap();
        assert_eq!(browser.eval(&shows).await, true, "the page has details");
        browser.until("document.querySelector('#link').className === 'live'", PATIENCE).await;
        shop.cache.stop().await.unwrap();
        // What is told now comes by the stream, with details.
        let told = "document.querySelector('#service-cache .note')?.textContent.includes('unreachable') === true";
        browser.until(told, POLL + SHOWN_WITHIN).await;
        assert_eq!(browser.eval(&format!("{link} === null")).await, true);
        let page = browser.client.source().await.unwrap();
        assert!(!page.contains("canary-77f0"), "{page}");
    });
}

fn it_fits_every_screen_in_light_and_dark() {
    run(async |browser, shop| {
        shop.monitor.begin_maintenance("uploads", Duration::from_secs(3600)).unwrap();
        browser.client.goto(&shop.url).await.unwrap();
        browser.until(&row_is("uploads", "maintenance", "Maintenance"), PATIENCE).await;
        let mut grounds = Vec::new();
        for theme in ["light", "dark"] {
            browser.prefer("prefers-color-scheme", theme).await;
            grounds.push(browser.eval("getComputedStyle(document.body).backgroundColor").await);
            for width in [320, 360, 768, 1440] {
                browser.resize(width, 800).await;
                let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
                assert_eq!(browser.eval(overflow).await, 0, "it scrolls sideways at {width} px");
                browser.picture(&format!("{theme}-{width}")).await;
            }
        }
        assert_ne!(grounds[0], grounds[1], "dark is not dark");
        browser.prefer("prefers-reduced-motion", "reduce").await;
        let moving = "document.getAnimations().filter(animation => animation.playState === 'running').length";
        browser.until(&format!("{moving} === 0"), PATIENCE).await;
    });
}

fn a_reader_of_the_screen_finds_its_way() {
    run(async |browser, shop| {
        browser.client.goto(&shop.url).await.unwrap();
        browser.until("document.querySelector('#link').className === 'live'", PATIENCE).await;
        let tree = browser.cdp("Accessibility.getFullAXTree", json!({})).await;
        let text = |value: &serde_json::Value| value["value"].as_str().unwrap_or_default().to_owned();
        let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true);
        let nodes: Arc<[(String, String)]> = nodes.map(|node| (text(&node["role"]), text(&node["name"]))).collect();
        let has = |role: &str, name: &str| nodes.iter().any(|(r, n)| r == role && n.contains(name));
        for (role, name) in [
            ("RootWebArea", "Healthy · shop"),
            ("main", ""),
            ("region", "Overall state"),
            ("region", "Services"),
            ("heading", "Healthy"),
            ("heading", "cache"),
            ("status", ""),
            ("list", ""),
            ("listitem", "cache"),
            ("listitem", "uploads"),
            ("image", "Median latency in the last hour"),
            ("image", "Ready 100 % of the last 24 hours"),
            ("link", "Skip to the services"),
        ] {
            assert!(has(role, name), "no {role} is called {name:?}: {nodes:#?}");
        }
        assert!(nodes.iter().filter(|(role, _)| role == "image").all(|(_, name)| !name.is_empty()), "{nodes:#?}");
        assert_eq!(browser.eval("document.querySelector('#verdict').getAttribute('aria-live')").await, "polite");
        assert_eq!(browser.eval("document.documentElement.lang").await, "en");
        // The text that counts on each second is in no region that is read aloud.
        assert_eq!(browser.eval("document.querySelectorAll('[aria-live] time, [role=status] time').length").await, 0);
    });
}
