//! What is written is read back; what no gate wrote for this topic is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::authorize::ids::{Offset, Partition, Realm, Topic};
use crate::authorize::jose::{KeySet, SigningKey};
use crate::authorize::route::Gate;
use crate::authorize::standing::{Authority, Effect, Kind, Revocation};
use crate::authorize::testing::{NOW_S, domain, key as signing_key, trust_with};

const NOW: UnixMillis = UnixMillis(NOW_S * 1000);
const SKEW_S: u32 = 30;

fn topic() -> Topic {
    Topic::parse("countersign.signals").unwrap()
}

fn realm() -> Realm {
    Realm::parse("test").unwrap()
}

fn gate() -> Gate {
    Gate {
        id: WorkloadId::parse("spiffe://example.org/gate/two").unwrap(),
        realm: realm(),
        key: signing_key("gate"),
    }
}

fn named(kind: Kind, id: &str) -> Target {
    Target { kind, id: id.into() }
}

fn signal(about: Target, event: Event) -> Said {
    let place = Coordinates {
        topic: Topic::parse("countersign.revocations").unwrap(),
        partition: Partition(0),
        offset: Offset(7),
    };
    let event_at = UnixMillis(NOW.0 - 750);
    Said::Signal(Signal { id: signal_id(&place, 0), about, event, event_at, reason: Some("key lost".into()) })
}

fn revoked() -> Event {
    Event::Revoked { not_before: Some(1.5), expires_at: None }
}

fn read(key: &str, token: &str) -> Result<Heard, SignalError> {
    let trust = trust_with(domain());
    verify(key.as_bytes(), token.as_bytes(), (&realm(), &topic()), &trust, NOW, SKEW_S)
}

/// The claims of a good signal with one change, signed by that key.
fn changed(key: &SigningKey, edit: impl FnOnce(&mut Value)) -> Result<Heard, SignalError> {
    let said = signal(named(Kind::Transaction, "txn-1"), revoked());
    let token = sign(&said, &gate(), &topic(), NOW).unwrap();
    let payload = crate::authorize::jose::base64url(token.split('.').nth(1).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&payload).unwrap();
    edit(&mut claims);
    read(&super::key(&said), &key.sign_typ(TYP, &claims).unwrap())
}

fn abouts() -> impl Strategy<Value = Target> {
    let id = prop_oneof!["[ -~äß]{1,40}", "[a-z.]{1,20}", "spiffe://example.org/[a-z]{1,9}"];
    (proptest::sample::select(&Kind::ALL[..]), id).prop_map(|(kind, id)| match kind {
        Kind::Workload => named(kind, "spiffe://example.org/agent/payer"),
        Kind::TrustDomain => named(kind, "example.org"),
        _ => named(kind, &id),
    })
}

proptest! {
    #[test]
    fn what_is_signed_is_read_back(
        about in abouts(),
        dates in proptest::option::of((0..4_000_000_000_u32, 0..4_000_000_000_u32)),
        event_at in 0..4_000_000_000_000_i64,
        reason in proptest::option::of("[^\\p{Cc}]{0,40}"),
        offset in 0..i64::MAX,
    ) {
        let place = Coordinates { topic: topic(), partition: Partition(1), offset: Offset(offset) };
        let event = Event::Revoked {
            not_before: dates.map(|d| f64::from(d.0) / 4.0),
            expires_at: dates.map(|d| f64::from(d.1) / 4.0),
        };
        let event_at = UnixMillis(event_at);
        let said = Said::Signal(Signal { id: signal_id(&place, 0), about, event, event_at, reason });
        let heard = read(&key(&said), &sign(&said, &gate(), &topic(), NOW).unwrap()).unwrap();
        prop_assert_eq!(heard, Heard { gate: gate().id, issued_at: NOW, said });
    }

    #[test]
    fn reading_never_panics(key in ".{0,20}", token in "[A-Za-z0-9_.-]{0,80}") {
        prop_assert!(read(&key, &token).is_err());
    }
}

#[test]
fn the_token_is_a_set_of_caep() {
    let said = signal(named(Kind::Transaction, "txn-1"), revoked());
    let token = sign(&said, &gate(), &topic(), NOW).unwrap();
    let part = |n| -> Value {
        let bytes = crate::authorize::jose::base64url(token.split('.').nth(n).unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    assert_eq!(part(0)["typ"], "secevent+jwt");
    let expected = json!({
        "iss": "spiffe://example.org/gate/two",
        "aud": "kafka://test/countersign.signals",
        "iat": NOW_S,
        "jti": sha256(&[b"countersign.revocations/0/7"]).to_string(),
        "txn": "txn-1",
        "sub_id": { "format": "urn:countersign:subject:transaction", "id": "txn-1" },
        "events": { "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {
            "event_timestamp": (NOW_S - 1) as f64 + 0.25,
            "not_before": 1.5,
            "reason_admin": { "und": "key lost" },
        }},
    });
    assert_eq!(part(1), expected);
}

#[test]
fn workflows_and_heartbeats_are_read_back() {
    let workflow = || named(Kind::Workflow, "order-9");
    let heartbeat = Heartbeat { instance: "gate-a".into(), as_of: UnixMillis(NOW.0 - 250) };
    let mut all = vec![signal(workflow(), Event::Workflow(Status::Suspended)), Said::Heartbeat(heartbeat)];
    all.extend(
        [Status::Completed, Status::Cancelled, Status::Failed]
            .map(|s| signal(workflow(), Event::Workflow(s))),
    );
    for said in all {
        let heard = read(&key(&said), &sign(&said, &gate(), &topic(), NOW).unwrap()).unwrap();
        assert_eq!(heard.said, said);
    }
}

#[test]
fn only_a_gates_word_for_this_topic_counts() {
    let good = |claims: &mut Value| claims["iat"] = json!(NOW_S);
    assert!(changed(&signing_key("gate"), good).is_ok());
    assert_eq!(changed(&signing_key("issuer"), good), Err(SignalError::Issuer));
    assert_eq!(changed(&signing_key("other-domain-gate"), good), Err(SignalError::Issuer));
    let with = |edit: &dyn Fn(&mut Value)| changed(&signing_key("gate"), |claims| edit(claims));
    assert_eq!(with(&|c| c["aud"] = json!("kafka://prod/countersign.signals")), Err(SignalError::Audience));
    assert_eq!(with(&|c| c["iss"] = json!("spiffe://nobody.org/gate")), Err(SignalError::Issuer));
    assert_eq!(with(&|c| c["iat"] = json!(NOW_S + 31)), Err(SignalError::NotYetValid));
    assert!(with(&|c| c["iat"] = json!(NOW_S + 30)).is_ok());
    assert_eq!(with(&|c| c["jti"] = json!(Digest([1; 32]).to_string())), Err(SignalError::Key));

    let said = signal(named(Kind::Subject, "alice"), revoked());
    let token = sign(&said, &gate(), &topic(), NOW).unwrap();
    let trust = trust_with(crate::authorize::trust::Domain { gates: KeySet::empty(), ..domain() });
    let here = (&realm(), &topic());
    let read = verify(key(&said).as_bytes(), token.as_bytes(), here, &trust, NOW, SKEW_S);
    assert_eq!(read, Err(SignalError::Issuer));
}

#[test]
fn what_gates_do_not_write_is_refused() {
    let with = |edit: &dyn Fn(&mut Value)| {
        changed(&signing_key("gate"), |claims| edit(claims)).expect_err("it is refused")
    };
    let event = "/events/https:~1~1schemas.openid.net~1secevent~1caep~1event-type~1session-revoked";
    let at = |claims: &mut Value, member: &str, value: Value| {
        claims.pointer_mut(event).unwrap()[member] = value;
    };
    for member in ["iss", "aud", "iat", "jti", "sub_id", "events"] {
        let error = with(&|c| drop(c.as_object_mut().unwrap().remove(member)));
        assert_eq!(error, SignalError::Member(member));
        assert_eq!(with(&|c| c[member] = Value::Null), SignalError::Member(member));
    }
    let member = SignalError::Member;
    assert_eq!(with(&|c| c["events"] = json!({})), member("events"));
    assert_eq!(with(&|c| c["events"]["urn:other"] = json!({})), member("events"));
    assert_eq!(with(&|c| c["events"] = json!({ WORKFLOW_SUSPENDED: {} })), member("events"));
    assert_eq!(with(&|c| c["events"] = json!({ "urn:other": {} })), member("events"));
    assert_eq!(with(&|c| at(c, "event_timestamp", json!("1"))), member("event_timestamp"));
    assert_eq!(with(&|c| at(c, "not_before", json!(1e300))), member("not_before"));
    assert_eq!(with(&|c| at(c, "expires_at", Value::Null)), member("expires_at"));
    assert_eq!(with(&|c| at(c, "reason_admin", json!({ "en": "a\nb" }))), member("reason_admin"));
    assert_eq!(with(&|c| at(c, "reason_admin", json!({ "en": "a".repeat(501) }))), member("reason_admin"));
    assert_eq!(with(&|c| c["sub_id"]["format"] = json!("email")), member("format"));
    assert_eq!(with(&|c| c["sub_id"]["id"] = json!("")), member("id"));
    assert_eq!(with(&|c| c["sub_id"]["id"] = json!("a".repeat(2049))), member("id"));
    assert_eq!(with(&|c| c["sub_id"] = json!({"format": "uri", "uri": "https://x"})), member("uri"));
    let bare = json!({ "format": "urn:countersign:subject:trust_domain", "id": "NO" });
    assert_eq!(with(&|c| c["sub_id"] = bare.clone()), member("id"));
    let wrong_type = gate().key.sign_typ("jwt", &json!({})).unwrap();
    assert!(matches!(read("", &wrong_type), Err(SignalError::Jws(JwsError::Typ(TYP)))));
    assert_eq!(read("", &"a".repeat(8193)), Err(SignalError::TooLarge));
}

#[test]
fn a_control_record_gives_a_signal_for_each_thing_that_it_takes_rights_from() {
    let place = Coordinates { topic: topic(), partition: Partition(3), offset: Offset(9) };
    let mut revocation = Revocation {
        id: "r-1".into(),
        authority: Authority::Administrator,
        targets: [named(Kind::Key, "k-1"), named(Kind::Subject, "alice")].into(),
        effect: Effect::Revokes { not_before: Some(7.0) },
        issued_at: 1.0,
        expires_at: Some(9.0),
        event: "revocation".into(),
        reason: Some("lost".into()),
        transaction: None,
    };
    let signals = of_revocation(&place, NOW, &revocation);
    let event = Event::Revoked { not_before: Some(7.0), expires_at: Some(9.0) };
    let told: Vec<_> = signals.iter().map(|s| (s.about.to_string(), s.event, s.reason.as_deref())).collect();
    let expected = ["key k-1", "subject alice"].map(|about| (about.to_owned(), event, Some("lost")));
    assert_eq!(told, expected);
    assert_eq!(signals[0].id, sha256(&[b"countersign.signals/3/9"]));
    assert_eq!(signals[1].id, sha256(&[b"countersign.signals/3/9/1"]));
    revocation.effect = Effect::Disables { at: 5.0 };
    let event = Event::Revoked { not_before: None, expires_at: Some(9.0) };
    assert!(of_revocation(&place, NOW, &revocation).iter().all(|signal| signal.event == event));
    revocation.effect = Effect::Enables { at: 5.0 };
    assert_eq!(of_revocation(&place, NOW, &revocation), []);

    for status in Status::ALL {
        let signal = of_workflow(&place, NOW, "order-9", status);
        let told = signal.map(|signal| (signal.about, signal.event));
        let expected = (named(Kind::Workflow, "order-9"), Event::Workflow(status));
        assert_eq!(told, (status != Status::Running).then_some(expected));
    }
}

#[test]
fn a_reason_is_cut_and_cleaned_where_it_is_written() {
    let mut said = signal(named(Kind::Key, "k-1"), revoked());
    if let Said::Signal(signal) = &mut said {
        signal.reason = Some(format!("a\nb{}", "ä".repeat(600)));
    }
    let heard = read(&key(&said), &sign(&said, &gate(), &topic(), NOW).unwrap()).unwrap();
    let Said::Signal(signal) = heard.said else { panic!("a signal") };
    assert_eq!(signal.reason, Some(format!("ab{}", "ä".repeat(498))));
}
