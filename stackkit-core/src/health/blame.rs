//! Shows a cause once: what fails because of something that it needs is unknown, and names that. Pure.

use std::sync::Arc;

use crate::health::{Moment, ServiceReport, Status};
use crate::service::ServiceId;
use crate::stack::StackEntry;

/// What needs what, by position.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// What each one needs itself; empty if nothing needs anything.
    direct: Vec<Vec<usize>>,
    /// What needs each one.
    dependents: Vec<Vec<usize>>,
    /// All positions, each after what it needs.
    order: Vec<usize>,
}

impl Needs {
    /// Of entries without circles; what is not among them is left out.
    pub(crate) fn new(entries: &[&StackEntry], position: impl Fn(&str) -> Option<usize>) -> Self {
        if entries.iter().all(|entry| entry.after.is_empty()) {
            return Self::default();
        }
        let direct: Vec<Vec<usize>> =
            entries.iter().map(|entry| entry.after.iter().filter_map(|id| position(id)).collect()).collect();
        let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); direct.len()];
        for (at, needed) in direct.iter().enumerate() {
            for on in needed {
                if let Some(of) = dependents.get_mut(*on) {
                    of.push(at);
                }
            }
        }
        let order = order(&direct, &dependents);
        Self { direct, dependents, order }
    }

    /// What the one at `position` needs, however far.
    pub(crate) fn all_of(&self, position: usize) -> Vec<usize> {
        let mut all: Vec<usize> = self.direct_of(position).to_vec();
        let mut looked = 0;
        while let Some(next) = all.get(looked).copied() {
            looked += 1;
            for further in self.direct_of(next) {
                if !all.contains(further) {
                    all.push(*further);
                }
            }
        }
        all
    }

    fn direct_of(&self, position: usize) -> &[usize] {
        self.direct.get(position).map_or(&[], Vec::as_slice)
    }

    /// What needs the one at `position` itself.
    pub(crate) fn dependents_of(&self, position: usize) -> &[usize] {
        self.dependents.get(position).map_or(&[], Vec::as_slice)
    }

    /// For each service the roots of its failure: what it needs, however far, and fails although all that this needs does not.
    /// Empty if nothing fails.
    fn roots(&self, services: &[Arc<ServiceReport>]) -> Vec<Vec<usize>> {
        let fails = |service: &ServiceReport| !service.status.is_ready() || service.failure.is_some();
        if !services.iter().any(|service| fails(service)) {
            return Vec::new();
        }
        let is_failing = |at: usize| services.get(at).is_some_and(|service| fails(service));
        let mut roots: Vec<Vec<usize>> = vec![Vec::new(); services.len()];
        for at in self.order.iter().copied() {
            let mut own: Vec<usize> = Vec::new();
            for cause in self.direct_of(at).iter().copied() {
                let further = roots.get(cause).map_or(&[][..], Vec::as_slice);
                let found = if further.is_empty() && is_failing(cause) { &[cause][..] } else { further };
                own.extend(found);
            }
            own.sort_unstable();
            own.dedup();
            if let Some(slot) = roots.get_mut(at) {
                *slot = own;
            }
        }
        roots
    }

    /// Turns what fails to unknown where something that it needs fails too. `before` is what was published last: it goes on
    /// since then, and until a probe has shown how a service is without that cause.
    pub(crate) fn blame(&self, services: &mut [Arc<ServiceReport>], moment: Moment, before: &[Arc<ServiceReport>]) {
        if self.order.is_empty() {
            return;
        }
        let roots = self.roots(services);
        for at in 0..services.len() {
            let Some(service) = services.get(at) else { continue };
            if service.status.is_ready() || service.is_stale || service.checked_at.is_none() {
                continue;
            }
            let earlier = before.get(at);
            let named = |root: &usize| services.get(*root).map(|root| root.id.clone());
            let causes: Vec<ServiceId> = roots.get(at).into_iter().flatten().filter_map(named).collect();
            let blame = match causes.is_empty() {
                false => Blame { causes, healed_at: None },
                true => match earlier.and_then(|earlier| Blame::lingering(service, earlier, moment)) {
                    Some(blame) => blame,
                    None => continue,
                },
            };
            let blamed = blame.put(service, earlier, moment);
            if let Some(slot) = services.get_mut(at) {
                *slot = blamed;
            }
        }
    }
}

/// Why a service is unknown.
struct Blame {
    causes: Vec<ServiceId>,
    healed_at: Option<tokio::time::Instant>,
}

impl Blame {
    /// The causes are over, but no probe has shown yet how the service is without them.
    fn lingering(service: &ServiceReport, earlier: &ServiceReport, moment: Moment) -> Option<Self> {
        if earlier.caused_by.is_empty() {
            return None;
        }
        let healed_at = earlier.healed_at.unwrap_or(moment.instant);
        let was_probed_since = service.probed_at.is_some_and(|probed_at| probed_at >= healed_at);
        let fails_by_itself = was_probed_since && !service.last.status.is_ready();
        (!fails_by_itself).then(|| Self { causes: earlier.caused_by.clone(), healed_at: Some(healed_at) })
    }

    fn put(self, service: &ServiceReport, earlier: Option<&Arc<ServiceReport>>, moment: Moment) -> Arc<ServiceReport> {
        let same = earlier.filter(|earlier| {
            earlier.is_same_result(service) && earlier.caused_by == self.causes && earlier.healed_at == self.healed_at
        });
        if let Some(same) = same {
            return same.clone();
        }
        let earlier = earlier.filter(|earlier| earlier.status == Status::Unknown);
        let since = earlier.map_or((moment.now, moment.instant), |earlier| (earlier.since, earlier.since_at));
        let mut service = service.clone();
        service.caused_by = self.causes;
        service.healed_at = self.healed_at;
        service.status = Status::Unknown;
        (service.since, service.since_at) = since;
        Arc::new(service)
    }
}

/// All positions, each after what it needs: those first that need nothing, then those that need only these.
fn order(direct: &[Vec<usize>], dependents: &[Vec<usize>]) -> Vec<usize> {
    let mut missing: Vec<usize> = direct.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..direct.len()).filter(|at| missing.get(*at) == Some(&0)).collect();
    let mut looked = 0;
    while let Some(next) = order.get(looked).copied() {
        looked += 1;
        for dependent in dependents.get(next).into_iter().flatten() {
            let Some(left) = missing.get_mut(*dependent) else { continue };
            *left -= 1;
            if *left == 0 {
                order.push(*dependent);
            }
        }
    }
    order
}
