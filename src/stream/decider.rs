//! The seam between a lane and what decides: a record, an answer or a held record goes in, effects come out, and what is
//! remembered of a partition follows the transaction. Limits: no Kafka here; lane tests use a trivial decider, a gate uses the engine.

use std::time::Duration;

pub use crate::authorize::engine::Delivery;
use crate::authorize::ids::{Digest, Offset, Topic, UnixMillis};
use crate::authorize::record::Record;
pub use crate::authorize::step_up::Turn;
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

/// What there is to decide about.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// The next record of the source partition, and what earlier tries have shown of it.
    Record(&'a Record, &'a Delivery),
    /// The next record of the partition's answers, and the payload of the held record that it names
    /// ([`Remembered::named`]), as it stands in the holds topic; `None` where it names none.
    Answer(&'a Record, Option<&'a Record>),
    /// A held record whose turn has come ([`Remembered::due`]), as its payload stands in the holds topic, and what is to
    /// become of it.
    Held(&'a Record, Turn, &'a Delivery),
}

/// A held record whose turn has come: answered, out of time, no longer behind another, or with a reminder to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its offset in the source partition.
    pub source: Offset,
    /// The offset of its payload in the partition's holds.
    pub payload: Offset,
    /// What is to become of it.
    pub turn: Turn,
}

/// A held record, and where its payload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its offset in the source partition.
    pub source: Offset,
    /// The offset of its payload in the partition's holds.
    pub payload: Offset,
}

/// What is remembered of a partition. Changes since `begin` are a layer; layers lie over one another, `commit` keeps the oldest
/// and `abort` drops all of them.
pub trait Remembered {
    /// Nothing is remembered yet; a proof is to be remembered for `window`, by moments of acceptance.
    fn fresh(window: Duration) -> Self;
    /// Opens a layer for a batch, over those that are open.
    fn begin(&mut self);
    /// The oldest open batch was committed.
    fn commit(&mut self);
    /// The open batches did not happen.
    fn abort(&mut self);
    /// The proofs that the newest open batch adds, or `None` where it adds none.
    fn replay_batch(&self) -> Option<ReplayBatch>;
    /// Takes in the value of one record of the replay topic and returns the newest moment of acceptance in it.
    fn load(&mut self, value: &[u8]) -> Result<UnixMillis, DecideError>;
    /// Takes in one record of the holds topic, while the partition is restored; records come in the order of their offsets.
    /// What holds nothing leaves this and the four below as they are.
    fn load_hold(&mut self, _record: &Record) -> Result<(), DecideError> {
        Ok(())
    }
    /// The payload of the record held from `source` stands at `payload` in the holds topic. Called after the commit that
    /// wrote it, before [`Self::commit`].
    fn stored(&mut self, _source: Offset, _payload: Offset) {}
    /// The held record that an answer names: its payload has to be read before the answer can be decided. `None` where the
    /// answer names no record that is held here, whatever its bytes.
    fn named(&self, _answer: &Record) -> Option<Stored> {
        None
    }
    /// At most so many held records whose turn has come at the first moment, `now`, in the order of their offsets. The second, `answered`, is the moment up to
    /// which every answer that the broker had taken has been decided: a hold is out of time only if it ended before that.
    fn due(&self, _now: UnixMillis, _answered: UnixMillis, _limit: usize) -> Vec<Due> {
        Vec::new()
    }
    /// The next moment at which a hold will be out of time, if nothing else happens. A past one means that the answers have
    /// to be read to their end for it. No reminder is among them: it waits for no answer.
    fn next_timer(&self) -> Option<UnixMillis> {
        None
    }
    /// How many records are held, those behind another included.
    fn held(&self) -> usize {
        0
    }
    /// When the first of them was asked about; `None` where nothing is held.
    fn oldest_held(&self) -> Option<UnixMillis> {
        None
    }
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
    /// Whether what the decider knows is fresh enough to decide by; otherwise the sentence that says what is not. Asked before
    /// a batch is decided and again before it is committed.
    fn is_current(&self) -> Result<(), String> {
        Ok(())
    }
    /// Opens a batch and pins the snapshots that every decision of it uses, at the moment `now`. The one before it may still
    /// be open: it is being committed.
    fn open_batch(&mut self, now: UnixMillis);
    /// Decides one input.
    fn decide(
        &mut self,
        input: Input<'_>,
        counts: &dyn PartitionCounts,
        state: &mut Self::State,
    ) -> Result<Effects, DecideError>;
    /// The oldest open batch was committed: what it decided may be shown.
    fn committed(&mut self) {}
    /// The open batches did not happen, for certain: what they decided must not be shown. Until this or [`Self::committed`] the
    /// snapshots that a batch pinned count as in use.
    fn aborted(&mut self) {}
}
