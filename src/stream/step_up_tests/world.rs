//! One partition of a route that holds: the decider of a gate, and the topics as lists. Limits: one route, one partition.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::authorize::audit::AuditRecord;
use crate::authorize::engine::{Delivery, Engine, Snapshot};
use crate::authorize::ids::{Coordinates, Offset, Partition, Position, Realm, Topic, UnixMillis, WorkloadId};
use crate::authorize::jose::{Algorithm, TokenKind};
use crate::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use crate::authorize::record::{Header, Record, TimestampType};
use crate::authorize::replay::window_ms;
use crate::authorize::route::{Gate, Holding, Order, Route};
use crate::authorize::standing::{
    At, Authority, Effect, Followed, Kind, Registry, Revocation, Standing, Target,
};
use crate::authorize::state::PartitionState;
use crate::authorize::step_up::{Challenge, Turn};
use crate::authorize::testing::{self, ACCEPTED_S, NOW_S, Plan, key};
use crate::authorize::trust::{ApproverIssuer, Issuer, Others, Trust};
use crate::stream::decider::{DecideError, Decider, Due, Input, PartitionCounts, Remembered};
use crate::stream::deciding::{EngineDecider, Gatework};
use crate::telemetry::Telemetry;
use crate::wire::outgoing::{Codecs, Effects, Outgoing};

pub(super) const SOURCE: &str = "payments.commands";
pub(super) const HOLDS: &str = "payments.commands.holds";
pub(super) const ANSWERS: &str = "payments.commands.answers";
const CHALLENGES: &str = "payments.challenges";
pub(super) const PEOPLE: &str = "https://login.example.com";
pub(super) const ROBOTS: &str = "https://robots.example.com";

const SCHEMA: &str = r#"
    entity Workload; entity User; entity Invoice; entity Challenge;
    action pay appliesTo { principal: [Workload], resource: [Invoice], context: {
        now: datetime, subject?: User,
        transaction?: { scope: Set<String>, acr?: String, amr?: Set<String>, authenticated_at?: datetime },
    } };
    action answer appliesTo { principal: [User, Workload], resource: [Challenge], context: {
        sender: Workload, subject?: User,
        challenge: { route: String, step_ups: Set<String>, resource_id: String, hold_until?: datetime },
        answer: { decision: String, issuer: String, acr?: String },
    } };
"#;

/// `small` is allowed, `large` wants a manager, `huge` two officers, `odd` a manager and an officer; `secure` wants a strong
/// login, `double` that and a manager.
pub(super) const POLICIES: &str = r#"
    @id("all") permit (principal, action == Action::"pay", resource);
    @id("frozen") forbid (principal, action == Action::"pay", resource == Invoice::"frozen");
    @id("large") @step_up("manager") @hold("10m") @grant("5m") @message("Pay {resource.id} for {subject}?")
    forbid (principal, action == Action::"pay", resource) 
    when { [Invoice::"large", Invoice::"odd", Invoice::"double"].contains(resource) };
    @id("huge") @step_up("officer") @approvals("2")
    forbid (principal, action == Action::"pay", resource) 
    when { [Invoice::"huge", Invoice::"odd"].contains(resource) };
    @id("strong") @step_up("login") @acr("phr phrh") @max_age("5m") @hold("20m")
    forbid (principal, action == Action::"pay", resource)
    when { [Invoice::"secure", Invoice::"double"].contains(resource) }
    unless { context has transaction.acr && ["phr", "phrh"].contains(context.transaction.acr) &&
        context has transaction.authenticated_at &&
        context.now.durationSince(context.transaction.authenticated_at) <= duration("5m") };
    @id("answers") permit (principal, action == Action::"answer", resource)
    unless { principal == User::"mallory" };
"#;

/// What a transaction has done that is not yet committed.
struct Open {
    now: UnixMillis,
    effects: Vec<Effects>,
}

pub(super) struct World {
    decider: EngineDecider,
    snapshots: Arc<ArcSwap<Snapshot>>,
    pub(super) state: PartitionState,
    pub(super) route: Arc<Route>,
    codecs: Arc<Codecs>,
    pub(super) now: UnixMillis,
    /// Up to when answers have been read.
    pub(super) answered: UnixMillis,
    open: Option<Open>,
    /// The holds topic: what stands at each offset.
    pub(super) holds: Vec<Record>,
    answers: i64,
    pub(super) outcomes: Vec<Outgoing>,
    pub(super) audits: Vec<AuditRecord>,
    /// Every state of every challenge, in order.
    pub(super) told: Vec<Challenge>,
    jti: u32,
}

struct Counts;

impl PartitionCounts for Counts {
    fn of(&self, _topic: &Topic) -> i32 {
        1
    }
}

pub(super) fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

pub(super) fn holding(order: Order) -> Holding {
    Holding {
        challenges: topic(CHALLENGES),
        holds: BTreeMap::from([(topic(SOURCE), topic(HOLDS))]),
        answers: BTreeMap::from([(topic(SOURCE), topic(ANSWERS))]),
        hold_s: 1800,
        grant_s: 600,
        order,
        max_waiting: 2,
    }
}

fn snapshot(policies: &str) -> Snapshot {
    let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), text: text.to_owned() };
    let offer = Offer { subject_type: Some("User".to_owned()), ..Offer::default() };
    let bundle = Bundle::load(vec![file("p.cedar", policies)], file("s.cedarschema", SCHEMA), &offer);
    let policy = bundle.unwrap_or_else(|errors| panic!("{:?}", errors.problems()));
    let entities = Entities::load(Vec::new(), &policy).unwrap();
    let approvers = |entity_type: &str| ApproverIssuer {
        issuer: Issuer { algorithms: Algorithm::DEFAULT.to_vec(), keys: testing::keys(&["approver"]) },
        entity_type: entity_type.to_owned(),
    };
    let others = Others {
        approvers: BTreeMap::from([
            (PEOPLE.to_owned(), approvers("User")),
            (ROBOTS.to_owned(), approvers("Workload")),
        ]),
        ..Others::default()
    };
    let domain = crate::authorize::ids::TrustDomain::parse("example.org").unwrap();
    let trust = Trust::with(BTreeMap::from([(domain, testing::domain())]), others);
    Snapshot {
        trust: Arc::new(trust),
        policy: Arc::new(policy),
        entities: Arc::new(entities),
        standing: Standing::default(),
    }
}

fn standing(kind: Kind, id: &str) -> Standing {
    let mut registry = Registry::new(0);
    let revocation = Revocation {
        id: "r-1".into(),
        authority: Authority::Administrator,
        targets: [Target { kind, id: id.into() }].into(),
        effect: Effect::Revokes { not_before: None },
        issued_at: 0.0,
        expires_at: None,
        event: "revocation".into(),
        reason: None,
        transaction: None,
    };
    let at = At { partition: Partition(0), offset: Offset(0) };
    registry.apply_revocation(at, "r-1", Some(revocation), UnixMillis(0));
    let positions = [(Partition(0), Position(1))].into_iter().collect();
    registry.pin(Followed { workflows: None, revocations: Some(positions) })
}

impl World {
    pub(super) fn new(order: Order) -> Self {
        Self::on(Route { holding: Some(holding(order)), ..testing::route() })
    }

    pub(super) fn on(route: Route) -> Self {
        Self::shown(route, Telemetry::off())
    }

    /// The same, whose decisions are shown there.
    pub(super) fn shown(route: Route, telemetry: Telemetry) -> Self {
        let (route, codecs) = (Arc::new(route), Arc::new(Codecs::new().unwrap()));
        let snapshots = Arc::new(ArcSwap::from_pointee(snapshot(POLICIES)));
        let gate = Gate {
            id: WorkloadId::parse("spiffe://example.org/gate/one").unwrap(),
            realm: Realm::parse("test").unwrap(),
            key: key("gate"),
        };
        let work = Gatework {
            engine: Arc::new(Engine::new(gate, 1000)),
            routes: Arc::new(HashMap::from([(topic(SOURCE), route.clone())])),
            codecs: codecs.clone(),
            snapshots: snapshots.clone(),
            freshness: Default::default(),
            telemetry,
        };
        Self {
            decider: EngineDecider::new(work),
            snapshots,
            state: PartitionState::new(window_ms(&route)),
            route,
            codecs,
            now: UnixMillis(NOW_S * 1000),
            answered: UnixMillis(i64::MIN),
            open: None,
            holds: Vec::new(),
            answers: 0,
            outcomes: Vec::new(),
            audits: Vec::new(),
            told: Vec::new(),
            jti: 0,
        }
    }

    /// Other policies from now on.
    pub(super) fn policies(&mut self, policies: &str) {
        self.snapshots.store(Arc::new(snapshot(policies)));
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.now = UnixMillis(self.now.0 + seconds * 1000);
    }

    fn open(&mut self) -> &mut Open {
        if self.open.is_none() {
            self.decider.open_batch(self.now);
            self.state.begin();
            self.open = Some(Open { now: self.now, effects: Vec::new() });
        }
        self.open.as_mut().unwrap()
    }

    fn input(&mut self, input: Input<'_>) -> Result<(), DecideError> {
        self.open();
        let effects = self.decider.decide(input, &Counts, &mut self.state)?;
        self.open().effects.push(effects);
        Ok(())
    }

    /// Decides a record in the open batch.
    pub(super) fn record(&mut self, record: &Record) {
        self.input(Input::Record(record, &Delivery::Open)).unwrap();
    }

    /// Decides an answer that the broker took now, in the open batch.
    pub(super) fn answer(&mut self, token: impl Into<Bytes>) {
        let at = self.now;
        self.answer_taken(token, at);
    }

    /// Decides an answer that the broker took at that moment.
    pub(super) fn answer_taken(&mut self, token: impl Into<Bytes>, at: UnixMillis) {
        self.answer_with(token, Vec::new(), at);
    }

    /// Decides a Txn-Token that answers that challenge, in the open batch.
    pub(super) fn login(&mut self, token: impl Into<Bytes>, challenge: &str) {
        let at = self.now;
        self.answer_with(token, vec![Header::new("challenge", challenge.to_owned())], at);
    }

    pub(super) fn answer_with(&mut self, token: impl Into<Bytes>, headers: Vec<Header>, at: UnixMillis) {
        let source =
            Coordinates { topic: topic(ANSWERS), partition: Partition(0), offset: Offset(self.answers) };
        self.answers += 1;
        let answer = Record {
            source,
            timestamp: Some(at),
            timestamp_type: TimestampType::LogAppendTime,
            key: None,
            value: Some(token.into()),
            headers,
        };
        let payload = self.state.named(&answer).map(|named| self.payload(named.payload));
        self.input(Input::Answer(&answer, payload.as_ref())).unwrap();
    }

    fn payload(&self, at: Offset) -> Record {
        self.holds[usize::try_from(at.0).unwrap()].clone()
    }

    /// Decides everything whose turn has come, in the open batch; answers have been read up to now.
    pub(super) fn turns(&mut self) -> Vec<Due> {
        self.answered = self.now;
        self.turns_of(usize::MAX)
    }

    /// The same for at most so many, with the answers as far as they were read.
    pub(super) fn turns_of(&mut self, limit: usize) -> Vec<Due> {
        let due = self.state.due(self.now, self.answered, limit);
        for one in &due {
            self.turn(one, &Delivery::Open);
        }
        due
    }

    pub(super) fn turn(&mut self, due: &Due, delivery: &Delivery) {
        let payload = self.payload(due.payload);
        self.input(Input::Held(&payload, due.turn, delivery)).unwrap();
    }

    /// The transaction is committed: what it wrote stands in the topics.
    pub(super) fn commit(&mut self) {
        let Some(open) = self.open.take() else { return };
        for effects in open.effects {
            // Nothing leaves without a decision of this moment.
            let audit = effects
                .audit
                .as_ref()
                .map(|audit| self.codecs.audit.decode(audit.value.as_deref().unwrap()).unwrap());
            let decided = audit.as_ref().map_or("none", |audit| audit.outcome.as_str());
            assert_eq!(effects.outcome.is_some(), ["forward", "deny"].contains(&decided));
            assert!(audit.as_ref().is_none_or(|audit| audit.decided == open.now.0));
            self.outcomes.extend(effects.outcome);
            for kept in effects.kept {
                let at = Offset(i64::try_from(self.holds.len()).unwrap());
                if let Some(source) = kept.payload_of {
                    self.state.stored(source, at);
                }
                let source =
                    Coordinates { topic: kept.record.topic, partition: kept.record.partition, offset: at };
                self.holds.push(Record {
                    source,
                    timestamp: None,
                    timestamp_type: TimestampType::NotAvailable,
                    key: kept.record.key,
                    value: kept.record.value,
                    headers: Vec::new(),
                });
            }
            for told in effects.told {
                assert_eq!(told.topic, topic(CHALLENGES));
                let challenge = self.codecs.challenge.decode(told.value.as_deref().unwrap()).unwrap();
                assert_eq!(told.key.as_deref(), Some(challenge.id.as_bytes()));
                self.told.push(challenge);
            }
            self.audits.extend(audit);
        }
        self.state.commit();
        self.decider.committed();
    }

    /// The transaction is aborted: none of it happened.
    pub(super) fn abort(&mut self) {
        self.open = None;
        self.state.abort();
        self.decider.aborted();
    }

    /// Another gate takes the partition over, with nothing but what was written; compacted where that is said.
    pub(super) fn restore(&mut self, compacted: bool) {
        self.abort();
        let replay = std::mem::replace(&mut self.state, PartitionState::new(window_ms(&self.route))).replay;
        self.state.replay = replay;
        let mut last = HashMap::new();
        for (at, record) in self.holds.iter().enumerate() {
            last.insert(record.key.clone(), at);
        }
        for (at, record) in self.holds.iter().enumerate() {
            let stays = last[&record.key] == at && record.value.is_some();
            if !compacted || stays {
                self.state.load_hold(record).unwrap();
            }
        }
    }

    /// Decides and commits, one by one.
    pub(super) fn send(&mut self, record: &Record) -> &AuditRecord {
        self.record(record);
        self.commit();
        self.audits.last().unwrap()
    }

    pub(super) fn reply(&mut self, token: impl Into<Bytes>) -> String {
        self.answer(token);
        self.commit();
        let audit = self.audits.last().unwrap();
        assert_eq!(audit.outcome, "answer");
        audit.answer.clone().unwrap().effect
    }

    /// The same with a Txn-Token that answers that challenge.
    pub(super) fn log_in(&mut self, token: impl Into<Bytes>, challenge: &str) -> String {
        self.login(token, challenge);
        self.commit();
        self.audits.last().unwrap().answer.clone().unwrap().effect
    }

    pub(super) fn go_on(&mut self) -> Vec<Turn> {
        let turns = self.turns().into_iter().map(|due| due.turn).collect();
        self.commit();
        turns
    }

    /// The challenge that was told last.
    pub(super) fn challenge(&self) -> &Challenge {
        self.told.last().unwrap()
    }

    /// A record that asks to pay that invoice.
    pub(super) fn pay(&self, offset: i64, invoice: &str) -> Record {
        self.pay_with(offset, invoice, None)
    }

    /// The same with a grant.
    pub(super) fn pay_with(&self, offset: i64, invoice: &str, grant: Option<&str>) -> Record {
        self.pay_as(offset, "inv-7", invoice, grant)
    }

    /// The same with that key.
    pub(super) fn pay_as(
        &self,
        offset: i64,
        key: &'static str,
        invoice: &str,
        grant: Option<&str>,
    ) -> Record {
        let mut plan = Plan { grant: grant.is_some(), ..Plan::default() };
        plan.record.source.offset = Offset(offset);
        plan.record.key = Some(Bytes::from_static(key.as_bytes()));
        plan.build_with(|kind, draft| match kind {
            TokenKind::WorkloadProof => {
                draft.claims["jti"] = format!("record-{offset}").into();
                draft.claims["resource"]["id"] = invoice.into();
            }
            TokenKind::StepUpGrant => draft.whole = grant.map(|grant| grant.as_bytes().to_vec()),
            _ => {}
        })
    }

    /// A fresh Txn-Token of the records' transaction with a strong login of this moment, good for ten minutes.
    pub(super) fn fresh(&self) -> String {
        self.fresh_with(|_| {})
    }

    pub(super) fn fresh_with(&self, edit: impl FnOnce(&mut Value)) -> String {
        let at = self.now.0 / 1000;
        let mut claims = testing::transaction_claims();
        (claims["iat"], claims["exp"]) = (at.into(), (at + 600).into());
        claims["rctx"] = json!({"acr": "phr", "amr": ["hwk"], "auth_time": at});
        edit(&mut claims);
        key("tts").sign(TokenKind::Transaction, &claims).unwrap()
    }

    /// Revokes from now on.
    pub(super) fn revoke(&mut self, kind: Kind, id: &str) {
        let snapshot = Snapshot { standing: standing(kind, id), ..(*self.snapshots.load_full()).clone() };
        self.snapshots.store(Arc::new(snapshot));
    }

    /// An answer of that person to that challenge, good for an hour.
    pub(super) fn grant(&mut self, challenge: &Challenge, who: &str, decision: &str) -> String {
        self.grant_with(challenge, who, decision, |_| {})
    }

    pub(super) fn grant_with(
        &mut self,
        challenge: &Challenge,
        who: &str,
        decision: &str,
        edit: impl FnOnce(&mut Value),
    ) -> String {
        self.jti += 1;
        let at = self.now.0 / 1000;
        let mut claims = json!({
            "iss": PEOPLE, "sub": who, "aud": "test", "iat": at, "exp": at + 3600, "jti": format!("g-{}", self.jti),
            "challenge": challenge.id, "digest": challenge.digest, "decision": decision, "comment": "as agreed",
        });
        edit(&mut claims);
        // A gate signs for whom it has verified itself.
        let name =
            if claims["iss"].as_str().is_some_and(|iss| iss.contains("/gate")) { "gate" } else { "approver" };
        let key = key(name);
        let head = json!({"alg": key.algorithm().as_str(), "typ": "step-up-grant+jwt", "kid": name});
        key.sign_raw(head.to_string().as_bytes(), claims.to_string().as_bytes())
    }
}

/// When every record of these tests was accepted.
pub(super) const ACCEPTED: UnixMillis = UnixMillis(ACCEPTED_S * 1000);
