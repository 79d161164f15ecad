//! Statements of every form and every event type, signed with real keys, and each way in which one is refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::authorize::jose::{KeySet, SigningKey};
use crate::authorize::testing::{key, keys};
use crate::authorize::trust::{Issuer, Others};

const IDP: &str = "https://idp.example.com";

fn trust() -> Trust {
    let transmitter =
        Issuer { algorithms: Algorithm::DEFAULT.to_vec(), keys: keys(&["other-domain-issuer"]) };
    let others = Others {
        transmitters: BTreeMap::from([(IDP.to_owned(), transmitter)]),
        administrators: Some(keys(&["tts"])),
        approvers: BTreeMap::new(),
    };
    Trust::with(BTreeMap::new(), others)
}

fn administrator() -> SigningKey {
    key("tts")
}

fn transmitter() -> SigningKey {
    key("other-domain-issuer")
}

fn form() -> Value {
    json!({
        "jti": "r-1", "iat": 1000, "revoke": {"kind": "subject", "id": "alice"}, "not_before": 990.5,
        "exp": 2000, "reason": "left the company"
    })
}

fn set(event_type: &str, event: Value) -> Value {
    json!({
        "iss": IDP, "jti": "s-1", "iat": 1000, "aud": ["https://rx.example.com"], "txn": "txn-9",
        "sub_id": {"format": "opaque", "id": "alice"}, "events": {event_type: event}
    })
}

fn caep(name: &str, event: Value) -> Value {
    set(&format!("https://schemas.openid.net/secevent/caep/event-type/{name}"), event)
}

fn risc(name: &str, event: Value) -> Value {
    set(&format!("https://schemas.openid.net/secevent/risc/event-type/{name}"), event)
}

fn stated(claims: &Value) -> Result<Notice, StatementError> {
    let id = claims["jti"].as_str().unwrap_or_default();
    let (key, typ) = match claims.get("iss") {
        Some(_) => (transmitter(), EVENT_TYP),
        None => (administrator(), REVOCATION_TYP),
    };
    verify(id.as_bytes(), key.sign_typ(typ, claims).unwrap().as_bytes(), &trust())
}

fn revocation(claims: &Value) -> Revocation {
    match stated(claims).unwrap() {
        Notice::Revocation(revocation) => revocation,
        Notice::Nothing(event) => panic!("{event} revokes nothing"),
    }
}

fn malformed(claims: &Value) -> bool {
    matches!(stated(claims), Err(StatementError::Malformed(_)))
}

fn with(mut claims: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    claims.pointer_mut(parent).unwrap()[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

#[test]
fn the_administrative_form_is_read_whole() {
    let target = Target { kind: Kind::Subject, id: "alice".into() };
    let read = revocation(&form());
    assert_eq!(
        read,
        Revocation {
            id: "r-1".into(),
            authority: Authority::Administrator,
            targets: [target].into(),
            effect: Effect::Revokes { not_before: Some(990.5) },
            issued_at: 1000.0,
            expires_at: Some(2000.0),
            event: "revocation".into(),
            reason: Some("left the company".into()),
            transaction: None,
        }
    );
    let short = ["not_before", "exp", "reason"].iter().fold(form(), |claims, name| without(claims, name));
    let read = revocation(&short);
    assert_eq!(read.effect, Effect::Revokes { not_before: None });
    assert_eq!((read.expires_at, read.reason), (None, None));
}

#[test]
fn every_kind_can_be_named_by_the_rules_for_its_ids() {
    for kind in Kind::ALL {
        let id = match kind {
            Kind::Workload => "spiffe://example.org/agent/payer",
            Kind::TrustDomain => "example.org",
            _ => "x/1",
        };
        let read = revocation(&with(form(), "/revoke", json!({"kind": kind.as_str(), "id": id})));
        assert_eq!(*read.targets, [Target { kind, id: id.into() }]);
    }
    for (kind, id) in [
        ("workload", "payer"),
        ("trust_domain", "Example.org"),
        ("subject", ""),
        ("subject", "a\u{85}"),
        ("session", "s"),
        ("Subject", "alice"),
    ] {
        assert!(malformed(&with(form(), "/revoke", json!({"kind": kind, "id": id}))), "{kind} {id}");
    }
    assert!(malformed(&with(form(), "/revoke/id", json!("x".repeat(2049)))));
}

#[test]
fn a_form_that_is_not_whole_is_refused() {
    for name in ["jti", "iat", "revoke"] {
        assert!(malformed(&without(form(), name)), "{name}");
    }
    for (pointer, value) in [
        ("/iat", json!("1000")),
        ("/not_before", json!(null)),
        ("/exp", json!(1e300)),
        ("/reason", json!("a\nb")),
        ("/reason", json!("a".repeat(501))),
        ("/revoke", json!(["subject", "alice"])),
        ("/jti", json!("")),
        ("/jti", json!("a".repeat(129))),
    ] {
        assert!(malformed(&with(form(), pointer, value.clone())), "{pointer} {value}");
    }
    let doubled = form().to_string().replacen('{', "{\"exp\":1,", 1);
    let head = json!({"alg": "ES256", "typ": REVOCATION_TYP, "kid": "tts"}).to_string();
    let token = administrator().sign_raw(head.as_bytes(), doubled.as_bytes());
    assert!(matches!(verify(b"r-1", token.as_bytes(), &trust()), Err(StatementError::Malformed(_))));
}

#[test]
fn whoever_may_not_say_so_is_not_believed() {
    let sign = |key: &SigningKey, typ, claims: &Value| key.sign_typ(typ, claims).unwrap();
    let error =
        |id: &str, token: &str, trust: &Trust| verify(id.as_bytes(), token.as_bytes(), trust).unwrap_err();
    let good = sign(&administrator(), REVOCATION_TYP, &form());
    assert!(verify(b"r-1", good.as_bytes(), &trust()).is_ok());
    // A transmitter signs no administrative revocations, and an administrator no events.
    let crossed = sign(&transmitter(), REVOCATION_TYP, &form());
    assert_eq!(error("r-1", &crossed, &trust()), StatementError::UnknownKey);
    let event = caep("session-revoked", json!({}));
    assert_eq!(
        error("s-1", &sign(&administrator(), EVENT_TYP, &event), &trust()),
        StatementError::UnknownKey
    );
    assert_eq!(
        error("s-1", &sign(&transmitter(), REVOCATION_TYP, &event), &trust()),
        StatementError::UnknownKey
    );
    let stranger = with(event.clone(), "/iss", json!("https://other.example.com"));
    assert_eq!(stated(&stranger), Err(StatementError::UnknownTransmitter));
    // The record's key is signed too.
    assert_eq!(error("r-2", &good, &trust()), StatementError::AnotherId);
    assert_eq!(verify(b"\xff", good.as_bytes(), &trust()), Err(StatementError::Key));
    let forged = SigningKey::from_seed(Algorithm::Es256, &[77; 32], Some("tts")).unwrap();
    assert_eq!(error("r-1", &sign(&forged, REVOCATION_TYP, &form()), &trust()), StatementError::Signature);
    let nobody = Trust::new(BTreeMap::new());
    assert_eq!(error("r-1", &good, &nobody), StatementError::NoAdministrators);
    for typ in ["JWT", "txntoken+jwt"] {
        assert!(matches!(
            error("r-1", &sign(&administrator(), typ, &form()), &trust()),
            StatementError::Jws(_)
        ));
    }
    let none =
        administrator().sign_raw(br#"{"alg":"none","typ":"revocation+jwt"}"#, form().to_string().as_bytes());
    assert_eq!(error("r-1", &none, &trust()), StatementError::Algorithm);
    assert_eq!(verify(b"r-1", &[b'a'; MAX_TOKEN_BYTES + 1], &trust()), Err(StatementError::TooLarge));
}

#[test]
fn a_transmitter_signs_with_its_own_algorithms() {
    let mut others = trust().others().clone();
    let idp = others.transmitters.get_mut(IDP).unwrap();
    idp.algorithms = vec![Algorithm::Rs256];
    let token = transmitter().sign_typ(EVENT_TYP, &caep("session-revoked", json!({}))).unwrap();
    let refused = verify(b"s-1", token.as_bytes(), &Trust::with(BTreeMap::new(), others.clone()));
    assert_eq!(refused, Err(StatementError::Algorithm));
    let idp = others.transmitters.get_mut(IDP).unwrap();
    (idp.algorithms, idp.keys) = (Algorithm::DEFAULT.to_vec(), KeySet::empty());
    let refused = verify(b"s-1", token.as_bytes(), &Trust::with(BTreeMap::new(), others));
    assert_eq!(refused, Err(StatementError::UnknownKey));
}

#[test]
fn every_event_type_has_its_meaning() {
    let before = Some(Effect::Revokes { not_before: Some(1000.0) });
    let cases = [
        (caep("session-revoked", json!({})), before),
        (caep("token-claims-change", json!({"claims": {"role": "user"}})), before),
        (caep("credential-change", json!({"change_type": "create"})), None),
        (caep("credential-change", json!({"change_type": "revoke"})), before),
        (caep("credential-change", json!({"change_type": "update"})), before),
        (caep("credential-change", json!({"change_type": "delete"})), before),
        (caep("assurance-level-change", json!({"change_direction": "increase"})), None),
        (caep("assurance-level-change", json!({"change_direction": "decrease"})), before),
        (caep("assurance-level-change", json!({"current_level": "nist-aal1"})), before),
        (caep("device-compliance-change", json!({"current_status": "compliant"})), None),
        (caep("device-compliance-change", json!({"current_status": "not-compliant"})), before),
        (caep("risk-level-change", json!({"current_level": "LOW"})), None),
        (caep("risk-level-change", json!({"current_level": "MEDIUM"})), None),
        (caep("risk-level-change", json!({"current_level": "HIGH"})), before),
        (caep("session-established", json!({})), None),
        (caep("session-presented", json!({})), None),
        (risc("account-credential-change-required", json!({})), before),
        (risc("account-purged", json!({})), Some(Effect::Revokes { not_before: None })),
        (risc("account-disabled", json!({"reason": "hijacking"})), Some(Effect::Disables { at: 1000.0 })),
        (risc("account-enabled", json!({})), Some(Effect::Enables { at: 1000.0 })),
        (risc("identifier-changed", json!({"new-value": "a@b"})), None),
        (risc("identifier-recycled", json!({})), before),
        (risc("credential-compromise", json!({"credential_type": "password"})), before),
        (risc("opt-in", json!({})), None),
        (risc("opt-out-initiated", json!({})), None),
        (risc("opt-out-cancelled", json!({})), None),
        (risc("opt-out-effective", json!({})), None),
        (risc("recovery-activated", json!({})), None),
        (risc("recovery-information-changed", json!({})), None),
        (risc("sessions-revoked", json!({})), before),
        (set("https://schemas.openid.net/secevent/ssf/event-type/verification", json!({"state": "a"})), None),
        (set("https://schemas.openid.net/secevent/ssf/event-type/stream-updated", json!({})), None),
    ];
    for (claims, effect) in cases {
        let read = match stated(&claims).unwrap() {
            Notice::Revocation(revocation) => Some(revocation.effect),
            Notice::Nothing(event) => {
                assert!(claims["events"].get(&event).is_some());
                None
            }
        };
        assert_eq!(read, effect, "{claims}");
    }
    for unknown in
        [caep("unheard-of", json!({})), risc("unheard-of", json!({})), set("urn:example:x", json!({}))]
    {
        assert_eq!(stated(&unknown), Err(StatementError::UnknownEvent));
    }
    for broken in [
        caep("credential-change", json!({})),
        caep("credential-change", json!({"change_type": "other"})),
        caep("device-compliance-change", json!({})),
        caep("risk-level-change", json!({"current_level": 3})),
    ] {
        assert!(malformed(&broken), "{broken}");
    }
}

#[test]
fn an_event_revokes_from_the_moment_it_names() {
    let not_before = |claims: &Value| match revocation(claims).effect {
        Effect::Revokes { not_before } => not_before,
        _ => None,
    };
    let plain = caep("session-revoked", json!({}));
    assert_eq!(not_before(&plain), Some(1000.0));
    assert_eq!(not_before(&with(plain.clone(), "/toe", json!(900))), Some(900.0));
    let stamped = caep("session-revoked", json!({"event_timestamp": 800.5}));
    assert_eq!(not_before(&with(stamped.clone(), "/toe", json!(900))), Some(800.5));
    assert!(malformed(&caep("session-revoked", json!({"event_timestamp": "800"}))));
    let read = revocation(&stamped);
    assert_eq!(read.authority, Authority::Transmitter(IDP.into()));
    assert_eq!(read.transaction.as_deref(), Some("txn-9"));
    assert_eq!((read.issued_at, read.expires_at), (1000.0, None));
}

#[test]
fn a_set_keeps_the_rules_of_ssf() {
    let plain = caep("session-revoked", json!({}));
    for name in ["iss", "jti", "iat", "events", "sub_id"] {
        let broken = without(plain.clone(), name);
        let token = transmitter().sign_typ(EVENT_TYP, &broken).unwrap();
        let refused = verify(b"s-1", token.as_bytes(), &trust());
        assert!(matches!(refused, Err(StatementError::Malformed(_))), "{name}");
    }
    for (pointer, value) in [
        ("/sub", json!("alice")),
        ("/exp", json!(2000)),
        ("/aud", json!(7)),
        ("/txn", json!(1)),
        ("/toe", json!("x")),
    ] {
        assert!(malformed(&with(plain.clone(), pointer, value)), "{pointer}");
    }
    assert_eq!(stated(&with(plain.clone(), "/events", json!({}))), Err(StatementError::Events(0)));
    let two = with(plain, "/events/urn:x", json!({}));
    assert_eq!(stated(&two), Err(StatementError::Events(2)));
}

/// The targets of a subject identifier, as `kind id`.
fn named(sub_id: Value) -> Result<Vec<String>, StatementError> {
    let claims = with(caep("session-revoked", json!({})), "/sub_id", sub_id);
    match stated(&claims)? {
        Notice::Revocation(read) => Ok(read.targets.iter().map(ToString::to_string).collect()),
        Notice::Nothing(event) => panic!("{event}"),
    }
}

#[test]
fn a_subject_is_found_in_every_format_that_names_one() {
    let workload = "spiffe://example.org/agent/payer";
    for (sub_id, targets) in [
        (json!({"format": "iss_sub", "iss": IDP, "sub": "alice"}), vec!["subject alice"]),
        (json!({"format": "opaque", "id": "other.org/alice"}), vec!["subject other.org/alice"]),
        (json!({"format": "email", "email": "a@example.com"}), vec!["subject a@example.com"]),
        (json!({"format": "phone_number", "phone_number": "+12065550100"}), vec!["subject +12065550100"]),
        (json!({"format": "did", "url": "did:example:123"}), vec!["subject did:example:123"]),
        (
            json!({"format": "account", "uri": "acct:a@example.com"}),
            vec!["subject acct:a@example.com", "subject a@example.com"],
        ),
        (json!({"format": "uri", "uri": workload}), vec!["workload spiffe://example.org/agent/payer"]),
        (json!({"format": "opaque", "id": workload}), vec!["workload spiffe://example.org/agent/payer"]),
        (json!({"format": "uri", "uri": "urn:user:7"}), vec!["subject urn:user:7"]),
        (json!({"format": "jwt_id", "iss": IDP, "jti": "t-1"}), vec!["token t-1"]),
        (
            json!({"format": "aliases", "identifiers": [
                {"format": "email", "email": "a@b"}, {"format": "opaque", "id": "alice"}, {"format": "opaque", "id": "a@b"}
            ]}),
            vec!["subject a@b", "subject alice"],
        ),
        (
            json!({
                "format": "complex", "user": {"format": "opaque", "id": "alice"},
                "session": {"format": "opaque", "id": "s"}, "device": {"format": "opaque", "id": "d"}
            }),
            vec!["subject alice"],
        ),
        (
            json!({
                "format": "complex", "application": {"format": "uri", "uri": workload},
                "tenant": {"format": "opaque", "id": "t"}
            }),
            vec!["workload spiffe://example.org/agent/payer"],
        ),
        (
            json!({"format": "complex", "session": {"format": "jwt_id", "iss": IDP, "jti": "t-1"}}),
            vec!["token t-1"],
        ),
    ] {
        assert_eq!(named(sub_id.clone()).unwrap(), targets, "{sub_id}");
    }
}

#[test]
fn a_subject_that_names_nobody_is_reported() {
    for nobody in [
        json!({"format": "saml_assertion_id", "issuer": "x", "assertion_id": "y"}),
        json!({"format": "complex", "device": {"format": "opaque", "id": "d"}}),
        json!({"format": "complex", "session": {"format": "opaque", "id": "s"}}),
        json!({"format": "complex", "application": {"format": "opaque", "id": "app"}}),
        json!({"format": "complex", "user": {"format": "unheard_of"}}),
    ] {
        assert!(matches!(named(nobody.clone()), Err(StatementError::Nobody(_))), "{nobody}");
    }
    for broken in [
        json!({"id": "alice"}),
        json!({"format": "opaque"}),
        json!({"format": "iss_sub", "sub": "alice"}),
        json!({"format": "opaque", "id": ""}),
        json!({"format": "aliases", "identifiers": []}),
        json!({"format": "aliases", "identifiers": ["alice"]}),
        json!("alice"),
    ] {
        assert!(matches!(named(broken.clone()), Err(StatementError::Malformed(_))), "{broken}");
    }
}
