//! Statements that are planned once a connection, and simple queries where a pooler stands between.
//!
//! Planning the vitals takes ten times as long as running them. `PREPARE` and `EXECUTE` are statements like others, so a
//! prepared probe is still one simple message, deadline included. A pooler that hands each transaction to another
//! connection does not keep them; then every probe plans.

use std::hash::{DefaultHasher, Hash, Hasher};

use stackkit_core::{Error, Result};
use tokio_postgres::SimpleQueryRow;

use crate::client::Session;

/// SQLSTATEs that mean that another connection answers than the one that prepared: the statement does not exist, exists
/// already, or has another result.
const NOT_OURS: [&str; 3] = ["26000", "42P05", "0A000"];

/// How a session's statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Prepared {
    /// Nothing was sent yet.
    #[default]
    No,
    /// The connection has planned them.
    Yes,
    /// A pooler stands between: they go as they are.
    Never,
}

impl Session {
    /// The rows of `statements`, run after `settings` in one message. A second one is sent when the first shows that
    /// a pooler does not keep what was prepared.
    pub(crate) async fn prepared_rows(&mut self, settings: &str, statements: &[String]) -> Result<Vec<SimpleQueryRow>> {
        let sql = match self.prepared {
            Prepared::No => format!("{settings}; {}; {}", prepare(statements), execute(statements)),
            Prepared::Yes => format!("{settings}; {}", execute(statements)),
            Prepared::Never => return self.rows(&plain(settings, statements)).await,
        };
        match self.rows(&sql).await {
            Ok(rows) => {
                self.prepared = Prepared::Yes;
                Ok(rows)
            }
            Err(error) if is_not_ours(&error) => {
                self.prepared = Prepared::Never;
                self.rows(&plain(settings, statements)).await
            }
            Err(error) => Err(error),
        }
    }
}

fn is_not_ours(error: &Error) -> bool {
    error.code().is_some_and(|code| NOT_OURS.contains(&code))
}

/// A name that only this text has: behind a pooler another release's statement must not be run in its place.
fn name(statement: &str) -> String {
    let mut hasher = DefaultHasher::new();
    statement.hash(&mut hasher);
    format!("stackkit_{:016x}", hasher.finish())
}

fn prepare(statements: &[String]) -> String {
    let one = |statement: &String| format!("PREPARE {} AS {statement}", name(statement));
    statements.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn execute(statements: &[String]) -> String {
    let one = |statement: &String| format!("EXECUTE {}", name(statement));
    statements.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn plain(settings: &str, statements: &[String]) -> String {
    format!("{settings}; {}", statements.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_text_and_fit_an_identifier() {
        let statements = ["SELECT 1".to_owned(), "SELECT 2".to_owned()];
        assert_ne!(name(&statements[0]), name(&statements[1]));
        assert!(name(&statements[0]).len() < 63);
        assert_eq!(execute(&statements).matches("EXECUTE stackkit_").count(), 2);
        assert!(prepare(&statements).contains("AS SELECT 2"));
    }
}
