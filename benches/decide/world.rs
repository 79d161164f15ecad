//! What is decided and by whom: policies, entities, tokens, records, and a gate that decides batches of them. Limits: one
//! trust domain, one route, and every signature Ed25519.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use cedar_policy::{Authorizer, Context, PolicySet, Request};
use countersign::authorize::engine::{Delivery, Engine, Moment, Snapshot};
use countersign::authorize::ids::{
    Coordinates, DecisionId, Offset, Partition, Realm, Topic, TrustDomain, UnixMillis, WorkloadId,
};
use countersign::authorize::jose::{Algorithm, Jws, KeySet, KeyUse, SigningKey, TokenKind};
use countersign::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::request::{Action, Mapping, MappingSource, Resource};
use countersign::authorize::route::{Gate, Route};
use countersign::authorize::standing::Standing;
use countersign::authorize::state::PartitionState;
use countersign::authorize::trust::{Domain, Trust};
use countersign::producer::{self, Asked, Outgoing, Signer};
use countersign::wire::outgoing::{Codecs, PartitionCounts, effects};
use serde_json::{Value, json};
use uuid::Uuid;

pub const NOW_S: i64 = 1_893_456_000;
pub const SENDER: &str = "spiffe://example.org/agent/7";
pub const TOPIC: &str = "payments.commands";
/// Records of a batch: each case is timed over one.
pub const BATCH: usize = 256;
pub const COUNTS: PartitionCounts =
    PartitionCounts { source: 8, destination: 8, denied: 8, audit: 8, challenges: 8 };
pub const SCHEMA: &str = "
    entity Team;
    entity Workload in [Team];
    entity User;
    entity Account;
    entity Invoice in [Account];
    action payments;
    action pay, refund in [payments] appliesTo { principal: Workload, resource: Invoice, context: {
        now: datetime, message: { accepted_at: datetime, topic: String }, sender: Workload,
        transaction?: { id: String, scope: Set<String>, expires_at: datetime },
    } };
";

/// Policies whose scopes name ids, in equal parts: by principal, by resource, by both, by team, by account. As many of
/// them apply to a record at 10 as at 10,000.
pub fn policies(count: usize) -> String {
    let policy = |i: usize| {
        let agent = format!("Workload::\"spiffe://example.org/agent/{i}\"");
        let (effect, scope, condition) = match i % 5 {
            0 => (
                "permit",
                format!("principal == {agent}, action, resource is Invoice"),
                "context has transaction",
            ),
            1 => (
                "forbid",
                format!("principal, action, resource == Invoice::\"{i}\""),
                "context.message.topic == \"x\"",
            ),
            2 => (
                "permit",
                format!("principal == {agent}, action == Action::\"pay\", resource is Invoice"),
                "context has transaction && context.transaction.scope.contains(\"payments.pay\")",
            ),
            3 => (
                "permit",
                format!("principal in Team::\"{i}\", action in Action::\"payments\", resource"),
                "context has transaction && context.transaction.expires_at < context.message.accepted_at",
            ),
            _ => (
                "forbid",
                format!("principal, action, resource in Account::\"{i}\""),
                "context.sender == principal",
            ),
        };
        format!("@id(\"p{i}\") {effect} ({scope}) when {{ {condition} }};\n")
    };
    (0..count).map(policy).collect()
}

/// The sender and its team, the invoice, and others.
pub fn store(count: usize) -> Vec<Value> {
    let agent = |i: usize| {
        json!({"uid": {"type": "Workload", "id": format!("spiffe://example.org/agent/{i}")}, "attrs": {},
               "parents": [{"type": "Team", "id": "3"}]})
    };
    let invoice = |i: usize| {
        json!({"uid": {"type": "Invoice", "id": i.to_string()}, "attrs": {},
               "parents": [{"type": "Account", "id": "open"}]})
    };
    let mut all = vec![agent(7), invoice(6)];
    all.extend((all.len()..count).map(|i| if i % 2 == 0 { agent(i + 100) } else { invoice(i + 100) }));
    all
}

pub fn file(name: &str, text: String) -> SourceFile {
    SourceFile { name: name.to_owned(), text }
}

pub fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a topic")
}

pub fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(Algorithm::EdDsa, &[seed; 32], Some(name)).expect("a key")
}

pub fn keys(key: &SigningKey) -> KeySet {
    KeySet::from_jwks(&json!({"keys": [key.public_jwk()]}).to_string(), KeyUse::Any).expect("a key set")
}

/// Who issues and who sends.
pub struct Parties {
    pub issuer: SigningKey,
    pub tokens: SigningKey,
    pub realm: Realm,
}

impl Parties {
    pub fn identity(&self, life: i64) -> String {
        let claims = json!({
            "iss": "spiffe://example.org", "sub": SENDER, "jti": Uuid::now_v7().to_string(),
            "iat": NOW_S - 600, "exp": NOW_S + life, "cnf": {"jwk": key("workload", 2).public_jwk()},
        });
        self.issuer.sign(TokenKind::WorkloadIdentity, &claims).expect("a token")
    }

    pub fn transaction(&self) -> String {
        let claims = json!({
            "iss": "https://tokens.example.org", "aud": "example.org", "iat": NOW_S - 60, "exp": NOW_S + 240,
            "txn": Uuid::now_v7().to_string(), "sub": "alice", "scope": "payments.pay payments.read",
            "req_wl": "spiffe://example.org/api-gateway",
            "tctx": {"invoice": "6", "amount": 120, "currency": "EUR"}, "rctx": {"req_ip": "192.0.2.7"},
        });
        self.tokens.sign(TokenKind::Transaction, &claims).expect("a token")
    }

    pub fn signer(&self, wit: &str) -> Signer {
        Signer::new(key("workload", 2), wit, self.realm.clone()).expect("a signer")
    }

    /// A record with the tokens of that sender, accepted 4 s ago.
    pub fn record(&self, n: usize, signed: Option<(&Signer, &str)>, asked: &Asked) -> Record {
        let value = json!({"invoice": "6", "amount": 120, "currency": "EUR", "note": "x".repeat(960)});
        let value = value.to_string().into_bytes();
        let (topic, key) = (topic(TOPIC), b"invoice-6".to_vec());
        let plain = Outgoing::new(&topic).key(&key).value(&value);
        let headers = match signed {
            None => {
                vec![Header::new("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")]
            }
            Some((signer, transaction)) => {
                let tokens =
                    producer::Tokens { transaction: Some(transaction), ..producer::Tokens::default() };
                let jti = Uuid::now_v7().to_string();
                let at = UnixMillis((NOW_S - 5) * 1000);
                signer.sign(&plain, asked, &tokens, at, &jti).expect("a signed record")
            }
        };
        Record {
            source: Coordinates {
                topic: topic.clone(),
                partition: Partition(0),
                offset: Offset(i64::try_from(n).expect("small")),
            },
            timestamp: Some(UnixMillis((NOW_S - 4) * 1000)),
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(Bytes::from(key)),
            value: Some(Bytes::from(value)),
            headers,
        }
    }
}

pub fn asked(action: &str, invoice: &str) -> Asked {
    Asked {
        action: Some(Action { name: action.into(), properties: None }),
        resource: Some(Resource { kind: "Invoice".into(), id: invoice.into(), properties: None }),
        workflow: None,
    }
}

/// A gate with so many policies and entities.
pub struct World {
    pub engine: Engine,
    pub codecs: Codecs,
    pub snapshot: Snapshot,
    pub route: Route,
}

impl World {
    pub fn new(parties: &Parties, policies: &str, entities: usize, route: Route) -> Self {
        Self::caching(parties, policies, entities, route, 4096)
    }

    /// The same, with a cache of so many tokens.
    pub fn caching(parties: &Parties, policies: &str, entities: usize, route: Route, tokens: usize) -> Self {
        let gate = key("gate", 4);
        let domain = Domain {
            algorithms: vec![Algorithm::EdDsa],
            bundle: keys(&parties.issuer),
            token_service: keys(&parties.tokens),
            gates: keys(&gate),
        };
        let name = TrustDomain::parse("example.org").expect("a trust domain");
        let bundle = Bundle::load(
            vec![file("bench.cedar", policies.to_owned())],
            file("bench.cedarschema", SCHEMA.to_owned()),
            &Offer::default(),
        );
        let policy = bundle.expect("a bundle");
        // Several files: one has a bound.
        let stored = store(entities);
        let files = stored.chunks(200_000).enumerate();
        let files = files.map(|(n, some)| file(&format!("entities-{n}.json"), json!(some).to_string()));
        let entities = Entities::load(files.collect(), &policy).expect("entities");
        let id = WorkloadId::parse("spiffe://example.org/gate/payments").expect("an identifier");
        Self {
            engine: Engine::new(Gate { id, realm: parties.realm.clone(), key: gate }, tokens),
            codecs: Codecs::new().expect("codecs"),
            snapshot: Snapshot {
                trust: Arc::new(Trust::new(BTreeMap::from([(name, domain)]))),
                policy: Arc::new(policy),
                entities: Arc::new(entities),
                standing: Standing::default(),
            },
            route,
        }
    }

    /// Decides a batch as a lane does, and drops it as an aborted one, so that it can be decided again. Returns
    /// how its records ended.
    pub fn batch(&self, records: &[Record], state: &mut PartitionState) -> BTreeSet<String> {
        let mut ended = BTreeSet::new();
        state.begin();
        for record in records {
            let moment = Moment {
                now: UnixMillis(NOW_S * 1000),
                id: DecisionId(Uuid::now_v7()),
                snapshot: &self.snapshot,
                source_partitions: COUNTS.source,
            };
            let step = self.engine.handle(&self.route, record, &moment, Delivery::Open, state);
            let end = step.audit.reason.as_ref().unwrap_or(&step.audit.outcome);
            if !ended.contains(end.as_str()) {
                ended.insert(end.to_string());
            }
            let made = effects(&self.codecs, &self.route, record, step, COUNTS, state);
            black_box(made.expect("effects"));
        }
        state.abort();
        ended
    }
}

/// The route of the gate: it takes records from one sender without a proof, or only proven ones.
pub fn route(unproven: bool) -> Route {
    let route = Route::new(
        "payments",
        vec![topic(TOPIC)],
        topic("payments.authorized"),
        topic("payments.denied"),
        topic("payments.audit"),
    );
    if !unproven {
        return Route { require_transaction: true, ..route };
    }
    let source = MappingSource {
        action: Some("'pay'".into()),
        resource: Some("{'type': 'Invoice', 'id': value.invoice}".into()),
        ..MappingSource::default()
    };
    let mapping = Mapping::compile(&source).expect("a mapping");
    Route { unproven: WorkloadId::parse(SENDER).ok(), mapping, ..route }
}

/// A record's proof, and what its signature is over.
pub fn proof_of(record: &Record) -> (&[u8], Vec<u8>) {
    let name = TokenKind::WorkloadProof.header_name().as_bytes();
    let header = record.headers.iter().find(|header| &header.name[..] == name).expect("a proof");
    let token = header.value.as_deref().expect("a value");
    let jws = Jws::parse(token, TokenKind::WorkloadProof).expect("a compact JWS");
    (jws.signing_input(), jws.signature().to_vec())
}

/// Changes one bit of the proof's signature, of those that count.
pub fn break_proof(record: &mut Record) {
    let name = TokenKind::WorkloadProof.header_name().as_bytes();
    for header in record.headers.iter_mut().filter(|header| &header.name[..] == name) {
        let mut token = header.value.as_deref().expect("a value").to_vec();
        let at = token.len() - 40;
        token[at] = if token[at] == b'A' { b'B' } else { b'A' };
        header.value = Some(token.into());
    }
}

/// Bytes of memory that the process has.
pub fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

/// The candidates alone, asked with everything made beforehand.
pub struct Bare {
    set: PolicySet,
    entities: cedar_policy::Entities,
    request: Request,
}

impl Bare {
    pub fn new() -> Self {
        // Those that name the sender, its team or the invoice.
        let set: PolicySet = policies(10).parse().expect("policies");
        let names = ["p3", "p6", "p7"];
        let set = PolicySet::from_policies(
            set.policies().filter(|p| p.annotation("id").is_some_and(|id| names.contains(&id))).cloned(),
        );
        let schema = SCHEMA.parse().expect("a schema");
        let store = Value::Array(store(5)).to_string();
        let context = json!({
            "now": {"__extn": {"fn": "datetime", "arg": "2030-01-01T00:00:00Z"}},
            "message": {"topic": TOPIC, "accepted_at": {"__extn": {"fn": "datetime", "arg": "2029-12-31T23:59:56Z"}}},
            "sender": {"__entity": {"type": "Workload", "id": SENDER}},
            "transaction": {"id": "t", "scope": ["payments.pay", "payments.read"],
                "expires_at": {"__extn": {"fn": "datetime", "arg": "2030-01-01T00:04:00Z"}}},
        });
        let action = "Action::\"pay\"".parse().expect("an action");
        let context = Context::from_json_value(context, Some((&schema, &action))).expect("a context");
        let uid = |text: String| text.parse().expect("an entity");
        let request = Request::new(
            uid(format!("Workload::\"{SENDER}\"")),
            action,
            uid("Invoice::\"6\"".to_owned()),
            context,
            None,
        );
        let bare = Self {
            set: set.expect("policies"),
            entities: cedar_policy::Entities::from_json_str(&store, Some(&schema)).expect("entities"),
            request: request.expect("a request"),
        };
        // What a gate decides about such a record.
        assert_eq!((bare.set.policies().count(), bare.ask()), (names.len(), cedar_policy::Decision::Allow));
        bare
    }

    pub fn ask(&self) -> cedar_policy::Decision {
        Authorizer::new().is_authorized(black_box(&self.request), &self.set, &self.entities).decision()
    }
}
