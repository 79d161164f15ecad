//! Every case of `tests/vectors/contract.json` through the whole decision: the outcome and the reason agree, what leaves
//! is well formed, and nothing that leaves carries a live credential but the forwarded record.

#[path = "support/vectors.rs"]
mod vectors;

use countersign::authorize::decision::Reason;
use countersign::authorize::ids::{Coordinates, Offset};
use countersign::authorize::provenance::verify_countersignature;
use countersign::authorize::record::{Record, TimestampType};
use countersign::authorize::replay::window_ms;
use countersign::authorize::state::PartitionState;
use vectors::{World, record};

/// The signatures of all tokens that a record carries, as they are written.
fn signatures(record: &Record) -> Vec<Vec<u8>> {
    let values = record.headers.iter().filter_map(|header| header.value.as_deref());
    let parts = values.filter_map(|value| value.rsplit(|byte| *byte == b'.').next());
    parts.filter(|part| part.len() >= 40).map(<[u8]>::to_vec).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn every_case_has_the_outcome_and_the_reason_of_the_contract() {
    let world = World::read();
    let mut differences = Vec::new();
    for (name, case) in world.cases() {
        let route = world.route(case);
        let record = record(&case["record"]);
        // Twice, cold and with the tokens cached: what was verified before decides nothing by itself.
        for warm in [false, true] {
            let mut state = PartitionState::new(window_ms(&route));
            let effects = world.decide(&route, &record, &mut state);
            let audit =
                world.codecs.audit.decode(effects.audit.as_ref().unwrap().value.as_deref().unwrap()).unwrap();
            let found = (audit.outcome.as_str(), audit.reason.as_deref());
            let expected = (case["expect"]["outcome"].as_str().unwrap(), case["expect"]["reason"].as_str());
            if found != expected {
                differences.push(format!(
                    "{name} (warm: {warm}): expected {expected:?}, found {found:?}: {:?}",
                    audit.detail
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(world.cases().len() >= 91);
}

#[test]
fn what_is_forwarded_can_be_verified_by_the_next_worker_offline() {
    let world = World::read();
    let mut forwarded = 0;
    for (name, case) in world.cases() {
        let route = world.route(case);
        let record = record(&case["record"]);
        let effects = world.decide(&route, &record, &mut PartitionState::new(window_ms(&route)));
        if case["expect"]["outcome"] != "forward" {
            continue;
        }
        forwarded += 1;
        let out = effects.outcome.unwrap();
        assert_eq!((&out.topic, out.partition), (&route.to, record.source.partition), "{name}");
        assert_eq!((&out.key, &out.value, out.timestamp), (&record.key, &record.value, record.timestamp));
        let received = Record {
            source: Coordinates { topic: out.topic, partition: out.partition, offset: Offset(0) },
            timestamp: Some(world.now),
            timestamp_type: TimestampType::LogAppendTime,
            key: out.key,
            value: out.value,
            headers: out.headers,
        };
        let verified =
            verify_countersignature(&received, &world.realm, &world.snapshot.trust, world.now, route.skew_s);
        assert!(verified.is_ok(), "{name}: {verified:?}");
        for spent in ["workload-identity-token", "workload-proof-token", "step-up-grant"] {
            assert!(!received.headers.iter().any(|header| &header.name[..] == spent.as_bytes()), "{name}");
        }
    }
    assert!(forwarded >= 20);
}

#[test]
fn no_dead_letter_and_no_audit_record_holds_a_signature() {
    let world = World::read();
    let mut searched = 0;
    for (name, case) in world.cases() {
        let route = world.route(case);
        let record = record(&case["record"]);
        let effects = world.decide(&route, &record, &mut PartitionState::new(window_ms(&route)));
        let mut written = vec![effects.audit.unwrap().value.unwrap()];
        if case["expect"]["outcome"] == "deny" {
            let letter = effects.outcome.unwrap();
            written.extend(letter.headers.into_iter().filter_map(|header| header.value));
            assert_eq!((letter.key, letter.value), (record.key.clone(), record.value.clone()));
        }
        for signature in signatures(&record) {
            searched += 1;
            assert!(!written.iter().any(|bytes| holds(bytes, &signature)), "{name}");
        }
    }
    assert!(searched > 100, "only {searched} signatures were looked for");
}

#[test]
fn a_proof_is_good_once_in_its_partition_and_again_only_where_it_stood() {
    let world = World::read();
    let (_, plain) = world.cases().into_iter().find(|(name, _)| name == "plain").unwrap();
    let route = world.route(plain);
    let record = record(&plain["record"]);
    let mut copy = record.clone();
    copy.source.offset = Offset(record.source.offset.0 + 1);
    let mut state = PartitionState::new(window_ms(&route));
    let reason = |record: &Record, state: &mut PartitionState| {
        let effects = world.decide(&route, record, state);
        world.codecs.audit.decode(effects.audit.as_ref().unwrap().value.as_deref().unwrap()).unwrap().reason
    };

    state.begin();
    assert_eq!(reason(&record, &mut state), None);
    assert_eq!(reason(&copy, &mut state).as_deref(), Some(Reason::Replayed.as_str()), "in one batch");
    state.abort();

    state.begin();
    assert_eq!(reason(&copy, &mut state), None, "an aborted batch was never seen");
    state.abort();

    state.begin();
    assert_eq!(reason(&record, &mut state), None);
    state.commit();
    state.begin();
    assert_eq!(reason(&record, &mut state), None, "redelivery is decided again");
    assert_eq!(reason(&copy, &mut state).as_deref(), Some(Reason::Replayed.as_str()));
}
