//! What a signed record carries, and what is refused before it is sent.

use serde_json::{Value, json};

use super::*;
use crate::authorize::digests::Hashes;
use crate::authorize::ids::{Realm, Topic};
use crate::authorize::jose::{Algorithm, Jws, SigningKey, TokenKind, sha256, token_hash};
use crate::authorize::json;
use crate::authorize::record::Header;
use crate::authorize::request::Workflow;

const NOW: UnixMillis = UnixMillis(1_893_456_000_500);
const SECONDS: i64 = 1_893_456_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(Algorithm::EdDsa, &[seed; 32], Some("k")).unwrap()
}

fn sign(kind: TokenKind, claims: Value) -> String {
    key(9).sign(kind, &claims).unwrap()
}

fn wit_claims() -> Value {
    json!({"sub": "spiffe://example.org/agent/payer", "exp": SECONDS + 600, "cnf": {"jwk": key(1).public_jwk()}})
}

fn signer() -> Signer {
    let wit = sign(TokenKind::WorkloadIdentity, wit_claims());
    Signer::new(key(1), &wit, Realm::parse("test").unwrap()).unwrap()
}

fn txn(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({
        "iat": SECONDS, "exp": SECONDS + 60, "aud": "example.org", "txn": "t-1", "sub": "alice", "scope": "pay",
        "req_wl": "spiffe://example.org/web"
    });
    change(&mut claims);
    sign(TokenKind::Transaction, claims)
}

fn countersignature(txn: &str) -> String {
    let claims = json!({
        "iss": "spiffe://example.org/gate/a", "aud": "kafka://test/t", "iat": SECONDS, "exp": SECONDS + 900, "jti": "d",
        "sub": "spiffe://example.org/agent/payer", "txn": txn, "tth": "", "action": {"name": "pay"},
        "resource": {"type": "Invoice", "id": "i"}, "kafka": {"key": null, "value": null}, "policy": "", "source": ""
    });
    sign(TokenKind::Countersignature, claims)
}

fn grant_claims() -> Value {
    json!({
        "iss": "i", "sub": "s", "aud": "test", "iat": SECONDS, "exp": SECONDS + 60, "jti": "g", "challenge": "c",
        "digest": "d", "decision": "approve"
    })
}

fn topic() -> Topic {
    Topic::parse("payments.commands").unwrap()
}

fn header(name: &'static str, value: &'static str) -> Header {
    Header::new(name, value.as_bytes())
}

fn value_of(headers: &[Header], kind: TokenKind) -> &[u8] {
    headers.iter().find(|h| h.name == kind.header_name().as_bytes()).unwrap().value.as_ref().unwrap()
}

fn proof_of(headers: &[Header]) -> serde_json::Map<String, Value> {
    let jws = Jws::parse(value_of(headers, TokenKind::WorkloadProof), TokenKind::WorkloadProof).unwrap();
    assert_eq!(jws.alg(), "EdDSA");
    json::parse_object(jws.payload()).unwrap()
}

fn refusal(record: &Outgoing<'_>, asked: &Asked, tokens: &Tokens<'_>) -> String {
    signer().sign(record, asked, tokens, NOW, "j-1").unwrap_err().to_string()
}

#[test]
fn a_proof_says_what_the_contract_wants_of_it() {
    let topic = topic();
    let own = [header("schema", "2"), header("lang", "en"), header("schema", "3")];
    let record =
        Outgoing::new(&topic).key(b"k").value(b"v").partition(3).headers(&own, &["schema", "absent", "lang"]);
    let txn = txn(|_| {});
    let going_on = countersignature("t-1");
    let grant = sign(TokenKind::StepUpGrant, grant_claims());
    let tokens =
        Tokens { transaction: Some(&txn), countersignature: Some(&going_on), step_up_grant: Some(&grant) };
    let headers = signer().sign(&record, &Asked::of("pay", "Invoice", "inv-7"), &tokens, NOW, "j-1").unwrap();
    assert_eq!(headers[..3], own);
    let names: Vec<_> = headers[3..].iter().map(|h| std::str::from_utf8(&h.name).unwrap()).collect();
    let expected =
        ["workload-identity-token", "workload-proof-token", "txn-token", "countersignature", "step-up-grant"];
    assert_eq!(names, expected);
    // Laid out by hand, byte for byte, from section 2.2.
    let signed = b"\0\0\0\x06schema\0\0\0\x012\0\0\0\x06schema\0\0\0\x013\0\0\0\x04lang\0\0\0\x02en";
    let hash = |token: &[u8]| token_hash(token).to_string();
    assert_eq!(
        Value::Object(proof_of(&headers)),
        json!({
            "aud": "kafka://test/payments.commands", "iat": SECONDS, "exp": SECONDS + 300, "jti": "j-1",
            "wth": hash(value_of(&headers, TokenKind::WorkloadIdentity)),
            "tth": hash(txn.as_bytes()),
            "oth": {"countersignature": hash(going_on.as_bytes()), "step-up-grant": hash(grant.as_bytes())},
            "kafka": {
                "key": hash(b"k"), "value": hash(b"v"), "partition": 3,
                "headers": {"names": ["schema", "absent", "lang"], "digest": sha256(&[signed]).to_string()},
            },
            "action": {"name": "pay"}, "resource": {"type": "Invoice", "id": "inv-7"},
        })
    );
}

#[test]
fn null_is_not_empty_and_what_is_absent_is_not_claimed() {
    let topic = topic();
    let headers = signer()
        .sign(&Outgoing::new(&topic).value(b""), &Asked::default(), &Tokens::default(), NOW, "j")
        .unwrap();
    let proof = proof_of(&headers);
    assert_eq!(proof["kafka"], json!({"key": null, "value": token_hash(b"").to_string()}));
    for name in ["tth", "oth", "action", "resource", "workflow"] {
        assert!(!proof.contains_key(name), "{name}");
    }
    let null = [Header { name: "n".into(), value: None }];
    let record = Outgoing::new(&topic).headers(&null, &["n"]);
    let proof = proof_of(&signer().sign(&record, &Asked::default(), &Tokens::default(), NOW, "j").unwrap());
    let digest = sha256(&[b"\0\0\0\x01n\xff\xff\xff\xff"]).to_string();
    assert_eq!(proof["kafka"]["headers"]["digest"], digest);
}

#[test]
fn a_key_signs_only_with_the_wit_that_was_issued_to_it() {
    let realm = Realm::parse("test").unwrap();
    let wit = |change: fn(&mut Value)| {
        let mut claims = wit_claims();
        change(&mut claims);
        sign(TokenKind::WorkloadIdentity, claims)
    };
    let reason = |seed, wit: &str| Signer::new(key(seed), wit, realm.clone()).unwrap_err().to_string();
    assert!(reason(2, &wit(|_| {})).contains("cnf.jwk"));
    assert!(reason(1, &wit(|c| c["cnf"]["jwk"]["alg"] = "ES256".into())).contains("cnf.jwk"));
    assert!(reason(1, &wit(|c| c["sub"] = "alice".into())).contains("`sub`"));
    assert!(reason(1, &wit(|c| c["exp"] = "soon".into())).contains("`exp`"));
    assert!(reason(1, &txn(|_| {})).contains("wit+jwt"));
    assert!(reason(1, &"a".repeat(8193)).contains("8193"));
    assert!(reason(1, &format!("{}\n", wit(|_| {}))).contains("base64url"));
}

#[test]
fn what_a_gate_would_refuse_is_refused_here() {
    let topic = topic();
    let plain = Outgoing::new(&topic);
    let none = Tokens::default();
    let anything = Asked::default();
    let with = |token: &str| refusal(&plain, &anything, &Tokens { transaction: Some(token), ..none });
    assert!(with(&txn(|c| c["exp"] = (SECONDS - 1).into())).contains("expired"));
    assert!(with(&txn(|c| c["aud"] = "other.org".into())).contains("trust domain"));
    assert!(with(&txn(|c| c["sub"] = "a".repeat(8192).into())).contains("`txn-token` has"));
    assert!(with("a.b.c").contains("`txn-token`"));
    assert!(with(&txn(|c| c["scope"] = Value::Null)).contains("`scope`"));

    let going_on = countersignature("t-2");
    let txn = txn(|_| {});
    for transaction in [None, Some(txn.as_str())] {
        let tokens = Tokens { transaction, countersignature: Some(&going_on), ..none };
        assert!(refusal(&plain, &anything, &tokens).contains("different transactions"));
    }

    let own = [header("Txn-Token", "x")];
    assert!(refusal(&plain.headers(&own, &[]), &anything, &none).contains("`Txn-Token`"));
    let odd = [Header { name: vec![0xff].into(), value: None }];
    assert!(refusal(&plain.headers(&odd, &[]), &anything, &none).contains("UTF-8"));
    let many = vec![header("h", ""); 63];
    assert!(refusal(&plain.headers(&many, &[]), &anything, &none).contains("65 headers"));
    let large = [Header::new("h", vec![0; 32 * 1024])];
    assert!(refusal(&plain.headers(&large, &[]), &anything, &none).contains("in all"));
    assert!(refusal(&plain.headers(&[], &["a", "a"]), &anything, &none).contains("`a`"));
    assert!(
        refusal(&plain.headers(&[], &["countersignature"]), &anything, &none).contains("countersignature")
    );
    assert!(refusal(&plain.headers(&[], &["a"; 65]), &anything, &none).contains("65 header names"));
    assert!(refusal(&plain.partition(-1), &anything, &none).contains("from 0"));

    assert!(refusal(&plain, &Asked::of("pay\n", "Invoice", "i"), &none).contains("`action`"));
    assert!(refusal(&plain, &Asked::of("pay", "Invoice", "\u{7f}"), &none).contains("`resource`"));
    let workflow = |deadline| Asked {
        workflow: Some(Workflow {
            id: "w".into(),
            kind: "t".into(),
            step: "s".into(),
            state: "running".into(),
            attempt: None,
            started_at: None,
            deadline,
        }),
        ..Asked::default()
    };
    assert!(refusal(&plain, &workflow(Some(f64::NAN)), &none).contains("`workflow`"));
    assert!(signer().sign(&plain, &workflow(Some(1.5)), &none, NOW, "j").is_ok());

    let late = UnixMillis((SECONDS + 601) * 1000);
    let refused = signer().sign(&plain, &anything, &none, late, "j").unwrap_err();
    assert!(matches!(refused, SignRefused::IdentityExpired));
    for jti in ["", &"j".repeat(129)] {
        assert!(matches!(signer().sign(&plain, &anything, &none, NOW, jti), Err(SignRefused::Jti)));
    }
}

#[test]
fn a_context_carries_work_on_and_draws_a_new_id_each_time() {
    let topic = topic();
    let carried =
        Carried { countersignature: countersignature("t-1").into(), transaction: Some(txn(|_| {}).into()) };
    let begun = Context::new(signer());
    let going_on = begun.carry(carried.clone());
    let headers = going_on.headers_at(&Outgoing::new(&topic), &Asked::default(), NOW, "j").unwrap();
    assert_eq!(value_of(headers.as_slice(), TokenKind::Transaction), carried.transaction.unwrap().as_bytes());
    assert!(proof_of(headers.as_slice())["oth"]["countersignature"].is_string());

    let renewed = txn(|c| c["exp"] = (SECONDS + 90).into());
    let token = renewed.clone();
    let source = move |_: &Outgoing<'_>| Ok(token.as_str().into());
    let headers = going_on
        .transactions(source)
        .headers_at(&Outgoing::new(&topic), &Asked::default(), NOW, "j")
        .unwrap();
    assert_eq!(value_of(headers.as_slice(), TokenKind::Transaction), renewed.as_bytes());

    // By the machine's own clock, which is before the test's NOW and after 2020.
    let jti = || {
        proof_of(begun.headers(&Outgoing::new(&topic), &Asked::default()).unwrap().as_slice())["jti"].clone()
    };
    assert_ne!(jti(), jti());
    let failing = begun.transactions(|_: &Outgoing<'_>| Err(TokenUnavailable("the service is away".into())));
    let error = failing.headers(&Outgoing::new(&topic), &Asked::default()).unwrap_err();
    assert_eq!(error.to_string(), "no txn-token: the service is away");
}

#[test]
fn rdkafka_gets_the_same_headers_and_debug_shows_no_token() {
    use rdkafka::message::{Headers as _, OwnedHeaders};
    let topic = topic();
    let own = [Header { name: "n".into(), value: None }, header("a", "b")];
    let record = Outgoing::new(&topic).headers(&own, &[]);
    let context = Context::new(signer()).transactions(txn(|_| {}));
    let headers = context.headers_at(&record, &Asked::default(), NOW, "j").unwrap();
    let kafka = OwnedHeaders::from(headers.clone());
    assert_eq!(kafka.count(), headers.as_slice().len());
    for (header, kafka) in headers.as_slice().iter().zip(kafka.iter()) {
        assert_eq!(kafka.key.as_bytes(), header.name);
        assert_eq!(kafka.value, header.value.as_deref());
    }
    assert!(!format!("{context:?} {headers:?} {:?}", signer()).contains("eyJ"));
}

#[test]
fn a_gate_takes_what_is_signed_here() {
    use crate::authorize::context::Claimed;
    use crate::authorize::identity::{Rules, TokenCache, verify};
    use crate::authorize::ids::{Coordinates, Offset, Partition, TrustDomain};
    use crate::authorize::jose::{KeySet, KeyUse};
    use crate::authorize::record::{Record, TimestampType};
    use crate::authorize::replay::{Memory, window_ms};
    use crate::authorize::testing::route as plain;
    use crate::authorize::trust::{Domain, Trust};

    let keys = KeySet::from_jwks(&json!({"keys": [key(9).public_jwk()]}).to_string(), KeyUse::Any).unwrap();
    let domain = Domain {
        algorithms: Algorithm::DEFAULT.to_vec(),
        bundle: keys.clone(),
        token_service: keys.clone(),
        gates: keys,
    };
    let trust = Trust::new([(TrustDomain::parse("example.org").unwrap(), domain)].into());
    let (topic, cache, route, realm) = (topic(), TokenCache::new(8), plain(), Realm::parse("test").unwrap());
    let own = [header("schema", "2"), Header { name: "n".into(), value: None }];
    let outgoing = Outgoing::new(&topic).key(b"").value(b"v").partition(3).headers(&own, &["n", "schema"]);
    let carried =
        Carried { countersignature: countersignature("t-1").into(), transaction: Some(txn(|_| {}).into()) };
    let context =
        Context::new(signer()).carry(carried).step_up_grant(&sign(TokenKind::StepUpGrant, grant_claims()));
    let headers = context.headers_at(&outgoing, &Asked::of("pay", "Invoice", "i"), NOW, "j").unwrap();
    let record = |partition: i32, value: &'static [u8]| Record {
        source: Coordinates { topic: topic.clone(), partition: Partition(partition), offset: Offset(7) },
        timestamp: Some(NOW),
        timestamp_type: TimestampType::LogAppendTime,
        key: Some("".into()),
        value: Some(value.into()),
        headers: headers.as_slice().to_vec(),
    };
    let judge = |record: &Record| {
        let rules = Rules {
            realm: &realm,
            route: &route,
            trust: &trust,
            cache: &cache,
            now: NOW,
            source_partitions: 4,
            held: None,
        };
        let claimed = Claimed::read(record, &Hashes::of(record), &route, &cache).unwrap();
        verify(record, &claimed, &rules, &Memory::new(window_ms(&route)))
            .map_err(|refused| refused.denial.reason.as_str())
    };
    let verified = judge(&record(3, b"v")).unwrap();
    assert_eq!(verified.sender, *signer().id());
    assert_eq!(verified.transaction.unwrap().subject, "alice");
    assert_eq!(judge(&record(3, b"w")).unwrap_err(), "proof_mismatch");
    assert_eq!(judge(&record(2, b"v")).unwrap_err(), "proof_mismatch");
}
