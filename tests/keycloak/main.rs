//! Approvers with the tokens of a real Keycloak: whose are taken, what an answer becomes, and a key that Keycloak has only
//! just begun to sign with; and a whole gate that holds, with Kafka beside it. One Keycloak for all of them.

#[path = "../kafka/gate/mod.rs"]
#[allow(dead_code, unused_imports, reason = "what the tests on Kafka share")]
mod gate;
#[path = "../kafka/step_up/office.rs"]
#[allow(dead_code, reason = "what the tests on Kafka share")]
mod office;
mod support;
mod whole_gate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use countersign::authorize::audit::{AuditAction, AuditResource};
use countersign::authorize::engine::{Engine, Snapshot};
use countersign::authorize::ids::{Coordinates, Offset, Partition, Realm, Topic, UnixMillis, WorkloadId};
use countersign::authorize::jose::{Algorithm, Jws, SigningKey, TokenKind};
use countersign::authorize::login::OidcIssuer;
use countersign::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use countersign::authorize::route::{Gate, Holding, Order, Route};
use countersign::authorize::standing::Standing;
use countersign::authorize::step_up::{Ask, Challenge, Status};
use countersign::authorize::trust::Trust;
use countersign::config::{OidcKeys, OidcSettings};
use countersign::control::answers::{AnswerLog, AnswerTopics, Writing};
use countersign::control::challenges::Challenges;
use countersign::control::oidc::OidcIssuers;
use countersign::serve::Server;
use countersign::serve::approvals::{Approvals, start};
use countersign::telemetry::{Settings, Telemetry};
use countersign::wire::challenge::ChallengeCodec;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use support::keycloak::keycloak;

const CHALLENGE: &str = "payments.commands:3:0190a6c0-0000-7000-8000-000000000001";

/// The grants that were written.
#[derive(Default)]
struct Written(Mutex<Vec<String>>);

impl AnswerLog for Written {
    fn write<'a>(
        &'a self,
        topic: &'a Topic,
        partition: Partition,
        _challenge: &'a str,
        answer: &'a str,
    ) -> Writing<'a> {
        self.0.lock().unwrap().push(answer.to_owned());
        Box::pin(async move { Ok(Coordinates { topic: topic.clone(), partition, offset: Offset(0) }) })
    }
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(i64::try_from(since.as_millis()).unwrap())
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn route() -> Route {
    let source = topic("payments.commands");
    let mut route =
        Route::new("payments", vec![source.clone()], topic("to"), topic("denied"), topic("audit"));
    route.holding = Some(Holding {
        challenges: topic("challenges"),
        holds: BTreeMap::from([(source.clone(), topic("holds"))]),
        answers: BTreeMap::from([(source, topic("answers"))]),
        hold_s: 1800,
        grant_s: 600,
        order: Order::None,
        max_waiting: 10,
    });
    route
}

/// Users may answer, but `mallory`.
fn snapshot() -> Snapshot {
    let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), text: text.to_owned() };
    let schema = "entity Workload; entity User; entity Challenge; entity Invoice;
        action pay appliesTo { principal: [Workload], resource: [Invoice], context: {} };
        action answer appliesTo { principal: [User], resource: [Challenge], context: {} };";
    let policies = r#"@id("users") permit (principal, action == Action::"answer", resource)
        unless { principal == User::"mallory" };"#;
    let offer = Offer { subject_type: Some("User".to_owned()), ..Offer::default() };
    let policy =
        Bundle::load(vec![file("p.cedar", policies)], file("s.cedarschema", schema), &offer).unwrap();
    Snapshot {
        trust: Arc::new(Trust::new(BTreeMap::new())),
        entities: Arc::new(Entities::load(Vec::new(), &policy).unwrap()),
        policy: Arc::new(policy),
        standing: Standing::default(),
    }
}

fn challenge(subject: &str, acr_values: Option<&str>) -> Challenge {
    let text = |text: &str| text.to_owned();
    Challenge {
        id: text(CHALLENGE),
        status: Status::Open,
        changed_at: now().0,
        realm: text("test"),
        route: text("payments"),
        topic: text("payments.commands"),
        partition: 3,
        offset: 42,
        asked_at: now().0,
        hold_until: now().0 + 1_800_000,
        approvals: 1,
        step_ups: vec![Ask {
            name: text("second-pair-of-eyes"),
            policy: text("large"),
            message: text("Pay 12,000 EUR for inv-7?"),
            approvals: 1,
            grant_s: 600,
            acr_values: acr_values.map(text),
            max_age_s: None,
        }],
        sender: text("spiffe://example.org/agent/payer"),
        subject: Some(text(subject)),
        chain: vec![],
        transaction: None,
        action: AuditAction { name: text("pay"), properties: None },
        resource: AuditResource { kind: text("Invoice"), id: text("inv-7"), properties: None },
        workflow: None,
        digest: text("AAAA"),
        answers: vec![],
        reminders: 0,
        decision_id: None,
        reason: None,
    }
}

/// The interface, for approvers of one issuer.
struct Desk {
    server: Server,
    written: Arc<Written>,
    challenges: Challenges,
}

impl Desk {
    fn new(issuer: &str) -> Self {
        let telemetry = Telemetry::start(Settings::default()).unwrap();
        let rules = OidcIssuer {
            iss: issuer.to_owned(),
            audience: "countersign".to_owned(),
            entity_type: "User".to_owned(),
            claim: "preferred_username".to_owned(),
            algorithms: vec![Algorithm::Rs256],
            scope: None,
            clients: BTreeSet::new(),
            skew_s: 30,
        };
        let issuers = [OidcSettings { rules, keys: OidcKeys::Discovered }];
        let gate = Gate {
            id: WorkloadId::parse("spiffe://example.org/gate").unwrap(),
            realm: Realm::parse("test").unwrap(),
            key: SigningKey::from_seed(Algorithm::EdDsa, &[2; 32], Some("g")).unwrap(),
        };
        let (written, challenges) = (Arc::new(Written::default()), Challenges::new().unwrap());
        let approvals = Approvals {
            engine: Arc::new(Engine::new(gate, 10)),
            places: AnswerTopics::of([&route()], None),
            snapshots: Arc::new(ArcSwap::from_pointee(snapshot())),
            issuers: OidcIssuers::start(&issuers, &telemetry, now).unwrap(),
            challenges: challenges.clone(),
            answers: Arc::clone(&written) as Arc<dyn AnswerLog>,
            answers_a_minute: 1000,
            clock: now,
            telemetry,
        };
        let server = start("127.0.0.1:0".parse().unwrap(), None, approvals).unwrap();
        Self { server, written, challenges }
    }

    fn put(&self, challenge: &Challenge) {
        let bytes = ChallengeCodec::new().unwrap().encode(challenge).unwrap();
        self.challenges.take(&challenge.id, Some(&bytes)).unwrap();
    }

    /// Status, `WWW-Authenticate` and body of an approval.
    fn approve(&self, token: &str) -> (u16, String, Value) {
        let url = format!("http://{}/challenges/{CHALLENGE}/answer", self.server.address());
        let request = Client::new().post(url).bearer_auth(token).header("content-type", "application/json");
        let answer = request.body(r#"{"decision":"approve"}"#).send().unwrap();
        let header = answer.headers().get("www-authenticate");
        let header = header.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let status = answer.status().as_u16();
        (status, header, serde_json::from_str(&answer.text().unwrap()).unwrap())
    }
}

#[test]
fn approvers_answer_with_the_tokens_of_a_real_keycloak() {
    let Some(keycloak) = keycloak("approvers answer with the tokens of a real Keycloak") else { return };
    let realm = keycloak.realm("main", &["alice", "carol", "mallory"]);
    let desk = Desk::new(&realm.issuer());
    desk.put(&challenge("alice", None));

    let carol = realm.token("carol");
    let (status, _, body) = desk.approve(&carol);
    assert_eq!((status, &body["written"]["topic"]), (202, &json!("answers")), "{body}");
    let grant = desk.written.0.lock().unwrap()[0].clone();
    let jws = Jws::parse(grant.as_bytes(), TokenKind::StepUpGrant).unwrap();
    let claims: Value = serde_json::from_slice(jws.payload()).unwrap();
    assert_eq!((&claims["sub"], &claims["sub_type"]), (&json!("carol"), &json!("User")));
    assert_eq!((&claims["sub_id"]["iss"], &claims["acr"]), (&json!(realm.issuer()), &json!("1")));
    assert_ne!(claims["sub_id"]["sub"], "carol", "Keycloak's own name for her");
    assert!(!body.to_string().contains(&carol) && !grant.contains(&carol));

    let refused = |token: &str| desk.approve(token).2["error"].as_str().unwrap().to_owned();
    assert_eq!(refused(&realm.token("alice")), "may_not_answer", "the requester itself");
    assert_eq!(refused(&realm.token_for_elsewhere("carol")), "invalid_token", "another audience");
    assert_eq!(refused(&realm.token("mallory")), "challenge_unknown", "whom no policy lets answer");
    let other = keycloak.realm("other", &["carol"]);
    assert_eq!(refused(&other.token("carol")), "invalid_token", "an issuer that is not configured");
    let (head, signature) = carol.rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    assert_eq!(refused(&format!("{head}.{turned}")), "invalid_token", "a signature that does not hold");

    desk.put(&challenge("alice", Some("gold")));
    let (status, header, _) = desk.approve(&carol);
    assert_eq!(status, 401);
    assert!(
        header.contains("insufficient_user_authentication") && header.ends_with("acr_values=\"gold\""),
        "{header}"
    );

    desk.put(&challenge("alice", None));
    realm.rotate();
    let rotated = realm.token("carol");
    let kid = |token: &str| token.split('.').next().map(str::to_owned);
    assert_ne!(kid(&rotated), kid(&carol), "Keycloak signs with another key");
    // A look for an unknown key is made at once, but not right after another.
    let deadline = Instant::now() + Duration::from_secs(30);
    while desk.approve(&rotated).0 != 202 {
        assert!(Instant::now() < deadline, "the new key was never looked for");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(desk.approve(&carol).0, 202, "the old key is still the issuer's");
}
