//! What a worker believes, and what it does not. The records are countersigned by the gate's own code.

use uuid::Uuid;

use super::*;
use crate::authorize::ids::{Coordinates, DecisionId, Digest, Offset, Partition, Topic};
use crate::authorize::jose::KeySet;
use crate::authorize::provenance::{Forwarding, countersign};
use crate::authorize::record::Header;
use crate::authorize::request::Request;
use crate::authorize::route::Gate;
use crate::authorize::testing::{NOW_S, PAYER, Plan, World, domain, key, keys, trust_with};

const NOW: UnixMillis = UnixMillis(NOW_S * 1000);

/// A record as a gate forwards it, which passed through another gate before.
pub(super) fn forwarded(plan: &Plan) -> Record {
    let world = World::default();
    let record = plan.build();
    let (verified, chain) = world.judge(&record).unwrap();
    let gate = Gate {
        id: WorkloadId::parse("spiffe://example.org/gate/two").unwrap(),
        realm: Realm::parse("test").unwrap(),
        key: key("gate"),
    };
    let request = Request {
        action: Action { name: "pay".into(), properties: None },
        resource: Resource { kind: "Invoice".into(), id: "inv-7".into(), properties: None },
        workflow: None,
        value: None,
    };
    let stays = |h: &&Header| TokenKind::of_header(&h.name).is_none_or(|kind| kind == TokenKind::Transaction);
    let mut headers: Vec<Header> = record.headers.iter().filter(stays).cloned().collect();
    let token = countersign(&Forwarding {
        gate: &gate,
        route: &world.route,
        record: &record,
        headers: &headers,
        verified: &verified,
        chain: &chain,
        request: &request,
        bundle: Digest([7; 32]),
        id: DecisionId(Uuid::from_u128(5)),
        now: NOW,
    });
    headers.push(Header::new("countersignature", token.unwrap()));
    let source = Coordinates {
        topic: Topic::parse("payments.authorized").unwrap(),
        partition: Partition(1),
        offset: Offset(40),
    };
    Record { source, timestamp: Some(NOW), headers, ..record }
}

pub(super) fn plan() -> Plan {
    let mut plan = Plan { countersignature: true, signed_names: Some(vec!["schema"]), ..Plan::default() };
    plan.record.headers.push(Header::new("schema", "2"));
    plan
}

pub(super) fn verifier() -> Verifier {
    Verifier::new(Realm::parse("test").unwrap(), trust_with(domain()))
}

fn reason(record: &Record) -> &'static str {
    verifier().verify_at(record, NOW).unwrap_err().reason.as_str()
}

#[test]
fn a_worker_learns_what_was_decided_and_for_whom() {
    let record = forwarded(&plan());
    let received = verifier().verify_at(&record, NOW).unwrap();
    assert_eq!(received.sender.as_str(), PAYER);
    let earlier: Vec<&str> = received.earlier_senders.iter().map(WorkloadId::as_str).collect();
    assert_eq!(earlier, ["spiffe://example.org/agent/reader"]);
    assert_eq!((received.action.name.as_str(), received.resource.id.as_str()), ("pay", "inv-7"));
    assert_eq!(received.gate.as_str(), "spiffe://example.org/gate/two");
    assert_eq!(received.decision, DecisionId(Uuid::from_u128(5)).to_string());
    assert_eq!(received.policy, Digest([7; 32]).to_string());
    assert_eq!(received.source, "payments.commands/0/17");
    let transaction = received.transaction.as_ref().unwrap();
    assert_eq!((transaction.subject.as_str(), transaction.id.as_str()), ("alice", "txn-1"));
    assert!(transaction.scope.contains("payments.pay"));

    let header =
        |name: &str| record.headers.iter().find(|h| h.name == name.as_bytes()).unwrap().value.clone();
    let carried = received.carry_on();
    assert_eq!(header("countersignature").unwrap(), carried.countersignature.as_bytes());
    assert_eq!(header("txn-token").unwrap(), carried.transaction.unwrap().as_bytes());
    assert!(!format!("{received:?}").contains("eyJ"), "a log must not hold tokens");
}

#[test]
fn work_without_a_transaction_stays_without() {
    let record = forwarded(&Plan { transaction: false, ..Plan::default() });
    let received = verifier().verify_at(&record, NOW).unwrap();
    assert!(received.transaction.is_none() && received.carry_on().transaction.is_none());
}

#[test]
fn a_changed_record_is_not_believed() {
    let good = forwarded(&plan());
    let change = |edit: &dyn Fn(&mut Record)| {
        let mut record = good.clone();
        edit(&mut record);
        reason(&record)
    };
    assert_eq!(change(&|r| r.value = Some("{\"amount\":9000}".into())), "proof_mismatch");
    assert_eq!(change(&|r| r.value = None), "proof_mismatch");
    assert_eq!(change(&|r| r.key = None), "proof_mismatch");
    assert_eq!(change(&|r| r.headers[0].value = Some("3".into())), "proof_mismatch");
    assert_eq!(change(&|r| r.headers.retain(|h| h.name != "txn-token")), "proof_mismatch");
    assert_eq!(change(&|r| r.headers.retain(|h| h.name != "countersignature")), "context_missing");
    assert_eq!(change(&|r| r.headers.push(Header::new("Txn-Token", "x"))), "context_malformed");
    assert_eq!(change(&|r| r.source.topic = Topic::parse("payments.other").unwrap()), "audience_mismatch");
    // A header that nobody signed may be there: it is simply not spoken for.
    let mut record = good.clone();
    record.headers.push(Header::new("unsigned", "x"));
    assert!(verifier().verify_at(&record, NOW).is_ok());
}

#[test]
fn only_the_keys_of_gates_count() {
    let record = forwarded(&plan());
    let with = |edit: &dyn Fn(&mut crate::authorize::trust::Domain)| {
        let mut domain = domain();
        edit(&mut domain);
        let verifier = Verifier::new(Realm::parse("test").unwrap(), trust_with(domain));
        verifier.verify_at(&record, NOW).map(drop).map_err(|denial| denial.reason.as_str())
    };
    assert_eq!(with(&|_| {}), Ok(()));
    assert_eq!(with(&|d| d.gates = keys(&["issuer", "tts"])), Err("issuer_unknown"));
    assert_eq!(with(&|d| d.gates = KeySet::empty()), Err("issuer_unknown"));
    // The gate's word for the Txn-Token is enough where no key of a token service is known, and only there.
    assert_eq!(with(&|d| d.token_service = KeySet::empty()), Ok(()));
    assert_eq!(with(&|d| d.token_service = keys(&["issuer"])), Err("issuer_unknown"));
    let elsewhere = Verifier::new(Realm::parse("prod").unwrap(), trust_with(domain()));
    assert_eq!(elsewhere.verify_at(&record, NOW).unwrap_err().reason.as_str(), "audience_mismatch");
}

#[test]
fn expiry_is_judged_when_the_broker_took_the_record_and_by_no_producers_clock() {
    let late = |seconds: i64| UnixMillis((NOW_S + seconds) * 1000);
    let mut record = forwarded(&plan());
    let at = |record: &Record, now| {
        verifier().verify_at(record, now).map(drop).map_err(|denial| denial.reason.as_str())
    };
    // Taken at once, read a day later.
    assert_eq!(at(&record, late(86_400)), Ok(()));
    record.timestamp = Some(late(931));
    assert_eq!(at(&record, late(931)), Err("token_expired"));
    record.timestamp_type = TimestampType::CreateTime;
    record.timestamp = Some(NOW);
    assert_eq!(at(&record, late(930)), Ok(()));
    assert_eq!(at(&record, late(931)), Err("token_expired"));
    assert_eq!(at(&record, late(-31)), Err("token_not_yet_valid"));
    assert_eq!(
        verifier().skew(0).verify_at(&record, late(901)).unwrap_err().reason.as_str(),
        "token_expired"
    );
}
