use serde_json::{Value, json};
use stackkit_core::ErrorKind;

use super::*;

const GOLDEN: &str = include_str!("../../tests/golden/manifest-v1.json");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn open(document: Value) -> Result<Manifest> {
    Manifest::from_json(canonical::seal(document).unwrap().as_bytes())
}

#[test]
fn the_golden_file_of_version_1_is_read_and_written_byte_for_byte() {
    let manifest = Manifest::from_json(GOLDEN.as_bytes()).unwrap();
    assert_eq!(manifest.to_json().unwrap(), GOLDEN);
    assert_eq!(manifest.id.to_string(), "20261121T061530Z-9f3a1c02");
    assert_eq!(manifest.status, Status::Partial);
    let cache = manifest.service("cache").unwrap();
    assert_eq!(cache.census.as_ref().unwrap().value.count("keys.0"), 3);
    assert_eq!(cache.artifacts[0].info().plain_bytes, 1_048_577);
    assert_eq!(manifest.service("uploads").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(manifest.service("nothing").unwrap_err().kind(), ErrorKind::NotFound);
}

/// Every object at any depth gets a member that no version knows; counts and digests are maps of names, not objects
/// with fields.
fn with_unknown_members(name: &str, value: Value) -> Value {
    match value {
        Value::Object(members) if !matches!(name, "counts" | "digests") => {
            let members = members.into_iter().map(|(key, value)| (key.clone(), with_unknown_members(&key, value)));
            let mut members: Map<String, Value> = members.collect();
            members.insert("of_a_later_version".to_owned(), json!({ "n": [1, null, "x"] }));
            Value::Object(members)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| with_unknown_members(name, item)).collect()),
        other => other,
    }
}

#[test]
fn unknown_members_survive_at_every_level() {
    let text = canonical::seal(with_unknown_members("", golden())).unwrap();
    assert!(text.matches("of_a_later_version").count() >= 12);
    let rewritten = Manifest::from_json(text.as_bytes()).unwrap().to_json().unwrap();
    assert_eq!(rewritten, text);
}

#[test]
fn a_newer_schema_is_refused_as_incompatible() {
    let mut document = golden();
    document["schema"] = json!("stackkit.manifest/2");
    assert_eq!(open(document).unwrap_err().kind(), ErrorKind::Incompatible);
}

#[test]
fn schemes_of_later_versions_are_refused_as_incompatible() {
    for (field, scheme) in [("encryption", "age-v1"), ("compression", "lz4")] {
        let mut document = golden();
        document["services"][0]["artifacts"][0][field]["scheme"] = json!(scheme);
        let error = open(document).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains(scheme), "{error}");
    }
}

#[test]
fn a_manifest_that_points_elsewhere_is_refused() {
    for path in ["../../other/dump.rdb.zst", "/etc/passwd", "cache/other.zst"] {
        let mut document = golden();
        document["services"][0]["artifacts"][0]["path"] = json!(path);
        assert_eq!(open(document).unwrap_err().kind(), ErrorKind::Integrity, "{path}");
    }
    let mut document = golden();
    document["services"][0]["id"] = json!("../x");
    assert_eq!(open(document).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn an_edit_by_hand_is_found() {
    let edited = GOLDEN.replace("\"keys.0\": 3", "\"keys.0\": 4");
    assert_ne!(edited, GOLDEN);
    assert_eq!(Manifest::from_json(edited.as_bytes()).unwrap_err().kind(), ErrorKind::Integrity);
    let spaced = GOLDEN.replace("\": ", "\":  ");
    assert_eq!(Manifest::from_json(spaced.as_bytes()).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn names_are_unique_and_no_sum_overflows() {
    let refused = |change: fn(&mut Value)| {
        let mut document = golden();
        change(&mut document);
        open(document).unwrap_err().kind()
    };
    let damage = [
        refused(|document| {
            let first = document["services"][0].clone();
            document["services"].as_array_mut().unwrap().push(first);
        }),
        refused(|document| {
            let artifacts = &mut document["services"][0]["artifacts"];
            let first = artifacts[0].clone();
            artifacts.as_array_mut().unwrap().push(first);
        }),
        refused(|document| document["services"][0]["artifacts"][0]["stored"]["bytes"] = json!(u64::MAX)),
        refused(|document| document["services"][0]["artifacts"][0]["frames"]["index_offset"] = json!(u64::MAX)),
        refused(|document| {
            let artifact = &mut document["services"][0]["artifacts"][0];
            artifact["plain"]["bytes"] = json!(u64::MAX);
            let frame_bytes = artifact["frames"]["bytes"].as_u64().unwrap();
            artifact["frames"]["count"] = json!(u64::MAX.div_ceil(frame_bytes));
        }),
    ];
    assert_eq!(damage, [ErrorKind::Integrity; 5]);
}
