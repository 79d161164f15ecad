//! The gate's decider: each record of a batch goes through the engine with one snapshot and one `now`, and becomes bytes.
//! Limits: what was decided is shown (metrics, spans, logs) only once the batch is committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::decider::{DecideError, Decider, Input, PartitionCounts as Counted, Remembered, ReplayBatch};
use crate::authorize::decision::Reason;
use crate::authorize::engine::{Decision, Engine, Moment, Snapshot};
use crate::authorize::ids::{Coordinates, DecisionId, Digest, Topic, UnixMillis};
use crate::authorize::merkle::Range;
use crate::authorize::route::Route;
use crate::authorize::state::PartitionState;
use crate::authorize::traceparent::TraceParent;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{ClockAhead, Decided, TokenCacheUsed};
use crate::wire::audit::AuditCodec;
use crate::wire::outgoing::{Effects, PartitionCounts, effects};
use crate::wire::replay;

/// The newest snapshot of everything a gate watches: whoever watches publishes, each batch pins.
pub type Snapshots = Arc<ArcSwap<Snapshot>>;

/// What the lanes of a gate share.
#[derive(Debug, Clone)]
pub struct Gatework {
    /// What decides.
    pub engine: Arc<Engine>,
    /// The route of each source topic.
    pub routes: Arc<HashMap<Topic, Arc<Route>>>,
    /// How audit records become bytes.
    pub codec: Arc<AuditCodec>,
    /// What the gate knows.
    pub snapshots: Snapshots,
    /// Where decisions are shown.
    pub telemetry: Telemetry,
}

/// The decider of one lane.
#[derive(Debug)]
pub struct EngineDecider {
    work: Gatework,
    batch: Option<Batch>,
}

#[derive(Debug)]
struct Batch {
    now: UnixMillis,
    snapshot: Arc<Snapshot>,
    decided: Vec<Shown>,
    /// A record from the future, and by how much, in milliseconds.
    ahead: Option<(Coordinates, i64)>,
}

/// A decision that is not yet committed.
#[derive(Debug)]
struct Shown {
    route: Arc<Route>,
    source: Coordinates,
    parent: Option<TraceParent>,
    id: DecisionId,
    denied: Option<Reason>,
    started: SystemTime,
    took: Duration,
}

impl EngineDecider {
    /// A decider over what the gate's lanes share.
    pub fn new(work: Gatework) -> Self {
        Self { work, batch: None }
    }
}

impl Decider for EngineDecider {
    type State = PartitionState;

    fn open_batch(&mut self, now: UnixMillis) {
        let snapshot = self.work.snapshots.load_full();
        self.batch = Some(Batch { now, snapshot, decided: Vec::new(), ahead: None });
    }

    fn decide(
        &mut self,
        input: Input<'_>,
        counts: &dyn Counted,
        state: &mut PartitionState,
    ) -> Result<Effects, DecideError> {
        let Input::Record(record, delivery) = input else {
            return Err(DecideError("nothing is held".to_owned()));
        };
        let batch = self.batch.as_mut().ok_or_else(|| DecideError("no batch is open".to_owned()))?;
        let route = self
            .work
            .routes
            .get(&record.source.topic)
            .ok_or_else(|| DecideError(format!("no route reads `{}`", record.source.topic)))?;
        let (started, clock) = (SystemTime::now(), Instant::now());
        let id = DecisionId(Uuid::now_v7());
        let source = counts.of(&record.source.topic);
        let moment = Moment { now: batch.now, id, snapshot: &batch.snapshot, source_partitions: source };
        let step = self.work.engine.handle(route, record, &moment, delivery.clone(), state);
        let ahead_ms = step.audit.accepted.saturating_sub(batch.now.0);
        if ahead_ms > i64::from(route.skew_s) * 1000 {
            batch.ahead.get_or_insert_with(|| (record.source.clone(), ahead_ms));
        }
        let denied = match &step.decision {
            Decision::Forward(_) => None,
            Decision::Deny(denial) => Some(denial.reason),
        };
        let counts = PartitionCounts {
            source,
            destination: counts.of(&route.to),
            denied: counts.of(&route.denied),
            audit: counts.of(&route.audit),
        };
        let effects = effects(&self.work.codec, route, record, step, counts, state)
            .map_err(|error| DecideError(format!("the audit record cannot be written: {error}")))?;
        batch.decided.push(Shown {
            route: route.clone(),
            source: record.source.clone(),
            parent: TraceParent::of(record),
            id,
            denied,
            started,
            took: clock.elapsed(),
        });
        Ok(effects)
    }

    fn committed(&mut self) {
        let telemetry = &self.work.telemetry;
        let Some(batch) = self.batch.take() else { return };
        if let Some((source, ahead_ms)) = &batch.ahead {
            ClockAhead { source, ahead_ms: *ahead_ms }.emit(telemetry);
        }
        for shown in batch.decided {
            Decided {
                route: &shown.route.name,
                source: &shown.source,
                parent: shown.parent,
                id: shown.id,
                denied: shown.denied,
                started: shown.started,
                took: shown.took,
            }
            .emit(telemetry);
        }
        let used = self.work.engine.cache().take_counts();
        TokenCacheUsed { hits: used.hits, misses: used.misses }.emit(telemetry);
    }

    fn aborted(&mut self) {
        self.batch = None;
    }
}

impl Remembered for PartitionState {
    fn fresh(window: Duration) -> Self {
        Self::new(i64::try_from(window.as_millis()).unwrap_or(i64::MAX))
    }

    fn begin(&mut self) {
        Self::begin(self);
    }

    fn commit(&mut self) {
        Self::commit(self);
    }

    fn abort(&mut self) {
        Self::abort(self);
    }

    fn replay_batch(&self) -> Option<ReplayBatch> {
        let staged = self.replay.staged();
        let oldest = staged.iter().map(|entry| entry.accepted).min()?;
        let newest = staged.iter().map(|entry| entry.accepted).max()?;
        Some(ReplayBatch { value: replay::encode(staged), oldest, newest })
    }

    fn load(&mut self, value: &[u8]) -> Result<UnixMillis, DecideError> {
        let entries = replay::decode(value).map_err(|error| DecideError(error.to_string()))?;
        let newest = entries.iter().map(|entry| entry.accepted).max().unwrap_or(UnixMillis(i64::MIN));
        self.replay.restore(entries);
        Ok(newest)
    }

    fn forget(&mut self, before: UnixMillis) {
        self.replay.forget(before);
    }

    fn remembered(&self) -> usize {
        self.replay.len()
    }

    fn tree(&self) -> (u64, Vec<Digest>) {
        let tree = Self::tree(self);
        (tree.size(), tree.peaks().to_vec())
    }

    fn restore_tree(&mut self, size: u64, peaks: Vec<Digest>) -> Result<(), DecideError> {
        let tree = Range::restore(size, peaks).map_err(|error| DecideError(error.to_string()))?;
        Self::restore_tree(self, tree);
        Ok(())
    }
}
