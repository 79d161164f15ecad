//! The answers of the partitions that a lane owns: read beside the group, by hand, and decided like records. And the
//! moment up to which all of them have been decided, before which no hold may run out of time. Limits: what an answer
//! means is the decider's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::batch::{Kind, Work};
use super::{HoldTopics, Lane};
use crate::authorize::ids::{Offset, Position, UnixMillis};
use crate::authorize::record::Record;
use crate::stream::clock::Clock;
use crate::stream::decider::{Decider, Remembered as _, Stored};
use crate::stream::log::{Log, LogError, TopicPartition};

/// Between two questions for the end of one partition's answers.
const ASK_PAUSE: Duration = Duration::from_millis(100);

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// Where the held records and the answers of a source partition stand.
    pub(in crate::stream) fn hold_topics(&self, of: &TopicPartition) -> Option<&HoldTopics> {
        self.settings.sources.get(&of.topic)?.holding.as_ref()
    }

    /// The partition of the answers for a source partition.
    pub(in crate::stream) fn answers_of(&self, of: &TopicPartition) -> Option<TopicPartition> {
        let topic = self.hold_topics(of)?.answers.clone();
        Some(TopicPartition { topic, partition: of.partition })
    }

    /// Points the reader of answers at every partition that is ready, where that has changed.
    pub(super) fn follow_answers(&mut self) -> Result<(), LogError> {
        let now = self.clock.elapsed();
        for holding in self.owned.values_mut().filter_map(|owned| owned.holding.as_mut()) {
            if holding.postponed.is_some_and(|until| until <= now) {
                holding.postponed = None;
                self.following = false;
            }
        }
        if self.following {
            return Ok(());
        }
        let mut from = Vec::new();
        for of in self.ready() {
            let holding = self.owned.get(&of).and_then(|owned| owned.holding.as_ref());
            let Some(holding) = holding.filter(|holding| holding.postponed.is_none()) else { continue };
            from.extend(self.answers_of(&of).map(|answers| (answers, holding.next)));
        }
        self.log.follow_answers(&from)?;
        self.following = true;
        Ok(())
    }

    /// Takes at most so many answers into the batch, each with the payload of the held record that it names.
    pub(super) fn gather_answers(&mut self, limit: usize) -> Result<(), LogError> {
        let mut taken: BTreeMap<TopicPartition, Vec<(Record, Option<Stored>)>> = BTreeMap::new();
        for _ in 0..limit {
            // Where the reader stands after a failure is not known: it begins anew at what has not been taken.
            let answer = self.log.next_answer().inspect_err(|_| self.following = false)?;
            let Some(answer) = answer else { break };
            let at = TopicPartition::of(&answer);
            let Some(of) = self.owned.keys().find(|of| self.answers_of(of).as_ref() == Some(&at)).cloned()
            else {
                continue;
            };
            let Some(owned) = self.owned.get_mut(&of).filter(|owned| owned.is_ready()) else { continue };
            let Some(holding) = &mut owned.holding else { continue };
            if answer.source.offset.0 < holding.next.0 {
                continue;
            }
            holding.next = answer.source.offset.next();
            let named = owned.state.named(&answer);
            taken.entry(of).or_default().push((answer, named));
        }
        for (of, answers) in taken {
            let offsets: Vec<Offset> =
                answers.iter().filter_map(|(_, named)| Some(named.as_ref()?.payload)).collect();
            let payloads =
                if offsets.is_empty() { Some(BTreeMap::new()) } else { self.payloads(&of, offsets)? };
            let Some(payloads) = payloads else { continue };
            for (record, named) in answers {
                let payload = named.and_then(|named| payloads.get(&named.payload).cloned());
                self.batch.push_back(Work { of: of.clone(), record, kind: Kind::Answer(payload) });
            }
        }
        Ok(())
    }

    /// Finds out, where a timer needs it, up to which moment every answer has been decided.
    ///
    /// INVARIANT: the moment is the gate's own, taken before the end of the answers is asked for, less the skew. An answer
    /// counts by the moment at which the broker stamped it, and the broker's clock is behind the gate's by no more than
    /// the skew: whatever it takes after it was asked bears a stamp at or after that moment. So a hold that ended before
    /// it can have no counting answer that is not among those decided. A broker's clock that is ahead of the gate's only
    /// makes answers late. What a transaction of a stranger holds back at that moment was not taken yet.
    pub(super) fn look_at_timers(&mut self) -> Result<(), LogError> {
        let elapsed = self.clock.elapsed();
        for of in self.holding_in_turn() {
            let (Some(answers), Some(skew)) =
                (self.answers_of(&of), self.hold_topics(&of).map(|topics| topics.skew))
            else {
                continue;
            };
            let Some(owned) = self.owned.get_mut(&of) else { continue };
            let (timer, Some(holding)) = (owned.state.next_timer(), &mut owned.holding) else { continue };
            if let Some((end, moment)) = holding.asked {
                let seen = self.log.answers_seen(&answers)?.unwrap_or(holding.answers);
                // What was taken has been decided and committed: no batch is in hand.
                if holding.next == holding.answers && seen.max(holding.answers) >= end {
                    holding.answered = holding.answered.max(moment);
                    holding.asked = None;
                }
                continue;
            }
            let moment = before(self.clock.now(), skew);
            let needed = timer.is_some_and(|timer| timer < moment && holding.answered <= timer);
            if needed && elapsed >= holding.next_ask {
                holding.next_ask = elapsed + ASK_PAUSE;
                let (_, end): (Position, Position) = self.log.bounds(&answers)?;
                holding.asked = Some((end, moment));
            }
        }
        Ok(())
    }
}

fn before(moment: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis(moment.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}
