//! The inputs that only some benches need.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use fastrand::Rng;

use crate::Result;
use crate::data::{CopyText, SEED, cached};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Small files of the folder, and their size.
const SMALL_FILES: u64 = 20_000;
const SMALL_BYTES: u64 = 10 * KIB;
/// The large file of the folder.
const LARGE_BYTES: u64 = GIB;
/// Small files in one sub-folder.
const FILES_PER_FOLDER: u64 = 200;

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
