//! What dead lanes have left open: their transactions are ended, so that nobody waits for the broker to do it. Limits: only
//! ids that stand beside positions of the own group; a lane that is alive is left alone; what is held back by a transaction that
//! the broker itself has forgotten is told, for a person to end.

use std::time::Duration;

use super::assignment::{Locating, Predecessors, Stage};
use super::checkpoint::Checkpoint;
use super::clock::Clock;
use super::decider::{Decider, PartitionCounts as _};
use super::lane::Lane;
use super::log::{Log, LogError, TopicPartition};
use crate::authorize::ids::Partition;
use crate::telemetry::events::{LanePaused, LaneResumed};

/// How long a stable position is waited for before its writers are fenced.
pub(super) const ORPHAN_PATIENCE: Duration = Duration::from_millis(500);
/// How often a partition's audit records are looked at for what a predecessor has left open, and how many partitions in
/// one turn: each look asks the broker twice.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_A_TURN: usize = 4;
/// By then the broker has ended an open transaction by itself.
pub(super) const SWEPT: Duration = Duration::from_secs(20);

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// Ends what a predecessor that died within a transaction has left open: until then readers see nothing of what is
    /// decided now, and brokers end it by themselves only every ten seconds. A predecessor that is alive moves on.
    pub(super) fn end_orphans(&mut self) -> Result<(), LogError> {
        let now = self.clock.elapsed();
        let is_due = |before: &Predecessors| before.next_look <= now;
        let due: Vec<TopicPartition> = self
            .owned
            .iter()
            .filter(|(_, owned)| owned.predecessors.as_ref().is_some_and(is_due))
            .map(|(of, _)| of.clone())
            .take(LOOKS_A_TURN)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        for of in due {
            let Some(audit) = self.audit_of(&of) else { continue };
            let (stable, end) = self.log.ends(&audit)?;
            let Some(owned) = self.owned.get_mut(&of) else { continue };
            let Some(mut before) = owned.predecessors.take() else { continue };
            if stable >= end || before.until <= now {
                continue;
            }
            match before.stuck {
                Some((at, since)) if at == stable && now.saturating_sub(since) >= ORPHAN_PATIENCE => {
                    let writers = before.writers.clone();
                    owned.predecessors = Some(before);
                    self.fence_all(writers)?;
                    if let Some(owned) = self.owned.get_mut(&of) {
                        owned.predecessors = None;
                    }
                    continue;
                }
                Some((at, _)) if at == stable => {}
                _ => before.stuck = Some((stable, now)),
            }
            before.next_look = now + LOOK;
            owned.predecessors = Some(before);
        }
        if self.owned.values().all(|owned| owned.predecessors.is_none()) {
            self.log.rest();
        }
        Ok(())
    }

    /// Where the audit records of a partition go.
    fn audit_of(&self, of: &TopicPartition) -> Option<TopicPartition> {
        let topic = self.settings.sources.get(&of.topic)?.audit.clone();
        let count = self.counts.of(&topic);
        Some(TopicPartition { topic, partition: Partition(of.partition.0.rem_euclid(count)) })
    }

    /// Positions that are not settled: the transactions that a dead lane has left open are ended, since brokers do so by themselves
    /// only every ten seconds. Where that did not help for long, it is said.
    pub(super) fn end_unsettled(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let known = |lane: &mut Self, of| lane.search(of).and_then(|search| search.unsettled);
        let orphaned: Vec<TopicPartition> =
            partitions.iter().filter(|of| known(self, of).is_none()).cloned().collect();
        if !orphaned.is_empty() {
            let writers = self.writers_beside(&orphaned)?;
            self.fence_all(writers)?;
        }
        let now = self.clock.elapsed();
        for of in partitions {
            if known(self, of).is_some_and(|unsettled| unsettled.is_forgotten(now)) {
                self.tell_unsettled(of)?;
            }
            if let Some(search) = self.search(of) {
                search.still_unsettled(now);
            }
        }
        Ok(())
    }

    /// Says what holds back a position for longer than any gate's transaction may be open.
    fn tell_unsettled(&mut self, of: &TopicPartition) -> Result<(), LogError> {
        // Brokers that are away leave a position unsettled too: they do not answer this.
        let writers = self.writers_beside(std::slice::from_ref(of))?;
        // Whoever may commit to the group may have written anything there.
        let writers: Vec<String> = writers.iter().map(|writer| writer.escape_debug().to_string()).collect();
        let reason = format!(
            "the committed position of {of} is held back by a transaction that nobody ends, though all who are known to have \
             written it were fenced ({}): look for it with `kafka-transactions.sh find-hanging`, and end it with `abort`",
            writers.join(", ")
        );
        LanePaused { lane: self.settings.lane, reason: &reason }.emit(&self.telemetry);
        Ok(())
    }

    /// The position of a partition is settled.
    pub(super) fn settled(&mut self, of: &TopicPartition) {
        let unsettled = self.search(of).and_then(|search| search.unsettled.take());
        if unsettled.is_some_and(|unsettled| unsettled.is_told()) {
            LaneResumed { lane: self.settings.lane }.emit(&self.telemetry);
        }
    }

    fn search(&mut self, of: &TopicPartition) -> Option<&mut Locating> {
        match &mut self.owned.get_mut(of)?.stage {
            Stage::Locating(search) => Some(search),
            _ => None,
        }
    }

    /// Who wrote these positions last, whether it is settled or not.
    fn writers_beside(&mut self, partitions: &[TopicPartition]) -> Result<Vec<String>, LogError> {
        let mut writers: Vec<String> = self
            .log
            .unsettled_metadata(partitions)?
            .iter()
            .filter_map(|metadata| Checkpoint::decode(metadata).ok().flatten())
            .flat_map(|checkpoint| checkpoint.writers)
            .collect();
        writers.sort();
        writers.dedup();
        Ok(writers)
    }

    fn fence_all(&mut self, writers: Vec<String>) -> Result<(), LogError> {
        for writer in writers {
            tracing::info!(writer, "ending what a dead lane left open");
            self.log.fence(&writer)?;
        }
        Ok(())
    }
}
