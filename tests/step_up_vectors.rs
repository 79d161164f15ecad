//! The vectors of step-up: every request of `tests/vectors/digest.json` has its digest, and every answer of
//! `tests/vectors/answers.json` the effect that it must have.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::authorize::engine::{Delivery, Engine, Moment, Snapshot, Step};
use countersign::authorize::ids::{
    Coordinates, DecisionId, Digest, Offset, Partition, Realm, Topic, TrustDomain, UnixMillis, WorkloadId,
};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse, SigningKey, sha256};
use countersign::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::replay::window_ms;
use countersign::authorize::route::{Gate, Holding, Order, Route};
use countersign::authorize::standing::Standing;
use countersign::authorize::state::PartitionState;
use countersign::authorize::step_up::{Asked, EFFECTS, Keep, Payload, request_digest};
use countersign::authorize::trust::{ApproverIssuer, Domain, Issuer, Others, Trust};
use serde_json::{Value, json};
use uuid::Uuid;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn every_request_has_the_digest_of_the_vectors() {
    let file: Value = serde_json::from_str(include_str!("vectors/digest.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    let mut differences = Vec::new();
    for case in cases {
        let request = &case["request"];
        let digest = |member: &str| {
            let wanted = request[member].as_str()?;
            // A digest of any bytes: found again among those that the vectors use.
            let known = ["inv-7", "", "{\"amount\":120}"].map(|bytes| sha256(&[bytes.as_bytes()]));
            let found: Option<Digest> = known.into_iter().find(|digest| digest.to_string() == wanted);
            Some(found.unwrap_or_else(|| panic!("`{member}` is the digest of nothing that is known")))
        };
        let step_ups: Vec<String> = serde_json::from_value(request["step_ups"].clone()).unwrap();
        let workflow = serde_json::from_value(request["workflow"].clone()).unwrap();
        let asked = Asked {
            route: text(&request["route"]),
            sender: text(&request["sender"]),
            subject: request["subject"].as_str(),
            txn: request["txn"].as_str(),
            action: &serde_json::from_value(request["action"].clone()).unwrap(),
            resource: &serde_json::from_value(request["resource"].clone()).unwrap(),
            workflow: Option::as_ref(&workflow),
            key: digest("key"),
            value: digest("value"),
            step_ups: &step_ups,
        };
        let canonical = sha256(&[text(&case["canonical"]).as_bytes()]);
        assert_eq!(canonical.to_string(), text(&case["digest"]), "the vector agrees with itself");
        if request_digest(&asked) != Some(canonical) {
            differences.push(text(&case["name"]));
        }
    }
    assert!(differences.is_empty(), "other digests: {differences:#?}");
    assert!(cases.len() >= 18);
}

struct World {
    file: Value,
    engine: Engine,
    snapshot: Snapshot,
    route: Route,
}

impl World {
    fn read() -> Self {
        let file: Value = serde_json::from_str(include_str!("vectors/answers.json")).unwrap();
        let source =
            |member: &str| SourceFile { name: member.to_owned(), text: text(&file[member]).to_owned() };
        let offer = Offer { transaction: true, subject_type: Some("User".to_owned()), ..Offer::default() };
        let policy = Bundle::load(vec![source("policies")], source("schema"), &offer).unwrap();
        let key = SigningKey::from_seed(Algorithm::EdDsa, &[7; 32], Some("under-test")).unwrap();
        let snapshot = Snapshot {
            trust: Arc::new(trust(&file)),
            entities: Arc::new(Entities::load(Vec::new(), &policy).unwrap()),
            policy: Arc::new(policy),
            standing: Standing::default(),
        };
        let gate = Gate {
            id: WorkloadId::parse("spiffe://example.org/gate/under-test").unwrap(),
            realm: Realm::parse(text(&file["realm"])).unwrap(),
            key,
        };
        Self { engine: Engine::new(gate, 1000), snapshot, route: route(&file), file }
    }

    fn moment(&self, now: &Value, id: Uuid) -> Moment<'_> {
        let now = UnixMillis(now.as_i64().unwrap());
        Moment { now, id: DecisionId(id), snapshot: &self.snapshot, source_partitions: 4 }
    }

    /// Takes the steps of a case; what differs.
    fn run(&self, case: &Value) -> Vec<String> {
        let mut state = PartitionState::new(window_ms(&self.route));
        let mut held: Vec<Payload> = Vec::new();
        let mut differences = Vec::new();
        for (n, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let (found, made) = match step.get("record") {
                Some(written) => {
                    let id = Uuid::parse_str(text(&step["decision"])).unwrap();
                    let record = record(written);
                    let moment = self.moment(&step["now_ms"], id);
                    let made = self.engine.handle(&self.route, &record, &moment, Delivery::Open, &mut state);
                    (outcome(&made), made)
                }
                None => {
                    let answer = answer(&step["answer"], &self.route.from[0]);
                    let named = state.holds.answered_by(&answer).map(|(source, _)| source);
                    let payload = held.iter().find(|payload| Some(payload.record.source.offset) == named);
                    let moment = self.moment(&step["now_ms"], Uuid::from_u128(n as u128));
                    let source = &self.route.from[0];
                    let made = self.engine.answer(&self.route, source, &answer, payload, &moment, &mut state);
                    let said = made.audit.answer.as_ref().unwrap();
                    (json!({"effect": said.effect}), made)
                }
            };
            if found != step["expect"] {
                let detail = made.audit.detail.clone();
                differences.push(format!("step {n}: expected {}, found {found}: {detail:?}", step["expect"]));
            }
            for kept in made.traces.kept {
                if let Keep::Payload(source, Some(payload)) = kept {
                    // Where it would stand in the holds topic.
                    state.holds.load_payload(source, Some(source));
                    held.push(*payload);
                }
            }
        }
        differences
    }
}

/// What became of a record, in the members of the vectors.
fn outcome(step: &Step) -> Value {
    let mut found = json!({"outcome": step.audit.outcome});
    if let Some(reason) = &step.audit.reason {
        found["reason"] = reason.as_str().into();
    }
    if let [challenge] = &step.traces.told[..] {
        found["challenge"] = challenge.id.as_str().into();
        found["digest"] = challenge.digest.as_str().into();
        found["hold_until_ms"] = challenge.hold_until.into();
    }
    found
}

fn trust(file: &Value) -> Trust {
    let set = |keys: &Value, key_use| KeySet::from_jwks(&keys.to_string(), key_use).unwrap();
    let domain = |(name, keys): (&String, &Value)| {
        let domain = Domain {
            algorithms: Algorithm::DEFAULT.to_vec(),
            bundle: set(&keys["bundle"], KeyUse::WitIssuer),
            token_service: set(&keys["txn_keys"], KeyUse::Any),
            gates: set(&keys["gate_keys"], KeyUse::Any),
        };
        (TrustDomain::parse(name).unwrap(), domain)
    };
    let approvers = |(name, of): (&String, &Value)| {
        let keys = set(&of["keys"], KeyUse::Any);
        let issuer = Issuer { algorithms: Algorithm::DEFAULT.to_vec(), keys };
        (name.clone(), ApproverIssuer { issuer, entity_type: text(&of["type"]).to_owned() })
    };
    let others = Others {
        approvers: file["approvers"].as_object().unwrap().iter().map(approvers).collect(),
        ..Others::default()
    };
    Trust::with(file["trust"].as_object().unwrap().iter().map(domain).collect(), others)
}

fn route(file: &Value) -> Route {
    let (of, topic) = (&file["route"], |name: &str| Topic::parse(name).unwrap());
    let source = topic(text(&of["topic"]));
    let holding = Holding {
        challenges: topic("payments.challenges"),
        holds: BTreeMap::from([(source.clone(), topic("payments.commands.holds"))]),
        answers: BTreeMap::from([(source.clone(), topic("payments.commands.answers"))]),
        hold_s: number(&of["hold_s"]),
        grant_s: number(&of["grant_s"]),
        order: Order::None,
        max_waiting: 10,
    };
    let to = ["authorized", "denied", "audit"].map(|part| topic(&format!("payments.{part}")));
    let [to, denied, audit] = to;
    Route {
        require_transaction: true,
        skew_s: number(&file["skew_s"]),
        holding: Some(holding),
        ..Route::new(text(&of["name"]), vec![source], to, denied, audit)
    }
}

fn bytes(value: &Value) -> Option<Bytes> {
    value.as_str().map(|text| Bytes::from(STANDARD.decode(text).unwrap()))
}

fn record(json: &Value) -> Record {
    let header =
        |pair: &Value| Header { name: Bytes::from(text(&pair[0]).to_owned()), value: bytes(&pair[1]) };
    assert_eq!(json["timestamp_type"], "LogAppendTime");
    Record {
        source: Coordinates {
            topic: Topic::parse(text(&json["topic"])).unwrap(),
            partition: Partition(i32::try_from(json["partition"].as_i64().unwrap()).unwrap()),
            offset: Offset(json["offset"].as_i64().unwrap()),
        },
        timestamp: json["timestamp_ms"].as_i64().map(UnixMillis),
        timestamp_type: TimestampType::LogAppendTime,
        key: bytes(&json["key"]),
        value: bytes(&json["value"]),
        headers: json["headers"].as_array().unwrap().iter().map(header).collect(),
    }
}

fn answer(json: &Value, source: &Topic) -> Record {
    Record {
        source: Coordinates {
            topic: Topic::parse(&format!("{source}.answers")).unwrap(),
            partition: Partition(0),
            offset: Offset(json["offset"].as_i64().unwrap()),
        },
        timestamp: json["taken_ms"].as_i64().map(UnixMillis),
        timestamp_type: TimestampType::LogAppendTime,
        key: None,
        value: bytes(&json["value"]),
        headers: Vec::new(),
    }
}

#[test]
fn every_answer_has_the_effect_of_the_vectors() {
    let world = World::read();
    let cases = world.file["cases"].as_array().unwrap();
    let mut differences = Vec::new();
    for case in cases {
        let found = world.run(case).into_iter();
        differences.extend(found.map(|difference| format!("{}, {difference}", text(&case["name"]))));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let steps = cases.iter().flat_map(|case| case["steps"].as_array().unwrap());
    let effects: Vec<&str> = steps.filter_map(|step| step["expect"]["effect"].as_str()).collect();
    assert!(EFFECTS.iter().all(|effect| effects.contains(effect)), "each effect is shown");
    assert!(cases.len() >= 22);
}
