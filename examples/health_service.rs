//! A service that embeds health checks.
//!
//! `DATABASE_URL=postgres://… cargo run --example health_service`, then `curl -i localhost:8080/readyz?verbose`,
//! and http://localhost:8080/status in a browser.

use stackkit::{Monitor, Postgres, Redis, ServiceExt, Stack, Volume};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stack = Stack::builder("shop")
        .service(Postgres::from_env()?) // DATABASE_URL, else PGHOST, PGUSER, …
        .service(Redis::from_url("redis://127.0.0.1:6379")?.with_id("cache").optional())
        .service(Volume::new("uploads", "/srv/shop/uploads"))
        .build()?; // no I/O; lists every configuration fault at once
    let monitor = Monitor::start(&stack); // polls in the background; dropping it stops everything
    let app = axum::Router::new()
        .route("/", axum::routing::get(|| async { "shop" })) // the service's own routes
        .merge(stackkit::http::router(&monitor)); // /livez /readyz /health /metrics /status
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    Ok(axum::serve(listener, app).await?)
}
