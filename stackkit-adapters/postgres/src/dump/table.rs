//! The data entries of a table of contents, and what became of each.

use stackkit_core::{Error, Result};

use super::copy::Source;
use crate::archive::Entry;
use crate::layout::{DataFile, Part};
use crate::sql::identifier;

/// The kind of an entry that holds rows.
pub(super) const TABLE_DATA: &str = "TABLE DATA";

/// An entry that holds rows.
#[derive(Debug, Clone)]
pub(super) struct DataEntry {
    pub(super) dump_id: i32,
    /// The table's number.
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) table: String,
    copy: String,
}

impl DataEntry {
    /// What is needed of a [`TABLE_DATA`] entry.
    pub(super) fn of(entry: &Entry) -> Result<Self> {
        let data = Self {
            dump_id: entry.dump_id,
            oid: entry.oid.parse().map_err(|_not_a_number| unreadable(entry))?,
            schema: entry.schema.clone().unwrap_or_default(),
            table: entry.tag.clone(),
            copy: entry.copy.clone(),
        };
        match data.source() {
            Ok(_source) => Ok(data),
            Err(_unreadable) => Err(unreadable(entry)),
        }
    }

    /// The table and columns in SQL.
    pub(super) fn source(&self) -> Result<Source> {
        let table = format!("{}.{}", identifier(&self.schema), identifier(&self.table));
        Source::parse(table, &self.copy).ok_or_else(|| Error::unexpected("a statement of the archive can't be read"))
    }

    /// What becomes of it in the layout.
    pub(super) fn file(self, pieces: Vec<Piece>) -> DataFile {
        let hash = |sum: Option<u64>, piece: &Piece| Some(sum?.wrapping_add(piece.hash?));
        DataFile {
            dump_id: self.dump_id,
            schema: self.schema,
            table: self.table,
            rows: Some(pieces.iter().map(|piece| piece.rows).sum()),
            row_hash: pieces.iter().fold(Some(0), hash).map(|sum| format!("{sum:016x}")),
            parts: pieces.into_iter().map(|piece| piece.part).collect(),
        }
    }
}

fn unreadable(entry: &Entry) -> Error {
    Error::integrity("pg_dump tells nothing of a table's rows that can be read").with_context("table", &entry.tag)
}

/// A piece of a data file that was stored.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) part: Part,
    pub(super) rows: u64,
    /// The sum of the rows' hashes, if they were asked for.
    pub(super) hash: Option<u64>,
}
