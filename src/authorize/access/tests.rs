//! Callers with real tokens ask a small bundle: the standard's certification cases, who may ask about whom, and each way in
//! which a proof can fail.

mod login;

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::authorize::engine::Snapshot;
use crate::authorize::ids::{DecisionId, Realm};
use crate::authorize::jose::{TokenKind, token_hash};
use crate::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use crate::authorize::route::{Gate, Party};
use crate::authorize::standing::Standing;
use crate::authorize::testing::{
    NOW_S, PAYER, countersigned_claims, domain, grant_claims, identity_claims, key, route,
    transaction_claims, trust_with,
};
use crate::authorize::trust::Trust;

pub(crate) const URL: &str = "http://127.0.0.1:8081/access/v1/evaluation";
const SCHEMA: &str = r#"
    entity Workload;
    entity User = { role: String };
    entity Record;
    entity Invoice;
    action read, write, delete appliesTo { principal: [User, Workload], resource: [Record, Invoice], context: {
        now: datetime, sender: Workload,
        request: { action?: { soft: Bool }, resource?: { status: String } },
        workflow?: { id: String, step: String },
        provenance: { gated: Bool, depth: Long },
    } };
    action replay appliesTo { principal: [User, Workload], resource: [Record], context: {
        message: { topic: String },
    } };
    action evaluate appliesTo { principal: [Workload], resource: [User, Workload], context: { now: datetime } };
"#;
const POLICIES: &str = r#"
    @id("readers") permit (principal is User, action == Action::"read", resource);
    @id("alice-writes") permit (principal == User::"alice", action == Action::"write", resource)
        unless { context.request has resource && context.request.resource.status == "archived" };
    @id("admins-write-what-is-archived") permit (principal is User, action == Action::"write", resource)
        when { principal.role == "admin" && context.request has resource && context.request.resource.status == "archived" };
    @id("alice-deletes-softly") permit (principal == User::"alice", action == Action::"delete", resource)
        when { context.request has action && context.request.action.soft };
    @id("payer-reads") permit (principal is Workload, action in [Action::"read", Action::"replay"], resource);
    @id("ask-first") @step_up("manager") @approvals("2") @message("May it?")
        forbid (principal is Workload, action == Action::"read", resource == Invoice::"secret");
    @id("frozen") @reason("it is frozen") forbid (principal, action, resource == Invoice::"frozen");
    @id("payer-asks-about-users") permit (principal == Workload::"spiffe://example.org/agent/payer",
        action == Action::"evaluate", resource is User);
"#;
const ENTITIES: &str = r#"[
    {"uid": {"type": "User", "id": "alice"}, "attrs": {"role": "user"}, "parents": []},
    {"uid": {"type": "User", "id": "bob"}, "attrs": {"role": "admin"}, "parents": []}
]"#;

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) route: Route,
    pub(crate) snapshot: Snapshot,
    seen: RefCell<HashSet<[u8; 16]>>,
}

/// The tokens of a request; a change of the WPT's claims before it is signed.
pub(crate) struct Tokened {
    pub(crate) wit: String,
    pub(crate) wpt: String,
    pub(crate) txn: Option<String>,
    pub(crate) chain: Option<String>,
    pub(crate) grant: Option<String>,
}

pub(crate) fn sign(kind: TokenKind, claims: &Value, by: &str) -> String {
    key(by).sign(kind, claims).unwrap()
}

impl Tokened {
    pub(crate) fn new(edit: impl FnOnce(&mut Value)) -> Self {
        Self::with(true, false, false, edit)
    }

    pub(crate) fn with(txn: bool, chain: bool, grant: bool, edit: impl FnOnce(&mut Value)) -> Self {
        let wit = sign(TokenKind::WorkloadIdentity, &identity_claims(), "issuer");
        let hash = |token: &str| Value::from(token_hash(token.as_bytes()).to_string());
        let mut claims = json!({"aud": URL, "exp": NOW_S + 60, "jti": "j-1", "wth": hash(&wit)});
        let txn = txn.then(|| sign(TokenKind::Transaction, &transaction_claims(), "tts"));
        if let Some(txn) = &txn {
            claims["tth"] = hash(txn);
        }
        let chain = chain.then(|| {
            let mut claims = countersigned_claims();
            if let Some(txn) = &txn {
                claims["txn"] = "txn-1".into();
                claims["tth"] = hash(txn);
            }
            sign(TokenKind::Countersignature, &claims, "gate")
        });
        if let Some(chain) = &chain {
            claims["oth"]["countersignature"] = hash(chain);
        }
        let grant = grant.then(|| sign(TokenKind::StepUpGrant, &grant_claims(), "approver"));
        if let Some(grant) = &grant {
            claims["oth"]["step-up-grant"] = hash(grant);
        }
        edit(&mut claims);
        let wpt = sign(TokenKind::WorkloadProof, &claims, "workload");
        Self { wit, wpt, txn, chain, grant }
    }

    fn tokens(&self) -> Tokens<'_> {
        let mut tokens = Tokens::default();
        let all = [
            (TokenKind::WorkloadIdentity, Some(&self.wit)),
            (TokenKind::WorkloadProof, Some(&self.wpt)),
            (TokenKind::Transaction, self.txn.as_ref()),
            (TokenKind::Countersignature, self.chain.as_ref()),
            (TokenKind::StepUpGrant, self.grant.as_ref()),
        ];
        for (kind, token) in all {
            if let Some(token) = token {
                tokens.add(kind, token.as_bytes()).unwrap();
            }
        }
        tokens
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(route())
    }

    pub(crate) fn on(route: Route) -> Self {
        Self::of(route, POLICIES, SCHEMA, ENTITIES, trust_with(domain()))
    }

    pub(crate) fn of(route: Route, policies: &str, schema: &str, entities: &str, trust: Trust) -> Self {
        let file = |name: &str, text: &str| SourceFile { name: name.into(), text: text.into() };
        let offer = Offer { subject_type: Some("User".into()), ..Offer::default() };
        let bundle =
            Bundle::load(vec![file("p.cedar", policies)], file("schema.cedarschema", schema), &offer);
        let bundle = bundle.unwrap_or_else(|errors| panic!("{:?}", errors.problems()));
        let entities = Entities::load(vec![file("entities.json", entities)], &bundle);
        let entities = entities.unwrap_or_else(|errors| panic!("{:?}", errors.problems()));
        let gate = Gate {
            id: WorkloadId::parse("spiffe://example.org/gate/payments").unwrap(),
            realm: Realm::parse("test").unwrap(),
            key: key("gate"),
        };
        Self {
            engine: Engine::new(gate, 100),
            route,
            snapshot: Snapshot {
                trust: Arc::new(trust),
                policy: Arc::new(bundle),
                entities: Arc::new(entities),
                standing: Standing::default(),
            },
            seen: RefCell::default(),
        }
    }

    pub(crate) fn caller(&self, tokens: &Tokened) -> Result<Caller, Denial> {
        let at = (&self.snapshot, UnixMillis(NOW_S * 1000));
        Caller::verify(&self.engine, &self.route, at, &tokens.tokens(), URL, |entry| {
            self.seen.borrow_mut().insert(entry.proof)
        })
    }

    fn reason(&self, tokens: &Tokened) -> Option<Reason> {
        self.caller(tokens).err().map(|denial| denial.reason)
    }

    fn ask(&self, caller: &Caller, body: &Value) -> Evaluated {
        let Ok(Asked::One(one)) = Asked::read_one(body.to_string().as_bytes()) else { panic!("{body}") };
        let moment = Moment {
            now: UnixMillis(NOW_S * 1000),
            id: DecisionId(Uuid::from_u128(7)),
            snapshot: &self.snapshot,
            source_partitions: 1,
        };
        evaluate(&self.engine, &self.route, caller, &one, &moment)
    }

    fn asked(&self, body: &Value) -> Evaluated {
        let caller = self.caller(&Tokened::new(|claims| {
            claims["jti"] = token_hash(body.to_string().as_bytes()).to_string().into()
        }));
        self.ask(&caller.unwrap(), body)
    }
}

pub(crate) fn body(subject: (&str, &str), action: Value, resource: Value) -> Value {
    json!({"subject": {"type": subject.0, "id": subject.1}, "action": action, "resource": resource})
}

pub(crate) fn about_itself(action: &str, resource: (&str, &str)) -> Value {
    body(("Workload", PAYER), json!({"name": action}), json!({"type": resource.0, "id": resource.1}))
}

#[test]
fn the_certification_scenario_gets_its_eight_decisions() {
    let world = World::new();
    // An enforcement point that acts for nobody asks about users.
    let caller = world.caller(&Tokened::with(false, false, false, |_| ())).unwrap();
    let record =
        |id: &str, status: &str| json!({"type": "Record", "id": id, "properties": {"status": status}});
    let delete = |soft: bool| json!({"name": "delete", "properties": {"soft": soft}});
    for (subject, action, resource, expected) in [
        ("alice", json!({"name": "read"}), record("record-1", "active"), true),
        ("alice", json!({"name": "write"}), record("record-1", "active"), true),
        ("bob", json!({"name": "read"}), record("record-1", "active"), true),
        ("bob", json!({"name": "write"}), record("record-1", "active"), false),
        ("alice", json!({"name": "write"}), record("record-2", "archived"), false),
        ("bob", json!({"name": "write"}), record("record-2", "archived"), true),
        ("alice", delete(true), record("record-1", "active"), true),
        ("alice", delete(false), record("record-1", "active"), false),
    ] {
        let body = body(("User", subject), action, resource);
        // Asking changes nothing: the same again has the same answer.
        for _ in 0..2 {
            let evaluated = world.ask(&caller, &body);
            assert_eq!(evaluated.reply.decision, expected, "{body}");
            assert_eq!(evaluated.audit.outcome, if expected { "allow" } else { "deny" });
        }
    }
}

#[test]
fn a_caller_asks_about_itself_and_the_audit_says_what_was_verified() {
    let world = World::new();
    let mut caller = world.caller(&Tokened::new(|_| ())).unwrap();
    caller.request_id = Some("r-1".into());
    let mut asked = about_itself("read", ("Record", "record-1"));
    asked["context"] = json!({"workflow": {"id": "w", "type": "t", "step": "s", "state": "running"}});
    let Evaluated { denied, reply, audit, waiting: _ } = world.ask(&caller, &asked);
    assert_eq!((denied, reply.decision), (None, true));
    let id = Uuid::from_u128(7).to_string();
    assert_eq!(reply.context.unwrap().decision_id.as_deref(), Some(&*id));
    assert_eq!((audit.topic.as_str(), audit.partition, audit.offset), ("", -1, -1));
    assert_eq!(
        (audit.sender.as_deref(), audit.proven, audit.subject.as_deref()),
        (Some(PAYER), true, Some("alice"))
    );
    assert_eq!((audit.request_id.as_deref(), &*audit.decision_id), (Some("r-1"), &*id));
    assert_eq!(audit.policies, ["payer-reads"]);
    assert_eq!(audit.workflow.unwrap().step, "s");
    let headers: Vec<&str> = audit.token_hashes.iter().map(|hash| hash.header.as_str()).collect();
    assert_eq!(headers, ["workload-identity-token", "workload-proof-token", "txn-token"]);
    // Whom its transaction names is the caller too; the sender of the work must be allowed beside.
    let own =
        world.asked(&body(("User", "alice"), json!({"name": "write"}), json!({"type": "Record", "id": "r"})));
    assert_eq!(own.denied, Some(Reason::NotPermitted));
    assert!(own.audit.detail.unwrap().contains("Workload"), "the workload is asked about too");
    let by_subject = World::on(Route { principal: Party::Subject, ..route() });
    let own = by_subject.asked(&body(
        ("User", "alice"),
        json!({"name": "write"}),
        json!({"type": "Record", "id": "r"}),
    ));
    assert_eq!(own.denied, None);
}

#[test]
fn about_others_policy_decides_who_may_ask() {
    let world = World::new();
    let about = |subject| body(subject, json!({"name": "read"}), json!({"type": "Record", "id": "record-1"}));
    let bob = world.asked(&about(("User", "bob")));
    assert_eq!((bob.denied, bob.audit.detail.as_deref()), (None, Some("asked about User::\"bob\"")));
    let other = world.asked(&about(("Workload", "spiffe://example.org/agent/other")));
    assert_eq!(other.denied, Some(Reason::NotPermitted));
    assert!(
        other.reply.context.unwrap().reason_admin["en"].starts_with("the caller may not ask about others: ")
    );
    assert_eq!(world.asked(&about(("Nobody", "x"))).denied, Some(Reason::RequestInvalid));
    assert_eq!(world.asked(&about(("Record", "record-1"))).denied, Some(Reason::RequestInvalid));
}

#[test]
fn what_only_a_record_has_cannot_be_asked_for() {
    let denied = World::new().asked(&about_itself("replay", ("Record", "record-1")));
    assert_eq!(denied.denied, Some(Reason::RequestInvalid));
    let context = denied.reply.context.unwrap();
    assert_eq!(context.reason.as_deref(), Some("request_invalid"));
    assert_eq!(context.reason_admin["en"], "`message` is known of a record alone, and none is asked about");
}

#[test]
fn a_step_up_is_an_obligation_of_a_denial() {
    let world = World::new();
    let denied = world.asked(&about_itself("read", ("Invoice", "secret")));
    assert_eq!(denied.denied, Some(Reason::StepUpRequired));
    assert_eq!(denied.audit.step_ups, ["ask-first"]);
    let context = denied.reply.context.unwrap();
    let [obligation] = &context.obligations[..] else { panic!("{context:?}") };
    assert_eq!(obligation.kind, STEP_UP);
    let asked = AskedStepUp {
        name: "manager".into(),
        policy: "ask-first".into(),
        approvals: 2,
        message: Some("May it?".into()),
        acr_values: None,
        max_age: None,
    };
    assert_eq!(obligation.properties.step_ups, [asked]);
    assert_eq!(context.reason_user["en"], "This needs an approval first.");
    // A plain refusal asks for nothing.
    let frozen = world.asked(&about_itself("read", ("Invoice", "frozen")));
    assert_eq!(frozen.denied, Some(Reason::Forbidden));
    assert!(frozen.reply.context.unwrap().obligations.is_empty());
}

#[test]
fn work_that_is_carried_on_shows_where_it_comes_from() {
    let world = World::new();
    let caller = world.caller(&Tokened::with(true, true, false, |_| ())).unwrap();
    let evaluated = world.ask(&caller, &about_itself("read", ("Record", "record-1")));
    assert_eq!(evaluated.denied, None);
    assert_eq!(evaluated.audit.chain, ["spiffe://example.org/agent/reader"]);
    assert!(evaluated.audit.context.unwrap().contains("\"gated\":true"));
    // One that does not hold denies, with the caller known.
    let mut bad = Tokened::with(false, true, false, |_| ());
    let claims = json!({"aud": "elsewhere"});
    let chain = sign(TokenKind::Countersignature, &merged(countersigned_claims(), &claims), "gate");
    bad.chain = Some(chain.clone());
    bad.wpt = {
        let hash = |token: &str| Value::from(token_hash(token.as_bytes()).to_string());
        let claims = json!({"aud": URL, "exp": NOW_S + 60, "jti": "j-9", "wth": hash(&bad.wit),
            "oth": {"countersignature": hash(&chain)}});
        sign(TokenKind::WorkloadProof, &claims, "workload")
    };
    let caller = world.caller(&bad).unwrap();
    let denied = world.ask(&caller, &about_itself("read", ("Record", "record-1")));
    assert_eq!((denied.denied, denied.audit.sender.as_deref()), (Some(Reason::ChainInvalid), Some(PAYER)));
}

fn merged(mut into: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        into[name] = value.clone();
    }
    into
}

#[test]
fn a_proof_is_good_for_one_request_to_one_address() {
    let world = World::new();
    let good = Tokened::new(|_| ());
    assert_eq!(world.reason(&good), None);
    assert_eq!(world.reason(&good), Some(Reason::Replayed));
    for (name, value, reason) in [
        ("aud", json!("http://127.0.0.1:8081/access/v1/evaluations"), Reason::AudienceMismatch),
        ("aud", json!([URL, "http://127.0.0.1:9"]), Reason::AudienceMismatch),
        ("aud", json!("kafka://test/payments.commands"), Reason::AudienceMismatch),
        ("exp", json!(NOW_S - 31), Reason::TokenExpired),
        ("exp", json!(NOW_S + 301), Reason::ContextMalformed),
        ("iat", json!(NOW_S + 31), Reason::TokenNotYetValid),
        ("iat", json!(NOW_S - 300), Reason::ContextMalformed),
        ("nbf", json!(NOW_S + 31), Reason::TokenNotYetValid),
        ("jti", json!(""), Reason::ContextMalformed),
        ("wth", json!("AA"), Reason::ProofMismatch),
        ("tth", json!("AA"), Reason::ProofMismatch),
        ("tth", Value::Null, Reason::ContextMalformed),
        ("oth", json!({"step-up-grant": "AA"}), Reason::ProofMismatch),
        ("oth", json!({"authorization": "AA"}), Reason::ProofMismatch),
    ] {
        let changed = Tokened::new(|claims| {
            claims["jti"] = "j-2".into();
            if name == "iat" {
                claims["exp"] = json!(NOW_S + 40);
            }
            claims[name] = value.clone();
        });
        assert_eq!(world.reason(&changed), Some(reason), "{name} = {value}");
    }
    // What was refused was not remembered; `iat` is welcome.
    assert_eq!(world.reason(&Tokened::new(|claims| claims["jti"] = "j-2".into())), None);
    assert_eq!(
        world.reason(&Tokened::new(
            |claims| *claims = merged(claims.clone(), &json!({"jti": "j-3", "iat": NOW_S}))
        )),
        None
    );
}

#[test]
fn what_is_missing_twice_too_large_or_anothers_is_refused() {
    let world = World::on(Route { require_transaction: true, ..route() });
    assert_eq!(world.reason(&Tokened::with(false, false, false, |_| ())), Some(Reason::ContextMissing));
    let good = Tokened::new(|_| ());
    let mut tokens = good.tokens();
    assert_eq!(tokens.add(TokenKind::Transaction, b"x").unwrap_err().reason, Reason::ContextMalformed);
    let large = vec![b'a'; 8 * 1024 + 1];
    let denial = Tokens::default().add(TokenKind::Transaction, &large).unwrap_err();
    assert_eq!(denial.reason, Reason::ContextTooLarge);
    let mut anothers = Tokened::new(|_| ());
    anothers.wit = sign(TokenKind::WorkloadIdentity, &identity_claims(), "workload");
    assert_eq!(world.reason(&anothers), Some(Reason::IssuerUnknown));
    // Unproven senders are a matter of a topic's access control, and there is no topic here.
    let unproven = World::on(Route { unproven: Some(WorkloadId::parse(PAYER).unwrap()), ..route() });
    let at = (&unproven.snapshot, UnixMillis(NOW_S * 1000));
    let denial =
        Caller::verify(&unproven.engine, &unproven.route, at, &Tokens::default(), URL, |_| true).unwrap_err();
    assert_eq!(denial.reason, Reason::ContextMissing);
}

#[test]
fn a_bad_item_is_denied_with_its_fault_and_audited() {
    let world = World::new();
    let caller = world.caller(&Tokened::new(|_| ())).unwrap();
    let Ok(Asked::Many(items, _)) = Asked::read_many(br#"{"evaluations": [{}]}"#) else { panic!("many") };
    let moment = Moment {
        now: UnixMillis(NOW_S * 1000),
        id: DecisionId(Uuid::from_u128(8)),
        snapshot: &world.snapshot,
        source_partitions: 1,
    };
    let refused = refuse(&world.engine, &world.route, &caller, items[0].as_ref().unwrap_err(), &moment);
    let context = refused.reply.context.unwrap();
    assert_eq!(context.error.unwrap().status, 400);
    assert_eq!((refused.audit.outcome.as_str(), refused.audit.sender.as_deref()), ("deny", Some(PAYER)));
    assert_eq!(refused.audit.reason.as_deref(), Some("request_invalid"));
}
