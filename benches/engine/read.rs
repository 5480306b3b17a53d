//! What was backed up is read again: decrypted and decompressed for a restore, or hashed as it is stored.

use std::fs::File;
use std::path::{Path, PathBuf};

use stackkit::backup::{BackupId, Identity, Repository, RepositoryOptions, VerifyLevel};
use tokio::io::AsyncReadExt as _;

use crate::backup::{Key, back_up, prepare};
use crate::rounds::{Contender, Rounds, Row};
use crate::{Result, data, run};

/// What a provider reads at a time.
const READ_BYTES: usize = 256 << 10;

/// A repository with one encrypted backup.
struct Shelf {
    repository: PathBuf,
    key: Key,
    id: String,
    object: PathBuf,
}

fn shelf() -> Result<Shelf> {
    let (input, key) = prepare()?;
    let repository = data::scratch("engine-read")?;
    let text = |path: &Path| path.display().to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let backup = runtime.block_on(back_up(&text(&input), &text(&repository), &key.recipient, 1))?;
    let id = backup.id().to_string();
    let object = repository.join("backups/bench").join(&id).join("copy-0/copy.sql.zst.age");
    data::warm(&object)?;
    Ok(Shelf { repository, key, id, object })
}

/// Plays the rounds of a restore: the plain bytes are read to their end, and dropped.
///
/// # Errors
/// If ours or the peer fails.
pub(crate) fn restore(rounds: &Rounds) -> Result<Vec<Row>> {
    const CASE: &str = "copy-2gib-age";
    let shelf = shelf()?;
    let ours = Contender::new("stackkit", || {
        run::ours("restore", CASE, [&shelf.repository, &shelf.key.file, Path::new(&shelf.id)])
    });
    let pipe = Contender::new("age -d | zstd -d", || {
        let env = [("KEY", shelf.key.file.as_path()), ("IN", &shelf.object)];
        run::peer(CASE, r#"age -d -i "$KEY" "$IN" | zstd -d -q -c > /dev/null"#, &env)
    });
    rounds.play(ours, vec![pipe])
}

/// Where the file is when a round begins.
type Begin = fn(&Path) -> Result;

/// Drops a file from the page cache, so that it is read from the disk.
fn cold(object: &Path) -> Result {
    let object = File::open(object)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&object, 0, None, rustix::fs::Advice::DontNeed)?;
    drop(object);
    Ok(())
}

/// Plays the rounds of a verify without a key: of a file on disk, as it is after a day, and of one in the page cache.
///
/// # Errors
/// If ours or a peer fails.
pub(crate) fn verify(rounds: &Rounds) -> Result<Vec<Row>> {
    let shelf = shelf()?;
    let mut rows = Vec::new();
    for (case, begin) in [("stored-disk", cold as Begin), ("stored-cached", data::warm)] {
        let ours = Contender::new("stackkit", || {
            begin(&shelf.object)?;
            run::ours("verify", case, [&shelf.repository, Path::new(&shelf.id)])
        });
        let peer = |name: &str, line: &'static str| {
            let object = shelf.object.clone();
            Contender::new(name, move || {
                begin(&object)?;
                run::peer(case, line, &[("IN", &object)])
            })
        };
        let peers = vec![
            peer("reading the file: dd bs=1M", r#"dd if="$IN" of=/dev/null bs=1M status=none"#),
            peer("sha256sum", r#"sha256sum "$IN""#),
        ];
        rows.extend(rounds.play(ours, peers)?);
    }
    Ok(rows)
}

/// Reads an artifact to its end.
///
/// # Errors
/// If the arguments are wrong, or it can't be read.
pub(crate) async fn restore_child(args: &[String]) -> Result {
    let [repository, key, id] = args else { return Err("restore takes a repository, a key and a backup".into()) };
    let options = RepositoryOptions::new().with_identity(Identity::from_file(key)?);
    let repository = Repository::open(&format!("file://{repository}"), options).await?;
    let source = repository.source(&id.parse::<BackupId>()?, "copy-0").await?;
    let mut reader = source.open(source.artifacts()[0].name()).await?;
    let mut buffer = vec![0; READ_BYTES];
    while reader.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Verifies what is stored.
///
/// # Errors
/// If the arguments are wrong, or something is damaged.
pub(crate) async fn verify_child(args: &[String]) -> Result {
    let [repository, id] = args else { return Err("verify takes a repository and a backup".into()) };
    let repository = Repository::open(&format!("file://{repository}"), RepositoryOptions::new()).await?;
    let report = repository.verify(&id.parse::<BackupId>()?, VerifyLevel::Stored).await?;
    if report.is_ok() { Ok(()) } else { Err(report.to_string().into()) }
}
