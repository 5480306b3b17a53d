//! Services in the order in which they need each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use stackkit_core::health::ServiceReport;

/// What others need comes before them; else the stack's order. A stack has no cycles; were there one, its services would
/// come last.
pub(super) fn dependencies_first(services: &[Arc<ServiceReport>]) -> impl Iterator<Item = &ServiceReport> {
    let known: BTreeSet<&str> = services.iter().map(|service| service.id.as_str()).collect();
    let mut waiting: Vec<&ServiceReport> = services.iter().map(AsRef::as_ref).collect();
    let mut ordered: Vec<&ServiceReport> = Vec::with_capacity(waiting.len());
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    loop {
        let is_free = |service: &&ServiceReport, placed: &BTreeSet<&str>| {
            let mut needs = service.dependencies.iter().map(String::as_str);
            needs.all(|need| placed.contains(need) || !known.contains(need))
        };
        let Some(position) = waiting.iter().position(|service| is_free(service, &placed)) else { break };
        let next = waiting.remove(position);
        placed.insert(next.id.as_str());
        ordered.push(next);
    }
    ordered.into_iter().chain(waiting)
}
