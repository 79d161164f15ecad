//! What becomes of a lane when a call failed: wait, abort and rewind, replace the producer, or end. Limits: it learns from
//! refusals which records must be denied; it decides nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::batch::{Kind, Known, Work};
use super::{Lane, LaneError};
use crate::stream::assignment::Stage;
use crate::stream::clock::Clock;
use crate::stream::decider::{Decider, Delivery};
use crate::stream::log::{Log, LogError, ProducerFate, Refusal, Tag, TopicPartition};
use crate::telemetry::events::{AbortKind, TransactionAborted};

/// The first wait after a failure; it doubles to the last.
const FIRST_BACK_OFF: Duration = Duration::from_millis(10);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);
/// More aborts in a row than this are shown as an absent log.
const ABORTS_BEFORE_AWAY: u32 = 3;

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// Brings the lane back to where it can go on, or ends it.
    pub(in crate::stream) fn recover(&mut self, error: LogError) -> Result<(), LaneError> {
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
        // INVARIANT: what an unclear transaction was decided by counts as in use until a new producer has ended it for
        // certain: it may yet be committed.
        if self.producer == ProducerFate::Usable {
            self.decider.aborted();
        }
        self.drop_batch();
        self.rewound();
        let again = self.ready();
        for owned in self.owned.values_mut() {
            self.following &= owned.holding.is_none();
            owned.rewind();
        }
        self.pause(&again);
        // What was committed before the failure has not been shown yet.
        for of in &again {
            self.show_progress(of);
        }
        Ok(())
    }

    /// A refused record is denied as undeliverable when it comes again; a refused dead letter loses its value. Where
    /// the log did not say which record of a group it refused, they are tried one by one.
    pub(super) fn learn(&mut self, refusals: &[Refusal]) {
        // Several records of one input, and no other's: that it is this one is certain.
        let inputs: BTreeSet<Option<usize>> = refusals.iter().map(|refusal| refusal.tag.input()).collect();
        if inputs.len() > 1 && refusals.iter().any(|refusal| !refusal.certain) {
            self.singly = self.batch.len();
            return;
        }
        let mut learned = BTreeSet::new();
        for refusal in refusals {
            let Some(index) = refusal.tag.input() else {
                continue;
            };
            // Several of its records may be refused at once: that is one thing to learn.
            let Some(Work { of, record, kind }) = self.input(index).filter(|_| learned.insert(index)) else {
                continue;
            };
            let (of, at, why) = (of.clone(), record.source.clone(), refusal.why.clone());
            let what = match refusal.tag {
                Tag::Outcome(_) => "outcome",
                Tag::Audit(_) => "audit record",
                Tag::Told(_) => "challenge",
                _ => "held record",
            };
            // No decision leaves without its audit record, and an answer has no other way to end.
            if matches!(refusal.tag, Tag::Audit(_)) || matches!(kind, Kind::Answer(_)) {
                self.refuse(&of, format!("the {what} of {at} is refused: {why}"));
                continue;
            }
            let delivery = match self.known.get(&at).map(|known| &known.delivery) {
                None => {
                    tracing::warn!(record = %at, why, "{what} refused; the record will be denied");
                    Delivery::Undeliverable(why)
                }
                Some(Delivery::Open | Delivery::Undeliverable(_)) => {
                    tracing::warn!(record = %at, why, "{what} refused again; the dead letter goes without its value");
                    Delivery::Bare(why)
                }
                Some(Delivery::Bare(_)) => {
                    let problem =
                        format!("even a dead letter without the value: the {what} of {at} is refused: {why}");
                    self.refuse(&of, problem);
                    continue;
                }
            };
            self.known.insert(at, Known { of, delivery });
        }
    }

    /// Stops deciding a partition, loudly: a person has to look.
    pub(in crate::stream) fn refuse(&mut self, of: &TopicPartition, why: String) {
        self.tell_stopped(of, &why);
        if let Some(owned) = self.owned.get_mut(of) {
            // Its open layers stay: one may be of a transaction that is being committed. What is in none is rewound.
            owned.stage = Stage::Refused(why);
            self.following &= owned.holding.is_none();
        }
        self.pause(std::slice::from_ref(of));
    }

    /// Pauses partitions of which nothing is taken in. Where that fails their records are dropped on arrival, until they are
    /// read again from where they stand: it only costs the reading.
    pub(super) fn pause(&mut self, partitions: &[TopicPartition]) {
        if let Err(error) = self.log.pause(partitions) {
            tracing::debug!(%error, "partitions could not be paused");
        }
    }
}
