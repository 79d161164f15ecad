//! JSON Schema (draft 7) as far as the Compose Specification uses it. Limits: a keyword that is not known here is an
//! error, never ignored, so that a newer schema cannot pass for checked.

use regex::Regex;
use serde_json::{Map, Value};

/// What `schema` says against `instance`: each problem with the place it is at; empty if nothing.
pub fn problems(schema: &Value, instance: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Checker { root: schema }.check(schema, instance, "", &mut found);
    found
}

struct Checker<'s> {
    root: &'s Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, instance: &Value, at: &str, found: &mut Vec<String>) {
        let keywords = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return found.push(format!("{at}: nothing may stand here")),
            Value::Object(keywords) => keywords,
            other => panic!("`{other}` is no schema"),
        };
        if let Some(reference) = keywords.get("$ref") {
            // Draft 7: what stands beside a reference is ignored.
            let pointer = reference.as_str().unwrap().strip_prefix('#').expect("a reference within the file");
            return self.check(self.root.pointer(pointer).expect("its target"), instance, at, found);
        }
        for (keyword, rule) in keywords {
            let holds = match keyword.as_str() {
                "$schema" | "$id" | "title" | "description" | "default" | "deprecated" | "definitions" => {
                    true
                }
                "type" => names(rule).any(|name| is(name, instance)),
                "enum" => rule.as_array().unwrap().contains(instance),
                "minimum" => instance.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
                "maximum" => instance.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
                "pattern" => instance.as_str().is_none_or(|text| matches(rule.as_str().unwrap(), text)),
                "required" => instance
                    .as_object()
                    .is_none_or(|members| names(rule).all(|name| members.contains_key(name))),
                "uniqueItems" => {
                    let distinct = |items: &Vec<Value>| {
                        items.iter().enumerate().all(|(nth, item)| !items[..nth].contains(item))
                    };
                    rule == false || instance.as_array().is_none_or(distinct)
                }
                "oneOf" => {
                    let passed = |schema: &&Value| {
                        let mut inner = Vec::new();
                        self.check(schema, instance, at, &mut inner);
                        inner.is_empty()
                    };
                    rule.as_array().unwrap().iter().filter(passed).count() == 1
                }
                "items" => {
                    for (nth, item) in instance.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}/{nth}"), found);
                    }
                    true
                }
                "properties" | "patternProperties" | "additionalProperties" => {
                    for (name, member) in instance.as_object().into_iter().flatten() {
                        for schema in schemas(keywords, keyword, rule, name) {
                            self.check(schema, member, &format!("{at}/{name}"), found);
                        }
                    }
                    true
                }
                unknown => panic!("`{unknown}` is not known here"),
            };
            if !holds {
                found.push(format!("{at}: against {keyword} {rule}"));
            }
        }
    }
}

/// The schemas that `keyword` holds for the member `name`.
fn schemas<'s>(
    keywords: &'s Map<String, Value>,
    keyword: &str,
    rule: &'s Value,
    name: &str,
) -> Vec<&'s Value> {
    let listed = keywords.get("properties").and_then(|rule| rule.get(name));
    let matched = keywords
        .get("patternProperties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(pattern, _)| matches(pattern, name))
        .map(|(_, schema)| schema);
    match keyword {
        "properties" => listed.into_iter().collect(),
        "patternProperties" => matched.collect(),
        _ if listed.is_none() && matched.count() == 0 => vec![rule],
        _ => Vec::new(),
    }
}

fn names(rule: &Value) -> impl Iterator<Item = &str> {
    let several = rule.as_array().into_iter().flatten();
    rule.as_str().into_iter().chain(several.map(|name| name.as_str().unwrap()))
}

fn is(kind: &str, instance: &Value) -> bool {
    match kind {
        "null" => instance.is_null(),
        "boolean" => instance.is_boolean(),
        "string" => instance.is_string(),
        "number" => instance.is_number(),
        "integer" => instance.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => instance.is_array(),
        "object" => instance.is_object(),
        other => panic!("`{other}` is no type"),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).unwrap_or_else(|error| panic!("{error}")).is_match(text)
}

#[test]
fn each_keyword_passes_and_fails_what_it_should() {
    let schema = serde_json::json!({
        "definitions": { "name": { "type": "string", "pattern": "^[a-z]+$" } },
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "$ref": "#/definitions/name", "type": "null" },
            "size": { "type": ["integer", "null"], "minimum": 1, "maximum": 9 },
            "colour": { "enum": ["red"] },
            "list": { "type": "array", "items": { "type": "string" }, "uniqueItems": true },
            "either": { "oneOf": [{ "type": "number" }, { "type": "integer" }, { "type": "string" }] }
        },
        "patternProperties": { "^x-": {} },
        "additionalProperties": false
    });
    let passes = |instance: Value| problems(&schema, &instance).is_empty();
    assert!(passes(serde_json::json!({
        "name": "a", "size": 9, "colour": "red", "list": ["a", "b"], "either": 1.5, "x-more": {}
    })));
    assert!(passes(serde_json::json!({ "name": "a", "size": null, "either": "b" })));
    for wrong in [
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!({ "name": "A" }),
        serde_json::json!({ "name": null }),
        serde_json::json!({ "name": "a", "size": 0 }),
        serde_json::json!({ "name": "a", "size": 10 }),
        serde_json::json!({ "name": "a", "size": 1.5 }),
        serde_json::json!({ "name": "a", "colour": "blue" }),
        serde_json::json!({ "name": "a", "list": ["a", "a"] }),
        serde_json::json!({ "name": "a", "list": [1] }),
        serde_json::json!({ "name": "a", "either": 1 }),
        serde_json::json!({ "name": "a", "either": true }),
        serde_json::json!({ "name": "a", "y-more": {} }),
    ] {
        assert!(!passes(wrong.clone()), "{wrong}");
    }
}

#[test]
#[should_panic(expected = "is not known here")]
fn a_keyword_that_is_not_known_is_never_ignored() {
    problems(&serde_json::json!({ "contains": {} }), &Value::Null);
}
