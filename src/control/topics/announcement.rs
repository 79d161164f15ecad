//! What a gate says of itself on the `fleet` topic: who it is, and what everything that it still decides by has taken in.
//! Limits: nobody signs it, so the topic's own access control says who may be believed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pins::Taken;
use crate::authorize::ids::{Coordinates, Partition, Position, Topic, UnixMillis};

/// How long after a transaction's time-out a broker may still take to abort it: it looks every ten seconds.
const SWEEP: Duration = Duration::from_secs(10);

/// One announcement, under the key `<instance>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Announcement {
    /// The gate's identifier; instances share it.
    pub gate: String,
    /// The instance's name: the configured one, or one that was made at its start.
    pub instance: String,
    /// When it was written, in milliseconds since 1970 by the gate's own clock: for people.
    pub at: i64,
    /// How long after this announcement, in milliseconds, it can at most have decided by older facts.
    pub silent_after_ms: u64,
    /// By topic and partition the next offset that is not yet taken in everywhere in that gate. A topic that it follows
    /// and has taken in nothing of is there, and empty.
    pub positions: BTreeMap<String, BTreeMap<String, i64>>,
    /// By topic and partition the offsets before that position whose records were read and not applied: a revocation that
    /// could not be verified, say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, BTreeMap<String, Vec<i64>>>,
}

/// Records of one topic that are named as refused, at most. Where there are more, the position is that of the first of them.
const MAX_REFUSED: usize = 200;

impl Announcement {
    /// What a gate says that follows these topics.
    pub(super) fn new<'t>(
        gate: &str,
        instance: &str,
        at: UnixMillis,
        silent_after: Duration,
        followed: impl Iterator<Item = &'t Topic>,
        taken: &Taken,
    ) -> Self {
        let (mut positions, mut refused) = (BTreeMap::new(), BTreeMap::new());
        for topic in followed {
            let of = taken.get(topic).cloned().unwrap_or_default();
            let mut next: BTreeMap<String, i64> = of
                .positions
                .iter()
                .map(|(partition, position)| (partition.to_string(), position.0))
                .collect();
            let mut named: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for (n, (partition, offset)) in of.refused.iter().enumerate() {
                let partition = partition.to_string();
                if n < MAX_REFUSED {
                    named.entry(partition).or_default().push(offset.0);
                } else if let Some(position) = next.get_mut(&partition) {
                    *position = offset.0.min(*position);
                }
            }
            positions.insert(topic.to_string(), next);
            if !named.is_empty() {
                refused.insert(topic.to_string(), named);
            }
        }
        Self {
            gate: gate.to_owned(),
            instance: instance.to_owned(),
            at: at.0,
            silent_after_ms: u64::try_from(silent_after.as_millis()).unwrap_or(u64::MAX),
            positions,
            refused,
        }
    }

    /// The next offset of that partition that is not yet taken in; `None` where the gate does not follow the topic.
    pub(super) fn position(&self, topic: &Topic, partition: Partition) -> Option<Position> {
        let topic = self.positions.get(topic.as_str())?;
        Some(Position(topic.get(&partition.to_string()).copied().unwrap_or(0)))
    }

    /// Whether everything that the gate decides has taken in the record there; `None` where it does not follow the topic.
    pub(super) fn is_past(&self, at: &Coordinates) -> Option<bool> {
        let position = self.position(&at.topic, at.partition)?;
        Some(position.0 > at.offset.0 && !self.has_refused(at))
    }

    /// Whether the gate has read the record there and not applied it.
    pub(super) fn has_refused(&self, at: &Coordinates) -> bool {
        let refused = self.refused.get(at.topic.as_str()).and_then(|of| of.get(&at.partition.to_string()));
        refused.is_some_and(|offsets| offsets.contains(&at.offset.0))
    }

    /// The record's value.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Strings and numbers alone: it can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }
}

/// After how long of silence nothing of a gate can still be decided by what it had announced last: by then its view has become
/// too old to decide by, or its session has ended; a transaction that it had open has timed out; and the broker has aborted it.
pub(super) fn silent_after(max_staleness: Duration, session: Duration, transaction: Duration) -> Duration {
    max_staleness.max(session) + transaction + SWEEP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::ids::Offset;
    use crate::control::topics::pins::TakenIn;

    #[test]
    fn an_announcement_survives_writing_and_says_what_it_is_past() {
        let (followed, other) =
            (Topic::parse("c.revocations").unwrap(), Topic::parse("c.workflows").unwrap());
        let positions = [(Partition(1), Position(7))].into_iter().collect();
        let refused = vec![(Partition(1), Offset(4))];
        let taken = Taken::from([(followed.clone(), TakenIn { positions, refused })]);
        let silent = silent_after(Duration::from_secs(10), Duration::from_secs(6), Duration::from_secs(5));
        let topics = [&followed].into_iter();
        let said = Announcement::new("spiffe://d/gate", "gate-1", UnixMillis(5), silent, topics, &taken);
        assert_eq!(said.silent_after_ms, 25_000);
        let read = Announcement::decode(&said.encode()).unwrap();
        assert_eq!(read, said);
        let at = |topic: &Topic, partition, offset| Coordinates {
            topic: topic.clone(),
            partition: Partition(partition),
            offset: Offset(offset),
        };
        assert_eq!(read.is_past(&at(&followed, 1, 6)), Some(true));
        assert_eq!(read.is_past(&at(&followed, 1, 7)), Some(false));
        assert_eq!(
            (read.is_past(&at(&followed, 1, 4)), read.has_refused(&at(&followed, 1, 4))),
            (Some(false), true)
        );
        assert_eq!(read.is_past(&at(&followed, 0, 0)), Some(false), "nothing was taken in there");
        assert_eq!(read.is_past(&at(&other, 0, 0)), None, "not followed");
        let first =
            Announcement::new("g", "i", UnixMillis(5), silent, [&followed].into_iter(), &Taken::new());
        assert_eq!(first.is_past(&at(&followed, 0, 0)), Some(false));
    }

    #[test]
    fn more_refused_records_than_can_be_named_hold_the_position_back() {
        let topic = Topic::parse("c.revocations").unwrap();
        let positions = [(Partition(0), Position(1000))].into_iter().collect();
        let refused = (0..300).map(|n| (Partition(0), Offset(2 * n))).collect();
        let taken = Taken::from([(topic.clone(), TakenIn { positions, refused })]);
        let said = Announcement::new("g", "i", UnixMillis(0), Duration::ZERO, [&topic].into_iter(), &taken);
        let at =
            |offset| Coordinates { topic: topic.clone(), partition: Partition(0), offset: Offset(offset) };
        for offset in 0..600 {
            let applied = offset % 2 == 1 && offset < 400;
            assert_eq!(said.is_past(&at(offset)), Some(applied), "{offset}");
        }
    }
}
