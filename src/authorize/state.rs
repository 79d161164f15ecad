//! What a gate remembers of one source partition: the proofs it has seen, the records it
//! holds and the audit tree. It follows the
//! transaction: changes are layered while a batch is open, kept when its commit succeeds, dropped when it aborts.
//! Limits: what survives a restart lives in Kafka; this is its copy in memory.

use std::collections::VecDeque;

use super::merkle::Range;
use super::replay::Memory;
use super::step_up::Holds;

/// The state of one source partition.
#[derive(Debug)]
pub struct PartitionState {
    /// The proofs seen; layered on its own.
    pub replay: Memory,
    /// The records held, and the grants spent; layered on its own.
    pub holds: Holds,
    tree: Range,
    open: VecDeque<Range>,
}

impl PartitionState {
    /// Nothing seen and nothing audited, with a replay window of so many milliseconds
    /// ([`super::replay::window_ms`]).
    pub fn new(window_ms: i64) -> Self {
        let (replay, holds) = (Memory::new(window_ms), Holds::default());
        Self { replay, holds, tree: Range::default(), open: VecDeque::new() }
    }

    /// Sets the audit tree of a partition that was just gained.
    pub fn restore_tree(&mut self, tree: Range) {
        self.tree = tree;
    }

    /// Opens a layer for a batch.
    pub fn begin(&mut self) {
        self.replay.begin();
        self.holds.begin();
        self.open.push_back(self.tree().clone());
    }

    /// The commit of the oldest open batch succeeded: its layer is the state.
    pub fn commit(&mut self) {
        self.replay.merge_oldest();
        self.holds.commit();
        if let Some(tree) = self.open.pop_front() {
            self.tree = tree;
        }
    }

    /// The open batches were aborted: none of them happened.
    pub fn abort(&mut self) {
        self.replay.drop_all_pending();
        self.holds.abort();
        self.open.clear();
    }

    /// The audit tree as the newest open batch sees it.
    pub fn tree(&self) -> &Range {
        self.open.back().unwrap_or(&self.tree)
    }

    /// The index that the next audit record takes.
    pub fn next_leaf(&self) -> u64 {
        self.tree().size()
    }

    /// Appends the bytes of an audit record to the tree, in the newest open batch if there is one.
    pub fn append_leaf(&mut self, bytes: &[u8]) {
        self.open.back_mut().unwrap_or(&mut self.tree).append(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aborted_batch_leaves_no_leaf_and_a_committed_one_stays() {
        let mut state = PartitionState::new(1000);
        state.begin();
        state.append_leaf(b"one");
        assert_eq!(state.next_leaf(), 1);
        state.abort();
        assert_eq!(state.next_leaf(), 0);

        state.begin();
        state.append_leaf(b"one");
        state.begin();
        state.append_leaf(b"two");
        assert_eq!(state.next_leaf(), 2);
        state.commit();
        state.abort();
        assert_eq!(state.next_leaf(), 1, "the first batch was committed, the second was not");
    }
}
