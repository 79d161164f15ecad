//! The seam between a lane and what decides: a record goes in, effects come out, and what is remembered of a partition
//! follows the transaction. Limits: no Kafka here; lane tests use a trivial decider, a gate uses the engine.

use std::time::Duration;

pub use crate::authorize::engine::Delivery;
use crate::authorize::ids::{Digest, Topic, UnixMillis};
use crate::authorize::record::Record;
use crate::wire::outgoing::Effects;

/// Why a record could not be turned into effects: a fault of the gate, not of the record. The lane stops the partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecideError(pub String);

/// What a batch adds to the replay memory of a partition, as one record of the replay topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayBatch {
    /// The record's value.
    pub value: Vec<u8>,
    /// The oldest moment of acceptance in it: what was accepted a window before that can be forgotten. Never the gate's
    /// clock: a backlog is decided long after it was accepted, and a copy in it must still meet its original.
    pub oldest: UnixMillis,
    /// The newest moment of acceptance in it: past that and the window, nothing in it matters.
    pub newest: UnixMillis,
}

/// What is remembered of a partition. Changes since `begin` are kept by `commit` and dropped by `abort`.
pub trait Remembered {
    /// Nothing is remembered yet; a proof is to be remembered for `window`, by moments of acceptance.
    fn fresh(window: Duration) -> Self;
    /// Opens a layer for a batch.
    fn begin(&mut self);
    /// The batch was committed.
    fn commit(&mut self);
    /// The batch did not happen.
    fn abort(&mut self);
    /// The proofs that the open batch adds, or `None` where it adds none.
    fn replay_batch(&self) -> Option<ReplayBatch>;
    /// Takes in the value of one record of the replay topic and returns the newest moment of acceptance in it.
    fn load(&mut self, value: &[u8]) -> Result<UnixMillis, DecideError>;
    /// Forgets proofs that were accepted before `before`.
    fn forget(&mut self, before: UnixMillis);
    /// How many proofs are remembered.
    fn remembered(&self) -> usize;
    /// The audit tree as the open batch sees it: its size and its peaks, largest first.
    fn tree(&self) -> (u64, Vec<Digest>);
    /// Sets the audit tree of a partition that was just gained.
    fn restore_tree(&mut self, size: u64, peaks: Vec<Digest>) -> Result<(), DecideError>;
}

/// How many partitions a topic has, as far as the lane has been told; at least 1.
pub trait PartitionCounts {
    /// Of this topic.
    fn of(&self, topic: &Topic) -> i32;
}

/// What decides.
pub trait Decider {
    /// What it remembers of a partition.
    type State: Remembered;
    /// Pins the snapshots that every decision of the coming batch uses, at the moment `now`.
    fn open_batch(&mut self, now: UnixMillis);
    /// Decides one record.
    fn decide(
        &mut self,
        record: &Record,
        delivery: &Delivery,
        counts: &dyn PartitionCounts,
        state: &mut Self::State,
    ) -> Result<Effects, DecideError>;
    /// The batch was committed: what it decided may be shown.
    fn committed(&mut self) {}
    /// The batch did not happen: what it decided must not be shown.
    fn aborted(&mut self) {}
}
