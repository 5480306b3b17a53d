//! Reports for the tests of the page: one that a monitor made, changed field by field.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stackkit_core::health::{History, ServiceReport, Status};
use stackkit_core::{
    Clock, Endpoint, HealthCheck, Monitor, Observation, ProbeContext, Report, Result, Service, ServiceExt as _,
    ServiceId, Stack, async_trait,
};

use super::{PageView, fragment, page};

#[derive(Debug)]
struct Scripted(ServiceId);

impl Service for Scripted {
    fn id(&self) -> &ServiceId {
        &self.0
    }
    fn kind(&self) -> &'static str {
        "script"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::new("script", "store.internal", 7700)
    }
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Scripted {
    async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
        Ok(Observation::new())
    }
}

pub(super) fn now() -> Timestamp {
    "2026-11-21T18:15:30Z".parse().unwrap()
}

/// What a page is made of, with a day of history for each service.
pub(super) struct Sample {
    pub(super) report: Report,
    pub(super) histories: Vec<(String, History)>,
    pub(super) details: bool,
}

impl Sample {
    /// Healthy services of these names and kinds, each after those that it needs.
    pub(super) async fn healthy(services: &[(&str, &'static str, &[&str])]) -> Self {
        let clock = Clock::fixed(now());
        let stack = services.iter().fold(Stack::builder("shop").clock(clock), |stack, (id, _, needs)| {
            let service = Scripted(ServiceId::new(*id).unwrap());
            stack.service(service.after(needs.iter().copied()))
        });
        let monitor = Monitor::start(&stack.build().unwrap());
        let report = monitor.wait_ready(Duration::from_secs(60)).await.unwrap();
        let mut report = Report::clone(&report);
        let mut histories = Vec::new();
        for (number, (slot, (id, kind, _))) in (0_u32..).zip(report.services.iter_mut().zip(services)) {
            histories.push(((*id).to_owned(), a_day(monitor.history(id).unwrap(), number)));
            let service = Arc::make_mut(slot);
            service.kind = kind;
            service.since = now() - Duration::from_secs(93_000 + u64::from(number) * 5000);
            service.latency_ms = Some(0.4 + f64::from(number % 5) * 3.1);
        }
        Self { report, histories, details: true }
    }

    pub(super) fn change(&mut self, id: &str, change: impl FnOnce(&mut ServiceReport)) -> &mut Self {
        let slot = self.report.services.iter_mut().find(|service| service.id == id).unwrap();
        change(Arc::make_mut(slot));
        let weights = self.report.services.iter().filter(|service| service.counts_now());
        self.report.status = weights.map(|service| service.status).max().unwrap_or(Status::Healthy);
        self.report.ready = self.report.status.is_ready();
        self
    }

    pub(super) fn history(&mut self, id: &str) -> &mut History {
        &mut self.histories.iter_mut().find(|(known, _)| known == id).unwrap().1
    }

    /// Marks the service as failing for so many minutes, up to the present.
    pub(super) fn down_for(&mut self, id: &str, minutes: usize) -> &mut Self {
        let history = self.history(id);
        for minute in history.minutes.iter_mut().rev().take(minutes) {
            minute.status = Some(Status::Unhealthy);
            minute.ready_ratio = Some(0.0);
            minute.latency_p50_ms = None;
            minute.latency_p95_ms = None;
        }
        history.availability.day_ratio = Some(1.0 - f64::from(u32::try_from(minutes).unwrap()) / 1440.0);
        self
    }

    fn rendered(&self, render: fn(&PageView<'_>) -> String) -> String {
        let history =
            |id: &str| self.histories.iter().find(|(known, _)| known == id).map(|(_, history)| history.clone());
        render(&PageView {
            report: &self.report,
            now: now(),
            history: &history,
            details: self.details,
            has_token: false,
        })
    }

    pub(super) fn page(&self) -> String {
        self.rendered(page)
    }

    pub(super) fn fragment(&self) -> String {
        self.rendered(fragment)
    }
}

/// A history of 1440 minutes that wave.
fn a_day(mut history: History, seed: u32) -> History {
    let one = history.minutes[0];
    history.minutes = (0..1440_u32)
        .map(|number| {
            let mut minute = one;
            minute.at = now() - Duration::from_secs(60 * u64::from(1439 - number));
            minute.status = Some(Status::Healthy);
            minute.ready_ratio = Some(1.0);
            let wave = f64::from(number * (3 + seed % 4)).mul_add(0.11, f64::from(seed)).sin();
            let spike = if (number * 7 + seed * 13).is_multiple_of(31) { 2.0 } else { 0.3 };
            let base = 0.4 + f64::from(seed % 5) * 3.0;
            minute.latency_p50_ms = Some(base * (1.0 + 0.25 * wave));
            minute.latency_p95_ms = Some(base * (1.3 + 0.3 * wave + spike));
            minute
        })
        .collect();
    history.availability.hour_ratio = Some(1.0);
    history.availability.day_ratio = Some(1.0);
    history
}
