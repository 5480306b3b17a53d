//! From a server's answers to measurements and findings, without a server.

mod answers;
mod catalogue;
mod info;
mod keys;
mod memory;
mod persistence;
mod replication;
mod rules;
mod sheet;
#[cfg(test)]
mod tests;

use stackkit_core::health::{Axis, Finding, Growth, Severity};
use stackkit_core::{Observation, ProbeContext};

pub(crate) use answers::{Answers, Question, Refusals, setting};
pub(crate) use catalogue::METRICS;
pub(crate) use info::{Info, Keyspace};
pub(crate) use keys::float;
pub(crate) use rules::rules;
pub(crate) use sheet::{Sheet, Why};

/// By how much a server's uptime and the time between two probes may differ although it did not restart: both are
/// rounded, and the probes take their time.
const UPTIME_SLACK_SECONDS: f64 = 3.0;

/// What one probe of the vitals was answered.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub(crate) info: &'a Info,
    pub(crate) answers: &'a Answers,
    pub(crate) cx: &'a ProbeContext,
    /// Whether `PING` was refused because the server can't write its files.
    pub(crate) refuses_writes: bool,
    /// What refused writes are about: readiness, or a risk if the application only reads.
    pub(crate) writes: Axis,
}

impl Look<'_> {
    /// How much a counter grew. After a restart it is a reset even if the counter has outgrown what it was.
    fn growth(&self, name: &str, value: f64) -> Growth {
        if self.restarted() { Growth::Reset } else { self.cx.growth(name, value) }
    }

    fn restarted(&self) -> bool {
        let before = self.cx.previous().and_then(|previous| previous.value("uptime_seconds"));
        let expected = before.zip(self.cx.elapsed()).map(|(before, elapsed)| before + elapsed.as_secs_f64());
        let now = self.info.number::<f64>("uptime_in_seconds");
        expected.zip(now).is_some_and(|(expected, now)| now + UPTIME_SLACK_SECONDS < expected)
    }

    /// A counter, and how much it grew since the last probe.
    fn counted(&self, sheet: &mut Sheet, (name, recent): (&'static str, &'static str), value: Option<f64>) {
        sheet.reported(name, value);
        match value {
            Some(value) => sheet.value(recent, self.growth(name, value).value()),
            None => sheet.reported(recent, None),
        }
    }
}

/// What one look says, with rates against the observation before.
pub(crate) fn observe(look: &Look) -> Observation {
    let mut sheet = Sheet::new();
    identity(&mut sheet, look);
    memory::activity(&mut sheet, look);
    memory::memory(&mut sheet, look);
    memory::clients(&mut sheet, look);
    persistence::persistence(&mut sheet, look);
    replication::replication(&mut sheet, look);
    keys::keys(&mut sheet, look);
    keys::slow(&mut sheet, look);
    sheet.into_observation()
}

fn identity(sheet: &mut Sheet, look: &Look) {
    let (server, version) = look.info.server();
    sheet.fact("server", server);
    sheet.fact("version", version);
    if server != "redis" {
        sheet.fact("redis_version", look.info.version());
    }
    // Valkey has a name of its own for it.
    if let Some(mode) = look.info.text("redis_mode").or(look.info.text("server_mode")) {
        sheet.fact("mode", mode);
    }
    if look.restarted() {
        let message = "the server started anew since the last probe";
        sheet.finding(Finding::new("redis.restarted", Axis::Risk, Severity::Info, message));
    }
}
