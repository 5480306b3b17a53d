//! Checks that cost nothing, so that what is measured is the engine.

use std::time::Duration;

use stackkit::{
    Endpoint, HealthCheck, Intervals, Observation, ProbeContext, Service, ServiceExt, ServiceId, Stack, async_trait,
};

use crate::Result;

/// A service that is well; or one that never answers.
#[derive(Debug)]
struct Noop {
    id: ServiceId,
    hangs: bool,
}

impl Service for Noop {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        "noop"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::new("noop", "localhost", 1)
    }
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Noop {
    async fn probe(&self, _cx: &ProbeContext) -> stackkit::Result<Observation> {
        match self.hangs {
            true => std::future::pending().await,
            false => Ok(Observation::new()),
        }
    }
}

/// A stack of `count` such checks; the first one hangs if asked for.
pub(crate) fn stack(count: usize, interval: Duration, hangs: bool) -> Result<Stack> {
    let intervals = Intervals::new().with_poll(interval);
    let mut stack = Stack::builder("bench");
    for number in 0..count {
        let check = Noop { id: ServiceId::new(format!("check-{number}"))?, hangs: hangs && number == 0 };
        stack = stack.service(check.with_intervals(intervals));
    }
    Ok(stack.build()?)
}
