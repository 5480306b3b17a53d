//! The gRPC health service, asked by the client that the authors of tonic generated.

use std::collections::BTreeMap;

use stackkit_core::{Monitor, ServiceExt};
use stackkit_http::{GRPC_WATCHERS_MAX, grpc_service, router};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::script::{DEADLINE, Mood, Script, probed, stack, until};

/// The answer of `List`, which the generated client does not have.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthListResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    statuses: BTreeMap<String, HealthCheckResponse>,
}

/// The service beside the other routes, on one port.
struct Server {
    channel: Channel,
    _server: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(monitor: &Monitor) -> Self {
        let grpc = tonic::service::Routes::new(grpc_service(monitor)).into_axum_router();
        let app = router(monitor).merge(grpc);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let channel = Channel::from_shared(url).unwrap().connect_timeout(DEADLINE).connect().await.unwrap();
        Self { channel, _server: AbortOnDropHandle::new(server) }
    }

    fn client(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    async fn check(&self, service: &str) -> Result<ServingStatus, Code> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = self.client().check(request).await;
        answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
    }

    async fn watch(&self, service: &str) -> Result<Streaming<HealthCheckResponse>, Code> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut client = self.client();
        let opened = tokio::time::timeout(DEADLINE, client.watch(request)).await.expect("a watch opens or is refused");
        opened.map(tonic::Response::into_inner).map_err(|status| status.code())
    }

    async fn list(&self) -> BTreeMap<String, ServingStatus> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), HealthListResponse>::default();
        let path = "/grpc.health.v1.Health/List".parse().unwrap();
        let answer = grpc.unary(tonic::Request::new(()), path, codec).await.unwrap().into_inner();
        answer.statuses.into_iter().map(|(name, status)| (name, status.status())).collect()
    }
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> Result<Option<ServingStatus>, Code> {
    let message = tokio::time::timeout(DEADLINE, stream.message()).await.expect("an answer comes");
    message.map(|message| message.map(|message| message.status())).map_err(|status| status.code())
}

#[tokio::test]
async fn names_are_the_stack_its_services_and_its_groups() {
    use ServingStatus::{NotServing, Serving};
    let monitor = probed(&stack([
        Script::new("postgres", Mood::Well).into(),
        Script::new("uploads", Mood::Warned).in_groups(["night"]),
        Script::new("cache", Mood::Down).optional(),
    ]))
    .await;
    let server = Server::start(&monitor).await;
    let names = ["", "cache", "live", "night", "postgres", "ready", "startup", "uploads"];
    let expected = [Serving, NotServing, Serving, Serving, Serving, Serving, Serving, Serving];
    for (name, expected) in names.into_iter().zip(expected) {
        assert_eq!(server.check(name).await, Ok(expected), "{name}");
    }
    assert_eq!(server.check("nobody").await, Err(Code::NotFound));
    let listed = server.list().await;
    assert_eq!(
        listed.into_iter().collect::<Vec<_>>(),
        names.map(str::to_owned).into_iter().zip(expected).collect::<Vec<_>>()
    );
    monitor.begin_drain();
    for (name, status) in server.list().await {
        let expected = if matches!(name.as_str(), "live" | "startup") { Serving } else { NotServing };
        assert_eq!(status, expected, "{name}");
    }
}

#[tokio::test]
async fn what_was_not_probed_yet_is_unknown() {
    let monitor = Monitor::start(&stack([Script::new("postgres", Mood::Silent).into()]));
    let server = Server::start(&monitor).await;
    assert_eq!(server.check("postgres").await, Ok(ServingStatus::Unknown));
    assert_eq!(server.check("").await, Ok(ServingStatus::NotServing));
}

#[tokio::test]
async fn a_watch_tells_each_change_and_the_end() {
    let service = Script::new("cache", Mood::Well);
    let mood = service.mood.clone();
    let often = stackkit_core::Intervals::new().with_poll(std::time::Duration::from_millis(20));
    let monitor = probed(&stack([service.with_intervals(often)])).await;
    let server = Server::start(&monitor).await;
    let mut stack = server.watch("").await.unwrap();
    let mut nobody = server.watch("nobody").await.unwrap();
    assert_eq!(next(&mut stack).await, Ok(Some(ServingStatus::Serving)));
    assert_eq!(next(&mut nobody).await, Ok(Some(ServingStatus::ServiceUnknown)));
    *mood.lock().unwrap() = Mood::Down;
    assert_eq!(next(&mut stack).await, Ok(Some(ServingStatus::NotServing)));
    *mood.lock().unwrap() = Mood::Well;
    assert_eq!(next(&mut stack).await, Ok(Some(ServingStatus::Serving)));
    drop(monitor);
    assert_eq!(next(&mut stack).await, Err(Code::Unavailable));
    // It stayed open all the time.
    assert_eq!(next(&mut nobody).await, Err(Code::Unavailable));
}

#[tokio::test]
async fn watchers_are_few() {
    let monitor = probed(&stack([Script::new("cache", Mood::Well).into()])).await;
    until(&monitor, |monitor| monitor.report().ready).await;
    let server = Server::start(&monitor).await;
    let mut watchers = Vec::new();
    // The first answer is waited for, so that each of them has its place.
    while watchers.len() < GRPC_WATCHERS_MAX {
        let mut watcher = server.watch("cache").await.unwrap();
        assert_eq!(next(&mut watcher).await, Ok(Some(ServingStatus::Serving)));
        watchers.push(watcher);
    }
    assert_eq!(server.watch("cache").await.map(drop), Err(Code::ResourceExhausted));
    drop(watchers.pop());
    let again = async {
        while server.watch("cache").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("a place that was left is taken");
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let monitor = probed(&stack([Script::new("cache", Mood::Well).into()])).await;
    let server = Server::start(&monitor).await;
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = "/grpc.health.v1.Health/Mend".parse().unwrap();
    let refused = grpc.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}
