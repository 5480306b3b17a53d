//! From the services' own reports to the stack's: what is too old, what another one causes, what counts for which group.
//! Pure, but for the shape of the stack that it is given.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::health::blame::Needs;
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
    stack: Arc<str>,
    groups: Vec<Group>,
    pub(crate) needs: Needs,
    /// Where each service is.
    pub(crate) positions: Arc<HashMap<ServiceId, usize>>,
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
        let positions: HashMap<ServiceId, usize> =
            entries.iter().zip(0..).map(|(entry, at)| (entry.service.id().clone(), at)).collect();
        let needs = Needs::new(&entries, |id| positions.get(id).copied());
        Self { stack: stack.into(), groups, needs, positions: Arc::new(positions) }
    }

    /// The stack's report. `before` is the one that was published last: an effective status goes on since then.
    pub(crate) fn fold(
        &self,
        mut services: Vec<Arc<ServiceReport>>,
        moment: Moment,
        before: Option<&Report>,
    ) -> Report {
        let earlier = before.map_or(&[][..], |before| before.services.as_slice());
        for (at, service) in services.iter_mut().enumerate() {
            age(service, earlier.get(at), moment);
        }
        self.needs.blame(&mut services, moment, earlier);
        let groups: Vec<GroupReport> =
            self.groups.iter().map(|group| group.report(&services, moment.draining)).collect();
        let ready = groups.iter().any(|group| group.name.as_ref() == READY && group.passing);
        let (mut status, mut stale_at) = (Status::Healthy, None);
        for service in &services {
            status = status.max(weight(service).unwrap_or(Status::Healthy));
            if let Some(own) = service.stale_at.filter(|_| !service.is_stale) {
                stale_at = Some(stale_at.map_or(own, |other| own.min(other)));
            }
        }
        Report {
            stack: self.stack.clone(),
            generated_at: moment.now,
            status,
            ready,
            draining: moment.draining,
            sequence: moment.sequence,
            groups,
            services,
            stale_at,
            positions: self.positions.clone(),
        }
    }
}

impl Group {
    fn of(name: &str, entries: &[&StackEntry]) -> Self {
        let is_in = |entry: &&StackEntry| entry.groups.iter().any(|group| group == name);
        let positions: Vec<usize> = (0..).zip(entries).filter(|(_, entry)| is_in(entry)).map(|(at, _)| at).collect();
        let members = entries.iter().filter(|entry| is_in(entry)).map(|entry| entry.service.id().clone()).collect();
        Self { name: name.into(), positions, members }
    }

    /// One walk over the members, as this is done for each publication.
    fn report(&self, services: &[Arc<ServiceReport>], draining: bool) -> GroupReport {
        let mut passing = !(draining && self.name.as_ref() == READY);
        let mut status = Status::Healthy;
        for member in self.positions.iter().filter_map(|position| services.get(*position)) {
            status = status.max(weight(member).unwrap_or(Status::Healthy));
            passing = passing && (!member.is_decisive() || member.passes(&self.name));
        }
        GroupReport { name: self.name.clone(), passing, status, members: self.members.clone() }
    }
}

/// Turns an entry that is too old to unknown.
fn age(service: &mut Arc<ServiceReport>, earlier: Option<&Arc<ServiceReport>>, moment: Moment) {
    let stale_for = service.stale_at.and_then(|stale_at| moment.instant.checked_duration_since(stale_at));
    let Some(stale_for) = stale_for.filter(|_| !service.is_stale) else { return };
    if let Some(same) = earlier.filter(|earlier| earlier.is_stale && earlier.is_same_result(service)) {
        service.clone_from(same);
        return;
    }
    let service = Arc::make_mut(service);
    if service.status != Status::Unknown {
        service.since = moment.now.checked_sub(stale_for).unwrap_or(moment.now);
        service.since_at = moment.instant.checked_sub(stale_for).unwrap_or(moment.instant);
    }
    service.is_stale = true;
    service.status = Status::Unknown;
    service.axes = Axes::all(Status::Unknown);
    service.caused_by.clear();
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
