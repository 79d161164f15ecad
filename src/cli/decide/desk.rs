//! Deciding without Kafka: the engine a gate runs, over records that are handed in, with a replay memory that lasts as
//! long as the command. Limits: nothing is written anywhere; what was decided is returned.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::authorize::audit::AuditRecord;
use crate::authorize::decision::Denial;
use crate::authorize::engine::{Decision, Delivery, Engine, Moment, Snapshot};
use crate::authorize::ids::{DecisionId, Partition, Topic, UnixMillis};
use crate::authorize::record::Record;
use crate::authorize::replay::window_ms;
use crate::authorize::route::{Gate, Route};
use crate::authorize::state::PartitionState;
use crate::authorize::step_up::Challenge;
use crate::wire::outgoing::{Codecs, EffectsError, PartitionCounts, effects};

/// Tokens that are kept verified between records.
const CACHED_TOKENS: usize = 10_000;

/// What decides, and what it remembers.
#[derive(Debug)]
pub(super) struct Desk {
    engine: Engine,
    snapshot: Arc<Snapshot>,
    codecs: Codecs,
    states: HashMap<(Topic, Partition), PartitionState>,
}

/// One decision, with its audit record.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) denial: Option<Denial>,
    pub(super) audit: AuditRecord,
    /// What somebody would be asked, where the record would be held.
    pub(super) asked: Option<Challenge>,
}

impl Desk {
    pub(super) fn new(gate: Gate, snapshot: Arc<Snapshot>) -> Result<Self, EffectsError> {
        let engine = Engine::new(gate, CACHED_TOKENS);
        Ok(Self { engine, snapshot, codecs: Codecs::new()?, states: HashMap::new() })
    }

    /// Decides about one record as a gate would, after those before it. `partitions` is the count of its topic.
    pub(super) fn decide(
        &mut self,
        route: &Route,
        record: &Record,
        now: UnixMillis,
        partitions: i32,
    ) -> Result<Decided, EffectsError> {
        let place = (record.source.topic.clone(), record.source.partition);
        let state = self.states.entry(place).or_insert_with(|| PartitionState::new(window_ms(route)));
        let id = DecisionId(Uuid::now_v7());
        let moment = Moment { now, id, snapshot: &self.snapshot, source_partitions: partitions };
        state.begin();
        let step = self.engine.handle(route, record, &moment, Delivery::Open, state);
        let denial = match &step.decision {
            Decision::Deny(denial) => Some(denial.clone()),
            _ => None,
        };
        let asked = step.traces.told.last().filter(|challenge| challenge.status.is_open()).cloned();
        let mut audit = step.audit.clone();
        audit.leaf_index = i64::try_from(state.next_leaf()).unwrap_or(i64::MAX);
        let counts = PartitionCounts {
            source: partitions,
            destination: partitions,
            denied: partitions,
            audit: partitions,
            challenges: 1,
        };
        // Whatever could not be written by a gate must not look decided here.
        let written = effects(&self.codecs, route, record, step, counts, state);
        match written {
            Ok(_) => state.commit(),
            Err(_) => state.abort(),
        }
        written.map(|_| Decided { denial, audit, asked })
    }
}

impl Decided {
    /// The decision as programs read it.
    pub(super) fn json(&self) -> Value {
        let audit = &self.audit;
        let parsed =
            |text: &Option<String>| text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let with_properties = |mut shown: Map<String, Value>, properties: &Option<String>| {
            if let Some(properties) = parsed(properties) {
                shown.insert("properties".to_owned(), properties);
            }
            shown
        };
        let action = audit.action.as_ref().map(|action| {
            let shown = Map::from_iter([("name".to_owned(), Value::from(action.name.as_str()))]);
            with_properties(shown, &action.properties)
        });
        let resource = audit.resource.as_ref().map(|resource| {
            let members = [("type", resource.kind.as_str()), ("id", resource.id.as_str())];
            let shown =
                members.into_iter().map(|(name, text)| (name.to_owned(), Value::from(text))).collect();
            with_properties(shown, &resource.properties)
        });
        json!({
            "outcome": audit.outcome,
            "reason": self.denial.as_ref().map(|denial| denial.reason.as_str()),
            "detail": self.denial.as_ref().map(|denial| denial.detail.as_str()),
            "policies": audit.policies,
            "errors": audit.errors,
            "sender": audit.sender,
            "subject": audit.subject,
            "action": action,
            "resource": resource,
            "context": parsed(&audit.context),
            "challenge": self.asked,
            "bundle": audit.bundle,
            "audit": audit,
        })
    }
}
