//! The hooks of one operation, and which of them have run.

use std::sync::atomic::{AtomicBool, Ordering};

use stackkit_core::{Error, ErrorKind, Result, ServiceId, Stack};

use super::{Hook, HookContext, HookOutcome, HookPoint};
use crate::id::BackupId;
use crate::progress::{ProgressEvent, Reporter};

/// What the hooks are told of the operation.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) stack: String,
    pub(crate) backup: BackupId,
}

/// The hooks of one operation.
#[derive(Debug)]
pub(crate) struct Hooks<'a> {
    hooks: Vec<Planned<'a>>,
    subject: Subject,
    progress: Reporter,
    /// The first moment was reached, so that there may be something to undo.
    have_begun: AtomicBool,
}

#[derive(Debug)]
struct Planned<'a> {
    hook: &'a Hook,
    service: Option<ServiceId>,
    has_run: AtomicBool,
}

impl<'a> Hooks<'a> {
    /// Takes the hooks that are for everything, or for one of `services`.
    ///
    /// # Errors
    /// `NotFound` for a hook of a service that the stack does not have.
    pub(crate) fn new(
        hooks: &'a [Hook],
        stack: &Stack,
        services: &[&ServiceId],
        subject: Subject,
        progress: Reporter,
    ) -> Result<Self> {
        let mut planned = Vec::new();
        for hook in hooks {
            let service = match &hook.service {
                None => None,
                Some(id) => {
                    let unknown =
                        || Error::new(ErrorKind::NotFound, "a hook is for a service that the stack does not have");
                    let service = stack.service(id).ok_or_else(|| unknown().with_context("service", id))?;
                    if !services.contains(&service.id()) {
                        continue;
                    }
                    Some(service.id().clone())
                }
            };
            planned.push(Planned { hook, service, has_run: AtomicBool::new(false) });
        }
        Ok(Self { hooks: planned, subject, progress, have_begun: AtomicBool::new(false) })
    }

    /// Runs the hooks of a moment without a service; the first that fails ends it.
    pub(crate) async fn run(&self, point: HookPoint) -> Result<()> {
        self.have_begun.store(true, Ordering::Relaxed);
        let outcome = point.is_after().then_some(HookOutcome::Succeeded);
        for planned in self.of(point, None) {
            self.run_one(planned, outcome).await?;
        }
        Ok(())
    }

    /// Runs the hooks of a moment for a service; the first that fails ends it.
    pub(crate) async fn run_for(&self, point: HookPoint, service: &ServiceId) -> Result<()> {
        let outcome = point.is_after().then_some(HookOutcome::Succeeded);
        for planned in self.of(point, Some(service)) {
            self.run_one(planned, outcome).await?;
        }
        Ok(())
    }

    /// Runs what always runs after a service's dump, and has not run.
    pub(crate) async fn ended_for(&self, service: &ServiceId, error: &Error) {
        self.run_always(error, |planned| planned.service.as_ref() == Some(service)).await;
    }

    /// Runs what always runs and has not run, for an operation that failed; nothing if it failed before its first hooks.
    pub(crate) async fn ended(&self, error: &Error) {
        if self.have_begun.load(Ordering::Relaxed) {
            self.run_always(error, |_| true).await;
        }
    }

    async fn run_always(&self, error: &Error, filter: impl Fn(&Planned<'_>) -> bool) {
        let waiting = self.hooks.iter().filter(|planned| {
            planned.hook.point.is_after() && planned.hook.is_always && !planned.has_run.load(Ordering::Relaxed)
        });
        // Those of services first, as at the end of what goes well.
        let waiting: Vec<_> = waiting.filter(|planned| filter(planned)).collect();
        let (of_services, of_all): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|planned| planned.service.is_some());
        for planned in of_services.into_iter().chain(of_all) {
            if let Err(failed) = self.run_one(planned, Some(HookOutcome::Failed(error.kind()))).await {
                // The first error is the one to return.
                tracing::warn!(error = %failed.chain(), "a hook failed after a failure");
            }
        }
    }

    fn of(&self, point: HookPoint, service: Option<&ServiceId>) -> Vec<&Planned<'a>> {
        let fits = |planned: &&Planned<'_>| planned.hook.point == point && planned.service.as_ref() == service;
        self.hooks.iter().filter(fits).collect()
    }

    async fn run_one(&self, planned: &Planned<'_>, outcome: Option<HookOutcome>) -> Result<()> {
        let (hook, service) = (planned.hook, planned.service.clone());
        self.progress.tell(|| ProgressEvent::Hook {
            point: hook.point,
            name: hook.name.clone(),
            service: service.clone(),
        });
        let Subject { stack, backup } = self.subject.clone();
        let ran = hook.run(HookContext { point: hook.point, stack, backup, service, outcome }).await;
        // One that was dropped on its way has not done its work.
        planned.has_run.store(true, Ordering::Relaxed);
        ran
    }
}
