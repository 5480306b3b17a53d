//! Canonical JSON: one text for one value, and a checksum inside it.
//!
//! Keys are sorted by their bytes, two spaces of indentation, a line feed at the end, no floating-point numbers. The
//! member `checksum` holds the BLAKE3 of the canonical text without that member, so every change of a byte shows. It
//! guards against accidents; against forgery there is the signature.

use serde_json::{Map, Value, json};
use stackkit_core::{Error, Result};

use crate::keys::{SigningKey, TrustedKey, hex};

/// The member that holds the checksum.
const CHECKSUM: &str = "checksum";

/// The member that holds a signature, in documents that carry their own.
const SIGNATURE: &str = "signature";

/// `value` with its keys sorted, whatever order the map of `serde_json` keeps in this build.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn is_sorted(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.keys().is_sorted() && members.values().all(is_sorted),
        Value::Array(items) => items.iter().all(is_sorted),
        _ => true,
    }
}

fn text(value: &Value) -> Result<String> {
    let written = match is_sorted(value) {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string_pretty(&sorted(value)),
    };
    let mut text = written.map_err(|e| Error::unexpected("a document can't be written as JSON").with_source(e))?;
    text.push('\n');
    Ok(text)
}

/// Writes a document with its checksum.
///
/// # Errors
/// `Unexpected` if it is not an object.
pub(crate) fn seal(document: Value) -> Result<String> {
    let Value::Object(mut members) = document else {
        return Err(Error::unexpected("a document must be a JSON object"));
    };
    members.remove(CHECKSUM);
    let mut document = Value::Object(members);
    let hash = blake3::hash(text(&document)?.as_bytes()).to_hex();
    document[CHECKSUM] = json!({ "blake3": hash.as_str() });
    text(&document)
}

/// As [`seal`], with a signature inside if there is a key: the member `signature` is the key and its signature over the
/// canonical text without the members `signature` and `checksum`.
///
/// # Errors
/// `Unexpected` if it is not an object.
pub(crate) fn seal_signed(document: Value, key: Option<&SigningKey>) -> Result<String> {
    let Value::Object(mut members) = document else {
        return Err(Error::unexpected("a document must be a JSON object"));
    };
    members.remove(CHECKSUM);
    members.remove(SIGNATURE);
    if let Some(key) = key {
        let body = text(&Value::Object(members.clone()))?;
        let signature: String = key.sign(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        members.insert(SIGNATURE.to_owned(), json!({ "key": key.trusted(), "ed25519": signature }));
    }
    seal(Value::Object(members))
}

/// As [`open`]; also gives the key whose signature is inside, after it was checked. `None`: it is not signed.
///
/// # Errors
/// As [`open`]; `Integrity` also for a signature that is wrong.
pub(crate) fn open_signed(bytes: &[u8], schema: &str) -> Result<(Value, Option<TrustedKey>)> {
    let mut document = open(bytes, schema)?;
    let wrong = || Error::integrity("the signature of the document is wrong");
    let Some(members) = document.as_object_mut() else { return Err(wrong()) };
    members.remove(CHECKSUM);
    let Some(signature) = members.remove(SIGNATURE) else { return Ok((document, None)) };
    let member = |name: &str| signature.get(name).and_then(Value::as_str);
    let key: TrustedKey = member("key").and_then(|key| key.parse().ok()).ok_or_else(wrong)?;
    let signature = member("ed25519").and_then(hex).ok_or_else(wrong)?;
    match key.verify(text(&document)?.as_bytes(), &signature) {
        true => Ok((document, Some(key))),
        false => Err(wrong()),
    }
}

/// Reads a document and checks that it is exactly what [`seal`] wrote. `schema` is the family and the version that is
/// understood, such as `stackkit.manifest/1`.
///
/// # Errors
/// `Integrity` if a byte was changed, `Incompatible` for another version of the schema.
pub(crate) fn open(bytes: &[u8], schema: &str) -> Result<Value> {
    let damaged = || Error::integrity("the document is damaged");
    let document: Value = serde_json::from_slice(bytes).map_err(|e| damaged().with_source(e))?;
    match document.get("schema").and_then(Value::as_str) {
        Some(found) if found == schema => {}
        Some(found) if family(found) == family(schema) && version(found).is_some() => {
            return Err(Error::new(
                stackkit_core::ErrorKind::Incompatible,
                "the document was written by a version of stackkit with another format",
            )
            .with_context("found", found)
            .with_context("understood", schema));
        }
        _ => return Err(damaged()),
    }
    let checksum = document.get(CHECKSUM).and_then(|checksum| checksum.get("blake3")).and_then(Value::as_str);
    let same = checksum.and_then(|checksum| body_hash(bytes, checksum).map(|hash| hash.to_hex().as_str() == checksum));
    // Canonical form is asked for by itself: what has it in every member but the checksum's has one form only.
    match same == Some(true) && text(&document)?.as_bytes() == bytes {
        true => Ok(document),
        false => Err(damaged()),
    }
}

/// The hash of a document's canonical text without the member that holds `checksum`, which is cut out of `bytes`; `None` if
/// it does not stand there as [`seal`] writes it. It is never the last member: `schema` comes after it.
fn body_hash(bytes: &[u8], checksum: &str) -> Option<blake3::Hash> {
    let member = format!("\n  \"{CHECKSUM}\": {{\n    \"blake3\": \"{checksum}\"\n  }},");
    let at = bytes.windows(member.len()).position(|window| window == member.as_bytes())?;
    Some(blake3::Hasher::new().update(&bytes[..at]).update(&bytes[at + member.len()..]).finalize())
}

fn family(schema: &str) -> Option<&str> {
    schema.split_once('/').map(|(family, _)| family)
}

fn version(schema: &str) -> Option<u32> {
    schema.split_once('/').and_then(|(_, version)| version.parse().ok())
}

#[cfg(test)]
mod tests {
    use stackkit_core::ErrorKind;

    use super::*;

    const SCHEMA: &str = "stackkit.test/1";

    fn sealed() -> String {
        seal(json!({ "schema": SCHEMA, "z": 1, "a": { "y": [true, null], "b": "ü" } })).unwrap()
    }

    #[test]
    fn keys_are_sorted_and_the_round_trip_is_exact() {
        let text = sealed();
        assert!(text.find("\"a\"").unwrap() < text.find("\"checksum\"").unwrap());
        assert!(text.find("\"b\"").unwrap() < text.find("\"y\"").unwrap());
        let document = open(text.as_bytes(), SCHEMA).unwrap();
        assert_eq!(seal(document).unwrap(), text);
    }

    #[test]
    fn every_flip_and_every_cut_is_found() {
        let text = sealed();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert!(open(&bytes, SCHEMA).is_err(), "bit {bit} of byte {at}");
            }
            assert!(open(&text.as_bytes()[..at], SCHEMA).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_signed_document_tells_its_key_and_every_change_is_found() {
        let key = SigningKey::generate().unwrap();
        let text = seal_signed(json!({ "schema": SCHEMA, "n": 1 }), Some(&key)).unwrap();
        let (document, signer) = open_signed(text.as_bytes(), SCHEMA).unwrap();
        assert_eq!((document, signer), (json!({ "schema": SCHEMA, "n": 1 }), Some(key.trusted())));
        let mut forged: Value = serde_json::from_str(&text).unwrap();
        forged["n"] = json!(2);
        let forged = seal(forged).unwrap();
        assert_eq!(open_signed(forged.as_bytes(), SCHEMA).unwrap_err().kind(), ErrorKind::Integrity);
        assert_eq!(open_signed(sealed().as_bytes(), SCHEMA).unwrap().1, None);
    }

    #[test]
    fn another_version_is_incompatible_and_another_family_is_damage() {
        let kind = |schema: &str| {
            let text = seal(json!({ "schema": schema })).unwrap();
            open(text.as_bytes(), SCHEMA).unwrap_err().kind()
        };
        assert_eq!(kind("stackkit.test/2"), ErrorKind::Incompatible);
        assert_eq!(kind("stackkit.other/1"), ErrorKind::Integrity);
        assert_eq!(kind("stackkit.test/x"), ErrorKind::Integrity);
    }
}
