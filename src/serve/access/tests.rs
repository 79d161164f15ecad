//! A running server over a desk that the test answers for: the standard's shapes, errors and semantics, and that nothing
//! leaves before its audit record is committed.

use std::collections::HashMap;
use std::sync::Mutex;

use arc_swap::ArcSwap;
use reqwest::blocking::{Client, Response as Got};
use serde_json::Value;

use super::*;
use crate::authorize::access::tests::{Tokened, World, about_itself};
use crate::authorize::audit::AuditRecord;
use crate::authorize::limits::MAX_BODY_BYTES;
use crate::authorize::testing::{NOW_S, PAYER};
use crate::stream::desk::{DeskError, testing};
use crate::stream::freshness::Freshness;
use crate::telemetry::Settings;
use crate::wire::outgoing::Codecs;

const URL: &str = "https://gate.example.org";

struct Gate {
    server: Server,
    audits: Arc<Mutex<Vec<AuditRecord>>>,
    http: Client,
    telemetry: Telemetry,
}

impl Gate {
    fn new() -> Self {
        Self::with(|| Ok(()))
    }

    /// One whose desk answers so.
    fn with(answer: impl Fn() -> Result<(), DeskError> + Send + 'static) -> Self {
        Self::with_view(answer, Freshness::default())
    }

    /// The same, with that view of the control topics.
    fn with_view(answer: impl Fn() -> Result<(), DeskError> + Send + 'static, freshness: Freshness) -> Self {
        let World { engine, route, snapshot, .. } = World::new();
        let audits: Arc<Mutex<Vec<AuditRecord>>> = Arc::default();
        let kept = Arc::clone(&audits);
        let desk = testing::desk(move |records| {
            answer()?;
            kept.lock().unwrap().extend(records);
            Ok(())
        });
        let telemetry = Telemetry::start(Settings::default()).unwrap();
        let work = Gatework {
            engine: Arc::new(engine),
            routes: Arc::new(HashMap::new()),
            codecs: Arc::new(Codecs::new().unwrap()),
            snapshots: Arc::new(ArcSwap::from_pointee(snapshot)),
            freshness,
            telemetry: telemetry.clone(),
        };
        let proofs = Proofs::new(&route);
        let now = || UnixMillis(NOW_S * 1000);
        let service = Service { work, route: Arc::new(route), desk, url: OnceLock::new(), proofs, now };
        let server = serve(([127, 0, 0, 1], 0).into(), Some(URL.to_owned()), None, service).unwrap();
        Self {
            server,
            audits,
            http: Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap(),
            telemetry,
        }
    }

    fn address(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    /// A request with these tokens as they are.
    fn send(&self, path: &str, tokens: &Tokened, body: impl Into<reqwest::blocking::Body>) -> Got {
        self.request(path, tokens).body(body).send().unwrap()
    }

    fn request(&self, path: &str, tokens: &Tokened) -> reqwest::blocking::RequestBuilder {
        let mut request = self.http.post(self.address(path)).header("Content-Type", "application/json");
        request = request.header("Workload-Identity-Token", &tokens.wit);
        request = request.header("Workload-Proof-Token", &tokens.wpt);
        match &tokens.txn {
            Some(txn) => request.header("Txn-Token", txn),
            None => request,
        }
    }

    /// A good request with a proof of its own.
    fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        let got = self.send(path, &tokens(path), body.to_string());
        let status = got.status().as_u16();
        let text = got.text().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn audited(&self) -> Vec<String> {
        self.audits.lock().unwrap().iter().map(|audit| audit.outcome.to_string()).collect()
    }
}

/// An enforcement point that acts for nobody.
fn tokens(path: &str) -> Tokened {
    Tokened::with(false, false, false, |claims| {
        claims["aud"] = format!("{URL}{path}").into();
        claims["jti"] = Uuid::now_v7().to_string().into();
    })
}

fn about(subject: &str, action: &str, status: &str) -> Value {
    json!({
        "subject": {"type": "User", "id": subject}, "action": {"name": action},
        "resource": {"type": "Record", "id": "record-1", "properties": {"status": status}}
    })
}

#[test]
fn one_evaluation_is_answered_and_audited() {
    let gate = Gate::new();
    let (status, reply) = gate.ask(EVALUATION, &about("alice", "write", "active"));
    assert_eq!((status, &reply["decision"]), (200, &json!(true)));
    let (status, reply) = gate.ask(EVALUATION, &about("bob", "write", "active"));
    assert_eq!((status, &reply["decision"]), (200, &json!(false)));
    assert_eq!(reply["context"]["reason"], "not_permitted");
    assert_eq!(reply["context"]["reason_user"]["en"], "This is not allowed.");
    let audits = gate.audits.lock().unwrap();
    assert_eq!(audits.len(), 2);
    assert_eq!(reply["context"]["decision_id"], json!(audits[1].decision_id));
    assert_eq!(audits[1].sender.as_deref(), Some(PAYER));
}

#[test]
fn a_list_follows_its_semantic() {
    let gate = Gate::new();
    let list = |semantic: &str| {
        let mut body = about("alice", "read", "active");
        body["options"] = json!({"evaluations_semantic": semantic});
        let archived = json!({"type": "Record", "id": "r", "properties": {"status": "archived"}});
        body["evaluations"] = json!([
            {"action": {"name": "write"}, "resource": archived}, {}, {"resource": {"type": "Record"}}, {"action": {"name": "write"}}
        ]);
        body
    };
    let decisions = |semantic: &str| {
        let (status, reply) = gate.ask(EVALUATIONS, &list(semantic));
        assert_eq!(status, 200, "{reply}");
        let found = reply["evaluations"].as_array().unwrap().clone();
        found.iter().map(|one| one["decision"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(decisions("execute_all"), [false, true, false, true]);
    assert_eq!(decisions("deny_on_first_deny"), [false]);
    assert_eq!(decisions("permit_on_first_permit"), [false, true]);
    // What was not looked at has no audit record.
    assert_eq!(gate.audited().len(), 4 + 1 + 2);
    let (_, reply) = gate.ask(EVALUATIONS, &list("execute_all"));
    assert_eq!(reply["evaluations"][2]["context"]["error"]["status"], 400);
    // Without a list it is one evaluation, and answered as one.
    let (status, reply) = gate.ask(EVALUATIONS, &about("alice", "read", "active"));
    assert_eq!((status, &reply["decision"]), (200, &json!(true)));
}

#[test]
fn a_request_id_comes_back_is_audited_and_is_bounded() {
    let gate = Gate::new();
    let body = about_itself("read", ("Record", "record-1")).to_string();
    let id = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716";
    let got = gate.request(EVALUATION, &tokens(EVALUATION)).header("X-Request-ID", id).body(body.clone());
    let got = got.send().unwrap();
    assert_eq!((got.status().as_u16(), &got.headers()["x-request-id"]), (200, &id.parse().unwrap()));
    assert_eq!(gate.audits.lock().unwrap()[0].request_id.as_deref(), Some(id));
    // With an error as well.
    let nobody = gate.http.post(gate.address(EVALUATION)).header("Content-Type", "application/json");
    let got = nobody.header("X-Request-ID", id).body(body.clone()).send().unwrap();
    assert_eq!((got.status().as_u16(), &got.headers()["x-request-id"]), (401, &id.parse().unwrap()));
    for bad in ["", &"x".repeat(129), "caf\u{e9}"] {
        let value = axum::http::HeaderValue::from_bytes(bad.as_bytes()).unwrap();
        let request = gate.request(EVALUATION, &tokens(EVALUATION)).header("X-Request-ID", value);
        let got = request.body(body.clone()).send().unwrap();
        assert_eq!(got.status().as_u16(), 400, "{bad}");
        assert!(!got.headers().contains_key("x-request-id"));
    }
}

#[test]
fn errors_are_the_standards_and_nothing_of_them_is_audited() {
    let gate = Gate::new();
    let body = about("alice", "read", "active").to_string();
    let status =
        |tokens: &Tokened, body: &str| gate.send(EVALUATION, tokens, body.to_owned()).status().as_u16();
    // Form.
    assert_eq!(status(&tokens(EVALUATION), "{"), 400);
    assert_eq!(status(&tokens(EVALUATION), "{\"subject\":{},\"subject\":{}}"), 400);
    assert_eq!(status(&tokens(EVALUATION), "{\"action\":{\"name\":\"read\"}}"), 400);
    // Size and type. A client that is answered before it has sent all may see the connection end: no wire here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let read = |said: Option<usize>, bytes: usize| {
        let said = said.map(|said| (axum::http::header::CONTENT_LENGTH, said.to_string().parse().unwrap()));
        let headers = said.into_iter().collect();
        let body = axum::body::Body::from(vec![b' '; bytes]);
        runtime.block_on(incoming::read(&headers, body)).map_err(|refusal| refusal.status)
    };
    let too_large = Err(axum::http::StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(read(None, MAX_BODY_BYTES).map(|body| body.len()), Ok(MAX_BODY_BYTES));
    assert_eq!(read(None, MAX_BODY_BYTES + 1), too_large);
    assert_eq!(read(Some(MAX_BODY_BYTES + 1), 0), too_large, "refused unread");
    let text = gate.request(EVALUATION, &tokens(EVALUATION)).header("Content-Type", "text/plain");
    assert_eq!(text.body(body.clone()).send().unwrap().status().as_u16(), 415);
    // Who it is.
    let proof = tokens(EVALUATION);
    assert_eq!(status(&proof, &body), 200);
    let again = gate.send(EVALUATION, &proof, body.clone());
    assert_eq!(again.status().as_u16(), 401);
    assert_eq!(again.headers()["www-authenticate"], "Workload-Proof-Token");
    assert!(again.text().unwrap().starts_with("replayed: "));
    assert_eq!(status(&tokens(EVALUATIONS), &body), 401, "a proof for another address");
    let twice = gate.request(EVALUATION, &tokens(EVALUATION)).header("workload-identity-TOKEN", "x");
    assert_eq!(twice.body(body.clone()).send().unwrap().status().as_u16(), 400);
    // Places.
    assert_eq!(gate.http.get(gate.address(EVALUATION)).send().unwrap().status().as_u16(), 405);
    assert_eq!(gate.http.get(gate.address("/access/v1/search")).send().unwrap().status().as_u16(), 404);
    assert_eq!(gate.audited(), ["allow"]);
    let metrics = gate.telemetry.render_metrics().unwrap();
    assert!(metrics.contains("reason=\"replayed\",status=\"401\""), "{metrics}");
    assert!(metrics.contains("countersign_evaluations_total{outcome=\"allow\",reason=\"none\""), "{metrics}");
}

#[test]
fn metadata_names_the_endpoints() {
    let gate = Gate::new();
    let got = gate.http.get(gate.address(METADATA)).send().unwrap();
    let metadata: Value = serde_json::from_str(&got.text().unwrap()).unwrap();
    assert_eq!(metadata["policy_decision_point"], URL);
    assert_eq!(metadata["access_evaluation_endpoint"], format!("{URL}{EVALUATION}"));
    assert_eq!(metadata["access_evaluations_endpoint"], format!("{URL}{EVALUATIONS}"));
}

#[test]
fn without_a_commit_there_is_no_answer() {
    for (error, status) in [(DeskError::Unavailable, 503), (DeskError::Busy, 503), (DeskError::TooLarge, 413)]
    {
        let gate = Gate::with(move || Err(error));
        let got = gate.send(EVALUATION, &tokens(EVALUATION), about("alice", "read", "active").to_string());
        assert_eq!(got.status().as_u16(), status);
        assert_eq!(got.headers().contains_key("retry-after"), status == 503);
        assert!(!got.text().unwrap().contains("decision"));
        let metrics = gate.telemetry.render_metrics().unwrap();
        assert!(!metrics.contains("countersign_evaluations_total{"), "shown and not committed: {metrics}");
    }
}

#[test]
fn nothing_is_decided_by_a_view_that_is_too_old() {
    let stale = Freshness::within(std::time::Duration::from_secs(1));
    let gate = Gate::with_view(|| Ok(()), stale);
    let got = gate.send(EVALUATION, &tokens(EVALUATION), about("alice", "read", "active").to_string());
    assert_eq!(got.status().as_u16(), 503);
    assert!(!got.text().unwrap().contains("decision"));
    assert!(gate.audited().is_empty());
}
