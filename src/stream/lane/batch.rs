//! What a lane has taken in and not yet committed: answers, held records whose turn has come, and records, in that order.
//! Limits: bounded by the settings; what becomes of it is `transaction`'s.

use std::time::Duration;

use super::transaction::Transaction;
use super::{BUSY, IDLE, Lane};
use crate::authorize::limits::MAX_IN_HAND_BYTES;
use crate::authorize::record::Record;
use crate::stream::assignment::Owned;
use crate::stream::clock::Clock;
use crate::stream::decider::{Decider, Delivery, Remembered as _, Turn};
use crate::stream::log::{Event, Log, LogError, TopicPartition};

/// Between two looks at the answers while records are held and nothing else comes.
const WHILE_HOLDING: Duration = Duration::from_millis(20);

/// One input of a batch.
pub(super) struct Work {
    /// The source partition whose state it concerns.
    pub(super) of: TopicPartition,
    /// The record: of the source, of the answers, or the payload as it stands in the holds topic.
    pub(super) record: Record,
    pub(super) kind: Kind,
}

/// What an input is.
pub(super) enum Kind {
    /// The next record of the source partition.
    Record,
    /// An answer, with the payload of the held record that it names.
    Answer(Option<Record>),
    /// A held record whose turn has come.
    Held(Turn),
}

/// What earlier tries have shown of an input.
pub(super) struct Known {
    /// The source partition whose state it concerns.
    pub(super) of: TopicPartition,
    pub(super) delivery: Delivery,
}

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// Takes in what is held and due, then reads until the batch is full, its linger is over, or nothing comes. What is there
    /// already of the next batches is taken in too, and not waited for.
    pub(super) fn fill(&mut self) -> Result<(), LogError> {
        if self.stale {
            // Nothing is taken in; the group sees a lane that is alive.
            let event = self.log.poll(if self.is_restoring() { BUSY } else { IDLE })?;
            self.serve(event)?;
            return Ok(());
        }
        self.gather()?;
        let mut opened = (!self.batch.is_empty()).then(|| self.clock.elapsed());
        let full = self.settings.batch.max(1);
        let most = if self.singly > 0 { full } else { full.saturating_mul(1 + self.settings.ahead) };
        let mut bytes = 0_usize;
        while self.batch.len() < most && bytes < MAX_IN_HAND_BYTES {
            let is_full = self.batch.len() >= full;
            let wait = match opened {
                _ if is_full => Duration::ZERO,
                Some(at) => self.settings.linger.saturating_sub(self.clock.elapsed().saturating_sub(at)),
                None if self.is_restoring() => BUSY,
                None if self.owned.values().any(|owned| owned.state.held() > 0) => WHILE_HOLDING,
                None => IDLE,
            };
            let event = self.log.poll(wait)?;
            let is_idle = event == Event::Idle;
            // What was read before it is decided before anything else can happen.
            let is_last = matches!(event, Event::Unreadable(..));
            if self.serve(event)? {
                opened.get_or_insert_with(|| self.clock.elapsed());
                bytes += self.batch.back().map_or(0, |work| work.record.size());
            }
            let lingers = |at: Duration| self.clock.elapsed().saturating_sub(at) < self.settings.linger;
            if is_last || is_idle && (is_full || !opened.is_some_and(lingers)) {
                break;
            }
        }
        Ok(())
    }

    /// Takes in an event; whether it was a record for the batch.
    fn serve(&mut self, event: Event) -> Result<bool, LogError> {
        match event {
            Event::Record(record) => return Ok(self.take(record)),
            Event::Assigned(partitions) => self.gained(partitions),
            Event::Revoked(partitions) => self.gone(&partitions, false),
            Event::Lost(partitions) => self.gone(&partitions, true),
            // What was read before it is decided; what stands behind it is not, or it would be passed over.
            Event::Unreadable(of, why) => self.refuse(&of, why),
            Event::Silent(of) => self.read_on(&of)?,
            Event::Idle => {}
        }
        Ok(false)
    }

    /// Has a partition read again from the first record that was not taken, unless it is to be left alone for now.
    fn read_on(&mut self, of: &TopicPartition) -> Result<(), LogError> {
        match self.owned.get(of).filter(|owned| owned.is_ready()) {
            Some(owned) if !self.stale && !self.held_back.contains(of) => self.log.resume_at(of, owned.next),
            _ => Ok(()),
        }
    }

    /// Takes a record into the batch, unless it is of a partition that is not ready, or has been taken before. What comes
    /// while the lane holds still is read again later.
    fn take(&mut self, record: Record) -> bool {
        let of = TopicPartition::of(&record);
        let is_next = |owned: &Owned<_>| owned.is_ready() && record.source.offset.0 >= owned.next.0;
        if self.stale || !self.owned.get(&of).is_some_and(is_next) {
            return false;
        }
        if !self.may_take(&of) {
            return false;
        }
        if let Some(owned) = self.owned.get_mut(&of) {
            owned.next = record.source.offset.next();
        }
        self.batch.push_back(Work { of, record, kind: Kind::Record });
        true
    }

    /// Decides what was taken in, one transaction after the other; each is committed while the next is decided. All of them
    /// have ended when this returns.
    pub(in crate::stream) fn decide_batch(&mut self) -> Result<(), LogError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let decided = self.decide_all();
        // What was handed over may have happened, whatever has become of the one after it. Where it has not, that is the
        // failure: the one after it rests on it.
        let finished = if self.handed.is_some() { self.finish() } else { Ok(()) };
        finished.and(decided)?;
        for of in self.ready() {
            self.show_progress(&of);
        }
        Ok(())
    }

    fn decide_all(&mut self) -> Result<(), LogError> {
        while self.undecided() > 0 {
            let transaction = self.decide_some()?;
            if self.handed.is_some() {
                self.finish()?;
            }
            self.hand_over(transaction)?;
        }
        Ok(())
    }

    /// How many inputs are in no transaction yet.
    fn undecided(&self) -> usize {
        let handed = self.handed.as_ref().map_or(0, Transaction::len);
        self.batch.len().saturating_sub(handed)
    }

    /// The first inputs of the batch have been committed.
    pub(super) fn drain(&mut self, count: usize) {
        for work in self.batch.drain(..count.min(self.batch.len())) {
            self.known.remove(&work.record.source);
        }
        self.first += count;
        self.singly = self.singly.saturating_sub(count);
    }

    /// Nothing of what was taken in is decided: all of it is read again.
    pub(super) fn drop_batch(&mut self) {
        self.first += self.batch.len();
        self.batch.clear();
    }

    /// The input with that number, while it is part of the batch.
    pub(super) fn input(&self, number: usize) -> Option<&Work> {
        self.batch.get(number.checked_sub(self.first)?)
    }
}
