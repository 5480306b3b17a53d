//! Reads restored rows back, and compares them with the hashes that a dump has of its rows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;
use stackkit_core::{Error, ErrorKind, Result};

use super::select::Selection;
use super::toc::Toc;
use super::work::VIA_ROOT;
use crate::archive::Entry;
use crate::config::PostgresConfig;
use crate::dump::{copy_out_of, reader};
use crate::layout::{DataFile, DatabaseLayout};
use crate::wire::Wire;

/// Why rows are not compared with the hashes of a dump.
pub(crate) const OTHER_VERSION: &str = "the rows were counted and not compared: the dump is of another version, which \
    may print values differently";

/// What is compared.
pub(crate) struct Rereading<'a> {
    pub(crate) config: &'a PostgresConfig,
    /// The database that was filled.
    pub(crate) database: &'a str,
    pub(crate) layout: &'a DatabaseLayout,
    pub(crate) toc: &'a Toc,
    pub(crate) selection: &'a Selection,
    pub(crate) jobs: usize,
}

/// Tables whose rows have one sum: one table, or those between which rows may have moved.
#[derive(Debug, Default)]
struct Sum {
    /// The name of the first.
    table: String,
    expected: u64,
    found: u64,
    /// The columns of each, as its statement lists them: rows that moved have another text if they are not the same.
    columns: Vec<String>,
}

/// What is to be read.
struct Reading {
    bytes: u64,
    sum: usize,
    statement: Vec<u8>,
}

impl Rereading<'_> {
    /// Compares every table that has a hash. Gives warnings: what could not be compared.
    ///
    /// # Errors
    /// `Integrity`, naming a table with other rows than were dumped.
    pub(crate) async fn compare(&self) -> Result<Vec<String>> {
        let (sums, readings, warnings) = self.plan()?;
        let found = self.read(readings).await?;
        settle(sums, found, warnings)
    }

    /// [`compare`](Self::compare) over one connection, which sees what its own transaction did.
    pub(crate) async fn compare_on(&self, wire: &mut Wire) -> Result<Vec<String>> {
        let (sums, readings, warnings) = self.plan()?;
        let mut found = Vec::with_capacity(readings.len());
        for reading in readings {
            found.push(read(wire, &reading).await?);
        }
        settle(sums, found, warnings)
    }

    fn plan(&self) -> Result<(Vec<Sum>, Vec<Reading>, Vec<String>)> {
        let entries: BTreeMap<i32, &Entry> = self.toc.entries.iter().map(|entry| (entry.dump_id, entry)).collect();
        let mut of_root: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut sums, mut readings, mut warnings): (Vec<Sum>, Vec<Reading>, Vec<String>) = Default::default();
        for file in &self.layout.tables {
            let Some(expected) = hash(file)? else { continue };
            let Some(entry) = entries.get(&file.dump_id).filter(|entry| self.selection.takes(entry)) else { continue };
            let table = format!("{}.{}", file.schema, file.table);
            let is_table = |id: &i32| entries.get(id).is_some_and(|entry| entry.kind == "TABLE");
            if !entry.depends_on.iter().any(is_table) {
                warnings.push(format!("the rows of {table} were counted and not compared: an extension adds its own"));
                continue;
            }
            let statement = copy_out_of(&file.schema, &file.table, &entry.copy)
                .ok_or_else(|| Error::integrity("the statement that copies rows is of an unknown form"))?;
            let new = sums.len();
            let at = match entry.definition.starts_with(VIA_ROOT) {
                true => *of_root.entry(&entry.definition).or_insert(new),
                false => new,
            };
            if at == new {
                sums.push(Sum { table, ..Sum::default() });
            }
            sums[at].expected = sums[at].expected.wrapping_add(expected);
            sums[at].columns.push(statement.columns);
            let bytes = file.parts.iter().filter_map(|part| part.bytes).sum();
            readings.push(Reading { bytes, sum: at, statement: statement.sql });
        }
        Ok((sums, readings, warnings))
    }

    /// The hash of each reading's rows, with its sum. The connections share the work, the largest first; the server may
    /// have fewer than are wanted, but one.
    async fn read(&self, mut readings: Vec<Reading>) -> Result<Vec<(usize, u64)>> {
        let jobs = self.jobs.min(readings.len());
        let connect = || reader(self.config, self.database, &self.layout.encoding);
        let mut first = if jobs == 0 { None } else { Some(connect().await?) };
        readings.sort_by_key(|reading| reading.bytes);
        let readings = Mutex::new(readings);
        let next = || readings.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = (0..jobs).map(|_worker| first.take()).map(async |first| {
            let connected = match first {
                Some(wire) => Ok(wire),
                None => connect().await,
            };
            let mut found = Vec::new();
            let mut wire = match connected {
                Err(error) if error.kind() == ErrorKind::Saturated => return Ok(found),
                connected => connected?,
            };
            while let Some(reading) = next() {
                found.push(read(&mut wire, &reading).await?);
            }
            Ok::<_, Error>(found)
        });
        Ok(try_join_all(work).await?.concat())
    }
}

/// The hash of the rows of one reading, with its sum.
async fn read(wire: &mut Wire, reading: &Reading) -> Result<(usize, u64)> {
    let mut copy = wire.copy_out(&reading.statement, true).await?;
    while copy.chunk().await?.is_some() {}
    let (_rows, hash) = copy.counted();
    Ok((reading.sum, hash.unwrap_or_default()))
}

/// Compares what was found with what was dumped.
fn settle(mut sums: Vec<Sum>, found: Vec<(usize, u64)>, mut warnings: Vec<String>) -> Result<Vec<String>> {
    for (sum, hash) in found {
        sums[sum].found = sums[sum].found.wrapping_add(hash);
    }
    for sum in sums {
        let is_even = sum.columns.windows(2).all(|pair| pair[0] == pair[1]);
        if sum.found == sum.expected {
            continue;
        }
        if is_even {
            let error = Error::integrity("a restored table has not the rows that were dumped");
            return Err(error.with_context("table", sum.table));
        }
        let why = "its partitions have their columns in different orders, and rows may have moved between them";
        warnings.push(format!("the rows around {} were counted and not compared: {why}", sum.table));
    }
    Ok(warnings)
}

/// The hash that the dump has of a table's rows.
fn hash(file: &DataFile) -> Result<Option<u64>> {
    let Some(hash) = &file.row_hash else { return Ok(None) };
    let hash = u64::from_str_radix(hash, 16);
    hash.map(Some).map_err(|error| Error::integrity("a hash in contents.json can't be read").with_source(error))
}
