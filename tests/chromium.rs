//! A headless Chromium of its own for one test, driven by WebDriver.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use futures_util::FutureExt as _;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use stackkit::Result;
use stackkit::process::{Child, Tool, find_tool};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// How long the driver may take to listen and the browser to start, on a busy machine.
const START_WAIT: Duration = Duration::from_secs(60);
/// No sandbox: it does not work as root or in most containers. The rest keeps it from asking anybody but the test's server.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
];

/// The browser and its driver.
///
/// # Errors
/// `ToolMissing`.
pub(crate) fn find() -> Result<(PathBuf, PathBuf)> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let browser = names.iter().find_map(|name| find_tool(name, &[]).ok());
    let browser = browser.map_or_else(|| find_tool("chromium", &[]), Ok)?;
    Ok((browser, find_tool("chromedriver", &[])?))
}

/// A browser with one window.
pub(crate) struct Browser {
    pub(crate) client: Client,
    _driver: Child,
    _drained: AbortOnDropHandle<()>,
    _home: tempfile::TempDir,
}

impl Browser {
    /// Runs a test with a browser, which is ended however the test ends: it is in a process group of its own, so ending the driver
    /// alone would leave it.
    pub(crate) async fn with(test: impl AsyncFnOnce(&Self)) {
        let browser = Self::start().await;
        let outcome = AssertUnwindSafe(test(&browser)).catch_unwind().await;
        let closed = browser.client.clone().close().await;
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        closed.unwrap();
    }

    /// Starts one with an empty profile, at a port that the driver chooses.
    async fn start() -> Self {
        let (browser, driver) = find().unwrap();
        let home = tempfile::tempdir().unwrap();
        let tool = Tool::new(driver).arg("--port=0").env("HOME", home.path()).env("TMPDIR", home.path());
        let mut driver = tool.stdout_piped().spawn().unwrap();
        let mut lines = BufReader::new(driver.take_stdout().unwrap()).lines();
        let port = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').parse::<u16>().unwrap();
                }
            }
            panic!("chromedriver ended before it listened");
        };
        let port = tokio::time::timeout(START_WAIT, port).await.expect("chromedriver listens in time");
        // It stops when nobody reads what it says.
        let drained = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = format!("--user-data-dir={}", home.path().join("profile").display());
        let args: Vec<&str> = FLAGS.into_iter().chain([profile.as_str()]).collect();
        let options = json!({ "goog:chromeOptions": { "binary": browser, "args": args } });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(options.as_object().unwrap().clone());
        let url = format!("http://127.0.0.1:{port}");
        let client = tokio::time::timeout(START_WAIT, builder.connect(&url)).await.expect("in time").unwrap();
        Self { client, _driver: driver, _drained: AbortOnDropHandle::new(drained), _home: home }
    }

    /// A command of the browser's own protocol.
    pub(crate) async fn cdp(&self, command: &'static str, params: Value) -> Value {
        self.client.issue_cmd(Cdp(command, params)).await.unwrap()
    }

    /// How wide and high the window is, in CSS pixels.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// What the person prefers: `prefers-color-scheme`, `dark`.
    pub(crate) async fn prefer(&self, feature: &str, value: &str) {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.cdp("Emulation.setEmulatedMedia", features).await;
    }

    /// What a script of one expression gives.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        self.client.execute(&format!("return {expression}"), Vec::new()).await.unwrap()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, expression: &str, limit: Duration) {
        let is_true = async || (self.eval(expression).await == true).then_some(());
        if let Err(error) = stackkit_fixtures::wait_until(expression, limit, is_true).await {
            panic!("{error}\n{}", self.client.source().await.unwrap_or_default());
        }
    }

    /// Keeps a picture of the whole page where the project's other results of a run are.
    pub(crate) async fn picture(&self, name: &str) -> PathBuf {
        let size = self.cdp("Page.getLayoutMetrics", json!({})).await["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let params = json!({ "captureBeyondViewport": true, "clip": clip });
        let picture = self.cdp("Page.captureScreenshot", params).await;
        let bytes = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("ci").join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// A command of the browser's own protocol, through the driver.
#[derive(Debug)]
struct Cdp(&'static str, Value);

impl WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> std::result::Result<Url, url::ParseError> {
        base_url.join(&format!("session/{}/goog/cdp/execute", session_id.unwrap_or_default()))
    }

    fn method_and_body(&self, _request_url: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "cmd": self.0, "params": self.1 }).to_string()))
    }
}
