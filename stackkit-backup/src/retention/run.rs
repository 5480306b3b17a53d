//! A prune with its options.

use std::fmt;
use std::sync::Arc;

use stackkit_core::Result;

use super::plan::RetentionPlan;
use super::report::PruneReport;
use crate::progress::{Progress, Reporter};
use crate::repository::Repository;

/// A prune that is being prepared: see [`Repository::prune`].
#[must_use = "a prune does nothing until it is run"]
pub struct PruneRun<'a> {
    repository: &'a Repository,
    plan: RetentionPlan,
    progress: Reporter,
}

impl fmt::Debug for PruneRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PruneRun")
            .field("repository", &self.repository.id())
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Prepares what [`apply_retention`](Self::apply_retention) does; [`PruneRun::run`] does it.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use stackkit_backup::{Meter, Retention};
    /// # async fn example(repository: stackkit_backup::Repository) -> stackkit_core::Result<()> {
    /// let meter = Meter::new(stackkit_core::Clock::system());
    /// let plan = repository.plan_retention(&Retention::new().keep_daily(7)).await?;
    /// println!("{}", repository.prune(plan).with_progress(Arc::new(meter.clone())).run().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn prune(&self, plan: RetentionPlan) -> PruneRun<'_> {
        PruneRun { repository: self, plan, progress: Reporter::default() }
    }
}

impl PruneRun<'_> {
    /// Tells each step to `progress`: the bytes of the backups that are deleted. Those that are only announced free none.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Reporter::new(Some(progress));
        self
    }

    /// Announces and deletes.
    ///
    /// # Errors
    /// As [`Repository::apply_retention`].
    ///
    /// # Cancel safety
    /// As [`Repository::apply_retention`].
    pub async fn run(self) -> Result<PruneReport> {
        self.repository.apply(&self.plan, &self.progress).await
    }
}
