//! What a mapping finds, what it refuses, and that no value makes it run long.

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis};
use crate::authorize::limits::{MAX_MAPPED_BYTES, MAX_MAPPED_VALUE_BYTES};
use crate::authorize::record::Header;
use crate::authorize::record::TimestampType;

fn record(value: &[u8]) -> Record {
    Record {
        source: Coordinates {
            topic: Topic::parse("payments.commands").unwrap(),
            partition: Partition(3),
            offset: Offset(7),
        },
        timestamp: Some(UnixMillis(0)),
        timestamp_type: TimestampType::LogAppendTime,
        key: Some(Bytes::from_static(b"inv-7")),
        value: Some(Bytes::copy_from_slice(value)),
        headers: vec![
            Header::new("kind", "refund"),
            Header::new("unsigned", "x"),
            Header::new("twice", "a"),
            Header::new("twice", "b"),
            Header::new("Txn-Token", "secret"),
        ],
    }
}

const NOTHING: Evidence<'_> = Evidence {
    sender: "spiffe://example.org/agent/payer",
    proven: true,
    signed_headers: &[],
    action: None,
    resource: None,
    workflow: None,
    transaction: None,
};
const RESOURCE: &str = "{'type': 'Invoice', 'id': key}";

fn mapping(action: &str, resource: &str) -> Mapping {
    let source =
        MappingSource { action: Some(action.into()), resource: Some(resource.into()), ..Default::default() };
    Mapping::compile(&source).unwrap()
}

fn reason(outcome: Result<Request, Denial>) -> Reason {
    outcome.unwrap_err().reason
}

#[test]
fn a_request_is_derived_from_value_key_topic_claims_and_signed_headers() {
    let scope = BTreeSet::from(["payments.pay".into()]);
    let tctx = json!({"limit": 100});
    let evidence = Evidence {
        signed_headers: &["kind".to_owned(), "twice".to_owned()],
        transaction: Some(TransactionClaims {
            id: "txn-1",
            scope: &scope,
            subject: "alice",
            requester: "spiffe://example.org/api",
            tctx: tctx.as_object(),
            rctx: None,
        }),
        ..NOTHING
    };
    let source = MappingSource {
        action: Some("{'name': headers.kind, 'properties': {'amount': value.amount, 'parts': headers.twice}}".into()),
        resource: Some(RESOURCE.into()),
        workflow: Some("{'id': claims.transaction.id, 'type': topic, 'step': 's', 'state': 'running', 'attempt': partition}".into()),
        value: Some("{'memo': value.memo, 'limit': claims.transaction.tctx.limit, 'who': claims.transaction.subject, 'n': size(key_bytes), 'pay': 'payments.pay' in claims.transaction.scope}".into()),
    };
    let found = Mapping::compile(&source)
        .unwrap()
        .resolve(&record(br#"{"amount": 12.5, "memo": "two\nlines"}"#), &evidence)
        .unwrap();
    assert_eq!(
        serde_json::to_value(&found.action).unwrap(),
        json!({"name": "refund", "properties": {"amount": 12.5, "parts": ["a", "b"]}})
    );
    assert_eq!(serde_json::to_value(&found.resource).unwrap(), json!({"type": "Invoice", "id": "inv-7"}));
    assert_eq!(found.workflow.unwrap().attempt, Some(3));
    assert_eq!(
        Value::Object(found.value.unwrap()),
        json!({"memo": "two\nlines", "limit": 100, "who": "alice", "n": 5, "pay": true})
    );
}

#[test]
fn without_expressions_the_proof_speaks_and_silence_is_unmapped() {
    let action = Action { name: "pay".into(), properties: None };
    let resource = Resource { kind: "Invoice".into(), id: "inv-7".into(), properties: None };
    let said = Evidence { action: Some(&action), resource: Some(&resource), ..NOTHING };
    let found = Mapping::default().resolve(&record(b"no json"), &said).unwrap();
    assert_eq!(
        (found.action, found.resource, found.workflow, found.value),
        (action.clone(), resource, None, None)
    );
    assert_eq!(reason(Mapping::default().resolve(&record(b"{}"), &NOTHING)), Reason::RequestUnmapped);
    let half = Evidence { action: Some(&action), ..NOTHING };
    assert_eq!(reason(Mapping::default().resolve(&record(b"{}"), &half)), Reason::RequestUnmapped);
}

#[test]
fn where_proof_and_mapping_differ_the_record_is_refused() {
    let mapping = mapping("value.do", RESOURCE);
    let asked = record(br#"{"do": "pay"}"#);
    let action = |name: &str, properties: Option<Value>| Action {
        name: name.into(),
        properties: properties.and_then(|p| p.as_object().cloned()),
    };
    let pay = action("pay", None);
    assert!(mapping.resolve(&asked, &Evidence { action: Some(&pay), ..NOTHING }).is_ok());
    for other in [action("refund", None), action("pay", Some(json!({"amount": 1})))] {
        let evidence = Evidence { action: Some(&other), ..NOTHING };
        assert_eq!(reason(mapping.resolve(&asked, &evidence)), Reason::RequestMismatch);
    }
    let resource = Resource { kind: "Invoice".into(), id: "inv-8".into(), properties: None };
    let evidence = Evidence { resource: Some(&resource), ..NOTHING };
    assert_eq!(reason(mapping.resolve(&asked, &evidence)), Reason::RequestMismatch);
}

#[test]
fn a_header_that_the_proof_did_not_sign_cannot_be_read() {
    let mapping = mapping("headers.unsigned", RESOURCE);
    let signed = Evidence { signed_headers: &["kind".to_owned()], ..NOTHING };
    assert_eq!(reason(mapping.resolve(&record(b"{}"), &signed)), Reason::RequestUnmapped);
    let unproven = Evidence { proven: false, ..NOTHING };
    assert_eq!(mapping.resolve(&record(b"{}"), &unproven).unwrap().action.name, "x");
    let token = self::mapping("headers['Txn-Token']", RESOURCE);
    assert_eq!(reason(token.resolve(&record(b"{}"), &unproven)), Reason::RequestUnmapped);
}

#[test]
fn what_fails_or_has_the_wrong_shape_is_unmapped_and_says_no_value() {
    for (action, value) in [
        ("value.missing", "{\"secret\": 1}"),
        ("value.secret", "no json"),
        ("value.secret", "{\"secret\": 7}"),
        ("value.secret", "{\"secret\": null}"),
        ("value.secret", "{\"secret\": {\"name\": null}}"),
        ("value.secret", "{\"secret\": \"hush\\u0007\"}"),
        ("value.secret", "{\"secret\": {\"name\": \"n\", \"properties\": {\"hush\\u0085\": 1}}}"),
        ("value.secret", "{\"secret\": {\"name\": \"n\", \"properties\": {\"n\": 9007199254740992}}}"),
        ("value.secret + 1", "{\"secret\": \"hush\"}"),
        ("value.secret[9]", "{\"secret\": [\"hush\"]}"),
        ("string(1 / value.secret)", "{\"secret\": 0}"),
        ("{1: value.secret}", "{\"secret\": 0}"),
        ("key_bytes", "{}"),
    ] {
        let denial = mapping(action, RESOURCE).resolve(&record(value.as_bytes()), &NOTHING).unwrap_err();
        assert_eq!(denial.reason, Reason::RequestUnmapped, "{action} on {value}");
        assert!(!denial.detail.contains("hush"), "{}", denial.detail);
    }
    let tombstone = Record { value: None, ..record(b"") };
    assert_eq!(reason(mapping("value.a", RESOURCE).resolve(&tombstone, &NOTHING)), Reason::RequestUnmapped);
    let binary_key = Record { key: Some(Bytes::from_static(&[0xff])), ..record(b"{}") };
    assert_eq!(reason(mapping("'pay'", RESOURCE).resolve(&binary_key, &NOTHING)), Reason::RequestUnmapped);
}

#[test]
fn every_bad_expression_is_named_when_it_is_compiled() {
    let source = MappingSource {
        action: Some("value.".into()),
        resource: Some("valu.id".into()),
        workflow: Some("now()".into()),
        value: Some("{'a': key.matches(value.pattern)}".into()),
    };
    let errors = Mapping::compile(&source).unwrap_err();
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 4, "{text:?}");
    assert!(
        text[1].contains("`valu`") && text[2].contains("`now`") && text[3].contains("pattern"),
        "{text:?}"
    );
    let long = MappingSource { action: Some(format!("'{}'", "a".repeat(5000))), ..Default::default() };
    assert!(Mapping::compile(&long).is_err());
    let deep = MappingSource {
        action: Some(format!("{}1{}", "(".repeat(2000), ")".repeat(2000))),
        ..Default::default()
    };
    assert!(Mapping::compile(&deep).is_err());
}

#[test]
fn ordinary_lists_pass_and_every_function_and_macro_works() {
    let items: Vec<Value> = (0..200).map(|n| json!({"id": format!("item-{n}"), "amount": n})).collect();
    let value = json!({"items": items, "id": "a1"}).to_string();
    for expression in [
        "value.items.all(i, i.amount >= 0 && i.id.startsWith('item-')) ? 'ok' : 'no'",
        "value.items.exists(i, i.id == 'item-7') ? 'ok' : 'no'",
        "value.items.exists_one(i, i.amount == 7) ? 'ok' : 'no'",
        "size(value.items.filter(i, i.amount > 100)) == 99 ? 'ok' : 'no'",
        "value.items.map(i, i.id)[7] == 'item-7' ? 'ok' : 'no'",
        "has(value.id) && !has(value.other) ? 'ok' : 'no'",
        "value.id.matches('^[a-z][0-9]$') && value.id.contains('1') && value.id.endsWith('1') ? 'ok' : 'no'",
        "int('7') == 7 && uint(7) == 7u && double(7) == 7.0 && string(7) == '7' && bool('true') ? 'ok' : 'no'",
        "bytes('a') == b'a' && dyn(1) == 1 ? 'ok' : 'no'",
    ] {
        let found = mapping(expression, RESOURCE).resolve(&record(value.as_bytes()), &NOTHING);
        assert_eq!(found.unwrap().action.name, "ok", "{expression}");
    }
}

#[test]
fn what_a_value_could_make_run_long_is_refused_before_it_is_evaluated() {
    let numbers = json!({"xs": (0..100_000).collect::<Vec<u32>>(), "s": "a"}).to_string();
    let fat = json!({"xs": vec!["a".repeat(10); 1000], "s": "a".repeat(500_000)}).to_string();
    let wide = json!({"xs": vec![json!([]); 30_000], "s": vec![json!([]); 100_000]}).to_string();
    let refused = |expression: &str, value: &str| {
        let denial = mapping(expression, RESOURCE).resolve(&record(value.as_bytes()), &NOTHING).unwrap_err();
        assert_eq!(denial.reason, Reason::RequestUnmapped, "{expression}");
        assert!(denial.detail.contains("could take too long"), "{expression}: {}", denial.detail);
    };
    for expression in [
        "value.xs.all(x, value.xs.exists(y, y == x)) ? 'a' : 'b'",
        "value.xs.all(x, !(x in value.xs) || x == x) ? 'a' : 'b'",
        "value.xs.map(x, value.xs.map(y, value.xs.map(z, [x, y, z])))[0][0][0]",
        "value.xs.map(x, value.xs).map(l, l.map(m, m))[0]",
        "value.xs.all(x, value.s.contains(string(x) + 'b') || true) ? 'a' : 'b'",
        "value.xs.filter(x, key.matches('(a|b|c|d){100}[a-z]{100}')).map(x, 'a')[0]",
        "value.xs.all(x, value.s - x == 1) ? 'a' : 'b'",
        "value.xs.all(x, value[x] == 1) ? 'a' : 'b'",
    ] {
        for value in [&numbers, &fat, &wide] {
            refused(expression, value);
        }
    }
    for expression in [
        "[value.s].map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x)[0]",
        "[value.s].map(x, x + x).map(x, x + x + x + x + x + x + x + x).map(x, x + x + x + x + x + x + x + x)[0]",
    ] {
        for value in [&fat, &wide] {
            refused(expression, value);
        }
    }
    let large = format!("\"{}\"", "a".repeat(MAX_MAPPED_VALUE_BYTES));
    assert_eq!(
        reason(mapping("value", RESOURCE).resolve(&record(large.as_bytes()), &NOTHING)),
        Reason::RequestUnmapped
    );
}

#[test]
fn a_mapping_yields_no_more_than_an_audit_record_holds() {
    let text = |bytes: usize| json!({"s": "a".repeat(bytes)}).to_string();
    let yielding = |source: MappingSource, bytes: usize| {
        Mapping::compile(&source).unwrap().resolve(&record(text(bytes).as_bytes()), &NOTHING)
    };
    let one = || MappingSource {
        action: Some("'pay'".into()),
        resource: Some("{'type': 'Invoice', 'id': value.s}".into()),
        ..Default::default()
    };
    assert!(yielding(one(), MAX_MAPPED_BYTES - 100).is_ok());
    assert_eq!(reason(yielding(one(), MAX_MAPPED_BYTES)), Reason::RequestUnmapped);
    // Together, not each: and what is escaped counts as it is written.
    let two = || MappingSource { value: Some("value".into()), ..one() };
    assert!(yielding(two(), MAX_MAPPED_BYTES / 2 - 100).is_ok());
    assert_eq!(reason(yielding(two(), MAX_MAPPED_BYTES / 2)), Reason::RequestUnmapped);
    let multiplied =
        MappingSource { action: Some("[value.s].map(x, x + x).map(x, x + x)[0]".into()), ..one() };
    assert_eq!(reason(yielding(multiplied, MAX_MAPPED_BYTES / 3)), Reason::RequestUnmapped);
}

#[test]
fn a_mapping_can_be_shared_between_lanes() {
    fn shared<T: Send + Sync>() {}
    shared::<Mapping>();
}
