//! What every seed has in common: the policies, what a gate knows, how its lanes are set, and the decider of a gate, which can
//! be made to fail. Limits: one route from one topic of three partitions.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::people::{BARE, ENDED, ISSUER, PEOPLE, REFUSED, REVOKED, TOKEN_SERVICE};
use crate::authorize::engine::{Engine, Snapshot};
use crate::authorize::ids::{
    DecisionId, Offset, Partition, Position, Realm, Topic, TrustDomain, UnixMillis, WorkloadId,
};
use crate::authorize::jose::Algorithm;
use crate::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use crate::authorize::replay::window_ms;
use crate::authorize::route::{Gate, Holding, Order, Route};
use crate::authorize::standing::{
    At, Authority, Effect, Followed, Kind, Registered, Registry, Revocation, Standing, Status, Target,
};
use crate::authorize::state::PartitionState;
use crate::authorize::testing::{self, NOW_S, key};
use crate::authorize::trust::{ApproverIssuer, Domain, Issuer, Others, Trust};
use crate::config::{BreakerSettings, Start};
use crate::stream::breaker::TryAgain;
use crate::stream::clock::Clock;
use crate::stream::decider::{DecideError, Decider, Input, PartitionCounts};
use crate::stream::deciding::{EngineDecider, Gatework, Snapshots};
use crate::stream::lane::{HoldTopics, LaneSettings, Source};
use crate::stream::log::TopicPartition;
use crate::stream::memory::{Cluster, ManualClock};
use crate::telemetry::Telemetry;
use crate::wire::outgoing::{Codecs, Effects};

pub(super) const SOURCE: &str = "payments.commands";
pub(super) const TO: &str = "payments.authorized";
pub(super) const DENIED: &str = "payments.denied";
pub(super) const AUDIT: &str = "payments.audit";
pub(super) const REPLAY: &str = "payments.replay";
pub(super) const HOLDS: &str = "payments.commands.holds";
pub(super) const ANSWERS: &str = "payments.commands.answers";
pub(super) const CHALLENGES: &str = "payments.challenges";
pub(super) const PARTITIONS: i32 = 3;
pub(super) const AUDIT_PARTITIONS: i32 = 2;
pub(super) const MAX_WAITING: usize = 2;
pub(super) const SKEW_MS: i64 = 30_000;

const SCHEMA: &str = r#"
    entity Workload; entity User; entity Invoice; entity Challenge;
    action pay, look appliesTo { principal: [Workload], resource: [Invoice], context: {} };
    action answer appliesTo { principal: [User, Workload], resource: [Challenge], context: {} };
"#;

const POLICIES: &str = r#"
    @id("all") permit (principal, action == Action::"pay", resource);
    @id("frozen") forbid (principal, action == Action::"pay", resource == Invoice::"frozen");
    @id("broken") forbid (principal, action == Action::"pay", resource == Invoice::"broken")
    when { 9223372036854775807 + 1 > 0 };
    @id("large") @step_up("manager") @hold("10m") @grant("5m")
    forbid (principal, action == Action::"pay", resource == Invoice::"large");
    @id("huge") @step_up("officer") @approvals("2")
    forbid (principal, action == Action::"pay", resource == Invoice::"huge");
    @id("answers") permit (principal, action == Action::"answer", resource)
    unless { principal == User::"mallory" };
"#;

pub(super) fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

pub(super) fn part(name: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic(name), partition: Partition(partition) }
}

/// The test's time, around the moment for which its records are signed.
#[derive(Clone, Default)]
pub(super) struct GateClock(pub(super) ManualClock);

impl Clock for GateClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(NOW_S * 1000 + i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
    fn sleep(&self, time: Duration) {
        self.0.sleep(time);
    }
}

/// What seeds share: everything that costs and that no run changes.
pub(super) struct Common {
    pub(super) engine: Arc<Engine>,
    pub(super) codecs: Arc<Codecs>,
    pub(super) telemetry: Telemetry,
    /// What a gate knows: nothing against anybody; then a transaction is revoked; then a workflow has ended too.
    pub(super) snapshots: Vec<Arc<Snapshot>>,
}

thread_local! {
    static COMMON: Rc<Common> = Rc::new(Common::new());
}

impl Common {
    /// What the seeds of this thread share.
    pub(super) fn shared() -> Rc<Self> {
        COMMON.with(Rc::clone)
    }

    /// The same with an engine that has seen no token yet.
    pub(super) fn new() -> Self {
        let gate = Gate {
            id: WorkloadId::parse("spiffe://example.org/gate/one").unwrap(),
            realm: Realm::parse("test").unwrap(),
            key: key("gate"),
        };
        Self {
            engine: Arc::new(Engine::new(gate, 1000)),
            codecs: Arc::new(Codecs::new().unwrap()),
            telemetry: Telemetry::off(),
            snapshots: snapshots(),
        }
    }
}

fn snapshots() -> Vec<Arc<Snapshot>> {
    let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), text: text.to_owned() };
    let offer = Offer { subject_type: Some("User".to_owned()), ..Offer::default() };
    let bundle = Bundle::load(vec![file("p.cedar", POLICIES)], file("s.cedarschema", SCHEMA), &offer);
    let policy = Arc::new(bundle.unwrap_or_else(|errors| panic!("{:?}", errors.problems())));
    let entities = Arc::new(Entities::load(Vec::new(), &policy).unwrap());
    let approvers = ApproverIssuer {
        issuer: Issuer { algorithms: Algorithm::DEFAULT.to_vec(), keys: testing::keys(&["approver"]) },
        entity_type: "User".to_owned(),
    };
    let others = Others { approvers: BTreeMap::from([(PEOPLE.to_owned(), approvers)]), ..Others::default() };
    let domain = Domain {
        bundle: testing::keys(&[ISSUER]),
        token_service: testing::keys(&[TOKEN_SERVICE]),
        ..testing::domain()
    };
    let name = TrustDomain::parse("example.org").unwrap();
    let trust = Arc::new(Trust::with(BTreeMap::from([(name, domain)]), others));
    let standings = standings().into_iter();
    let snapshot = |standing| {
        let (trust, policy, entities) = (trust.clone(), policy.clone(), entities.clone());
        Arc::new(Snapshot { trust, policy, entities, standing })
    };
    standings.map(snapshot).collect()
}

fn standings() -> [Standing; 3] {
    let mut registry = Registry::new(i64::MAX);
    let at = At { partition: Partition(0), offset: Offset(0) };
    let pin = |registry: &mut Registry, workflows: i64, revocations: i64| {
        let to = |position| Some([(Partition(0), Position(position))].into_iter().collect());
        registry.pin(Followed { workflows: to(workflows), revocations: to(revocations) })
    };
    let nothing = pin(&mut registry, 0, 0);
    let revocation = Revocation {
        id: "r-1".into(),
        authority: Authority::Administrator,
        targets: [Target { kind: Kind::Transaction, id: REVOKED.into() }].into(),
        effect: Effect::Revokes { not_before: None },
        issued_at: 0.0,
        expires_at: None,
        event: "revocation".into(),
        reason: None,
        transaction: None,
    };
    registry.apply_revocation(at, "r-1", Some(revocation), UnixMillis(0));
    let revoked = pin(&mut registry, 0, 1);
    let workflow = Registered {
        kind: "invoice".into(),
        status: Status::Cancelled,
        step: "pay".into(),
        owner: "accounts".into(),
        allowed_steps: None,
        version: 1,
        updated_at: UnixMillis(0),
    };
    registry.apply_workflow(at, ENDED, Some(workflow));
    let ended = pin(&mut registry, 1, 1);
    [nothing, revoked, ended]
}

/// A cluster with every topic of the route.
pub(super) fn cluster(silently: bool) -> Cluster {
    let cluster = Cluster::default();
    for name in [SOURCE, TO, DENIED, REPLAY, HOLDS, ANSWERS] {
        cluster.create(&topic(name), PARTITIONS);
    }
    cluster.create(&topic(AUDIT), AUDIT_PARTITIONS);
    cluster.create(&topic(CHALLENGES), 1);
    cluster.refuse(&topic(TO), REFUSED, silently);
    cluster.refuse(&topic(TO), BARE, silently);
    cluster.refuse(&topic(DENIED), BARE, silently);
    cluster
}

pub(super) fn route(order: Order) -> Route {
    let holding = Holding {
        challenges: topic(CHALLENGES),
        holds: BTreeMap::from([(topic(SOURCE), topic(HOLDS))]),
        answers: BTreeMap::from([(topic(SOURCE), topic(ANSWERS))]),
        hold_s: 900,
        grant_s: 600,
        order,
        max_waiting: MAX_WAITING,
    };
    Route { holding: Some(holding), ..testing::route() }
}

pub(super) fn settings(member: usize, breaker: Option<BreakerSettings>) -> LaneSettings {
    let source = Source {
        route: "payments".into(),
        replay: topic(REPLAY),
        audit: topic(AUDIT),
        denied: topic(DENIED),
        breaker,
        start: Start::Earliest,
        window: Duration::from_millis(u64::try_from(window_ms(&testing::route())).unwrap()),
        holding: Some(HoldTopics {
            holds: topic(HOLDS),
            answers: topic(ANSWERS),
            skew: Duration::from_millis(SKEW_MS.unsigned_abs()),
        }),
    };
    LaneSettings {
        lane: member,
        sources: BTreeMap::from([(topic(SOURCE), source)]),
        targets: [TO, DENIED, AUDIT, CHALLENGES].map(topic).to_vec(),
        limits: BTreeMap::new(),
        batch: 6,
        ahead: 2,
        linger: Duration::from_millis(1),
        transaction_timeout: Duration::from_secs(5),
        fenced_tries: 10,
        try_again: TryAgain::default(),
    }
}

/// When a decider fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    /// Before the engine has decided.
    Before,
    /// After it has: what it did to the state stands, and its effects cannot be written.
    After,
}

/// Which inputs cannot be decided, and how.
pub(super) type Failures = Rc<dyn Fn(&Input<'_>) -> Option<Failing>>;

/// The decider of a gate.
pub(super) struct GateDecider {
    inner: EngineDecider,
    failures: Option<Failures>,
}

impl GateDecider {
    /// Decides by these snapshots; its ids are its own.
    pub(super) fn new(
        common: &Common,
        route: Arc<Route>,
        snapshots: Snapshots,
        member: usize,
        failures: Option<Failures>,
    ) -> Self {
        let work = Gatework {
            engine: common.engine.clone(),
            routes: Arc::new(HashMap::from([(topic(SOURCE), route)])),
            codecs: common.codecs.clone(),
            snapshots,
            freshness: crate::stream::freshness::Freshness::default(),
            telemetry: common.telemetry.clone(),
        };
        let mut next = (member as u128) << 64;
        let ids = move || {
            next += 1;
            DecisionId(Uuid::from_u128(next))
        };
        Self { inner: EngineDecider::with_ids(work, ids), failures }
    }
}

impl Decider for GateDecider {
    type State = PartitionState;

    fn open_batch(&mut self, now: UnixMillis) {
        self.inner.open_batch(now);
    }

    fn decide(
        &mut self,
        input: Input<'_>,
        counts: &dyn PartitionCounts,
        state: &mut PartitionState,
    ) -> Result<Effects, DecideError> {
        let failing = self.failures.as_ref().and_then(|failures| failures(&input));
        let failed = || Err(DecideError("it cannot be written".to_owned()));
        if failing == Some(Failing::Before) {
            return failed();
        }
        let effects = self.inner.decide(input, counts, state)?;
        if failing == Some(Failing::After) { failed() } else { Ok(effects) }
    }

    fn committed(&mut self) {
        self.inner.committed();
    }

    fn aborted(&mut self) {
        self.inner.aborted();
    }
}

/// What a gate knows, to be changed while it runs.
pub(super) fn knowing(snapshot: &Arc<Snapshot>) -> Snapshots {
    Arc::new(ArcSwap::from(snapshot.clone()))
}
