//! A restore into a fresh database, of everything and of one table: from an encrypted repository, against `pg_restore` from files.

use std::path::{Path, PathBuf};

use stackkit::backup::{BackupId, Identity, Repository, RepositoryOptions, RestoreOptions};
use stackkit::postgres::PostgresRestore;
use stackkit::{Postgres, Stack};

use crate::dump::{JOBS, back_up};
use crate::rounds::{Contender, Rounds, Row, Sample};
use crate::server::{DATABASE, Server};
use crate::{Result, data, run};

/// The database that is restored into; it does not exist between the rounds.
const TARGET: &str = "restored";

/// The table that is restored alone, `public.wide`: a third of the data.
const TABLE: &str = "wide";

/// A server, a backup of ours and archives of the peers.
struct Shelf {
    server: Server,
    repository: PathBuf,
    key: PathBuf,
    id: String,
    archives: PathBuf,
}

impl Shelf {
    fn new() -> Result<Self> {
        let server = Server::start()?;
        let key = data::scratch("postgres-key")?.join("key.txt");
        let identity = Identity::generate()?;
        identity.write_file(&key)?;
        let (repository, archives) = (data::scratch("postgres-ours")?, data::scratch("postgres-peer")?);
        let recipient = identity.recipients()[0].to_string();
        let backup = server.runtime.block_on(back_up(&server.url_of(DATABASE), &repository, &recipient))?;
        let (custom, directory) = (archives.join("custom"), archives.join("directory"));
        server.peer("", r#"pg_dump -Fc -f "$OUT""#, &[("OUT", &custom)])?;
        server.peer("", r#"pg_dump -Fd -j2 -f "$OUT""#, &[("OUT", &directory)])?;
        Ok(Self { server, repository, key, id: backup.id().to_string(), archives })
    }

    /// Measures a restore into a fresh state: no target, and nothing that waits to be written.
    fn fresh(&self, prepare: &[&str], measure: impl FnOnce() -> Result<Sample>) -> Result<Sample> {
        self.server.execute(&[&format!("drop database if exists {TARGET} with (force)")])?;
        self.server.execute(prepare)?;
        self.server.execute(&["checkpoint"])?;
        measure()
    }

    fn ours(&self, case: &str, tables: &[&str]) -> Result<Sample> {
        let url = self.server.url_of(TARGET);
        let (repository, key) = (self.repository.display().to_string(), self.key.display().to_string());
        let args = [&[url.as_str(), &repository, &key, &self.id], tables].concat();
        self.fresh(&[], || self.server.metered(|| run::ours("load", case, args)))
    }

    fn peer(&self, case: &str, line: &str) -> Result<Sample> {
        let create = format!("create database {TARGET} template template0");
        let env = [("IN", self.archives.as_path()), ("TO", Path::new(TARGET))];
        self.fresh(&[&create], || self.server.peer(case, line, &env))
    }
}

/// Plays the rounds of a whole restore. Ours ends with statistics for the planner and a comparison with the dump; the peers' are
/// measured without the first, and with it.
///
/// # Errors
/// If the server is missing, ours or a peer fails.
pub(crate) fn whole(rounds: &Rounds) -> Result<Vec<Row>> {
    const CASE: &str = "860-mb-2-jobs";
    let shelf = Shelf::new()?;
    let ours = Contender::new("stackkit", || shelf.ours(CASE, &[]));
    let tool = |name: &str, line: &'static str| {
        let shelf = &shelf;
        Contender::new(name, move || shelf.peer(CASE, line))
    };
    let peers = vec![
        tool("pg_restore", r#"pg_restore -d "$TO" "$IN/custom""#),
        tool("pg_restore -j2", r#"pg_restore -j2 -d "$TO" "$IN/custom""#),
        tool("pg_restore -j2, then ANALYZE", r#"pg_restore -j2 -d "$TO" "$IN/directory"; vacuumdb -q -Z -j2 -d "$TO""#),
    ];
    rounds.play(ours, peers)
}

/// Plays the rounds of one table. `pg_restore --table` leaves its indexes out, so it is asked for them by name; it has no way to ask for a key.
///
/// # Errors
/// If the server is missing, ours or a peer fails.
pub(crate) fn one_table(rounds: &Rounds) -> Result<Vec<Row>> {
    const CASE: &str = "one-table";
    /// The table and its indexes.
    const WHAT: &str = "-t wide -I wide_created -I wide_customer -I wide_doc";
    let shelf = Shelf::new()?;
    let ours = Contender::new("stackkit", || shelf.ours(CASE, &[TABLE]));
    let tool = |name: &str, archive: &'static str| {
        let shelf = &shelf;
        Contender::new(name, move || shelf.peer(CASE, &format!(r#"pg_restore {WHAT} -d "$TO" "$IN/{archive}""#)))
    };
    rounds.play(ours, vec![tool("pg_restore -t of -Fc", "custom"), tool("pg_restore -t of -Fd", "directory")])
}

/// Restores a backup, or tables of it, into the database of a URL.
///
/// # Errors
/// If the arguments are wrong, or the restore fails.
pub(crate) async fn child(args: &[String]) -> Result {
    let [url, repository, key, id, tables @ ..] = args else {
        return Err("load takes a URL, a repository, a key, a backup and tables".into());
    };
    let options = RepositoryOptions::new().with_identity(Identity::from_file(key)?);
    let repository = Repository::open(&format!("file://{repository}"), options).await?;
    let restore = PostgresRestore::new().with_jobs(JOBS).only_tables(tables);
    let config = Postgres::from_url(url)?.config().clone().with_restore(restore);
    let stack = Stack::builder("bench").service(Postgres::new(config)).build()?;
    let plan = repository.plan_restore(&id.parse::<BackupId>()?, &stack, &RestoreOptions::new()).await?;
    repository.apply_restore(plan, &stack).await?;
    Ok(())
}
