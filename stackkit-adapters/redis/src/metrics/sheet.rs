//! Builds an observation by the catalogue: each name's kind, and the right that it needs, stand there once.

use std::fmt::Display;

use stackkit_core::Observation;
use stackkit_core::health::{Finding, Measurement, MeasurementKind, MeasurementValue};

use crate::metrics::catalogue::metric;
use crate::resp::ServerError;

/// Why a server did not answer what it was asked beside `PING` and `INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The user lacks the right.
    NotPermitted,
    /// This version, or this administrator, does not offer it.
    NotOffered,
    /// Any other refusal, or an answer that makes no sense.
    Refused,
    /// It was not asked for, with the reason.
    NotAsked(&'static str),
}

impl Why {
    pub(crate) fn of(error: &ServerError) -> Self {
        match error.code.as_str() {
            "NOPERM" => Self::NotPermitted,
            _ if error.text.to_ascii_lowercase().starts_with("unknown") => Self::NotOffered,
            _ => Self::Refused,
        }
    }
}

/// An observation that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Sheet(Observation);

impl Sheet {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A number of that name.
    pub(crate) fn put(&mut self, name: &'static str, value: f64) {
        self.value(name, value.into());
    }

    /// A field of `INFO`, which an older server may not have.
    pub(crate) fn reported(&mut self, name: &'static str, value: Option<f64>) {
        match value {
            Some(value) => self.put(name, value),
            None => self.without(name, "not reported by this server"),
        }
    }

    /// Yes or no.
    pub(crate) fn flag(&mut self, name: &'static str, is_so: bool) {
        self.put(name, f64::from(u8::from(is_so)));
    }

    /// No honest number, and why.
    pub(crate) fn without(&mut self, name: &'static str, reason: impl Into<String>) {
        self.value(name, MeasurementValue::Unavailable(reason.into()));
    }

    /// No number, because the server did not say; a missing right is named as the catalogue names it.
    pub(crate) fn refused(&mut self, name: &'static str, why: Why) {
        self.refused_of(name, &[], why);
    }

    /// The same of one of several of a name.
    pub(crate) fn refused_of(&mut self, name: &'static str, labels: &[(&'static str, &dyn Display)], why: Why) {
        let reason = match (why, metric(name).and_then(|metric| metric.grant)) {
            (Why::NotPermitted, Some(grant)) => format!("permission: {grant}"),
            (Why::NotPermitted, None) => "permission: a right of the user is missing".to_owned(),
            (Why::NotOffered, _) => "not offered by this server".to_owned(),
            (Why::Refused, _) => "the server refused the command".to_owned(),
            (Why::NotAsked(reason), _) => reason.to_owned(),
        };
        self.labelled(name, labels, MeasurementValue::Unavailable(reason));
    }

    /// A number, or why there is none.
    pub(crate) fn value(&mut self, name: &'static str, value: MeasurementValue) {
        self.labelled(name, &[], value);
    }

    /// One of several of a name.
    pub(crate) fn labelled(
        &mut self,
        name: &'static str,
        labels: &[(&'static str, &dyn Display)],
        value: MeasurementValue,
    ) {
        let kind = metric(name).map_or(MeasurementKind::Gauge, |metric| metric.kind);
        let measurement = Measurement::new(name, kind, value);
        let named = labels.iter().fold(measurement, |all, (label, text)| all.with_label(*label, text.to_string()));
        self.0.measurements.push(named);
    }

    pub(crate) fn fact(&mut self, name: &'static str, text: impl Into<String>) {
        self.0.info.insert(name.to_owned(), text.into());
    }

    pub(crate) fn finding(&mut self, finding: Finding) {
        self.0.findings.push(finding);
    }

    pub(crate) fn into_observation(self) -> Observation {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(code: &str, text: &str) -> Why {
        Why::of(&ServerError { code: code.into(), text: text.into() })
    }

    #[test]
    fn a_missing_right_names_the_grant() {
        let mut sheet = Sheet::new();
        sheet.refused(
            "slowlog_length_count",
            why("NOPERM", "this user has no permissions to run the 'slowlog|len' command"),
        );
        sheet.refused("latency_latest_ms", why("ERR", "Unknown subcommand or wrong number of arguments for 'LATEST'."));
        let seen = sheet.into_observation();
        let reasons = seen.measurements.iter().map(|measurement| measurement.value.clone()).collect::<Vec<_>>();
        let unavailable = |text: &str| MeasurementValue::Unavailable(text.to_owned());
        let expected = ["permission: ACL SETUSER <user> +slowlog|len", "not offered by this server"].map(unavailable);
        assert_eq!(reasons, expected);
    }
}
