//! The inventory: a round trip that tells what may be asked, and one that asks it.

use stackkit_core::health::{MeasurementValue, Tier};
use stackkit_core::{Observation, ProbeContext};

use super::catalogue::GRANT_HBA;
use super::{Fields, GRANT_MONITOR, NAMED_MAX, add, change_per, not_permitted, plain, share_of_growth, unavailable};

/// Pages (of 8 KiB) from which on an index is worth having and its absence worth knowing: 1 MiB.
const PAGES_LARGE: u32 = 128;

/// Unused indexes that are told by name.
const UNUSED_NAMED_MAX: u32 = 10;

/// Slow statements that are told by their id.
const STATEMENTS_NAMED_MAX: u32 = 5;

/// Extensions that are told; images with more than that many are not known.
const EXTENSIONS_MAX: u32 = 100;

/// Rows from which on the part of dead ones says something: autovacuum lets 50 and a fifth die.
const ROWS_FOR_RATIO: f64 = 10_000.0;

/// Seconds of the unit that growth is told in: a second's is no whole number.
const SECONDS_PER_HOUR: f64 = 3600.0;

/// A table of users, in `c` and `n`: materialized views are tables too.
const IS_TABLE: &str = "c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// Addresses that only this machine has, as `pg_hba.conf` spells them.
const HBA_LOCAL: &str = "'127.0.0.1', '::1', 'localhost', 'samehost'";

/// The first statement: one row about rights and settings.
///
/// A function or a relation that may not be used fails a whole statement, even where it is not reached, so the second
/// statement names only what this one allows.
pub(crate) fn facts_sql() -> String {
    let readable = "(c.relacl IS NULL OR has_table_privilege(c.oid, 'SELECT'))";
    format!(
        "SELECT pg_has_role('pg_read_all_stats', 'USAGE')::int AS sees_all, \
        has_function_privilege('pg_ls_waldir()', 'EXECUTE')::int AS lists_wal, \
        has_function_privilege('pg_hba_file_rules()', 'EXECUTE')::int AS reads_hba, \
        (SELECT rolsuper::int FROM pg_roles WHERE rolname = current_user) AS superuser, \
        current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes, \
        current_setting('synchronous_commit') AS synchronous_commit, \
        current_setting('password_encryption') AS password_encryption, current_setting('ssl') AS ssl, \
        (SELECT ssl::int FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS own_ssl, \
        (current_setting('pg_stat_statements.max', true) IS NOT NULL)::int AS statements_loaded, \
        (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
            JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'pg_stat_statements' \
            WHERE e.extname = 'pg_stat_statements' AND {readable} \
            AND has_schema_privilege(n.oid, 'USAGE')) AS statements_schema"
    )
}

/// The second statement of an inventory on a server of this major version that told `facts`.
pub(crate) fn inventory_sql(major: u32, facts: &Fields) -> String {
    let mut statements = vec![totals_sql(facts), tables_sql(), unused_sql(), extensions_sql()];
    statements.extend(facts.is("reads_hba").then(hba_sql));
    let schema = facts.text("statements_schema").filter(|_schema| can_read_statements(facts).is_ok());
    statements.extend(schema.map(|schema| statements_sql(major, schema)));
    statements.join("; ")
}

fn totals_sql(facts: &Fields) -> String {
    let wal = if facts.is("lists_wal") { "(SELECT sum(size) FROM pg_ls_waldir())" } else { "NULL" };
    let private = "client_addr <<= '127.0.0.0/8' OR client_addr <<= '10.0.0.0/8' OR client_addr <<= '172.16.0.0/12' \
        OR client_addr <<= '192.168.0.0/16' OR client_addr <<= '::1/128' OR client_addr <<= 'fc00::/7'";
    format!(
        "SELECT 'totals' AS kind, pg_database_size(current_database()) AS database_size_bytes, {wal} AS wal_size_bytes, \
        (SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indexrelid NOT IN \
            (SELECT index_relid FROM pg_stat_progress_create_index WHERE index_relid IS NOT NULL)) \
            AS indexes_invalid_count, \
        (SELECT count(*) FROM pg_settings WHERE pending_restart) AS settings_pending_restart_count, \
        (SELECT count(*) FROM pg_extension JOIN pg_available_extensions ON name = extname \
            WHERE extversion IS DISTINCT FROM default_version) AS extensions_outdated_count, \
        (SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE NOT ssl AND client_addr IS NOT NULL \
            AND NOT ({private})) AS clients_unencrypted_count, t.* \
        FROM (SELECT count(*) AS tables_count, \
            coalesce(sum(pg_stat_get_numscans(c.oid)) FILTER (WHERE relpages >= {PAGES_LARGE}), 0) \
                AS scans_sequential_count, \
            coalesce(sum((SELECT sum(pg_stat_get_numscans(indexrelid)) FROM pg_index WHERE indrelid = c.oid)) \
                FILTER (WHERE relpages >= {PAGES_LARGE}), 0) AS scans_index_count \
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {IS_TABLE}) t"
    )
}

/// The largest tables by the planner's page count. The exact size takes a lock that an `ALTER TABLE` or a `TRUNCATE` in an
/// open transaction keeps away, so a table that is locked so has none.
fn tables_sql() -> String {
    format!(
        "WITH held AS MATERIALIZED (SELECT DISTINCT relation FROM pg_locks \
            WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' \
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) \
        SELECT 'table' AS kind, name, CASE WHEN NOT locked THEN pg_total_relation_size(oid) END AS size, \
            coalesce(nullif(pg_stat_get_live_tuples(oid), 0), greatest(reltuples, 0)::bigint) AS live, \
            pg_stat_get_dead_tuples(oid) AS dead, \
            extract(epoch FROM now() - greatest(pg_stat_get_last_vacuum_time(oid), \
                pg_stat_get_last_autovacuum_time(oid))) AS vacuum_age \
        FROM (SELECT c.oid, n.nspname || '.' || c.relname AS name, c.reltuples, \
            c.oid IN (SELECT relation FROM held) OR c.reltoastrelid IN (SELECT relation FROM held) \
                OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid \
                    AND i.indexrelid IN (SELECT relation FROM held)) AS locked \
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {IS_TABLE} \
            ORDER BY c.relpages DESC, n.nspname, c.relname LIMIT {NAMED_MAX}) t"
    )
}

/// Large indexes that no query used. One that keeps values unique works without being read.
fn unused_sql() -> String {
    format!(
        "WITH unused AS MATERIALIZED (SELECT n.nspname || '.' || c.relname AS name, \
            c.relpages::bigint * current_setting('block_size')::bigint AS size \
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE c.relkind = 'i' AND c.relpages >= {PAGES_LARGE} AND NOT i.indisunique AND i.indisvalid \
            AND pg_stat_get_numscans(c.oid) = 0 AND n.nspname !~ '^pg_' \
            AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)) \
        SELECT 'unused' AS kind, NULL AS name, count(*) AS number, coalesce(sum(size), 0) AS size FROM unused \
        UNION ALL (SELECT 'index', name, NULL, size FROM unused ORDER BY size DESC, name LIMIT {UNUSED_NAMED_MAX})"
    )
}

fn extensions_sql() -> String {
    format!(
        "SELECT 'extension' AS kind, extname AS name, extversion AS version FROM pg_extension \
        ORDER BY extname LIMIT {EXTENSIONS_MAX}"
    )
}

fn hba_sql() -> String {
    let remote = format!("type <> 'local' AND address NOT IN ({HBA_LOCAL}) AND error IS NULL");
    format!(
        "SELECT 'hba' AS kind, count(*) FILTER (WHERE {remote} AND auth_method = 'trust') AS hba_trust_count, \
        count(*) FILTER (WHERE {remote} AND type <> 'hostssl' AND auth_method = 'password') AS hba_cleartext_count, \
        count(*) FILTER (WHERE {remote} AND auth_method = 'md5') AS hba_md5_count FROM pg_hba_file_rules()"
    )
}

/// The slowest statements of this database, by their id: their text may hold secrets. Ran once says little, so those that
/// ran more than once.
fn statements_sql(major: u32, schema: &str) -> String {
    let mean = if major >= 13 { "mean_exec_time" } else { "mean_time" };
    format!(
        "SELECT 'statement' AS kind, queryid AS name, max({mean}) / 1000 AS mean, sum(calls) AS calls \
        FROM {schema}.pg_stat_statements WHERE queryid IS NOT NULL AND calls > 1 \
        AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
        GROUP BY queryid ORDER BY 3 DESC LIMIT {STATEMENTS_NAMED_MAX}"
    )
}

/// Whether the statistics of statements are there, or why not.
fn can_read_statements(facts: &Fields) -> Result<(), MeasurementValue> {
    if !facts.is("sees_all") {
        return Err(not_permitted(GRANT_MONITOR));
    }
    if !facts.is("statements_loaded") {
        return Err(unavailable("pg_stat_statements is not in shared_preload_libraries"));
    }
    match facts.text("statements_schema") {
        Some(_) => Ok(()),
        None => Err(unavailable("the extension pg_stat_statements is not in this database, or not readable")),
    }
}

/// The columns of the row about unused indexes, and their metrics.
const UNUSED: [(&str, &str); 2] = [("number", "indexes_unused_count"), ("size", "indexes_unused_bytes")];

/// What the rows of an inventory say.
pub(crate) fn take_inventory(facts: &Fields, rows: &[Fields], cx: &ProbeContext) -> Observation {
    let mut totals = Fields::default();
    let mut observation = Observation::new();
    let mut reader = Named { cx, observation: Observation::new() };
    for row in rows {
        match row.text("kind") {
            Some("totals" | "hba") => totals.take(row, &[]),
            Some("unused") => totals.take(row, &UNUSED),
            _ => reader.take(row),
        }
    }
    for metric in plain(Tier::Inventory) {
        observation = add(observation, metric.name, None, total(metric.name, facts, &totals, cx));
    }
    reader.close(facts);
    observation.measurements.extend(reader.observation.measurements);
    observation.info.extend(reader.observation.info);
    observation
}

/// A number about the whole database, or why there is none.
fn total(name: &str, facts: &Fields, totals: &Fields, cx: &ProbeContext) -> MeasurementValue {
    let number = |name: &str| totals.number(name);
    let growth = |name: &str| number(name).map(|value| cx.growth(name, value));
    let derived = match name {
        "wal_size_bytes" if !facts.is("lists_wal") => Some(not_permitted(GRANT_MONITOR)),
        "clients_unencrypted_count" if !facts.is("sees_all") => Some(not_permitted(GRANT_MONITOR)),
        _ if name.starts_with("hba_") && !facts.is("reads_hba") => Some(not_permitted(GRANT_HBA)),
        "database_growth_per_hour_bytes" => number("database_size_bytes")
            .map(|value| change_per(cx, ("database_size_bytes", None), value, SECONDS_PER_HOUR)),
        "index_use_ratio" => growth("scans_index_count")
            .zip(growth("scans_sequential_count"))
            .map(|(index, whole)| share_of_growth(index, whole, "no large table was scanned since the last inventory")),
        _ => None,
    };
    let own = || number(name).map(MeasurementValue::from);
    derived.or_else(own).unwrap_or_else(|| unavailable("the server tells none"))
}

/// Reads the rows that have a name.
struct Named<'a> {
    cx: &'a ProbeContext,
    observation: Observation,
}

impl Named<'_> {
    fn add(&mut self, name: &str, label: Option<&str>, value: MeasurementValue) {
        self.observation = add(std::mem::take(&mut self.observation), name, label, value);
    }

    fn take(&mut self, row: &Fields) {
        let label = row.text("name");
        let number = |column: &str, missing: &str| {
            row.number(column).map_or_else(|| unavailable(missing), MeasurementValue::from)
        };
        match row.text("kind") {
            Some("table") => self.table(row),
            Some("index") => self.add("index_unused_bytes", label, number("size", "the server tells none")),
            Some("statement") => {
                self.add("statement_mean_seconds", label, number("mean", "the server tells none"));
                self.add("statement_calls_count", label, number("calls", "the server tells none"));
            }
            Some("extension") => {
                let version = row.text("version").unwrap_or_default();
                let observation = std::mem::take(&mut self.observation);
                self.observation = observation.info(format!("extension.{}", label.unwrap_or_default()), version);
            }
            _ => {}
        }
    }

    fn table(&mut self, row: &Fields) {
        let label = row.text("name");
        let number = |column: &str, missing: &str| {
            row.number(column).map_or_else(|| unavailable(missing), MeasurementValue::from)
        };
        let live = row.number("live").unwrap_or_default();
        let dead = row.number("dead").unwrap_or_default();
        let ratio = match live + dead >= ROWS_FOR_RATIO {
            true => (dead / (live + dead)).into(),
            false => unavailable("too few rows to tell"),
        };
        let growth = change_per(self.cx, ("table_rows_count", label), live, SECONDS_PER_HOUR);
        self.add("table_size_bytes", label, number("size", "the table is locked"));
        self.add("table_rows_count", label, number("live", "the server tells none"));
        self.add("table_growth_per_hour_count", label, growth);
        self.add("table_dead_ratio", label, ratio);
        self.add("table_vacuum_age_seconds", label, number("vacuum_age", "it was never vacuumed"));
    }

    /// Says of each metric that no row had why.
    fn close(&mut self, facts: &Fields) {
        for metric in super::METRICS.iter().filter(|metric| metric.tier == Tier::Inventory) {
            let is_there = self.observation.measurements.iter().any(|measurement| measurement.name == metric.name);
            if metric.labels.is_empty() || is_there {
                continue;
            }
            let statements = metric.name.starts_with("statement_").then(|| can_read_statements(facts).err()).flatten();
            self.add(metric.name, None, statements.unwrap_or_else(|| unavailable("there is none")));
        }
    }
}
