//! Which published snapshots are still in use, and so the oldest control positions by which anything may still be decided.
//! Limits: it sees references; that a batch holds its own until its transaction has ended for certain is the decider's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use crate::authorize::ids::{Offset, Partition, Topic};
use crate::authorize::standing::Positions;

/// How far each followed topic was taken in.
pub(in crate::control) type Taken = BTreeMap<Topic, TakenIn>;

/// How far one topic was taken in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::control) struct TakenIn {
    /// The next offset to read of each partition.
    pub(in crate::control) positions: Positions,
    /// Records before that which were read and not applied, in their order.
    pub(in crate::control) refused: Vec<(Partition, Offset)>,
}

/// Everything that was published and that somebody may still hold.
#[derive(Debug)]
pub(in crate::control) struct Pins<T> {
    /// The newest, which nobody needs to hold to count.
    newest: Taken,
    /// Those before it, in their order.
    older: VecDeque<(Weak<T>, Taken)>,
    current: Weak<T>,
}

impl<T> Default for Pins<T> {
    fn default() -> Self {
        Self { newest: Taken::new(), older: VecDeque::new(), current: Weak::new() }
    }
}

impl<T> Pins<T> {
    /// Notes what was published, before anybody can hold it.
    pub(in crate::control) fn publish(&mut self, published: &Arc<T>, taken: Taken) {
        let before = std::mem::replace(&mut self.newest, taken);
        let current = std::mem::replace(&mut self.current, Arc::downgrade(published));
        self.older.push_back((current, before));
    }

    /// What everybody has taken in who decides now. INVARIANT: the one before the newest is no longer handed out when this
    /// is asked, so that a count of none stays none. What a topic was never taken in of is not there.
    pub(in crate::control) fn oldest(&mut self) -> Taken {
        self.older.retain(|(published, _)| published.strong_count() > 0);
        // Positions never go back, so that the first is the oldest; a topic that it does not have was taken in of nothing.
        match self.older.front() {
            Some((_, taken)) => taken.clone(),
            None => self.newest.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::ids::Position;

    fn taken(position: i64) -> Taken {
        let positions = [(Partition(0), Position(position))].into_iter().collect();
        BTreeMap::from([(Topic::parse("c.workflows").unwrap(), TakenIn { positions, refused: Vec::new() })])
    }

    #[test]
    fn the_oldest_is_what_the_oldest_holder_has_taken_in() {
        let mut pins = Pins::default();
        assert!(pins.oldest().is_empty());
        let first = Arc::new("first");
        pins.publish(&first, taken(1));
        let batch = Arc::clone(&first);
        drop(first);
        let second = Arc::new("second");
        pins.publish(&second, taken(2));
        let third = Arc::new("third");
        pins.publish(&third, taken(3));
        drop(second);
        assert_eq!(pins.oldest(), taken(1), "a batch still decides by the first");
        assert_eq!(pins.older.len(), 1, "nobody holds the second");
        drop(batch);
        assert_eq!(pins.oldest(), taken(3));
        drop(third);
        assert_eq!(pins.oldest(), taken(3), "the newest counts, held or not");
    }
}
