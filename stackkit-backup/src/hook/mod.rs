//! Hooks: what an application does around a backup or a restore, such as putting itself into maintenance mode.

mod command;
mod plan;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use stackkit_core::{Error, ErrorKind, Result, Secret, ServiceId};

use self::command::Command;
pub(crate) use self::plan::{Hooks, Subject};
use crate::id::BackupId;

/// How long a hook may take unless it is told otherwise: to quiesce an application, not to do the work of one.
const HOOK_DEADLINE: Duration = Duration::from_secs(60);

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HookPoint {
    /// Backup: before any point in time is pinned.
    BeforeDump,
    /// Backup: every point in time is pinned, and no byte was read. What was stopped only to make the points fit
    /// together can go on.
    AfterPin,
    /// Backup: after the dump of the service; without a service, after all dumps. The manifest is not written yet.
    AfterDump,
    /// Restore: every byte of the backup is checked, and the store was not touched.
    BeforeRestore,
    /// Restore: after the service has its data back; without a service, after all services have.
    AfterRestore,
}

impl HookPoint {
    /// The word for it, which a command finds in `STACKKIT_HOOK`: `before_dump`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeDump => "before_dump",
            Self::AfterPin => "after_pin",
            Self::AfterDump => "after_dump",
            Self::BeforeRestore => "before_restore",
            Self::AfterRestore => "after_restore",
        }
    }

    /// Whether it is at the end of what it belongs to, so that it has an outcome to tell.
    fn is_after(self) -> bool {
        matches!(self, Self::AfterPin | Self::AfterDump | Self::AfterRestore)
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How that ended which an after-hook comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookOutcome {
    /// Well.
    Succeeded,
    /// With an error of this kind.
    Failed(ErrorKind),
}

/// What a hook is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookContext {
    /// When it runs.
    pub point: HookPoint,
    /// The stack's name.
    pub stack: String,
    /// The backup that is made or restored.
    pub backup: BackupId,
    /// The service, if the hook was made for one.
    pub service: Option<ServiceId>,
    /// Whether that went well which it comes after; `None` before it.
    pub outcome: Option<HookOutcome>,
}

type Closure = Arc<dyn Fn(HookContext) -> BoxFuture<'static, Result<()>> + Send + Sync>;

#[derive(Clone)]
enum Action {
    Closure(Closure),
    Command(Command),
}

/// Something that an application does at one moment of a backup or a restore: an async closure or a command.
///
/// ```
/// use std::time::Duration;
/// use stackkit_backup::{Hook, HookPoint};
///
/// let stop = Hook::before_dump(|about| async move {
///     println!("quiet, please: backup {} begins", about.backup);
///     Ok(())
/// });
/// let go_on = Hook::command(HookPoint::AfterPin, ["/usr/local/bin/maintenance", "off"])
///     .with_deadline(Duration::from_secs(10))
///     .always();
/// # let _ = (stop, go_on);
/// ```
///
/// # Failure
/// A hook that fails, panics or takes longer than its deadline fails the backup or the restore: one before the dump
/// before any byte is read, one after it before the manifest is written, one before the restore before the store is
/// touched. A hook for a service fails that service, which a partial backup survives.
///
/// An after-hook runs only if all went well, unless it is [`always`](Self::always): then it runs too when the backup or
/// the restore fails, times out or is stopped by [`BackupRun::stop_when`](crate::BackupRun::stop_when), once, as soon as
/// the before-hooks have begun, also if one of those failed. What it undoes must bear to be undone when it was not done.
/// When a future is dropped no hook can run: its commands are killed, its closures dropped.
///
/// # Order
/// Hooks of one moment run one after the other, in the order in which they were added: those without a service before
/// the others at the start, and after them at the end.
#[derive(Clone)]
#[must_use = "a hook does nothing until it is added"]
pub struct Hook {
    point: HookPoint,
    name: String,
    service: Option<String>,
    is_always: bool,
    deadline: Duration,
    action: Action,
}

impl Hook {
    /// An async closure at any moment.
    pub fn at<F, W>(point: HookPoint, work: F) -> Self
    where
        F: Fn(HookContext) -> W + Send + Sync + 'static,
        W: Future<Output = Result<()>> + Send + 'static,
    {
        Self::new(point, point.as_str().to_owned(), Action::Closure(Arc::new(move |about| work(about).boxed())))
    }

    /// An async closure before any point in time is pinned.
    pub fn before_dump<F, W>(work: F) -> Self
    where
        F: Fn(HookContext) -> W + Send + Sync + 'static,
        W: Future<Output = Result<()>> + Send + 'static,
    {
        Self::at(HookPoint::BeforeDump, work)
    }

    /// An async closure after the dumps.
    pub fn after_dump<F, W>(work: F) -> Self
    where
        F: Fn(HookContext) -> W + Send + Sync + 'static,
        W: Future<Output = Result<()>> + Send + 'static,
    {
        Self::at(HookPoint::AfterDump, work)
    }

    /// An async closure before the first store is touched.
    pub fn before_restore<F, W>(work: F) -> Self
    where
        F: Fn(HookContext) -> W + Send + Sync + 'static,
        W: Future<Output = Result<()>> + Send + 'static,
    {
        Self::at(HookPoint::BeforeRestore, work)
    }

    /// An async closure after the restore.
    pub fn after_restore<F, W>(work: F) -> Self
    where
        F: Fn(HookContext) -> W + Send + Sync + 'static,
        W: Future<Output = Result<()>> + Send + 'static,
    {
        Self::at(HookPoint::AfterRestore, work)
    }

    /// A command: a program, by its path or by a name in `PATH`, and its arguments. It succeeds if it exits with 0; the
    /// end of its standard error is in the error, its standard output is dropped.
    ///
    /// It runs in a process group of its own, with this process's environment, and finds `STACKKIT_HOOK` (such as
    /// `before_dump`), `STACKKIT_STACK`, `STACKKIT_BACKUP_ID`, `STACKKIT_SERVICE` if it is for a service, and after the
    /// work `STACKKIT_OUTCOME` (`succeeded` or `failed`). No argument may be a secret, because every user of the machine
    /// can read them: see [`with_secret_env`](Self::with_secret_env).
    pub fn command<I, T>(point: HookPoint, command: I) -> Self
    where
        I: IntoIterator<Item = T>,
        T: Into<String>,
    {
        let command = Command::new(command.into_iter().map(Into::into).collect());
        Self::new(point, command.name(), Action::Command(command))
    }

    fn new(point: HookPoint, name: String, action: Action) -> Self {
        Self { point, name, service: None, is_always: false, deadline: HOOK_DEADLINE, action }
    }

    /// Sets its name, for errors; a command's is its program's unless set.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes it one of a service: it runs only if that service is backed up or restored, and belongs to its dump.
    pub fn for_service(mut self, id: impl Into<String>) -> Self {
        self.service = Some(id.into());
        self
    }

    /// Sets how long it may take; 60 s unless set.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs an after-hook also when what it comes after failed. For other hooks it means nothing.
    pub fn always(mut self) -> Self {
        self.is_always = true;
        self
    }

    /// Adds a variable to a command's environment. A closure has none.
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Action::Command(command) = &mut self.action {
            command.env.push((name.into(), value.into()));
        }
        self
    }

    /// Adds a secret to a command's environment; it is stripped from what the command writes to standard error.
    pub fn with_secret_env(mut self, name: impl Into<String>, secret: &Secret) -> Self {
        if let Action::Command(command) = &mut self.action {
            command.secrets.push((name.into(), secret.clone()));
        }
        self
    }

    async fn run(&self, about: HookContext) -> Result<()> {
        let service = about.service.clone();
        let work = match &self.action {
            Action::Closure(closure) => closure(about),
            Action::Command(command) => command.run(about).boxed(),
        };
        // What a panic may leave broken is the application's own, and the hook is not run again.
        let contained = AssertUnwindSafe(work).catch_unwind();
        let ended = match tokio::time::timeout(self.deadline, contained).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_panic)) => Err(Error::unexpected("the hook panicked")),
            Err(elapsed) => Err(Error::new(ErrorKind::Timeout, "the hook did not end within its deadline")
                .with_context("deadline_s", self.deadline.as_secs())
                .with_source(elapsed)),
        };
        ended.map_err(|error| {
            let error = error.with_operation(self.point.as_str()).with_context("hook", &self.name);
            match service {
                Some(service) => error.with_service(service),
                None => error,
            }
        })
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook")
            .field("point", &self.point)
            .field("name", &self.name)
            .field("service", &self.service)
            .field("is_always", &self.is_always)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
