//! What a gate remembers of a partition, as its lane sees it: bytes of the replay and the holds topic in and out of the
//! engine's state. Limits: what does not read is an error, for memory with a hole would let a copy or a hold pass.

use std::time::Duration;

use super::decider::{DecideError, Due, Remembered, ReplayBatch, Stored};
use crate::authorize::ids::{Digest, Offset, UnixMillis};
use crate::authorize::merkle::Range;
use crate::authorize::record::Record;
use crate::authorize::state::PartitionState;
use crate::wire::holds::{self, HoldKey};
use crate::wire::replay;

impl Remembered for PartitionState {
    fn fresh(window: Duration) -> Self {
        Self::new(i64::try_from(window.as_millis()).unwrap_or(i64::MAX))
    }

    fn begin(&mut self) {
        Self::begin(self);
    }

    fn commit(&mut self) {
        Self::commit(self);
    }

    fn abort(&mut self) {
        Self::abort(self);
    }

    fn replay_batch(&self) -> Option<ReplayBatch> {
        let staged = self.replay.staged();
        let oldest = staged.iter().map(|entry| entry.accepted).min()?;
        let newest = staged.iter().map(|entry| entry.accepted).max()?;
        Some(ReplayBatch { value: replay::encode(staged), oldest, newest })
    }

    fn load(&mut self, value: &[u8]) -> Result<UnixMillis, DecideError> {
        let entries = replay::decode(value).map_err(|error| DecideError(error.to_string()))?;
        let newest = entries.iter().map(|entry| entry.accepted).max().unwrap_or(UnixMillis(i64::MIN));
        self.replay.restore(entries);
        Ok(newest)
    }

    fn load_hold(&mut self, record: &Record) -> Result<(), DecideError> {
        let bad = |error: &dyn std::fmt::Display| {
            DecideError(format!("the hold at {} cannot be read: {error}", record.source))
        };
        let Some(key) = record.key.as_deref() else { return Ok(()) };
        let value = record.value.as_deref();
        match HoldKey::decode(key, record.source.partition) {
            Ok(HoldKey::Payload(source)) => {
                self.holds.load_payload(source, value.map(|_| record.source.offset));
            }
            Ok(HoldKey::State(source)) => {
                let entry = value.map(holds::decode_state).transpose().map_err(|error| bad(&error))?;
                self.holds.load_state(source, entry);
            }
            Ok(HoldKey::Grant(grant)) => {
                let until = value.map(holds::decode_grant).transpose().map_err(|error| bad(&error))?;
                self.holds.load_grant(grant, until);
            }
            // A barrier, or what another version keeps beside holds.
            Err(holds::HoldFormatError::Key) => {}
            Err(error) => return Err(bad(&error)),
        }
        Ok(())
    }

    fn stored(&mut self, source: Offset, payload: Offset) {
        self.holds.stored(source, payload);
    }

    fn named(&self, answer: &Record) -> Option<Stored> {
        let (source, payload) = self.holds.answered_by(answer)?;
        Some(Stored { source, payload })
    }

    fn due(&self, now: UnixMillis, answered: UnixMillis, limit: usize) -> Vec<Due> {
        let due = self.holds.due(now, answered, limit).into_iter();
        due.map(|due| Due { source: due.source, payload: due.payload, turn: due.turn }).collect()
    }

    fn next_timer(&self) -> Option<UnixMillis> {
        self.holds.next_timer()
    }

    fn held(&self) -> usize {
        self.holds.len()
    }

    fn oldest_held(&self) -> Option<UnixMillis> {
        self.holds.oldest()
    }

    fn forget(&mut self, before: UnixMillis) {
        self.replay.forget(before);
    }

    fn remembered(&self) -> usize {
        self.replay.len()
    }

    fn tree(&self) -> (u64, Vec<Digest>) {
        let tree = Self::tree(self);
        (tree.size(), tree.peaks().to_vec())
    }

    fn restore_tree(&mut self, size: u64, peaks: Vec<Digest>) -> Result<(), DecideError> {
        let tree = Range::restore(size, peaks).map_err(|error| DecideError(error.to_string()))?;
        Self::restore_tree(self, tree);
        Ok(())
    }
}
