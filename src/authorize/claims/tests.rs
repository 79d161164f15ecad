//! Each named member of each token: there, or of its type, or the record is malformed.

use serde_json::{Value, json};

use crate::authorize::decision::Reason;
use crate::authorize::jose::TokenKind;
use crate::authorize::testing::*;

const MALFORMED: Option<Reason> = Some(Reason::ContextMalformed);

/// Sets the member at a dotted path; `None` removes it.
fn set(claims: &mut Value, path: &str, value: Option<Value>) {
    let mut at = claims;
    let (parents, name) = path.rsplit_once('.').map_or((None, path), |(parents, name)| (Some(parents), name));
    for parent in parents.iter().flat_map(|p| p.split('.')) {
        at = &mut at[parent];
    }
    match value {
        Some(value) => at[name] = value,
        None => drop(at.as_object_mut().unwrap().remove(name)),
    }
}

fn with(kind: TokenKind, path: &str, value: Option<Value>) -> Option<Reason> {
    reason_of_claims(kind, |claims| set(claims, path, value.clone()))
}

const NAMED: &[(TokenKind, &[&str], &[&str])] = &[
    (
        TokenKind::WorkloadIdentity,
        &["sub", "exp", "cnf", "cnf.jwk", "cnf.jwk.alg", "cnf.jwk.kty", "cnf.jwk.x"],
        &["iat", "nbf", "iss", "jti", "cnf.jwk.kid"],
    ),
    (
        TokenKind::WorkloadProof,
        &[
            "aud",
            "iat",
            "exp",
            "jti",
            "wth",
            "kafka",
            "kafka.key",
            "kafka.value",
            "action.name",
            "resource.type",
            "resource.id",
            "workflow.id",
            "workflow.type",
            "workflow.step",
            "workflow.state",
        ],
        &[
            "nbf",
            "iss",
            "action.properties",
            "resource.properties",
            "workflow.attempt",
            "workflow.started_at",
            "workflow.deadline",
            "kafka.partition",
            "kafka.headers",
        ],
    ),
    (
        TokenKind::Transaction,
        &["iat", "exp", "aud", "txn", "sub", "scope", "req_wl"],
        &["nbf", "tctx", "rctx", "rctx.acr", "rctx.amr", "rctx.auth_time", "iss", "act", "jti"],
    ),
    (
        TokenKind::Countersignature,
        &[
            "iss",
            "aud",
            "iat",
            "exp",
            "jti",
            "sub",
            "txn",
            "tth",
            "action",
            "action.name",
            "resource",
            "resource.type",
            "resource.id",
            "kafka",
            "kafka.key",
            "kafka.value",
            "policy",
            "source",
        ],
        &["nbf", "act", "workflow", "kafka.headers"],
    ),
    (
        TokenKind::StepUpGrant,
        &["iss", "sub", "aud", "iat", "exp", "jti", "challenge", "digest", "decision"],
        &["nbf", "acr", "amr", "auth_time", "comment"],
    ),
];

#[test]
fn a_needed_member_is_there_and_no_named_member_is_mistyped() {
    for (kind, needed, optional) in NAMED {
        for path in *needed {
            assert_eq!(with(*kind, path, None), MALFORMED, "{kind:?} without {path}");
        }
        for path in needed.iter().chain(*optional) {
            // `true` is of no type that the contract names; `null` is named for two members alone.
            assert_eq!(with(*kind, path, Some(json!(true))), MALFORMED, "{kind:?} with {path} true");
            if !matches!(*path, "kafka.key" | "kafka.value") {
                assert_eq!(with(*kind, path, Some(json!(null))), MALFORMED, "{kind:?} with {path} null");
            }
        }
        for path in *optional {
            assert_eq!(with(*kind, path, None), None, "{kind:?} without {path}");
        }
        assert_eq!(with(*kind, "unheard_of", Some(json!(null))), None, "{kind:?}");
    }
}

#[test]
fn action_resource_and_workflow_may_be_absent_from_a_proof_but_are_objects() {
    for member in ["action", "resource", "workflow"] {
        assert_eq!(with(TokenKind::WorkloadProof, member, None), None);
        for bad in [json!(null), json!("pay"), json!(["pay", {}]), json!(["a", "b", "c", "d"])] {
            assert_eq!(with(TokenKind::WorkloadProof, member, Some(bad)), MALFORMED, "{member}");
        }
    }
}

#[test]
fn numeric_dates_are_numbers_within_2_to_the_53() {
    for kind in [TokenKind::WorkloadIdentity, TokenKind::Transaction, TokenKind::Countersignature] {
        let limit = 1_i64 << 53;
        assert_eq!(with(kind, "exp", Some(json!(limit))), None, "{kind:?}");
        assert_eq!(with(kind, "exp", Some(json!(limit + 1))), MALFORMED, "{kind:?}");
        assert_eq!(with(kind, "exp", Some(json!(1e300))), MALFORMED, "{kind:?}");
        assert_eq!(with(kind, "nbf", Some(json!(-limit))), None, "{kind:?}");
        assert_eq!(with(kind, "nbf", Some(json!(-limit - 1))), MALFORMED, "{kind:?}");
        assert_eq!(with(kind, "exp", Some(json!(u64::MAX))), MALFORMED, "{kind:?}");
        assert_eq!(with(kind, "exp", Some(json!("1893456000"))), MALFORMED, "{kind:?}");
        assert_eq!(with(kind, "iat", Some(json!(1_893_455_000.25))), None, "{kind:?}");
    }
}

#[test]
fn the_life_of_a_proof_is_positive_and_at_most_the_configured_one() {
    let life = |life: f64| {
        reason_of_claims(TokenKind::WorkloadProof, |claims| {
            claims["exp"] = json!(claims["iat"].as_f64().unwrap() + life);
        })
    };
    assert_eq!(life(300.0), None);
    assert_eq!(life(300.001), MALFORMED);
    assert_eq!(life(0.0), MALFORMED);
    assert_eq!(life(-1.0), MALFORMED);
    assert_eq!(life(0.5), None);
}

#[test]
fn a_proofs_jti_has_1_to_128_code_points() {
    let jti = |text: String| with(TokenKind::WorkloadProof, "jti", Some(json!(text)));
    assert_eq!(jti(String::new()), MALFORMED);
    assert_eq!(jti("😀".repeat(128)), None);
    assert_eq!(jti("😀".repeat(129)), MALFORMED);
}

#[test]
fn signed_names_are_strings_distinct_few_and_none_of_the_five() {
    let names = |names: Value| {
        let headers = json!({"names": names, "digest": "AA"});
        with(TokenKind::WorkloadProof, "kafka.headers", Some(headers))
    };
    let many = |n: usize| json!((0..n).map(|i| format!("h{i}")).collect::<Vec<_>>());
    // Well formed, and of another digest.
    assert_eq!(names(many(64)), Some(Reason::ProofMismatch));
    for bad in [many(65), json!(["a", "a"]), json!(["a", 1]), json!("a"), json!({})] {
        assert_eq!(names(bad), MALFORMED);
    }
    for kind in TokenKind::ALL {
        assert_eq!(names(json!([kind.header_name()])), MALFORMED);
    }
    for headers in [json!({"names": []}), json!({"digest": "AA"}), json!({"names": [], "digest": 1})] {
        assert_eq!(with(TokenKind::WorkloadProof, "kafka.headers", Some(headers)), MALFORMED);
    }
}

#[test]
fn control_characters_are_refused_where_policies_compare() {
    let control = "a\u{85}b";
    for kind in [TokenKind::WorkloadProof, TokenKind::Countersignature] {
        for (path, value) in [
            ("action.name", json!(control)),
            ("action.properties", json!({"deep": [{"x": control}]})),
            ("resource.properties", json!({control: 1})),
            ("resource.id", json!(control)),
            ("resource.unheard_of", json!("\u{0}")),
        ] {
            assert_eq!(with(kind, path, Some(value)), MALFORMED, "{kind:?} {path}");
        }
    }
    assert_eq!(with(TokenKind::WorkloadProof, "workflow.state", Some(json!(control))), MALFORMED);
    assert_eq!(with(TokenKind::Transaction, "sub", Some(json!(control))), None);
}

#[test]
fn integers_of_the_request_are_exact_for_every_reader() {
    for kind in [TokenKind::WorkloadProof, TokenKind::Countersignature] {
        let with_number = |number: &str| {
            reason_of(&Plan::full(), |of, draft| {
                if of == kind {
                    draft.claims["action"]["properties"] = json!({"n": "NUMBER"});
                    draft.payload = Some(draft.claims.to_string().replace("\"NUMBER\"", number).into_bytes());
                }
            })
        };
        assert_eq!(with_number("9007199254740991"), None, "{kind:?}");
        assert_eq!(with_number("1e40"), None, "{kind:?}");
        for number in ["9007199254740992", "-9007199254740992", "99999999999999999999999"] {
            assert_eq!(with_number(number), MALFORMED, "{kind:?} {number}");
        }
    }
    assert_eq!(with(TokenKind::WorkloadProof, "unheard_of", Some(json!(u64::MAX))), None);
}

#[test]
fn a_txn_token_has_at_most_8_nested_actors() {
    let nested = |depth: usize| {
        let act = (0..depth).fold(None, |inner: Option<Value>, n| {
            let mut act = json!({"sub": n.to_string()});
            if let Some(inner) = inner {
                act["act"] = inner;
            }
            Some(act)
        });
        with(TokenKind::Transaction, "act", act)
    };
    assert_eq!(nested(8), None);
    assert_eq!(nested(9), MALFORMED);
    assert_eq!(with(TokenKind::Transaction, "act", Some(json!({"sub": 1}))), MALFORMED);
    assert_eq!(with(TokenKind::Transaction, "act", Some(json!({"act": {"act": []}}))), MALFORMED);
}

#[test]
fn every_actor_of_a_countersignature_is_an_identifier() {
    let act = |act: Value| with(TokenKind::Countersignature, "act", Some(act));
    assert_eq!(act(json!({"sub": "spiffe://example.org/a"})), None);
    for bad in [json!({}), json!({"sub": "alice"}), json!({"sub": "spiffe://example.org/a", "act": {}})] {
        assert_eq!(act(bad), MALFORMED);
    }
    for (member, value) in [("iss", "gate"), ("sub", "spiffe://example.org"), ("aud", "")] {
        let expected = if member == "aud" { Some(Reason::ChainInvalid) } else { MALFORMED };
        assert_eq!(with(TokenKind::Countersignature, member, Some(json!(value))), expected, "{member}");
    }
    let list = json!(["kafka://test/invoices.authorized"]);
    assert_eq!(with(TokenKind::Countersignature, "aud", Some(list)), MALFORMED);
}

#[test]
fn the_workload_key_is_public_sound_and_of_a_known_algorithm() {
    let jwk = |path: &str, value: Value| with(TokenKind::WorkloadIdentity, path, Some(value));
    assert_eq!(jwk("cnf.jwk.d", json!("AA")), MALFORMED);
    assert_eq!(jwk("cnf.jwk.k", json!(null)), MALFORMED);
    assert_eq!(jwk("cnf.jwk.alg", json!("ES256")), MALFORMED);
    assert_eq!(jwk("cnf.jwk.alg", json!("ES384")), MALFORMED);
    assert_eq!(jwk("cnf.jwk.alg", json!("none")), MALFORMED);
    assert_eq!(jwk("cnf.jwk.x", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")), MALFORMED);
    assert_eq!(jwk("cnf.jwk.use", json!("anything")), None);
}

#[test]
fn a_grant_says_approve_or_refuse_and_its_signature_is_not_looked_at_here() {
    let grant = |path: &str, value: Value| with(TokenKind::StepUpGrant, path, Some(value));
    assert_eq!(grant("decision", json!("refuse")), None);
    assert_eq!(grant("decision", json!("perhaps")), MALFORMED);
    assert_eq!(grant("amr", json!(["a", 1])), MALFORMED);
    assert_eq!(grant("exp", json!(1)), None);
}
