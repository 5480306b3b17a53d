//! 2 GiB of COPY text into a local repository, encrypted.

use std::path::{Path, PathBuf};

use stackkit::backup::{Backup, Identity, Repository, RepositoryOptions};

use crate::rounds::{Contender, Rounds, Row, Sample};
use crate::{Result, copy_file, data, run};

/// The name of the key in its folder.
const KEY: &str = "key.txt";

/// Plays the rounds of one stream.
///
/// # Errors
/// If ours or a peer fails.
pub(crate) fn one_stream(rounds: &Rounds) -> Result<Vec<Row>> {
    const CASE: &str = "copy-2gib-age";
    let (input, key) = prepare()?;
    let ours = Contender::new("stackkit", || ours(CASE, &input, &key, "1"));
    let age = |name: &str, line: &'static str| {
        let (input, key) = (input.clone(), key.recipient.clone());
        Contender::new(name, move || {
            let out = data::scratch("engine-age")?.join("out.zst.age");
            run::peer(CASE, line, &[("IN", &input), ("OUT", &out), ("TO", Path::new(&key))])
        })
    };
    let mut peers = vec![
        age("zstd -T2 -3 | age", r#"zstd -T2 -3 -q -c "$IN" | age -r "$TO" -o "$OUT""#),
        age("zstd -T2 -1 | age", r#"zstd -T2 -1 -q -c "$IN" | age -r "$TO" -o "$OUT""#),
        age("zstd -T2 -3 | age, synced like ours", r#"zstd -T2 -3 -q -c "$IN" | age -r "$TO" -o "$OUT"; sync "$OUT""#),
    ];
    if run::is_installed("restic") {
        peers.push(Contender::new("restic backup --stdin", || restic(CASE, &input)));
    }
    rounds.play(ours, peers)
}

/// Plays the rounds of eight streams at once.
///
/// # Errors
/// If ours or the peer fails.
pub(crate) fn eight_streams(rounds: &Rounds) -> Result<Vec<Row>> {
    const CASE: &str = "8-x-256mib-age";
    /// Eight pipes at once, each of an eighth of the file.
    const LINE: &str = r#"for n in 0 1 2 3 4 5 6 7; do
        dd if="$IN" bs=1M skip=$((n * 256)) count=256 status=none | zstd -T1 -3 -q -c | age -r "$TO" -o "$OUT/$n.zst.age" &
        done; wait"#;
    let (input, key) = prepare()?;
    let ours = Contender::new("stackkit", || ours(CASE, &input, &key, "8"));
    let pipes = Contender::new("8 x (zstd -T1 -3 | age)", || {
        let out = data::scratch("engine-age")?;
        run::peer(CASE, LINE, &[("IN", &input), ("OUT", &out), ("TO", Path::new(&key.recipient))])
    });
    rounds.play(ours, vec![pipes])
}

/// A key in a file, and what is encrypted to it.
pub(crate) struct Key {
    pub(crate) file: PathBuf,
    pub(crate) recipient: String,
}

/// The input, read once so that every contender finds it in the page cache, and a fresh key.
///
/// # Errors
/// If they can't be made.
pub(crate) fn prepare() -> Result<(PathBuf, Key)> {
    let input = data::copy_text()?;
    data::warm(&input)?;
    let file = data::scratch("engine-key")?.join(KEY);
    let identity = Identity::generate()?;
    identity.write_file(&file)?;
    Ok((input, Key { file, recipient: identity.recipients()[0].to_string() }))
}

fn ours(case: &str, input: &Path, key: &Key, streams: &str) -> Result<Sample> {
    let out = data::scratch("engine-ours")?;
    run::ours("backup", case, [input, &out, Path::new(&key.recipient), Path::new(streams)])
}

/// Restic encrypts always. A fresh repository each time, made outside the measurement.
fn restic(case: &str, input: &Path) -> Result<Sample> {
    let repository = data::scratch("engine-restic")?;
    let env = [("IN", input), ("RESTIC_REPOSITORY", repository.as_path()), ("RESTIC_PASSWORD", Path::new("bench"))];
    run::peer(case, "restic -q --no-cache init", &env)?;
    run::peer(case, r#"restic -q --no-cache backup --stdin < "$IN""#, &env)
}

/// Backs up a file into a new repository.
///
/// # Errors
/// If the arguments are wrong, or the backup fails.
pub(crate) async fn child(args: &[String]) -> Result {
    let [input, out, recipient, streams] = args else {
        return Err("backup takes a file, a folder, a recipient and the number of streams".into());
    };
    back_up(input, out, recipient, streams.parse()?).await.map(|_backup| ())
}

/// Backs up a file as some streams into a new repository in the folder `out`.
///
/// # Errors
/// If the backup fails.
pub(crate) async fn back_up(input: &str, out: &str, recipient: &str, streams: u64) -> Result<Backup> {
    let options = RepositoryOptions::new().encrypt_to(recipient.parse()?);
    let repository = Repository::open_or_create(&format!("file://{out}"), options).await?;
    Ok(repository.backup(&copy_file::stack(input, streams)?).run().await?)
}
