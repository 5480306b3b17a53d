//! Endpoints over fifty checks by the crates `axum-health` and `health`, as their documents show them.
//!
//! `stackkit-bench-peers axum-health|health [hangs]` prints its port and serves `/readyz` until it is killed.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use axum_health::prelude::{Health, HealthDetail, HealthIndicator, health_check};
use health::{Checkable, Config, PeriodicChecker, Reporter, Status};

const CHECKS: usize = 50;

/// A check that is well, or never answers.
struct Noop {
    name: String,
    hangs: bool,
}

impl Noop {
    fn all(hangs: bool) -> impl Iterator<Item = Self> {
        (0..CHECKS).map(move |number| Self { name: format!("check-{number}"), hangs: hangs && number == 0 })
    }

    async fn answer(&self) {
        if self.hangs {
            std::future::pending().await
        }
    }
}

#[async_trait::async_trait]
impl HealthIndicator for Noop {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn details(&self) -> HealthDetail {
        self.answer().await;
        HealthDetail::up()
    }
}

#[async_trait::async_trait]
impl Checkable for Noop {
    type Error = Infallible;

    async fn check(&self) -> Result<(), Infallible> {
        self.answer().await;
        Ok(())
    }

    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }
}

fn axum_health(hangs: bool) -> Router {
    let health = Noop::all(hangs).fold(Health::builder(), |builder, check| builder.with_indicator(check)).build();
    Router::new().route("/readyz", get(health_check)).layer(health)
}

fn health(hangs: bool) -> Router {
    let checkers: Vec<_> = Noop::all(hangs).map(|check| PeriodicChecker::new(check, Config::default())).collect();
    checkers.iter().cloned().for_each(|checker| drop(tokio::spawn(async move { checker.run().await })));
    let checkers = Arc::new(checkers);
    let answer = move || {
        let is_well = checkers.iter().all(|checker| checker.status() == Some(Status::Healthy));
        std::future::ready(if is_well { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ok") })
    };
    Router::new().route("/readyz", get(answer))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One worker, as ours has in this bench.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let hangs = args.get(1).is_some_and(|arg| arg == "hangs");
        let router = if args.first().is_some_and(|name| name == "health") { health(hangs) } else { axum_health(hangs) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        axum::serve(listener, router).await?;
        Ok(())
    })
}
