//! One transaction of a lane: decide, write outcomes, audit and replay records, send positions, commit, and only then keep
//! what was remembered. Limits: what becomes of a failure is `recover`'s.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Lane, gate_fault};
use crate::authorize::ids::UnixMillis;
use crate::stream::clock::Clock;
use crate::stream::decider::{Decider, Delivery, Input, Remembered as _};
use crate::stream::log::{Log, LogError, Mark, Refusal, Tag, TopicPartition};
use crate::stream::restore::ENTRIES_KEY;
use crate::telemetry::events::BatchCommitted;
use crate::wire::outgoing::{Effects, Outgoing};

/// What one transaction holds.
#[derive(Default)]
struct Transaction {
    /// Records of the batch that it decides, from its front.
    taken: usize,
    /// The positions it moves: one for each partition that it touches.
    marks: Vec<Mark>,
    /// For each of `marks` that gained proofs, the oldest and the newest moment of acceptance among them.
    proofs: BTreeMap<usize, (UnixMillis, UnixMillis)>,
    /// Records that will not be taken, known before anything is sent: the batch is redone with them denied.
    doomed: Vec<Refusal>,
}

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// One transaction; returns how many records of the batch it holds.
    pub(super) fn decide_some(&mut self) -> Result<usize, LogError> {
        self.decider.open_batch(self.clock.now());
        self.log.begin()?;
        let mut transaction = Transaction::default();
        self.decide_records(&mut transaction)?;
        self.write_state(&mut transaction)?;
        self.log.send_positions(&transaction.marks)?;
        self.commit(transaction)
    }

    /// Decides records from the front of the batch and writes what comes of them.
    fn decide_records(&mut self, transaction: &mut Transaction) -> Result<(), LogError> {
        let limit = if self.singly > 0 { 1 } else { self.settings.batch.max(1) };
        let began = self.clock.elapsed();
        while transaction.taken < limit {
            // A transaction that the broker times out costs the producer: better two batches.
            let spent = self.clock.elapsed().saturating_sub(began);
            if transaction.taken > 0 && spent * 4 > self.settings.transaction_timeout {
                break;
            }
            let Some(effects) = self.decide_next(transaction)? else { break };
            let outcome = effects.outcome.iter().map(|outcome| (Tag::Outcome(transaction.taken), outcome));
            let audit = effects.audit.iter().map(|audit| (Tag::Audit(transaction.taken), audit));
            for (tag, record) in outcome.chain(audit) {
                let limits = self.settings.limits.get(&record.topic).copied().unwrap_or_default();
                if let Some(why) = limits.refuse(record) {
                    transaction.doomed.push(Refusal { tag, why: why.to_owned(), certain: true });
                } else if transaction.doomed.is_empty() {
                    self.log.append(tag, record)?;
                }
            }
            transaction.taken += 1;
        }
        if transaction.doomed.is_empty() {
            return Ok(());
        }
        self.learn(&transaction.doomed);
        Err(gate_fault(format!("{} records will not be taken", transaction.doomed.len())))
    }

    /// Decides the next record of the batch, in the layer of its partition's state that this transaction opens.
    fn decide_next(&mut self, transaction: &mut Transaction) -> Result<Option<Effects>, LogError> {
        let Some(record) = self.batch.get(transaction.taken) else { return Ok(None) };
        let of = TopicPartition::of(record);
        let Some(owned) = self.owned.get_mut(&of) else {
            return Err(gate_fault(format!("a record of {of}, which the lane does not own")));
        };
        let position = record.source.offset.next();
        match transaction.marks.iter_mut().find(|mark| mark.of == of) {
            Some(mark) => mark.position = position,
            None => {
                owned.state.begin();
                transaction.marks.push(Mark { of: of.clone(), position, metadata: String::new() });
            }
        }
        let delivery = self.known.get(&record.source).unwrap_or(&Delivery::Open);
        match self.decider.decide(Input::Record(record, delivery), &self.counts, &mut owned.state) {
            Ok(effects) => Ok(Some(effects)),
            Err(error) => {
                let text = format!("record {} could not be decided: {error}", record.source);
                self.refuse(&of, text.clone());
                Err(gate_fault(text))
            }
        }
    }

    /// Writes the proofs that each partition gained, and what must stand beside its position.
    fn write_state(&mut self, transaction: &mut Transaction) -> Result<(), LogError> {
        let writers = self.log.writers();
        for (index, mark) in transaction.marks.iter_mut().enumerate() {
            let Some(owned) = self.owned.get(&mark.of) else { continue };
            if let Some(batch) = owned.state.replay_batch() {
                let Some(source) = self.settings.sources.get(&mark.of.topic) else {
                    return Err(gate_fault(format!("no replay topic for `{}`", mark.of.topic)));
                };
                transaction.proofs.insert(index, (batch.oldest, batch.newest));
                let entries = Outgoing {
                    topic: source.replay.clone(),
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
        Ok(())
    }

    /// Commits; what was remembered is kept, and what was decided is shown, only after the answer.
    fn commit(&mut self, transaction: Transaction) -> Result<usize, LogError> {
        let Transaction { taken, marks, proofs, .. } = transaction;
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
}
