//! The stages context, identity and chain against the vectors, and each rule that the vectors leave out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::authorize::decision::Stage;
use crate::authorize::digests::Hashes;
use crate::authorize::ids::{Coordinates, Offset, Partition, Topic};
use crate::authorize::jose::{KeyUse, SigningKey};
use crate::authorize::record::Header;
use crate::authorize::route::Partitioner;
use crate::authorize::testing::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/contract.json")).unwrap()
}

fn vector_world(frame: &Value) -> World {
    let domains = frame["trust"].as_object().unwrap().iter().map(|(name, sets)| {
        let set = |member: &str, key_use| KeySet::from_jwks(&sets[member].to_string(), key_use).unwrap();
        let domain = Domain {
            algorithms: Algorithm::DEFAULT.to_vec(),
            bundle: set("bundle", KeyUse::WitIssuer),
            token_service: set("txn_keys", KeyUse::Any),
            gates: set("gate_keys", KeyUse::Any),
        };
        (TrustDomain::parse(name).unwrap(), domain)
    });
    World {
        realm: Realm::parse(frame["realm"].as_str().unwrap()).unwrap(),
        trust: Trust::new(domains.collect()),
        now: UnixMillis(frame["now"].as_i64().unwrap() * 1000),
        ..World::default()
    }
}

fn vector_route(frame: &Value, case: &Value) -> Route {
    let member = |name: &str| case["route"].get(name).unwrap_or(&frame["route"][name]).clone();
    let requires = |what: &str| member("require").as_array().unwrap().iter().any(|r| r == what);
    Route {
        require_transaction: requires("transaction"),
        require_countersignature: requires("countersignature"),
        token_expiry: if member("token_expiry") == "now" { TokenExpiry::Now } else { TokenExpiry::Accepted },
        skew_s: frame["skew_s"].as_u64().unwrap() as u32,
        proof_life_s: frame["max_proof_life_s"].as_u64().unwrap() as u32,
        max_queue_time_s: frame["max_queue_time_s"].as_u64().unwrap() as u32,
        ..route()
    }
}

fn vector_record(record: &Value) -> Record {
    let bytes = |value: &Value| value.as_str().map(|text| Bytes::from(STANDARD.decode(text).unwrap()));
    Record {
        source: Coordinates {
            topic: Topic::parse(record["topic"].as_str().unwrap()).unwrap(),
            partition: Partition(record["partition"].as_i64().unwrap() as i32),
            offset: Offset(record["offset"].as_i64().unwrap()),
        },
        timestamp: record["timestamp_ms"].as_i64().map(UnixMillis),
        timestamp_type: match record["timestamp_type"].as_str().unwrap() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        key: bytes(&record["key"]),
        value: bytes(&record["value"]),
        headers: record["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| Header {
                name: Bytes::copy_from_slice(header[0].as_str().unwrap().as_bytes()),
                value: bytes(&header[1]),
            })
            .collect(),
    }
}

#[test]
fn every_vector_of_these_stages_agrees_and_the_others_pass_them() {
    let frame = vectors();
    // One cache for all: a token that one case made known must not help another.
    let mut world = vector_world(&frame);
    let mut wrong = Vec::new();
    let cases = frame["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 91);
    for case in cases {
        world.route = vector_route(&frame, case);
        let expected = case["expect"]["reason"]
            .as_str()
            .map(|code| *Reason::ALL.iter().find(|reason| reason.as_str() == code).unwrap());
        let expected = expected.filter(|reason| reason.stage() <= Stage::Chain);
        let got = world.judge(&vector_record(&case["record"])).err();
        if got.as_ref().map(|denial| denial.reason) != expected {
            wrong.push(format!("{}: expected {expected:?}, got {got:?}", case["name"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_full_record_passes_and_says_what_was_signed() {
    let (verified, chain) = World::default().judge(&Plan::full().build()).unwrap();
    assert_eq!(verified.sender.as_str(), PAYER);
    assert!(verified.proven);
    let transaction = verified.transaction.unwrap();
    assert_eq!(transaction.scope.iter().collect::<Vec<_>>(), ["payments.pay", "payments.read"]);
    assert_eq!(transaction.domain.as_str(), "example.org");
    assert_eq!(verified.proof.unwrap().action.as_ref().unwrap().name, "pay");
    assert_eq!(verified.replay.unwrap().offset, Offset(17));
    assert_eq!(chain.from.unwrap().as_str(), "invoices.authorized");
    assert_eq!(chain.gate.unwrap().as_str(), "spiffe://example.org/gate/one");
}

/// Breaks a token in every later way at once, and mends one after the other: the reason follows the contract's order.
#[test]
fn each_token_is_judged_by_algorithm_key_signature_audience_time_proof() {
    use Reason::{
        AlgorithmNotAllowed, AudienceMismatch, IssuerUnknown, ProofMismatch, SignatureInvalid, TokenExpired,
        TokenNotYetValid,
    };
    let steps = |kind: TokenKind, expected: &[Option<Reason>]| {
        for (mended, expected) in expected.iter().enumerate() {
            let got = reason_of(&Plan::full(), |of, draft| {
                if of != kind {
                    return;
                }
                if mended < 1 {
                    draft.head["alg"] = "RS256".into();
                }
                if kind != TokenKind::WorkloadProof && mended < 2 {
                    draft.head["kid"] = "nobody".into();
                }
                if mended < 3 {
                    // The head still claims what it claims; the signature is another key's.
                    draft.key = key("rogue");
                }
                if mended < 4 && kind != TokenKind::WorkloadIdentity {
                    draft.claims["aud"] = "elsewhere".into();
                }
                if mended < 5 {
                    draft.claims["exp"] = (ACCEPTED_S - 31).into();
                    draft.claims["iat"] = (ACCEPTED_S - 32).into();
                    draft.claims["nbf"] = (ACCEPTED_S + 31).into();
                } else if mended < 6 {
                    draft.claims["nbf"] = (ACCEPTED_S + 31).into();
                }
                if mended < 7 && kind == TokenKind::WorkloadProof {
                    draft.claims["wth"] = "AA".into();
                }
            });
            assert_eq!(got, *expected, "{kind:?}, {mended} mended");
        }
    };
    steps(
        TokenKind::WorkloadIdentity,
        &[
            Some(AlgorithmNotAllowed),
            Some(IssuerUnknown),
            Some(SignatureInvalid),
            Some(TokenExpired),
            Some(TokenExpired),
            Some(TokenNotYetValid),
            None,
        ],
    );
    steps(
        TokenKind::Transaction,
        &[
            Some(AlgorithmNotAllowed),
            Some(IssuerUnknown),
            Some(SignatureInvalid),
            Some(AudienceMismatch),
            Some(TokenExpired),
            Some(TokenNotYetValid),
            None,
        ],
    );
    steps(
        TokenKind::WorkloadProof,
        &[
            Some(AlgorithmNotAllowed),
            Some(SignatureInvalid),
            Some(SignatureInvalid),
            Some(AudienceMismatch),
            Some(TokenExpired),
            Some(TokenNotYetValid),
            Some(ProofMismatch),
            None,
        ],
    );
    // Every fault of a countersignature is one reason.
    steps(TokenKind::Countersignature, &[Some(Reason::ChainInvalid); 6]);
}

#[test]
fn all_of_the_wit_comes_before_the_txn_token_and_all_of_that_before_the_proof() {
    let expire = |kinds: &'static [TokenKind]| {
        reason_of(&Plan::full(), move |of, draft| {
            if of == TokenKind::WorkloadIdentity && kinds.contains(&of) {
                draft.claims["exp"] = 1.into();
            }
            if of == TokenKind::Transaction && kinds.contains(&of) {
                draft.claims["aud"] = "elsewhere".into();
            }
            if of == TokenKind::WorkloadProof && kinds.contains(&of) {
                draft.head["alg"] = "ES256".into();
            }
        })
    };
    use TokenKind::{Transaction, WorkloadIdentity, WorkloadProof};
    assert_eq!(expire(&[WorkloadIdentity, Transaction, WorkloadProof]), Some(Reason::TokenExpired));
    assert_eq!(expire(&[Transaction, WorkloadProof]), Some(Reason::AudienceMismatch));
    assert_eq!(expire(&[WorkloadProof]), Some(Reason::AlgorithmNotAllowed));
}

#[test]
fn none_and_macs_are_refused_as_algorithms_with_any_signature() {
    for kind in [TokenKind::WorkloadIdentity, TokenKind::Transaction, TokenKind::WorkloadProof] {
        for alg in ["none", "HS256", "NONE", "ES384", ""] {
            for signature in ["", "AA", "bm90LWEtc2lnbmF0dXJl"] {
                let got = reason_of(&Plan::default(), |of, draft| {
                    if of == kind {
                        draft.head["alg"] = alg.into();
                        let whole = draft
                            .key
                            .sign_raw(draft.head.to_string().as_bytes(), draft.claims.to_string().as_bytes());
                        let (input, _) = whole.rsplit_once('.').unwrap();
                        draft.whole = Some(format!("{input}.{signature}").into_bytes());
                    }
                });
                assert_eq!(got, Some(Reason::AlgorithmNotAllowed), "{kind:?} {alg} {signature}");
            }
        }
    }
}

#[test]
fn an_unknown_domain_is_judged_by_the_default_list_and_then_unknown() {
    let of = |alg: &'static str| {
        reason_of(&Plan::default(), move |of, draft| {
            if of == TokenKind::WorkloadIdentity {
                draft.claims["sub"] = "spiffe://unknown.org/a".into();
                draft.head["alg"] = alg.into();
            }
        })
    };
    assert_eq!(of("RS256"), Some(Reason::AlgorithmNotAllowed));
    assert_eq!(of("ES256"), Some(Reason::IssuerUnknown));
}

#[test]
fn a_domain_decides_which_algorithms_its_tokens_may_use() {
    let only_es256 = Domain { algorithms: vec![Algorithm::Es256], ..domain() };
    let world = World { trust: trust_with(only_es256), ..World::default() };
    // The WIT is ES256; the proof's key is Ed25519.
    let denial = world.judge(&Plan::default().build()).unwrap_err();
    assert_eq!(denial.reason, Reason::AlgorithmNotAllowed);
    assert!(denial.detail.contains("workload-proof-token"), "{denial}");
}

#[test]
fn rsa_works_where_a_domain_allows_it() {
    let jwk = include_str!("../jose/testdata/rsa.jwk");
    for alg in ["RS256", "PS256"] {
        let rsa = || SigningKey::from_jwk(&jwk.replace("ALG", alg)).unwrap();
        let edit = |of: TokenKind, draft: &mut Draft| match of {
            TokenKind::WorkloadIdentity => draft.claims["cnf"]["jwk"] = rsa().public_jwk(),
            TokenKind::WorkloadProof => {
                draft.head["alg"] = alg.into();
                draft.key = rsa();
            }
            _ => {}
        };
        let record = Plan::default().build_with(edit);
        assert_eq!(World::default().reason(&record), Some(Reason::AlgorithmNotAllowed));
        let allowed = Domain { algorithms: Algorithm::ALL.to_vec(), ..domain() };
        let world = World { trust: trust_with(allowed), ..World::default() };
        assert_eq!(world.reason(&record), None);
    }
}

#[test]
fn keys_of_one_kind_never_sign_tokens_of_another() {
    for (kind, signer) in [
        (TokenKind::WorkloadIdentity, "tts"),
        (TokenKind::WorkloadIdentity, "gate"),
        (TokenKind::Transaction, "issuer"),
        (TokenKind::Transaction, "other-domain-tts"),
    ] {
        let got = reason_of(&Plan::default(), |of, draft| {
            if of == kind {
                draft.key = key(signer);
                draft.head["alg"] = draft.key.algorithm().as_str().into();
                draft.head["kid"] = signer.into();
            }
        });
        assert_eq!(got, Some(Reason::IssuerUnknown), "{kind:?} by {signer}");
    }
}

#[test]
fn a_txn_token_of_one_domain_does_not_serve_a_sender_of_another_even_when_it_is_cached() {
    let world = World::default();
    assert_eq!(world.reason(&Plan::default().build()), None);
    // The same Txn-Token, byte for byte (ECDSA would sign anew), with a sender of another domain.
    let record = Plan::default().build();
    let own = record.headers.iter().find(|h| h.name == "txn-token").unwrap().value.clone().unwrap();
    assert_eq!(world.reason(&record), None);
    let other = Plan::default().build_with(|of, draft| match of {
        TokenKind::WorkloadIdentity => {
            draft.claims["sub"] = "spiffe://other.org/a".into();
            draft.key = key("other-domain-issuer");
            draft.head = json!({"alg": "EdDSA", "typ": "wit+jwt", "kid": "other-domain-issuer"});
        }
        TokenKind::Transaction => draft.whole = Some(own.to_vec()),
        _ => {}
    });
    let denial = world.judge(&other).unwrap_err();
    assert_eq!(denial.reason, Reason::IssuerUnknown);
    assert!(denial.detail.contains("txn-token"), "{denial}");
}

#[test]
fn taking_a_key_away_ends_trust_at_once() {
    let mut world = World::default();
    let record = Plan::full().build();
    assert_eq!(world.reason(&record), None);
    let hits = world.cache.take_counts().hits;
    assert_eq!(hits, 3);
    world.trust = trust_with(Domain { bundle: KeySet::empty(), ..domain() });
    assert_eq!(world.reason(&record), Some(Reason::IssuerUnknown));
    world.trust = trust_with(Domain { token_service: KeySet::empty(), ..domain() });
    assert_eq!(world.reason(&record), Some(Reason::IssuerUnknown));
    world.trust = trust_with(Domain { gates: KeySet::empty(), ..domain() });
    assert_eq!(world.reason(&record), Some(Reason::ChainInvalid));
    world.trust = trust_with(domain());
    assert_eq!(world.reason(&record), None);
}

#[test]
fn times_are_judged_for_each_record_of_a_cached_token() {
    let world = World::default();
    let mut record = Plan::default().build();
    assert_eq!(world.reason(&record), None);
    record.timestamp = Some(UnixMillis((NOW_S + 30) * 1000));
    assert_eq!(world.reason(&record), None);
    let late = World { now: UnixMillis((NOW_S + 2000) * 1000), ..world };
    record.timestamp = Some(UnixMillis((NOW_S + 1831) * 1000));
    let denial = late.judge(&record).unwrap_err();
    assert_eq!(denial.reason, Reason::TokenExpired);
    assert!(denial.detail.contains("workload-identity-token"), "{denial}");
}

#[test]
fn bounds_of_time_are_inclusive_and_fractions_count() {
    let with = |exp: Value, nbf: Value| {
        reason_of_claims(TokenKind::Transaction, move |claims| {
            claims["exp"] = exp.clone();
            claims["nbf"] = nbf.clone();
        })
    };
    let at = ACCEPTED_S as f64;
    assert_eq!(with(json!(ACCEPTED_S - 30), json!(ACCEPTED_S + 30)), None);
    assert_eq!(with(json!(at - 30.001), json!(0)), Some(Reason::TokenExpired));
    assert_eq!(with(json!(NOW_S), json!(at + 30.001)), Some(Reason::TokenNotYetValid));
    assert_eq!(with(json!(at - 29.5), json!(-1.5e9)), None);
}

#[test]
fn a_timestamp_counts_only_if_the_broker_set_it_or_the_route_trusts_it() {
    let long_ago = Some(UnixMillis((NOW_S - 3600) * 1000));
    let e = |kind, timestamp, trusted| {
        let record = Record { timestamp, timestamp_type: kind, ..Plan::default().record };
        accepted(&record, &Route { trust_create_time: trusted, ..route() }, UnixMillis(NOW_S * 1000)).0 / 1000
    };
    use TimestampType::{CreateTime, LogAppendTime, NotAvailable};
    assert_eq!(e(LogAppendTime, long_ago, false), NOW_S - 3600);
    assert_eq!(e(CreateTime, long_ago, false), NOW_S);
    assert_eq!(e(CreateTime, long_ago, true), NOW_S - 3600);
    assert_eq!(e(NotAvailable, None, true), NOW_S);
    assert_eq!(e(LogAppendTime, None, true), NOW_S);
    assert_eq!(e(CreateTime, None, true), NOW_S);
}

#[test]
fn a_txn_token_that_must_be_alive_now_is_judged_with_skew_and_before_iat() {
    let world = World::on(Route { token_expiry: TokenExpiry::Now, ..route() });
    let with = |exp: i64, nbf: i64| {
        world.reason(&Plan::default().build_with(|of, draft| {
            if of == TokenKind::Transaction {
                draft.claims["exp"] = exp.into();
                draft.claims["nbf"] = nbf.into();
            }
        }))
    };
    assert_eq!(with(NOW_S - 30, 0), None);
    assert_eq!(with(NOW_S - 31, 0), Some(Reason::TokenExpired));
    assert_eq!(with(NOW_S - 31, NOW_S + 900), Some(Reason::TokenExpired));
}

#[test]
fn a_txn_token_is_for_the_senders_domain_alone_or_among_others() {
    let with = |aud: Value| reason_of_claims(TokenKind::Transaction, move |c| c["aud"] = aud.clone());
    assert_eq!(with(json!(["a.org", "example.org"])), None);
    assert_eq!(with(json!([])), Some(Reason::AudienceMismatch));
    assert_eq!(with(json!("EXAMPLE.org")), Some(Reason::AudienceMismatch));
    assert_eq!(with(json!(["example.org", 1])), Some(Reason::ContextMalformed));
}

#[test]
fn a_proof_is_for_one_topic() {
    let with = |aud: Value| reason_of_claims(TokenKind::WorkloadProof, move |c| c["aud"] = aud.clone());
    let own = "kafka://test/payments.commands";
    assert_eq!(with(json!([own])), None);
    for aud in [json!([]), json!([own, own]), json!([own, "x"]), json!("kafka://test/payments"), json!("")] {
        assert_eq!(with(aud.clone()), Some(Reason::AudienceMismatch), "{aud}");
    }
    for aud in [json!(null), json!(1), json!({}), json!([own, null])] {
        assert_eq!(with(aud.clone()), Some(Reason::ContextMalformed), "{aud}");
    }
}

#[test]
fn a_proof_binds_exactly_the_tokens_that_are_there() {
    let mismatch = Some(Reason::ProofMismatch);
    let full = |edit: fn(&mut Value)| reason_of_claims(TokenKind::WorkloadProof, edit);
    let bare = |edit: fn(&mut Value)| {
        let plan = Plan { transaction: false, ..Plan::default() };
        reason_of(&plan, |of, draft| {
            if of == TokenKind::WorkloadProof {
                edit(&mut draft.claims);
            }
        })
    };
    assert_eq!(full(|c| c["wth"] = "AA".into()), mismatch);
    assert_eq!(full(|c| c["wth"] = format!("{}=", c["wth"].as_str().unwrap()).into()), mismatch);
    assert_eq!(full(|c| c["tth"] = "AA".into()), mismatch);
    assert_eq!(full(|c| drop(c.as_object_mut().unwrap().remove("tth"))), mismatch);
    assert_eq!(full(|c| drop(c.as_object_mut().unwrap().remove("oth"))), mismatch);
    assert_eq!(full(|c| drop(c["oth"].as_object_mut().unwrap().remove("step-up-grant"))), mismatch);
    assert_eq!(full(|c| c["oth"]["countersignature"] = "AA".into()), mismatch);
    assert_eq!(full(|c| c["oth"]["txn-token"] = c["tth"].clone()), mismatch);
    assert_eq!(full(|c| c["oth"]["other"] = json!(null)), mismatch);
    assert_eq!(full(|c| c["oth"]["countersignature"] = json!(1)), Some(Reason::ContextMalformed));
    assert_eq!(full(|c| c["oth"] = json!([])), Some(Reason::ContextMalformed));
    assert_eq!(bare(|_| {}), None);
    assert_eq!(bare(|c| c["oth"] = json!({})), None);
    assert_eq!(bare(|c| c["tth"] = "AA".into()), mismatch);
    assert_eq!(bare(|c| c["oth"] = json!({"countersignature": "AA"})), mismatch);
    assert_eq!(bare(|c| c["oth"] = json!({"step-up-grant": 1})), mismatch);
}

#[test]
fn null_keys_and_values_are_not_empty_ones() {
    let with = |key: Option<&'static [u8]>, claimed: Value| {
        let mut plan = Plan::default();
        plan.record.key = key.map(Bytes::from_static);
        reason_of(&plan, |of, draft| {
            if of == TokenKind::WorkloadProof {
                draft.claims["kafka"]["key"] = claimed.clone();
            }
        })
    };
    let empty = json!(digests::of_bytes(Some(b"")).unwrap().to_string());
    assert_eq!(with(None, json!(null)), None);
    assert_eq!(with(Some(b""), empty.clone()), None);
    assert_eq!(with(None, empty), Some(Reason::ProofMismatch));
    assert_eq!(with(Some(b""), json!(null)), Some(Reason::ProofMismatch));
}

#[test]
fn a_named_partition_is_the_records() {
    let with = |partition: Value| {
        reason_of_claims(TokenKind::WorkloadProof, move |c| c["kafka"]["partition"] = partition.clone())
    };
    assert_eq!(with(json!(0)), None);
    assert_eq!(with(json!(1)), Some(Reason::ProofMismatch));
    assert_eq!(with(json!(u64::MAX)), Some(Reason::ProofMismatch));
    for bad in [json!(-1), json!(0.5), json!(1.0), json!("0"), json!(null)] {
        assert_eq!(with(bad.clone()), Some(Reason::ContextMalformed), "{bad}");
    }
}

#[test]
fn signed_headers_may_not_change_move_or_multiply() {
    let mut plan = Plan { signed_names: Some(vec!["b", "a", "absent"]), ..Plan::default() };
    plan.record.headers = vec![Header::new("a", "1"), Header::new("b", "2"), Header::new("c", "3")];
    let world = World::default();
    let good = plan.build();
    assert_eq!(world.reason(&good), None);
    type Change = fn(&mut Vec<Header>);
    let changes: [(Change, Option<Reason>); 6] = [
        (|h| h[0].value = Some("2".into()), Some(Reason::ProofMismatch)),
        (|h| h[0].value = None, Some(Reason::ProofMismatch)),
        (|h| drop(h.remove(0)), Some(Reason::ProofMismatch)),
        (|h| h.push(Header::new("absent", "")), Some(Reason::ProofMismatch)),
        (|h| h.push(Header::new("unsigned", "")), None),
        (|h| h.swap(0, 1), None),
    ];
    for (i, (change, expected)) in changes.into_iter().enumerate() {
        let mut record = good.clone();
        change(&mut record.headers);
        assert_eq!(world.reason(&record), expected, "change {i}");
    }
}

#[test]
fn a_copy_is_replayed_and_redelivery_is_judged_again() {
    let mut world = World::default();
    let record = Plan::default().build();
    let (verified, _) = world.judge(&record).unwrap();
    world.memory.stage(verified.replay.unwrap());
    assert_eq!(world.reason(&record), None);
    let mut copy = record.clone();
    copy.source.offset = Offset(18);
    let claimed = Claimed::read(&copy, &Hashes::of(&copy), &world.route, &world.cache).unwrap();
    let refused = verify(&copy, &claimed, &world.rules(), &world.memory).unwrap_err();
    assert_eq!(refused.denial.reason, Reason::Replayed);
    assert_eq!(refused.known.sender.unwrap().as_str(), PAYER);
    assert_eq!(refused.known.transaction.unwrap().id, "txn-1");
    // Replay comes before the record's own time.
    world.now = UnixMillis((NOW_S + 90_000) * 1000);
    assert_eq!(world.reason(&copy), Some(Reason::Replayed));
    assert_eq!(world.reason(&record), Some(Reason::TooOld));
}

#[test]
fn strict_replay_wants_the_proof_or_the_key_to_name_the_partition() {
    let key_partition = Partitioner::Murmur2.partition(b"inv-7", 8);
    let strict = World::on(Route { replay: ReplayRule::Strict, ..route() });
    let with = |key: Option<&'static [u8]>, at: i32, named: Option<i32>| {
        let mut plan = Plan::default();
        plan.record.key = key.map(Bytes::from_static);
        plan.record.source.partition = Partition(at);
        strict.reason(&plan.build_with(|of, draft| {
            if let (TokenKind::WorkloadProof, Some(named)) = (of, named) {
                draft.claims["kafka"]["partition"] = named.into();
            }
        }))
    };
    let elsewhere = (key_partition + 1) % 8;
    assert_eq!(with(Some(b"inv-7"), key_partition, None), None);
    assert_eq!(with(Some(b"inv-7"), elsewhere, None), Some(Reason::Replayed));
    assert_eq!(with(None, 0, None), Some(Reason::Replayed));
    assert_eq!(with(None, 0, Some(0)), None);
    assert_eq!(with(Some(b"inv-7"), elsewhere, Some(elsewhere)), None);
    assert_eq!(with(Some(b"inv-7"), elsewhere, Some(key_partition)), Some(Reason::ProofMismatch));
    let crc = World::on(Route { replay: ReplayRule::Strict, partitioner: Partitioner::Crc32, ..route() });
    let mut plan = Plan::default();
    plan.record.source.partition = Partition(Partitioner::Crc32.partition(b"inv-7", 8));
    assert_eq!(crc.reason(&plan.build()), None);
}

#[test]
fn an_unproven_sender_is_taken_at_the_topics_word_and_its_txn_token_is_not() {
    let unproven = WorkloadId::parse("spiffe://example.org/legacy").unwrap();
    let world = World::on(Route { unproven: Some(unproven.clone()), ..route() });
    let plan = Plan { signed: false, ..Plan::default() };
    let (verified, chain) = world.judge(&plan.build()).unwrap();
    assert_eq!(verified.sender, unproven);
    assert!(!verified.proven && verified.proof.is_none() && verified.replay.is_none());
    assert_eq!(verified.transaction.unwrap().subject, "alice");
    assert!(chain.gate.is_none());
    let forged = plan.build_with(|_, draft| draft.key = key("rogue"));
    assert_eq!(world.reason(&forged), Some(Reason::SignatureInvalid));
    let elsewhere = plan.build_with(|_, draft| draft.claims["aud"] = "other.org".into());
    assert_eq!(world.reason(&elsewhere), Some(Reason::AudienceMismatch));
    assert_eq!(World::default().reason(&plan.build()), Some(Reason::ContextMissing));
    let mut old = plan.build();
    old.timestamp = Some(UnixMillis((NOW_S - 60 - 86_400) * 1000));
    let late = reason_without_txn(&world, &plan, old.timestamp);
    assert_eq!(late, Some(Reason::TooOld));
}

fn reason_without_txn(world: &World, plan: &Plan, timestamp: Option<UnixMillis>) -> Option<Reason> {
    let mut record = Plan { transaction: false, ..plan.clone() }.build();
    record.timestamp = timestamp;
    world.reason(&record)
}

#[test]
fn what_is_known_is_what_was_proven() {
    let world = World::default();
    let known = |edit: &dyn Fn(TokenKind, &mut Draft)| {
        let record = Plan::default().build_with(edit);
        let claimed = Claimed::read(&record, &Hashes::of(&record), &world.route, &world.cache).unwrap();
        verify(&record, &claimed, &world.rules(), &world.memory).unwrap_err().known
    };
    let stolen = known(&|of, draft| {
        if of == TokenKind::WorkloadProof {
            draft.key = key("rogue");
        }
    });
    assert!(stolen.sender.is_none(), "an identity token alone proves nobody");
    assert!(stolen.transaction.is_some());
    let forged = known(&|of, draft| {
        if of == TokenKind::Transaction {
            draft.key = key("rogue");
        }
    });
    assert!(forged.sender.is_none() && forged.transaction.is_none());
    assert_eq!(forged.accepted, UnixMillis(ACCEPTED_S * 1000));
}

#[test]
fn no_detail_holds_a_part_of_a_token() {
    let world = World::default();
    for kind in TokenKind::ALL {
        for (member, value) in [
            ("exp", json!(1)),
            ("exp", json!("s3cret-s3cret")),
            ("jti", json!({})),
            ("aud", json!("s3cret-s3cret")),
        ] {
            let record = Plan::full().build_with(|of, draft| {
                if of == kind {
                    draft.claims[member] = value.clone();
                }
            });
            if let Err(denial) = world.judge(&record) {
                assert!(!denial.detail.contains("s3cret"), "{denial}");
                for header in &record.headers {
                    let text = std::str::from_utf8(header.value.as_ref().unwrap()).unwrap();
                    assert!(text.split('.').all(|part| !denial.detail.contains(part)), "{denial}");
                }
            }
        }
    }
}
