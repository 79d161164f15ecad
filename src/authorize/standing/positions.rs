//! Where a record of a control topic stands, and how far a control topic was read. Limits: numbers alone; which topic is
//! meant is the caller's to know.

use std::collections::BTreeMap;
use std::fmt;

use crate::authorize::ids::{Offset, Partition, Position};

/// The place of a record in its control topic: the version of what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
}

impl At {
    /// Whether this place is the other, or before it in the same partition: what is read there was read already.
    pub(super) fn is_not_after(self, other: Self) -> bool {
        self.partition == other.partition && self.offset <= other.offset
    }
}

/// How far a control topic was taken in: of each partition the next offset to read. Written as `0:123,1:45`, which is how
/// audit records have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<Partition, Position>);

impl Positions {
    /// Notes that everything before `position` was taken in. It never goes back.
    pub fn advance(&mut self, partition: Partition, position: Position) {
        let known = self.0.entry(partition).or_insert(position);
        *known = position.max(*known);
    }

    /// The next offset to read of that partition: 0 where nothing was read.
    pub fn get(&self, partition: Partition) -> Position {
        self.0.get(&partition).copied().unwrap_or(Position(0))
    }

    /// Whether a record at that place was taken in.
    pub fn cover(&self, at: At) -> bool {
        at.offset.0 < self.get(at.partition).0
    }

    /// The partitions that were read, with their positions, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Position)> {
        self.0.iter().map(|(partition, position)| (*partition, *position))
    }

    /// What both have taken in: of each partition the lower position.
    pub fn common(&self, other: &Self) -> Self {
        let both = self.0.iter().filter_map(|(partition, position)| {
            other.0.get(partition).map(|theirs| (*partition, *theirs.min(position)))
        });
        Self(both.collect())
    }
}

impl FromIterator<(Partition, Position)> for Positions {
    fn from_iter<I: IntoIterator<Item = (Partition, Position)>>(positions: I) -> Self {
        let mut all = Self::default();
        for (partition, position) in positions {
            all.advance(partition, position);
        }
        all
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (partition, position)) in self.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{position}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(list: &[(i32, i64)]) -> Positions {
        list.iter().map(|(partition, position)| (Partition(*partition), Position(*position))).collect()
    }

    #[test]
    fn positions_are_written_in_the_order_of_partitions_and_never_go_back() {
        let mut some = positions(&[(10, 4), (0, 123), (1, 45)]);
        assert_eq!(some.to_string(), "0:123,1:45,10:4");
        some.advance(Partition(1), Position(40));
        some.advance(Partition(2), Position(0));
        assert_eq!(some.to_string(), "0:123,1:45,2:0,10:4");
        assert_eq!(Positions::default().to_string(), "");
    }

    #[test]
    fn a_position_covers_what_is_before_it() {
        let some = positions(&[(0, 3)]);
        let at = |partition, offset| At { partition: Partition(partition), offset: Offset(offset) };
        assert!(some.cover(at(0, 2)));
        assert!(!some.cover(at(0, 3)));
        assert!(!some.cover(at(1, 0)));
    }

    #[test]
    fn what_two_have_in_common_is_the_lower_of_each() {
        let (one, other) = (positions(&[(0, 3), (1, 9), (2, 5)]), positions(&[(0, 7), (1, 2)]));
        assert_eq!(one.common(&other), positions(&[(0, 3), (1, 2)]));
    }
}
