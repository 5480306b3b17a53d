//! What stands outside of databases, as SQL that `psql` runs: roles, memberships, tablespaces.
//!
//! The server itself quotes names and texts. A role that exists is only altered.

use stackkit_core::{Error, ErrorKind, Result};

use crate::options::Globals;
use crate::tools::Version;
use crate::wire::{Wire, value};

/// What the file begins with: names and texts are UTF-8, and no text means something else than it says.
const HEAD: &str = "-- Roles, memberships and tablespaces. Run it with psql, connected to any database, before the databases \
    are restored.\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\n";

/// Roles. The password is put in by [`roles`].
const ROLES: &str = "\
    SELECT format('DO %L;', format('BEGIN CREATE ROLE %I; EXCEPTION WHEN duplicate_object THEN NULL; END', rolname)) \
        || E'\\n' || format('ALTER ROLE %I WITH', rolname) \
        || CASE WHEN rolsuper THEN ' SUPERUSER' ELSE ' NOSUPERUSER' END \
        || CASE WHEN rolinherit THEN ' INHERIT' ELSE ' NOINHERIT' END \
        || CASE WHEN rolcreaterole THEN ' CREATEROLE' ELSE ' NOCREATEROLE' END \
        || CASE WHEN rolcreatedb THEN ' CREATEDB' ELSE ' NOCREATEDB' END \
        || CASE WHEN rolcanlogin THEN ' LOGIN' ELSE ' NOLOGIN' END \
        || CASE WHEN rolreplication THEN ' REPLICATION' ELSE ' NOREPLICATION' END \
        || CASE WHEN rolbypassrls THEN ' BYPASSRLS' ELSE ' NOBYPASSRLS' END \
        || ' CONNECTION LIMIT ' || rolconnlimit \
        || coalesce(' VALID UNTIL ' || quote_literal(rolvaliduntil), '') || {password} || ';' \
        || coalesce(E'\\n' || format('COMMENT ON ROLE %I IS ', rolname) \
            || quote_literal(shobj_description(oid, 'pg_authid')) || ';', '') \
    FROM {catalog} WHERE rolname !~ '^pg_' ORDER BY rolname";

/// Settings of roles in every database. Those that are lists hold quoted names already.
const SETTINGS: &str = "\
    SELECT format('ALTER ROLE %I SET %s TO %s;', r.rolname, quote_ident(name), CASE WHEN name IN ('search_path', \
            'local_preload_libraries', 'session_preload_libraries', 'shared_preload_libraries', 'temp_tablespaces', \
            'unix_socket_directories') THEN coalesce(nullif(text, ''), '''''') ELSE quote_literal(text) END) \
    FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c, \
        LATERAL (SELECT split_part(c, '=', 1) AS name, substr(c, strpos(c, '=') + 1) AS text) p \
    WHERE s.setdatabase = 0 AND r.rolname !~ '^pg_' ORDER BY r.rolname, name";

/// Who is a member of what; grants that others depend on come first.
const MEMBERSHIPS: &str = "\
    SELECT format('GRANT %I TO %I', r.rolname, m.rolname) || {options} \
        || coalesce(' GRANTED BY ' || quote_ident(g.rolname), '') || ';' \
    FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles r ON r.oid = a.roleid \
    JOIN pg_catalog.pg_roles m ON m.oid = a.member LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantor \
    WHERE NOT (r.rolname ~ '^pg_' AND m.rolname ~ '^pg_') ORDER BY {order}";

/// Tablespaces, with their options, grants and comments. Their directories must exist.
const TABLESPACES: &str = "\
    SELECT format('CREATE TABLESPACE %I OWNER %I LOCATION %L;', spcname, pg_get_userbyid(spcowner), \
            pg_tablespace_location(t.oid)) \
        || coalesce(E'\\n' || format('ALTER TABLESPACE %I SET (', spcname) || (SELECT string_agg(format('%s=%L', \
            split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') FROM unnest(spcoptions) o) || ');', '') \
        || coalesce((SELECT string_agg(E'\\n' || format('GRANT CREATE ON TABLESPACE %I TO %s%s;', spcname, \
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '') FROM aclexplode(spcacl) \
            WHERE grantee <> spcowner), '') \
        || coalesce(E'\\n' || format('COMMENT ON TABLESPACE %I IS ', spcname) \
            || quote_literal(shobj_description(t.oid, 'pg_tablespace')) || ';', '') \
    FROM pg_catalog.pg_tablespace t WHERE spcname !~ '^pg_' ORDER BY spcname";

/// Rights on settings, which came with 15.
const PARAMETERS: &str = "\
    SELECT format('GRANT %s ON PARAMETER %s TO %s%s;', privilege_type, quote_ident(parname), \
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
        CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
    FROM pg_catalog.pg_parameter_acl, aclexplode(paracl) WHERE grantee <> 10 ORDER BY 1";

/// The versions that brought rights on settings, and memberships with options of their own.
const PARAMETERS_SINCE: Version = Version(150_000);
const OPTIONS_SINCE: Version = Version(160_000);

/// The SQL, or nothing if it is not wanted.
///
/// # Errors
/// `PermissionDenied` if passwords are wanted and the role may not read them.
pub(super) async fn sql(wire: &mut Wire, wanted: Globals, version: Version) -> Result<Option<Vec<u8>>> {
    let queries = match wanted {
        Globals::Without => return Ok(None),
        Globals::WithoutPasswords => queries(version, false),
        Globals::WithPasswords => {
            let row = wire.rows("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')").await?.pop();
            if value(&row.unwrap_or_default(), 0)? != "t" {
                let message = "the role may not read the passwords of roles; dump them as a superuser, or without";
                return Err(Error::new(ErrorKind::PermissionDenied, message).with_code("postgres.globals.passwords"));
            }
            queries(version, true)
        }
    };
    let mut out = Vec::from(HEAD);
    for query in queries {
        for row in wire.rows(&query).await? {
            out.extend(row.first().and_then(Option::as_ref).map(|text| text.as_ref()).unwrap_or_default());
            out.push(b'\n');
        }
        out.push(b'\n');
    }
    Ok(Some(out))
}

fn queries(version: Version, passwords: bool) -> Vec<String> {
    let (catalog, password) = match passwords {
        true => ("pg_catalog.pg_authid", "coalesce(' PASSWORD ' || quote_literal(rolpassword), '')"),
        false => ("pg_catalog.pg_roles", "''"),
    };
    let (options, order) = match version >= OPTIONS_SINCE {
        true => (
            "format(' WITH ADMIN %s, INHERIT %s, SET %s', upper(a.admin_option::text), \
             upper(a.inherit_option::text), upper(a.set_option::text))",
            "a.oid",
        ),
        false => ("CASE WHEN a.admin_option THEN ' WITH ADMIN OPTION' ELSE '' END", "a.grantor <> 10, 1"),
    };
    let mut queries = vec![
        ROLES.replace("{password}", password).replace("{catalog}", catalog),
        SETTINGS.to_owned(),
        MEMBERSHIPS.replace("{options}", options).replace("{order}", order),
        TABLESPACES.to_owned(),
    ];
    queries.extend((version >= PARAMETERS_SINCE).then(|| PARAMETERS.to_owned()));
    queries
}
