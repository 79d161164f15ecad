//! People who are asked over HTTP, and a caller who has them asked: for tests of the docket and of the desk. Limits: tests alone.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::tests::{Tokened, World, about_itself};
use super::*;
use crate::authorize::ids::{Coordinates, DecisionId, Offset, Partition, Topic, TrustDomain};
use crate::authorize::jose::{Algorithm, TokenKind};
use crate::authorize::record::{Record, TimestampType};
use crate::authorize::route::{Holding, Order};
use crate::authorize::step_up::Challenge;
use crate::authorize::testing::{NOW_S, domain, key, keys, route};
use crate::authorize::trust::{ApproverIssuer, Issuer, Others, Trust};

pub(crate) const ANSWERS: &str = "access.answers";
pub(crate) const CHALLENGES: &str = "payments.challenges";
const ISSUER: &str = "https://login.example.com";

const SCHEMA: &str = "
    entity Workload; entity User; entity Invoice; entity Challenge;
    action pay appliesTo { principal: [Workload, User], resource: [Invoice], context: { now: datetime } };
    action evaluate appliesTo { principal: [Workload], resource: [User], context: { now: datetime } };
    action answer appliesTo { principal: [User], resource: [Challenge], context: {
        challenge: { step_ups: Set<String> }, answer: { decision: String },
    } };
";
/// `small` is allowed; `large` wants a manager, `two` two of them; `brief` waits a minute, and its approval is good for longer.
const POLICIES: &str = r#"
    @id("all") permit (principal, action in [Action::"pay", Action::"evaluate"], resource);
    @id("large") @step_up("manager") @hold("10m") @grant("5m") @message("Pay {resource.id} for {subject}?")
    forbid (principal, action == Action::"pay", resource == Invoice::"large");
    @id("other") @step_up("manager") @hold("10m") @grant("5m")
    forbid (principal, action == Action::"pay", resource == Invoice::"other");
    @id("two") @step_up("manager") @approvals("2") @hold("10m") @grant("5m")
    forbid (principal, action == Action::"pay", resource == Invoice::"two");
    @id("brief") @step_up("manager") @hold("1m") @grant("5m")
    forbid (principal, action == Action::"pay", resource == Invoice::"brief");
    @id("answers") permit (principal, action == Action::"answer", resource) unless { principal == User::"mallory" };
"#;

/// A world in which the payer, for alice, wants what people must agree to.
pub(crate) struct People {
    pub(crate) world: World,
    pub(crate) caller: Caller,
    pub(crate) now: UnixMillis,
    next: Cell<u32>,
}

impl People {
    pub(crate) fn new() -> Self {
        let topic = |name: &str| Topic::parse(name).unwrap();
        let holding = Holding {
            challenges: topic(CHALLENGES),
            holds: BTreeMap::new(),
            answers: BTreeMap::new(),
            hold_s: 1800,
            grant_s: 600,
            order: Order::None,
            max_waiting: 2,
        };
        let route = Route { holding: Some(holding), ..route() };
        let approvers = ApproverIssuer {
            issuer: Issuer { algorithms: Algorithm::DEFAULT.to_vec(), keys: keys(&["approver"]) },
            entity_type: "User".to_owned(),
        };
        let others =
            Others { approvers: BTreeMap::from([(ISSUER.to_owned(), approvers)]), ..Others::default() };
        let home = TrustDomain::parse("example.org").unwrap();
        let trust = Trust::with(BTreeMap::from([(home, domain())]), others);
        let world = World::of(route, POLICIES, SCHEMA, "[]", trust);
        let caller = world.caller(&Tokened::new(|_| ())).unwrap();
        Self { world, caller, now: UnixMillis(NOW_S * 1000), next: Cell::new(0) }
    }

    fn number(&self) -> u32 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// A moment with an id of its own.
    pub(crate) fn moment(&self) -> Moment<'_> {
        let id = DecisionId(Uuid::from_u128(u128::from(self.number())));
        Moment { now: self.now, id, snapshot: &self.world.snapshot, source_partitions: 1 }
    }

    /// The payer asks whether it may pay that invoice; nobody has been asked about it yet.
    pub(crate) fn pays(&self, invoice: &str) -> Evaluated {
        self.asks(&about_itself("pay", ("Invoice", invoice)))
    }

    pub(crate) fn asks(&self, body: &Value) -> Evaluated {
        let Ok(Asked::One(one)) = Asked::read_one(body.to_string().as_bytes()) else { panic!("{body}") };
        evaluate(&self.world.engine, &self.world.route, &self.caller, &one, &self.moment())
    }

    /// An answer, good for an hour, as the broker has taken it just now.
    pub(crate) fn answers(&self, challenge: &Challenge, who: &str, decision: &str) -> Record {
        self.answers_with(challenge, who, decision, |_| ())
    }

    pub(crate) fn answers_with(
        &self,
        challenge: &Challenge,
        who: &str,
        decision: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Record {
        let (at, number) = (self.now.0 / 1000, self.number());
        let mut claims = json!({
            "iss": ISSUER, "sub": who, "aud": "test", "iat": at, "exp": at + 3600, "jti": format!("g-{number}"),
            "challenge": challenge.id, "digest": challenge.digest, "decision": decision,
        });
        edit(&mut claims);
        let token = key("approver").sign(TokenKind::StepUpGrant, &claims).unwrap();
        Record {
            source: Coordinates {
                topic: Topic::parse(ANSWERS).unwrap(),
                partition: Partition(challenge.partition),
                offset: Offset(i64::from(number)),
            },
            timestamp: Some(self.now),
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(Bytes::from(challenge.id.clone())),
            value: Some(Bytes::from(token)),
            headers: Vec::new(),
        }
    }
}
