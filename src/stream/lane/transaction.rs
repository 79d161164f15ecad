//! One transaction of a lane: decide, write outcomes and audit records; once the one before it has been committed, write what
//! is remembered, and hand it over with its positions; once it has been committed too, keep what was remembered. Limits: what
//! becomes of a failure is `recover`'s.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::batch::{Kind, Work};
use super::{Lane, gate_fault};
use crate::authorize::ids::{Offset, Position, Topic, UnixMillis};
use crate::stream::clock::Clock;
use crate::stream::decider::{Decider, Delivery, Input, Remembered as _};
use crate::stream::log::{Finished, Log, LogError, Mark, Refusal, Tag, TopicPartition};
use crate::stream::restore::ENTRIES_KEY;
use crate::telemetry::events::BatchCommitted;
use crate::wire::outgoing::{Effects, Outgoing};

/// What one transaction holds.
#[derive(Default)]
pub(super) struct Transaction {
    /// The number of its first input.
    first: usize,
    /// How many inputs it decides.
    taken: usize,
    /// The source partitions that it touches, moved or not: the group's fence stands on their positions.
    touched: Vec<Touched>,
    /// Where the answers of those partitions go on, if it decides some.
    answers: BTreeMap<TopicPartition, Position>,
    /// The inputs whose payload it keeps, by their numbers: the source partition and the offset in it.
    payloads: Vec<(usize, TopicPartition, Offset)>,
    /// For each of `touched` that gained proofs, the oldest and the newest moment of acceptance among them.
    proofs: BTreeMap<usize, (UnixMillis, UnixMillis)>,
    /// Of each record that it decides, the source topic, and whether it was denied.
    decided: Vec<(Topic, bool)>,
    /// Records that will not be taken, known before anything is sent: the batch is redone with them denied.
    doomed: Vec<Refusal>,
}

/// A source partition in a transaction.
struct Touched {
    of: TopicPartition,
    /// Where it stands after it; before it is handed over, `None` where no record of it is decided.
    moved: Option<Position>,
}

impl Transaction {
    /// How many inputs it decides.
    pub(super) fn len(&self) -> usize {
        self.taken
    }

    /// The number of the input that it decides next.
    fn next(&self) -> usize {
        self.first + self.taken
    }
}

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// Begins a transaction and decides what it holds, from the first input that is in none.
    pub(super) fn decide_some(&mut self) -> Result<Transaction, LogError> {
        self.decider.open_batch(self.clock.now());
        self.log.begin()?;
        let handed = self.handed.as_ref().map_or(0, Transaction::len);
        let mut transaction = Transaction { first: self.first + handed, ..Transaction::default() };
        self.decide_inputs(&mut transaction)?;
        Ok(transaction)
    }

    /// Writes what must stand beside the positions and hands the transaction over to be committed.
    ///
    /// INVARIANT: the one before it is finished. What is written here rests on where that has left its partitions, and must
    /// not happen without it.
    pub(super) fn hand_over(&mut self, mut transaction: Transaction) -> Result<(), LogError> {
        self.give_back(transaction.taken);
        let marks = self.write_state(&mut transaction)?;
        // Deciding took its time, and what the decider knows may have become too old meanwhile.
        self.decider.is_current().map_err(gate_fault)?;
        self.log.hand_over(&marks)?;
        self.handed = Some(transaction);
        Ok(())
    }

    /// Decides inputs from the front of the batch and writes what comes of them.
    fn decide_inputs(&mut self, transaction: &mut Transaction) -> Result<(), LogError> {
        let limit = if self.singly > 0 { 1 } else { self.settings.batch.max(1) };
        let began = self.clock.elapsed();
        while transaction.taken < limit {
            // A transaction that the broker times out costs the producer: better two batches.
            let spent = self.clock.elapsed().saturating_sub(began);
            if transaction.taken > 0 && spent * 4 > self.settings.transaction_timeout {
                break;
            }
            let Some(effects) = self.decide_next(transaction)? else { break };
            self.write_effects(transaction, &effects)?;
            transaction.taken += 1;
        }
        if transaction.doomed.is_empty() {
            return Ok(());
        }
        self.learn(&transaction.doomed);
        Err(gate_fault(format!("{} records will not be taken", transaction.doomed.len())))
    }

    /// Writes all that one decision makes, unless some of it is known not to be taken.
    fn write_effects(&mut self, transaction: &mut Transaction, effects: &Effects) -> Result<(), LogError> {
        let input = transaction.next();
        let of = self.input(input).map(|work| work.of.clone());
        self.note(transaction, effects);
        let outcome = effects.outcome.iter().map(|record| (Tag::Outcome(input), record));
        let kept = effects.kept.iter().map(|kept| match kept.payload_of {
            Some(_) => (Tag::Payload(input), &kept.record),
            None => (Tag::Kept(input), &kept.record),
        });
        let told = effects.told.iter().map(|record| (Tag::Told(input), record));
        let audit = effects.audit.iter().map(|record| (Tag::Audit(input), record));
        for (tag, record) in outcome.chain(kept).chain(told).chain(audit) {
            let limits = self.settings.limits.get(&record.topic).copied().unwrap_or_default();
            if let Some(why) = limits.refuse(record) {
                transaction.doomed.push(Refusal { tag, why: why.to_owned(), certain: true });
            } else if transaction.doomed.is_empty() {
                self.log.append(tag, record)?;
            }
        }
        let source = effects.kept.iter().find_map(|kept| kept.payload_of);
        transaction.payloads.extend(of.zip(source).map(|(of, source)| (input, of, source)));
        Ok(())
    }

    /// Notes what became of a record, for the breaker of its route. What is held, or waits, is not denied.
    fn note(&self, transaction: &mut Transaction, effects: &Effects) {
        let work = self.input(transaction.next()).filter(|work| matches!(work.kind, Kind::Record));
        let Some((topic, source)) = work.and_then(|work| self.settings.sources.get_key_value(&work.of.topic))
        else {
            return;
        };
        if source.breaker.is_some() {
            let denied = effects.outcome.as_ref().is_some_and(|outcome| outcome.topic == source.denied);
            transaction.decided.push((topic.clone(), denied));
        }
    }

    /// Decides the next input of the batch, in the layer of its partition's state that this transaction opens.
    fn decide_next(&mut self, transaction: &mut Transaction) -> Result<Option<Effects>, LogError> {
        let at = transaction.next() - self.first;
        let Some(Work { of, record, kind }) = self.batch.get(at) else { return Ok(None) };
        let Some(owned) = self.owned.get_mut(of) else {
            return Err(gate_fault(format!("a record of {of}, which the lane does not own")));
        };
        let next = record.source.offset.next();
        let moved = matches!(kind, Kind::Record).then_some(next);
        match transaction.touched.iter_mut().find(|touched| touched.of == *of) {
            Some(touched) => touched.moved = moved.or(touched.moved),
            None => {
                owned.state.begin();
                transaction.touched.push(Touched { of: of.clone(), moved });
            }
        }
        let delivery = self.known.get(&record.source).map_or(&Delivery::Open, |known| &known.delivery);
        let input = match kind {
            Kind::Record => Input::Record(record, delivery),
            Kind::Held(turn) => Input::Held(record, *turn, delivery),
            Kind::Answer(payload) => {
                transaction.answers.insert(of.clone(), next);
                Input::Answer(record, payload.as_ref())
            }
        };
        match self.decider.decide(input, &self.counts, &mut owned.state) {
            Ok(effects) => Ok(Some(effects)),
            Err(error) => {
                let (of, text) =
                    (of.clone(), format!("record {} could not be decided: {error}", record.source));
                self.refuse(&of, text.clone());
                Err(gate_fault(text))
            }
        }
    }

    /// Writes the proofs that each partition gained; returns the positions to send, with what must stand beside them.
    fn write_state(&mut self, transaction: &mut Transaction) -> Result<Vec<Mark>, LogError> {
        let writers = self.log.writers();
        let mut marks = Vec::with_capacity(transaction.touched.len());
        for (index, Touched { of, moved }) in transaction.touched.iter_mut().enumerate() {
            let Some(owned) = self.owned.get(of) else {
                return Err(gate_fault(format!("{of} was given up within a transaction")));
            };
            let Some(position) = moved.or(owned.position) else {
                return Err(gate_fault(format!("{of} has no position")));
            };
            *moved = Some(position);
            if let Some(batch) = owned.state.replay_batch() {
                let Some(source) = self.settings.sources.get(&of.topic) else {
                    return Err(gate_fault(format!("no replay topic for `{}`", of.topic)));
                };
                transaction.proofs.insert(index, (batch.oldest, batch.newest));
                let entries = Outgoing {
                    topic: source.replay.clone(),
                    partition: of.partition,
                    timestamp: None,
                    key: Some(Bytes::from_static(ENTRIES_KEY)),
                    value: Some(Bytes::from(batch.value)),
                    headers: Vec::new(),
                };
                self.log.append(Tag::Replay(index), &entries)?;
            }
            let answers = transaction.answers.get(of).copied();
            let metadata =
                owned.metadata(&writers, answers).map_err(|error| gate_fault(error.to_string()))?;
            marks.push(Mark { of: of.clone(), position, metadata });
        }
        marks.extend(transaction.answers.iter().filter_map(|(of, position)| {
            Some(Mark { of: self.answers_of(of)?, position: *position, metadata: String::new() })
        }));
        Ok(marks)
    }

    /// Waits for the transaction that was handed over; what was remembered is kept, and what was decided is shown, only after
    /// the answer.
    pub(super) fn finish(&mut self) -> Result<(), LogError> {
        let Some(transaction) = self.handed.take() else { return Ok(()) };
        let Finished { receipts, took } = self.log.finish()?;
        let Transaction { taken, touched, answers, payloads, proofs, decided, .. } = transaction;
        let mut lost = Vec::new();
        for (input, of, source) in payloads {
            match (receipts.get(&Tag::Payload(input)), self.owned.get_mut(&of)) {
                (Some(payload), Some(owned)) => owned.state.stored(source, *payload),
                _ => lost.push(of),
            }
        }
        for (index, Touched { of, moved }) in touched.iter().enumerate() {
            let Some(owned) = self.owned.get_mut(of) else { continue };
            owned.state.commit();
            owned.position = *moved;
            if let Some(holding) = &mut owned.holding {
                holding.turned(answers.get(of).copied());
            }
            if let (Some(offset), Some((oldest, newest))) =
                (receipts.get(&Tag::Replay(index)), proofs.get(&index))
            {
                owned.remember(*offset, *newest);
                owned.forget(*oldest);
            }
        }
        self.decider.committed();
        self.count_denials(decided);
        BatchCommitted { lane: self.settings.lane, records: taken, commit: took }.emit(&self.telemetry);
        self.drain(taken);
        self.succeeded();
        self.restore_anew(&lost)
    }

    /// Where a payload stands was not told: the partitions are restored from what is committed.
    fn restore_anew(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for of in partitions {
            if let Some(owned) = self.owned.get_mut(of) {
                owned.position = None;
            }
        }
        match partitions.first() {
            None => Ok(()),
            Some(of) => Err(gate_fault(format!("the log did not tell where a payload of {of} stands"))),
        }
    }
}
