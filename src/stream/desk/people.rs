//! What the desk asks of people: the docket, the answers that it follows, and timers. Answers are read from where the topic
//! ended when the tree began: none before can be for it. Limits: what an answer means is the docket's; one that names another
//! desk, or none, is left to whoever was asked.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::clerk::{Batch, Clerk, Tree, partition_of};
use crate::authorize::audit::AuditRecord;
use crate::authorize::engine::Moment;
use crate::authorize::ids::{Coordinates, DecisionId, Position, UnixMillis};
use crate::authorize::record::Record;
use crate::authorize::step_up::{Docket, effect_named};
use crate::stream::clock::Clock;
use crate::stream::freshness::Instants;
use crate::stream::log::{Log, LogError, ProducerFate, TopicPartition};
use crate::telemetry::events::Decided;

/// Answers of one transaction, at most.
const ANSWERS: usize = 100;
/// Changes of challenges in one transaction that nobody waits for, at most.
const CHANGES: usize = 500;
/// Between two questions for the end of the answers.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// What people are asked, and how far their answers have been taken in.
pub(super) struct People {
    pub(super) docket: Docket,
    /// How many partitions the challenges topic has.
    pub(super) challenges: i32,
    answers: TopicPartition,
    /// Where reading began.
    start: Position,
    /// Read, and not taken in for certain.
    unread: VecDeque<Record>,
    /// An end of the answers that was asked for, and the moment before that.
    asked: Option<(Position, UnixMillis)>,
    next_ask: Duration,
    /// Up to when every answer has been taken in.
    answered: UnixMillis,
}

/// An answer that was taken in, to be shown once that is committed.
struct Taken {
    audit: AuditRecord,
    source: Coordinates,
    id: DecisionId,
    started: SystemTime,
}

impl<L: Log, C: Clock> Clerk<L, C> {
    /// Begins to ask, and to read answers, under the tree's id; `None` where nobody can be asked.
    pub(super) fn begin_asking(&mut self, tree: &Tree) -> Result<Option<People>, LogError> {
        let Some(people) = self.settings.people.clone() else { return Ok(None) };
        let challenges = self.log.partition_count(&people.challenges)?;
        let count = self.log.partition_count(&people.answers)?;
        let answers = TopicPartition { topic: people.answers, partition: partition_of(tree.id, count) };
        let (_, start) = self.log.bounds(&answers)?;
        self.log.follow_answers(&[(answers.clone(), start)])?;
        Ok(Some(People {
            docket: Docket::new(tree.id, answers.partition),
            challenges,
            answers,
            start,
            unread: VecDeque::new(),
            asked: None,
            next_ask: Duration::ZERO,
            answered: UnixMillis(i64::MIN),
        }))
    }

    /// Takes in what people have answered, and does what is due. Without a fresh view nothing is taken in: it waits.
    pub(super) fn listen(&mut self) {
        if self.tree.is_none() || self.people.is_none() {
            return;
        }
        if let Err(error) = self.read_answers().and_then(|()| self.look_at_ends()) {
            match &error {
                LogError::Retriable(_) => tracing::debug!(%error, "answers cannot be read for the moment"),
                _ => {
                    self.away(&error);
                    self.lose();
                }
            }
            return;
        }
        self.take_answers();
        self.tick();
    }

    fn read_answers(&mut self) -> Result<(), LogError> {
        let Some(people) = &mut self.people else { return Ok(()) };
        while people.unread.len() < ANSWERS {
            let Some(answer) = self.log.next_answer()? else { break };
            people.unread.push_back(answer);
        }
        Ok(())
    }

    fn take_answers(&mut self) {
        let (Some(tree), Some(people)) = (self.tree.clone(), &mut self.people) else { return };
        if people.unread.is_empty() || self.work.freshness.check(Instants::now()).is_err() {
            return;
        }
        let now = self.clock.now();
        // Pinned until the commit.
        let snapshot = self.work.snapshots.load_full();
        let (gate, route) = (self.work.engine.gate(), &self.settings.route);
        let (mut taken, mut told) = (Vec::new(), Vec::new());
        for answer in &people.unread {
            let started = SystemTime::now();
            let id = DecisionId(Uuid::now_v7());
            let moment = Moment { now, id, snapshot: &snapshot, source_partitions: 1 };
            if let Some((audit, changed)) = people.docket.take(gate, route, answer, &moment) {
                taken.push(Taken { audit, source: answer.source.clone(), id, started });
                told.push(changed);
            }
        }
        let mut batch = Batch::after(&tree);
        for (taken, changed) in taken.iter().zip(&told) {
            if let Err(problem) = self.keep(&tree, &mut batch, Some(&taken.audit), changed.as_slice()) {
                // Nothing of an answer is larger than what it answers, whose audit record the topic has taken.
                let detail = format!("the audit record of an answer cannot be written: {problem}");
                let cause = crate::stream::log::Cause { call: "keep", detail };
                self.away(&LogError::AbortAndRewind { cause, producer: ProducerFate::Unclear });
                return self.lose();
            }
        }
        if batch.is_empty() {
            // None is for this desk.
            return self.done_with_answers();
        }
        let stale = self.work.freshness.check(Instants::now()).is_err();
        if stale || self.commit(tree, batch).is_err() {
            // If the transaction was certainly aborted they are taken in again.
            if let Some(people) = self.people.as_mut().filter(|_| stale) {
                people.docket.undo(0);
            }
            return;
        }
        self.done_with_answers();
        let took = SystemTime::now();
        for Taken { audit, source, id, started } in taken {
            let effect = audit.answer.as_ref().and_then(|answer| effect_named(&answer.effect));
            let route = &self.settings.route.name;
            let took = took.duration_since(started).unwrap_or_default();
            Decided {
                route,
                source: &source,
                parent: None,
                id,
                outcome: "answer",
                denied: None,
                effect,
                started,
                took,
            }
            .emit(&self.work.telemetry);
        }
    }

    fn done_with_answers(&mut self) {
        if let Some(people) = &mut self.people {
            people.unread.clear();
        }
    }

    /// Finds out, where an end needs it, up to which moment every answer has been taken in; see the lanes' own look at timers,
    /// whose invariant holds here as well.
    fn look_at_ends(&mut self) -> Result<(), LogError> {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let skew_ms = i64::from(self.settings.route.skew_s) * 1000;
        let Some(people) = &mut self.people else { return Ok(()) };
        if let Some((end, moment)) = people.asked {
            let seen = self.log.answers_seen(&people.answers)?.unwrap_or(people.start);
            if people.unread.is_empty() && seen.max(people.start) >= end {
                people.answered = people.answered.max(moment);
                people.asked = None;
            }
            return Ok(());
        }
        let moment = UnixMillis(now.0.saturating_sub(skew_ms));
        let needed = people.docket.next_end().is_some_and(|end| end < moment && people.answered <= end);
        if needed && elapsed >= people.next_ask {
            people.next_ask = elapsed + ASK_PAUSE;
            let (_, end) = self.log.bounds(&people.answers)?;
            people.asked = Some((end, moment));
        }
        Ok(())
    }

    /// Reminders, ends, and what ended with an earlier tree.
    fn tick(&mut self) {
        let now = self.clock.now();
        let (Some(tree), Some(people)) = (self.tree.clone(), &mut self.people) else { return };
        let mut told = self.left.split_off(self.left.len().saturating_sub(CHANGES));
        let left = told.len();
        told.extend(people.docket.tick(now, people.answered, CHANGES - left));
        let mut batch = Batch::after(&tree);
        // Without an audit record nothing is refused but a challenge that its topic does not take, which nobody can read then.
        if self.keep(&tree, &mut batch, None, &told).is_err() || batch.is_empty() {
            return;
        }
        if self.commit(tree, batch).is_err() && self.is_open() {
            // Certainly not told: later, then.
            told.truncate(left);
            self.left.extend(told);
        }
    }

    /// Ends in order: what nobody has ended by now ends with the desk.
    pub(super) fn close(&mut self) {
        let now = self.clock.now();
        let Some(people) = &mut self.people else { return };
        let ends = people.docket.close(now);
        let told: Vec<_> = std::mem::take(&mut self.left).into_iter().chain(ends).collect();
        for part in told.chunks(CHANGES) {
            let Some(tree) = self.tree.clone() else { return };
            let mut batch = Batch::after(&tree);
            if self.keep(&tree, &mut batch, None, part).is_err() || self.commit(tree, batch).is_err() {
                return;
            }
        }
    }
}
