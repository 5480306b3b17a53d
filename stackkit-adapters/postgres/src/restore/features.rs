//! What a dump uses that older servers do not know. Pure.

use super::script::qualified;
use crate::archive::Entry;
use crate::tools::Version;

/// What to look for in definitions of a kind (any if empty), what it is, and which server has it first. From the release
/// notes; only what `pg_dump` writes into definitions.
const FEATURES: [(&str, &str, &str, u32); 17] = [
    ("", "BEGIN ATOMIC", "a body in standard SQL", 14),
    ("TYPE", "MULTIRANGE_TYPE_NAME", "a named multirange type", 14),
    ("TABLE", "SET COMPRESSION ", "a compression method", 14),
    ("INDEX", " NULLS NOT DISTINCT", "NULLS NOT DISTINCT", 15),
    ("CONSTRAINT", " NULLS NOT DISTINCT", "NULLS NOT DISTINCT", 15),
    ("VIEW", "security_invoker", "the rights of the invoker", 15),
    ("PUBLICATION TABLES IN SCHEMA", "", "a publication of schemas", 15),
    ("PUBLICATION TABLE", " WHERE ", "a publication of some rows", 15),
    ("ACL", " ON PARAMETER ", "grants on parameters", 15),
    ("SUBSCRIPTION", "run_as_owner", "options of subscriptions", 16),
    ("ACL", "MAINTAIN", "the privilege MAINTAIN", 17),
    ("DATABASE", "LOCALE_PROVIDER = builtin", "the locale provider builtin", 17),
    ("COLLATION", "provider = builtin", "the locale provider builtin", 17),
    ("CONSTRAINT", " WITHOUT OVERLAPS", "a key over time", 18),
    ("FK CONSTRAINT", "PERIOD ", "a foreign key over time", 18),
    ("", " NOT ENFORCED", "a constraint that is not enforced", 18),
    ("STATISTICS DATA", "", "statistics", 18),
];

/// How many are told.
const SHOWN_MAX: usize = 10;

/// What `entries` use that a server of this version lacks.
pub(crate) fn lacking<'a>(entries: impl Iterator<Item = &'a Entry>, server: Version) -> Vec<String> {
    let major = server.0 / 10_000;
    let newer: Vec<_> = FEATURES.iter().filter(|(.., since)| *since > major).collect();
    let lacks = |entry: &'a Entry| {
        let has = |(kind, mark, ..): &&&(&str, &str, &str, u32)| {
            (kind.is_empty() || *kind == entry.kind) && (mark.is_empty() || entry.definition.contains(mark))
        };
        let (_, _, what, since) = newer.iter().find(has)?;
        Some(format!("a server of version {since} or newer: {} {} has {what}", entry.kind, qualified(entry)))
    };
    entries.filter_map(lacks).take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::samples::entry;

    #[test]
    fn only_what_the_server_lacks_is_told() {
        let mut key = entry(1, "CONSTRAINT");
        key.definition = "ALTER TABLE ONLY t\n    ADD CONSTRAINT k UNIQUE NULLS NOT DISTINCT (a);\n".to_owned();
        let plain = entry(2, "TABLE");
        let entries = [key, plain];
        let of = |version| lacking(entries.iter(), Version(version));
        assert_eq!(of(150_018), Vec::<String>::new());
        assert_eq!(of(140_001).len(), 1);
        assert!(of(140_001)[0].contains("version 15 or newer: CONSTRAINT"), "{:?}", of(140_001));
    }
}
