//! The last step of a restore: one transaction in which two databases change names.
//!
//! The server itself makes it whole: whatever ends the client, the connection or the server, afterwards the target is
//! wholly the old or wholly the new database. What a restore is about stands in the comments of the databases, which
//! are seen from every session of the server.

pub(crate) mod journal;
mod properties;
mod sessions;
mod settle;

use stackkit_core::backup::{OldData, RestoreReport, TargetState};
use stackkit_core::{Clock, Error, ErrorKind, Result, Service};

use crate::client::{Session, text};
use crate::service::Postgres;
use crate::sql::identifier;
use crate::target;
use journal::{Journal, Replaced, Staged, State};

/// How often the renames are tried where somebody does not leave. Each try waits 5 s for all to leave
/// (`CountOtherDBBackends` in the server), and new connections wait with it.
const TRIES: u32 = 3;

/// The SQLSTATE of a database that somebody uses (`object_in_use`).
const IN_USE: &str = "55006";

/// The SQLSTATE of a lock that was not had in time (`lock_not_available`).
const LOCKED: &str = "55P03";

/// Who changes places with whom.
pub(crate) struct Swap<'a> {
    pub(crate) service: &'a Postgres,
    /// Holds the lock of the restore; in no transaction.
    pub(crate) admin: &'a Session,
    pub(crate) database: &'a str,
    pub(crate) staging: &'a str,
    pub(crate) kept_as: &'a str,
    pub(crate) old_data: OldData,
}

/// The databases as the server knows them, whatever their names.
struct Oids {
    /// None if there is no target yet.
    target: Option<String>,
    staging: String,
}

impl Swap<'_> {
    /// Creates the staging database with `options`, which follow the name in the statement, and journals it.
    ///
    /// Only what was created here may be dropped: a database of that name may be another restore's.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one of that name, or another restore fills it; `Unsupported` behind a pooler that
    /// gives each transaction another session.
    pub(crate) async fn create(&self, options: &str) -> Result<()> {
        self.refuse_pooler().await?;
        journal::lock(self.admin, self.staging).await?;
        let staged = Staged {
            target: self.database.to_owned(),
            target_oid: target::oid(self.admin, self.database).await?,
            kept_as: self.kept_as.to_owned(),
            old_data: self.old_data,
            started: Clock::system().now(),
            pid: std::process::id(),
        };
        let journal = Journal::new(State::Filling(staged)).statement(self.staging)?;
        self.admin.execute(&format!("CREATE DATABASE {}{options}", identifier(self.staging))).await?;
        match self.admin.execute(&journal).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.discard(error).await),
        }
    }

    /// Locks and settings of a session vanish behind a pooler that gives a session to each transaction. One that does
    /// hands the session that the first connection has just left to the second one.
    async fn refuse_pooler(&self) -> Result<()> {
        let other = target::open_admin(self.service.config()).await?;
        let pid = "SELECT pg_backend_pid()";
        let (own, others) = (self.admin.row(pid).await?, other.row(pid).await?);
        if text(&own, 0)? != text(&others, 0)? && text(&own, 0)? == text(&self.admin.row(pid).await?, 0)? {
            return Ok(());
        }
        let message = "two connections share a session of the server: a pooler in transaction mode is in between; \
            restore over a direct connection, or a pooler in session mode";
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Gives the staging database what belongs to the target itself and stands outside of it: settings, those of roles
    /// in it too, grants, connection limit, and whether it is a template.
    pub(crate) async fn copy_properties(&self) -> Result<()> {
        properties::copy(self.admin, self.database, self.staging).await
    }

    /// Gives the staging database the target's name, which is free.
    ///
    /// # Errors
    /// With a [`TargetState`]. The staging database is not dropped.
    pub(crate) async fn rename_staging(&self) -> Result<()> {
        self.run().await.map(drop)
    }

    /// Puts the staging database into the target's place, and the target aside. Gives warnings.
    ///
    /// # Errors
    /// With a [`TargetState`]: `PermissionDenied` if a session may not be ended, `Busy` if somebody does not leave or
    /// holds a lock, with who; `Incompatible` if the target is another one than when the restore began. The staging
    /// database is not dropped.
    pub(crate) async fn run(&self) -> Result<Vec<String>> {
        let old = |error: Error| error.with_target(TargetState::Old);
        let helper = target::open_admin(self.service.config()).await.map_err(old)?;
        let staged = self.ready().await.map_err(old)?;
        self.check_bound().await.map_err(old)?;
        let staging = target::oid(self.admin, self.staging).await.map_err(old)?.ok_or_else(|| old(gone()))?;
        let oids = Oids { target: staged.target_oid, staging };
        let own = settle::Own::of(self.admin).await.map_err(old)?;
        let mut tries_left = TRIES;
        loop {
            tries_left -= 1;
            let Err(error) = self.transaction(&helper, &oids).await else { return Ok(Vec::new()) };
            if self.admin.is_closed() || error.kind() == ErrorKind::Unreachable {
                return self.settle(&own, &oids, error).await;
            }
            if let Err(error) = self.admin.execute("ROLLBACK").await {
                return self.settle(&own, &oids, error).await;
            }
            match error.code() {
                Some(IN_USE) if tries_left > 0 => {}
                Some(IN_USE | LOCKED) => return Err(old(sessions::explain(&helper, error, &oids.all()).await)),
                _ => return Err(old(error)),
            }
        }
    }

    /// Refuses what would stay with the old database, and came after the plan was made.
    async fn check_bound(&self) -> Result<()> {
        if self.service.config().restore.force {
            return Ok(());
        }
        let Some(bound) = target::bound(self.admin, self.database).await?.into_iter().next() else { return Ok(()) };
        let error = Error::new(ErrorKind::Incompatible, "something hangs on the database that is to be replaced");
        Err(error.with_context("what", bound).with_context("mend", "drop it, or restore with_force"))
    }

    /// Writes down that all is filled and compared. Gives what was written at the begin.
    async fn ready(&self) -> Result<Staged> {
        let found = target::comment(self.admin, self.staging).await?;
        let Some(State::Filling(staged) | State::Ready(staged)) =
            found.as_deref().and_then(Journal::read).map(|j| j.state)
        else {
            return Err(gone());
        };
        self.admin.execute(&Journal::new(State::Ready(staged.clone())).statement(self.staging)?).await?;
        Ok(staged)
    }

    async fn transaction(&self, helper: &Session, oids: &Oids) -> Result<()> {
        // A commit that the log has not reached would undo the swap after it was told.
        let begin = "BEGIN; SET LOCAL synchronous_commit = on";
        let comment = target::comment(self.admin, self.database).await?;
        let comment = journal::own_comment(comment.as_deref());
        match &oids.target {
            None => self.admin.execute(begin).await?,
            Some(_) => {
                // The comment takes a lock that nobody may hold who copies, drops or renames the target, and that
                // leaves connecting alone: who can't be moved is found out before any session is ended.
                let journal = self.replaced(comment.clone()).statement(self.database)?;
                self.admin.execute(&format!("{begin}; {journal}")).await?;
            }
        }
        let found = (target::oid(self.admin, self.database).await?, target::oid(self.admin, self.staging).await?);
        if found != (oids.target.clone(), Some(oids.staging.clone())) {
            return Err(gone());
        }
        sessions::check(helper, &oids.all()).await?;
        let rename = |from, to| format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to));
        let mut steps = Vec::new();
        if oids.target.is_some() {
            steps.push(rename(self.database, self.kept_as));
        }
        steps.push(rename(self.staging, self.database));
        steps.push(journal::comment(self.database, comment.as_deref()));
        steps.push("COMMIT".to_owned());
        let (steps, all) = (steps.join("; "), oids.all());
        tokio::select! {
            swapped = self.admin.execute(&steps) => swapped,
            never = sessions::end_all(helper, &all, self.staging) => match never {},
        }
    }

    /// What becomes the comment of the database that is put aside.
    fn replaced(&self, comment: Option<String>) -> Journal {
        let now = Clock::system().now();
        let keep = self.service.config().restore.keep_old;
        // A time too far away to be told is for ever.
        let keep_until = keep.and_then(|time| now.checked_add(time).ok());
        Journal::new(State::Replaced(Replaced {
            target: self.database.to_owned(),
            replaced: now,
            by: self.service.id().to_string(),
            comment,
            old_data: self.old_data,
            keep_until,
        }))
    }

    /// Drops the replaced database if that is wanted, and says in the report what became of it. What it can't drop,
    /// `recover` will.
    pub(crate) async fn settle_old(&self, report: RestoreReport) -> RestoreReport {
        if self.old_data == OldData::Keep {
            return report.with_old_data_kept_as(self.kept_as);
        }
        match self.drop_database(self.kept_as).await {
            Ok(()) => report,
            Err(error) => report
                .with_old_data_kept_as(self.kept_as)
                .with_warnings([format!("the old database could not be dropped: {error}")]),
        }
    }

    /// Removes the staging database after `error`, where the target is not what it holds. Without a state in the error
    /// the target is as it was.
    pub(crate) async fn discard(&self, error: Error) -> Error {
        let state = error.target().unwrap_or(TargetState::Old);
        if state != TargetState::Old {
            return error.with_context("staging_database", self.staging);
        }
        let error = error.with_target(TargetState::Old);
        match self.drop_database(self.staging).await {
            Ok(()) => error,
            Err(left) => {
                tracing::warn!(database = self.staging, error = %left.chain(), "a database is left over");
                error.with_context("left_over_database", self.staging)
            }
        }
    }
}

impl Oids {
    fn all(&self) -> Vec<&str> {
        self.target.iter().map(String::as_str).chain([self.staging.as_str()]).collect()
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Incompatible, "a database was replaced or removed while the restore ran")
}
