//! The last step of a restore: one transaction in which databases change names, two for each that is restored.
//!
//! The server itself makes it whole: whatever ends the client, the connection or the server, afterwards each target is
//! wholly the old or wholly the new database, and all of one restore are the same of both. What a restore is about stands in the comments of the databases, which
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
    /// Holds the locks of the restore; in no transaction.
    pub(crate) admin: &'a Session,
    /// All at once, in one transaction.
    pub(crate) pairs: Vec<Pair>,
    pub(crate) old_data: OldData,
}

/// A database and the one that shall take its place.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) database: String,
    pub(crate) staging: String,
    pub(crate) kept_as: String,
    /// Whether there is something to replace.
    pub(crate) replaces: bool,
}

/// The databases of a pair as the server knows them, whatever their names.
struct Oids {
    /// None if there is no target yet.
    target: Option<String>,
    staging: String,
}

impl Swap<'_> {
    /// Creates the staging database of each pair with its options, which follow the name in the statement, and journals it.
    ///
    /// Only what was created here may be dropped: a database of that name may be another restore's.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one of that name, or another restore fills it; `Unsupported` behind a pooler that
    /// gives each transaction another session. Then nothing is left.
    pub(crate) async fn create(&self, options: &[String]) -> Result<()> {
        self.refuse_pooler().await?;
        for (at, (pair, options)) in self.pairs.iter().zip(options).enumerate() {
            if let Err(error) = self.create_one(pair, options).await {
                return Err(self.discard_these(&self.pairs[..at], error).await);
            }
        }
        Ok(())
    }

    async fn create_one(&self, pair: &Pair, options: &str) -> Result<()> {
        journal::lock(self.admin, &pair.staging).await?;
        let staged = Staged {
            target: pair.database.clone(),
            of: self.of(pair),
            target_oid: target::oid(self.admin, &pair.database).await?,
            kept_as: pair.kept_as.clone(),
            old_data: self.old_data,
            started: Clock::system().now(),
            pid: std::process::id(),
        };
        let journal = Journal::new(State::Filling(staged)).statement(&pair.staging)?;
        self.admin.execute(&format!("CREATE DATABASE {}{options}", identifier(&pair.staging))).await?;
        match self.admin.execute(&journal).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.discard_these(std::slice::from_ref(pair), error).await),
        }
    }

    /// The database of the handle, where it is another one than the pair's.
    fn of(&self, pair: &Pair) -> Option<String> {
        let own = &self.service.config().database;
        (*own != pair.database).then(|| own.clone())
    }

    /// Locks and settings of a session vanish behind a pooler that gives a session to each transaction. One that does
    /// hands the session that the first connection has just left to the second one.
    async fn refuse_pooler(&self) -> Result<()> {
        let other = self.helper().await?;
        let pid = "SELECT pg_backend_pid()";
        let (own, others) = (self.admin.row(pid).await?, other.row(pid).await?);
        if text(&own, 0)? != text(&others, 0)? && text(&own, 0)? == text(&self.admin.row(pid).await?, 0)? {
            return Ok(());
        }
        let message = "two connections share a session of the server: a pooler in transaction mode is in between; \
            restore over a direct connection, or a pooler in session mode";
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Another connection like the first one.
    async fn helper(&self) -> Result<Session> {
        let names: Vec<&str> = self.pairs.iter().map(|pair| pair.database.as_str()).collect();
        target::open_admin_beside(self.service.config(), &names).await
    }

    /// Gives the staging databases what belongs to the targets themselves and stands outside of them: settings, those of
    /// roles in them too, grants, connection limit, and whether they are templates.
    pub(crate) async fn copy_properties(&self) -> Result<()> {
        for pair in self.pairs.iter().filter(|pair| pair.replaces) {
            properties::copy(self.admin, &pair.database, &pair.staging).await?;
        }
        Ok(())
    }

    /// Puts the staging databases into the targets' places, and the targets aside: all of them or none. A name that
    /// nobody has is only taken. Gives warnings.
    ///
    /// # Errors
    /// With a [`TargetState`]: `PermissionDenied` if a session may not be ended, `Busy` if somebody does not leave or
    /// holds a lock, with who; `Incompatible` if a target is another one than when the restore began. The staging
    /// databases are not dropped.
    pub(crate) async fn run(&self) -> Result<Vec<String>> {
        let old = |error: Error| error.with_target(TargetState::Old);
        let helper = self.helper().await.map_err(old)?;
        let mut oids = Vec::with_capacity(self.pairs.len());
        for pair in &self.pairs {
            oids.push(self.ready(pair).await.map_err(old)?);
        }
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
                Some(IN_USE | LOCKED) => return Err(old(sessions::explain(&helper, error, &all(&oids)).await)),
                _ => return Err(old(error)),
            }
        }
    }

    /// Refuses what would stay with the old database, and came after the plan was made.
    async fn check_bound(&self, pair: &Pair) -> Result<()> {
        if self.service.config().restore.force {
            return Ok(());
        }
        let Some(bound) = target::bound(self.admin, &pair.database).await?.into_iter().next() else { return Ok(()) };
        let error = Error::new(ErrorKind::Incompatible, "something hangs on the database that is to be replaced");
        Err(error.with_context("what", bound).with_context("mend", "drop it, or restore with_force"))
    }

    /// Writes down that all is filled and compared. Gives what was written at the begin.
    async fn ready(&self, pair: &Pair) -> Result<Oids> {
        let found = target::comment(self.admin, &pair.staging).await?;
        let Some(State::Filling(staged) | State::Ready(staged)) =
            found.as_deref().and_then(Journal::read).map(|j| j.state)
        else {
            return Err(gone());
        };
        self.admin.execute(&Journal::new(State::Ready(staged.clone())).statement(&pair.staging)?).await?;
        self.check_bound(pair).await?;
        let staging = target::oid(self.admin, &pair.staging).await?.ok_or_else(gone)?;
        Ok(Oids { target: staged.target_oid, staging })
    }

    async fn transaction(&self, helper: &Session, oids: &[Oids]) -> Result<()> {
        // A commit that the log has not reached would undo the swap after it was told.
        let mut begin = vec!["BEGIN; SET LOCAL synchronous_commit = on".to_owned()];
        let mut steps = Vec::new();
        for (pair, oids) in self.pairs.iter().zip(oids) {
            let rename = |from, to| format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to));
            let comment = target::comment(self.admin, &pair.database).await?;
            let comment = journal::own_comment(comment.as_deref());
            let named_back = journal::comment(&pair.database, comment.as_deref());
            if oids.target.is_some() {
                // The comment takes a lock that nobody may hold who copies, drops or renames the target, and that
                // leaves connecting alone: who can't be moved is found out before any session is ended.
                begin.push(self.replaced(pair, comment).statement(&pair.database)?);
                steps.push(rename(&pair.database, &pair.kept_as));
            }
            steps.extend([rename(&pair.staging, &pair.database), named_back]);
        }
        self.admin.execute(&begin.join("; ")).await?;
        for (pair, oids) in self.pairs.iter().zip(oids) {
            let found = (target::oid(self.admin, &pair.database).await?, target::oid(self.admin, &pair.staging).await?);
            if found != (oids.target.clone(), Some(oids.staging.clone())) {
                return Err(gone());
            }
        }
        let all = all(oids);
        sessions::check(helper, &all).await?;
        steps.push("COMMIT".to_owned());
        let steps = steps.join("; ");
        let staging = self.pairs.first().map_or("", |pair| pair.staging.as_str());
        tokio::select! {
            swapped = self.admin.execute(&steps) => swapped,
            never = sessions::end_all(helper, &all, staging) => match never {},
        }
    }

    /// What becomes the comment of the database that is put aside.
    fn replaced(&self, pair: &Pair, comment: Option<String>) -> Journal {
        let now = Clock::system().now();
        let keep = self.service.config().restore.keep_old;
        // A time too far away to be told is for ever.
        let keep_until = keep.and_then(|time| now.checked_add(time).ok());
        Journal::new(State::Replaced(Replaced {
            target: pair.database.clone(),
            of: self.of(pair),
            replaced: now,
            by: self.service.id().to_string(),
            comment,
            old_data: self.old_data,
            keep_until,
        }))
    }

    /// Drops the replaced databases if that is wanted, and says in the report what became of them. What it can't drop,
    /// `recover` will.
    pub(crate) async fn settle_old(&self, mut report: RestoreReport) -> RestoreReport {
        let mut kept = Vec::new();
        for pair in self.pairs.iter().filter(|pair| pair.replaces) {
            if self.old_data == OldData::Keep {
                kept.push(pair.kept_as.as_str());
            } else if let Err(error) = self.drop_database(&pair.kept_as).await {
                kept.push(pair.kept_as.as_str());
                let what =
                    if self.pairs.len() > 1 { format!("database {}", pair.kept_as) } else { "database".to_owned() };
                report = report.with_warnings([format!("the old {what} could not be dropped: {error}")]);
            }
        }
        if kept.is_empty() { report } else { report.with_old_data_kept_as(kept.join(", ")) }
    }

    /// Removes the staging databases after `error`, where the targets are not what they hold. Without a state in the error
    /// the targets are as they were.
    pub(crate) async fn discard(&self, error: Error) -> Error {
        self.discard_these(&self.pairs, error).await
    }

    async fn discard_these(&self, pairs: &[Pair], error: Error) -> Error {
        let names = |pairs: &[&Pair]| pairs.iter().map(|pair| pair.staging.as_str()).collect::<Vec<_>>().join(", ");
        let state = error.target().unwrap_or(TargetState::Old);
        if state != TargetState::Old {
            return error.with_context("staging_database", names(&pairs.iter().collect::<Vec<_>>()));
        }
        let error = error.with_target(TargetState::Old);
        let mut left_over = Vec::new();
        for pair in pairs {
            if let Err(left) = self.drop_database(&pair.staging).await {
                tracing::warn!(database = pair.staging, error = %left.chain(), "a database is left over");
                left_over.push(pair);
            }
        }
        match left_over.is_empty() {
            true => error,
            false => error.with_context("left_over_database", names(&left_over)),
        }
    }
}

fn all(oids: &[Oids]) -> Vec<&str> {
    oids.iter().flat_map(|oids| oids.target.iter().chain([&oids.staging])).map(String::as_str).collect()
}

fn gone() -> Error {
    Error::new(ErrorKind::Incompatible, "a database was replaced or removed while the restore ran")
}
