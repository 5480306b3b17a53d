//! Progress: bars on a terminal, lines in a pipe, JSON with `--json`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use stackkit::backup::{ArtifactName, Meter, Progress, ProgressEvent, ProgressSnapshot};
use stackkit::{Clock, ServiceId};
use tokio::time::Instant;

use crate::output::{Bytes, Output};

/// Between two drawings of the bar: as often as an eye can follow.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Between two lines of JSON about the same phase: a program may draw a bar of its own.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Between two plain lines about the same phase: a log of a night stays short.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// The characters of a bar, without its frame.
const BAR_WIDTH: usize = 24;

/// Tells how far an operation is.
pub(crate) struct Teller {
    out: Output,
    clock: Clock,
    meter: Meter,
    told: Mutex<Option<Instant>>,
    /// What each service that is being dumped has stored.
    stored: Mutex<BTreeMap<ServiceId, Stored>>,
}

/// The artifacts of one service together.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    artifacts: u64,
    plain_bytes: u64,
    stored_bytes: u64,
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.artifacts == 1 { "artifact" } else { "artifacts" };
        let (plain, stored) = (Bytes(self.plain_bytes), Bytes(self.stored_bytes));
        write!(f, "{} {noun}, {plain} stored as {stored}", self.artifacts)
    }
}

impl Teller {
    pub(crate) fn new(out: &Output, clock: &Clock) -> Arc<Self> {
        let meter = Meter::new(clock.clone());
        Arc::new(Self {
            out: out.clone(),
            clock: clock.clone(),
            meter,
            told: Mutex::new(None),
            stored: Mutex::default(),
        })
    }

    /// Whether it is time to tell how far the phase is.
    fn is_due(&self) -> bool {
        let every = match (self.out.is_json(), self.out.is_terminal()) {
            (true, _) => TELL_EVERY,
            (false, true) => DRAW_EVERY,
            (false, false) => LOG_EVERY,
        };
        let now = self.clock.instant();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|last| now.saturating_duration_since(last) >= every);
        if is_due {
            *told = Some(now);
        }
        is_due
    }

    fn how_far(&self) {
        let now = self.meter.snapshot();
        match self.out.is_terminal() && !self.out.is_json() {
            true => self.out.moving(&Bar(&now).to_string()),
            false => self.out.step(&now, numbers(&now)),
        }
    }

    fn step(&self, text: impl fmt::Display, value: Value) {
        self.out.step(text, value);
    }

    /// Counts an artifact. It is a line of its own in JSON only: a database may have hundreds.
    fn stored(&self, service: &ServiceId, artifact: &ArtifactName, (plain_bytes, stored_bytes): (u64, u64)) {
        {
            let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            let sum = stored.entry(service.clone()).or_default();
            sum.artifacts += 1;
            sum.plain_bytes = sum.plain_bytes.saturating_add(plain_bytes);
            sum.stored_bytes = sum.stored_bytes.saturating_add(stored_bytes);
        }
        if self.out.is_json() {
            let value = json!({ "step": "stored", "service": service, "artifact": artifact,
                "plain_bytes": plain_bytes, "stored_bytes": stored_bytes });
            self.step("", value);
        }
    }

    fn dumped(&self, service: &ServiceId) {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner).remove(service).unwrap_or_default();
        let value = json!({ "step": "dumped", "service": service, "artifacts": stored.artifacts,
            "plain_bytes": stored.plain_bytes, "stored_bytes": stored.stored_bytes });
        self.step(format_args!("{service}: dumped: {stored}"), value);
    }
}

impl Progress for Teller {
    fn event(&self, event: &ProgressEvent) {
        self.meter.event(event);
        match event {
            ProgressEvent::Phase { phase, .. } => {
                // The first telling of a phase waits its turn: a short one is not worth a line.
                *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.instant());
                if self.out.is_json() {
                    self.step("", json!({ "step": "phase", "phase": phase.as_str() }));
                }
            }
            ProgressEvent::Pinned { service } => self
                .step(format_args!("{service}: point in time pinned"), json!({ "step": "pinned", "service": service })),
            ProgressEvent::Written { .. } | ProgressEvent::Read { .. } if self.is_due() => self.how_far(),
            ProgressEvent::Stored { service, artifact, plain_bytes, stored_bytes } => {
                self.stored(service, artifact, (*plain_bytes, *stored_bytes));
            }
            ProgressEvent::Dumped { service } => self.dumped(service),
            ProgressEvent::Restored { service } => {
                self.step(format_args!("{service}: restored"), json!({ "step": "restored", "service": service }));
            }
            ProgressEvent::Removed { backup, freed_bytes } => {
                self.step(
                    format_args!("{backup}: removed, {} freed", Bytes(*freed_bytes)),
                    json!({ "step": "removed", "backup": backup, "freed_bytes": freed_bytes }),
                );
                if self.is_due() {
                    self.how_far();
                }
            }
            ProgressEvent::Failed { service, message } => self.step(
                format_args!("failed: {message}"),
                json!({ "step": "failed", "service": service, "message": message }),
            ),
            ProgressEvent::Committed => self.step("manifest written", json!({ "step": "committed" })),
            _ => {}
        }
    }
}

fn numbers(now: &ProgressSnapshot) -> Value {
    json!({
        "step": "bytes",
        "phase": now.phase.as_str(),
        "read_bytes": now.read_bytes,
        "stored_bytes": now.stored_bytes,
        "expected_bytes": now.expected_bytes,
        "rate_bytes_per_second": now.rate_bytes,
        "eta_seconds": now.eta.map(|eta| eta.as_secs()),
    })
}

/// `dumping [########----------------]  33 %  1.2 GiB  84.0 MiB/s  31 s left`.
struct Bar<'a>(&'a ProgressSnapshot);

impl fmt::Display for Bar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(now) = self;
        write!(f, "{} ", now.phase)?;
        if let Some(permille) = now.permille() {
            let full = BAR_WIDTH * usize::from(permille) / 1000;
            write!(f, "[{}{}] {:>3} %  ", "#".repeat(full), "-".repeat(BAR_WIDTH - full), permille / 10)?;
        }
        write!(f, "{}", Bytes(now.read_bytes))?;
        if now.rate_bytes > 0 {
            write!(f, "  {}/s", Bytes(now.rate_bytes))?;
        }
        match now.eta {
            Some(eta) => write!(f, "  {} s left", eta.as_secs()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use stackkit::backup::ProgressPhase;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_bar_fills_as_far_as_the_size_is_known() {
        let meter = Meter::new(Clock::system());
        let written = |plain_bytes| ProgressEvent::Written {
            service: ServiceId::new("db").unwrap(),
            artifact: ArtifactName::new("dump").unwrap(),
            plain_bytes,
            stored_bytes: 0,
        };
        meter.event(&ProgressEvent::Phase { phase: ProgressPhase::Dumping, expected_bytes: Some(1000 * MIB) });
        meter.event(&written(340 * MIB));
        let text = Bar(&meter.snapshot()).to_string();
        assert!(text.starts_with("dumping [########----------------]  34 %  340.0 MiB"), "{text}");
        assert_eq!(numbers(&meter.snapshot())["read_bytes"], 340 * MIB);
        // More than was expected: nothing is promised.
        meter.event(&written(2000 * MIB));
        assert_eq!(Bar(&meter.snapshot()).to_string().split("  ").next(), Some("dumping 1.9 GiB"));
    }
}
