//! MinIO's own word on whether it serves.

use std::net::Ipv4Addr;

use stackkit_core::{
    Endpoint, Error, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId, async_trait,
};

use crate::minio::request;

/// 200 when there is a quorum to write, 503 until then
/// (<https://min.io/docs/minio/linux/operations/monitoring/healthcheck-probe.html>).
const PATH: &str = "/minio/health/cluster";

/// The server at a port.
#[derive(Debug)]
pub(crate) struct MinioHealth {
    id: ServiceId,
    port: u16,
}

impl MinioHealth {
    pub(crate) fn new(port: u16) -> Result<Self> {
        Ok(Self { id: ServiceId::new("minio")?, port })
    }
}

impl Service for MinioHealth {
    fn id(&self) -> &ServiceId {
        &self.id
    }

    fn kind(&self) -> &'static str {
        "minio"
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("http", Ipv4Addr::LOCALHOST.to_string(), self.port)
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for MinioHealth {
    async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
        let address = format!("{}:{}", Ipv4Addr::LOCALHOST, self.port);
        let head = format!("GET {PATH} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        let answer = request::exchange(&address, head.into_bytes()).await?;
        match answer.status {
            200 => Ok(Observation::new()),
            status => Err(Error::new(ErrorKind::Starting, "minio does not serve yet").with_context("status", status)),
        }
    }
}
