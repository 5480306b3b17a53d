//! Hashes of what tables hold, by the server itself, in the snapshot and under the locks of the dump.

use std::collections::BTreeMap;

use stackkit_core::{Census, Result};

use super::catalog::name;
use crate::census::{self, DIGEST, RELATIONS};
use crate::sql::identifier;
use crate::wire::{Wire, value};

/// Adds the digest of each table whose rows `census` counts.
pub(super) async fn add(wire: &mut Wire, census: &mut Census) -> Result<()> {
    let sql = format!("SELECT nspname, relname, unit_schema, unit_name FROM ({RELATIONS}) r WHERE relkind = 'r'");
    // A table within which rows may move is one, with all its partitions.
    let mut places = BTreeMap::new();
    for row in wire.rows(&sql).await? {
        let is_alone = row.get(2).is_none_or(Option::is_none);
        let first = if is_alone { 0 } else { 2 };
        let (schema, table) = (name(&row, first)?, name(&row, first + 1)?);
        let only = if is_alone { "ONLY " } else { "" };
        places.insert(census::path(&schema, &table), format!("{only}{}.{}", identifier(&schema), identifier(&table)));
    }
    places.retain(|path, _place| census.counts.contains_key(&format!("{path}.rows")));
    for (path, place) in places {
        let row = wire.rows(&format!("SELECT {DIGEST} FROM {place} AS t")).await?.pop().unwrap_or_default();
        census.digests.insert(format!("{path}.content"), value(&row, 0)?.to_owned());
    }
    Ok(())
}
