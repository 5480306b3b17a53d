//! Inputs, generated from a fixed seed and cached under `target/bench-data`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::Result;
use crate::rounds::say;

/// The seed of every input. A change here or in a generator changes the version in the input's name too.
pub(crate) const SEED: u64 = 0x5741_434b;

/// Size of the COPY text.
const COPY_BYTES: u64 = 2 << 30;

/// The folder that holds the inputs.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-data")
}

/// An empty folder for what ours and the peers write, on the same disk as the inputs.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let scratch = folder().join("out").join(name);
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    Ok(scratch)
}

/// 2 GiB of what `pg_dump` writes for a table: tab-separated rows behind `COPY`.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn copy_text() -> Result<PathBuf> {
    cached("copy-v1.sql", |path| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut text = CopyText::new();
        text.write(&mut file, COPY_BYTES)?;
        Ok(file.into_inner()?.sync_all()?)
    })
}

/// Reads the input once, so that every contender finds it in the page cache.
pub(crate) fn warm(input: &Path) -> Result {
    std::io::copy(&mut File::open(input)?, &mut std::io::sink())?;
    Ok(())
}

/// Makes the input `name` with `make` unless it is there. It gets its name when it is whole.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path) -> Result) -> Result<PathBuf> {
    let path = folder().join(name);
    if path.exists() {
        return Ok(path);
    }
    say(&format!("making {}", path.display()));
    let partial = folder().join(format!("{name}.partial"));
    fs::create_dir_all(folder())?;
    if partial.is_dir() {
        fs::remove_dir_all(&partial)?;
    }
    make(&partial)?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

/// Rows of a table of orders.
pub(crate) struct CopyText {
    random: Rng,
    row: u64,
    line: Vec<u8>,
}

impl CopyText {
    pub(crate) fn new() -> Self {
        Self { random: Rng::with_seed(SEED), row: 0, line: Vec::with_capacity(256) }
    }

    /// Writes exactly `bytes` bytes of rows; the last row may be cut.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&mut self, out: &mut impl Write, bytes: u64) -> Result {
        let mut left = usize::try_from(bytes)?;
        while left > 0 {
            self.next_row()?;
            let part = &self.line[..self.line.len().min(left)];
            out.write_all(part)?;
            left -= part.len();
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result {
        const WORDS: [&str; 16] = [
            "amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kelp",
            "linen", "maple", "nectar", "onyx", "pebble",
        ];
        const STATES: [&str; 4] = ["paid", "shipped", "returned", "open"];
        let random = &mut self.random;
        let mut word = || WORDS[random.usize(..WORDS.len())];
        let (first, second, third) = (word(), word(), word());
        let (minute, cents, state) = (self.row / 7, random.u32(100..2_000_000), STATES[random.usize(..STATES.len())]);
        self.row += 1;
        self.line.clear();
        writeln!(
            self.line,
            "{row}\t{token:016x}\t{first}.{second}{number}@example.org\t2026-{month:02}-{day:02} {hour:02}:{minute:02}:{second_:02}.{micros:06}+00\t\
             {euros}.{rest:02}\t{state}\t{{\"note\": \"{third} {first}\", \"items\": {items}}}\t\\N",
            row = self.row,
            token = random.u64(..),
            number = random.u32(..10_000),
            month = minute / 40_320 % 12 + 1,
            day = minute / 1_440 % 28 + 1,
            hour = minute / 60 % 24,
            minute = minute % 60,
            second_ = random.u32(..60),
            micros = random.u32(..1_000_000),
            euros = cents / 100,
            rest = cents % 100,
            items = random.u32(1..9),
        )?;
        Ok(())
    }
}
