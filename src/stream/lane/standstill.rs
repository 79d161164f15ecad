//! A lane whose decider's view is too old: it decides nothing, goes on polling, and resumes by itself. Limits: what is old,
//! and why, is the decider's word.

use super::Lane;
use crate::stream::assignment::Stage;
use crate::stream::clock::Clock;
use crate::stream::decider::Decider;
use crate::stream::log::{Log, LogError};
use crate::telemetry::events::{LanePaused, LaneResumed};

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// Whether the decider knows enough to decide by. A change to either side pauses the lane, or lets it go on where it
    /// stands.
    pub(super) fn is_current(&mut self) -> Result<bool, LogError> {
        match (self.decider.is_current(), self.stale) {
            (Ok(()), false) => Ok(true),
            (Err(_), true) => Ok(false),
            (Err(reason), false) => {
                let ready = self.ready();
                self.log.pause(&ready)?;
                self.stale = true;
                LanePaused { lane: self.settings.lane, reason: &reason }.emit(&self.telemetry);
                Ok(false)
            }
            (Ok(()), true) => {
                // What came meanwhile was left: each partition is read on from the first record that was not taken.
                for of in self.ready() {
                    let Some(next) = self.owned.get(&of).map(|owned| owned.next) else { continue };
                    self.log.resume_at(&of, next)?;
                }
                self.stale = false;
                // Those of routes that have stopped went on with the others: they are paused again.
                self.held_back.clear();
                LaneResumed { lane: self.settings.lane }.emit(&self.telemetry);
                for owned in self.owned.values() {
                    if let Stage::Refused(reason) = &owned.stage {
                        LanePaused { lane: self.settings.lane, reason }.emit(&self.telemetry);
                    }
                }
                Ok(true)
            }
        }
    }
}
