//! A server is ready when the health check says so that a production service would ask.

use stackkit_core::health::{Axis, Severity, Tier};
use stackkit_core::{Clock, Error, ErrorKind, HealthCheck, ProbeContext, Result};

use crate::server::process::START_DEADLINE;

/// Probes once; a finding that it can't serve yet is an error of kind `Starting`.
pub(crate) async fn ready(service: &dyn HealthCheck) -> Result<()> {
    let cx = ProbeContext::new(Tier::Vitals, Clock::system().instant() + START_DEADLINE);
    let observation = service.probe(&cx).await?;
    let unready = observation
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Critical && matches!(finding.axis, Axis::Reach | Axis::Ready));
    match unready {
        Some(finding) => Err(Error::new(ErrorKind::Starting, finding.message.clone())),
        None => Ok(()),
    }
}
