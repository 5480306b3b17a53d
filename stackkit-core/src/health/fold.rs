//! From the services' own reports to the stack's: what is too old, what another one causes, what counts for which group.
//! Pure, but for the shape of the stack that it is given.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::health::{Axes, GroupReport, Report, ServiceReport, Status};
use crate::service::ServiceId;
use crate::stack::{Criticality, StackEntry};

/// The group that says whether the process lives. Its members may look at this machine only: a datastore's failure must not
/// restart the process.
pub const LIVE: &str = "live";
/// The group that says whether the stack may get requests.
pub const READY: &str = "ready";
/// The group that says whether the stack has started: each required member was ready once.
pub const STARTUP: &str = "startup";

/// What stays the same from report to report.
#[derive(Debug)]
pub(crate) struct Shape {
    stack: String,
    groups: Vec<Group>,
    /// The positions of the services that each one comes after, those that these come after included; empty if nothing
    /// comes after anything.
    causes: Vec<Vec<usize>>,
}

#[derive(Debug)]
struct Group {
    name: Arc<str>,
    positions: Vec<usize>,
    members: Arc<[ServiceId]>,
}

/// What is true of one moment and not of a service alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    pub(crate) instant: Instant,
    pub(crate) draining: bool,
    pub(crate) sequence: u64,
}

impl Shape {
    /// Of these entries, whose reports come in the same order.
    pub(crate) fn new<'a>(stack: &str, entries: impl Iterator<Item = &'a StackEntry>) -> Self {
        let entries: Vec<&StackEntry> = entries.collect();
        let mut names: Vec<&str> = vec![LIVE, READY, STARTUP];
        for name in entries.iter().flat_map(|entry| entry.groups.iter()) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let groups = names.into_iter().map(|name| Group::of(name, &entries)).collect();
        Self { stack: stack.to_owned(), groups, causes: causes(&entries) }
    }

    /// The positions of the services that must be ready before the one at `position`, however far.
    pub(crate) fn causes_of(&self, position: usize) -> &[usize] {
        self.causes.get(position).map_or(&[], Vec::as_slice)
    }

    /// The stack's report. `before` is the one that was published last: an effective status goes on since then.
    pub(crate) fn fold(
        &self,
        mut services: Vec<Arc<ServiceReport>>,
        moment: Moment,
        before: Option<&Report>,
    ) -> Report {
        for service in &mut services {
            age(service, moment);
        }
        self.blame(&mut services, moment, before);
        let groups: Vec<GroupReport> = self.groups.iter().map(|group| group.report(&services)).collect();
        let status = services.iter().filter_map(|service| weight(service)).max().unwrap_or(Status::Healthy);
        let passing = groups.iter().any(|group| group.name.as_ref() == READY && group.passing);
        let fresh = services.iter().filter(|service| service.status != Status::Unknown);
        let stale_at = fresh.filter_map(|service| service.stale_at).min();
        Report {
            stack: self.stack.clone(),
            generated_at: moment.now,
            status,
            ready: passing && !moment.draining,
            draining: moment.draining,
            sequence: moment.sequence,
            groups,
            services,
            stale_at,
        }
    }

    /// Turns what fails to unknown where something that it needs fails too, so that a cause is shown once.
    fn blame(&self, services: &mut [Arc<ServiceReport>], moment: Moment, before: Option<&Report>) {
        let fails = |service: &ServiceReport| !service.status.is_ready() || service.failure.is_some();
        let failing: Vec<bool> = services.iter().map(|service| fails(service)).collect();
        let is_failing = |position: usize| failing.get(position).copied().unwrap_or(false);
        for (position, causes) in self.causes.iter().enumerate() {
            // The roots: what fails although all that it needs itself does not.
            let is_root = |cause: usize| is_failing(cause) && !self.causes_of(cause).iter().any(|c| is_failing(*c));
            let roots: Vec<usize> = causes.iter().copied().filter(|cause| is_root(*cause)).collect();
            let Some(service) = services.get(position) else { continue };
            if roots.is_empty() || service.status.is_ready() || service.checked_at.is_none() {
                continue;
            }
            let caused_by = roots.iter().filter_map(|root| Some(services.get(*root)?.id.clone())).collect();
            let earlier = before.and_then(|report| report.services.get(position));
            let since = earlier.filter(|old| old.status == Status::Unknown).map_or(moment.now, |old| old.since);
            if let Some(slot) = services.get_mut(position) {
                let service = Arc::make_mut(slot);
                service.caused_by = caused_by;
                service.status = Status::Unknown;
                service.since = since;
            }
        }
    }
}

/// For each entry the positions of all that it needs.
fn causes(entries: &[&StackEntry]) -> Vec<Vec<usize>> {
    if entries.iter().all(|entry| entry.after.is_empty()) {
        return Vec::new();
    }
    let position = |id: &String| entries.iter().position(|entry| *entry.service.id() == id.as_str());
    let direct: Vec<Vec<usize>> =
        entries.iter().map(|entry| entry.after.iter().filter_map(position).collect()).collect();
    let needs = |start: usize| {
        let mut all: Vec<usize> = direct.get(start).cloned().unwrap_or_default();
        let mut looked = 0;
        while let Some(next) = all.get(looked).copied() {
            looked += 1;
            for further in direct.get(next).into_iter().flatten() {
                if !all.contains(further) {
                    all.push(*further);
                }
            }
        }
        all
    };
    (0..entries.len()).map(needs).collect()
}

impl Group {
    fn of(name: &str, entries: &[&StackEntry]) -> Self {
        let is_in = |entry: &&StackEntry| entry.groups.iter().any(|group| group == name);
        let positions: Vec<usize> = (0..).zip(entries).filter(|(_, entry)| is_in(entry)).map(|(at, _)| at).collect();
        let members = entries.iter().filter(|entry| is_in(entry)).map(|entry| entry.service.id().clone()).collect();
        Self { name: name.into(), positions, members }
    }

    fn report(&self, services: &[Arc<ServiceReport>]) -> GroupReport {
        let members = || self.positions.iter().filter_map(|position| services.get(*position)).map(Arc::as_ref);
        GroupReport {
            name: self.name.clone(),
            passing: members().filter(|member| member.is_decisive()).all(|member| member.passes(&self.name)),
            status: members().filter_map(weight).max().unwrap_or(Status::Healthy),
            members: self.members.clone(),
        }
    }
}

/// Turns an entry that is too old to unknown.
fn age(service: &mut Arc<ServiceReport>, moment: Moment) {
    let stale_for = service.stale_at.and_then(|stale_at| moment.instant.checked_duration_since(stale_at));
    if let Some(stale_for) = stale_for
        && service.status != Status::Unknown
    {
        let service = Arc::make_mut(service);
        service.status = Status::Unknown;
        service.axes = Axes::all(Status::Unknown);
        service.since = moment.now.checked_sub(stale_for).unwrap_or(moment.now);
    }
}

/// What a service's status means for the stack's: an optional failure degrades, an informational one says nothing, and nothing
/// counts in maintenance.
fn weight(service: &ServiceReport) -> Option<Status> {
    match service.criticality {
        _ if !service.counts_now() => None,
        Criticality::Required => Some(service.status),
        Criticality::Optional => Some(service.status.min(Status::Degraded)),
        Criticality::Informational => None,
    }
}
