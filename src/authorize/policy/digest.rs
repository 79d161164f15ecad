//! The digest of what decides: SHA-256 over JSON that two machines write alike, whatever the files were called and in
//! whichever order, with whatever comments and layout, they came. Limits: equal digests mean equal content; two ways
//! to write one meaning (`a && b`, `b && a`) are two contents.

use std::collections::BTreeMap;

use serde_json::Value;

use super::value::push_string;
use crate::authorize::ids::Digest;
use crate::authorize::jose::sha256;

/// The digest of a JSON value: members sorted by name, no white space.
pub(super) fn of_json(value: &Value) -> Digest {
    sha256(&[canonical(value).as_bytes()])
}

/// JSON with members sorted by the bytes of their names, and no white space.
pub(super) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => push_string(out, text),
        Value::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(out, value);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            let sorted: BTreeMap<_, _> = members.iter().collect();
            for (i, (name, value)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                push_string(out, name);
                out.push(':');
                write(out, value);
            }
            out.push('}');
        }
    }
}

/// Sorts every list of a value and drops what a list says twice. For a schema, whose lists are all sets.
pub(super) fn sort_lists(value: &mut Value) {
    match value {
        Value::Array(values) => {
            values.iter_mut().for_each(sort_lists);
            values.sort_by_cached_key(canonical);
            values.dedup();
        }
        Value::Object(members) => members.iter_mut().for_each(|(_, value)| sort_lists(value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_members_does_not_count_and_order_of_lists_does() {
        let a: Value = serde_json::from_str(r#"{"b": [1, 2], "a": {"d": null, "c": "\u00e9\n"}}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"a":{"c":"é\u000a","d":null},"b":[1,2]}"#).unwrap();
        let c: Value = serde_json::from_str(r#"{"a":{"c":"é\u000a","d":null},"b":[2,1]}"#).unwrap();
        assert_eq!(canonical(&a), r#"{"a":{"c":"é\n","d":null},"b":[1,2]}"#);
        assert_eq!(of_json(&a), of_json(&b));
        assert_ne!(of_json(&a), of_json(&c));
        let (mut b, mut c) = (b, c);
        sort_lists(&mut b);
        sort_lists(&mut c);
        assert_eq!(of_json(&b), of_json(&c));
    }
}
