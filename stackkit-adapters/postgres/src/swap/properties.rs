//! What belongs to a database and stands outside of it.

use stackkit_core::Result;

use crate::client::{Session, text};
use crate::sql::literal;

/// Settings whose value is a list of quoted names: as one literal they would be one name.
const LIST_SETTINGS: &str =
    "('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries')";

/// Gives the database `to` what belongs to `from` itself: settings, those of roles in it too, grants, connection limit,
/// and whether it is a template. Owner, encoding and locale it has from its creation; the comment comes with the swap.
pub(super) async fn copy(admin: &Session, from: &str, to: &str) -> Result<()> {
    let statements = format!(
        "WITH d AS (SELECT * FROM pg_database WHERE datname = {from}), \
         s AS (SELECT r.setrole, c.name, c.value, c.name IN {LIST_SETTINGS} AS is_list, \
             CASE WHEN r.setrole = 0 THEN format('ALTER DATABASE %I', {to}) \
                 ELSE format('ALTER ROLE %I IN DATABASE %I', pg_get_userbyid(r.setrole), {to}) END AS head \
             FROM d JOIN pg_db_role_setting r ON r.setdatabase = d.oid, unnest(r.setconfig) u(pair), \
             LATERAL (SELECT split_part(pair, '=', 1) AS name, substr(pair, strpos(pair, '=') + 1) AS value) c) \
         SELECT CASE WHEN is_list \
             THEN format('SELECT pg_catalog.set_config(%L, %L, false); %s SET %I FROM CURRENT', \
                 name, value, head, name) ELSE format('%s SET %I TO %L', head, name, value) END FROM s \
         UNION ALL SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', {to}, datconnlimit) \
             FROM d WHERE datconnlimit <> -1 \
         UNION ALL SELECT format('ALTER DATABASE %I IS_TEMPLATE true', {to}) FROM d WHERE datistemplate \
         UNION ALL SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {to}) \
             FROM d WHERE datacl IS NOT NULL \
         UNION ALL SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, {to}, \
             CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, \
             CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) FROM d, aclexplode(d.datacl) a",
        from = literal(from),
        to = literal(to),
    );
    for row in admin.rows(&statements).await? {
        admin.execute(text(&row, 0)?).await?;
    }
    // The lists above were set in this session to be copied from it.
    admin.execute("RESET search_path; SET search_path = pg_catalog").await
}
