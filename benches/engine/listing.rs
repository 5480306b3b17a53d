//! A repository of ten thousand signed backups: listing it, and planning what to delete.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use stackkit::backup::{BackupId, Repository, RepositoryOptions, Retention, SigningKey, TrustedKey};

use crate::rounds::{Contender, Rounds, Row};
use crate::{Result, copy_file, data, run};

/// Backups in the repository: one an hour for more than a year.
const BACKUPS: u32 = 10_000;

/// When the first of them began: 2023-11-14.
const FIRST_SECOND: i64 = 1_700_000_000;

/// Seconds from one to the next.
const EVERY_SECONDS: i64 = 3600;

/// Datastores in each.
const SERVICES: u64 = 3;

/// Bytes of all dumps of the backup that is really made.
const DUMP_BYTES: usize = 3000;

/// Plays the rounds of a listing and of a plan.
///
/// # Errors
/// If ours or the peer fails.
pub(crate) fn listing(rounds: &Rounds) -> Result<Vec<Row>> {
    let (repository, key) = shelf()?;
    let mut rows = Vec::new();
    for case in ["list", "plan_retention"] {
        let ours = Contender::new("stackkit", || {
            run::ours("listing", case, [&repository, Path::new(&key.to_string()), Path::new(case)])
        });
        let floor = Contender::new("reading all manifests: cat", || {
            let line = r#"find "$IN/backups" -name 'manifest.*' -exec cat {} + > /dev/null"#;
            run::peer(case, line, &[("IN", &repository)])
        });
        rows.extend(rounds.play(ours, vec![floor])?);
    }
    Ok(rows)
}

/// One backup is made; the others are its manifest with another id and time, each signed as it should be.
fn shelf() -> Result<(PathBuf, TrustedKey)> {
    let folder = data::scratch("engine-listing")?;
    let (repository, input) = (folder.join("repository"), folder.join("input"));
    fs::write(&input, vec![b'x'; DUMP_BYTES])?;
    let key = SigningKey::generate()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let backup = runtime.block_on(async {
        let options = RepositoryOptions::new().unencrypted().sign_with(key.clone());
        let repository = Repository::open_or_create(&format!("file://{}", repository.display()), options).await?;
        let stack = copy_file::stack(&input.display().to_string(), SERVICES)?;
        Ok::<_, Box<dyn std::error::Error>>(repository.backup(&stack).run().await?)
    })?;
    let mut manifest = backup.manifest().clone();
    for number in 0..BACKUPS {
        let since = SignedDuration::from_secs(FIRST_SECOND + EVERY_SECONDS * i64::from(number));
        let time = (Timestamp::UNIX_EPOCH + since).strftime("%Y%m%dT%H%M%SZ");
        let id: BackupId = format!("{time}-{number:08x}").parse()?;
        (manifest.id, manifest.started, manifest.finished) = (id, id.time(), id.time());
        let text = manifest.to_json()?;
        let folder = repository.join("backups/bench").join(id.to_string());
        fs::create_dir(&folder)?;
        fs::write(folder.join("manifest.sig"), key.sign(text.as_bytes()))?;
        fs::write(folder.join("manifest.json"), text)?;
    }
    Ok((repository, key.trusted()))
}

/// Lists a repository or plans its retention.
///
/// # Errors
/// If the arguments are wrong, or it does not see all backups.
pub(crate) async fn child(args: &[String]) -> Result {
    let [repository, key, case] = args else { return Err("listing takes a repository, a key and a case".into()) };
    let options = RepositoryOptions::new().trust(key.parse()?);
    let repository = Repository::open(&format!("file://{repository}"), options).await?;
    let seen = match case.as_str() {
        "list" => repository.list().await?.iter().filter(|entry| entry.manifest().is_some()).count(),
        _ => {
            let plan = repository.plan_retention(&Retention::new().keep_daily(7).keep_monthly(12)).await?;
            plan.decisions.len()
        }
    };
    if seen > usize::try_from(BACKUPS)? { Ok(()) } else { Err(format!("only {seen} backups are seen").into()) }
}
