//! The world of `tests/vectors/contract.json`: a gate under test, the route of each case, and its records. Limits: it reads
//! and decides; what must come of a case is said in the file, and compared by the tests.

#![allow(dead_code, reason = "each binary takes in the whole file and uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::authorize::engine::{Delivery, Engine, Moment, Snapshot};
use countersign::authorize::ids::{
    Coordinates, DecisionId, Offset, Partition, Realm, Topic, TrustDomain, UnixMillis, WorkloadId,
};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse, SigningKey};
use countersign::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use countersign::authorize::record::{Header, Record, TimestampType};
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

/// A gate that trusts whom the vectors trust.
pub struct World {
    pub file: Value,
    pub realm: Realm,
    pub now: UnixMillis,
    pub snapshot: Snapshot,
    pub engine: Engine,
    pub codecs: Codecs,
}

impl World {
    pub fn read() -> Self {
        let text = include_str!("../vectors/contract.json");
        let file: Value = serde_json::from_str(text).unwrap();
        let key = gate_key();
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
        Self {
            now: UnixMillis(file["now"].as_i64().unwrap() * 1000),
            engine: cold_engine(&realm),
            realm,
            snapshot,
            codecs: Codecs::new().unwrap(),
            file,
        }
    }

    /// Forgets every token that was verified.
    pub fn forget(&mut self) {
        self.engine = cold_engine(&self.realm);
    }

    pub fn decide(&self, route: &Route, record: &Record, state: &mut PartitionState) -> Effects {
        let moment = Moment {
            now: self.now,
            id: DecisionId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)),
            snapshot: &self.snapshot,
            source_partitions: COUNTS.source,
        };
        let step = self.engine.handle(route, record, &moment, Delivery::Open, state);
        effects(&self.codecs, route, record, step, COUNTS, state).unwrap()
    }

    pub fn route(&self, case: &Value) -> Route {
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

    pub fn cases(&self) -> Vec<(String, &Value)> {
        let cases = self.file["cases"].as_array().unwrap();
        cases.iter().map(|case| (case["name"].as_str().unwrap().to_owned(), case)).collect()
    }
}

fn gate_key() -> SigningKey {
    SigningKey::from_seed(Algorithm::EdDsa, &[7; 32], Some("under-test")).unwrap()
}

fn cold_engine(realm: &Realm) -> Engine {
    let id = WorkloadId::parse(GATE).unwrap();
    Engine::new(Gate { id, realm: realm.clone(), key: gate_key() }, 1000)
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

/// The record of a case.
pub fn record(json: &Value) -> Record {
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
