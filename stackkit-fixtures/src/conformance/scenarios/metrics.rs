//! What a check promises of its measurements, its catalogue and its rules.

use std::collections::HashSet;
use std::sync::Arc;

use stackkit_core::health::{Measurement, MeasurementKind, MeasurementValue, Metric, Rule, Side, Tier};
use stackkit_core::{Clock, Observation, ProbeContext, Service};

use crate::conformance::context::{PROBE_DEADLINE, health, probe};
use crate::conformance::outcome::{Outcome, check, same};
use crate::conformance::runner::Scenario;
use crate::conformance::target::{Capability, Seed, Target};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "metrics_carry_units",
        needs: &[Capability::Health],
        run: |target| Box::pin(metrics_carry_units(target)),
    },
    Scenario {
        name: "metrics_are_in_the_catalogue",
        needs: &[Capability::Health],
        run: |target| Box::pin(metrics_are_in_the_catalogue(target)),
    },
    Scenario {
        name: "rules_fit_the_catalogue",
        needs: &[Capability::Health],
        run: |target| Box::pin(rules_fit_the_catalogue(target)),
    },
    Scenario {
        name: "codes_carry_the_prefix",
        needs: &[Capability::Health],
        run: |target| Box::pin(codes_carry_the_prefix(target)),
    },
];

/// The last words of a measurement's name.
const UNITS: [&str; 7] = ["bytes", "seconds", "ms", "ratio", "percent", "bool", "count"];

/// What two probes of one tier, the second with the first as its previous one, observed.
struct Pair {
    tier: Tier,
    seen: [Observation; 2],
}

/// Probes each tier of a filled store twice.
async fn observe(target: &dyn Target) -> Outcome<(Arc<dyn Service>, Vec<Pair>)> {
    let instance = target.instance().await?;
    instance.seed(Seed::Small).await?;
    let (service, clock) = (instance.service(), Clock::system());
    let mut pairs = Vec::new();
    for tier in health(&service)?.tiers().iter().copied() {
        let first_at = clock.instant();
        let first = probe(&service, tier).await?;
        let cx = ProbeContext::new(tier, clock.instant() + PROBE_DEADLINE)
            .with_previous(Some(Arc::new(first.clone())))
            .with_previous_at(Some(first_at));
        let second = health(&service)?.probe(&cx).await?;
        pairs.push(Pair { tier, seen: [first, second] });
    }
    Ok((service, pairs))
}

async fn metrics_carry_units(target: &dyn Target) -> Outcome {
    let (_, pairs) = observe(target).await?;
    for Pair { seen: [first, second], .. } in &pairs {
        for observation in [first, second] {
            let mut seen = HashSet::new();
            for measurement in &observation.measurements {
                check_measurement(measurement)?;
                let id = (measurement.name.clone(), measurement.labels.clone().into_iter().collect::<Vec<_>>());
                check(seen.insert(id), || format!("{} is there twice", measurement.name))?;
            }
        }
        counters_only_rise(first, second)?;
    }
    Ok(())
}

fn check_name(name: &str) -> Outcome<&str> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    check(plain && !name.is_empty(), || format!("{name:?} is not snake case"))?;
    let unit = name.rsplit('_').next().unwrap_or_default();
    check(UNITS.contains(&unit), || format!("{name:?} does not end in a unit: {UNITS:?}"))?;
    Ok(unit)
}

fn check_measurement(measurement: &Measurement) -> Outcome {
    let name = &measurement.name;
    let unit = check_name(name)?;
    same("the unit of a measurement", &unit, &&*measurement.unit)?;
    let MeasurementValue::Value(value) = measurement.value else { return Ok(()) };
    let whole = value.fract() == 0.0;
    let fits = match unit {
        "bytes" | "count" => whole && value >= 0.0,
        "bool" => value == 0.0 || value == 1.0,
        "percent" => (0.0..=100.0).contains(&value),
        "ratio" => value >= 0.0,
        // A duration may be negative: a clock that goes behind.
        _ => measurement.kind == MeasurementKind::Gauge || value >= 0.0,
    };
    check(value.is_finite() && fits, || format!("{name} = {value} is no value of its unit"))
}

fn counters_only_rise(first: &Observation, second: &Observation) -> Outcome {
    let counters = first.measurements.iter().filter(|measurement| measurement.kind == MeasurementKind::Counter);
    for before in counters {
        let later = second.measurements.iter().find(|later| later.is_same(before));
        let (MeasurementValue::Value(was), Some(MeasurementValue::Value(is))) =
            (&before.value, later.map(|m| &m.value))
        else {
            continue;
        };
        check(is >= was, || format!("the counter {} fell from {was} to {is}", before.name))?;
    }
    Ok(())
}

/// Contract: the documents and the alert rules are made of the catalogue, so nothing may be measured beside it.
async fn metrics_are_in_the_catalogue(target: &dyn Target) -> Outcome {
    let (service, pairs) = observe(target).await?;
    let catalogue = health(&service)?.metrics();
    check(!catalogue.is_empty(), || "the check has no catalogue of what it measures".to_owned())?;
    let mut names = HashSet::new();
    for metric in catalogue {
        check(names.insert(metric.name), || format!("{} is twice in the catalogue", metric.name))?;
        check_metric(metric, health(&service)?.tiers())?;
    }
    for Pair { tier, seen } in &pairs {
        for measurement in seen.iter().flat_map(|observation| &observation.measurements) {
            check_entry(measurement, catalogue.iter().find(|metric| metric.name == measurement.name), *tier)?;
        }
    }
    Ok(())
}

fn check_metric(metric: &Metric, tiers: &[Tier]) -> Outcome {
    let name = metric.name;
    check_name(name)?;
    check(!metric.source.trim().is_empty(), || format!("{name} names no source"))?;
    check(!metric.help.trim().is_empty(), || format!("{name} has no help"))?;
    check(!metric.help.contains('\n'), || format!("the help of {name} has several lines"))?;
    check(tiers.contains(&metric.tier), || format!("{name} is of the tier {}, which is never asked for", metric.tier))?;
    check(metric.grant != Some(""), || format!("{name} needs an empty grant"))
}

fn check_entry(measurement: &Measurement, metric: Option<&Metric>, tier: Tier) -> Outcome {
    let name = &measurement.name;
    let Some(metric) = metric else { return check(false, || format!("{name} is not in the catalogue")) };
    if measurement.number().is_some() {
        same(&format!("the kind of {name}"), &metric.kind, &measurement.kind)?;
    }
    same(&format!("the tier of {name}"), &metric.tier, &tier)?;
    let known = measurement.labels.keys().all(|label| metric.labels.contains(&label.as_str()));
    check(known, || format!("{name} has labels {:?}, the catalogue says {:?}", measurement.labels, metric.labels))
}

async fn rules_fit_the_catalogue(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let (service, prefix) = (instance.service(), target.code_prefix());
    let catalogue = health(&service)?.metrics();
    let rules = health(&service)?.rules();
    let mut seen = HashSet::new();
    for rule in &rules {
        let metric = &rule.metric;
        check(catalogue.iter().any(|known| known.name == metric), || {
            format!("a rule is about {metric}, which is not in the catalogue")
        })?;
        check(seen.insert((metric, &rule.code)), || format!("{} is there twice for {metric}", rule.code))?;
        check_rule(rule, prefix)?;
    }
    Ok(())
}

fn check_rule(rule: &Rule, prefix: &str) -> Outcome {
    check_code(&rule.code, prefix)?;
    let code = &rule.code;
    check(rule.warning.is_some() || rule.critical.is_some(), || format!("{code} has no limit"))?;
    check(!rule.message.is_empty(), || format!("{code} has no words of its own"))?;
    check(rule.hint.as_deref().is_some_and(|hint| !hint.is_empty()), || format!("{code} has no hint"))?;
    let Some((warning, critical)) = rule.warning.zip(rule.critical) else { return Ok(()) };
    let ordered = match rule.side {
        Side::Above => warning < critical,
        Side::Below => warning > critical,
    };
    check(ordered, || format!("{code} is critical at {critical} before it warns at {warning}"))
}

fn check_code(code: &str, prefix: &str) -> Outcome {
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
    let stable = code.split('.').all(plain) && code.split('.').count() >= 2;
    check(stable, || format!("{code:?} is no code: lower-case words with dots between them"))?;
    let owner = code.split('.').next().unwrap_or_default();
    check(owner == prefix, || format!("the code {code} does not begin with {prefix}"))
}

async fn codes_carry_the_prefix(target: &dyn Target) -> Outcome {
    let (_, pairs) = observe(target).await?;
    let observations = pairs.iter().flat_map(|pair| &pair.seen);
    for finding in observations.flat_map(|observation| &observation.findings) {
        check_code(&finding.code, target.code_prefix())?;
        check(!finding.message.is_empty(), || format!("{} says nothing", finding.code))?;
    }
    Ok(())
}
