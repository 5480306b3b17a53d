//! What must be ready before what: the checks of a stack's graph. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::health::{HealthCheck, LIVE, Tier};
use crate::service::{ConfigFault, SERVICE_ID_BYTES_MAX, is_safe_name};
use crate::stack::StackEntry;

/// Double ids, unknown dependencies, one circle if there is any.
pub(crate) fn graph_faults(entries: &[StackEntry]) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    let mut graph: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in entries {
        let id = entry.service.id().as_str();
        if graph.insert(id, entry.after.iter().map(String::as_str).collect()).is_some() {
            faults.push(ConfigFault::error("stack.id.double", format!("two services are called {id}")));
        }
    }
    for (id, after) in &graph {
        for unknown in after.iter().filter(|dependency| !graph.contains_key(*dependency)) {
            let message = format!("{id} comes after {unknown}, which is not in the stack");
            faults.push(ConfigFault::error("stack.after.unknown", message));
        }
    }
    if let Some(circle) = circle(&graph) {
        let message = format!("these services wait for each other in a circle: {}", circle.join(" -> "));
        faults.push(ConfigFault::error("stack.after.circle", message));
    }
    faults
}

/// Faults of one entry's groups: a group's name is a path segment and a label; what is asked over a network can't say that
/// this process lives.
pub(crate) fn group_faults(entry: &StackEntry) -> Vec<ConfigFault> {
    let id = entry.service.id();
    let mut faults = Vec::new();
    for name in entry.groups.iter().filter(|name| !is_safe_name(name, SERVICE_ID_BYTES_MAX)) {
        let message = format!("{id}: group name {name:?} is not 1 to {SERVICE_ID_BYTES_MAX} of a-z A-Z 0-9 . _ -");
        faults.push(ConfigFault::error("stack.group.name", message));
    }
    let tiers = entry.service.health_check().map_or(&[][..], HealthCheck::tiers);
    let is_remote = tiers.iter().any(|tier| *tier != Tier::Process);
    if is_remote && entry.groups.iter().any(|group| group == LIVE) {
        let message = format!(
            "{id} is in the group live and asks a server: its failure would restart this process; put it in ready or startup"
        );
        faults.push(ConfigFault::error("stack.live.remote", message));
    }
    faults
}

/// Faults of what one entry looks at: a check that knows no tier is never asked; a limit on what it does not measure never holds.
pub(crate) fn check_faults(entry: &StackEntry) -> Vec<ConfigFault> {
    let id = entry.service.id();
    let Some(check) = entry.service.health_check() else { return Vec::new() };
    let mut faults = Vec::new();
    if check.tiers().is_empty() {
        faults.push(ConfigFault::error("stack.tiers.none", format!("{id}: its health check knows no tier")));
    }
    let (metrics, rules) = (check.metrics(), check.rules());
    let is_known = |name: &str| {
        metrics.iter().any(|metric| metric.name == name)
            || rules.iter().any(|rule| rule.metric == name || rule.code == name)
    };
    // Without a catalogue nobody can tell.
    let unknown = entry.thresholds.names().filter(|name| !metrics.is_empty() && !is_known(name));
    let warning = |name| {
        let message = format!("{id}: a threshold is about {name}, which it does not measure");
        ConfigFault::warning("stack.threshold.unknown", message)
    };
    faults.extend(unknown.map(warning));
    let no_number = |name| {
        ConfigFault::error(
            "stack.threshold.nan",
            format!("{id}: the limit of {name} is not a number: nothing exceeds it"),
        )
    };
    faults.extend(entry.thresholds.without_number().map(no_number));
    faults
}

/// One circle, from a service back to itself: `a`, `b`, `a`.
fn circle<'a>(graph: &BTreeMap<&'a str, Vec<&'a str>>) -> Option<Vec<&'a str>> {
    let left = waiting(graph);
    // Each of them waits for another of them, so following that leads back sooner or later.
    let mut path = vec![*left.iter().next()?];
    let mut places = BTreeMap::from([(*path.first()?, 0)]);
    loop {
        let next = graph.get(path.last()?)?.iter().copied().find(|dependency| left.contains(dependency))?;
        if let Some(start) = places.insert(next, path.len()) {
            path.push(next);
            return Some(path.split_off(start));
        }
        path.push(next);
    }
}

/// What is in a circle or waits for one: takes away what waits for nothing, then what waited only for that, and so on.
fn waiting<'a>(graph: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut dependents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut waits_for: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, after) in graph {
        let known = after.iter().filter(|dependency| graph.contains_key(*dependency));
        waits_for.insert(id, known.clone().count());
        known.for_each(|dependency| dependents.entry(dependency).or_default().push(id));
    }
    let mut free: Vec<&str> = waits_for.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    while let Some(id) = free.pop() {
        waits_for.remove(id);
        for dependent in dependents.remove(id).unwrap_or_default() {
            let Some(count) = waits_for.get_mut(dependent) else { continue };
            *count -= 1;
            if *count == 0 {
                free.push(dependent);
            }
        }
    }
    graph.keys().copied().filter(|id| waits_for.contains_key(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle_of(edges: &[(&'static str, &[&'static str])]) -> Option<String> {
        let graph = edges.iter().map(|(id, after)| (*id, after.to_vec())).collect();
        circle(&graph).map(|path| path.join(" "))
    }

    #[test]
    fn only_the_circle_is_named() {
        assert_eq!(circle_of(&[("a", &["b"]), ("b", &["a"]), ("c", &["a"]), ("d", &[])]).unwrap(), "a b a");
        assert_eq!(circle_of(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]).unwrap(), "b c b");
        assert_eq!(circle_of(&[("self", &["self"])]).unwrap(), "self self");
        assert_eq!(circle_of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]), None);
        assert_eq!(circle_of(&[("a", &["missing"])]), None);
    }
}
