//! Held records whose turn has come, with their payloads. Limits: when a turn has come is the decider's word
//! ([`crate::stream::decider::Remembered::due`]); payloads are fetched while no transaction is open.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Lane;
use super::batch::{Kind, Work};
use crate::authorize::ids::Offset;
use crate::authorize::record::Record;
use crate::stream::clock::Clock;
use crate::stream::decider::{Decider, Due, Remembered as _};
use crate::stream::log::{Log, LogError, TopicPartition};

/// Held records of one batch, at most: their payloads are in memory together.
const MOST_HELD: usize = 64;
/// A payload that is not there is looked for again so often, so far apart: the leader of its partition may just have
/// changed.
const LACKING_TRIES: u32 = 5;
const LACKING_PAUSE: Duration = Duration::from_secs(1);

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// Takes in answers and held records whose turn has come, each at most a quarter of a batch, so that neither they nor
    /// the records of the source wait for the others to end.
    pub(super) fn gather(&mut self) -> Result<(), LogError> {
        if !self.batch.is_empty() || self.settings.sources.values().all(|source| source.holding.is_none()) {
            return Ok(());
        }
        self.follow_answers()?;
        let share = (self.settings.batch / 4).max(1);
        let gathered = self.gather_answers(share).and_then(|()| self.gather_due(share.min(MOST_HELD)));
        if gathered.is_err() {
            self.batch.clear();
            for owned in self.owned.values_mut() {
                owned.holding.iter_mut().for_each(crate::stream::assignment::Holding::rewind);
            }
            self.following = false;
        }
        gathered
    }

    /// At most so many held records whose turn has come, of each partition in its order, the partitions in turn.
    fn gather_due(&mut self, limit: usize) -> Result<(), LogError> {
        let now = self.clock.now();
        let partitions = self.holding_in_turn();
        let mut left = limit;
        for of in partitions {
            let Some(owned) = self.owned.get(&of) else { continue };
            let Some(holding) = owned.holding.as_ref().filter(|holding| holding.postponed.is_none()) else {
                continue;
            };
            let due = owned.state.due(now, holding.answered, left);
            if due.is_empty() {
                continue;
            }
            let offsets = due.iter().map(|due| due.payload).collect();
            let Some(payloads) = self.payloads(&of, offsets)? else { continue };
            for Due { payload, turn, .. } in due {
                let Some(record) = payloads.get(&payload).cloned() else { continue };
                self.batch.push_back(Work { of: of.clone(), record, kind: Kind::Held(turn) });
                left = left.saturating_sub(1);
            }
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The ready partitions that hold, each time beginning with another.
    pub(super) fn holding_in_turn(&mut self) -> Vec<TopicPartition> {
        let mut partitions = self.ready();
        partitions.retain(|of| self.owned.get(of).is_some_and(|owned| owned.holding.is_some()));
        if !partitions.is_empty() {
            self.turn = (self.turn + 1) % partitions.len();
            partitions.rotate_left(self.turn);
        }
        partitions
    }

    /// The payloads at these offsets of a partition's holds. `None` where one is not there: the partition is postponed, and
    /// in the end stopped, since what is held there can never end.
    pub(super) fn payloads(
        &mut self,
        of: &TopicPartition,
        mut offsets: Vec<Offset>,
    ) -> Result<Option<BTreeMap<Offset, Record>>, LogError> {
        offsets.sort_unstable();
        offsets.dedup();
        let Some(topics) = self.hold_topics(of) else { return Ok(None) };
        let holds = TopicPartition { topic: topics.holds.clone(), partition: of.partition };
        let found = self.log.fetch(&holds, &offsets)?;
        let lacking =
            offsets.iter().zip(&found).find(|(_, record)| record.is_none()).map(|(offset, _)| *offset);
        let now = self.clock.elapsed();
        let Some(holding) = self.owned.get_mut(of).and_then(|owned| owned.holding.as_mut()) else {
            return Ok(None);
        };
        let Some(offset) = lacking else {
            holding.lacking = 0;
            return Ok(Some(offsets.into_iter().zip(found.into_iter().flatten()).collect()));
        };
        holding.lacking += 1;
        if holding.lacking > LACKING_TRIES {
            self.refuse(
                of,
                format!("the payload of a held record is gone: nothing stands at {holds}/{offset}"),
            );
        } else {
            holding.postponed = Some(now + LACKING_PAUSE);
            holding.rewind();
            self.following = false;
        }
        Ok(None)
    }
}
