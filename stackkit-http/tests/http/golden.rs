//! Comparing with released files, which are never edited: fields are added, never changed or removed.

use serde_json::Value;

/// Fails unless everything in the golden file is in the body, with the same value.
#[track_caller]
pub(crate) fn assert_golden(body: &str, golden: &str) {
    let body: Value = serde_json::from_str(body).unwrap();
    let golden: Value = serde_json::from_str(golden).unwrap();
    let mut missing = Vec::new();
    compare("", &golden, &body, &mut missing);
    assert!(missing.is_empty(), "{missing:#?}\nthe body is:\n{body:#}");
}

/// Lists what the body has otherwise than the golden file. Lists are compared item by item.
fn compare(path: &str, golden: &Value, body: &Value, missing: &mut Vec<String>) {
    match (golden, body) {
        (Value::Object(golden), Value::Object(body)) => {
            for (name, value) in golden {
                compare(&format!("{path}/{name}"), value, body.get(name).unwrap_or(&Value::Null), missing);
                if !body.contains_key(name) {
                    missing.push(format!("{path}/{name} is gone"));
                }
            }
        }
        (Value::Array(golden), Value::Array(body)) => {
            if golden.len() != body.len() {
                missing.push(format!("{path} has {} items instead of {}", body.len(), golden.len()));
            }
            for (at, (golden, body)) in golden.iter().zip(body).enumerate() {
                compare(&format!("{path}/{at}"), golden, body, missing);
            }
        }
        _ if golden == body => {}
        _ => missing.push(format!("{path} is {body} instead of {golden}")),
    }
}

#[test]
fn a_changed_or_missing_field_is_seen_and_an_added_one_is_not() {
    let golden = serde_json::json!({"a": [{"b": 1}], "c": null});
    let seen = |body: Value| {
        let mut missing = Vec::new();
        compare("", &golden, &body, &mut missing);
        missing.len()
    };
    assert_eq!(seen(serde_json::json!({"a": [{"b": 1, "x": 2}], "c": null, "d": 5})), 0);
    assert_eq!(seen(serde_json::json!({"a": [{"b": 2}], "c": null})), 1);
    assert_eq!(seen(serde_json::json!({"a": [], "c": null})), 1);
    assert_eq!(seen(serde_json::json!({"a": [{"b": 1}]})), 1);
}
