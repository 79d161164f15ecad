//! Every case of `tests/vectors/contract.json` through the whole decision: the outcome and the reason agree, what leaves
//! is well formed, and nothing that leaves carries a live credential but the forwarded record.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::authorize::decision::Reason;
use countersign::authorize::engine::{Delivery, Engine, Moment, Snapshot};
use countersign::authorize::ids::{
    Coordinates, DecisionId, Offset, Partition, Realm, Topic, TrustDomain, UnixMillis, WorkloadId,
};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse, SigningKey};
use countersign::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use countersign::authorize::provenance::verify_countersignature;
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::replay::window_ms;
use countersign::authorize::route::{Gate, Route, TokenExpiry};
use countersign::authorize::standing::Standing;
use countersign::authorize::state::PartitionState;
use countersign::authorize::trust::{Domain, Trust};
use countersign::wire::outgoing::{Codecs, Effects, PartitionCounts, effects};
use serde_json::Value;
use uuid::Uuid;

const COUNTS: PartitionCounts =
    PartitionCounts { source: 4, destination: 4, denied: 4, audit: 4, challenges: 4 };
const GATE: &str = "spiffe://example.org/gate/under-test";

struct World {
    file: Value,
    realm: Realm,
    now: UnixMillis,
    snapshot: Snapshot,
    engine: Engine,
    codecs: Codecs,
}

impl World {
    fn read() -> Self {
        let text = include_str!("vectors/contract.json");
        let file: Value = serde_json::from_str(text).unwrap();
        let key = SigningKey::from_seed(Algorithm::EdDsa, &[7; 32], Some("under-test")).unwrap();
        let source = |name: &str, member: &str| SourceFile {
            name: name.to_owned(),
            text: file[member].as_str().unwrap().to_owned(),
        };
        let policies = vec![source("vectors.cedar", "policies")];
        let offer = Offer { transaction: true, ..Offer::default() };
        let policy = Bundle::load(policies, source("vectors.cedarschema", "schema"), &offer).unwrap();
        let entities = Entities::load(Vec::new(), &policy).unwrap();
        let realm = Realm::parse(file["realm"].as_str().unwrap()).unwrap();
        let trust = trust(&file["trust"], &key);
        let snapshot = Snapshot {
            trust: Arc::new(trust),
            policy: Arc::new(policy),
            entities: Arc::new(entities),
            standing: Standing::default(),
        };
        let gate = Gate { id: WorkloadId::parse(GATE).unwrap(), realm: realm.clone(), key };
        Self {
            now: UnixMillis(file["now"].as_i64().unwrap() * 1000),
            realm,
            snapshot,
            engine: Engine::new(gate, 1000),
            codecs: Codecs::new().unwrap(),
            file,
        }
    }

    fn decide(&self, route: &Route, record: &Record, state: &mut PartitionState) -> Effects {
        let moment = Moment {
            now: self.now,
            id: DecisionId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)),
            snapshot: &self.snapshot,
            source_partitions: COUNTS.source,
        };
        let step = self.engine.handle(route, record, &moment, Delivery::Open, state);
        effects(&self.codecs, route, record, step, COUNTS, state).unwrap()
    }

    fn route(&self, case: &Value) -> Route {
        let mut settings = self.file["route"].clone();
        for (name, value) in case["route"].as_object().into_iter().flatten() {
            settings[name] = value.clone();
        }
        let seconds = |member: &str| u32::try_from(self.file[member].as_u64().unwrap()).unwrap();
        let requires = |what: &str| settings["require"].as_array().unwrap().iter().any(|one| one == what);
        let topic = |name: &str| Topic::parse(name).unwrap();
        assert_eq!(settings["principal"], "sender");
        Route {
            require_transaction: requires("transaction"),
            require_countersignature: requires("countersignature"),
            token_expiry: match settings["token_expiry"].as_str().unwrap() {
                "now" => TokenExpiry::Now,
                _ => TokenExpiry::Accepted,
            },
            skew_s: seconds("skew_s"),
            proof_life_s: seconds("max_proof_life_s"),
            max_queue_time_s: seconds("max_queue_time_s"),
            ..Route::new(
                "vectors",
                vec![topic(settings["topic"].as_str().unwrap())],
                topic("payments.authorized"),
                topic("payments.denied"),
                topic("payments.audit"),
            )
        }
    }

    fn cases(&self) -> Vec<(String, &Value)> {
        let cases = self.file["cases"].as_array().unwrap();
        cases.iter().map(|case| (case["name"].as_str().unwrap().to_owned(), case)).collect()
    }
}

fn trust(domains: &Value, gate: &SigningKey) -> Trust {
    let domain = |(name, keys): (&String, &Value)| {
        let set = |member: &str, key_use| KeySet::from_jwks(&keys[member].to_string(), key_use).unwrap();
        let mut gates = keys["gate_keys"].clone();
        gates["keys"].as_array_mut().unwrap().push(gate.public_jwk());
        let domain = Domain {
            algorithms: Algorithm::DEFAULT.to_vec(),
            bundle: set("bundle", KeyUse::WitIssuer),
            token_service: set("txn_keys", KeyUse::Any),
            gates: KeySet::from_jwks(&gates.to_string(), KeyUse::Any).unwrap(),
        };
        (TrustDomain::parse(name).unwrap(), domain)
    };
    Trust::new(domains.as_object().unwrap().iter().map(domain).collect::<BTreeMap<_, _>>())
}

fn record(json: &Value) -> Record {
    let bytes = |value: &Value| value.as_str().map(|text| Bytes::from(STANDARD.decode(text).unwrap()));
    let header = |pair: &Value| Header {
        name: Bytes::from(pair[0].as_str().unwrap().to_owned()),
        value: bytes(&pair[1]),
    };
    Record {
        source: Coordinates {
            topic: Topic::parse(json["topic"].as_str().unwrap()).unwrap(),
            partition: Partition(i32::try_from(json["partition"].as_i64().unwrap()).unwrap()),
            offset: Offset(json["offset"].as_i64().unwrap()),
        },
        timestamp: json["timestamp_ms"].as_i64().map(UnixMillis),
        timestamp_type: match json["timestamp_type"].as_str().unwrap() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            "CreateTime" => TimestampType::CreateTime,
            other => panic!("timestamp type {other}"),
        },
        key: bytes(&json["key"]),
        value: bytes(&json["value"]),
        headers: json["headers"].as_array().unwrap().iter().map(header).collect(),
    }
}

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
