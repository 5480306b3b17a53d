//! What a restore of a PostgreSQL service takes beside what every restore does.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use stackkit::postgres::{Owners, PostgresRestore, Strategy};

use super::value;

/// How PostgreSQL services are restored.
#[derive(Debug, Args)]
pub(crate) struct PostgresArgs {
    /// Take the target's place (swap), or restore into a new database of this name (new=NAME)
    #[arg(long, value_name = "swap|new=NAME|in-place", default_value = "swap", value_parser = strategy)]
    strategy: Strategy,
    /// Restore only this database of a backup of several; may be given again
    #[arg(long, value_name = "NAME")]
    database: Vec<String>,
    /// Restore only what is in this schema; may be given again
    #[arg(long, value_name = "NAME")]
    schema: Vec<String>,
    /// Restore only this table with all that belongs to it; may be given again
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Vec<String>,
    /// Give every object its owner (restore) or none (skip), or what one role owned to another one; may be given again
    #[arg(long, value_name = "restore|skip|FROM=TO", value_parser = owners)]
    owners: Vec<Owners>,
    /// Leave grants out
    #[arg(long)]
    no_privileges: bool,
    /// How many connections load and build indexes at once; the server's cores up to 4 unless given
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Replace a database although replication slots or subscriptions stay with the old one, or by a chosen part; in
    /// place, drop what hangs on what is replaced
    #[arg(long)]
    force: bool,
    /// Keep the replaced database at least this long
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    keep_old: Option<Duration>,
}

impl PostgresArgs {
    /// The options, as the adapter takes them.
    pub(crate) fn options(&self) -> PostgresRestore {
        let mut options = PostgresRestore::new()
            .with_strategy(self.strategy.clone())
            .only_databases(self.database.iter().map(String::as_str))
            .only_schemas(self.schema.iter().map(String::as_str))
            .only_tables(self.table.iter().map(String::as_str))
            .with_owners(self.owners())
            .with_force(self.force);
        if self.no_privileges {
            options = options.without_privileges();
        }
        let jobs = self.jobs.into_iter().map(NonZeroUsize::get);
        let options = jobs.fold(options, PostgresRestore::with_jobs);
        self.keep_old.into_iter().fold(options, PostgresRestore::with_keep_old)
    }

    /// All pairs together; a word alone is the last that counts.
    fn owners(&self) -> Owners {
        let pairs = self.owners.iter().filter_map(|owners| match owners {
            Owners::Map(pairs) => Some(pairs.clone()),
            _ => None,
        });
        let pairs: Vec<(String, String)> = pairs.flatten().collect();
        match (pairs.is_empty(), self.owners.last()) {
            (false, _) => Owners::Map(pairs),
            (true, Some(owners)) => owners.clone(),
            (true, None) => Owners::Restore,
        }
    }
}

fn strategy(text: &str) -> Result<Strategy, &'static str> {
    match (text, text.strip_prefix("new=")) {
        ("swap", _) => Ok(Strategy::Swap),
        ("in-place", _) => Ok(Strategy::InPlaceSingleTransaction),
        (_, Some(name)) if !name.is_empty() => Ok(Strategy::IntoNew(name.to_owned())),
        _ => Err("not swap, new=NAME or in-place"),
    }
}

fn owners(text: &str) -> Result<Owners, &'static str> {
    match (text, text.split_once('=')) {
        ("restore", _) => Ok(Owners::Restore),
        ("skip", _) => Ok(Owners::Skip),
        (_, Some((from, to))) if !from.is_empty() && !to.is_empty() => {
            Ok(Owners::Map(vec![(from.to_owned(), to.to_owned())]))
        }
        _ => Err("not restore, skip or FROM=TO"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options() {
        assert_eq!(strategy("new=a=b"), Ok(Strategy::IntoNew("a=b".to_owned())));
        assert!(strategy("new=").is_err() && owners("=x").is_err());
        assert_eq!(owners("a=b"), Ok(Owners::Map(vec![("a".to_owned(), "b".to_owned())])));
    }
}
