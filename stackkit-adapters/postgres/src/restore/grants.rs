//! The roles that grants of an archive name, and those that the SQL of a cluster's roles makes. Pure.

use crate::archive::Entry;
use crate::sql::identifier;

/// Everybody, which is no role.
const PUBLIC: &str = "PUBLIC";

/// The roles that an entry with grants names: to whom something is granted or revoked, and who grants.
pub(crate) fn roles(entry: &Entry) -> Vec<String> {
    let statement = |line: &str| {
        let line = line.trim().strip_suffix(';')?;
        let line = line.strip_suffix(" WITH GRANT OPTION").unwrap_or(line);
        let after = |word: &str| line.rfind(word).map(|at| &line[at + word.len()..]);
        let name = match line.split(' ').next()? {
            "GRANT" => after(" TO ")?,
            "REVOKE" => after(" FROM ")?,
            "SET" => line.strip_prefix("SET SESSION AUTHORIZATION ")?,
            "ALTER" => after(" TO ").or_else(|| after(" FROM "))?,
            _ => return None,
        };
        (name != PUBLIC && name != "DEFAULT").then(|| unquoted(name))
    };
    entry.definition.lines().filter_map(statement).collect()
}

/// A name as it is, of one that may be quoted.
fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// The statements that make roles.
pub(crate) struct Roles(Vec<String>);

impl Roles {
    /// Reads the SQL of a cluster's roles, one statement a line.
    pub(crate) fn parse(sql: &str) -> Self {
        let is_role = |line: &&str| line.starts_with("CREATE ROLE ") || line.starts_with("ALTER ROLE ");
        Self(sql.lines().filter(is_role).map(str::to_owned).collect())
    }

    /// What makes a role, without a hash of its password.
    pub(crate) fn statement(&self, role: &str) -> Option<String> {
        let quoted = identifier(role);
        let of = |line: &&String| {
            let rest = line.strip_prefix("CREATE ROLE ").or_else(|| line.strip_prefix("ALTER ROLE "));
            let names = |name: &str| {
                rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with([';', ' ']))
            };
            names(role) || names(&quoted)
        };
        let found: Vec<String> = self.0.iter().filter(of).map(|line| without_password(line)).collect();
        (!found.is_empty()).then(|| found.join(" "))
    }
}

fn without_password(line: &str) -> String {
    match line.split_once(" PASSWORD ") {
        Some((head, _hash)) => format!("{head};"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::samples::entry;

    #[test]
    fn every_form_of_a_grant_names_its_roles() {
        let mut grants = entry(1, "ACL");
        grants.definition =
            "REVOKE ALL ON TABLE t FROM PUBLIC;\nGRANT SELECT ON TABLE t TO \"a \"\"b\" WITH GRANT OPTION;\n\
            SET SESSION AUTHORIZATION owner;\nGRANT ALL ON TABLE t TO app;\nRESET SESSION AUTHORIZATION;\n"
                .to_owned();
        assert_eq!(roles(&grants), ["a \"b", "owner", "app"]);
    }

    #[test]
    fn passwords_are_not_shown() {
        let roles = Roles::parse(
            "CREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'SCRAM-SHA-256$x';\nCREATE ROLE \"a b\";\n",
        );
        assert_eq!(roles.statement("app").as_deref(), Some("CREATE ROLE app; ALTER ROLE app WITH LOGIN;"));
        assert_eq!(roles.statement("a b").as_deref(), Some("CREATE ROLE \"a b\";"));
        assert_eq!(roles.statement("ap"), None);
    }
}
