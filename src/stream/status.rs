//! What a lane says of itself while it runs: for readiness and metrics. Limits: written by the lane, read by anybody;
//! nothing is decided from it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::assignment::Stage;
use super::log::TopicPartition;
use crate::authorize::ids::{Position, UnixMillis};

/// What a lane is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has not joined its group yet.
    #[default]
    Starting,
    /// It reads and decides.
    Running,
    /// It cannot, for the reason given, and tries again.
    Waiting(String),
    /// It was asked to stop, and did.
    Stopped,
    /// It ended by itself, for the reason given.
    Failed(String),
}

/// One partition of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionView {
    /// `locating`, `restoring`, `ready` or `refused`.
    pub stage: &'static str,
    /// Why it is refused.
    pub refused: Option<String>,
    /// The last position committed by this lane.
    pub position: Option<Position>,
    /// Records behind it, as far as the client knows.
    pub lag: Option<i64>,
    /// Proofs remembered.
    pub remembered: usize,
}

/// Counts since the lane was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions committed.
    pub commits: u64,
    /// Records decided in them.
    pub records: u64,
    /// Batches aborted.
    pub aborted: u64,
    /// Producers replaced.
    pub renewed: u64,
}

/// A lane at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneView {
    /// What it is doing.
    pub phase: Phase,
    /// What it owns.
    pub partitions: BTreeMap<TopicPartition, PartitionView>,
    /// When it last committed.
    pub last_commit: Option<UnixMillis>,
    /// Its counts.
    pub counters: Counters,
}

impl LaneView {
    /// Whether it decides every record that it is given: running, and each of its partitions ready.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Running && self.partitions.values().all(|partition| partition.stage == "ready")
    }
}

/// The shared view of one lane.
#[derive(Debug, Default)]
pub struct LaneStatus(Mutex<LaneView>);

impl LaneStatus {
    /// The lane at this moment.
    pub fn view(&self) -> LaneView {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, LaneView> {
        // A view is only shown: one left half-written by a panic harms nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, phase: Phase) {
        let mut view = self.lock();
        if view.phase != phase {
            view.phase = phase;
        }
    }

    pub(super) fn partition(&self, of: &TopicPartition, stage: Option<&Stage>) {
        let mut view = self.lock();
        let Some(stage) = stage else {
            view.partitions.remove(of);
            return;
        };
        let partition = view.partitions.entry(of.clone()).or_default();
        partition.refused = None;
        partition.stage = match stage {
            Stage::Locating(_) => "locating",
            Stage::Opening(_) | Stage::Reading(_) => "restoring",
            Stage::Ready => "ready",
            Stage::Refused(why) => {
                partition.refused = Some(why.clone());
                "refused"
            }
        };
    }

    pub(super) fn progress(&self, of: &TopicPartition, position: Position, end: Option<Position>) {
        if let Some(partition) = self.lock().partitions.get_mut(of) {
            partition.position = Some(position);
            partition.lag = end.map(|end| (end.0 - position.0).max(0));
        }
    }

    pub(super) fn remembered(&self, of: &TopicPartition, proofs: usize, end: Option<Position>) {
        if let Some(partition) = self.lock().partitions.get_mut(of) {
            partition.remembered = proofs;
            if let (Some(end), Some(position)) = (end, partition.position) {
                partition.lag = Some((end.0 - position.0).max(0));
            }
        }
    }

    pub(super) fn committed(&self, now: UnixMillis, records: u64) {
        let mut view = self.lock();
        view.last_commit = Some(now);
        view.counters.commits += 1;
        view.counters.records += records;
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.lock().counters);
    }
}
