//! Chains: what breaks them, how deep they go, and that what one gate writes the next gate and a worker accept.

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::authorize::jose::{Algorithm, SigningKey, base64url};
use crate::authorize::testing::*;

fn broken(edit: impl Fn(&mut Value)) -> Option<Reason> {
    reason_of_claims(KIND, edit)
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(null), |inner, n| {
        let mut act = json!({"sub": format!("spiffe://example.org/a{n}")});
        if !inner.is_null() {
            act["act"] = inner;
        }
        act
    })
}

#[test]
fn sender_sub_and_actors_together_are_at_most_8() {
    assert_eq!(broken(|c| c["act"] = nested(6)), None);
    assert_eq!(broken(|c| c["act"] = nested(7)), Some(Reason::ChainTooDeep));
    assert_eq!(broken(|c| c["act"] = nested(30)), Some(Reason::ChainTooDeep));
    // Depth is looked at last.
    let got = broken(|c| {
        c["act"] = nested(7);
        c["txn"] = "txn-2".into();
    });
    assert_eq!(got, Some(Reason::ChainInvalid));
}

#[test]
fn a_chain_is_of_this_realm_for_a_legal_topic_and_of_this_transaction() {
    let invalid = Some(Reason::ChainInvalid);
    for aud in [
        "kafka://other/invoices.authorized",
        "kafka://test/",
        "kafka://test/a/b",
        "kafka://test/..",
        "kafka://test",
        "kafka://test2/a",
        "KAFKA://test/a",
        "invoices.authorized",
    ] {
        assert_eq!(broken(|c| c["aud"] = aud.into()), invalid, "{aud}");
    }
    assert_eq!(broken(|c| c["txn"] = "txn-2".into()), invalid);
    assert_eq!(broken(|c| c["exp"] = (ACCEPTED_S - 31).into()), invalid);
    assert_eq!(broken(|c| c["exp"] = (ACCEPTED_S - 30).into()), None);
    assert_eq!(broken(|c| c["nbf"] = (ACCEPTED_S + 31).into()), invalid);
    assert_eq!(broken(|c| c["tth"] = "of-an-earlier-token".into()), None);
}

#[test]
fn without_a_txn_token_the_chain_may_name_none() {
    let plan = Plan { transaction: false, countersignature: true, ..Plan::default() };
    assert_eq!(reason_of(&plan, |_, _| {}), None);
    let named = reason_of(&plan, |of, draft| {
        if of == KIND {
            draft.claims["txn"] = "txn-1".into();
        }
    });
    assert_eq!(named, Some(Reason::ChainInvalid));
}

#[test]
fn a_countersignature_cached_beside_no_txn_token_is_still_malformed_beside_one() {
    let world = World::default();
    let plan = Plan { transaction: false, countersignature: true, ..Plan::default() };
    let record = plan.build();
    assert_eq!(world.reason(&record), None);
    let token = record.headers.iter().find(|h| h.name == "countersignature").unwrap().value.clone().unwrap();
    let beside = Plan { transaction: true, ..plan }.build_with(|of, draft| {
        if of == KIND {
            draft.whole = Some(token.to_vec());
        }
    });
    assert_eq!(world.reason(&beside), Some(Reason::ContextMalformed));
}

#[test]
fn a_gate_signs_for_its_own_domain_alone() {
    let by = |name: &'static str, iss: &'static str| {
        reason_of(&Plan::full(), move |of, draft| {
            if of == KIND {
                draft.key = key(name);
                draft.head["kid"] = name.into();
                draft.claims["iss"] = iss.into();
            }
        })
    };
    assert_eq!(by("gate", "spiffe://example.org/gate/two"), None);
    assert_eq!(by("other-domain-gate", "spiffe://other.org/gate"), None);
    assert_eq!(by("other-domain-gate", "spiffe://example.org/gate/one"), Some(Reason::ChainInvalid));
    assert_eq!(by("gate", "spiffe://unknown.org/gate"), Some(Reason::ChainInvalid));
    assert_eq!(by("workload", "spiffe://example.org/gate/one"), Some(Reason::ChainInvalid));
}

#[test]
fn a_route_may_say_which_topics_it_continues_from() {
    let only = |topic: &str| {
        let topics = Some([Topic::parse(topic).unwrap()].into());
        World::on(Route { continues_from: topics, ..route() }).reason(&Plan::full().build())
    };
    assert_eq!(only("invoices.authorized"), None);
    assert_eq!(only("other"), Some(Reason::ChainInvalid));
}

#[test]
fn a_record_without_one_begins_its_work() {
    let (verified, chain) = World::default().judge(&Plan::default().build()).unwrap();
    assert_eq!((chain.depth(), chain.origin(&verified.sender)), (1, &verified.sender));
    let (verified, chain) = World::default().judge(&Plan::full().build()).unwrap();
    assert_eq!(chain.depth(), 2);
    assert_eq!(chain.origin(&verified.sender).as_str(), "spiffe://example.org/agent/reader");
}

/// A record as this gate forwards it.
fn forward(plan: &Plan, change: impl Fn(&mut Request)) -> Result<(Record, Value), Denial> {
    let world = World::default();
    let record = plan.build();
    let (verified, chain) = world.judge(&record).unwrap();
    let gate = Gate {
        id: WorkloadId::parse("spiffe://example.org/gate/payments").unwrap(),
        realm: world.realm.clone(),
        key: SigningKey::from_seed(Algorithm::EdDsa, &[4; 32], Some("gate")).unwrap(),
    };
    let mut request = Request {
        action: Action { name: "pay".into(), properties: None },
        resource: Resource { kind: "Invoice".into(), id: "inv-7".into(), properties: None },
        workflow: None,
        value: None,
    };
    change(&mut request);
    let gone = [
        "workload-identity-token",
        "workload-proof-token",
        "step-up-grant",
        "countersignature",
        "decision-id",
    ];
    let mut headers: Vec<Header> =
        record.headers.iter().filter(|h| !gone.iter().any(|name| h.name == *name)).cloned().collect();
    headers.push(Header::new("decision-id", "0190"));
    let token = countersign(&Forwarding {
        gate: &gate,
        route: &world.route,
        record: &record,
        headers: &headers,
        verified: &verified,
        chain: &chain,
        request: &request,
        bundle: Digest([9; 32]),
        id: DecisionId(Uuid::from_u128(7)),
        now: UnixMillis(NOW_S * 1000 + 999),
    })?;
    let payload = base64url(token.split('.').nth(1).unwrap()).unwrap();
    headers.push(Header::new("countersignature", token));
    let mut forwarded = Record { headers, ..record };
    forwarded.source.topic = world.route.to.clone();
    Ok((forwarded, serde_json::from_slice(&payload).unwrap()))
}

fn checked(record: &Record, accepted_s: i64) -> Result<Countersigned, Reason> {
    let world = World::default();
    verify_countersignature(record, &world.realm, &world.trust, UnixMillis(accepted_s * 1000), 30)
        .map_err(|denial| denial.reason)
}

#[test]
fn a_countersignature_says_what_the_contract_says() {
    let mut plan = Plan { signed_names: Some(vec!["a"]), ..Plan::full() };
    plan.record.headers = vec![Header::new("a", "1")];
    let (record, claims) = forward(&plan, |_| {}).unwrap();
    let names = vec!["a".to_owned()];
    assert_eq!(
        claims,
        json!({
            "iss": "spiffe://example.org/gate/payments", "aud": "kafka://test/payments.authorized",
            "iat": NOW_S, "exp": NOW_S + 900, "jti": "00000000-0000-0000-0000-000000000007",
            "sub": PAYER, "act": {"sub": "spiffe://example.org/agent/reader"},
            "txn": "txn-1",
            "tth": token_hash(record.headers.iter().find(|h| h.name == "txn-token").unwrap().value.as_ref().unwrap()).to_string(),
            "action": {"name": "pay"}, "resource": {"type": "Invoice", "id": "inv-7"},
            "kafka": {
                "key": digests::of_bytes(Some(b"inv-7")).unwrap().to_string(),
                "value": digests::of_bytes(plan.record.value.as_deref()).unwrap().to_string(),
                "headers": {"names": ["a"], "digest": digests::of_headers(&plan.record.headers, &names).to_string()},
            },
            "policy": Digest([9; 32]).to_string(), "source": "payments.commands/0/17"
        })
    );
    let bare = Plan { transaction: false, ..Plan::default() };
    let (_, claims) = forward(&bare, |_| {}).unwrap();
    for absent in ["act", "txn", "tth", "workflow"] {
        assert!(claims.get(absent).is_none(), "{absent}");
    }
    assert!(claims["kafka"].get("headers").is_none());
}

#[test]
fn headers_are_digested_as_they_are_forwarded() {
    let mut plan = Plan { signed_names: Some(vec!["decision-id"]), ..Plan::default() };
    plan.record.headers = vec![Header::new("decision-id", "the sender's own")];
    let (record, _) = forward(&plan, |_| {}).unwrap();
    assert!(checked(&record, NOW_S).is_ok());
}

#[test]
fn a_worker_and_the_next_gate_accept_what_a_gate_writes() {
    let (record, _) = forward(&Plan::full(), |_| {}).unwrap();
    let claims = checked(&record, NOW_S + 930).unwrap();
    let senders: Vec<_> = claims.senders.iter().map(WorkloadId::as_str).collect();
    assert_eq!(senders, [PAYER, "spiffe://example.org/agent/reader"]);
    let value = |name: &str| record.headers.iter().find(|h| h.name == name).unwrap().value.clone().unwrap();
    let next = Plan::full().build_with(|of, draft| match of {
        TokenKind::Transaction => draft.whole = Some(value("txn-token").to_vec()),
        TokenKind::Countersignature => draft.whole = Some(value("countersignature").to_vec()),
        _ => {}
    });
    let (_, chain) = World::default().judge(&next).unwrap();
    assert_eq!(chain.depth(), 3);
    assert_eq!(chain.from.unwrap().as_str(), "payments.authorized");
}

#[test]
fn a_worker_refuses_a_forwarded_record_that_was_changed() {
    let mut plan = Plan { signed_names: Some(vec!["a"]), ..Plan::default() };
    plan.record.headers = vec![Header::new("a", "1")];
    let (good, _) = forward(&plan, |_| {}).unwrap();
    type Change = fn(&mut Record);
    let cases: [(Change, Reason); 10] = [
        (|r| r.value = Some("x".into()), Reason::ProofMismatch),
        (|r| r.value = None, Reason::ProofMismatch),
        (|r| r.key = None, Reason::ProofMismatch),
        (|r| r.headers.retain(|h| h.name != "a"), Reason::ProofMismatch),
        (|r| r.source.topic = Topic::parse("other").unwrap(), Reason::AudienceMismatch),
        (|r| r.headers.retain(|h| h.name != "countersignature"), Reason::ContextMissing),
        (|r| r.headers.retain(|h| h.name != "txn-token"), Reason::ProofMismatch),
        (|r| r.headers.push(Header::new("Countersignature", "x")), Reason::ContextMalformed),
        (|r| r.headers.push(Header::new("txn-token", "x")), Reason::ContextMalformed),
        (|r| r.headers.push(Header::new("txn-token", vec![b'x'; 9000])), Reason::ContextMalformed),
    ];
    for (i, (change, expected)) in cases.into_iter().enumerate() {
        let mut record = good.clone();
        change(&mut record);
        assert_eq!(checked(&record, NOW_S).map(drop), Err(expected), "change {i}");
    }
    assert_eq!(checked(&good, NOW_S + 931).map(drop), Err(Reason::TokenExpired));
    let untrusted = World { trust: trust_with(domain_without_gates()), ..World::default() };
    let got =
        verify_countersignature(&good, &untrusted.realm, &untrusted.trust, UnixMillis(NOW_S * 1000), 30);
    assert_eq!(got.unwrap_err().reason, Reason::IssuerUnknown);
}

fn domain_without_gates() -> crate::authorize::trust::Domain {
    crate::authorize::trust::Domain { gates: crate::authorize::jose::KeySet::empty(), ..domain() }
}

#[test]
fn a_countersignature_past_8_kib_refuses_the_record() {
    let large = |n: usize| {
        forward(&Plan::default(), |request| {
            request.action.properties = Some(json!({"text": "x".repeat(n)}).as_object().unwrap().clone());
        })
    };
    assert!(large(4000).is_ok());
    assert_eq!(large(8000).unwrap_err().reason, Reason::ContextTooLarge);
}
