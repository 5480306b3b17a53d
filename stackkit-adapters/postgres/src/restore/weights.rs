//! What parts of a restore weigh: microseconds of one core as a rough guess, of which only comparisons matter.

/// How many bytes of `COPY` text a server takes in in a microsecond of one core, measured at 120 to 130 MB/s without the
/// client. The other figures are relative to it.
pub(super) const COPY_BYTES: u64 = 110;
/// How many bytes of a table's text a scan with a sort handles in a microsecond: a b-tree, a check of a foreign key.
pub(super) const SORT_BYTES: u64 = 300;
/// The same for indexes that take a value apart: GIN, GiST, SP-GiST. Measured at 92 MB/s for documents.
pub(super) const PARTS_BYTES: u64 = 80;
/// The same for indexes over vectors.
pub(super) const VECTOR_BYTES: u64 = 4;
/// What a statement weighs that reads no rows.
pub(super) const STATEMENT_WEIGHT: u64 = 300;

/// How many bytes of a table's text a build of this index handles in a microsecond.
pub(super) fn index_speed(definition: &str) -> u64 {
    let method = definition.split(" USING ").nth(1).unwrap_or_default();
    match method.split([' ', '(']).next().unwrap_or_default() {
        "gin" | "gist" | "spgist" => PARTS_BYTES,
        "hnsw" | "ivfflat" => VECTOR_BYTES,
        _ => SORT_BYTES,
    }
}

/// Whether the statement builds a b-tree, which several workers of the server can share.
pub(crate) fn is_btree(statement: &str) -> bool {
    statement.contains(" USING btree ")
}
