//! The database that a restore replaces: what it is, and whether it changed.

use stackkit_core::{Error, ErrorKind, Result};

use crate::census;
use crate::client::{Session, number, text};
use crate::config::PostgresConfig;
use crate::sql::{identifier, literal};
use crate::wire::{Wire, value};

/// Databases to be connected to while another one is created, renamed or dropped.
const MAINTENANCE_DATABASES: [&str; 2] = ["postgres", "template1"];

/// The fingerprint of a database that does not exist.
const ABSENT: &str = "absent";

/// The SQLSTATE of a full disk.
const DISK_FULL: &str = "53100";

/// How often a database is dropped while the disk is full. Each query may need a buffer, and fails if the next one holds
/// a page that can't be written, of the very database that is in the way; each try comes to another buffer.
const DROP_TRIES: u32 = 100;

/// The SQLSTATE of dropping a template (`wrong_object_type`).
const IS_TEMPLATE: &str = "42809";

/// What a session is prepared with that removes objects of a database that was restored: its settings may be read-only,
/// and event triggers may refuse. Only superusers may turn those off.
const PREPARE_DROP: &str = "SET default_transaction_read_only = off; \
    SELECT set_config('session_replication_role', 'replica', false) WHERE current_setting('is_superuser') = 'on'";

/// The number of the session's database, and whether its large objects may be read.
const WHICH: &str = "SELECT oid, has_table_privilege('pg_largeobject', 'SELECT') FROM pg_database \
    WHERE datname = current_database()";

/// What large objects there are.
const BLOBS_MADE: &str = "pg_largeobject_metadata";

/// The bytes of large objects.
const BLOBS: &str = "pg_largeobject";

/// How many tables are looked at in one round trip.
const TABLES_PER_QUERY: usize = 64;

/// Catalogs whose rows change when an object is created, altered or dropped, without those of temporary objects, which
/// come and go with any session. Statistics and page counts are updated in place or elsewhere, so `ANALYZE` and
/// autovacuum change nothing here; nor do the catalogs that only versions after 12 have count.
const CATALOGS: [&str; 32] = [
    "pg_class WHERE relpersistence <> 't'",
    "pg_attribute WHERE attrelid NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
    "pg_attrdef WHERE adrelid NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
    "pg_constraint WHERE conrelid NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
    "pg_index WHERE indrelid NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
    "pg_trigger WHERE tgrelid NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
    "pg_rewrite WHERE ev_class NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
    "pg_sequence WHERE seqrelid NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
    "pg_policy WHERE polrelid NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
    "pg_type WHERE typnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_')",
    "pg_proc WHERE pronamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_temp_')",
    "pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'",
    "pg_amop",
    "pg_amproc",
    "pg_cast",
    "pg_collation",
    "pg_conversion",
    "pg_default_acl",
    "pg_description",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    BLOBS_MADE,
    "pg_operator",
    "pg_publication",
    "pg_publication_rel",
    "pg_statistic_ext",
    "pg_ts_config",
    "pg_ts_config_map",
    "pg_ts_dict",
];

/// A connection for commands about databases, to one that is not the target.
pub(crate) async fn open_admin(config: &PostgresConfig) -> Result<Session> {
    open_admin_beside(config, &[&config.database]).await
}

/// A connection for commands about databases, to one that is none of these.
pub(crate) async fn open_admin_beside(config: &PostgresConfig, databases: &[&str]) -> Result<Session> {
    let mut last = Error::new(ErrorKind::NotFound, "there is no maintenance database to connect to");
    for database in MAINTENANCE_DATABASES.iter().filter(|name| !databases.contains(*name)) {
        match Session::open_long(config, database).await {
            Ok(session) => return Ok(session),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A database that exists.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) size_bytes: u64,
    /// Whether the role may rename it.
    pub(crate) is_owned: bool,
    /// What follows the name in a statement that creates one like it.
    pub(crate) options: String,
}

/// The database `name`, if it exists.
pub(crate) async fn find(admin: &Session, name: &str) -> Result<Option<Target>> {
    // Through JSON, because the columns of the locale differ between versions. The default tablespace is not named:
    // naming it asks for a right on it, which only superusers have.
    let sql = format!(
        "SELECT pg_database_size(d.oid), pg_has_role(d.datdba, 'USAGE'), \
         format(' WITH TEMPLATE = template0 OWNER = %I ENCODING = %L', \
             pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding)) \
         || coalesce((SELECT format(' TABLESPACE = %I', t.spcname) FROM pg_tablespace t \
             WHERE t.oid = d.dattablespace AND t.spcname <> 'pg_default'), '') \
         || format(' LC_COLLATE = %L LC_CTYPE = %L', d.datcollate, d.datctype) \
         || CASE j ->> 'datlocprovider' WHEN 'c' THEN ' LOCALE_PROVIDER = libc' \
             WHEN 'i' THEN format(' LOCALE_PROVIDER = icu ICU_LOCALE = %L', \
                 coalesce(j ->> 'datlocale', j ->> 'daticulocale')) \
             WHEN 'b' THEN format(' LOCALE_PROVIDER = builtin BUILTIN_LOCALE = %L', j ->> 'datlocale') ELSE '' END \
         || coalesce(' ICU_RULES = ' || quote_literal(nullif(j ->> 'daticurules', '')), '') \
         FROM pg_database d, to_jsonb(d) j WHERE d.datname = {}",
        literal(name)
    );
    let rows = admin.rows(&sql).await?;
    let read = |row| {
        let options = text(row, 2)?.to_owned();
        Ok(Target { size_bytes: number(row, 0)?, is_owned: text(row, 1)? == "t", options })
    };
    rows.first().map(read).transpose()
}

/// The server's own number of the database `name`, which it keeps when it is renamed.
pub(crate) async fn oid(admin: &Session, name: &str) -> Result<Option<String>> {
    let rows = admin.rows(&format!("SELECT oid FROM pg_database WHERE datname = {}", literal(name))).await?;
    rows.first().map(|row| Ok(text(row, 0)?.to_owned())).transpose()
}

/// The comment of the database `name`, if it has one.
pub(crate) async fn comment(admin: &Session, name: &str) -> Result<Option<String>> {
    let name = literal(name);
    let sql = format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {name}");
    Ok(admin.rows(&sql).await?.first().and_then(|row| row.get(0)).map(str::to_owned))
}

/// What hangs on the database `name` itself, and stays with it when another one takes its place: logical replication
/// slots, and subscriptions that have one or take changes. A subscription that does neither does nothing.
pub(crate) async fn bound(admin: &Session, name: &str) -> Result<Vec<String>> {
    let name = literal(name);
    let sql = format!(
        "SELECT 'the replication slot ' || slot_name FROM pg_replication_slots WHERE database = {name} \
         UNION ALL SELECT 'the subscription ' || s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = {name} AND (s.subenabled OR s.subslotname IS NOT NULL) ORDER BY 1"
    );
    admin.rows(&sql).await?.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect()
}

/// What the target is at this moment. Two fingerprints are equal only if no row was inserted, updated or deleted and no
/// object changed in between.
///
/// It counts rows and adds up their `xmin`, the transaction that wrote a row, which no vacuum changes: 1.7 times the
/// cost of counting. Later transactions have higher numbers, so with as many rows the sum can only have grown (but for 4 billion
/// transactions in between). The cumulative statistics would be cheaper, but lag by seconds. Values of sequences are not
/// part of it, nor the bytes of large objects where the role may not read `pg_largeobject`.
pub(crate) async fn fingerprint(config: &PostgresConfig) -> Result<String> {
    let session = match Session::open_long(config, &config.database).await {
        Ok(session) => session,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ABSENT.to_owned()),
        Err(error) => return Err(error),
    };
    let row = session.row(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {WHICH}")).await?;
    let mut tables: Vec<String> = CATALOGS.iter().map(ToString::to_string).collect();
    if text(&row, 1)? == "t" {
        tables.push(BLOBS.to_owned());
    }
    let relations = census::relations(&session).await?;
    tables.extend(relations.iter().map(|relation| format!("ONLY {}", relation.sql())));
    let mut facts = vec![text(&row, 0)?.to_owned()];
    for batch in tables.chunks(TABLES_PER_QUERY) {
        for (table, row) in batch.iter().zip(session.rows(&written(batch)).await?) {
            facts.push(format!("{table} {}", text(&row, 0)?));
        }
    }
    hash(&session, &facts.join("\n")).await
}

/// [`fingerprint`] of a part: the rows of `tables`, as SQL calls them, those of large objects if `blobs`, and every object of
/// the database. As the statements of the transaction see them that is open on `wire`.
pub(crate) async fn fingerprint_of(wire: &mut Wire, tables: &[String], blobs: bool) -> Result<String> {
    let first = wire.rows(WHICH).await?.pop().unwrap_or_default();
    let catalogs = CATALOGS.iter().filter(|catalog| blobs || **catalog != BLOBS_MADE).map(ToString::to_string);
    let mut all: Vec<String> = catalogs.collect();
    if blobs && value(&first, 1)? == "t" {
        all.push(BLOBS.to_owned());
    }
    all.extend(tables.iter().map(|table| format!("ONLY {table}")));
    let mut facts = vec![value(&first, 0)?.to_owned()];
    for batch in all.chunks(TABLES_PER_QUERY) {
        for (table, row) in batch.iter().zip(wire.rows(&written(batch)).await?) {
            facts.push(format!("{table} {}", value(&row, 0)?));
        }
    }
    let row = wire.rows(&hash_of(&facts.join("\n"))).await?.pop().unwrap_or_default();
    Ok(value(&row, 0)?.to_owned())
}

/// The query that tells how many rows each of `tables` has and what wrote them.
fn written(tables: &[String]) -> String {
    let one = |table: &String| format!("SELECT count(*) || ' ' || coalesce(sum(xmin::text::bigint), 0) FROM {table}");
    tables.iter().map(one).collect::<Vec<_>>().join(";")
}

/// A hash of what identifies something, by the server.
pub(crate) async fn hash(session: &Session, facts: &str) -> Result<String> {
    Ok(text(&session.row(&hash_of(facts)).await?, 0)?.to_owned())
}

fn hash_of(facts: &str) -> String {
    format!("SELECT encode(sha256(convert_to({}, 'UTF8')), 'hex')", literal(facts))
}

/// Whether a fingerprint is that of a database that does not exist.
pub(crate) fn is_absent(fingerprint: &str) -> bool {
    fingerprint == ABSENT
}

/// Ends every session of a database but those of autovacuum, which have no user: they make way by themselves, and only
/// a superuser may end them.
pub(crate) async fn end_sessions(admin: &Session, name: &str) -> Result<()> {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {} \
         AND pid <> pg_backend_pid() AND usesysid IS NOT NULL",
        literal(name)
    );
    admin.execute(&sql).await
}

/// Removes a database that a restore filled, with the subscriptions in it, which would keep the server from dropping it.
/// They never ran: a restore makes them disabled. A slot that they name is that of the target's own, and is left alone.
pub(crate) async fn drop_staging(config: &PostgresConfig, admin: &Session, name: &str) -> Result<()> {
    let sql = format!(
        "SELECT s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = {}",
        literal(name)
    );
    let subscriptions = admin.rows(&sql).await?;
    if !subscriptions.is_empty() {
        let session = Session::open_long(config, name).await?;
        session.execute(PREPARE_DROP).await?;
        for row in &subscriptions {
            let name = identifier(text(row, 0)?);
            let detach = format!("ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE)");
            session.execute(&format!("{detach}; DROP SUBSCRIPTION {name}")).await?;
        }
        session.close().await;
    }
    drop_database(admin, name).await
}

/// Removes a database, if it exists.
pub(crate) async fn drop_database(admin: &Session, name: &str) -> Result<()> {
    for _try in 1..DROP_TRIES {
        match try_drop(admin, name).await {
            Err(error) if error.code() == Some(DISK_FULL) => {}
            done => return done,
        }
    }
    try_drop(admin, name).await
}

async fn try_drop(admin: &Session, name: &str) -> Result<()> {
    end_sessions(admin, name).await?;
    let name = identifier(name);
    let drop = format!("DROP DATABASE IF EXISTS {name}");
    match admin.execute(&drop).await {
        Err(error) if error.code() == Some(IS_TEMPLATE) => {
            admin.execute(&format!("ALTER DATABASE {name} IS_TEMPLATE false")).await?;
            admin.execute(&drop).await
        }
        dropped => dropped,
    }
}
