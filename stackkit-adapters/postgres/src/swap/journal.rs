//! What a restore writes down about itself where every session of the server sees it: the comment of a database.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stackkit_core::backup::OldData;
use stackkit_core::{Error, ErrorKind, Result};

use crate::client::{Session, text};
use crate::sql::{identifier, literal};

/// The form of the journal that this version writes and reads.
const VERSION: u32 = 1;

/// What every journal begins with.
pub(crate) const MARK: &str = "{\"stackkit\":";

/// The first key of the advisory locks of restores, `skpg`: whoever holds the second one, the hash of a staging
/// database's name, is filling that database.
pub(crate) const LOCK_CLASS: i32 = 0x736b_7067;

/// The comment of a database that a restore made or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    stackkit: u32,
    #[serde(flatten)]
    pub(crate) state: State,
}

/// A journal that says something else than this version knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) is_newer: bool,
    /// The database whose name it is about, if it says that as this version does.
    pub(crate) target: Option<String>,
}

/// What the database is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    /// A restore fills it, or was cut short while it did.
    Filling(Staged),
    /// It holds all data, is compared, and waits for its place.
    Ready(Staged),
    /// A restore put it aside.
    Replaced(Replaced),
}

/// A database beside the one that it shall replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staged {
    /// The name that it shall have.
    pub(crate) target: String,
    /// The database of the handle that restores it along with others, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<String>,
    /// The database that has that name; none if there is none.
    pub(crate) target_oid: Option<String>,
    /// The name that the replaced one shall have.
    pub(crate) kept_as: String,
    /// What becomes of that.
    pub(crate) old_data: OldData,
    /// When the restore began.
    pub(crate) started: Timestamp,
    /// The process that restores, of the machine that it runs on.
    pub(crate) pid: u32,
}

/// A database whose place another one took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    /// The name that it had.
    pub(crate) target: String,
    /// As [`Staged::of`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<String>,
    /// When it was replaced.
    pub(crate) replaced: Timestamp,
    /// The service of the stack, as whose restore.
    pub(crate) by: String,
    /// The comment that it had.
    pub(crate) comment: Option<String>,
    /// Whether the restore was told to remove it.
    pub(crate) old_data: OldData,
    /// Until when it is kept at least; for ever if there is none.
    pub(crate) keep_until: Option<Timestamp>,
}

impl Journal {
    pub(crate) fn new(state: State) -> Self {
        Self { stackkit: VERSION, state }
    }

    /// The database whose name it is about, and that of the handle that restored it along with others.
    pub(crate) fn about(&self) -> (&str, Option<&str>) {
        let (target, of) = match &self.state {
            State::Filling(staged) | State::Ready(staged) => (&staged.target, &staged.of),
            State::Replaced(replaced) => (&replaced.target, &replaced.of),
        };
        (target, of.as_deref())
    }

    /// The journal in a comment, if it is one that this version can read.
    pub(crate) fn read(comment: &str) -> Option<Self> {
        serde_json::from_str(comment).ok().filter(|journal: &Self| journal.stackkit == VERSION)
    }

    /// The journal in a comment that is one and that this version can't read: another version wrote it, or somebody
    /// changed it.
    pub(crate) fn unreadable(comment: &str) -> Option<Unreadable> {
        if !comment.starts_with(MARK) || Self::read(comment).is_some() {
            return None;
        }
        let value: serde_json::Value = serde_json::from_str(comment).unwrap_or_default();
        let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        let version = value.get("stackkit").and_then(serde_json::Value::as_u64);
        Some(Unreadable {
            is_newer: version.is_some_and(|version| version > u64::from(VERSION)),
            target: text("target"),
        })
    }

    /// The statement that makes it the comment of `database`.
    pub(crate) fn statement(&self, database: &str) -> Result<String> {
        let json = serde_json::to_string(self)
            .map_err(|error| Error::unexpected("a journal has no JSON form").with_source(error))?;
        Ok(comment(database, Some(&json)))
    }
}

/// The statement that sets or removes a database's comment.
pub(crate) fn comment(database: &str, text: Option<&str>) -> String {
    let text = text.map_or_else(|| "NULL".to_owned(), literal);
    format!("COMMENT ON DATABASE {} IS {text}", identifier(database))
}

/// The comment of its own that a database has: one that was put aside and named back by hand still has its journal.
pub(crate) fn own_comment(found: Option<&str>) -> Option<String> {
    match found.and_then(Journal::read).map(|journal| journal.state) {
        Some(State::Replaced(replaced)) => replaced.comment,
        Some(State::Filling(_) | State::Ready(_)) => None,
        None => found.map(str::to_owned),
    }
}

/// Takes the lock that says that `staging` is being filled. It goes with the session, whatever ends that.
///
/// # Errors
/// `AlreadyExists` if another session fills it.
pub(crate) async fn lock(admin: &Session, staging: &str) -> Result<()> {
    let sql = format!("SELECT pg_try_advisory_lock({LOCK_CLASS}, hashtext({}))", literal(staging));
    if text(&admin.row(&sql).await?, 0)? == "t" {
        return Ok(());
    }
    let error = Error::new(ErrorKind::AlreadyExists, "another restore is filling that database");
    Err(error.with_context("database", staging))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(comment: Option<&str>) -> Journal {
        Journal::new(State::Replaced(Replaced {
            target: "shop".to_owned(),
            of: None,
            replaced: Timestamp::UNIX_EPOCH,
            by: "orders".to_owned(),
            comment: comment.map(str::to_owned),
            old_data: OldData::Keep,
            keep_until: Some(Timestamp::UNIX_EPOCH),
        }))
    }

    #[test]
    fn a_journal_reads_back_and_nothing_else_is_one() {
        let journal = replaced(Some("it's \\ mine"));
        let json = serde_json::to_string(&journal).expect("JSON");
        assert!(json.starts_with(r#"{"stackkit":1,"state":"replaced","target":"shop""#), "{json}");
        assert_eq!(Journal::read(&json), Some(journal));
        for other in ["", "orders of the shop", "{}", r#"{"stackkit":1}"#, &json.replace(":1,", ":2,")] {
            assert_eq!(Journal::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_journal_of_another_version_is_known_as_one() {
        let json = serde_json::to_string(&replaced(None)).expect("JSON");
        assert_eq!(Journal::unreadable(&json), None);
        assert_eq!(Journal::unreadable("orders of the shop"), None);
        let found = |is_newer, target: Option<&str>| Some(Unreadable { is_newer, target: target.map(str::to_owned) });
        assert_eq!(Journal::unreadable(&json.replace(":1,", ":2,")), found(true, Some("shop")));
        assert_eq!(Journal::unreadable(r#"{"stackkit":2}"#), found(true, None));
        assert_eq!(Journal::unreadable(&json.replace("replaced\"", "parked\"")), found(false, Some("shop")));
        assert_eq!(Journal::unreadable(r#"{"stackkit":1,"state":"#), found(false, None));
    }

    #[test]
    fn a_comment_survives_being_put_aside_and_named_back() {
        let json = |comment| serde_json::to_string(&replaced(comment)).expect("JSON");
        assert_eq!(own_comment(Some(&json(Some("mine")))).as_deref(), Some("mine"));
        assert_eq!(own_comment(Some(&json(None))), None);
        assert_eq!(own_comment(Some("mine")).as_deref(), Some("mine"));
        assert_eq!(own_comment(None), None);
    }
}
