//! A folder of many small files and a large one, through the engine into a local repository.

use stackkit::{Stack, Volume};

use crate::rounds::{Contender, Rounds, Row};
use crate::{Result, data, inputs, pipeline, run};

const CASE: &str = "20000-files-1gib";

/// Plays the rounds.
///
/// # Errors
/// If ours or a peer fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    let input = inputs::files()?;
    // Reads it once, so that every contender finds it in the page cache.
    run::peer(CASE, r#"tar -cf - -C "$IN" . | cat"#, &[("IN", &input)])?;
    let ours = Contender::new("stackkit", || {
        let out = data::scratch("volume-ours")?;
        run::ours("volume", CASE, [input.as_path(), &out])
    });
    let peer = |name: &str, line: &'static str| {
        let input = input.clone();
        Contender::new(name, move || {
            let out = data::scratch("volume-peer")?.join("out.tar.zst");
            run::peer(CASE, line, &[("IN", &input), ("OUT", &out)])
        })
    };
    let peers = vec![
        peer("tar | zstd -T2 -1", r#"tar -cf - -C "$IN" . | zstd -T2 -1 -q > "$OUT""#),
        peer("tar | zstd -T2 -1, synced like ours", r#"tar -cf - -C "$IN" . | zstd -T2 -1 -q > "$OUT"; sync "$OUT""#),
    ];
    rounds.play(ours, peers)
}

/// Backs up a folder into a new repository.
pub(crate) async fn child(args: &[String]) -> Result {
    let [input, out] = args else { return Err("volume takes two folders".into()) };
    let stack = Stack::builder("bench").service(Volume::new("files", input)).build()?;
    pipeline::back_up(stack, out).await
}
