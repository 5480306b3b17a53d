//! Inputs, generated from a fixed seed and cached under `target/bench-data`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::Result;
use crate::rounds::say;

/// The seed of every input. A change here or in a generator changes the version in the input's name too.
const SEED: u64 = 0x5741_434b;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Size of the COPY text.
const COPY_BYTES: u64 = 2 * GIB;

/// Small files of the folder, and their size.
const SMALL_FILES: u64 = 20_000;
const SMALL_BYTES: u64 = 10 * KIB;
/// The large file of the folder.
const LARGE_BYTES: u64 = GIB;
/// Small files in one sub-folder.
const FILES_PER_FOLDER: u64 = 200;

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

/// 20 000 files of 10 KiB and one of 1 GiB. Text and noise take turns: documents compress, pictures do not.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn files() -> Result<PathBuf> {
    cached("files-v1", |path| {
        let mut source = Mixed { text: CopyText::new(), noise: Rng::with_seed(SEED) };
        for number in 0..SMALL_FILES {
            let folder = path.join(format!("folder-{:03}", number / FILES_PER_FOLDER));
            fs::create_dir_all(&folder)?;
            let mut file = File::create(folder.join(format!("file-{number:05}.bin")))?;
            source.write(&mut file, number, SMALL_BYTES)?;
        }
        let mut large = BufWriter::with_capacity(1 << 20, File::create(path.join("large.bin"))?);
        for block in 0..LARGE_BYTES / MIB {
            source.write(&mut large, block, MIB)?;
        }
        Ok(large.into_inner()?.sync_all()?)
    })
}

/// Makes the input `name` with `make` unless it is there. It gets its name when it is whole.
fn cached(name: &str, make: impl FnOnce(&Path) -> Result) -> Result<PathBuf> {
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
struct CopyText {
    random: Rng,
    row: u64,
    line: Vec<u8>,
}

impl CopyText {
    fn new() -> Self {
        Self { random: Rng::with_seed(SEED), row: 0, line: Vec::with_capacity(256) }
    }

    /// Writes exactly `bytes` bytes of rows; the last row may be cut.
    fn write(&mut self, out: &mut impl Write, bytes: u64) -> Result {
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

/// Blocks of text and of noise in turn.
struct Mixed {
    text: CopyText,
    noise: Rng,
}

impl Mixed {
    fn write(&mut self, out: &mut impl Write, turn: u64, bytes: u64) -> Result {
        if turn.is_multiple_of(2) {
            return self.text.write(out, bytes);
        }
        let mut block = vec![0; usize::try_from(bytes)?];
        self.noise.fill(&mut block);
        Ok(out.write_all(&block)?)
    }
}

/// Commands that fill a Redis with keys of every type, in the protocol's own form, for `redis-cli --pipe`.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn redis_commands() -> Result<PathBuf> {
    cached("redis-v1.resp", |path| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut random = Rng::with_seed(SEED);
        for key in 0..REDIS_KEYS {
            write_key(&mut file, key, &mut random)?;
        }
        Ok(file.into_inner()?.sync_all()?)
    })
}

/// Keys of the filled Redis.
pub(crate) const REDIS_KEYS: u64 = 320_000;

/// Elements of each collection.
const ELEMENTS: u64 = 8;

fn write_key(out: &mut impl Write, key: u64, random: &mut Rng) -> Result {
    let elements: Vec<String> = (0..ELEMENTS).map(|_| format!("{:016x}-{key:08x}", random.u64(..))).collect();
    let named = |name: fn(usize) -> String| {
        elements.iter().enumerate().flat_map(move |(number, value)| [name(number), value.clone()]).collect()
    };
    let (verb, values): (_, Vec<String>) = match key % 8 {
        0 | 1 => ("SET", vec![elements.concat()]),
        2 => ("HSET", named(|number| format!("field{number}"))),
        3 => ("RPUSH", elements),
        4 => ("SADD", elements),
        5 => ("ZADD", named(|number| number.to_string())),
        6 => ("SADD", (0..ELEMENTS).map(|number| (number * key).to_string()).collect()),
        _ => ("XADD", vec!["*".to_owned(), "field".to_owned(), elements.concat()]),
    };
    let name = format!("{}:{key}", verb.to_lowercase());
    write_command(out, &[&[verb.to_owned(), name.clone()], values.as_slice()].concat())?;
    // A tenth of the keys expires, a year after the server was filled.
    if key.is_multiple_of(10) {
        write_command(out, &["EXPIRE".to_owned(), name, "31536000".to_owned()])?;
    }
    Ok(())
}

fn write_command(out: &mut impl Write, words: &[String]) -> Result {
    write!(out, "*{}\r\n", words.len())?;
    for word in words {
        write!(out, "${}\r\n{word}\r\n", word.len())?;
    }
    Ok(())
}
