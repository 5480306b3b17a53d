//! Services in the order in which they need each other.

use std::collections::BTreeSet;

use crate::health::{Report, ServiceReport};

impl Report {
    /// The services, each after all that it needs; else in the stack's order. For views that are read from top to bottom.
    #[must_use]
    pub fn dependencies_first(&self) -> Vec<&ServiceReport> {
        let known: BTreeSet<&str> = self.services.iter().map(|service| service.id.as_str()).collect();
        let mut waiting: Vec<&ServiceReport> = self.services.iter().map(AsRef::as_ref).collect();
        let mut ordered: Vec<&ServiceReport> = Vec::with_capacity(waiting.len());
        let mut placed: BTreeSet<&str> = BTreeSet::new();
        loop {
            let is_free = |service: &&ServiceReport| {
                let mut needs = service.dependencies.iter().map(String::as_str);
                needs.all(|need| placed.contains(need) || !known.contains(need))
            };
            let Some(position) = waiting.iter().position(is_free) else { break };
            let next = waiting.remove(position);
            placed.insert(next.id.as_str());
            ordered.push(next);
        }
        // A stack has no cycles; were there one, its services would come last.
        ordered.extend(waiting);
        ordered
    }
}
