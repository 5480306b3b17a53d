//! The pipeline: 2 GiB of COPY text through the engine into a local repository.

use std::path::Path;

use stackkit::Stack;
use stackkit::backup::{Repository, RepositoryOptions};

use crate::rounds::{Contender, Rounds, Row, Sample};
use crate::{Result, copy_file, data, run};

const CASE: &str = "copy-2gib";

/// Plays the rounds.
///
/// # Errors
/// If ours or a peer fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    let input = data::copy_text()?;
    data::warm(&input)?;
    let ours = Contender::new("stackkit", || {
        let out = data::scratch("pipeline-ours")?;
        run::ours("pipeline", CASE, [input.as_path(), &out])
    });
    let zstd = |name: &str, line: &'static str| {
        let input = input.clone();
        Contender::new(name, move || {
            let out = data::scratch("pipeline-zstd")?.join("out.zst");
            run::peer(CASE, line, &[("IN", &input), ("OUT", &out)])
        })
    };
    let mut peers = vec![
        zstd("zstd -T2 -1", r#"zstd -T2 -1 -q -o "$OUT" "$IN""#),
        zstd("zstd -T2 -1, synced like ours", r#"zstd -T2 -1 -q -o "$OUT" "$IN"; sync "$OUT""#),
    ];
    if run::is_installed("restic") {
        peers.push(Contender::new("restic backup --stdin", || restic(&input)));
    }
    rounds.play(ours, peers)
}

/// Restic encrypts always; it can't be told not to. A fresh repository each time, made outside the measurement.
fn restic(input: &Path) -> Result<Sample> {
    let repository = data::scratch("pipeline-restic")?;
    let env = [("IN", input), ("RESTIC_REPOSITORY", repository.as_path()), ("RESTIC_PASSWORD", Path::new("bench"))];
    run::peer(CASE, "restic -q --no-cache init", &env)?;
    run::peer(CASE, r#"restic -q --no-cache backup --stdin < "$IN""#, &env)
}

/// Backs up a file into a new repository.
pub(crate) async fn child(args: &[String]) -> Result {
    let [input, out] = args else { return Err("pipeline takes a file and a folder".into()) };
    back_up(copy_file::stack(input, 1)?, out).await
}

/// Backs up a stack into a new repository in the folder `out`.
pub(crate) async fn back_up(stack: Stack, out: &str) -> Result {
    let repository =
        Repository::open_or_create(&format!("file://{out}"), RepositoryOptions::new().unencrypted()).await?;
    repository.backup(&stack).run().await?;
    Ok(())
}
