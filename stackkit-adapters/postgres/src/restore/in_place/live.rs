//! What of the target a restore in place drops, and what hangs on it that the dump does not hold.

use stackkit_core::Result;

use super::around::KEY_AGAIN;
use super::parts::Parts;
use crate::sql::literal;
use crate::wire::{Row, Wire, value};

/// Catalogs whose objects have no name that is looked up here, and the kinds of entries that make them: where the dump
/// makes some of a kind, those that hang on something dropped are taken for these.
const BY_KIND: [(&str, &str); 13] = [
    ("pg_operator", "OPERATOR"),
    ("pg_opclass", "OPERATOR CLASS"),
    ("pg_opfamily", "OPERATOR FAMILY"),
    ("pg_amop", "OPERATOR FAMILY"),
    ("pg_amproc", "OPERATOR FAMILY"),
    ("pg_cast", "CAST"),
    ("pg_transform", "TRANSFORM"),
    ("pg_event_trigger", "EVENT TRIGGER"),
    ("pg_language", "PROCEDURAL LANGUAGE"),
    ("pg_ts_parser", "TEXT SEARCH PARSER"),
    ("pg_ts_template", "TEXT SEARCH TEMPLATE"),
    ("pg_conversion", "CONVERSION"),
    ("pg_foreign_data_wrapper", "FOREIGN DATA WRAPPER"),
];

/// Catalogs whose objects hang on two things, and the kinds of entries that make them, whose tags are known.
const BY_TAG: [(&str, &str); 2] = [("pg_publication_rel", "PUBLICATION TABLE"), ("pg_trigger", "TRIGGER")];

/// An object of the target that is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    class: String,
    pub(super) oid: String,
    /// As `DROP` calls it.
    pub(crate) kind: String,
    /// As SQL calls it.
    pub(crate) name: String,
    /// Whether this role may drop it.
    pub(crate) is_owned: bool,
    pub(crate) size_bytes: u64,
}

impl Live {
    pub(crate) fn drop(&self) -> String {
        format!("DROP {} IF EXISTS {} CASCADE", self.kind, self.name)
    }

    pub(super) fn is_relation(&self) -> bool {
        !matches!(self.kind.as_str(), "TYPE" | "DOMAIN" | "ROUTINE" | "AGGREGATE")
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "TABLE" | "FOREIGN TABLE")
    }
}

/// Something that goes with what is dropped, and that the dump does not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependent {
    class: String,
    /// The server's own words for it.
    pub(crate) what: String,
    /// The statement that makes it again; foreign keys only.
    pub(crate) again: Option<String>,
    /// Its name if it is a table, whose rows go with it.
    pub(super) table: Option<String>,
    /// The schema and the tag of the entry that makes it, if it is of [`BY_TAG`].
    tag: Option<(String, String)>,
}

impl Dependent {
    fn is_made_by(&self, parts: &Parts<'_>) -> bool {
        let (schema, tag) = self.tag.as_ref().map(|(schema, tag)| (schema.as_str(), tag.as_str())).unwrap_or_default();
        let by_tag = BY_TAG.iter().find(|(class, _)| *class == self.class);
        by_tag.is_some_and(|(_, kind)| parts.makes_tagged(kind, schema, tag))
            || BY_KIND.iter().any(|(class, kind)| *class == self.class && parts.makes(kind))
            || (self.class == "pg_opfamily" && parts.makes("OPERATOR CLASS"))
            || (self.class.starts_with("pg_am") && parts.makes("OPERATOR CLASS"))
    }
}

/// The relations, types and routines of `parts` that are there. Tables first: the sequence of an identity column goes with
/// its table, and not without it. Sizes are told if `sized`: measuring a table waits for who has locked it.
pub(crate) async fn objects(wire: &mut Wire, parts: &Parts<'_>, sized: bool) -> Result<Vec<Live>> {
    let pairs = |names: &[(&str, &str)]| {
        let pair = |(schema, name): &(&str, &str)| format!("({}, {})", literal(schema), literal(name));
        // No list may be empty; no object has an empty name.
        names.iter().map(pair).chain(["('', '')".to_owned()]).collect::<Vec<_>>().join(", ")
    };
    let routines: Vec<String> = parts.routines().into_iter().chain([""]).map(literal).collect();
    let sql = format!(
        "WITH found AS ( \
            SELECT 'pg_class'::regclass AS class, c.oid, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN \
                'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, \
                format('%I.%I', n.nspname, c.relname) AS name, c.relowner AS owner, \
                CASE WHEN {sized} AND c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) ELSE 0 END AS bytes \
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND (n.nspname, c.relname) IN ({relations}) \
            UNION ALL SELECT 'pg_type'::regclass, t.oid, CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, \
                format('%I.%I', n.nspname, t.typname), t.typowner, 0 \
            FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
            WHERE (n.nspname, t.typname) IN ({types}) AND (t.typrelid = 0 \
                OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')) \
            UNION ALL SELECT 'pg_proc'::regclass, p.oid, CASE p.prokind WHEN 'a' THEN 'AGGREGATE' ELSE 'ROUTINE' END, s.name, \
                p.proowner, 0 \
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, LATERAL (SELECT format('%I.%I(%s)', \
                n.nspname, p.proname, CASE WHEN p.prokind = 'a' AND p.pronargs = 0 THEN '*' \
                ELSE pg_get_function_identity_arguments(p.oid) END) AS name) s \
            WHERE s.name IN ({routines})) \
        SELECT class::oid, oid, kind, name, pg_has_role(owner, 'USAGE'), bytes FROM found f WHERE NOT EXISTS ( \
            SELECT FROM pg_depend d WHERE d.classid = f.class AND d.objid = f.oid AND d.deptype = 'e') \
         ORDER BY kind NOT IN ('TABLE', 'FOREIGN TABLE'), kind, name",
        relations = pairs(&parts.relations()),
        types = pairs(&parts.types()),
        routines = routines.join(", ")
    );
    wire.rows(&sql).await?.iter().map(live).collect()
}

fn live(row: &Row) -> Result<Live> {
    let text = |index| value(row, index).map(str::to_owned);
    Ok(Live {
        class: text(0)?,
        oid: text(1)?,
        kind: text(2)?,
        name: text(3)?,
        is_owned: value(row, 4)? == "t",
        size_bytes: value(row, 5)?.parse().unwrap_or_default(),
    })
}

/// What would go with `objects`: what hangs on them, directly or through others, and neither belongs to one of them (an
/// index, a trigger, the sequence of a column) nor is made by the dump.
pub(crate) async fn dependents(wire: &mut Wire, objects: &[Live], parts: &Parts<'_>) -> Result<Vec<Dependent>> {
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let values: Vec<String> = objects.iter().map(|live| format!("({}::oid, {}::oid)", live.class, live.oid)).collect();
    // A rule that makes a view is followed to its view, and the row of a key for a partition that it refers to up to the
    // key. Partitions belong to the table above them in the server's eyes, and hold rows: one that the dump does not make
    // is told; so is a trigger of another table that is fired for one of these. What belongs to something that is told goes
    // with it.
    let sql = format!(
        "WITH RECURSIVE dropped(class, oid) AS (VALUES {values}), \
        own(class, oid) AS (SELECT class, oid FROM dropped UNION SELECT d.classid, d.objid FROM own o \
            JOIN pg_depend d ON d.refclassid = o.class AND d.refobjid = o.oid AND d.deptype IN ('a', 'i', 'P', 'S') \
            WHERE NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid \
                AND c.relkind IN ('r', 'p', 'f'))) AND d.classid <> 'pg_publication_rel'::regclass \
                AND NOT (d.classid = 'pg_trigger'::regclass AND o.class = 'pg_class'::regclass \
                    AND EXISTS (SELECT FROM pg_trigger t WHERE t.oid = d.objid AND t.tgrelid <> o.oid \
                        AND NOT t.tgisinternal))), \
        gone(class, oid) AS (SELECT class, oid FROM dropped UNION SELECT x.class, x.oid FROM gone g, LATERAL ( \
            SELECT d.classid AS class, d.objid AS oid FROM pg_depend d WHERE d.refclassid = g.class \
                AND d.refobjid = g.oid AND d.deptype IN ('a', 'i', 'n', 'P', 'S') \
            UNION ALL SELECT d.refclassid, d.refobjid FROM pg_depend d WHERE g.class = 'pg_constraint'::regclass \
                AND d.classid = g.class AND d.objid = g.oid AND d.refclassid = g.class AND d.deptype = 'i' \
            UNION ALL SELECT 'pg_class'::regclass, r.ev_class FROM pg_rewrite r \
                WHERE g.class = 'pg_rewrite'::regclass AND r.oid = g.oid AND r.rulename = '_RETURN') x) \
        SELECT g.class::regclass::text, pg_describe_object(g.class, g.oid, 0), \
            CASE k.contype WHEN 'f' THEN {KEY_AGAIN} END, \
            (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                WHERE g.class = 'pg_class'::regclass AND c.oid = g.oid AND c.relkind IN ('r', 'p')), \
            tag.schema, tag.tag \
        FROM gone g LEFT JOIN pg_constraint k ON g.class = 'pg_constraint'::regclass AND k.oid = g.oid \
            AND k.conparentid = 0 \
        LEFT JOIN LATERAL (SELECT n.nspname AS schema, format('%s %s', p.pubname, c.relname) AS tag \
            FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid \
            JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE g.class = 'pg_publication_rel'::regclass AND r.oid = g.oid \
            UNION ALL SELECT n.nspname, format('%s %s', c.relname, t.tgname) FROM pg_trigger t \
            JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE g.class = 'pg_trigger'::regclass AND t.oid = g.oid) tag ON true \
        WHERE NOT EXISTS (SELECT FROM own o WHERE o.class = g.class AND o.oid = g.oid) \
            AND NOT EXISTS (SELECT FROM pg_depend d JOIN gone h ON h.class = d.refclassid AND h.oid = d.refobjid \
                WHERE d.classid = g.class AND d.objid = g.oid AND d.deptype IN ('a', 'i', 'P', 'S') \
                AND NOT EXISTS (SELECT FROM own o WHERE o.class = h.class AND o.oid = h.oid) \
                AND NOT (g.class = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = g.oid \
                    AND c.relkind IN ('r', 'p', 'f')))) \
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = g.class AND d.objid = g.oid \
                AND d.deptype IN ('i', 'P', 'S')) ORDER BY 2",
        values = values.join(", ")
    );
    let mut found = Vec::new();
    for row in wire.rows(&sql).await? {
        let dependent = Dependent {
            class: value(&row, 0)?.to_owned(),
            what: value(&row, 1)?.to_owned(),
            again: optional(&row, 2)?,
            table: optional(&row, 3)?,
            tag: optional(&row, 4)?.zip(optional(&row, 5)?),
        };
        if !dependent.is_made_by(parts) {
            found.push(dependent);
        }
    }
    Ok(found)
}

/// The text of a value that may be NULL.
fn optional(row: &Row, index: usize) -> Result<Option<String>> {
    let is_there = row.get(index).is_some_and(Option::is_some);
    Ok(is_there.then(|| value(row, index)).transpose()?.map(str::to_owned))
}
