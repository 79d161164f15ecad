//! A lane: one thread with a member of the group, a transactional producer and a decider. It reads a batch, decides it,
//! and commits outcomes, audit records, replay entries and positions in one transaction. Limits: how a gained partition
//! is made ready stands in [`super::restore`]; what the log does, behind [`super::log`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::assignment::{Owned, Stage};
use super::clock::Clock;
use super::decider::{Decider, Delivery, PartitionCounts, Remembered as _};
use super::log::{Cause, Event, Log, LogError, Mark, ProducerFate, Refusal, Tag, TopicPartition};
use super::restore::ENTRIES_KEY;
use crate::authorize::ids::{Coordinates, Topic, UnixMillis};
use crate::authorize::record::Record;
use crate::config::Start;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{
    AbortKind, BatchCommitted, BrokerAway, LaneAssigned, LanePaused, LaneResumed, LaneRevoked, LaneStopped,
    PartitionProgress, ProducerReplaced, ReplaceCause, TransactionAborted,
};
use crate::wire::outgoing::Outgoing;

/// What a lane must know of a source topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The route that reads it.
    pub route: String,
    /// Its replay topic, with as many partitions.
    pub replay: Topic,
    /// Where it begins.
    pub start: Start,
    /// How long a proof is remembered.
    pub window: Duration,
}

/// What a topic takes, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicLimits {
    /// The largest batch of records, in bytes.
    pub max_bytes: Option<usize>,
    /// Whether a null key is refused.
    pub compacted: bool,
}

impl TopicLimits {
    /// What a batch and a record cost beside their bytes, at most (Kafka's record batch, version 2).
    const OVERHEAD: usize = 61 + 32;
    const HEADER_OVERHEAD: usize = 10;

    /// Why the topic will not take this record, if that is certain.
    fn refuse(self, record: &Outgoing) -> Option<&'static str> {
        if self.compacted && record.key.is_none() {
            return Some("the topic is compacted and the record has no key");
        }
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = record
            .headers
            .iter()
            .map(|header| header.name.len() + length(&header.value) + Self::HEADER_OVERHEAD)
            .sum();
        let size = Self::OVERHEAD + length(&record.key) + length(&record.value) + headers;
        self.max_bytes.filter(|max| size > *max).map(|_| "the record is larger than the topic takes")
    }
}

/// How a lane works.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// The lane's number in its gate.
    pub lane: usize,
    /// The source topics.
    pub sources: BTreeMap<Topic, Source>,
    /// The topics that outcomes and audit records go to.
    pub targets: Vec<Topic>,
    /// What those topics take. A record that one will not take is found before it is sent; without an entry, by the
    /// broker's refusal.
    pub limits: BTreeMap<Topic, TopicLimits>,
    /// Records in one transaction, at most; at least 1.
    pub batch: usize,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// After how long the broker aborts a transaction. A batch that takes a quarter of it to decide is cut short.
    pub transaction_timeout: Duration,
    /// How often in a row a producer that was refused as replaced is made anew.
    pub fenced_tries: u32,
}

/// Asks lanes to end.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks for the end: the batch in hand is committed or aborted, and the group left.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }
    /// Whether the end was asked for.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a lane ended without being asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// Its membership is gone: another lane has the same instance name, or the group refuses it.
    #[error("the lane's membership has ended: {0}")]
    Membership(Cause),
    /// Its producer was refused again and again: another lane writes with the same id.
    #[error("the lane's producer was replaced by another {tries} times in a row: {cause}")]
    Producer {
        /// How often.
        tries: u32,
        /// The last refusal.
        cause: Cause,
    },
}

/// Between two looks at the log when there is nothing to do.
const IDLE: Duration = Duration::from_millis(100);
/// The same while partitions are being restored.
const BUSY: Duration = Duration::from_millis(5);
/// The first wait after a failure; it doubles to the last.
const FIRST_BACK_OFF: Duration = Duration::from_millis(10);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);
/// More aborts in a row than this are shown as an absent log.
const ABORTS_BEFORE_AWAY: u32 = 3;
/// Between two rounds of showing where idle partitions stand.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Between two looks at how many partitions the topics have.
const RECOUNT: Duration = Duration::from_secs(60);
/// How long leaving the group may take: afterwards the broker's session ends it.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// One lane.
pub struct Lane<L, D: Decider, C> {
    pub(super) log: L,
    decider: D,
    pub(super) clock: C,
    pub(super) settings: LaneSettings,
    pub(super) telemetry: Telemetry,
    pub(super) owned: BTreeMap<TopicPartition, Owned<D::State>>,
    pub(super) counts: Counts,
    /// Whether the reader of replay topics reads every partition that is at that stage.
    pub(super) reading_back: bool,
    batch: VecDeque<Record>,
    /// What earlier tries have shown about records that come again.
    known: HashMap<Coordinates, Delivery>,
    /// So many records are decided one a transaction, to find which of them the log refuses.
    singly: usize,
    producer: ProducerFate,
    fenced: u32,
    failures: u32,
    /// Whether a batch was aborted and none has been committed since.
    redo: bool,
    away: bool,
    problem: String,
    next_housekeeping: Duration,
    next_recount: Duration,
}

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// A lane that has not joined yet.
    pub fn new(log: L, decider: D, clock: C, settings: LaneSettings, telemetry: Telemetry) -> Self {
        Self {
            log,
            decider,
            clock,
            settings,
            telemetry,
            owned: BTreeMap::new(),
            counts: Counts::default(),
            reading_back: false,
            batch: VecDeque::new(),
            known: HashMap::new(),
            singly: 0,
            producer: ProducerFate::Usable,
            fenced: 0,
            failures: 0,
            redo: false,
            away: false,
            problem: String::new(),
            next_housekeeping: Duration::ZERO,
            next_recount: Duration::ZERO,
        }
    }

    /// Works until it is asked to stop, or cannot go on. A broker that is away is waited for.
    pub fn run(&mut self, stop: &Stop) -> Result<(), LaneError> {
        let result = self.work(stop);
        if result.is_ok() {
            self.leave();
        }
        let problem = result.as_ref().err().map(ToString::to_string);
        LaneStopped { lane: self.settings.lane, problem: problem.as_deref() }.emit(&self.telemetry);
        result
    }

    fn work(&mut self, stop: &Stop) -> Result<(), LaneError> {
        while !stop.asked() {
            match self.join() {
                Ok(()) => break,
                Err(error) => self.recover(error)?,
            }
        }
        while !stop.asked() {
            self.round()?;
        }
        Ok(())
    }

    pub(super) fn join(&mut self) -> Result<(), LogError> {
        self.log.join()
    }

    /// One turn, and what is to be done where it failed.
    pub(super) fn round(&mut self) -> Result<(), LaneError> {
        match self.turn() {
            Ok(()) => Ok(()),
            Err(error) => self.recover(error),
        }
    }

    /// One round: read, decide and commit, bring gained partitions closer to ready, show where they stand.
    fn turn(&mut self) -> Result<(), LogError> {
        self.fill()?;
        self.renew()?;
        self.decide_batch()?;
        self.restore()?;
        self.keep_house()?;
        if !self.redo
            && self.owned.values().all(|owned| matches!(owned.stage, Stage::Ready | Stage::Refused(_)))
        {
            self.succeeded();
        }
        Ok(())
    }

    /// Reads until the batch is full, its linger is over, or nothing comes.
    fn fill(&mut self) -> Result<(), LogError> {
        let mut opened = None;
        while self.batch.len() < self.settings.batch.max(1) {
            let wait = match opened {
                Some(at) => self.settings.linger.saturating_sub(self.clock.elapsed().saturating_sub(at)),
                None if !self.batch.is_empty() => Duration::ZERO,
                None if self.is_restoring() => BUSY,
                None => IDLE,
            };
            match self.log.poll(wait)? {
                Event::Record(record) => {
                    if self.take(record) && opened.is_none() {
                        opened = Some(self.clock.elapsed());
                    }
                }
                Event::Assigned(partitions) => self.gained(partitions),
                Event::Revoked(partitions) => self.gone(&partitions, false),
                Event::Lost(partitions) => self.gone(&partitions, true),
                Event::Idle => match opened {
                    Some(at) if self.clock.elapsed().saturating_sub(at) < self.settings.linger => {}
                    _ => break,
                },
            }
        }
        Ok(())
    }

    /// Replaces the producer where it is of no more use.
    fn renew(&mut self) -> Result<(), LogError> {
        let cause = match self.producer {
            ProducerFate::Usable => return Ok(()),
            ProducerFate::Unclear => ReplaceCause::TimedOut,
            ProducerFate::Fenced => ReplaceCause::Fenced,
        };
        self.log.renew()?;
        self.producer = ProducerFate::Usable;
        let attempt = self.failures;
        ProducerReplaced { lane: self.settings.lane, cause, attempt, problem: &self.problem }
            .emit(&self.telemetry);
        Ok(())
    }

    /// Takes a record into the batch, unless it is of a partition that is not ready, or has been taken before.
    fn take(&mut self, record: Record) -> bool {
        match self.owned.get_mut(&TopicPartition::of(&record)) {
            Some(owned) if owned.is_ready() && record.source.offset.0 >= owned.next.0 => {
                owned.next = record.source.offset.next();
                self.batch.push_back(record);
                true
            }
            _ => false,
        }
    }

    fn is_restoring(&self) -> bool {
        self.owned.values().any(|owned| !matches!(owned.stage, Stage::Ready | Stage::Refused(_)))
    }

    fn gained(&mut self, partitions: Vec<TopicPartition>) {
        self.next_recount = Duration::ZERO;
        let pairs: Vec<_> = partitions.iter().map(TopicPartition::pair).collect();
        LaneAssigned { lane: self.settings.lane, partitions: &pairs }.emit(&self.telemetry);
        let now = self.clock.elapsed();
        for partition in partitions {
            let live =
                self.settings.sources.get(&partition.topic).map_or(Duration::ZERO, |source| source.window);
            self.owned.insert(partition, Owned::gained(now, live));
        }
    }

    /// INVARIANT: the lane has nothing to commit here, and records of these partitions that were read and not decided never
    /// will be: their new owner reads them again.
    fn gone(&mut self, partitions: &[TopicPartition], lost: bool) {
        let pairs: Vec<_> = partitions.iter().map(TopicPartition::pair).collect();
        LaneRevoked { lane: self.settings.lane, partitions: &pairs, lost }.emit(&self.telemetry);
        for partition in partitions {
            self.owned.remove(partition);
        }
        self.redo &= !self.owned.is_empty();
        self.batch.retain(|record| !partitions.contains(&TopicPartition::of(record)));
        self.known.retain(|at, _| {
            !partitions.iter().any(|gone| gone.topic == at.topic && gone.partition == at.partition)
        });
    }

    /// Decides the batch in one transaction, or in several where deciding takes long.
    pub(super) fn decide_batch(&mut self) -> Result<(), LogError> {
        while !self.batch.is_empty() {
            let taken = self.decide_some()?;
            self.batch.drain(..taken.min(self.batch.len()));
            self.singly = self.singly.saturating_sub(taken);
        }
        Ok(())
    }

    /// One transaction; returns how many records of the batch it holds.
    fn decide_some(&mut self) -> Result<usize, LogError> {
        let limit = if self.singly > 0 { 1 } else { self.settings.batch.max(1) };
        let began = self.clock.elapsed();
        self.decider.open_batch(self.clock.now());
        self.log.begin()?;
        let mut touched: Vec<TopicPartition> = Vec::new();
        let mut marks: Vec<Mark> = Vec::new();
        let mut taken = 0;
        // Records that will not be taken, known before anything is sent: the batch is redone with them denied.
        let mut doomed: Vec<Refusal> = Vec::new();
        while taken < limit {
            let Some(record) = self.batch.get(taken) else { break };
            // A transaction that the broker times out costs the producer: better two batches.
            if taken > 0 && (self.clock.elapsed() - began) * 4 > self.settings.transaction_timeout {
                break;
            }
            let of = TopicPartition::of(record);
            let Some(owned) = self.owned.get_mut(&of) else {
                return Err(gate_fault(format!("a record of {of}, which the lane does not own")));
            };
            let place = match touched.iter().position(|known| *known == of) {
                Some(place) => place,
                None => {
                    owned.state.begin();
                    touched.push(of.clone());
                    marks.push(Mark { of, position: record.source.offset.next(), metadata: String::new() });
                    touched.len() - 1
                }
            };
            let delivery = self.known.get(&record.source).unwrap_or(&Delivery::Open);
            let effects = match self.decider.decide(record, delivery, &self.counts, &mut owned.state) {
                Ok(effects) => effects,
                Err(error) => {
                    let text = format!("record {} could not be decided: {error}", record.source);
                    self.refuse(&TopicPartition::of(record), text.clone());
                    return Err(gate_fault(text));
                }
            };
            for (tag, record) in
                [(Tag::Outcome(taken), &effects.outcome), (Tag::Audit(taken), &effects.audit)]
            {
                let limits = self.settings.limits.get(&record.topic).copied().unwrap_or_default();
                if let Some(why) = limits.refuse(record) {
                    doomed.push(Refusal { tag, why: why.to_owned(), certain: true });
                } else if doomed.is_empty() {
                    self.log.append(tag, record)?;
                }
            }
            if let Some(mark) = marks.get_mut(place) {
                mark.position = record.source.offset.next();
            }
            taken += 1;
        }
        if !doomed.is_empty() {
            self.learn(&doomed);
            return Err(gate_fault(format!("{} records will not be taken", doomed.len())));
        }
        let writers = self.log.writers();
        let mut proofs: BTreeMap<usize, (UnixMillis, UnixMillis)> = BTreeMap::new();
        for (index, mark) in marks.iter_mut().enumerate() {
            let Some(owned) = self.owned.get(&mark.of) else { continue };
            if let Some(batch) = owned.state.replay_batch() {
                let topic = self.settings.sources.get(&mark.of.topic).map(|source| source.replay.clone());
                let Some(topic) = topic else {
                    return Err(gate_fault(format!("no replay topic for `{}`", mark.of.topic)));
                };
                proofs.insert(index, (batch.oldest, batch.newest));
                let entries = Outgoing {
                    topic,
                    partition: mark.of.partition,
                    timestamp: None,
                    key: Some(Bytes::from_static(ENTRIES_KEY)),
                    value: Some(Bytes::from(batch.value)),
                    headers: Vec::new(),
                };
                self.log.append(Tag::Replay(index), &entries)?;
            }
            mark.metadata = owned.metadata(&writers).map_err(|error| gate_fault(error.to_string()))?;
        }
        self.log.send_positions(&marks)?;
        let asked = self.clock.elapsed();
        let receipts = self.log.commit()?;
        let commit = self.clock.elapsed().saturating_sub(asked);
        for (index, mark) in marks.iter().enumerate() {
            let Some(owned) = self.owned.get_mut(&mark.of) else { continue };
            owned.state.commit();
            owned.position = Some(mark.position);
            if let (Some(offset), Some((oldest, newest))) = (receipts.get(&index), proofs.get(&index)) {
                owned.remember(*offset, *newest);
                owned.forget(*oldest);
            }
        }
        self.decider.committed();
        BatchCommitted { lane: self.settings.lane, records: taken, commit }.emit(&self.telemetry);
        for mark in &marks {
            self.show_progress(&mark.of);
        }
        for record in self.batch.iter().take(taken) {
            self.known.remove(&record.source);
        }
        self.succeeded();
        Ok(taken)
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.fenced = 0;
        self.redo = false;
        if std::mem::take(&mut self.away) {
            LaneResumed { lane: self.settings.lane }.emit(&self.telemetry);
        }
    }

    fn show_progress(&self, of: &TopicPartition) {
        let (Some(owned), Some(source)) = (self.owned.get(of), self.settings.sources.get(&of.topic)) else {
            return;
        };
        let lag = match (self.log.known_end(of), owned.position) {
            (Some(end), Some(position)) => u64::try_from(end.0 - position.0).ok(),
            _ => None,
        };
        PartitionProgress {
            lane: self.settings.lane,
            route: &source.route,
            partition: &of.pair(),
            lag,
            replay_entries: owned.state.remembered(),
        }
        .emit(&self.telemetry);
    }

    fn away(&mut self, problem: &str) {
        if !std::mem::replace(&mut self.away, true) {
            BrokerAway { lane: self.settings.lane, problem }.emit(&self.telemetry);
        }
    }

    /// Brings the lane back to where it can go on, or ends it.
    pub(super) fn recover(&mut self, error: LogError) -> Result<(), LaneError> {
        self.failures = self.failures.saturating_add(1);
        match error {
            LogError::Fatal(cause) => return Err(LaneError::Membership(cause)),
            LogError::Retriable(cause) => self.away(&cause.to_string()),
            LogError::AbortAndRewind { cause, producer } => {
                self.problem = cause.to_string();
                self.redo = true;
                self.rewind(producer)?;
                if self.failures > ABORTS_BEFORE_AWAY {
                    self.away(&cause.to_string());
                }
                if producer == ProducerFate::Fenced {
                    self.fenced = self.fenced.saturating_add(1);
                    if self.fenced > self.settings.fenced_tries {
                        return Err(LaneError::Producer { tries: self.settings.fenced_tries, cause });
                    }
                }
            }
        }
        let doublings = self.failures.saturating_sub(1).min(10);
        self.clock.sleep((FIRST_BACK_OFF * 2u32.pow(doublings)).min(LAST_BACK_OFF));
        Ok(())
    }

    /// Nothing of the open batch has happened: its state is dropped and its records will be read again.
    fn rewind(&mut self, producer: ProducerFate) -> Result<(), LaneError> {
        if producer == ProducerFate::Usable {
            match self.log.abort() {
                Ok(()) => {}
                Err(LogError::Fatal(cause)) => return Err(LaneError::Membership(cause)),
                // Whether it was aborted is unknown: a new producer ends it for certain.
                Err(_) => self.producer = ProducerFate::Unclear,
            }
        } else {
            self.producer = producer;
        }
        if self.producer != ProducerFate::Usable {
            self.log.discard();
        }
        let refusals = self.log.refusals();
        self.learn(&refusals);
        let kind = match producer {
            ProducerFate::Usable if !refusals.is_empty() => AbortKind::Undeliverable,
            ProducerFate::Usable => AbortKind::Retriable,
            ProducerFate::Unclear => AbortKind::Unclear,
            ProducerFate::Fenced => AbortKind::Fenced,
        };
        TransactionAborted {
            lane: self.settings.lane,
            kind,
            records: self.batch.len(),
            problem: &self.problem,
        }
        .emit(&self.telemetry);
        self.decider.aborted();
        self.batch.clear();
        let again: Vec<TopicPartition> =
            self.owned.iter().filter(|(_, owned)| owned.is_ready()).map(|(of, _)| of.clone()).collect();
        for owned in self.owned.values_mut() {
            owned.rewind();
        }
        if let Err(error) = self.log.pause(&again) {
            // Their records are dropped on arrival until they are ready again; it only costs the reading.
            tracing::debug!(%error, "partitions could not be paused");
        }
        Ok(())
    }

    /// A refused record is denied as undeliverable when it comes again; a refused dead letter loses its value. Where
    /// the log did not say which record of a group it refused, they are tried one by one.
    fn learn(&mut self, refusals: &[Refusal]) {
        if refusals.iter().any(|refusal| !refusal.certain) {
            self.singly = self.batch.len();
            return;
        }
        for refusal in refusals {
            let (Tag::Outcome(index) | Tag::Audit(index) | Tag::Replay(index)) = refusal.tag;
            let Some(record) = self.batch.get(index).cloned() else { continue };
            let at = record.source.clone();
            let stop = |what: &str| format!("{what} of {at} is refused: {}", refusal.why);
            match (refusal.tag, self.known.get(&record.source)) {
                (Tag::Outcome(_), None) => {
                    tracing::warn!(record = %at, why = refusal.why, "outcome refused; it will be denied");
                    self.known.insert(record.source, Delivery::Undeliverable(refusal.why.clone()));
                }
                (Tag::Outcome(_), Some(Delivery::Open | Delivery::Undeliverable(_))) => {
                    tracing::warn!(record = %at, why = refusal.why, "dead letter refused; its value is left out");
                    self.known.insert(record.source, Delivery::Bare(refusal.why.clone()));
                }
                (Tag::Outcome(_), Some(Delivery::Bare(_))) => {
                    self.refuse(&TopicPartition::of(&record), stop("even a dead letter without the value"));
                }
                // No decision leaves without its audit record.
                (Tag::Audit(_), _) => self.refuse(&TopicPartition::of(&record), stop("the audit record")),
                (Tag::Replay(_), _) => {}
            }
        }
    }

    /// Stops deciding a partition, loudly: a person has to look.
    pub(super) fn refuse(&mut self, of: &TopicPartition, why: String) {
        let reason = format!("partition {of} is stopped: {why}");
        LanePaused { lane: self.settings.lane, reason: &reason }.emit(&self.telemetry);
        if let Some(owned) = self.owned.get_mut(of) {
            owned.state.abort();
            owned.stage = Stage::Refused(why);
        }
        if let Err(error) = self.log.pause(std::slice::from_ref(of)) {
            tracing::debug!(%error, "a partition could not be paused");
        }
    }

    fn keep_house(&mut self) -> Result<(), LogError> {
        let elapsed = self.clock.elapsed();
        if elapsed < self.next_housekeeping {
            return Ok(());
        }
        self.next_housekeeping = elapsed + HOUSEKEEPING;
        for of in self.owned.keys().filter(|of| self.owned.get(*of).is_some_and(Owned::is_ready)) {
            self.show_progress(of);
        }
        if elapsed >= self.next_recount && !self.counts.0.is_empty() {
            self.recount()?;
        }
        Ok(())
    }

    /// Asks how many partitions each topic has.
    pub(super) fn recount(&mut self) -> Result<(), LogError> {
        let topics: Vec<Topic> =
            self.settings.targets.iter().chain(self.settings.sources.keys()).cloned().collect();
        for topic in topics {
            let count = self.log.partition_count(&topic)?;
            self.counts.0.insert(topic, count);
        }
        self.next_recount = self.clock.elapsed() + RECOUNT;
        Ok(())
    }

    /// Leaves the group in order. Static members too are gone at once this way, where closing alone keeps a standby
    /// waiting for the session to end.
    fn leave(&mut self) {
        self.log.leave();
        let deadline = self.clock.elapsed() + LEAVE_WITHIN;
        while !(self.owned.is_empty() && self.log.has_left()) && self.clock.elapsed() < deadline {
            match self.log.poll(BUSY) {
                Ok(Event::Revoked(partitions)) => self.gone(&partitions, false),
                Ok(Event::Lost(partitions)) => self.gone(&partitions, true),
                Ok(_) | Err(LogError::Retriable(_)) => {}
                Err(_) => break,
            }
        }
    }
}

/// A fault of the gate itself, not of the log: the batch is aborted.
pub(super) fn gate_fault(detail: String) -> LogError {
    LogError::AbortAndRewind { cause: Cause { call: "decide", detail }, producer: ProducerFate::Usable }
}

/// How many partitions the topics have.
#[derive(Debug, Default)]
pub(super) struct Counts(pub(super) BTreeMap<Topic, i32>);

impl PartitionCounts for Counts {
    fn of(&self, topic: &Topic) -> i32 {
        self.0.get(topic).copied().unwrap_or(1).max(1)
    }
}
