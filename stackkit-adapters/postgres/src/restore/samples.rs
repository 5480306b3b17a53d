//! Entries for tests.

use crate::archive::{Data, Entry, Section};

/// An entry of that kind, in the section that it has in archives.
pub(crate) fn entry(dump_id: i32, kind: &str) -> Entry {
    let section = match kind {
        "TABLE DATA" | "SEQUENCE SET" | "BLOBS" | "BLOB METADATA" => Section::Data,
        "INDEX" | "CONSTRAINT" | "FK CONSTRAINT" | "TRIGGER" | "RULE" | "MATERIALIZED VIEW DATA" | "EVENT TRIGGER" => {
            Section::PostData
        }
        "ACL" | "COMMENT" => Section::None,
        _ => Section::PreData,
    };
    Entry {
        dump_id,
        has_data: matches!(kind, "TABLE DATA" | "BLOBS"),
        table_oid: "0".to_owned(),
        oid: "0".to_owned(),
        tag: format!("x{dump_id}"),
        kind: kind.to_owned(),
        section,
        definition: format!("-- {dump_id}\n"),
        drop: String::new(),
        copy: String::new(),
        schema: Some("public".to_owned()),
        tablespace: None,
        access_method: None,
        relation_kind: 0,
        owner: String::new(),
        depends_on: Vec::new(),
        data: Data::File(String::new()),
    }
}
