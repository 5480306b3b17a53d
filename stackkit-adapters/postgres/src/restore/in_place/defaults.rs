//! Default privileges of the database while a restore makes its objects: they would be granted beside what the dump says,
//! to objects that it grants nothing on.

use std::collections::BTreeSet;

use stackkit_core::Result;

use super::parts::Parts;
use crate::wire::{Wire, value};

/// What the tag of an entry of default privileges begins with.
const TAG: &str = "DEFAULT PRIVILEGES FOR ";

/// Default privileges, each with the statements that take them away and those that give them again. Those for a schema come
/// on top of nothing, the others in the place of what is built in (`acldefault`). What is like that is no entry.
fn entries() -> String {
    format!(
        "WITH d AS (SELECT pg_get_userbyid(d.defaclrole) AS role, coalesce(n.nspname, '') AS schema, d.defaclacl AS acl, \
            CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' \
                WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END AS kind, \
            CASE WHEN n.oid IS NULL THEN acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' \
                ELSE d.defaclobjtype END, d.defaclrole) END AS plain, \
            format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s', pg_get_userbyid(d.defaclrole), \
                ' IN SCHEMA ' || quote_ident(n.nspname)) AS head \
            FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace) \
         SELECT role, schema, kind, role = current_user, {}, {} FROM d ORDER BY 1, 2, 3",
        change("acl", "plain"),
        change("plain", "acl")
    )
}

/// The expression for the statements that turn the privileges `from` into `to`.
fn change(from: &str, to: &str) -> String {
    let who = "CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END";
    format!(
        "concat_ws('; ', (SELECT string_agg(format('%s REVOKE ALL ON %s FROM %s', head, kind, {who}), '; ') \
            FROM (SELECT DISTINCT grantee FROM aclexplode({from})) x), \
         (SELECT string_agg(format('%s GRANT %s ON %s TO %s%s', head, rights, kind, {who}, \
                CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END), '; ') \
            FROM (SELECT grantee, is_grantable, string_agg(privilege_type, ', ') AS rights FROM aclexplode({to}) \
                GROUP BY 1, 2) x))"
    )
}

/// Takes away what would be granted to all that this role makes, and what the dump gives again if `privileges` are restored.
/// Gives the statements that give the rest again in the end.
pub(super) async fn set_aside(wire: &mut Wire, parts: &Parts<'_>, privileges: bool) -> Result<Vec<String>> {
    let of_dump = parts.replaced.iter().filter(|entry| privileges && entry.kind == "DEFAULT ACL");
    let of_dump: BTreeSet<(&str, &str, &str)> = of_dump
        .map(|entry| {
            let kind = entry.tag.strip_prefix(TAG).unwrap_or_default();
            (entry.owner.as_str(), entry.schema.as_deref().unwrap_or_default(), kind)
        })
        .collect();
    let mut again = Vec::new();
    for row in wire.rows(&entries()).await? {
        let is_of_dump = of_dump.contains(&(value(&row, 0)?, value(&row, 1)?, value(&row, 2)?));
        if !is_of_dump && value(&row, 3)? != "t" {
            continue;
        }
        wire.execute(value(&row, 4)?.as_bytes()).await?;
        if !is_of_dump {
            again.push(value(&row, 5)?.to_owned());
        }
    }
    Ok(again)
}
