//! The interface over real HTTP, with an issuer whose keys are in a file and a log that keeps what is written.

use std::sync::Mutex;

use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::authorize::ids::{Coordinates, Offset, Partition, Realm, Topic, WorkloadId};
use crate::authorize::jose::{Algorithm, Jws, KeySet, KeyUse, SigningKey, TokenKind};
use crate::authorize::login::OidcIssuer;
use crate::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use crate::authorize::route::{Gate, Holding, Order, Route};
use crate::authorize::standing::Standing;
use crate::authorize::step_up::Status;
use crate::authorize::trust::Trust;
use crate::config::{OidcKeys, OidcSettings};
use crate::control::answers::{AnswerLost, Writing};
use crate::control::challenges::tests::challenge;
use crate::wire::challenge::ChallengeCodec;

const ISS: &str = "https://login.example.com/realms/main";
const NOW: UnixMillis = UnixMillis(1_893_456_000_000);

/// What was written: topic, partition, challenge and answer.
#[derive(Default)]
struct Written(Mutex<Vec<(String, i32, String, String)>>);

impl AnswerLog for Written {
    fn write<'a>(
        &'a self,
        topic: &'a Topic,
        partition: Partition,
        challenge: &'a str,
        answer: &'a str,
    ) -> Writing<'a> {
        Box::pin(async move {
            let mut written = self.0.lock().unwrap();
            if written.len() == 3 {
                return Err(AnswerLost("the third and last".into()));
            }
            written.push((topic.to_string(), partition.0, challenge.to_owned(), answer.to_owned()));
            let offset = Offset(i64::try_from(written.len()).unwrap());
            Ok(Coordinates { topic: topic.clone(), partition, offset })
        })
    }
}

/// The interface, served.
pub(crate) struct Desk {
    server: Server,
    client: Client,
    written: Arc<Written>,
    challenges: Challenges,
    idp: SigningKey,
    _folder: tempfile::TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let idp = SigningKey::from_seed(Algorithm::Es256, &[1; 32], Some("k")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("login.jwks");
        std::fs::write(&file, json!({"keys": [idp.public_jwk()]}).to_string()).unwrap();
        let (written, challenges) = (Arc::new(Written::default()), Challenges::new().unwrap());
        let telemetry = Telemetry::start(crate::telemetry::Settings::default()).unwrap();
        let settings = OidcSettings { rules: rules(), keys: OidcKeys::File(file) };
        let gate = Gate {
            id: WorkloadId::parse("spiffe://example.org/gate").unwrap(),
            realm: Realm::parse("test").unwrap(),
            key: SigningKey::from_seed(Algorithm::EdDsa, &[2; 32], Some("g")).unwrap(),
        };
        let approvals = Approvals {
            engine: Arc::new(Engine::new(gate, 10)),
            places: AnswerTopics::of([&route()], Some(Topic::parse("access.answers").unwrap())),
            snapshots: Arc::new(ArcSwap::from_pointee(snapshot())),
            issuers: OidcIssuers::start(&[settings], &telemetry, || NOW).unwrap(),
            challenges: challenges.clone(),
            answers: Arc::clone(&written) as Arc<dyn AnswerLog>,
            answers_a_minute: 5,
            clock: || NOW,
            telemetry,
        };
        let server = start("127.0.0.1:0".parse().unwrap(), None, approvals).unwrap();
        Self { server, client: Client::new(), written, challenges, idp, _folder: folder }
    }

    /// Lets a challenge stand so.
    pub(crate) fn put(&self, number: u32, status: Status, change: impl FnOnce(&mut Challenge)) -> String {
        let mut challenge = challenge(number, status, NOW.0);
        change(&mut challenge);
        let bytes = ChallengeCodec::new().unwrap().encode(&challenge).unwrap();
        self.challenges.take(&challenge.id, Some(&bytes)).unwrap();
        challenge.id
    }

    /// A token of the issuer, with more claims.
    pub(crate) fn token(&self, sub: &str, more: Value) -> String {
        let mut claims = json!({
            "iss": ISS, "sub": sub, "aud": "countersign",
            "iat": NOW.whole_seconds(), "exp": NOW.whole_seconds() + 300,
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.idp.sign_typ("at+jwt", &claims).unwrap()
    }

    /// A token with the right `kid` by a key that is not the issuer's.
    fn written_by_a_stranger(&self) -> String {
        let stranger = SigningKey::from_seed(Algorithm::Es256, &[9; 32], Some("k")).unwrap();
        let claims = json!({
            "iss": ISS, "sub": "carol", "aud": "countersign",
            "iat": NOW.whole_seconds(), "exp": NOW.whole_seconds() + 300,
        });
        stranger.sign_typ("JWT", &claims).unwrap()
    }

    /// An address of the interface.
    pub(crate) fn to(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    fn get(&self, path: &str, token: &str) -> Got {
        Got::of(self.client.get(self.to(path)).bearer_auth(token))
    }

    fn post(&self, path: &str, token: &str, body: &Value) -> Got {
        Got::of(self.answer(path, token).body(body.to_string()))
    }

    fn answer(&self, path: &str, token: &str) -> RequestBuilder {
        let request = self.client.post(self.to(&format!("/challenges/{path}"))).bearer_auth(token);
        request.header("content-type", "application/json")
    }
}

struct Got {
    status: u16,
    authenticate: String,
    request_id: String,
    body: Value,
}

impl Got {
    fn of(request: RequestBuilder) -> Self {
        let response = request.send().unwrap();
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        assert_eq!(header("cache-control"), if response.status() == 405 { "" } else { "no-store" });
        let (status, authenticate, request_id) =
            (response.status().as_u16(), header("www-authenticate"), header("x-request-id"));
        let body = serde_json::from_str(&response.text().unwrap()).unwrap_or_default();
        Self { status, authenticate, request_id, body }
    }

    fn error(&self) -> (u16, &str) {
        (self.status, self.body["error"].as_str().unwrap_or_default())
    }
}

fn rules() -> OidcIssuer {
    OidcIssuer {
        iss: ISS.into(),
        audience: "countersign".into(),
        entity_type: "User".into(),
        claim: "sub".into(),
        algorithms: vec![Algorithm::Es256],
        scope: None,
        clients: Default::default(),
        skew_s: 30,
    }
}

/// Whoever is not `mallory` may answer; `dora` may only refuse.
fn snapshot() -> Snapshot {
    let file = |name: &str, text: &str| SourceFile { name: name.into(), text: text.into() };
    let schema = r#"
        entity Workload; entity User; entity Invoice; entity Challenge;
        action pay appliesTo { principal: [Workload], resource: [Invoice], context: {} };
        action answer appliesTo {
            principal: [User, Workload], resource: [Challenge], context: { answer: { decision: String } },
        };
    "#;
    let policies = r#"
        @id("all") permit (principal, action == Action::"answer", resource) unless { principal == User::"mallory" };
        @id("dora") forbid (principal == User::"dora", action == Action::"answer", resource)
        when { context.answer.decision == "approve" };
    "#;
    let offer = Offer { subject_type: Some("User".into()), ..Offer::default() };
    let policy =
        Bundle::load(vec![file("p.cedar", policies)], file("s.cedarschema", schema), &offer).unwrap();
    Snapshot {
        trust: Arc::new(Trust::new(Default::default())),
        entities: Arc::new(Entities::load(Vec::new(), &policy).unwrap()),
        policy: Arc::new(policy),
        standing: Standing::default(),
    }
}

fn route() -> Route {
    let topic = |name: &str| Topic::parse(name).unwrap();
    let mut route = Route::new(
        "payments",
        vec![topic("payments.commands")],
        topic("payments.authorized"),
        topic("payments.denied"),
        topic("payments.audit"),
    );
    let of = |name: &str| [(topic("payments.commands"), topic(name))].into();
    route.holding = Some(Holding {
        challenges: topic("payments.challenges"),
        holds: of("payments.commands.holds"),
        answers: of("payments.commands.answers"),
        hold_s: 1800,
        grant_s: 600,
        order: Order::None,
        max_waiting: 10,
    });
    route
}

#[test]
fn an_approvers_answer_becomes_a_grant_that_the_gate_signs_in_the_partition_that_the_challenge_names() {
    let desk = Desk::new();
    let id = desk.put(1, Status::Open, |_| {});
    let token =
        desk.token("carol", json!({"acr": "phr", "amr": ["hwk"], "auth_time": NOW.whole_seconds() - 9}));
    let body = json!({"decision": "approve", "comment": "as agreed", "digest": "AAAA"});
    let got = desk.post(&format!("{id}/answer"), &token, &body);
    assert_eq!(got.status, 202, "{}", got.body);
    let place = json!({"topic": "payments.commands.answers", "partition": 3, "offset": 1});
    assert_eq!((&got.body["written"], &got.body["challenge"]), (&place, &json!(id)));
    assert_eq!(got.body.get("state"), None);

    let written = desk.written.0.lock().unwrap();
    let (topic, partition, key, grant) = &written[0];
    assert_eq!((topic.as_str(), *partition, key), ("payments.commands.answers", 3, &id));
    let gate = SigningKey::from_seed(Algorithm::EdDsa, &[2; 32], Some("g")).unwrap();
    let jws = Jws::parse(grant.as_bytes(), TokenKind::StepUpGrant).unwrap();
    let keys = json!({"keys": [gate.public_jwk()]}).to_string();
    let keys = KeySet::from_jwks(&keys, KeyUse::Any).unwrap();
    let public = keys.select(jws.kid(), Algorithm::EdDsa).unwrap();
    assert!(public.verify(Algorithm::EdDsa, jws.signing_input(), jws.signature()));
    let claims: Value = serde_json::from_slice(jws.payload()).unwrap();
    assert_eq!(
        claims,
        json!({
            "iss": "spiffe://example.org/gate", "sub": "carol", "sub_type": "User",
            "sub_id": {"format": "iss_sub", "iss": ISS, "sub": "carol"}, "aud": "test",
            "iat": NOW.whole_seconds(), "exp": NOW.whole_seconds() + 600, "jti": got.body["answer"],
            "challenge": id, "digest": "AAAA", "decision": "approve", "comment": "as agreed",
            "acr": "phr", "amr": ["hwk"], "auth_time": NOW.whole_seconds() - 9,
        })
    );
}

#[test]
fn what_is_no_login_is_answered_as_rfc_6750_says() {
    let desk = Desk::new();
    let none = Got::of(desk.client.get(desk.to("/challenges")));
    assert_eq!((none.error(), none.authenticate.as_str()), ((401, "unauthorized"), "Bearer"));
    let expired = desk.token("carol", json!({"exp": NOW.whole_seconds() - 31}));
    let elsewhere = desk.token("carol", json!({"aud": "other"}));
    let stranger = desk.token("carol", json!({"iss": "https://evil.example"}));
    for token in ["x", &expired, &elsewhere, &stranger, &desk.written_by_a_stranger()] {
        let got = desk.get("/challenges", token);
        assert_eq!(got.error(), (401, "invalid_token"));
        assert!(
            got.authenticate.starts_with("Bearer error=\"invalid_token\", error_description=\"the token")
        );
        assert!(!got.body.to_string().contains(token) || token == "x");
    }
    let twice = desk.client.get(desk.to("/challenges")).header("authorization", "Bearer a");
    assert_eq!(Got::of(twice.header("authorization", "Bearer b")).error(), (400, "invalid_request"));
}

#[test]
fn a_challenge_that_asks_for_a_stronger_login_says_which() {
    let desk = Desk::new();
    let id = desk.put(1, Status::Open, |challenge| {
        challenge.step_ups[0].acr_values = Some("phr phrh".into());
        challenge.step_ups[0].max_age_s = Some(300);
    });
    let path = format!("{id}/answer");
    for weak in [
        json!({}),
        json!({"acr": "1", "auth_time": NOW.whole_seconds()}),
        json!({"acr": "phr", "auth_time": NOW.whole_seconds() - 301}),
    ] {
        let got = desk.post(&path, &desk.token("carol", weak), &json!({"decision": "approve"}));
        assert_eq!(got.error(), (401, "insufficient_user_authentication"));
        assert!(
            got.authenticate.contains("error=\"insufficient_user_authentication\""),
            "{}",
            got.authenticate
        );
        assert!(
            got.authenticate.ends_with(", acr_values=\"phr phrh\", max_age=\"300\""),
            "{}",
            got.authenticate
        );
    }
    assert!(desk.written.0.lock().unwrap().is_empty());
    let strong = json!({"acr": "phrh", "auth_time": NOW.whole_seconds() - 300});
    assert_eq!(desk.post(&path, &desk.token("carol", strong), &json!({"decision": "approve"})).status, 202);
    let refused = desk.post(&path, &desk.token("dora", json!({})), &json!({"decision": "refuse"}));
    assert_eq!(refused.status, 202, "who refuses need not log in again");

    // What asks for the subject's login asks for nobody else's.
    let id = desk.put(2, Status::Open, |challenge| {
        challenge.step_ups[0].acr_values = Some("phr".into());
        challenge.step_ups[0].approvals = 0;
    });
    let path = format!("{id}/answer");
    let weak = desk.token("carol", json!({"acr": "1"}));
    assert_eq!(desk.post(&path, &weak, &json!({"decision": "approve"})).status, 202);
}

#[test]
fn an_answer_that_could_not_count_is_not_written() {
    let desk = Desk::new();
    let open = desk.put(1, Status::Open, |_| {});
    let cases = [
        (
            desk.put(2, Status::Released, |_| {}),
            "carol",
            json!({"decision": "approve"}),
            (409, "challenge_ended"),
        ),
        (
            desk.put(3, Status::Open, |c| c.hold_until = NOW.0 - 1),
            "carol",
            json!({"decision": "approve"}),
            (409, "challenge_ended"),
        ),
        (open.clone(), "alice", json!({"decision": "approve"}), (403, "may_not_answer")),
        (open.clone(), "carol", json!({"decision": "approve", "digest": "BBBB"}), (409, "digest_mismatch")),
        (open.clone(), "carol", json!({"decision": "maybe"}), (400, "invalid_request")),
        (open.replace(":3:", ":4:"), "carol", json!({"decision": "approve"}), (404, "challenge_unknown")),
        (
            desk.put(4, Status::Open, |c| c.id = c.id.replace("payments.commands", "other.commands")),
            "dora",
            json!({"decision": "refuse"}),
            (409, "not_answerable"),
        ),
    ];
    for (number, (id, who, body, expected)) in cases.into_iter().enumerate() {
        // Each case by a login of its own: the pace of one is bounded.
        let token = desk.token(who, json!({}));
        let got = desk.post(&format!("{id}/answer"), &token, &body);
        assert_eq!(got.error(), expected, "case {number}: {}", got.body);
    }
    let token = desk.token("erin", json!({}));
    let large = json!({"decision": "approve", "comment": "x".repeat(20_000)});
    assert_eq!(desk.post(&format!("{open}/answer"), &token, &large).error(), (413, "invalid_request"));
    let untyped = desk.client.post(desk.to(&format!("/challenges/{open}/answer"))).bearer_auth(&token);
    assert_eq!(Got::of(untyped.body("{}")).error(), (415, "invalid_request"));
    assert!(desk.written.0.lock().unwrap().is_empty());
}

#[test]
fn what_was_asked_over_http_is_answered_where_the_desk_reads() {
    let desk = Desk::new();
    let (of, by) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let id = desk.put(1, Status::Open, |c| {
        c.id = format!("http:{of}:2:{by}");
        (c.topic, c.partition, c.offset) = (String::new(), 2, -1);
    });
    // What a killed gate has left open is listed no more once its time is over.
    desk.put(2, Status::Open, |c| {
        c.id = format!("http:{of}:2:{}", Uuid::from_u128(9));
        (c.topic, c.hold_until) = (String::new(), NOW.0 - 1);
    });
    let token = desk.token("carol", json!({}));
    let listed = Got::of(desk.client.get(desk.to("/challenges")).bearer_auth(&token));
    let ids: Vec<_> = listed.body["challenges"].as_array().unwrap().iter().map(|c| c["id"].clone()).collect();
    assert_eq!(ids, [json!(id)]);
    let got = desk.post(&format!("{id}/answer"), &token, &json!({"decision": "approve"}));
    assert_eq!(got.status, 202, "{}", got.body);
    assert_eq!(got.body["written"]["topic"], "access.answers");
    let written = desk.written.0.lock().unwrap();
    let (topic, partition, challenge, _) = &written[0];
    assert_eq!((topic.as_str(), *partition, challenge.as_str()), ("access.answers", 2, id.as_str()));
}

#[test]
fn an_approver_has_a_pace_and_a_lost_answer_is_told() {
    let desk = Desk::new();
    let id = desk.put(1, Status::Open, |_| {});
    let token = desk.token("carol", json!({}));
    let answer = || desk.post(&format!("{id}/answer"), &token, &json!({"decision": "approve"}));
    let statuses: Vec<u16> = (0..6).map(|_| answer().status).collect();
    // The broker of this test confirms three.
    assert_eq!(statuses, [202, 202, 202, 503, 503, 429]);
    assert_eq!(answer().error(), (429, "too_many_answers"));
}

#[test]
fn challenges_are_listed_by_pages_and_shown_with_all_that_an_answer_needs() {
    let desk = Desk::new();
    let ids: Vec<String> = (1..=5).map(|n| desk.put(n, Status::Open, |_| {})).collect();
    let ended = desk.put(6, Status::Refused, |_| {});
    let token = desk.token("carol", json!({}));
    let listed = |path: &str| {
        let got = desk.get(path, &token);
        assert_eq!(got.status, 200, "{}", got.body);
        let shown = got.body["challenges"].as_array().unwrap();
        let ids: Vec<String> = shown.iter().map(|c| c["id"].as_str().unwrap().to_owned()).collect();
        (ids, got.body["next"].as_str().map(str::to_owned))
    };
    assert_eq!(listed("/challenges"), (ids.clone(), None));
    let (first, next) = listed("/challenges?limit=3");
    let (second, end) = listed(&format!("/challenges?limit=3&after={}", next.unwrap()));
    assert_eq!((first, second, end), (ids[..3].to_vec(), ids[3..].to_vec(), None));
    assert_eq!(listed("/challenges?status=refused").0, std::slice::from_ref(&ended));
    assert_eq!(listed("/challenges?status=all").0.len(), 6);
    assert_eq!(listed("/challenges?route=other").0.len(), 0);
    let shown = desk.get(&format!("/challenges/{ended}"), &token).body;
    assert_eq!(
        (&shown["digest"], &shown["step_ups"][0]["message"]),
        (&json!("AAAA"), &json!("Pay 12,000 EUR for inv-7?"))
    );
    assert_eq!(desk.get("/challenges?limit=0", &token).error(), (400, "invalid_request"));
    assert_eq!(desk.get("/challenges/x", &token).error(), (404, "challenge_unknown"));
    let mallory = desk.token("mallory", json!({}));
    assert_eq!(
        desk.get("/challenges?status=all", &mallory).body,
        json!({"challenges": []}),
        "who could not answer"
    );
    assert_eq!(desk.get(&format!("/challenges/{ended}"), &mallory).error(), (404, "challenge_unknown"));
    assert_eq!(desk.get(&format!("/challenges/{ended}"), &desk.token("dora", json!({}))).status, 200);
    assert_eq!(
        desk.get(&format!("/challenges/{ended}"), &desk.token("alice", json!({}))).status,
        200,
        "a party"
    );
    let with_id = desk.client.get(desk.to("/challenges")).bearer_auth(&token).header("x-request-id", "r 1");
    assert_eq!(Got::of(with_id).request_id, "r 1");
}

#[test]
fn who_waits_hears_what_became_of_the_answer() {
    let desk = Desk::new();
    let id = desk.put(1, Status::Open, |_| {});
    let token = desk.token("carol", json!({}));
    let path = format!("{id}/answer?wait=20s");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| desk.post(&path, &token, &json!({"decision": "approve"})));
        while desk.written.0.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        desk.put(2, Status::Open, |_| {});
        desk.put(1, Status::Released, |_| {});
        let got = waiting.join().unwrap();
        assert_eq!((got.status, &got.body["state"]["status"]), (202, &json!("released")));
    });
    let got = desk.get(&format!("/challenges/{id}?wait=20s"), &token);
    assert_eq!(got.body["status"], "released", "an ended one is not waited for");
    let unchanged =
        desk.get("/challenges/payments.commands:3:0190a6c0-0000-7000-8000-000000000002?wait=10ms", &token);
    assert_eq!((unchanged.status, &unchanged.body["status"]), (200, &json!("open")));
}
