//! One named event per fact: its log line, its counter and its place in the status are written together, so that they
//! cannot disagree. Limits: an event holds names of the configuration, numbers, codes and the words of the broker;
//! no token, no key, no header and no sentence that a sender had a part in.
//!
//! What concerns records is emitted only after their transaction was committed: nothing is shown before.

use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;

use super::Telemetry;
use super::status::{SnapshotKind, TopicPartition};
use crate::authorize::decision::Reason;
use crate::authorize::ids::{Coordinates, DecisionId, Realm, Topic, WorkloadId};
use crate::authorize::traceparent::TraceParent;

/// The gate is about to start this many lanes; `/readyz` waits for all of them.
#[derive(Debug)]
pub struct GateStarted<'a> {
    /// The realm it serves.
    pub realm: &'a Realm,
    /// The gate's own identifier.
    pub gate: &'a WorkloadId,
    /// How many lanes it runs.
    pub lanes: usize,
}

impl GateStarted<'_> {
    /// Writes the log line and expects the lanes.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.expect_lanes(self.lanes);
        tracing::info!(
            name: "gate_started",
            realm = self.realm.as_str(),
            gate = self.gate.as_str(),
            lanes = self.lanes,
            version = env!("CARGO_PKG_VERSION"),
            "gate started"
        );
    }
}

/// The gate has ended in good order.
#[derive(Debug)]
pub struct GateStopped;

impl GateStopped {
    /// Writes the log line.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(name: "gate_stopped", "gate stopped");
    }
}

/// One record was decided, and its transaction is committed.
#[derive(Debug)]
pub struct Decided<'a> {
    /// The route's name.
    pub route: &'a str,
    /// Where the record stood.
    pub source: &'a Coordinates,
    /// The record's own trace, if it has one.
    pub parent: Option<TraceParent>,
    /// The decision's id.
    pub id: DecisionId,
    /// Why it was denied; `None` is a forward.
    pub denied: Option<Reason>,
    /// When deciding began.
    pub started: SystemTime,
    /// How long it took.
    pub took: Duration,
}

impl Decided<'_> {
    /// The outcome as the contract names it.
    pub fn outcome(&self) -> &'static str {
        if self.denied.is_some() { "deny" } else { "forward" }
    }

    /// The reason's code; `none` for a forward.
    pub fn reason(&self) -> &'static str {
        self.denied.map_or("none", Reason::as_str)
    }

    /// Counts it, logs it at `debug` and, where traces are exported, makes its span.
    pub fn emit(&self, telemetry: &Telemetry) {
        let route = KeyValue::new("route", self.route.to_owned());
        telemetry
            .inner
            .instruments
            .decision_duration
            .record(self.took.as_secs_f64(), std::slice::from_ref(&route));
        let labels =
            [route, KeyValue::new("outcome", self.outcome()), KeyValue::new("reason", self.reason())];
        telemetry.inner.instruments.decisions.add(1, &labels);
        if let Some(spans) = &telemetry.inner.spans {
            spans.decided(self);
        }
        tracing::debug!(
            name: "decided",
            route = self.route,
            topic = self.source.topic.as_str(),
            partition = self.source.partition.0,
            offset = self.source.offset.0,
            decision = %self.id,
            outcome = self.outcome(),
            reason = self.reason(),
            "record decided"
        );
    }
}

/// A batch was committed: outcomes, audit records, replay entries and positions together.
#[derive(Debug)]
pub struct BatchCommitted {
    /// The lane.
    pub lane: usize,
    /// Records in the batch.
    pub records: usize,
    /// From the request to commit to its answer.
    pub commit: Duration,
}

impl BatchCommitted {
    /// Records size and time, and logs it at `debug`.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.instruments.batch_records.record(self.records as u64, &[]);
        telemetry.inner.instruments.commit_duration.record(self.commit.as_secs_f64(), &[]);
        tracing::debug!(
            name: "batch_committed",
            lane = self.lane,
            records = self.records,
            commit_us = micros(self.commit),
            "batch committed"
        );
    }
}

/// Where a partition stands after a commit: written to the gauges, not to the log.
#[derive(Debug)]
pub struct PartitionProgress<'a> {
    /// The lane.
    pub lane: usize,
    /// The route that reads the partition.
    pub route: &'a str,
    /// The partition.
    pub partition: &'a TopicPartition,
    /// Records behind the end of the partition; `None` leaves what was known.
    pub lag: Option<u64>,
    /// Proofs remembered for it.
    pub replay_entries: usize,
}

impl PartitionProgress<'_> {
    /// Updates the gauges.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.progress(
            self.lane,
            self.partition,
            self.route,
            self.lag,
            self.replay_entries as u64,
        );
    }
}

/// How often the cache of verified tokens answered since the last such event.
#[derive(Debug)]
pub struct TokenCacheUsed {
    /// Look-ups that found a verified token.
    pub hits: u64,
    /// Look-ups that did not, so that a signature was verified.
    pub misses: u64,
}

impl TokenCacheUsed {
    /// Counts the look-ups.
    pub fn emit(&self, telemetry: &Telemetry) {
        let lookups = &telemetry.inner.instruments.token_cache_lookups;
        lookups.add(self.hits, &[KeyValue::new("result", "hit")]);
        lookups.add(self.misses, &[KeyValue::new("result", "miss")]);
    }
}

/// A lane was given partitions; none at all also means that it has joined.
#[derive(Debug)]
pub struct LaneAssigned<'a> {
    /// The lane.
    pub lane: usize,
    /// What it gained; nothing is decided there before [`PartitionRestored`].
    pub partitions: &'a [TopicPartition],
}

impl LaneAssigned<'_> {
    /// Logs it, counts the partitions and shows the lane as restoring.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.assigned(self.lane, self.partitions);
        moved(telemetry, self.partitions, "gained");
        tracing::info!(
            name: "lane_assigned",
            lane = self.lane,
            partitions = written(self.partitions),
            "lane gained partitions"
        );
    }
}

/// A lane gave partitions back, or found that they were taken from it.
#[derive(Debug)]
pub struct LaneRevoked<'a> {
    /// The lane.
    pub lane: usize,
    /// What is gone.
    pub partitions: &'a [TopicPartition],
    /// Whether they were lost, rather than given back in good order.
    pub lost: bool,
}

impl LaneRevoked<'_> {
    /// Logs it, counts the partitions and forgets their gauges.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.revoked(self.lane, self.partitions);
        let partitions = written(self.partitions);
        if self.lost {
            moved(telemetry, self.partitions, "lost");
            tracing::warn!(name: "lane_revoked", lane = self.lane, partitions, lost = true, "lane lost partitions");
        } else {
            moved(telemetry, self.partitions, "given_back");
            tracing::info!(
                name: "lane_revoked",
                lane = self.lane,
                partitions,
                lost = false,
                "lane gave partitions back"
            );
        }
    }
}

/// A gained partition's state has been read back; from here on the lane decides its records.
#[derive(Debug)]
pub struct PartitionRestored<'a> {
    /// The lane.
    pub lane: usize,
    /// The partition.
    pub partition: &'a TopicPartition,
    /// Proofs that were read back.
    pub replay_entries: usize,
    /// How long it took.
    pub took: Duration,
}

impl PartitionRestored<'_> {
    /// Logs it, records the time and shows the partition as restored.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.restored(self.lane, self.partition, self.replay_entries as u64);
        telemetry.inner.instruments.restore_duration.record(self.took.as_secs_f64(), &[]);
        tracing::info!(
            name: "partition_restored",
            lane = self.lane,
            topic = self.partition.0.as_str(),
            partition = self.partition.1.0,
            replay_entries = self.replay_entries,
            took_us = micros(self.took),
            "partition restored"
        );
    }
}

/// Why a transaction was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbortKind {
    /// A partition of the batch was taken away before the commit.
    Revoked,
    /// The broker answered with an error after which the batch can be redone.
    Retriable,
    /// The commit was not answered: its outcome is read from the broker.
    Unclear,
    /// The producer was fenced.
    Fenced,
    /// A record could not be delivered, and the batch is redone without it.
    Undeliverable,
    /// The gate is shutting down.
    Shutdown,
}

impl AbortKind {
    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Retriable => "retriable",
            Self::Unclear => "unclear",
            Self::Fenced => "fenced",
            Self::Undeliverable => "undeliverable",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A batch was not committed: its records will be read and decided again.
#[derive(Debug)]
pub struct TransactionAborted<'a> {
    /// The lane.
    pub lane: usize,
    /// Why, as a code.
    pub kind: AbortKind,
    /// Records in the batch.
    pub records: usize,
    /// What the broker or the client library said.
    pub problem: &'a str,
}

impl TransactionAborted<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let kind = self.kind.as_str();
        telemetry.inner.instruments.transactions_aborted.add(1, &[KeyValue::new("kind", kind)]);
        tracing::warn!(
            name: "transaction_aborted",
            lane = self.lane,
            kind,
            records = self.records,
            problem = self.problem,
            "transaction aborted; its records are decided again"
        );
    }
}

/// Why a transactional producer was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplaceCause {
    /// Fenced, by another with its id or by a transaction that timed out.
    Fenced,
    /// A transaction request was not answered in time.
    TimedOut,
    /// Any other error that the client library calls fatal.
    Fatal,
}

impl ReplaceCause {
    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::TimedOut => "timed_out",
            Self::Fatal => "fatal",
        }
    }
}

/// A new producer with the same transactional id took the place of the old one.
#[derive(Debug)]
pub struct ProducerReplaced<'a> {
    /// The lane.
    pub lane: usize,
    /// Why, as a code.
    pub cause: ReplaceCause,
    /// Which try in a row this is, from 1.
    pub attempt: u32,
    /// What the broker or the client library said.
    pub problem: &'a str,
}

impl ProducerReplaced<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let cause = self.cause.as_str();
        telemetry.inner.instruments.producers_replaced.add(1, &[KeyValue::new("cause", cause)]);
        tracing::warn!(
            name: "producer_replaced",
            lane = self.lane,
            cause,
            attempt = self.attempt,
            problem = self.problem,
            "producer replaced"
        );
    }
}

/// A lane cannot reach its broker. Emit it once; [`LaneResumed`] ends it.
#[derive(Debug)]
pub struct BrokerAway<'a> {
    /// The lane.
    pub lane: usize,
    /// What the client library said.
    pub problem: &'a str,
}

impl BrokerAway<'_> {
    /// Logs and counts it, and shows the lane as away.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.away(self.lane, self.problem);
        telemetry.inner.instruments.broker_away.add(1, &[]);
        tracing::warn!(name: "broker_away", lane = self.lane, problem = self.problem, "broker is away");
    }
}

/// A lane holds back on purpose. [`LaneResumed`] ends it.
#[derive(Debug)]
pub struct LanePaused<'a> {
    /// The lane.
    pub lane: usize,
    /// Why, for an operator.
    pub reason: &'a str,
}

impl LanePaused<'_> {
    /// Logs it and shows the lane as paused.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.paused(self.lane, self.reason);
        tracing::warn!(name: "lane_paused", lane = self.lane, reason = self.reason, "lane paused");
    }
}

/// A lane goes on after it was paused or its broker was away.
#[derive(Debug)]
pub struct LaneResumed {
    /// The lane.
    pub lane: usize,
}

impl LaneResumed {
    /// Logs it and shows the lane as running.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.resumed(self.lane);
        tracing::info!(name: "lane_resumed", lane = self.lane, "lane resumed");
    }
}

/// A lane has ended: in good order, or because it cannot go on.
#[derive(Debug)]
pub struct LaneStopped<'a> {
    /// The lane.
    pub lane: usize,
    /// What ended it; `None` is a shutdown that was asked for.
    pub problem: Option<&'a str>,
}

impl LaneStopped<'_> {
    /// Logs it and shows the lane as stopped.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.stopped(self.lane, self.problem.unwrap_or("shut down"));
        match self.problem {
            Some(problem) => tracing::error!(name: "lane_stopped", lane = self.lane, problem, "lane failed"),
            None => tracing::info!(name: "lane_stopped", lane = self.lane, "lane stopped"),
        }
    }
}

/// A new snapshot decides from the next batch on.
#[derive(Debug)]
pub struct SnapshotLoaded<'a> {
    /// Which.
    pub snapshot: SnapshotKind,
    /// Its version or digest.
    pub version: &'a str,
}

impl SnapshotLoaded<'_> {
    /// Logs and counts it, and starts its age.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.loaded(self.snapshot, self.version);
        count_load(telemetry, self.snapshot, "loaded");
        tracing::info!(
            name: "snapshot_loaded",
            snapshot = self.snapshot.as_str(),
            version = self.version,
            "snapshot loaded"
        );
    }
}

/// What was offered as a new snapshot is not fit to decide; the last good one stays.
#[derive(Debug)]
pub struct SnapshotRefused<'a> {
    /// Which.
    pub snapshot: SnapshotKind,
    /// What is wrong with it: never the text of a key.
    pub problem: &'a str,
}

impl SnapshotRefused<'_> {
    /// Logs and counts it, and shows the snapshot as stale.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.refused(self.snapshot);
        count_load(telemetry, self.snapshot, "refused");
        tracing::error!(
            name: "snapshot_refused",
            snapshot = self.snapshot.as_str(),
            problem = self.problem,
            "snapshot refused; the last good one stays"
        );
    }
}

/// The gate made a topic of its own that was missing.
#[derive(Debug)]
pub struct TopicCreated<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// Its partition count.
    pub partitions: i32,
}

impl TopicCreated<'_> {
    /// Logs it.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(
            name: "topic_created",
            topic = self.topic.as_str(),
            partitions = self.partitions,
            "topic created"
        );
    }
}

fn count_load(telemetry: &Telemetry, snapshot: SnapshotKind, result: &'static str) {
    let labels = [KeyValue::new("snapshot", snapshot.as_str()), KeyValue::new("result", result)];
    telemetry.inner.instruments.snapshot_loads.add(1, &labels);
}

fn moved(telemetry: &Telemetry, partitions: &[TopicPartition], direction: &'static str) {
    let labels = [KeyValue::new("direction", direction)];
    telemetry.inner.instruments.partitions_moved.add(partitions.len() as u64, &labels);
}

fn written(partitions: &[TopicPartition]) -> String {
    let names: Vec<String> =
        partitions.iter().map(|(topic, partition)| format!("{topic}/{partition}")).collect();
    names.join(" ")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
