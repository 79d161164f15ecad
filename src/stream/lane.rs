//! A lane: one thread with a member of the group, a transactional producer and a decider. It reads a batch, decides it,
//! and commits outcomes, audit records, replay entries and positions in one transaction. Limits: how a gained partition
//! is made ready stands in `restore`; what the log does, behind [`super::log`].

mod answers;
mod batch;
mod held;
mod held_back;
mod recover;
mod settings;
mod standstill;
mod transaction;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

pub use self::settings::{HoldTopics, LaneError, LaneSettings, Source, Stop, TopicLimits};

use self::batch::{Known, Work};
use self::transaction::Transaction;

use super::assignment::{Owned, Stage};
use super::breaker::Breaker;
use super::clock::Clock;
use super::decider::{Decider, PartitionCounts, Remembered as _};
use super::log::{Cause, Event, Log, LogError, ProducerFate, TopicPartition};
use crate::authorize::ids::{Coordinates, Topic, UnixMillis};
use crate::telemetry::events::{
    BrokerAway, LaneAssigned, LanePaused, LaneResumed, LaneRevoked, LaneStopped, PartitionProgress,
    ProducerReplaced, ReplaceCause,
};
use crate::telemetry::{HeldStatus, Telemetry};

/// Between two looks at the log when there is nothing to do.
const IDLE: Duration = Duration::from_millis(100);
/// The same while partitions are being restored.
const BUSY: Duration = Duration::from_millis(5);
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
    /// Whether the reader of answers follows every partition that is ready and holds.
    pub(super) following: bool,
    batch: VecDeque<Work>,
    /// The number of the batch's first input, among all that were ever taken in.
    first: usize,
    /// The transaction that is being committed: its inputs are the first of the batch.
    handed: Option<Transaction>,
    /// What earlier tries have shown about records that come again.
    known: HashMap<Coordinates, Known>,
    /// So many records are decided one a transaction, to find which of them the log refuses.
    singly: usize,
    producer: ProducerFate,
    fenced: u32,
    failures: u32,
    /// Whether a batch was aborted and none has been committed since.
    redo: bool,
    away: bool,
    /// Whether it holds still because the decider's view is too old.
    stale: bool,
    /// The breaker of each route that has one.
    breakers: BTreeMap<String, Breaker>,
    /// Partitions that are paused because the breaker of their route is open.
    held_back: BTreeSet<TopicPartition>,
    /// Which partition is looked at first for answers and held records: each in turn.
    turn: usize,
    problem: String,
    next_housekeeping: Duration,
    next_recount: Duration,
}

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// A lane that has not joined yet.
    pub fn new(log: L, decider: D, clock: C, settings: LaneSettings, telemetry: Telemetry) -> Self {
        let breakers = settings.sources.values().filter_map(|source| {
            Some((source.route.clone(), Breaker::new(source.breaker?, settings.try_again.clone())))
        });
        Self {
            breakers: breakers.collect(),
            held_back: BTreeSet::new(),
            log,
            decider,
            clock,
            settings,
            telemetry,
            owned: BTreeMap::new(),
            counts: Counts::default(),
            reading_back: false,
            following: true,
            batch: VecDeque::new(),
            first: 0,
            handed: None,
            known: HashMap::new(),
            singly: 0,
            producer: ProducerFate::Usable,
            fenced: 0,
            failures: 0,
            redo: false,
            away: false,
            stale: false,
            turn: 0,
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
        self.hold_back()?;
        self.fill()?;
        self.renew()?;
        if self.is_current()? {
            self.decide_batch()?;
            self.look_at_timers()?;
        }
        self.restore()?;
        self.end_orphans()?;
        self.keep_house()?;
        if !self.redo && !self.is_restoring() {
            self.succeeded();
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
        self.decider.aborted();
        let attempt = self.failures;
        ProducerReplaced { lane: self.settings.lane, cause, attempt, problem: &self.problem }
            .emit(&self.telemetry);
        Ok(())
    }

    fn is_restoring(&self) -> bool {
        self.owned.values().any(|owned| owned.stage.is_restoring())
    }

    fn gained(&mut self, partitions: Vec<TopicPartition>) {
        self.next_recount = Duration::ZERO;
        let pairs: Vec<_> = partitions.iter().map(TopicPartition::pair).collect();
        LaneAssigned { lane: self.settings.lane, partitions: &pairs }.emit(&self.telemetry);
        let now = self.clock.elapsed();
        for partition in partitions {
            let source = self.settings.sources.get(&partition.topic);
            let live = source.map_or(Duration::ZERO, |source| source.window);
            let holds = source.is_some_and(|source| source.holding.is_some());
            self.owned.insert(partition, Owned::gained(now, live, holds));
        }
    }

    /// INVARIANT: the lane has nothing to commit here, and records of these partitions that were read and not decided never
    /// will be: their new owner reads them again.
    fn gone(&mut self, partitions: &[TopicPartition], lost: bool) {
        let pairs: Vec<_> = partitions.iter().map(TopicPartition::pair).collect();
        LaneRevoked { lane: self.settings.lane, partitions: &pairs, lost }.emit(&self.telemetry);
        for partition in partitions {
            let owned = self.owned.remove(partition);
            self.following &= owned.is_none_or(|owned| owned.holding.is_none());
        }
        self.redo &= !self.owned.is_empty();
        self.batch.retain(|work| !partitions.contains(&work.of));
        self.known.retain(|_, known| !partitions.contains(&known.of));
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.fenced = 0;
        self.redo = false;
        if std::mem::take(&mut self.away) {
            LaneResumed { lane: self.settings.lane }.emit(&self.telemetry);
            // It does not go on where a person has to look.
            for (of, owned) in &self.owned {
                if let Stage::Refused(why) = &owned.stage {
                    self.tell_stopped(of, why);
                }
            }
        }
    }

    pub(super) fn tell_stopped(&self, of: &TopicPartition, why: &str) {
        let reason = format!("partition {of} is stopped: {why}");
        LanePaused { lane: self.settings.lane, reason: &reason }.emit(&self.telemetry);
    }

    /// Shows where a partition stands. INVARIANT: no transaction is open, so that what is counted is committed.
    pub(super) fn show_progress(&self, of: &TopicPartition) {
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
            held: source.holding.is_some().then(|| self.held(owned)),
        }
        .emit(&self.telemetry);
    }

    fn held(&self, owned: &Owned<D::State>) -> HeldStatus {
        let now = self.clock.now();
        let age = |asked: UnixMillis| Duration::from_millis(u64::try_from(now.0 - asked.0).unwrap_or(0));
        HeldStatus { records: owned.state.held() as u64, oldest: owned.state.oldest_held().map(age) }
    }

    fn away(&mut self, problem: &str) {
        if !std::mem::replace(&mut self.away, true) {
            BrokerAway { lane: self.settings.lane, problem }.emit(&self.telemetry);
        }
    }

    pub(super) fn ready(&self) -> Vec<TopicPartition> {
        self.owned.iter().filter(|(_, owned)| owned.is_ready()).map(|(of, _)| of.clone()).collect()
    }

    fn keep_house(&mut self) -> Result<(), LogError> {
        let elapsed = self.clock.elapsed();
        if elapsed < self.next_housekeeping {
            return Ok(());
        }
        self.next_housekeeping = elapsed + HOUSEKEEPING;
        for of in self.ready() {
            self.show_progress(&of);
        }
        if elapsed >= self.next_recount && !self.counts.0.is_empty() {
            self.recount()?;
        }
        Ok(())
    }

    /// Asks how many partitions each topic has.
    pub(super) fn recount(&mut self) -> Result<(), LogError> {
        let mut counts = BTreeMap::new();
        for topic in self.settings.topics() {
            let count = self.log.partition_count(&topic)?;
            counts.insert(topic, count);
        }
        // All of them or none: a topic that is left out would be taken for one of a single partition.
        self.counts = Counts(counts);
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
