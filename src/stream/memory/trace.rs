//! The log in memory as one lane under fire has it: every call fails in each of the fates that it has with Kafka, before it
//! was made or after; between any two calls the others go on; and all of it can be written down. Limits: one thread, so
//! whoever goes on in between comes to the end of its round first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::rc::Rc;
use std::time::Duration;

use super::fates::Fate::{self, Fatal, Fenced, Retriable, Unclear, Usable};
use super::fates::{Aim, CALLS};
use super::{Faults, MemoryLog};
use crate::authorize::ids::{Offset, Position, Topic};
use crate::authorize::record::Record;
use crate::stream::log::{
    Cause, Committed, Event, Finished, Log, LogError, Mark, ProducerFate, Receipts, Refusal, Tag,
    TopicPartition,
};
use crate::wire::outgoing::Outgoing;

/// Every call that was made, with what it was given and what came of it; nothing where nobody wants to see it.
pub(in crate::stream) type Trace = Rc<RefCell<Option<String>>>;

/// A fate that ends the lane is drawn so seldom among the others.
const FATAL_IN: u64 = 40;

/// The plan of one lane.
pub(in crate::stream) struct Plan {
    pub(in crate::stream) dice: Faults,
    /// How many calls in a thousand fail.
    pub(in crate::stream) per_mille: u64,
    /// Once so many calls were made the process is gone: it leaves everything as it stands.
    pub(in crate::stream) dies_after: Option<u64>,
    /// The call at which it is gone.
    pub(in crate::stream) dies_at: Option<&'static str>,
    /// What fails once, whatever else does.
    pub(in crate::stream) aim: Option<Aim>,
    /// How often that has.
    pub(in crate::stream) hit: Rc<Cell<usize>>,
}

/// The log of one lane under fire.
pub(in crate::stream) struct FaultyLog {
    inner: MemoryLog,
    member: usize,
    pub(in crate::stream) plan: RefCell<Plan>,
    /// Lets the others go on.
    between: Rc<dyn Fn()>,
    trace: Trace,
    /// Of each producer: whether a record of its transaction was refused before its end.
    refused: [bool; 2],
    gone: Cell<bool>,
    /// The transaction that is being committed.
    handed: Option<Handed>,
    /// An unanswered commit that is on its way still.
    late: Option<Late>,
}

struct Handed {
    side: usize,
    marks: Vec<Mark>,
    /// What came of it, where it did not wait for being asked.
    ended: Option<Result<Receipts, LogError>>,
}

struct Late {
    side: usize,
    /// Of which epoch of its producer.
    epoch: u64,
    /// How many calls it takes to arrive.
    calls: u64,
}

impl FaultyLog {
    pub(in crate::stream) fn new(
        inner: MemoryLog,
        member: usize,
        plan: Plan,
        between: Rc<dyn Fn()>,
        trace: Trace,
    ) -> Self {
        Self {
            inner,
            member,
            plan: RefCell::new(plan),
            between,
            trace,
            refused: [false; 2],
            gone: Cell::new(false),
            handed: None,
            late: None,
        }
    }

    /// Nothing fails from now on.
    pub(in crate::stream) fn calm(&self) {
        let mut plan = self.plan.borrow_mut();
        (plan.per_mille, plan.dies_after, plan.dies_at, plan.aim) = (0, None, None, None);
    }

    /// Whether something befalls it that is no failure of a call: so many times in four as one fails.
    fn strikes(&self, quarters: u64) -> bool {
        let plan = &mut *self.plan.borrow_mut();
        plan.per_mille > 0 && plan.dice.draw(4000) < plan.per_mille * quarters
    }

    /// What becomes of this call: `None` where it succeeds; else whether it is made, and how it fails.
    fn fate(&self, call: &'static str) -> Result<Option<(bool, Fate)>, LogError> {
        let fates = &CALLS.iter().find(|(name, _)| *name == call).unwrap().1;
        let plan = &mut *self.plan.borrow_mut();
        if plan.dies_at == Some(call) {
            plan.dies_after = Some(0);
        }
        match &mut plan.dies_after {
            Some(0) => {
                self.gone.set(true);
                return Err(LogError::Fatal(Cause { call, detail: "the process is gone".into() }));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        match &mut plan.aim {
            Some(aim) if aim.call == call && aim.skipped == 0 => {
                let struck = (aim.made, aim.fate);
                plan.aim = None;
                plan.hit.set(plan.hit.get() + 1);
                return Ok(Some(struck));
            }
            Some(aim) if aim.call == call => aim.skipped -= 1,
            _ => {}
        }
        if plan.per_mille == 0 || plan.dice.draw(1000) >= plan.per_mille {
            return Ok(None);
        }
        let made = !fates.after.is_empty() && plan.dice.draw(2) == 0;
        let choice = if made { fates.after } else { fates.before };
        let drawn = choice[usize::try_from(plan.dice.draw(choice.len() as u64)).unwrap()];
        let fate = if drawn == Fatal && plan.dice.draw(FATAL_IN) > 0 { choice[0] } else { drawn };
        Ok(Some((made, fate)))
    }

    fn failed(call: &'static str, (made, fate): (bool, Fate)) -> LogError {
        let detail = format!("{fate:?} {}", if made { "after" } else { "before" });
        let cause = Cause { call, detail };
        let rewind = |producer| LogError::AbortAndRewind { cause: cause.clone(), producer };
        match fate {
            Retriable => LogError::Retriable(cause),
            Fatal => LogError::Fatal(cause),
            Usable => rewind(ProducerFate::Usable),
            Unclear => rewind(ProducerFate::Unclear),
            Fenced => rewind(ProducerFate::Fenced),
        }
    }

    /// A commit that nobody has answered may arrive much later, and then ends whatever its producer has open by then. It ends
    /// nothing once that producer was replaced.
    fn arrive_late(&mut self) {
        match &mut self.late {
            None => {}
            Some(late) if late.calls > 0 => late.calls -= 1,
            Some(late) => {
                let (epoch, writer) = (late.epoch, self.inner.sides[late.side].writer.clone());
                self.late = None;
                let mut cluster = self.inner.cluster.0.borrow_mut();
                if cluster.epochs.get(&writer) == Some(&epoch) {
                    cluster.end(&writer, true);
                }
            }
        }
    }

    fn say(&self, call: &str, asked: &dyn Debug, answer: &dyn Debug) {
        if let Some(trace) = self.trace.borrow_mut().as_mut() {
            writeln!(trace, "{} {call} {asked:?} -> {answer:?}", self.member).unwrap();
        }
    }

    fn call<T: Debug>(
        &mut self,
        call: &'static str,
        asked: &dyn Debug,
        make: impl FnOnce(&mut MemoryLog) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        (self.between)();
        self.arrive_late();
        let answer = match self.fate(call) {
            Err(gone) => Err(gone),
            Ok(None) => make(&mut self.inner),
            Ok(Some(struck @ (true, _))) => {
                make(&mut self.inner).and_then(|_| Err(Self::failed(call, struck)))
            }
            Ok(Some(struck)) => Err(Self::failed(call, struck)),
        };
        self.say(call, asked, &answer);
        answer
    }
}

impl FaultyLog {
    /// What the thread does that a transaction is handed over to.
    fn place_and_end(&mut self, side: usize, marks: &[Mark]) -> Result<Receipts, LogError> {
        self.call("send positions", &marks, |log| log.set_positions(side, marks))?;
        self.end(side)
    }

    fn end(&mut self, side: usize) -> Result<Receipts, LogError> {
        // The rest arrives before the end is asked for.
        let arrived = if self.gone.get() { Ok(()) } else { self.inner.flush(side) };
        let refused = std::mem::take(&mut self.refused[side]);
        let untold = self.strikes(1);
        let is_whole = arrived.is_ok() && !refused;
        let answer = self.call("commit", &(refused, untold), |log| {
            arrived?;
            if refused {
                return Err(Self::failed("commit", (false, Usable)));
            }
            let receipts = log.end(side)?;
            // What was delivered was not told.
            Ok(if untold { Receipts::new() } else { receipts })
        });
        let is_unclear =
            matches!(&answer, Err(LogError::AbortAndRewind { producer: ProducerFate::Unclear, .. }));
        if is_whole && is_unclear {
            let calls = self.plan.borrow_mut().dice.draw(30);
            self.late = Some(Late { side, epoch: self.inner.sides[side].epoch, calls });
        }
        answer
    }
}

impl Log for FaultyLog {
    fn join(&mut self) -> Result<(), LogError> {
        self.call("join", &(), MemoryLog::join)
    }

    fn poll(&mut self, wait: Duration) -> Result<Event, LogError> {
        if self.strikes(1) {
            return self.call("poll", &wait, MemoryLog::fall_silent);
        }
        self.call("poll", &wait, |log| log.poll(wait))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.call("pause", &partitions, |log| log.pause(partitions))
    }

    fn resume_at(&mut self, of: &TopicPartition, position: Position) -> Result<(), LogError> {
        self.call("resume", &(of, position), |log| log.resume_at(of, position))
    }

    fn begin(&mut self) -> Result<(), LogError> {
        let begun = self.call("begin", &(), MemoryLog::begin);
        self.refused[self.inner.turn] &= begun.is_err();
        begun
    }

    fn append(&mut self, tag: Tag, record: &Outgoing) -> Result<(), LogError> {
        self.call("append", &(tag, record), |log| log.append(tag, record))?;
        // What was appended so far arrives, and stands there open until the transaction ends; after all that was appended to the
        // one before it.
        if self.strikes(2) {
            let before =
                self.handed.as_ref().filter(|handed| handed.ended.is_none()).map(|handed| handed.side);
            for side in before.into_iter().chain([self.inner.turn]) {
                self.refused[side] |= self.inner.flush(side).is_err();
            }
        }
        Ok(())
    }

    fn send_positions(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        self.call("send positions", &marks, |log| log.send_positions(marks))
    }

    fn commit(&mut self) -> Result<Receipts, LogError> {
        self.end(self.inner.turn)
    }

    fn hand_over(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        assert!(self.handed.is_none(), "handed over before the one before it was finished");
        assert!(!self.inner.has_failed, "handed over behind a transaction that has failed");
        let side = self.inner.turn;
        self.say("hand over", &marks, &());
        // It ends while the next one is decided, or only while it is waited for.
        let at_once = self.plan.borrow_mut().dice.draw(2) == 0;
        let ended = at_once.then(|| self.place_and_end(side, marks));
        self.handed = Some(Handed { side, marks: marks.to_vec(), ended });
        Ok(())
    }

    fn finish(&mut self) -> Result<Finished, LogError> {
        let Handed { side, marks, ended } = self.handed.take().expect("nothing was handed over");
        let ended = ended.unwrap_or_else(|| self.place_and_end(side, &marks));
        self.say("finish", &(), &ended);
        self.inner.has_failed = ended.is_err();
        ended.map(|receipts| Finished { receipts, took: Duration::ZERO })
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.call("abort", &(), MemoryLog::abort)
    }

    fn refusals(&mut self) -> Vec<Refusal> {
        let refusals = self.inner.refusals();
        self.say("refusals", &(), &refusals);
        refusals
    }

    fn discard(&mut self) {
        self.say("discard", &(), &());
        self.handed = None;
        self.inner.discard();
    }

    fn renew(&mut self) -> Result<(), LogError> {
        self.call("renew", &(), MemoryLog::renew)
    }

    fn writers(&self) -> Vec<String> {
        self.inner.writers()
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        wait: Duration,
    ) -> Result<BTreeMap<TopicPartition, Committed>, LogError> {
        self.call("committed", &partitions, |log| log.committed(partitions, wait))
    }

    fn unsettled_metadata(&mut self, partitions: &[TopicPartition]) -> Result<Vec<String>, LogError> {
        self.call("unsettled metadata", &partitions, |log| log.unsettled_metadata(partitions))
    }

    fn fence(&mut self, writer: &str) -> Result<(), LogError> {
        self.call("fence", &writer, |log| log.fence(writer))
    }

    fn bounds(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        self.call("bounds", of, |log| log.bounds(of))
    }

    fn ends(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        self.call("ends", of, |log| log.ends(of))
    }

    fn rest(&mut self) {
        self.inner.rest();
    }

    fn read_back(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.call("read back", &from, |log| log.read_back(from))
    }

    fn next_back(&mut self, wait: Duration) -> Result<Option<Record>, LogError> {
        self.call("next back", &wait, |log| log.next_back(wait))
    }

    fn follow_answers(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.call("follow answers", &from, |log| log.follow_answers(from))
    }

    fn next_answer(&mut self) -> Result<Option<Record>, LogError> {
        self.call("next answer", &(), MemoryLog::next_answer)
    }

    fn answers_seen(&mut self, of: &TopicPartition) -> Result<Option<Position>, LogError> {
        self.call("answers seen", of, |log| log.answers_seen(of))
    }

    fn fetch(&mut self, of: &TopicPartition, offsets: &[Offset]) -> Result<Vec<Option<Record>>, LogError> {
        self.call("fetch", &(of, offsets), |log| log.fetch(of, offsets))
    }

    fn partition_count(&mut self, topic: &Topic) -> Result<i32, LogError> {
        self.call("partition count", topic, |log| log.partition_count(topic))
    }

    fn known_end(&self, of: &TopicPartition) -> Option<Position> {
        // Nothing is known of it for a while.
        if self.strikes(4) { None } else { self.inner.known_end(of) }
    }

    fn leave(&mut self) {
        self.say("leave", &(), &());
        self.inner.leave();
    }

    fn has_left(&self) -> bool {
        self.inner.has_left()
    }
}
