//! Room that tables, what they keep aside, and indexes hold for nothing: estimated from the planner's statistics, which costs next to nothing,
//! and measured by `pgstattuple` where it is installed and may be called.
//!
//! The estimate is the well-known one of <https://github.com/ioguix/pgsql-bloat-estimation>: how many pages the rows would
//! take if they were packed, by their average width, against those that there are.

use stackkit_core::{ErrorKind, Result};

use crate::client::{Session, number, text};
use crate::maintenance::finding::MaintenanceFinding;
use crate::maintenance::limits::MaintenanceLimits;
use crate::maintenance::look::float;
use crate::maintenance::task::MaintenanceAction;
use crate::sql::identifier;

/// Pages of a table against those that its rows need. 24 bytes of page header; 23 of a row's, and a bitmap of its columns
/// where some are NULL; 4 of the line pointer; rows and headers aligned to 8.
const TABLES: &str = "SELECT oid, name, pages * bs AS size, greatest(pages - ceil(rows / greatest(floor((bs - 24) \
        * fill / 100 / (4 + (head + 7) / 8 * 8 + ceil(data / 8) * 8)), 1)), 0) * bs AS bloat FROM ( \
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relpages::float8 AS pages, c.reltuples::float8 AS rows, \
        current_setting('block_size')::float8 AS bs, \
        coalesce(substring(array_to_string(c.reloptions, ' ') FROM 'fillfactor=([0-9]+)')::float8, 100) AS fill, \
        23 + CASE WHEN max(s.null_frac) > 0 THEN (7 + count(*)) / 8 ELSE 0 END AS head, \
        sum((1 - s.null_frac) * s.avg_width)::float8 AS data \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname \
        AND NOT s.inherited \
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relpages > 0 AND c.reltuples >= 0 \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    GROUP BY c.oid, n.nspname HAVING count(*) = count(s.attname)) t";

/// The same of B-trees: 24 bytes of page header and 16 at the page's end; 8 of an entry's header, 16 with a bitmap; fill
/// factor 90 unless set; one page more for the root. Columns of expressions have statistics under the index's own name.
const INDEXES: &str = "SELECT oid, name, pages * bs AS size, greatest(pages - 1 - ceil(rows / greatest(floor((bs - 40) \
        * fill / 100 / (4 + head + ceil(data / 8) * 8)), 1)), 0) * bs AS bloat FROM ( \
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relpages::float8 AS pages, c.reltuples::float8 AS rows, \
        current_setting('block_size')::float8 AS bs, \
        coalesce(substring(array_to_string(c.reloptions, ' ') FROM 'fillfactor=([0-9]+)')::float8, 90) AS fill, \
        CASE WHEN max(s.null_frac) > 0 THEN 16 ELSE 8 END AS head, \
        sum((1 - s.null_frac) * s.avg_width)::float8 AS data \
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree' \
    JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_attribute ia ON ia.attrelid = c.oid \
    LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[ia.attnum - 1] AND a.attnum > 0 \
    LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND NOT s.inherited \
        AND s.tablename = CASE WHEN a.attnum IS NULL THEN c.relname ELSE t.relname END \
        AND s.attname = coalesce(a.attname, ia.attname) \
    WHERE c.relkind = 'i' AND i.indisvalid AND c.relpersistence <> 't' AND c.relpages > 0 AND c.reltuples >= 0 \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
    GROUP BY c.oid, n.nspname HAVING count(*) = count(s.attname)) t";

/// What tables keep aside: pages against those that its pieces need, four a page (`EXTERN_TUPLES_PER_PAGE` in the server's
/// heaptoast.h). The last piece of a value needs less, so it is a lower bound. Vacuum counts them.
const TOAST: &str = "SELECT oid, name, pages * bs AS size, greatest(pages - ceil(rows / 4), 0) * bs AS bloat FROM ( \
    SELECT t.oid, format('%I.%I', n.nspname, c.relname) AS name, t.relpages::float8 AS pages, \
        t.reltuples::float8 AS rows, current_setting('block_size')::float8 AS bs \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class t ON t.oid = c.reltoastrelid \
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND t.reltuples >= 0 \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema')) t";

/// Where `pgstattuple` is and whether it may be called: for tables and for indexes.
const EXACT: &str = "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
    WHERE e.extname = 'pgstattuple' AND has_schema_privilege(n.oid, 'USAGE') AND NOT EXISTS (SELECT 1 FROM pg_proc p \
        WHERE p.pronamespace = n.oid AND p.proname IN ('pgstattuple', 'pgstatindex') \
        AND NOT has_function_privilege(p.oid, 'EXECUTE'))";

/// One kind of relation: what to ask, and what to say.
struct Kind {
    estimate: &'static str,
    code: &'static str,
    message: &'static str,
    action: MaintenanceAction,
    /// The bytes for nothing of one relation, measured by reading all of it.
    exact: fn(schema: &str, oid: u64) -> String,
}

const KINDS: [Kind; 3] = [
    Kind {
        estimate: TABLES,
        code: "table.bloat",
        message: "much of the table is empty, and only a rewrite gives it back to the disk",
        action: MaintenanceAction::VacuumFull,
        exact: free_room,
    },
    Kind {
        estimate: TOAST,
        code: "table.toast_bloat",
        message: "much of what the table keeps aside (TOAST) is empty, and only a rewrite gives it back to the disk",
        action: MaintenanceAction::VacuumFull,
        exact: free_room,
    },
    Kind {
        estimate: INDEXES,
        code: "index.bloat",
        message: "much of the index is empty",
        action: MaintenanceAction::Reindex,
        // Density is a percentage of the leaf pages; NaN in an index without any.
        exact: |schema, oid| {
            format!(
                "SELECT index_size, CASE WHEN avg_leaf_density BETWEEN 0 AND 100 THEN greatest(index_size * \
                 (1 - avg_leaf_density / 90), 0) ELSE 0 END::bigint FROM {schema}.pgstatindex({oid}::regclass)"
            )
        },
    },
];

/// What a table, or what it keeps aside, holds for nothing.
fn free_room(schema: &str, oid: u64) -> String {
    format!("SELECT table_len, dead_tuple_len + free_space FROM {schema}.pgstattuple({oid})")
}

/// Tables and indexes that hold more for nothing than the limits allow.
pub(crate) async fn findings(session: &Session, limits: &MaintenanceLimits) -> Result<Vec<MaintenanceFinding>> {
    let exact = session.rows(EXACT).await?;
    let schema = exact.first().map(|row| text(row, 0).map(identifier)).transpose()?;
    let mut findings = Vec::new();
    for kind in &KINDS {
        for row in session.rows(&format!("{} WHERE pages > 0 ORDER BY name", kind.estimate)).await? {
            let estimated = (float(&row, 2)?, float(&row, 3)?);
            if !is_much(estimated, limits) {
                continue;
            }
            let measured = match &schema {
                Some(schema) => measured(session, &(kind.exact)(schema, number(&row, 0)?)).await?,
                None => None,
            };
            let (size, bloat) = measured.unwrap_or(estimated);
            if is_much((size, bloat), limits) {
                let method = if measured.is_some() { "measured" } else { "estimated" };
                let message = format!("{} ({method})", kind.message);
                let finding = MaintenanceFinding::new(kind.code, text(&row, 1)?, &message, kind.action);
                let finding = finding.with("size_bytes", size).with("bloat_bytes", bloat);
                findings.push(finding.with("bloat_ratio", bloat / size.max(1.0)));
            }
        }
    }
    Ok(findings)
}

/// Size and bloat by reading all of the relation; nothing where somebody holds it or dropped it, and the estimate stands.
async fn measured(session: &Session, sql: &str) -> Result<Option<(f64, f64)>> {
    match session.row(sql).await {
        Ok(row) => Ok(Some((float(&row, 0)?, float(&row, 1)?))),
        Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_much((size, bloat): (f64, f64), limits: &MaintenanceLimits) -> bool {
    // A size of more than 2^52 bytes would be rounded; no limit is that fine.
    let bytes_min = limits.bloat_bytes_min as f64;
    bloat >= bytes_min && bloat / size.max(1.0) >= limits.bloat_ratio_min
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_must_be_passed() {
        let limits = MaintenanceLimits::new().with_bloat_bytes_min(100).with_bloat_ratio_min(0.5);
        assert!(is_much((200.0, 100.0), &limits));
        assert!(!is_much((198.0, 99.0), &limits) && !is_much((300.0, 149.0), &limits) && !is_much((0.0, 0.0), &limits));
    }
}
