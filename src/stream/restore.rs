//! Making a gained partition ready: its stable position, its barrier, its replay memory; only then is it decided.
//! Limits: it works in small steps between two polls of the lane, so the group sees a lane that is alive. Why a barrier:
//! a commit is answered before its markers are written, so the newest replay records may not be visible yet.

use bytes::Bytes;
use std::time::Duration;

use super::assignment::{Locating, Predecessors, Purpose, Reading, Stage};
use super::checkpoint::Checkpoint;
use super::clock::Clock;
use super::decider::{Decider, PartitionCounts as _, Remembered as _};
use super::lane::{Lane, gate_fault};
use super::log::{Committed, Log, LogError, Mark, Tag, TopicPartition};
use crate::authorize::ids::{Partition, Position, Topic};
use crate::authorize::record::Record;
use crate::config::Start;
use crate::telemetry::events::PartitionRestored;
use crate::wire::outgoing::Outgoing;

/// The key of a replay record that holds proofs.
pub(super) const ENTRIES_KEY: &[u8] = b"entries";
/// The key of a barrier: written together with the partition's position.
const BARRIER_KEY: &[u8] = b"barrier";
/// The key of a barrier without a position: it only marks an end to read to, and is no trace of earlier work.
const PROBE_KEY: &[u8] = b"probe";

/// How long a stable position is waited for before its writers are fenced.
const ORPHAN_PATIENCE: Duration = Duration::from_millis(500);
/// How long one step may read back before the lane polls again.
const READ_STEP: Duration = Duration::from_millis(50);
/// How often a partition's audit records are looked at for what a predecessor has left open, and how many partitions in
/// one turn: each look asks the broker twice.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_A_TURN: usize = 4;
/// By then the broker has ended an open transaction by itself.
const SWEPT: Duration = Duration::from_secs(20);
/// A position that is missing although the partition was worked on is looked for again so often, so far apart: a
/// coordinator that has just moved may not know it yet.
const MISSING_TRIES: u32 = 5;
const MISSING_PAUSE: Duration = Duration::from_secs(1);

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// One step for every partition that is not ready yet.
    pub(super) fn restore(&mut self) -> Result<(), LogError> {
        if self.stages(|stage| !matches!(stage, Stage::Ready | Stage::Refused(_))).is_empty() {
            return Ok(());
        }
        if self.counts.0.is_empty() {
            self.recount()?;
        }
        self.locate()?;
        self.open()?;
        self.read()?;
        for of in self.stages(|stage| matches!(stage, Stage::Restored(_))) {
            self.settle(&of)?;
        }
        Ok(())
    }

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

    fn stages(&self, of_interest: impl Fn(&Stage) -> bool) -> Vec<TopicPartition> {
        self.owned.iter().filter(|(_, owned)| of_interest(&owned.stage)).map(|(of, _)| of.clone()).collect()
    }

    fn enter(&mut self, of: &TopicPartition, stage: Stage) {
        if let Some(owned) = self.owned.get_mut(of) {
            owned.stage = stage;
        }
    }

    /// Asks for the stable committed positions.
    fn locate(&mut self) -> Result<(), LogError> {
        let now = self.clock.elapsed();
        let due = self.stages(|stage| matches!(stage, Stage::Locating(search) if search.not_before <= now));
        if due.is_empty() {
            return Ok(());
        }
        let committed = self.log.committed(&due, ORPHAN_PATIENCE)?;
        let own = self.log.writers();
        let mut orphaned = Vec::new();
        let mut probes = Vec::new();
        for (of, committed) in committed {
            let Some(owned) = self.owned.get_mut(&of) else { continue };
            let Stage::Locating(search) = &mut owned.stage else { continue };
            match committed {
                Committed::Unsettled if search.fenced => {}
                Committed::Unsettled => {
                    search.fenced = true;
                    orphaned.push(of);
                }
                // The memory stands exactly there: nothing happened since.
                Committed::At(position, _) if owned.position == Some(position) => {
                    self.log.resume_at(&of, position)?;
                    owned.ready(position);
                }
                Committed::At(position, metadata) => match Checkpoint::decode(&metadata) {
                    Ok(Some(checkpoint)) => match owned.reset(&checkpoint) {
                        Ok(()) => {
                            let mut writers = checkpoint.writers;
                            writers.retain(|writer| !own.contains(writer));
                            owned.predecessors = (!writers.is_empty()).then_some(Predecessors {
                                writers,
                                stuck: None,
                                next_look: now,
                                until: now + SWEPT,
                            });
                            self.enter(&of, Stage::Opening(Some(position)));
                        }
                        Err(error) => self.refuse(&of, format!("its audit tree cannot be restored: {error}")),
                    },
                    Ok(None) => probes.push((of, Some(position), search.missing)),
                    Err(error) => self.refuse(&of, error.to_string()),
                },
                Committed::Missing => probes.push((of, None, search.missing)),
            }
        }
        if !orphaned.is_empty() {
            self.fence_orphans(&orphaned)?;
        }
        self.probe(probes)
    }

    /// Ends the transactions that a dead lane has left open: brokers do so by themselves only every ten seconds.
    fn fence_orphans(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let mut writers: Vec<String> = self
            .log
            .unsettled_metadata(partitions)?
            .iter()
            .filter_map(|metadata| Checkpoint::decode(metadata).ok().flatten())
            .flat_map(|checkpoint| checkpoint.writers)
            .collect();
        writers.sort();
        writers.dedup();
        self.fence_all(writers)
    }

    fn fence_all(&mut self, writers: Vec<String>) -> Result<(), LogError> {
        for writer in writers {
            tracing::info!(writer, "ending what a dead lane left open");
            self.log.fence(&writer)?;
        }
        Ok(())
    }

    /// Nothing stands beside these positions: has somebody worked on the partitions before?
    fn probe(&mut self, probes: Vec<(TopicPartition, Option<Position>, u32)>) -> Result<(), LogError> {
        if probes.is_empty() {
            return Ok(());
        }
        let marks: Vec<TopicPartition> = probes.iter().map(|(of, ..)| of.clone()).collect();
        let barriers = self.write_barriers(&marks, PROBE_KEY, &[])?;
        for (index, (of, position, missing)) in probes.into_iter().enumerate() {
            let Some(barrier) = barriers.get(&index) else { continue };
            let purpose = Purpose::Probe { position, traces: false };
            let reading = Reading { purpose, barrier: *barrier, next: Position(0), missing };
            self.enter(&of, Stage::Reading(reading));
            self.reading_back = false;
        }
        Ok(())
    }

    /// Writes the barrier of every partition whose position is known, and begins to read its replay partition.
    fn open(&mut self) -> Result<(), LogError> {
        let writers = self.log.writers();
        let mut marks = Vec::new();
        for of in self.stages(|stage| matches!(stage, Stage::Opening(_))) {
            let Some(owned) = self.owned.get(&of) else { continue };
            let metadata = owned.metadata(&writers).map_err(|error| gate_fault(error.to_string()))?;
            let position = match owned.stage {
                Stage::Opening(Some(position)) => position,
                _ => self.start_of(&of)?,
            };
            marks.push(Mark { of, position, metadata });
        }
        if marks.is_empty() {
            return Ok(());
        }
        let partitions: Vec<TopicPartition> = marks.iter().map(|mark| mark.of.clone()).collect();
        let barriers = self.write_barriers(&partitions, BARRIER_KEY, &marks)?;
        for (index, mark) in marks.into_iter().enumerate() {
            let (Some(barrier), Some(owned)) = (barriers.get(&index), self.owned.get(&mark.of)) else {
                continue;
            };
            let reading = Reading {
                purpose: Purpose::Restore(mark.position),
                barrier: *barrier,
                next: owned.window_start(),
                missing: 0,
            };
            self.enter(&mark.of, Stage::Reading(reading));
            self.reading_back = false;
        }
        Ok(())
    }

    /// One transaction with a barrier for each partition, and with `marks`: a stale owner's barrier is fenced by them.
    fn write_barriers(
        &mut self,
        partitions: &[TopicPartition],
        key: &'static [u8],
        marks: &[Mark],
    ) -> Result<super::log::Receipts, LogError> {
        let by = self.log.writers().join(",");
        self.log.begin()?;
        for (index, of) in partitions.iter().enumerate() {
            let barrier = Outgoing {
                topic: self.replay_topic(of)?,
                partition: of.partition,
                timestamp: None,
                key: Some(Bytes::from_static(key)),
                value: Some(Bytes::from(by.clone())),
                headers: Vec::new(),
            };
            self.log.append(Tag::Replay(index), &barrier)?;
        }
        if !marks.is_empty() {
            self.log.send_positions(marks)?;
        }
        self.log.commit()
    }

    fn replay_topic(&self, of: &TopicPartition) -> Result<Topic, LogError> {
        self.settings
            .sources
            .get(&of.topic)
            .map(|source| source.replay.clone())
            .ok_or_else(|| gate_fault(format!("no replay topic for `{}`", of.topic)))
    }

    fn start_reading(&mut self) -> Result<(), LogError> {
        let mut from = Vec::new();
        for (of, owned) in &self.owned {
            if let Stage::Reading(reading) = &owned.stage {
                let replay = TopicPartition { topic: self.replay_topic(of)?, partition: of.partition };
                from.push((replay, reading.next));
            }
        }
        self.log.read_back(&from)?;
        self.reading_back = true;
        Ok(())
    }

    /// Reads replay partitions on, for a short while.
    fn read(&mut self) -> Result<(), LogError> {
        if self.stages(|stage| matches!(stage, Stage::Reading(_))).is_empty() {
            return Ok(());
        }
        if !self.reading_back {
            self.start_reading()?;
        }
        let began = self.clock.elapsed();
        while self.clock.elapsed().saturating_sub(began) < READ_STEP {
            let Some(record) = self.log.next_back(Duration::from_millis(10))? else { break };
            self.took_back(&record)?;
        }
        if self.stages(|stage| matches!(stage, Stage::Reading(_))).is_empty() {
            self.log.read_back(&[])?;
        }
        Ok(())
    }

    fn took_back(&mut self, record: &Record) -> Result<(), LogError> {
        let source = self
            .settings
            .sources
            .iter()
            .find(|(_, source)| source.replay == record.source.topic)
            .map(|(topic, _)| topic.clone());
        let Some(topic) = source else { return Ok(()) };
        let of = TopicPartition { topic, partition: record.source.partition };
        let Some(owned) = self.owned.get_mut(&of) else { return Ok(()) };
        let Stage::Reading(reading) = &mut owned.stage else { return Ok(()) };
        let offset = record.source.offset;
        if offset.0 < reading.next.0 {
            return Ok(());
        }
        reading.next = offset.next();
        let reading = reading.clone();
        let is_entries = record.key.as_deref() == Some(ENTRIES_KEY);
        match reading.purpose {
            Purpose::Restore(position) => {
                if is_entries {
                    let newest = owned.state.load(record.value.as_deref().unwrap_or_default());
                    match newest {
                        Ok(newest) => owned.remember(offset, newest),
                        Err(error) => {
                            let why = format!("replay record {} does not read: {error}", record.source);
                            self.refuse(&of, why);
                            return Ok(());
                        }
                    }
                } else {
                    owned.passed(offset);
                }
                if offset >= reading.barrier {
                    self.enter(&of, Stage::Restored(position));
                }
            }
            Purpose::Probe { position, traces } => {
                let traces = traces || is_entries || record.key.as_deref() == Some(BARRIER_KEY);
                if offset < reading.barrier {
                    let purpose = Purpose::Probe { position, traces };
                    self.enter(&of, Stage::Reading(Reading { purpose, ..reading }));
                } else if traces {
                    self.nothing_beside(&of, position, reading.missing);
                } else {
                    owned.passed(offset);
                    self.enter(&of, Stage::Opening(position));
                }
            }
        }
        Ok(())
    }

    /// Work was done here, and its position or what stood beside it is gone.
    fn nothing_beside(&mut self, of: &TopicPartition, position: Option<Position>, missing: u32) {
        if missing < MISSING_TRIES {
            let not_before = self.clock.elapsed() + MISSING_PAUSE;
            let search = Locating { not_before, missing: missing + 1, ..Locating::default() };
            return self.enter(of, Stage::Locating(search));
        }
        let what = match position {
            None => "its committed position is gone".to_owned(),
            Some(position) => format!("position {position} was committed by something else than a gate"),
        };
        let replay =
            self.replay_topic(of).map_or_else(|_| "replay topic".to_owned(), |topic| topic.to_string());
        self.refuse(
            of,
            format!(
                "{what}, but the partition has been worked on: to go on would forget proofs and break the audit \
                 tree; to begin anew at that position, delete the topic `{replay}`"
            ),
        );
    }

    /// Where a partition that was never worked on begins.
    fn start_of(&mut self, of: &TopicPartition) -> Result<Position, LogError> {
        let (first, end) = self.log.bounds(of)?;
        Ok(match self.settings.sources.get(&of.topic).map(|source| source.start) {
            Some(Start::Latest) => end,
            Some(Start::Earliest) | None => first,
        })
    }

    /// Everything is restored. Reading goes to the position, if that lies within what the topic holds, and the partition
    /// is ready.
    fn settle(&mut self, of: &TopicPartition) -> Result<(), LogError> {
        let Some(Stage::Restored(position)) = self.owned.get(of).map(|owned| owned.stage.clone()) else {
            return Ok(());
        };
        let (first, end) = self.log.bounds(of)?;
        if position > end {
            let why = format!(
                "position {position} is past the end of the topic, {end}: the topic is not the one it was"
            );
            self.refuse(of, why);
            return Ok(());
        }
        if position < first {
            tracing::error!(
                partition = %of, from = position.0, to = first.0,
                "records were deleted from the source before they were decided"
            );
        }
        let position = position.max(first);
        self.log.resume_at(of, position)?;
        if let Some(owned) = self.owned.get_mut(of) {
            owned.ready(position);
            let took = self.clock.elapsed().saturating_sub(owned.gained);
            let replay_entries = owned.state.remembered();
            PartitionRestored { lane: self.settings.lane, partition: &of.pair(), replay_entries, took }
                .emit(&self.telemetry);
        }
        Ok(())
    }
}
