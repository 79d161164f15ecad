//! The seam in memory, for tests of lanes: topics, transactions, fencing and group membership as Kafka has them, and a
//! seeded plan of faults. Limits: one thread, no time of its own; who owns which partition is the test's choice.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::clock::Clock;
use super::log::{
    Cause, Committed, Event, Log, LogError, Mark, ProducerFate, Receipts, Refusal, Tag, TopicPartition,
};
use crate::authorize::ids::{Coordinates, Offset, Position, Topic, UnixMillis};
use crate::authorize::record::{Record, TimestampType};
use crate::wire::outgoing::Outgoing;

/// Time that passes only when somebody waits.
#[derive(Clone, Default)]
pub(super) struct ManualClock(Rc<Cell<Duration>>);

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_800_000_000_000 + i64::try_from(self.0.get().as_millis()).unwrap())
    }
    fn elapsed(&self) -> Duration {
        self.0.get()
    }
    fn sleep(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }
}

/// Where calls of the seam fail: each with a chance of `per_mille`, drawn from the seed.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    state: u64,
    per_mille: u64,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is not done, and can be made again.
    Retriable,
    /// It is not done, and the transaction must be aborted.
    Abort,
    /// It is not done, and nobody says so.
    LostRequest,
    /// It is done, and nobody says so.
    LostAnswer,
    /// The producer is told that it was replaced.
    Fenced,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self { state: 1, per_mille: 0 }
    }

    pub(super) fn seeded(seed: u64, per_mille: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, per_mille }
    }

    /// Xorshift64*: enough chance for a plan, and the same on every machine.
    fn draw(&mut self, below: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }

    fn next(&mut self, kinds: &[Fault]) -> Option<Fault> {
        let strikes = self.per_mille > 0 && self.draw(1000) < self.per_mille;
        let kind = usize::try_from(self.draw(kinds.len() as u64)).unwrap();
        strikes.then(|| kinds[kind])
    }
}

/// A cluster that all logs of a test share.
#[derive(Clone, Default)]
pub(super) struct Cluster(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    partitions: BTreeMap<TopicPartition, Vec<Entry>>,
    /// The current epoch of each transactional id.
    epochs: BTreeMap<String, u64>,
    open: BTreeMap<String, Transaction>,
    committed: BTreeMap<TopicPartition, (Position, String)>,
    members: BTreeMap<usize, Member>,
    /// Partitions that are given to a member as soon as another has given them up.
    promised: BTreeMap<TopicPartition, usize>,
    /// Values that no topic takes, by topic; `true`: the broker does not say which record it was.
    refused: Vec<(Topic, Vec<u8>, bool)>,
}

#[derive(Default)]
struct Member {
    owned: BTreeSet<TopicPartition>,
    events: VecDeque<Event>,
    dead: bool,
}

#[derive(Default)]
struct Transaction {
    entries: Vec<(TopicPartition, usize)>,
    marks: Vec<Mark>,
}

struct Entry {
    record: Option<Record>,
    fate: EntryFate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryFate {
    Open,
    Committed,
    Aborted,
}

impl Cluster {
    pub(super) fn create(&self, topic: &Topic, partitions: i32) {
        for partition in 0..partitions {
            let of = TopicPartition {
                topic: topic.clone(),
                partition: crate::authorize::ids::Partition(partition),
            };
            self.0.borrow_mut().partitions.insert(of, Vec::new());
        }
    }

    /// Appends a record outside of any transaction.
    pub(super) fn produce(&self, of: &TopicPartition, value: &[u8]) {
        let mut inner = self.0.borrow_mut();
        let entries = inner.partitions.get_mut(of).unwrap();
        let record = Record {
            source: Coordinates {
                topic: of.topic.clone(),
                partition: of.partition,
                offset: Offset(entries.len() as i64),
            },
            timestamp: None,
            timestamp_type: TimestampType::NotAvailable,
            key: None,
            value: Some(bytes::Bytes::copy_from_slice(value)),
            headers: Vec::new(),
        };
        entries.push(Entry { record: Some(record), fate: EntryFate::Committed });
    }

    /// The committed records of a partition, as a reader of committed records sees them.
    pub(super) fn read(&self, of: &TopicPartition) -> Vec<Record> {
        let inner = self.0.borrow();
        let stable = inner.stable_end(of);
        inner.partitions[of][..stable]
            .iter()
            .filter(|entry| entry.fate == EntryFate::Committed)
            .filter_map(|entry| entry.record.clone())
            .collect()
    }

    pub(super) fn position(&self, of: &TopicPartition) -> Option<(Position, String)> {
        self.0.borrow().committed.get(of).cloned()
    }

    pub(super) fn set_position(&self, of: &TopicPartition, position: Option<(Position, String)>) {
        let mut inner = self.0.borrow_mut();
        inner.committed.remove(of);
        if let Some(position) = position {
            inner.committed.insert(of.clone(), position);
        }
    }

    /// Gives partitions to a member: those of another member when that has given them up.
    pub(super) fn assign(&self, to: usize, partitions: &[TopicPartition]) {
        let mut inner = self.0.borrow_mut();
        for of in partitions {
            let owner = inner
                .members
                .iter()
                .find(|(number, member)| **number != to && !member.dead && member.owned.contains(of))
                .map(|(number, _)| *number);
            match owner.and_then(|owner| inner.members.get_mut(&owner)) {
                Some(owner) => {
                    owner.events.push_back(Event::Revoked(vec![of.clone()]));
                    inner.promised.insert(of.clone(), to);
                }
                None => inner.give(to, of.clone()),
            }
        }
    }

    /// A member dies as it stands: what it has left open stays open, and its partitions go to another.
    pub(super) fn kill(&self, member: usize, heir: usize) {
        let mut inner = self.0.borrow_mut();
        let dead = inner.members.entry(member).or_default();
        dead.dead = true;
        for of in std::mem::take(&mut dead.owned) {
            inner.give(heir, of);
        }
    }

    /// No topic takes this value in `topic` any more.
    pub(super) fn refuse(&self, topic: &Topic, value: &[u8], silently: bool) {
        self.0.borrow_mut().refused.push((topic.clone(), value.to_vec(), silently));
    }
}

impl Inner {
    fn give(&mut self, to: usize, of: TopicPartition) {
        let member = self.members.entry(to).or_default();
        member.owned.insert(of.clone());
        member.events.push_back(Event::Assigned(vec![of]));
    }

    fn stable_end(&self, of: &TopicPartition) -> usize {
        let entries = &self.partitions[of];
        entries.iter().position(|entry| entry.fate == EntryFate::Open).unwrap_or(entries.len())
    }

    /// Ends a transaction: a marker in every partition takes an offset, as in Kafka.
    fn end(&mut self, writer: &str, commit: bool) {
        let Some(transaction) = self.open.remove(writer) else { return };
        let fate = if commit { EntryFate::Committed } else { EntryFate::Aborted };
        let touched: BTreeSet<_> = transaction.entries.iter().map(|(of, _)| of.clone()).collect();
        for (of, index) in transaction.entries {
            self.partitions.get_mut(&of).unwrap()[index].fate = fate;
        }
        for of in touched {
            self.partitions.get_mut(&of).unwrap().push(Entry { record: None, fate: EntryFate::Committed });
        }
        if commit {
            for mark in transaction.marks {
                self.committed.insert(mark.of, (mark.position, mark.metadata));
            }
        }
    }

    /// A new producer with this id: whatever the old one had open is aborted, and the old one fenced.
    fn init(&mut self, writer: &str) -> u64 {
        self.end(writer, false);
        let epoch = self.epochs.entry(writer.to_owned()).or_default();
        *epoch += 1;
        *epoch
    }
}

/// The log of one lane.
pub(super) struct MemoryLog {
    cluster: Cluster,
    clock: ManualClock,
    member: usize,
    writer: String,
    epoch: u64,
    pub(super) faults: Faults,
    /// Where each resumed partition is read next.
    reading: BTreeMap<TopicPartition, usize>,
    back: BTreeMap<TopicPartition, usize>,
    in_transaction: bool,
    receipts: Receipts,
    refusals: Vec<Refusal>,
    sent: Vec<(Tag, Outgoing)>,
    /// Every call and what came of it.
    pub(super) trace: Rc<RefCell<String>>,
}

impl MemoryLog {
    pub(super) fn new(cluster: &Cluster, clock: &ManualClock, member: usize, faults: Faults) -> Self {
        Self {
            cluster: cluster.clone(),
            clock: clock.clone(),
            member,
            writer: format!("writer-{member}"),
            epoch: 0,
            faults,
            reading: BTreeMap::new(),
            back: BTreeMap::new(),
            in_transaction: false,
            receipts: Receipts::new(),
            refusals: Vec::new(),
            sent: Vec::new(),
            trace: Rc::default(),
        }
    }

    fn say(&self, line: &str) {
        let mut trace = self.trace.borrow_mut();
        trace.push_str(line);
        trace.push('\n');
    }

    /// The fault of this call, if the plan has one; `LostAnswer` is for the caller to act out.
    fn fault(&mut self, call: &'static str, kinds: &[Fault]) -> Result<bool, LogError> {
        let fault = self.faults.next(kinds);
        self.say(&format!("{call} {fault:?}"));
        match fault {
            None => Ok(false),
            Some(Fault::LostAnswer) => Ok(true),
            Some(fault) => Err(Self::failed(call, fault)),
        }
    }

    fn failed(call: &'static str, fault: Fault) -> LogError {
        let cause = Cause { call, detail: format!("{fault:?}") };
        match fault {
            Fault::Retriable => LogError::Retriable(cause),
            Fault::Abort => LogError::AbortAndRewind { cause, producer: ProducerFate::Usable },
            Fault::LostRequest | Fault::LostAnswer => {
                LogError::AbortAndRewind { cause, producer: ProducerFate::Unclear }
            }
            Fault::Fenced => LogError::AbortAndRewind { cause, producer: ProducerFate::Fenced },
        }
    }

    /// A zombie is fenced at whatever it does.
    fn current(&self, call: &'static str) -> Result<(), LogError> {
        match self.cluster.0.borrow().epochs.get(&self.writer) {
            Some(epoch) if *epoch == self.epoch => Ok(()),
            _ => Err(Self::failed(call, Fault::Fenced)),
        }
    }

    /// As librdkafka does it, the records of a transaction arrive some time before its end.
    fn flush(&mut self) -> Result<(), LogError> {
        let sent = std::mem::take(&mut self.sent);
        let mut inner = self.cluster.0.borrow_mut();
        let mut refusals = Vec::new();
        for (tag, record) in &sent {
            let refused = inner.refused.iter().find(|(topic, value, _)| {
                *topic == record.topic && Some(value.as_slice()) == record.value.as_deref()
            });
            if let Some((_, _, silently)) = refused {
                refusals.push(Refusal {
                    tag: *tag,
                    why: "refused".into(),
                    certain: !silently || sent.len() <= 3,
                });
            }
        }
        if !refusals.is_empty() {
            drop(inner);
            self.refusals.extend(refusals);
            return Err(Self::failed("flush", Fault::Abort));
        }
        for (tag, record) in sent {
            let of = TopicPartition { topic: record.topic.clone(), partition: record.partition };
            let entries = inner.partitions.get_mut(&of).unwrap();
            let offset = Offset(entries.len() as i64);
            let record = Record {
                source: Coordinates { topic: of.topic.clone(), partition: of.partition, offset },
                timestamp: record.timestamp,
                timestamp_type: TimestampType::CreateTime,
                key: record.key,
                value: record.value,
                headers: record.headers,
            };
            entries.push(Entry { record: Some(record), fate: EntryFate::Open });
            let index = entries.len() - 1;
            inner.open.entry(self.writer.clone()).or_default().entries.push((of, index));
            if let Tag::Replay(place) = tag {
                self.receipts.insert(place, offset);
            }
        }
        Ok(())
    }
}

const READS: &[Fault] = &[Fault::Retriable];
const WRITES: &[Fault] = &[Fault::Abort, Fault::LostRequest, Fault::Fenced];
const ENDS: &[Fault] = &[Fault::Abort, Fault::LostRequest, Fault::LostAnswer, Fault::Fenced];

impl Log for MemoryLog {
    fn join(&mut self) -> Result<(), LogError> {
        self.renew()?;
        self.cluster.0.borrow_mut().members.entry(self.member).or_default();
        Ok(())
    }

    fn poll(&mut self, wait: Duration) -> Result<Event, LogError> {
        assert!(!self.in_transaction, "polled with an open transaction");
        self.fault("poll", READS)?;
        let mut inner = self.cluster.0.borrow_mut();
        let member = inner.members.entry(self.member).or_default();
        if member.dead {
            return Err(LogError::Fatal(Cause { call: "poll", detail: "fenced".into() }));
        }
        if let Some(event) = member.events.pop_front() {
            if let Event::Revoked(partitions) = &event {
                for of in partitions {
                    member.owned.remove(of);
                    self.reading.remove(of);
                }
                for of in partitions {
                    if let Some(heir) = inner.promised.remove(of) {
                        inner.give(heir, of.clone());
                    }
                }
            }
            return Ok(event);
        }
        for (of, next) in &mut self.reading {
            let end = inner.stable_end(of);
            while *next < end {
                let entry = &inner.partitions[of][*next];
                *next += 1;
                if let (Some(record), EntryFate::Committed) = (&entry.record, entry.fate) {
                    return Ok(Event::Record(record.clone()));
                }
            }
        }
        self.clock.sleep(wait.max(Duration::from_millis(1)));
        Ok(Event::Idle)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for of in partitions {
            self.reading.remove(of);
        }
        Ok(())
    }

    fn resume_at(&mut self, of: &TopicPartition, position: Position) -> Result<(), LogError> {
        self.fault("resume", READS)?;
        self.reading.insert(of.clone(), usize::try_from(position.0).unwrap());
        Ok(())
    }

    fn begin(&mut self) -> Result<(), LogError> {
        assert!(!self.in_transaction, "begun twice");
        self.fault("begin", WRITES)?;
        self.current("begin")?;
        self.in_transaction = true;
        self.receipts.clear();
        self.cluster.0.borrow_mut().open.entry(self.writer.clone()).or_default();
        Ok(())
    }

    fn append(&mut self, tag: Tag, record: &Outgoing) -> Result<(), LogError> {
        assert!(self.in_transaction, "appended outside of a transaction");
        self.fault("append", WRITES)?;
        self.current("append")?;
        self.sent.push((tag, record.clone()));
        Ok(())
    }

    fn send_positions(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        assert!(self.in_transaction, "positions outside of a transaction");
        self.fault("send positions", WRITES)?;
        self.current("send positions")?;
        let mut inner = self.cluster.0.borrow_mut();
        if inner.members.get(&self.member).is_none_or(|member| member.dead) {
            return Err(Self::failed("send positions", Fault::Abort));
        }
        inner.open.entry(self.writer.clone()).or_default().marks = marks.to_vec();
        Ok(())
    }

    fn commit(&mut self) -> Result<Receipts, LogError> {
        self.flush()?;
        let lost = self.fault("commit", ENDS)?;
        self.current("commit")?;
        self.in_transaction = false;
        self.cluster.0.borrow_mut().end(&self.writer, true);
        if lost {
            return Err(Self::failed("commit", Fault::LostAnswer));
        }
        Ok(std::mem::take(&mut self.receipts))
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.sent.clear();
        if !std::mem::take(&mut self.in_transaction) {
            return Ok(());
        }
        self.fault("abort", WRITES)?;
        self.current("abort")?;
        self.cluster.0.borrow_mut().end(&self.writer, false);
        Ok(())
    }

    fn refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    fn discard(&mut self) {
        self.sent.clear();
        self.in_transaction = false;
    }

    fn renew(&mut self) -> Result<(), LogError> {
        self.discard();
        self.fault("renew", READS)?;
        self.epoch = self.cluster.0.borrow_mut().init(&self.writer);
        Ok(())
    }

    fn writers(&self) -> Vec<String> {
        vec![self.writer.clone()]
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        wait: Duration,
    ) -> Result<BTreeMap<TopicPartition, Committed>, LogError> {
        self.fault("committed", READS)?;
        let inner = self.cluster.0.borrow();
        let answer = partitions.iter().map(|of| {
            let unsettled = inner.open.values().any(|open| open.marks.iter().any(|mark| mark.of == *of));
            let committed = match inner.committed.get(of) {
                _ if unsettled => Committed::Unsettled,
                Some((position, metadata)) => Committed::At(*position, metadata.clone()),
                None => Committed::Missing,
            };
            (of.clone(), committed)
        });
        let answer: BTreeMap<_, _> = answer.collect();
        if answer.values().any(|committed| *committed == Committed::Unsettled) {
            self.clock.sleep(wait);
        }
        Ok(answer)
    }

    fn unsettled_metadata(&mut self, partitions: &[TopicPartition]) -> Result<Vec<String>, LogError> {
        self.fault("unsettled metadata", READS)?;
        let inner = self.cluster.0.borrow();
        Ok(partitions.iter().filter_map(|of| inner.committed.get(of)).map(|(_, text)| text.clone()).collect())
    }

    fn fence(&mut self, writer: &str) -> Result<(), LogError> {
        self.fault("fence", READS)?;
        if writer == self.writer {
            return self.renew();
        }
        self.cluster.0.borrow_mut().init(writer);
        Ok(())
    }

    fn bounds(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        self.fault("bounds", READS)?;
        let inner = self.cluster.0.borrow();
        Ok((Position(0), Position(inner.partitions[of].len() as i64)))
    }

    fn ends(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        self.fault("ends", READS)?;
        let inner = self.cluster.0.borrow();
        let entries = &inner.partitions[of];
        let stable = entries.iter().position(|entry| entry.fate == EntryFate::Open).unwrap_or(entries.len());
        Ok((Position(stable as i64), Position(entries.len() as i64)))
    }

    fn rest(&mut self) {}

    fn read_back(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.fault("read back", READS)?;
        self.back = from.iter().map(|(of, at)| (of.clone(), usize::try_from(at.0).unwrap())).collect();
        Ok(())
    }

    fn next_back(&mut self, wait: Duration) -> Result<Option<Record>, LogError> {
        self.fault("next back", READS)?;
        let inner = self.cluster.0.borrow();
        for (of, next) in &mut self.back {
            while *next < inner.stable_end(of) {
                let entry = &inner.partitions[of][*next];
                *next += 1;
                if let (Some(record), EntryFate::Committed) = (&entry.record, entry.fate) {
                    return Ok(Some(record.clone()));
                }
            }
        }
        self.clock.sleep(wait);
        Ok(None)
    }

    fn partition_count(&mut self, topic: &Topic) -> Result<i32, LogError> {
        self.fault("partition count", READS)?;
        let inner = self.cluster.0.borrow();
        Ok(i32::try_from(inner.partitions.keys().filter(|of| of.topic == *topic).count()).unwrap())
    }

    fn known_end(&self, of: &TopicPartition) -> Option<Position> {
        Some(Position(self.cluster.0.borrow().partitions.get(of)?.len() as i64))
    }

    fn has_left(&self) -> bool {
        self.cluster.0.borrow().members.get(&self.member).is_none_or(|member| member.owned.is_empty())
    }

    fn leave(&mut self) {
        let mut inner = self.cluster.0.borrow_mut();
        let member = inner.members.entry(self.member).or_default();
        let owned: Vec<_> = member.owned.iter().cloned().collect();
        if !owned.is_empty() {
            member.events.push_back(Event::Revoked(owned));
        }
    }
}
