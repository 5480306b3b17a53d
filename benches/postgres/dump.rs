//! A dump of the whole database: encrypted into a repository, against the vendor's tools into files, and against the limit.

use std::path::Path;

use stackkit::backup::{Backup, BackupProvider as _, DumpContext, Identity, Repository, RepositoryOptions};
use stackkit::postgres::{Engine, PostgresDump};
use stackkit::{Postgres, Stack};

use crate::rounds::{Contender, Rounds, Row};
use crate::server::{DATABASE, Server};
use crate::sink::NullSink;
use crate::{Result, data, limit, run};

const CASE: &str = "860-mb-2-jobs";

/// Connections of ours and of the peers.
pub(crate) const JOBS: usize = 2;

/// Plays the rounds.
///
/// # Errors
/// If the server is missing, ours or a peer fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    let server = Server::start()?;
    let url = server.url_of(DATABASE);
    let statements = limit::statements(&server)?;
    let socket = server.socket();
    let recipient = Identity::generate()?.recipients()[0].to_string();
    let ours = Contender::new("stackkit", || {
        let out = data::scratch("postgres-ours")?;
        server.metered(|| run::ours("dump", CASE, [url.as_ref(), out.as_os_str(), recipient.as_ref()]))
    });
    let tool = |name: &str, line: &'static str| {
        let server = &server;
        Contender::new(name, move || {
            let out = data::scratch("postgres-peer")?.join("out");
            server.peer(CASE, line, &[("OUT", &out)])
        })
    };
    let dropped = Contender::new("stackkit, bytes dropped", || server.metered(|| run::ours("dropped", CASE, [&url])));
    let drained = Contender::new("2 x COPY, bytes dropped", || {
        server.metered(|| run::ours("limit", CASE, [socket.as_path(), &statements]))
    });
    let peers = vec![
        tool("pg_dump -Fc", r#"pg_dump -Fc -f "$OUT""#),
        tool("pg_dump -Fd -j2", r#"pg_dump -Fd -j2 -f "$OUT""#),
        tool("pg_dump -Fc -Z0 | zstd -T0 -3", r#"pg_dump -Fc -Z0 | zstd -T0 -3 -q -o "$OUT""#),
        tool("the same, synced like ours", r#"pg_dump -Fc -Z0 | zstd -T0 -3 -q -o "$OUT"; sync "$OUT""#),
        dropped,
        drained,
    ];
    rounds.play(ours, peers)
}

/// A handle on a database that dumps with as many connections as the peers.
///
/// # Errors
/// If the URL is none.
pub(crate) fn postgres(url: &str) -> Result<Postgres> {
    let config = Postgres::from_url(url)?.config().clone();
    let dump = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(JOBS);
    Ok(Postgres::new(config.with_dump(dump)))
}

/// Backs up a database into a new repository.
///
/// # Errors
/// If the arguments are wrong, or the backup fails.
pub(crate) async fn child(args: &[String]) -> Result {
    let [url, out, recipient] = args else { return Err("dump takes a URL, a folder and a recipient".into()) };
    back_up(url, Path::new(out), recipient).await.map(|_backup| ())
}

/// Backs up a database, encrypted, into a new repository in the folder `out`.
///
/// # Errors
/// If the backup fails.
pub(crate) async fn back_up(url: &str, out: &Path, recipient: &str) -> Result<Backup> {
    let options = RepositoryOptions::new().encrypt_to(recipient.parse()?);
    let repository = Repository::open_or_create(&format!("file://{}", out.display()), options).await?;
    let stack = Stack::builder("bench").service(postgres(url)?).build()?;
    Ok(repository.backup(&stack).run().await?)
}

/// Dumps a database into nothing.
///
/// # Errors
/// If the arguments are wrong, or the dump fails.
pub(crate) async fn dropped_child(args: &[String]) -> Result {
    let [url] = args else { return Err("dropped takes a URL".into()) };
    let dump = postgres(url)?.begin(&DumpContext::new()).await?;
    dump.run(&NullSink).await?;
    Ok(())
}
