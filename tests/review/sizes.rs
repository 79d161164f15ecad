//! What each size costs: nothing past a limit is looked into, and whatever a sender writes, what the gate must write down
//! about it fits a topic of Kafka's default size.

use bytes::Bytes;
use countersign::authorize::decision::Reason;
use countersign::authorize::jose::{KeySet, KeySetError, KeyUse, TokenKind};
use countersign::authorize::limits::{
    MAX_HEADERS, MAX_JSON_DEPTH, MAX_KEYS, MAX_MAPPED_BYTES, MAX_TOKEN_BYTES,
};
use countersign::authorize::record::{Header, Record};
use countersign::authorize::request::{Mapping, MappingSource};
use countersign::authorize::route::{Compatibility, Route};
use countersign::authorize::text::Text;
use serde_json::{Value, json};

use crate::forge::{self, Plan, key, signer_of, workload};
use crate::gatehouse::{Gatehouse, LEGACY};

/// What Kafka's topics take by default, without the overhead of a batch.
const TOPIC_BYTES: usize = 1_000_000;

fn reason(house: &Gatehouse, route: &Route, record: &Record) -> Option<Text> {
    house.once(route, record).1.reason
}

/// The bytes of the audit record.
fn audited(house: &Gatehouse, route: &Route, record: &Record) -> usize {
    house.once(route, record).0.audit.and_then(|out| out.value).map_or(0, |bytes| bytes.len())
}

#[test]
fn json_in_a_token_is_read_to_its_bound_of_depth_and_no_deeper() {
    let house = Gatehouse::new();
    let full = Plan { countersignature: true, grant: true, ..Plan::default() };
    let nested = |depth: usize| -> Value {
        serde_json::from_str(&format!("{}{}", "[".repeat(depth), "]".repeat(depth))).unwrap()
    };
    for deep in TokenKind::ALL {
        // The claims are the first level.
        for (depth, fits) in [(MAX_JSON_DEPTH - 1, true), (MAX_JSON_DEPTH, false), (100, false)] {
            let record = full.record_by(&|kind, mut claims| {
                if kind == deep {
                    claims["other"] = nested(depth);
                }
                full.sign(kind, claims)
            });
            let found = reason(&house, &forge::route(), &record);
            let expected = (!fits).then_some("context_malformed");
            assert_eq!(found.as_deref(), expected, "{deep:?}, {depth} deep");
        }
    }
}

#[test]
fn brackets_that_fill_a_token_are_refused_without_a_stack_to_fit() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let house = Gatehouse::new();
    let brackets = URL_SAFE_NO_PAD.encode("[".repeat(5_000));
    for kind in TokenKind::ALL {
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": "EdDSA", "typ": kind.typ()}).to_string());
        for token in [format!("{brackets}.e30.AA"), format!("{head}.{brackets}.AA")] {
            assert!(token.len() < MAX_TOKEN_BYTES);
            let mut record = Plan { countersignature: true, grant: true, ..Plan::default() }.record();
            for header in &mut record.headers {
                if TokenKind::of_header(&header.name) == Some(kind) {
                    header.value = Some(Bytes::from(token.clone()));
                }
            }
            assert_eq!(reason(&house, &forge::route(), &record).as_deref(), Some("context_malformed"));
        }
    }
}

#[test]
fn a_key_set_with_more_keys_than_the_bound_is_refused_before_any_is_read() {
    let key = key("issuer").public_jwk();
    let set = |count: usize| {
        let named = |n: usize| {
            let mut key = key.clone();
            key["kid"] = format!("k{n}").into();
            key
        };
        json!({"keys": (0..count).map(named).collect::<Vec<_>>()}).to_string()
    };
    assert_eq!(KeySet::from_jwks(&set(MAX_KEYS), KeyUse::Any).unwrap().len(), MAX_KEYS);
    assert_eq!(KeySet::from_jwks(&set(5_000), KeyUse::Any).unwrap_err(), KeySetError::TooMany);
    // The first of them is no key at all, and that is not what is found.
    let bad = json!({"keys": vec![json!("no key"); MAX_KEYS + 1]}).to_string();
    assert_eq!(KeySet::from_jwks(&bad, KeyUse::Any).unwrap_err(), KeySetError::TooMany);
}

#[test]
fn a_record_of_token_headers_leaves_no_more_marks_than_a_record_may_have_headers() {
    let house = Gatehouse::new();
    for name in ["txn-token", "TXN-TOKEN"] {
        let mut record = Plan::default().record();
        record.headers = vec![Header::new(name, "YQ.YQ.YQ"); 40_000];
        let (effects, audit) = house.once(&forge::route(), &record);
        assert_eq!(audit.reason.as_deref(), Some(Reason::ContextTooLarge.as_str()));
        assert_eq!(audit.token_hashes.len(), MAX_HEADERS);
        assert!(effects.audit.unwrap().value.unwrap().len() < 16 * 1024);
        // Nor is the dead letter larger than the record was.
        let letter = effects.outcome.unwrap();
        let named = |name: &str| letter.headers.iter().filter(|header| header.name == name).count();
        assert_eq!(named("txn-token-sha256"), MAX_HEADERS);
        assert!(letter.headers.len() < 3 * MAX_HEADERS);
    }
}

/// A route that writes down as much of the value as a mapping can take from it.
fn mapped() -> Route {
    let source = MappingSource {
        action: Some("'pay'".to_owned()),
        resource: Some("{'type': 'Invoice', 'id': value.id, 'properties': {'note': value.note}}".to_owned()),
        workflow: Some("{'id': value.id, 'type': value.note, 'step': 'pay', 'state': value.note}".to_owned()),
        value: Some("{'note': value.note}".to_owned()),
    };
    Route {
        unproven: Some(workload(LEGACY)),
        mapping: Mapping::compile(&source).unwrap(),
        compatibility: Some(Compatibility::Spring),
        ..forge::route()
    }
}

#[test]
fn no_value_makes_an_audit_record_that_its_topic_refuses() {
    let (house, route) = (Gatehouse::new(), mapped());
    let mut largest = 0;
    let mut refused = 0;
    for unit in ["a", "\u{e9}", "\\u0001", "\\\"", "\\\\"] {
        for (id, note) in [(1, 1), (1, 0), (0, 1)] {
            for bytes in
                [100, 10_000, 40_000, MAX_MAPPED_BYTES / 5, MAX_MAPPED_BYTES / 2, MAX_MAPPED_BYTES, 900_000]
            {
                let text = |times: usize| unit.repeat(times * bytes / unit.len());
                let value = format!("{{\"id\":\"x{}\",\"note\":\"{}\"}}", text(id), text(note));
                if value.len() > TOPIC_BYTES {
                    continue;
                }
                let mut record = Plan::default().record();
                record.headers.clear();
                record.value = Some(value.into());
                largest = largest.max(audited(&house, &route, &record));
                let unmapped = reason(&house, &route, &record).as_deref() == Some("request_unmapped");
                refused += u32::from(unmapped);
            }
        }
    }
    assert!(largest < TOPIC_BYTES, "an audit record of {largest} bytes");
    // What is shown here is shown near the bound: large ones are written, larger ones refused.
    assert!(largest > MAX_MAPPED_BYTES && refused > 10, "{largest} bytes, {refused} refused");
}

#[test]
fn no_tokens_make_an_audit_record_that_its_topic_refuses() {
    let house = Gatehouse::new();
    let wide: Vec<String> = (0..500).map(|n| format!("s{n}")).collect();
    for (member, filling) in [
        ("scope", json!(wide.join(" "))),
        ("tctx", json!({"amount": 1, "note": "\u{1}".repeat(900)})),
        ("sub", json!("a".repeat(5_000))),
        ("txn", json!("t".repeat(5_000))),
    ] {
        let plan = Plan { countersignature: true, ..Plan::default() };
        let record = plan.record_by(&|kind, mut claims| {
            match kind {
                TokenKind::Transaction => claims[member] = filling.clone(),
                TokenKind::WorkloadProof => {
                    let large = json!({"amount": 1, "note": "n".repeat(4_500)});
                    claims["resource"] = json!({"type": "Invoice", "id": "inv-7", "properties": large});
                }
                TokenKind::Countersignature => {
                    claims["txn"] = if member == "txn" { filling.clone() } else { "txn-1".into() }
                }
                _ => {}
            }
            key(signer_of(kind)).sign_typ(kind.typ(), &claims).unwrap().into_bytes()
        });
        let (effects, audit) = house.once(&forge::route(), &record);
        let bytes = effects.audit.and_then(|out| out.value).map_or(0, |bytes| bytes.len());
        assert!(bytes < 128 * 1024, "{member}: {bytes} bytes");
        assert_ne!(audit.reason.as_deref(), Some("context_malformed"), "{member}: {:?}", audit.detail);
    }
}
