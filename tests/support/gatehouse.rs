//! A gate in memory for the records of `forge`: its engine, its policies, who stands how, and what it wrote about a
//! record. Limits: no lanes and no Kafka; what the bytes of an outcome must be is for the tests to say.

#![allow(dead_code, reason = "each binary takes in the whole file and uses its part")]

use std::sync::Arc;

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::engine::{Delivery, Engine, Moment, Snapshot};
use countersign::authorize::ids::{Offset, Partition, Position, UnixMillis};
use countersign::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use countersign::authorize::record::Record;
use countersign::authorize::replay::window_ms;
use countersign::authorize::request::{Mapping, MappingSource};
use countersign::authorize::route::{Gate, Holding, Order, Party, ReplayRule, Route, TokenExpiry};
use countersign::authorize::standing::{
    At, Authority, Effect, Followed, Kind, Positions, Registered, Registry, Revocation, Standing, Status,
    Target,
};
use countersign::authorize::state::PartitionState;
use countersign::wire::outgoing::{Codecs, Effects, PartitionCounts, effects};

use super::forge::{self, NOW, SOURCE, key, realm, topic, trust, workload};

/// Partitions of every topic.
pub const COUNTS: PartitionCounts =
    PartitionCounts { source: 8, destination: 8, denied: 8, audit: 8, challenges: 1 };

/// The schema of every policy here.
pub const SCHEMA: &str = r#"
    entity Team;
    entity Workload in [Team];
    entity User;
    entity Account;
    entity Invoice in [Account] { limit?: Long };
    action payments;
    action pay, read in [payments] appliesTo { principal: [Workload, User], resource: [Invoice, Account], context: {
        now: datetime,
        message: { topic: String, partition: Long, offset: Long, accepted_at: datetime, queued: duration },
        sender: Workload,
        subject?: User,
        transaction?: { id: String, scope: Set<String>, requester: String, expires_at: datetime,
            details?: { amount?: Long } },
        workflow?: { id: String, type: String, step: String, state: String, registered: Bool, status?: String },
        provenance: { proven: Bool, gated: Bool, depth: Long, origin: Workload, senders: Set<Workload> },
        request: { action?: { amount?: Long }, resource?: { note?: String } },
        value?: { amount?: Long, note?: String },
    } };
"#;

/// Policies that permit and forbid, that err, and that ask for a step-up.
pub const POLICIES: &str = r#"
    @id("payer-pays") permit (principal, action == Action::"pay", resource)
        when { principal == Workload::"spiffe://example.org/agent/payer"
            && context has transaction && context.transaction.scope.contains("payments.pay") };
    @id("users-pay") permit (principal is User, action in Action::"payments", resource);
    @id("readers-read") permit (principal in Team::"readers", action == Action::"read", resource);
    @id("legacy-pays") permit (principal == Workload::"spiffe://example.org/legacy", action in Action::"payments", resource)
        when { context has value && context.value has amount && context.value.amount < 1000 };
    @id("frozen") forbid (principal, action, resource in Account::"frozen");
    @id("odd") forbid (principal, action, resource == Invoice::"odd")
        when { context.message.offset + 9223372036854775807 > 0 };
    @id("large") @step_up("large") forbid (principal, action == Action::"pay", resource)
        when { context has transaction && context.transaction has details
            && context.transaction.details has amount && context.transaction.details.amount > 1000 };
"#;

/// Who is in a team, and what is frozen.
pub const ENTITIES: &str = r#"[
    {"uid": {"type": "Workload", "id": "spiffe://example.org/agent/reader"}, "attrs": {},
     "parents": [{"type": "Team", "id": "readers"}]},
    {"uid": {"type": "Invoice", "id": "iced"}, "attrs": {}, "parents": [{"type": "Account", "id": "frozen"}]},
    {"uid": {"type": "Account", "id": "frozen"}, "attrs": {}, "parents": []}
]"#;

/// The workflow that has ended, and the one that is suspended.
pub const ENDED: &str = "wf-ended";
pub const SUSPENDED: &str = "wf-suspended";
/// The subject that is revoked.
pub const REVOKED: &str = "mallory";
/// Who sends without proof, where a route takes that.
pub const LEGACY: &str = "spiffe://example.org/legacy";

/// What decides, and what it decides by.
pub struct Gatehouse {
    pub engine: Engine,
    pub codecs: Codecs,
    pub snapshot: Snapshot,
}

impl Gatehouse {
    /// With [`POLICIES`].
    pub fn new() -> Self {
        Self::with(POLICIES).expect("a bundle")
    }

    /// With those policies; `None` where they make no bundle.
    pub fn with(policies: &str) -> Option<Self> {
        let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), text: text.to_owned() };
        let offer = Offer { subject_type: Some("User".to_owned()), ..Offer::default() };
        let policy =
            Bundle::load(vec![file("laws.cedar", policies)], file("laws.cedarschema", SCHEMA), &offer)
                .ok()?;
        let entities = Entities::load(vec![file("entities.json", ENTITIES)], &policy).expect("entities");
        let snapshot = Snapshot {
            trust: Arc::new(trust()),
            policy: Arc::new(policy),
            entities: Arc::new(entities),
            standing: standing(),
        };
        Some(Self { engine: cold_engine(), codecs: Codecs::new().expect("codecs"), snapshot })
    }

    /// Forgets every token that was verified.
    pub fn forget(&mut self) {
        self.engine = cold_engine();
    }

    /// What is written about a record; its decision id says where it stands.
    pub fn decide(&self, route: &Route, record: &Record, state: &mut PartitionState) -> Effects {
        let moment =
            Moment { now: NOW, id: forge::id_of(record), snapshot: &self.snapshot, source_partitions: 8 };
        let step = self.engine.handle(route, record, &moment, Delivery::Open, state);
        effects(&self.codecs, route, record, step, COUNTS, state).expect("effects")
    }

    /// The same in a partition that nothing has happened in.
    pub fn once(&self, route: &Route, record: &Record) -> (Effects, AuditRecord) {
        let effects = self.decide(route, record, &mut PartitionState::new(window_ms(route)));
        let audit = self.audit(&effects);
        (effects, audit)
    }

    /// The audit record among what was written.
    pub fn audit(&self, effects: &Effects) -> AuditRecord {
        let bytes = effects.audit.as_ref().and_then(|out| out.value.as_deref()).expect("an audit record");
        self.codecs.audit.decode(bytes).expect("an audit record that reads")
    }
}

fn cold_engine() -> Engine {
    let gate = Gate { id: workload("spiffe://example.org/gate/here"), realm: realm(), key: key("gate") };
    Engine::new(gate, 1000)
}

fn standing() -> Standing {
    let mut registry = Registry::new(1_000_000_000);
    let at = |offset| At { partition: Partition(0), offset: Offset(offset) };
    for (offset, (id, status)) in (0..).zip([(ENDED, Status::Cancelled), (SUSPENDED, Status::Suspended)]) {
        let registered = Registered {
            kind: "payment".into(),
            status,
            step: "pay".into(),
            owner: "spiffe://example.org/orchestrator".into(),
            allowed_steps: None,
            version: 1,
            updated_at: UnixMillis(NOW.0 - 1000),
        };
        registry.apply_workflow(at(offset), id, Some(registered));
    }
    let revocation = Revocation {
        id: "r-1".into(),
        authority: Authority::Administrator,
        targets: [Target { kind: Kind::Subject, id: REVOKED.into() }].into(),
        effect: Effect::Revokes { not_before: None },
        issued_at: 1.0,
        expires_at: None,
        event: "revocation".into(),
        reason: None,
        transaction: None,
    };
    registry.apply_revocation(at(0), "r-1", Some(revocation), NOW);
    let read = |next| {
        let mut positions = Positions::default();
        positions.advance(Partition(0), Position(next));
        Some(positions)
    };
    registry.pin(Followed { workflows: read(2), revocations: read(1) })
}

/// How records may wait on [`holding`].
pub fn holding(order: Order) -> Holding {
    let of = |name: &str| [(topic(SOURCE), topic(name))].into();
    Holding {
        challenges: topic("payments.challenges"),
        holds: of("payments.commands.holds"),
        answers: of("payments.commands.answers"),
        hold_s: 1800,
        grant_s: 600,
        order,
        max_waiting: 3,
    }
}

/// The routes whose rules differ; all but the last require proof.
pub fn routes() -> Vec<Route> {
    let mapped = MappingSource {
        action: Some("'pay'".to_owned()),
        resource: Some("{'type': 'Invoice', 'id': key}".to_owned()),
        value: Some("value".to_owned()),
        ..MappingSource::default()
    };
    vec![
        forge::route(),
        Route { require_transaction: true, token_expiry: TokenExpiry::Now, ..forge::route() },
        Route { require_countersignature: true, parties: vec![Party::Senders], ..forge::route() },
        Route { replay: ReplayRule::Strict, parties: vec![Party::Subject], ..forge::route() },
        Route { holding: Some(holding(Order::None)), ..forge::route() },
        Route { holding: Some(holding(Order::Key)), ..forge::route() },
        Route {
            unproven: Some(workload(LEGACY)),
            mapping: Mapping::compile(&mapped).expect("a mapping"),
            ..forge::route()
        },
    ]
}

/// How many of [`routes`] require proof.
pub const PROVEN_ROUTES: usize = 6;
