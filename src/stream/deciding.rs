//! The gate's decider: each record of a batch goes through the engine with one snapshot and one `now`, and becomes bytes.
//! Limits: what was decided is shown (metrics, spans, logs) only once the batch is committed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::decider::{DecideError, Decider, Delivery, Input, PartitionCounts as Counted};
use super::freshness::{Freshness, Instants};
use crate::authorize::decision::Reason;
use crate::authorize::engine::{Decision, Engine, Moment, Snapshot, Step};
use crate::authorize::ids::{Coordinates, DecisionId, Topic, UnixMillis};
use crate::authorize::record::Record;
use crate::authorize::route::Route;
use crate::authorize::state::PartitionState;
use crate::authorize::step_up::{Challenge, ChallengeId, Payload, Status, Turn, effect_named};
use crate::authorize::traceparent::TraceParent;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{ChallengeChanged, ClockAhead, Decided, TokenCacheUsed};
use crate::wire::holds;
use crate::wire::outgoing::{Codecs, Effects, PartitionCounts, effects, undecided};

/// The newest snapshot of everything a gate watches: whoever watches publishes, each batch pins.
pub type Snapshots = Arc<ArcSwap<Snapshot>>;

/// What the lanes of a gate share.
#[derive(Debug, Clone)]
pub struct Gatework {
    /// What decides.
    pub engine: Arc<Engine>,
    /// The route of each source topic.
    pub routes: Arc<HashMap<Topic, Arc<Route>>>,
    /// How audit records and challenges become bytes.
    pub codecs: Arc<Codecs>,
    /// What the gate knows.
    pub snapshots: Snapshots,
    /// How old that is.
    pub freshness: Freshness,
    /// Where decisions are shown.
    pub telemetry: Telemetry,
}

/// The decider of one lane.
#[derive(Debug)]
pub struct EngineDecider {
    work: Gatework,
    ids: Ids,
    /// Oldest first: the last is being decided, one before it is being committed.
    open: VecDeque<Batch>,
}

/// Gives each decision its id.
struct Ids(Box<dyn FnMut() -> DecisionId + Send>);

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

#[derive(Debug)]
struct Batch {
    now: UnixMillis,
    /// The id that the next decision gets.
    id: DecisionId,
    snapshot: Arc<Snapshot>,
    decided: Vec<Shown>,
    /// A record from the future, and by how much, in milliseconds.
    ahead: Option<(Coordinates, i64)>,
}

/// How a record was decided.
#[derive(Debug)]
struct Outcome {
    name: &'static str,
    denied: Option<Reason>,
    effect: Option<&'static str>,
}

impl Outcome {
    fn of(step: &Step) -> Self {
        let (name, denied) = match &step.decision {
            Decision::Forward(_) => ("forward", None),
            Decision::Deny(denial) => ("deny", Some(denial.reason)),
            Decision::Hold => ("hold", None),
            Decision::Wait => ("wait", None),
            Decision::Answer => ("answer", None),
        };
        let effect = step.audit.answer.as_ref().and_then(|answer| effect_named(&answer.effect));
        Self { name, denied, effect }
    }
}

/// What a step makes of challenges. One that stands as before, with an answer more, is not among them.
fn changed(step: &Step, id: DecisionId) -> Vec<(String, Status)> {
    // A challenge is named after the decision that opened it.
    let is_new = |text: &str| ChallengeId::parse(text).is_some_and(|challenge| challenge.decision == id);
    // An end is one only with the decision that made it: that somebody has refused is told before the record is denied.
    let is_changed = |challenge: &&Challenge| match challenge.status {
        Status::Open => is_new(&challenge.id),
        Status::Approved => true,
        _ => challenge.decision_id.is_some(),
    };
    let changed = step.traces.told.iter().filter(is_changed);
    changed.map(|challenge| (challenge.id.clone(), challenge.status)).collect()
}

/// A decision that is not yet committed.
#[derive(Debug)]
struct Shown {
    route: Arc<Route>,
    source: Coordinates,
    parent: Option<TraceParent>,
    id: DecisionId,
    outcome: Outcome,
    /// The challenges that it opened, approved or ended.
    challenges: Vec<(String, Status)>,
    started: SystemTime,
    took: Duration,
}

impl EngineDecider {
    /// A decider over what the gate's lanes share.
    pub fn new(work: Gatework) -> Self {
        Self::with_ids(work, || DecisionId(Uuid::now_v7()))
    }

    /// The same, whose decisions get these ids: none may come twice, from no lane of any gate.
    pub fn with_ids(work: Gatework, ids: impl FnMut() -> DecisionId + Send + 'static) -> Self {
        Self { work, ids: Ids(Box::new(ids)), open: VecDeque::new() }
    }
}

impl Gatework {
    /// The route that takes the answers of that topic, and the source topic whose answers they are.
    fn answered(&self, answers: &Topic) -> Result<(&Arc<Route>, &Topic), DecideError> {
        let found = self.routes.iter().find_map(|(source, route)| {
            let holding = route.holding.as_ref()?;
            (holding.answers.get(source)? == answers).then_some((route, source))
        });
        found.ok_or_else(|| DecideError(format!("no route takes answers of `{answers}`")))
    }
}

/// The held record in a record of the holds topic.
fn payload(kept: &Record) -> Result<Payload, DecideError> {
    let value =
        kept.value.as_deref().ok_or_else(|| DecideError(format!("the payload {} is gone", kept.source)))?;
    holds::decode_payload(value)
        .map_err(|error| DecideError(format!("the payload {} cannot be read: {error}", kept.source)))
}

impl Batch {
    /// One decision about the record at `about`, and its bytes.
    fn step(
        &mut self,
        work: &Gatework,
        route: &Arc<Route>,
        about: &Record,
        counts: &dyn Counted,
        state: &mut PartitionState,
        decide: impl FnOnce(&Moment<'_>, &mut PartitionState) -> Step,
    ) -> Result<Effects, DecideError> {
        let made =
            self.maybe(work, route, about, counts, state, |moment, state| Some(decide(moment, state)))?;
        made.ok_or_else(|| DecideError("nothing was decided".to_owned()))
    }

    /// The turn of a held record: a decision, a reminder, or nothing.
    fn again(
        &mut self,
        work: &Gatework,
        route: &Arc<Route>,
        payload: &Payload,
        (turn, delivery): (Turn, &Delivery),
        counts: &dyn Counted,
        state: &mut PartitionState,
    ) -> Result<Effects, DecideError> {
        let source = &payload.record.source;
        if turn != Turn::Remind {
            let resume = |moment: &Moment<'_>, state: &mut PartitionState| {
                work.engine.resume(route, payload, turn, moment, delivery.clone(), state)
            };
            if let Some(made) = self.maybe(work, route, &payload.record, counts, state, resume)? {
                return Ok(made);
            }
        }
        let reminder = match turn {
            Turn::Remind => work.engine.remind(payload, self.now, state),
            Turn::Decide | Turn::TimedOut => None,
        };
        undecided(&work.codecs, route, source, reminder.unwrap_or_default(), counted(route, source, counts))
            .map_err(|error| DecideError(error.to_string()))
    }

    fn maybe(
        &mut self,
        work: &Gatework,
        route: &Arc<Route>,
        about: &Record,
        counts: &dyn Counted,
        state: &mut PartitionState,
        decide: impl FnOnce(&Moment<'_>, &mut PartitionState) -> Option<Step>,
    ) -> Result<Option<Effects>, DecideError> {
        let (started, clock) = (SystemTime::now(), Instant::now());
        let id = self.id;
        let source_partitions = counts.of(&about.source.topic);
        let moment = Moment { now: self.now, id, snapshot: &self.snapshot, source_partitions };
        let Some(step) = decide(&moment, state) else { return Ok(None) };
        let ahead_ms = step.audit.accepted.saturating_sub(self.now.0);
        if ahead_ms > i64::from(route.skew_s) * 1000 {
            self.ahead.get_or_insert_with(|| (about.source.clone(), ahead_ms));
        }
        let (outcome, challenges) = (Outcome::of(&step), changed(&step, id));
        let counts = counted(route, &about.source, counts);
        let effects = effects(&work.codecs, route, about, step, counts, state)
            .map_err(|error| DecideError(error.to_string()))?;
        self.decided.push(Shown {
            route: route.clone(),
            source: about.source.clone(),
            parent: TraceParent::of(about),
            id,
            outcome,
            challenges,
            started,
            took: clock.elapsed(),
        });
        Ok(Some(effects))
    }
}

fn counted(route: &Route, source: &Coordinates, counts: &dyn Counted) -> PartitionCounts {
    PartitionCounts {
        source: counts.of(&source.topic),
        destination: counts.of(&route.to),
        denied: counts.of(&route.denied),
        audit: counts.of(&route.audit),
        challenges: route.holding.as_ref().map_or(1, |holding| counts.of(&holding.challenges)),
    }
}

impl Decider for EngineDecider {
    type State = PartitionState;

    fn is_current(&self) -> Result<(), String> {
        self.work.freshness.check(Instants::now())
    }

    fn open_batch(&mut self, now: UnixMillis) {
        let (snapshot, id) = (self.work.snapshots.load_full(), DecisionId(Uuid::nil()));
        self.open.push_back(Batch { now, id, snapshot, decided: Vec::new(), ahead: None });
    }

    fn decide(
        &mut self,
        input: Input<'_>,
        counts: &dyn Counted,
        state: &mut PartitionState,
    ) -> Result<Effects, DecideError> {
        let batch = self.open.back_mut().ok_or_else(|| DecideError("no batch is open".to_owned()))?;
        batch.id = (self.ids.0)();
        match input {
            Input::Record(record, delivery) => {
                let route = self
                    .work
                    .routes
                    .get(&record.source.topic)
                    .ok_or_else(|| DecideError(format!("no route reads `{}`", record.source.topic)))?;
                let decide = |moment: &Moment<'_>, state: &mut PartitionState| {
                    self.work.engine.handle(route, record, moment, delivery.clone(), state)
                };
                batch.step(&self.work, route, record, counts, state, decide)
            }
            Input::Answer(answer, held) => {
                let (route, source) = self.work.answered(&answer.source.topic)?;
                let held = held.map(payload).transpose()?;
                let about = Record {
                    source: Coordinates { topic: source.clone(), ..answer.source.clone() },
                    ..answer.clone()
                };
                let decide = |moment: &Moment<'_>, state: &mut PartitionState| {
                    self.work.engine.answer(route, source, answer, held.as_ref(), moment, state)
                };
                batch.step(&self.work, route, &about, counts, state, decide)
            }
            Input::Held(kept, turn, delivery) => {
                let payload = payload(kept)?;
                let source = &payload.record.source;
                let route = self
                    .work
                    .routes
                    .get(&source.topic)
                    .ok_or_else(|| DecideError(format!("no route reads `{}`", source.topic)))?;
                batch.again(&self.work, route, &payload, (turn, delivery), counts, state)
            }
        }
    }

    fn committed(&mut self) {
        let telemetry = &self.work.telemetry;
        let Some(batch) = self.open.pop_front() else { return };
        if let Some((source, ahead_ms)) = &batch.ahead {
            ClockAhead { source, ahead_ms: *ahead_ms }.emit(telemetry);
        }
        for shown in batch.decided {
            Decided {
                route: &shown.route.name,
                source: &shown.source,
                parent: shown.parent,
                id: shown.id,
                outcome: shown.outcome.name,
                denied: shown.outcome.denied,
                effect: shown.outcome.effect,
                started: shown.started,
                took: shown.took,
            }
            .emit(telemetry);
            for (challenge, status) in &shown.challenges {
                let (route, source, status) = (shown.route.name.as_str(), &shown.source, *status);
                ChallengeChanged { route, source, challenge, status }.emit(telemetry);
            }
        }
        let used = self.work.engine.cache().take_counts();
        TokenCacheUsed { hits: used.hits, misses: used.misses }.emit(telemetry);
    }

    fn aborted(&mut self) {
        self.open.clear();
    }
}

impl Drop for EngineDecider {
    /// What became of the transactions of batches that are still open is not known, so that they may yet be committed: what
    /// they were decided by counts as in use for as long as the process lives.
    fn drop(&mut self) {
        for batch in self.open.drain(..) {
            std::mem::forget(batch.snapshot);
        }
    }
}
