//! What becomes of records: decisions, batches, transactions and the producers that carry them. Limits: emitted after
//! the transaction was answered, never before.

use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;

use super::micros;
use crate::authorize::decision::Reason;
use crate::authorize::ids::{Coordinates, DecisionId};
use crate::authorize::step_up::Status;
use crate::authorize::traceparent::TraceParent;
use crate::telemetry::{HeldStatus, Telemetry, TopicPartition};

/// A broker's clock is ahead of the gate's by more than the tolerance: what it takes is denied as `token_not_yet_valid`.
/// Said once for each batch.
#[derive(Debug)]
pub struct ClockAhead<'a> {
    /// A record that shows it.
    pub source: &'a Coordinates,
    /// By how much, in milliseconds.
    pub ahead_ms: i64,
}

impl ClockAhead<'_> {
    /// Logs it.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::error!(
            name: "clock_ahead",
            topic = self.source.topic.as_str(),
            partition = self.source.partition.0,
            offset = self.source.offset.0,
            ahead_ms = self.ahead_ms,
            "a broker's clock is ahead of the gate's; its records are denied"
        );
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
    /// The outcome as the contract names it: `forward`, `deny`, `hold`, `wait` or `answer`.
    pub outcome: &'static str,
    /// Why it was denied, if it was.
    pub denied: Option<Reason>,
    /// What an answer to a challenge came to, where one was taken in.
    pub effect: Option<&'static str>,
    /// When deciding began.
    pub started: SystemTime,
    /// How long it took.
    pub took: Duration,
}

impl Decided<'_> {
    /// The reason's code; of an answer its effect; else `none`.
    pub fn reason(&self) -> &'static str {
        self.denied.map(Reason::as_str).or(self.effect).unwrap_or("none")
    }

    /// Counts it, logs it at `debug` and, where traces are exported, makes its span.
    pub fn emit(&self, telemetry: &Telemetry) {
        let route = KeyValue::new("route", self.route.to_owned());
        telemetry
            .inner
            .instruments
            .decision_duration
            .record(self.took.as_secs_f64(), std::slice::from_ref(&route));
        let labels = [route, KeyValue::new("outcome", self.outcome), KeyValue::new("reason", self.reason())];
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
            outcome = self.outcome,
            reason = self.reason(),
            "record decided"
        );
    }
}

/// A challenge of a record that is held was opened, approved, or has ended, and the transaction that says so is committed. A
/// reminder and an answer that is one of several change nothing here.
#[derive(Debug)]
pub struct ChallengeChanged<'a> {
    /// The route's name.
    pub route: &'a str,
    /// Where the held record stood.
    pub source: &'a Coordinates,
    /// The challenge's id.
    pub challenge: &'a str,
    /// How it stands: `open`, `approved`, or one of its ends.
    pub status: Status,
}

impl ChallengeChanged<'_> {
    /// Counts it and logs it at `debug`.
    pub fn emit(&self, telemetry: &Telemetry) {
        let status = self.status.as_str();
        let labels = [KeyValue::new("route", self.route.to_owned()), KeyValue::new("status", status)];
        telemetry.inner.instruments.challenges.add(1, &labels);
        tracing::debug!(
            name: "challenge_changed",
            route = self.route,
            topic = self.source.topic.as_str(),
            partition = self.source.partition.0,
            offset = self.source.offset.0,
            challenge = self.challenge,
            status,
            "challenge changed"
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
    /// What is held of it; `None` where the route does not hold.
    pub held: Option<HeldStatus>,
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
            self.held,
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
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Revoked, Self::Retriable, Self::Unclear, Self::Fenced, Self::Undeliverable, Self::Shutdown];

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
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::Fenced, Self::TimedOut, Self::Fatal];

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
