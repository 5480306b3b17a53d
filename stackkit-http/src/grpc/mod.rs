//! The gRPC health service, version 1: `Check`, `Watch` and `List` over the monitor's snapshot.

mod message;
mod status;
mod watch;

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http;
use futures_util::stream;
use stackkit_core::Monitor;
use stackkit_core::health::Snapshot;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use message::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use watch::{Watcher, Watching};

/// How many `Watch` calls one service answers at a time; whoever comes after is told `RESOURCE_EXHAUSTED`, and may ask by `Check`.
/// One HTTP/2 connection has 200 streams (the default of `hyper`): this leaves room on it for other calls.
pub const GRPC_WATCHERS_MAX: usize = 128;
/// A request holds one name of at most 64 bytes; what is larger is refused unread.
const REQUEST_BYTES_MAX: usize = 1024;

/// The health service of gRPC, for a tonic server or an axum router.
///
/// The empty name is the stack's readiness; any other is a service's id or, if no service is called so, a group's. What is
/// degraded is `SERVING`. While the stack drains, only the groups `live` and `startup` are.
///
/// gRPC needs HTTP/2: `axum::serve` speaks it if axum's feature `http2` is on.
///
/// ```no_run
/// # async fn run(monitor: stackkit_core::Monitor) -> Result<(), Box<dyn std::error::Error>> {
/// let grpc = tonic::service::Routes::new(stackkit_http::grpc_service(&monitor)).into_axum_router();
/// let app = stackkit_http::router(&monitor).merge(grpc);
/// axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await?;
/// # Ok(())
/// # }
/// ```
///
/// On a server of tonic's own: `tonic::transport::Server::builder().add_service(stackkit_http::grpc_service(&monitor))`.
#[derive(Clone)]
pub struct GrpcHealth {
    snapshot: Snapshot,
    watchers: Arc<Semaphore>,
}

/// The gRPC health service over the monitor's snapshot. It does not keep the monitor running; its streams end with it.
#[must_use]
pub fn grpc_service(monitor: &Monitor) -> GrpcHealth {
    GrpcHealth { snapshot: monitor.snapshot(), watchers: Arc::new(Semaphore::new(GRPC_WATCHERS_MAX)) }
}

impl fmt::Debug for GrpcHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcHealth").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl GrpcHealth {
    fn check(&self, name: &str) -> Result<HealthCheckResponse, Status> {
        let status = status::of(&self.snapshot.report(), name);
        status.map(HealthCheckResponse::from).ok_or_else(|| Status::not_found("no such service or group"))
    }

    fn list(&self) -> HealthListResponse {
        let statuses = status::all(&self.snapshot.report());
        HealthListResponse { statuses: statuses.into_iter().map(|(name, status)| (name, status.into())).collect() }
    }

    fn watch(&self, name: String) -> Result<Watching, Status> {
        let place = self.watchers.clone().try_acquire_owned();
        let place = place.map_err(|_full| Status::resource_exhausted("too many watch; ask by Check"))?;
        let watcher = Watcher::new(self.snapshot.clone(), name, place);
        Ok(Box::pin(stream::unfold(watcher, async |mut watcher| Some((watcher.next().await?, watcher)))))
    }
}

/// The methods, each as the type that tonic asks for.
struct Check(GrpcHealth);
struct Watch(GrpcHealth);
struct List(GrpcHealth);

impl UnaryService<HealthCheckRequest> for Check {
    type Response = HealthCheckResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
        Box::pin(ready(self.0.check(&request.into_inner().service).map(Response::new)))
    }
}

impl UnaryService<HealthListRequest> for List {
    type Response = HealthListResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, _request: Request<HealthListRequest>) -> Self::Future {
        Box::pin(ready(Ok(Response::new(self.0.list()))))
    }
}

impl ServerStreamingService<HealthCheckRequest> for Watch {
    type Response = HealthCheckResponse;
    type ResponseStream = Watching;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
        Box::pin(ready(self.0.watch(request.into_inner().service).map(Response::new)))
    }
}

impl<B> Service<http::Request<B>> for GrpcHealth
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let health = self.clone();
        match request.uri().path() {
            "/grpc.health.v1.Health/Check" => Box::pin(async { Ok(grpc().unary(Check(health), request).await) }),
            "/grpc.health.v1.Health/List" => Box::pin(async { Ok(grpc().unary(List(health), request).await) }),
            "/grpc.health.v1.Health/Watch" => {
                Box::pin(async { Ok(grpc().server_streaming(Watch(health), request).await) })
            }
            _ => Box::pin(ready(Ok(Status::unimplemented("no such method").into_http()))),
        }
    }
}

/// A call of a method that takes `Q` and answers `A`.
fn grpc<A, Q>() -> Grpc<ProstCodec<A, Q>>
where
    A: prost::Message + 'static,
    Q: prost::Message + Default + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(REQUEST_BYTES_MAX)
}

impl NamedService for GrpcHealth {
    const NAME: &'static str = "grpc.health.v1.Health";
}
