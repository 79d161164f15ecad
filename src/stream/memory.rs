//! The seam in memory, for tests of lanes: topics, transactions, fencing and group membership as Kafka has them, and a
//! seeded plan of faults. Limits: one thread, no time of its own; who owns which partition is the test's choice.

mod cluster;
mod fates;
mod faults;
mod outside;
mod trace;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

pub(super) use self::cluster::{Cluster, Committed as CommittedTransaction};
pub(super) use self::fates::Aim;
pub(super) use self::faults::{Fault, Faults, ManualClock};
pub(super) use self::trace::{FaultyLog, Plan, Trace};

use self::cluster::{Entry, EntryFate};
use super::clock::Clock as _;
use super::log::{
    Cause, Committed, Event, Finished, Log, LogError, Mark, ProducerFate, Receipts, Refusal, Tag,
    TopicPartition,
};
use crate::authorize::ids::{Coordinates, Offset, Position, Topic};
use crate::authorize::record::{Record, TimestampType};
use crate::wire::outgoing::Outgoing;

/// The log of one lane.
pub(super) struct MemoryLog {
    cluster: Cluster,
    clock: ManualClock,
    member: usize,
    /// Two producers in turn.
    sides: [Side; 2],
    /// Which of them has the newest transaction.
    turn: usize,
    handed: Option<Handed>,
    /// Whether a commit has failed and nothing has been aborted since.
    has_failed: bool,
    pub(super) faults: Faults,
    /// What becomes of the next commits, before the plan is asked.
    pub(super) commits: VecDeque<Option<Fault>>,
    /// After so many calls the process is gone: it leaves everything as it stands.
    pub(super) dies_after: Option<u32>,
    /// Where each resumed partition is read next.
    reading: BTreeMap<TopicPartition, usize>,
    back: BTreeMap<TopicPartition, usize>,
    /// Where the answers of each followed partition are read next, and how far they have been gone through.
    answers: BTreeMap<TopicPartition, (usize, Option<Position>)>,
    refusals: Vec<Refusal>,
    /// Every call and what came of it.
    pub(super) trace: Rc<RefCell<String>>,
}

/// One producer.
struct Side {
    writer: String,
    epoch: u64,
    is_open: bool,
    receipts: Receipts,
    sent: Vec<(Tag, Outgoing)>,
}

impl Side {
    fn new(writer: String) -> Self {
        Self { writer, epoch: 0, is_open: false, receipts: Receipts::new(), sent: Vec::new() }
    }
}

/// A transaction that is being committed: at once, or only when its end is waited for.
struct Handed {
    side: usize,
    marks: Vec<Mark>,
    ended: Option<Result<Receipts, LogError>>,
}

impl MemoryLog {
    pub(super) fn new(cluster: &Cluster, clock: &ManualClock, member: usize, faults: Faults) -> Self {
        Self {
            cluster: cluster.clone(),
            clock: clock.clone(),
            member,
            sides: ["a", "b"].map(|side| Side::new(format!("writer-{member}-{side}"))),
            turn: 0,
            handed: None,
            has_failed: false,
            faults,
            commits: VecDeque::new(),
            dies_after: None,
            reading: BTreeMap::new(),
            back: BTreeMap::new(),
            answers: BTreeMap::new(),
            refusals: Vec::new(),
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
        match &mut self.dies_after {
            Some(0) => return Err(LogError::Fatal(Cause { call, detail: "the process is gone".into() })),
            Some(left) => *left -= 1,
            None => {}
        }
        let planned = if call == "commit" { self.commits.pop_front().flatten() } else { None };
        let fault = planned.or_else(|| self.faults.next(kinds));
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
    fn current(&self, call: &'static str, side: usize) -> Result<(), LogError> {
        let side = &self.sides[side];
        match self.cluster.0.borrow().epochs.get(&side.writer) {
            Some(epoch) if *epoch == side.epoch => Ok(()),
            _ => Err(Self::failed(call, Fault::Fenced)),
        }
    }

    fn is_open(&self) -> bool {
        self.sides[self.turn].is_open
    }

    fn set_positions(&mut self, side: usize, marks: &[Mark]) -> Result<(), LogError> {
        self.fault("send positions", WRITES)?;
        self.current("send positions", side)?;
        let mut inner = self.cluster.0.borrow_mut();
        if inner.members.get(&self.member).is_none_or(|member| member.dead || member.expelled) {
            return Err(Self::failed("send positions", Fault::Abort));
        }
        inner.open.entry(self.sides[side].writer.clone()).or_default().marks = marks.to_vec();
        Ok(())
    }

    fn end(&mut self, side: usize) -> Result<Receipts, LogError> {
        self.flush(side)?;
        let lost = self.fault("commit", ENDS)?;
        self.current("commit", side)?;
        self.sides[side].is_open = false;
        self.cluster.0.borrow_mut().end(&self.sides[side].writer, true);
        if lost {
            return Err(Self::failed("commit", Fault::LostAnswer));
        }
        Ok(std::mem::take(&mut self.sides[side].receipts))
    }

    /// As librdkafka does it, the records of a transaction arrive some time before its end.
    fn flush(&mut self, side: usize) -> Result<(), LogError> {
        let sent = std::mem::take(&mut self.sides[side].sent);
        // What a zombie sends is not taken.
        self.current("flush", side)?;
        let mut inner = self.cluster.0.borrow_mut();
        let certain = inner.refuses(&sent);
        let mut refusals = Vec::new();
        for ((tag, record), certain) in sent.into_iter().zip(certain) {
            if let Some(certain) = certain {
                refusals.push(Refusal { tag, why: "refused".into(), certain });
                continue;
            }
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
            let open = inner.open.entry(self.sides[side].writer.clone()).or_default();
            open.entries.push((of, index));
            if tag.wants_receipt() {
                self.sides[side].receipts.insert(tag, offset);
            }
        }
        if refusals.is_empty() {
            return Ok(());
        }
        self.refusals.extend(refusals);
        Err(Self::failed("flush", Fault::Abort))
    }
}

impl MemoryLog {
    /// A client that has stopped reading a partition, and is found out.
    fn fall_silent(&mut self) -> Result<Event, LogError> {
        Ok(self.reading.pop_first().map_or(Event::Idle, |(of, _)| Event::Silent(of)))
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
        assert!(!self.is_open() && self.handed.is_none(), "polled with an open transaction");
        self.fault("poll", READS)?;
        let mut inner = self.cluster.0.borrow_mut();
        inner.sweep(self.clock.elapsed());
        let member = inner.members.entry(self.member).or_default();
        if member.dead {
            return Err(LogError::Fatal(Cause { call: "poll", detail: "fenced".into() }));
        }
        if let Some(event) = member.events.pop_front() {
            if let Event::Lost(partitions) = &event {
                member.expelled = false;
                self.reading.retain(|of, _| !partitions.contains(of));
            }
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
        assert!(self.sides.iter().filter(|side| side.is_open).count() < 2, "begun a third time");
        self.fault("begin", WRITES)?;
        let side = 1 - self.turn;
        assert!(!self.sides[side].is_open, "begun twice");
        self.current("begin", side)?;
        self.turn = side;
        let side = &mut self.sides[side];
        side.is_open = true;
        side.receipts.clear();
        self.cluster.0.borrow_mut().open.entry(side.writer.clone()).or_default();
        Ok(())
    }

    fn append(&mut self, tag: Tag, record: &Outgoing) -> Result<(), LogError> {
        assert!(self.is_open(), "appended outside of a transaction");
        self.fault("append", WRITES)?;
        self.current("append", self.turn)?;
        self.sides[self.turn].sent.push((tag, record.clone()));
        Ok(())
    }

    fn send_positions(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        assert!(self.is_open() && self.handed.is_none(), "positions outside of a transaction");
        self.set_positions(self.turn, marks)
    }

    fn commit(&mut self) -> Result<Receipts, LogError> {
        assert!(self.handed.is_none(), "committed before the one before it was finished");
        self.end(self.turn)
    }

    fn hand_over(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        assert!(self.is_open(), "handed over outside of a transaction");
        assert!(self.handed.is_none(), "handed over before the one before it was finished");
        assert!(!self.has_failed, "handed over behind a transaction that has failed");
        self.say("hand over");
        let mut handed = Handed { side: self.turn, marks: marks.to_vec(), ended: None };
        // It ends while the next one is decided, or while it is waited for.
        if self.faults.draw(2) == 0 {
            handed.ended = Some(self.set_positions(handed.side, marks).and_then(|()| self.end(handed.side)));
        }
        self.handed = Some(handed);
        Ok(())
    }

    fn finish(&mut self) -> Result<Finished, LogError> {
        let Some(Handed { side, marks, ended }) = self.handed.take() else {
            panic!("nothing was handed over")
        };
        self.say("finish");
        let ended = match ended {
            Some(ended) => ended,
            None => self.set_positions(side, &marks).and_then(|()| self.end(side)),
        };
        self.has_failed = ended.is_err();
        ended.map(|receipts| Finished { receipts, took: Duration::ZERO })
    }

    fn abort(&mut self) -> Result<(), LogError> {
        assert!(self.handed.is_none(), "aborted before what was handed over was finished");
        self.has_failed = false;
        for side in [1 - self.turn, self.turn] {
            self.sides[side].sent.clear();
            if !std::mem::take(&mut self.sides[side].is_open) {
                continue;
            }
            self.fault("abort", WRITES)?;
            self.current("abort", side)?;
            self.cluster.0.borrow_mut().end(&self.sides[side].writer, false);
        }
        Ok(())
    }

    fn refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    fn discard(&mut self) {
        self.has_failed = false;
        self.handed = None;
        for side in &mut self.sides {
            side.sent.clear();
            side.is_open = false;
        }
    }

    fn renew(&mut self) -> Result<(), LogError> {
        self.discard();
        for side in 0..self.sides.len() {
            self.fault("renew", READS)?;
            self.sides[side].epoch = self.cluster.0.borrow_mut().init(&self.sides[side].writer);
        }
        Ok(())
    }

    fn writers(&self) -> Vec<String> {
        self.sides.iter().map(|side| side.writer.clone()).collect()
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        wait: Duration,
    ) -> Result<BTreeMap<TopicPartition, Committed>, LogError> {
        self.fault("committed", READS)?;
        let inner = self.cluster.0.borrow();
        let is_unsettled = |of: &TopicPartition| {
            inner.unsettled.contains(of)
                || inner.open.values().any(|open| open.marks.iter().any(|mark| mark.of == *of))
        };
        // One that is not settled keeps the answer for all of them.
        if partitions.iter().any(is_unsettled) {
            self.clock.sleep(wait);
            return Ok(partitions.iter().map(|of| (of.clone(), Committed::Unsettled)).collect());
        }
        let answer = partitions.iter().map(|of| {
            let committed = inner.committed.get(of);
            let committed =
                committed.map_or(Committed::Missing, |(at, text)| Committed::At(*at, text.clone()));
            (of.clone(), committed)
        });
        Ok(answer.collect())
    }

    fn unsettled_metadata(&mut self, partitions: &[TopicPartition]) -> Result<Vec<String>, LogError> {
        self.fault("unsettled metadata", READS)?;
        let inner = self.cluster.0.borrow();
        Ok(partitions.iter().filter_map(|of| inner.committed.get(of)).map(|(_, text)| text.clone()).collect())
    }

    fn fence(&mut self, writer: &str) -> Result<(), LogError> {
        self.fault("fence", READS)?;
        if self.sides.iter().any(|side| side.writer == writer) {
            return self.renew();
        }
        self.cluster.0.borrow_mut().init(writer);
        Ok(())
    }

    fn bounds(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        self.fault("bounds", READS)?;
        let inner = self.cluster.0.borrow();
        Ok((Position(0), Position(inner.stable_end(of) as i64)))
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

    fn follow_answers(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.fault("follow answers", READS)?;
        let place = |at: &Position| (usize::try_from(at.0).unwrap(), None);
        self.answers = from.iter().map(|(of, at)| (of.clone(), place(at))).collect();
        Ok(())
    }

    fn next_answer(&mut self) -> Result<Option<Record>, LogError> {
        self.fault("next answer", READS)?;
        let inner = self.cluster.0.borrow();
        for (of, (next, seen)) in &mut self.answers {
            while *next < inner.stable_end(of) {
                let entry = &inner.partitions[of][*next];
                *next += 1;
                *seen = Some(Position(*next as i64));
                if let (Some(record), EntryFate::Committed) = (&entry.record, entry.fate) {
                    return Ok(Some(record.clone()));
                }
            }
        }
        Ok(None)
    }

    fn answers_seen(&mut self, of: &TopicPartition) -> Result<Option<Position>, LogError> {
        self.fault("answers seen", READS)?;
        Ok(self.answers.get(of).and_then(|(_, seen)| *seen))
    }

    fn fetch(&mut self, of: &TopicPartition, offsets: &[Offset]) -> Result<Vec<Option<Record>>, LogError> {
        assert!(!self.is_open() && self.handed.is_none(), "fetched within a transaction");
        self.fault("fetch", READS)?;
        assert!(offsets.is_sorted(), "offsets ascend");
        let inner = self.cluster.0.borrow();
        let at = |offset: &Offset| inner.partitions[of].get(usize::try_from(offset.0).unwrap());
        let entries = offsets.iter().map(|offset| at(offset).filter(|entry| entry.record.is_some()));
        Ok(entries
            .map(|entry| {
                assert!(entry.is_none_or(|entry| entry.fate == EntryFate::Committed), "not committed");
                entry.and_then(|entry| entry.record.clone())
            })
            .collect())
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
