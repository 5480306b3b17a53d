//! What the catalogs and the statistics say of tables and indexes.

use stackkit_core::Result;
use tokio_postgres::SimpleQueryRow;

use crate::client::{Session, text};
use crate::error::PostgresError;
use crate::maintenance::bloat;
use crate::maintenance::finding::{MaintenanceFinding, MaintenanceFindings};
use crate::maintenance::limits::MaintenanceLimits;
use crate::maintenance::task::MaintenanceAction;

/// Tables of users with what the statistics count: name, live rows, dead rows, age in seconds of the last vacuum and
/// analyze (NULL for never), changes since the last analyze.
const TABLES: &str = "SELECT format('%I.%I', s.schemaname, s.relname), s.n_live_tup, s.n_dead_tup, \
    extract(epoch FROM now() - greatest(s.last_vacuum, s.last_autovacuum)), \
    extract(epoch FROM now() - greatest(s.last_analyze, s.last_autoanalyze)), s.n_mod_since_analyze \
    FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid \
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' ORDER BY 1";

/// Partitioned tables as [`TABLES`] has others: rows and changes are those of their partitions, and there is nothing to
/// vacuum. A partition that was analyzed since has changed. Versions before 14 keep no such statistics.
const PARENTS: &str = "SELECT format('%I.%I', p.schemaname, p.relname), sum(l.n_live_tup), 0, 0, \
    extract(epoch FROM now() - greatest(p.last_analyze, p.last_autoanalyze)), \
    sum(l.n_mod_since_analyze) + count(*) FILTER (WHERE greatest(l.last_analyze, l.last_autoanalyze) \
        > greatest(p.last_analyze, p.last_autoanalyze)) \
    FROM pg_stat_user_tables p JOIN pg_class c ON c.oid = p.relid AND c.relkind = 'p', pg_partition_tree(p.relid) t \
    JOIN pg_stat_user_tables l ON l.relid = t.relid WHERE t.isleaf \
    GROUP BY p.relid, p.schemaname, p.relname, p.last_analyze, p.last_autoanalyze ORDER BY 1";

/// The oldest unfrozen transaction and multixact of each table and what it keeps aside; catalogs too.
const AGES: &str = "SELECT format('%I.%I', n.nspname, c.relname), \
    greatest(age(c.relfrozenxid), age(t.relfrozenxid)), greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid)) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.oid = c.reltoastrelid \
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' ORDER BY 1";

/// Indexes that are not valid, and on whose table nobody is working: a build under way looks the same.
const INVALID: &str = "SELECT format('%I.%I', n.nspname, c.relname), c.relpages * current_setting('block_size')::float8, \
    c.relname ~ '_cc(new|old)[0-9]*$' FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' \
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid AND n.nspname <> 'pg_toast' \
    AND NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.relation = i.indrelid AND l.mode = 'ShareUpdateExclusiveLock' \
        AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1";

/// Indexes that were never read since the statistics began, and that enforce nothing.
const UNUSED: &str = "SELECT format('%I.%I', s.schemaname, s.indexrelname), \
    c.relpages * current_setting('block_size')::float8, \
    (SELECT extract(epoch FROM now() - coalesce(d.stats_reset, pg_postmaster_start_time())) FROM pg_stat_database d \
        WHERE d.datname = current_database()) \
    FROM pg_stat_user_indexes s JOIN pg_index i ON i.indexrelid = s.indexrelid JOIN pg_class c ON c.oid = s.indexrelid \
    WHERE s.idx_scan = 0 AND i.indisvalid AND NOT i.indisunique AND NOT i.indisexclusion AND c.relpersistence <> 't' \
    AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid) \
    AND NOT EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = i.indexrelid) ORDER BY 1";

/// Pairs of indexes that are the same but for their names; the first of each can go. The one that enforces something
/// stays, else the older.
const DUPLICATE: &str = "WITH i AS (SELECT x.indexrelid, x.indrelid, x.indisunique, \
        format('%I.%I', n.nspname, c.relname) AS name, c.relpages * current_setting('block_size')::float8 AS size, \
        EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.indexrelid) AS bound, \
        row(c.relam, x.indnatts, x.indnkeyatts, x.indkey::text, x.indclass::text, x.indcollation::text, x.indoption::text, \
            pg_get_expr(x.indexprs, x.indrelid), pg_get_expr(x.indpred, x.indrelid))::text AS shape \
        FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid AND c.relkind = 'i' \
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE x.indisvalid AND c.relpersistence <> 't' \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
        AND NOT EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = x.indexrelid)) \
    SELECT DISTINCT ON (d.name) d.name, d.size, k.name FROM i d JOIN i k ON k.indrelid = d.indrelid \
        AND k.shape = d.shape AND k.indexrelid <> d.indexrelid \
    WHERE NOT d.bound AND (k.indisunique OR NOT d.indisunique) \
    AND (d.indexrelid > k.indexrelid OR k.bound OR k.indisunique AND NOT d.indisunique) ORDER BY d.name, k.indexrelid";

/// How many tables have no statistics that this role may read: their bloat can't be estimated.
const UNKNOWN: &str = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relpages > 0 \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND EXISTS (SELECT 1 FROM pg_attribute a \
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT EXISTS (SELECT 1 FROM pg_stats s \
            WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited))";

/// The number in column `index` of `row`.
pub(crate) fn float(row: &SimpleQueryRow, index: usize) -> Result<f64> {
    Ok(text(row, index)?.parse().map_err(|_not_a_number| PostgresError::Answer("a number"))?)
}

/// The number in column `index` of `row`, if it is not NULL.
fn maybe(row: &SimpleQueryRow, index: usize) -> Result<Option<f64>> {
    row.get(index).map(|_value| float(row, index)).transpose()
}

/// All there is to find, by code and relation.
pub(crate) async fn all(session: &Session, limits: &MaintenanceLimits) -> Result<MaintenanceFindings> {
    let mut findings = bloat::findings(session, limits).await?;
    for row in session.rows(&format!("{TABLES}; {PARENTS}")).await? {
        findings.extend(table(&row, limits)?);
    }
    for row in session.rows(AGES).await? {
        findings.extend(age(&row, limits)?);
    }
    for row in session.rows(INVALID).await? {
        findings.push(invalid(&row)?);
    }
    for row in session.rows(UNUSED).await? {
        findings.extend(unused(&row, limits)?);
    }
    for row in session.rows(DUPLICATE).await? {
        findings.push(duplicate(&row)?);
    }
    findings.sort_by(|a, b| (&a.code, &a.relation).cmp(&(&b.code, &b.relation)));
    let unknown = float(&session.row(UNKNOWN).await?, 0)?;
    let note =
        format!("the bloat of {unknown} tables can't be estimated: they have no statistics that this role may read");
    let notes = (unknown > 0.0).then_some(note).into_iter().collect();
    Ok(MaintenanceFindings { findings, notes })
}

fn table(row: &SimpleQueryRow, limits: &MaintenanceLimits) -> Result<Vec<MaintenanceFinding>> {
    let (name, live, dead) = (text(row, 0)?, float(row, 1)?, float(row, 2)?);
    let (vacuumed, analyzed, changes) = (maybe(row, 3)?, maybe(row, 4)?, float(row, 5)?);
    if live + dead < limits.rows_min as f64 {
        return Ok(Vec::new());
    }
    let new = |code, message, action| {
        let finding = MaintenanceFinding::new(code, name, message, action);
        finding.with("live_rows_count", live).with("dead_rows_count", dead)
    };
    let age_max = limits.age_max.as_secs_f64();
    let mut findings = Vec::new();
    if dead / (live + dead) >= limits.dead_ratio_min {
        let finding = new("table.dead_rows", "many rows are dead", MaintenanceAction::VacuumAnalyze);
        findings.push(finding.with("dead_ratio", dead / (live + dead)));
    }
    match vacuumed {
        None => {
            let message = "never vacuumed since the statistics began";
            findings.push(new("table.never_vacuumed", message, MaintenanceAction::VacuumAnalyze));
        }
        Some(age) if age > age_max && dead > 0.0 => {
            let finding = new("table.vacuum_old", "last vacuumed long ago", MaintenanceAction::VacuumAnalyze);
            findings.push(finding.with("age_seconds", age));
        }
        Some(_recent) => {}
    }
    match analyzed {
        None => {
            let message = "never analyzed since the statistics began";
            findings.push(new("table.never_analyzed", message, MaintenanceAction::Analyze));
        }
        Some(age) if age > age_max && changes > 0.0 => {
            let finding = new("table.analyze_old", "last analyzed long ago", MaintenanceAction::Analyze);
            findings.push(finding.with("age_seconds", age).with("changes_count", changes));
        }
        Some(_recent) => {}
    }
    Ok(findings)
}

fn age(row: &SimpleQueryRow, limits: &MaintenanceLimits) -> Result<Option<MaintenanceFinding>> {
    let (name, transactions, multixacts) = (text(row, 0)?, float(row, 1)?, float(row, 2)?);
    let message = "transaction ids run out: the table was not frozen for long";
    let finding = MaintenanceFinding::new("table.wraparound", name, message, MaintenanceAction::VacuumFreeze)
        .with("age_transactions", transactions)
        .with("age_multixacts", multixacts);
    Ok((transactions.max(multixacts) >= limits.wraparound_age_min as f64).then_some(finding))
}

fn invalid(row: &SimpleQueryRow) -> Result<MaintenanceFinding> {
    let (name, is_left_over) = (text(row, 0)?, text(row, 2)? == "t");
    let (message, action) = match is_left_over {
        true => ("left over from a concurrent rebuild that failed", MaintenanceAction::DropInvalidIndex),
        false => ("not valid: no query uses it, but each write pays for it", MaintenanceAction::Reindex),
    };
    Ok(MaintenanceFinding::new("index.invalid", name, message, action).with("size_bytes", float(row, 1)?))
}

fn unused(row: &SimpleQueryRow, limits: &MaintenanceLimits) -> Result<Option<MaintenanceFinding>> {
    let (name, size) = (text(row, 0)?, float(row, 1)?);
    let message = "not read since the statistics began; standbys may read it";
    let finding = MaintenanceFinding::told("index.unused", name, message, &format!("DROP INDEX CONCURRENTLY {name}"));
    let finding = finding.with("size_bytes", size).with("watched_seconds", maybe(row, 2)?.unwrap_or_default().floor());
    Ok((size >= limits.unused_index_bytes_min as f64).then_some(finding))
}

fn duplicate(row: &SimpleQueryRow) -> Result<MaintenanceFinding> {
    let name = text(row, 0)?;
    let message = format!("the same as {}", text(row, 2)?);
    let command = format!("DROP INDEX CONCURRENTLY {name}");
    Ok(MaintenanceFinding::told("index.duplicate", name, &message, &command).with("size_bytes", float(row, 1)?))
}
