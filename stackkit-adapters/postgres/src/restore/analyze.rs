//! Statistics of everything that was restored, by several connections.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::try_join_all;
use stackkit_core::{Error, ErrorKind, Result};

use super::session::Loading;
use crate::error::PostgresError;
use crate::wire::value;

/// What `ANALYZE` without a table would look at, the largest first, and how many bytes each has.
const TABLES: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_relation_size(c.oid) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' ORDER BY 2 DESC, 1";

/// How many tables share a round trip, as long as they are small.
const TABLES_PER_QUERY: usize = 32;

/// A larger table is analyzed by itself: reading its sample takes longer than a round trip.
const SMALL_BYTES: u64 = 1024 * 1024;

/// Analyzes every table. The connections share the work. Gives warnings: a foreign table that is a child of another one
/// fails if its server is away, and that is no reason to lose a restore.
pub(crate) async fn run(sessions: &mut [Loading]) -> Result<Vec<String>> {
    let Some(first) = sessions.first_mut() else { return Ok(Vec::new()) };
    let mut batches: Vec<(bool, Vec<Bytes>)> = Vec::new();
    for row in first.wire.rows(TABLES).await? {
        // In the encoding of the session, which need not be UTF-8.
        let table = row.first().cloned().flatten().ok_or(PostgresError::Answer("a name"))?;
        let bytes: u64 = value(&row, 1)?.parse().map_err(|_not_a_number| PostgresError::Answer("a whole number"))?;
        let is_small = bytes <= SMALL_BYTES;
        match batches.last_mut() {
            Some((true, batch)) if is_small && batch.len() < TABLES_PER_QUERY => batch.push(table),
            _ => batches.push((is_small, vec![table])),
        }
    }
    batches.reverse();
    let batches = Mutex::new(batches);
    let next = || batches.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = sessions.iter_mut().map(async |loading| {
        let mut warnings = Vec::new();
        while let Some((_, tables)) = next() {
            warnings.extend(batch(loading, &tables).await?);
        }
        Ok::<_, Error>(warnings)
    });
    Ok(try_join_all(work).await?.concat())
}

/// Some tables at once, or one by one if that fails.
async fn batch(loading: &mut Loading, tables: &[Bytes]) -> Result<Vec<String>> {
    let all = [b"ANALYZE ".as_slice(), &tables.join(b", ".as_slice())].concat();
    if loading.wire.execute(&all).await.is_ok() {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    for table in tables {
        match loading.wire.execute(&[b"ANALYZE ".as_slice(), table].concat()).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Unreachable => return Err(error),
            Err(error) => {
                let table = String::from_utf8_lossy(table);
                warnings.push(format!("statistics of {table} were not gathered; run ANALYZE: {error}"));
            }
        }
    }
    Ok(warnings)
}
