//! The sessions that a swap ends, and who is in its way.

use std::convert::Infallible;
use std::time::Duration;

use stackkit_core::{Error, ErrorKind, Result};

use crate::client::{Session, text};
use crate::sql::{identifier, literal};

/// The pause between two looks for sessions to end. A rename looks each 100 ms whether it is alone (`CountOtherDBBackends`).
const END_PAUSE: Duration = Duration::from_millis(25);

/// How many sessions, transactions or locks in the way an error names.
const SHOWN_MAX: usize = 5;

/// Who may end a session (`pg_signal_backend` in the server's signalfuncs.c): a superuser any, others never a superuser's.
const MAY_END: &str = "(me.rolsuper OR (NOT coalesce(r.rolsuper, false) \
    AND (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))))";

/// The sessions of databases. Those of autovacuum have no user: they make way by themselves.
fn sessions(oids: &[&str]) -> String {
    format!(
        "pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid, pg_roles me \
         WHERE me.rolname = current_user AND a.datid IN ({}) AND a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL",
        oids.join(", ")
    )
}

/// Refuses where a session is open that this role may not end: before any other is ended.
pub(super) async fn check(helper: &Session, oids: &[&str]) -> Result<()> {
    let sql = format!(
        "SELECT DISTINCT a.usename, coalesce(r.rolsuper, false), me.rolname FROM {} AND NOT {MAY_END} ORDER BY 1",
        sessions(oids)
    );
    let rows = helper.rows(&sql).await?;
    let Some(first) = rows.first() else { return Ok(()) };
    let (role, is_super, me) = (text(first, 0)?, text(first, 1)? == "t", text(first, 2)?);
    let grant = match is_super {
        true => "end it by hand, or restore as a superuser".to_owned(),
        false => format!("GRANT pg_signal_backend TO {}", identifier(me)),
    };
    let error = Error::new(ErrorKind::PermissionDenied, "a session of another role is open that this role may not end");
    Err(error.with_context("role", role).with_context("mend", grant))
}

/// Ends the sessions of databases again and again, as long as a database has the name `staging`: pooled clients come back, and
/// those that come when the swap is done stay. Never returns; to be dropped.
pub(super) async fn end_all(helper: &Session, oids: &[&str], staging: &str) -> Infallible {
    let sql = format!(
        "SELECT pg_terminate_backend(a.pid) FROM {} AND {MAY_END} \
         AND EXISTS (SELECT FROM pg_database WHERE datname = {})",
        sessions(oids),
        literal(staging)
    );
    loop {
        if let Err(error) = helper.execute(&sql).await {
            tracing::warn!(error = %error.chain(), "sessions can't be ended; the swap waits for them as long as the server does");
            return std::future::pending().await;
        }
        tokio::time::sleep(END_PAUSE).await;
    }
}

/// Says in `error` who is in the way: prepared transactions and sessions, or the holders of locks.
pub(super) async fn explain(helper: &Session, error: Error, oids: &[&str]) -> Error {
    let list = oids.join(", ");
    let asked = [
        (
            "prepared_transactions",
            format!(
                "SELECT gid FROM pg_prepared_xacts p JOIN pg_database d ON d.datname = p.database WHERE d.oid IN ({list})"
            ),
        ),
        ("sessions", format!("SELECT a.pid FROM {}", sessions(oids))),
        (
            "locked_by",
            format!(
                "SELECT l.pid FROM pg_locks l WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass \
                 AND l.objid IN ({list}) AND l.granted AND l.pid <> pg_backend_pid()"
            ),
        ),
    ];
    let mut error = error;
    for (name, sql) in asked {
        // The first error matters; that the reason can't be asked for is no news.
        let rows = helper.rows(&sql).await.unwrap_or_default();
        let found: Vec<&str> = rows.iter().filter_map(|row| row.get(0)).take(SHOWN_MAX).collect();
        if !found.is_empty() {
            error = error.with_context(name, found.join(", "));
        }
    }
    error
}
