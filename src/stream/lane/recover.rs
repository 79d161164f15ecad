//! What becomes of a lane when a call failed: wait, abort and rewind, replace the producer, or end. Limits: it learns from
//! refusals which records must be denied; it decides nothing.

use std::time::Duration;

use super::{Lane, LaneError};
use crate::stream::assignment::Stage;
use crate::stream::clock::Clock;
use crate::stream::decider::{Decider, Delivery, Remembered as _};
use crate::stream::log::{Log, LogError, ProducerFate, Refusal, Tag, TopicPartition};
use crate::telemetry::events::{AbortKind, LanePaused, TransactionAborted};

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
    pub(super) fn learn(&mut self, refusals: &[Refusal]) {
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
    pub(in crate::stream) fn refuse(&mut self, of: &TopicPartition, why: String) {
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
}
