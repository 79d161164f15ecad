//! Making a gained partition ready: its stable position, its barriers, its memory; only then is it decided. Limits: it
//! works in small steps between two polls of the lane, so the group sees a lane that is alive. Why barriers: a commit is
//! answered before its markers are written, so the newest records of the replay and holds topics may not be visible yet.

mod reading;

use bytes::Bytes;
use std::time::Duration;

use super::assignment::{Locating, Predecessors, Purpose, Reading, Span, Stage};
use super::checkpoint::Checkpoint;
use super::clock::Clock;
use super::decider::{Decider, PartitionCounts as _, Remembered as _};
use super::lane::{Lane, gate_fault};
use super::log::{Committed, Log, LogError, Mark, Receipts, Tag, TopicPartition};
use super::orphans::{ORPHAN_PATIENCE, SWEPT};
use crate::authorize::ids::{Position, Topic};
use crate::config::Start;
use crate::telemetry::events::{LanePaused, LaneResumed, PartitionRestored};
use crate::wire::outgoing::Outgoing;

/// The key of a replay record that holds proofs.
pub(super) const ENTRIES_KEY: &[u8] = b"entries";
/// The key of a barrier, in the replay topic and in the holds topic: written together with the partition's position.
const BARRIER_KEY: &[u8] = b"barrier";
/// The key of a barrier without a position: it only marks an end to read to, and is no trace of earlier work.
const PROBE_KEY: &[u8] = b"probe";

/// A position that is missing although the partition was worked on is looked for again so often, so far apart: a
/// coordinator that has just moved may not know it yet.
const MISSING_TRIES: u32 = 5;
const MISSING_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at a topic that has too few partitions.
const SHORT_PAUSE: Duration = Duration::from_secs(5);

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// One step for every partition that is not ready yet.
    pub(super) fn restore(&mut self) -> Result<(), LogError> {
        if self.stages(|stage| !matches!(stage, Stage::Ready | Stage::Refused(_))).is_empty() {
            return Ok(());
        }
        if self.counts.0.is_empty() {
            self.recount()?;
        }
        self.measure()?;
        self.locate()?;
        self.open()?;
        self.read()?;
        for of in self.stages(|stage| matches!(stage, Stage::Restored(_))) {
            self.settle(&of)?;
        }
        Ok(())
    }

    /// A partition whose number another topic of its source does not have yet waits until that topic has grown too.
    fn measure(&mut self) -> Result<(), LogError> {
        let now = self.clock.elapsed();
        let waits = |stage: &Stage| match stage {
            Stage::Locating(search) => search.not_before <= now,
            Stage::Short(not_before) => *not_before <= now,
            _ => false,
        };
        let due = self.stages(waits);
        if due.iter().any(|of| self.shortest(of).is_some()) {
            self.recount()?;
        }
        for of in due {
            let was_short = self.owned.get(&of).is_some_and(|owned| matches!(owned.stage, Stage::Short(_)));
            match self.shortest(&of) {
                Some(topic) => {
                    if !was_short {
                        let reason = format!(
                            "topic `{topic}` has no partition {} for {of}: it goes on once the topic has as many \
                             partitions as `{}`",
                            of.partition, of.topic
                        );
                        LanePaused { lane: self.settings.lane, reason: &reason }.emit(&self.telemetry);
                    }
                    self.enter(&of, Stage::Short(now + SHORT_PAUSE));
                }
                None if was_short => {
                    LaneResumed { lane: self.settings.lane }.emit(&self.telemetry);
                    self.enter(&of, Stage::Locating(Locating::default()));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// A topic that goes with the source of a partition and does not reach its number, as far as is known.
    fn shortest(&self, of: &TopicPartition) -> Option<Topic> {
        let source = self.settings.sources.get(&of.topic)?;
        let holding = source.holding.iter().flat_map(|topics| [&topics.holds, &topics.answers]);
        let mut all = std::iter::once(&source.replay).chain(holding);
        all.find(|topic| self.counts.of(topic) <= of.partition.0).cloned()
    }

    fn stages(&self, of_interest: impl Fn(&Stage) -> bool) -> Vec<TopicPartition> {
        self.owned.iter().filter(|(_, owned)| of_interest(&owned.stage)).map(|(of, _)| of.clone()).collect()
    }

    fn enter(&mut self, of: &TopicPartition, stage: Stage) {
        if let Some(owned) = self.owned.get_mut(of) {
            owned.stage = stage;
        }
    }

    /// Asks for the stable committed positions: for all that are due together, and for one of those that have long been unsettled.
    fn locate(&mut self) -> Result<(), LogError> {
        let now = self.clock.elapsed();
        let due = |stage: &Stage, is_alone: bool| match stage {
            Stage::Locating(search) => search.not_before <= now && search.is_alone(now) == is_alone,
            _ => false,
        };
        let together = self.stages(|stage| due(stage, false));
        let next = |of: &TopicPartition| match self.owned.get(of).map(|owned| &owned.stage) {
            Some(Stage::Locating(search)) => search.not_before,
            _ => now,
        };
        let alone = self.stages(|stage| due(stage, true)).into_iter().min_by_key(next);
        self.locate_all(together)?;
        self.locate_all(alone.into_iter().collect())
    }

    fn locate_all(&mut self, due: Vec<TopicPartition>) -> Result<(), LogError> {
        if due.is_empty() {
            return Ok(());
        }
        let now = self.clock.elapsed();
        let answers = due.iter().filter_map(|of| self.answers_of(of));
        let asked: Vec<TopicPartition> = due.iter().cloned().chain(answers).collect();
        let mut committed = self.log.committed(&asked, ORPHAN_PATIENCE)?;
        let own = self.log.writers();
        let mut unsettled = Vec::new();
        let mut probes = Vec::new();
        for of in due {
            // One transaction sends both positions, so what holds back one holds back the other.
            let answers = match self.answers_of(&of).and_then(|answers| committed.remove(&answers)) {
                Some(Committed::At(position, _)) => Some(position),
                _ => None,
            };
            let Some(committed) = committed.remove(&of) else { continue };
            if committed != Committed::Unsettled {
                self.settled(&of);
            }
            let Some(owned) = self.owned.get_mut(&of) else { continue };
            let stands =
                matches!(&committed, Committed::At(position, text) if owned.stands_at(*position, text));
            let Stage::Locating(search) = &owned.stage else { continue };
            let missing = search.missing;
            match committed {
                Committed::Unsettled => unsettled.push(of),
                // The memory stands exactly there: nothing happened since.
                Committed::At(position, _) if stands => {
                    self.log.resume_at(&of, position)?;
                    owned.ready(position);
                    self.following &= owned.holding.is_none();
                }
                Committed::At(position, metadata) => match Checkpoint::decode(&metadata) {
                    Ok(Some(checkpoint)) if owned.would_forget(&checkpoint) => {
                        let why = "records of it are held and its route does not hold any more: name `challenges` again \
                                   until they have ended";
                        self.refuse(&of, why.to_owned());
                    }
                    Ok(Some(checkpoint)) => match owned.reset(&checkpoint, answers) {
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
                    Ok(None) => probes.push((of, Some(position), missing)),
                    Err(error) => self.refuse(&of, error.to_string()),
                },
                Committed::Missing => probes.push((of, None, missing)),
            }
        }
        self.end_unsettled(&unsettled)?;
        self.probe(probes)
    }

    /// Nothing stands beside these positions: has somebody worked on the partitions before?
    fn probe(&mut self, probes: Vec<(TopicPartition, Option<Position>, u32)>) -> Result<(), LogError> {
        if probes.is_empty() {
            return Ok(());
        }
        let marks: Vec<TopicPartition> = probes.iter().map(|(of, ..)| of.clone()).collect();
        let barriers = self.write_barriers(&marks, PROBE_KEY, &[])?;
        for (index, (of, position, missing)) in probes.into_iter().enumerate() {
            let Some(barrier) = barriers.get(&Tag::Replay(index)) else { continue };
            let purpose = Purpose::Probe { position, traces: false };
            let replay = Span { next: Position(0), barrier: *barrier };
            let reading = Reading { purpose, replay, holds: None, missing };
            self.enter(&of, Stage::Reading(reading));
            self.reading_back = false;
        }
        Ok(())
    }

    /// Writes the barriers of every partition whose position is known, and begins to read what is remembered of it.
    fn open(&mut self) -> Result<(), LogError> {
        let writers = self.log.writers();
        let mut marks = Vec::new();
        for of in self.stages(|stage| matches!(stage, Stage::Opening(_))) {
            let Some(owned) = self.owned.get(&of) else { continue };
            let metadata = owned.metadata(&writers, None).map_err(|error| gate_fault(error.to_string()))?;
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
            let (Some(barrier), Some(owned)) =
                (barriers.get(&Tag::Replay(index)), self.owned.get_mut(&mark.of))
            else {
                continue;
            };
            if let Some(holding) = &mut owned.holding {
                holding.turned(None);
            }
            let holds = barriers.get(&Tag::Barrier(index));
            let reading = Reading {
                purpose: Purpose::Restore(mark.position),
                replay: Span { next: owned.window_start(), barrier: *barrier },
                holds: holds.map(|barrier| Span { next: Position(0), barrier: *barrier }),
                missing: 0,
            };
            self.enter(&mark.of, Stage::Reading(reading));
            self.reading_back = false;
        }
        Ok(())
    }

    /// One transaction with a barrier for each partition, and with `marks`: a stale owner's barrier is fenced by them. With
    /// marks the holds get one too.
    fn write_barriers(
        &mut self,
        partitions: &[TopicPartition],
        key: &'static [u8],
        marks: &[Mark],
    ) -> Result<Receipts, LogError> {
        let by = Bytes::from(self.log.writers().join(","));
        self.log.begin()?;
        for (index, of) in partitions.iter().enumerate() {
            let replay = (Tag::Replay(index), self.replay_topic(of)?);
            let holds = self.hold_topics(of).filter(|_| !marks.is_empty());
            let holds = holds.map(|topics| (Tag::Barrier(index), topics.holds.clone()));
            for (tag, topic) in std::iter::once(replay).chain(holds) {
                let barrier = Outgoing {
                    topic,
                    partition: of.partition,
                    timestamp: None,
                    key: Some(Bytes::from_static(key)),
                    value: Some(by.clone()),
                    headers: Vec::new(),
                };
                self.log.append(tag, &barrier)?;
            }
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
        if !self.settle_answers(of)? {
            return Ok(());
        }
        let position = position.max(first);
        self.log.resume_at(of, position)?;
        if let Some(owned) = self.owned.get_mut(of) {
            owned.ready(position);
            self.following &= owned.holding.is_none();
            let took = self.clock.elapsed().saturating_sub(owned.gained);
            let replay_entries = owned.state.remembered();
            PartitionRestored { lane: self.settings.lane, partition: &of.pair(), replay_entries, took }
                .emit(&self.telemetry);
            self.show_progress(of);
        }
        Ok(())
    }

    /// Whether the position of the answers lies within what their topic holds.
    fn settle_answers(&mut self, of: &TopicPartition) -> Result<bool, LogError> {
        let Some(answers) = self.answers_of(of) else { return Ok(true) };
        let (first, end) = self.log.bounds(&answers)?;
        let Some(holding) = self.owned.get_mut(of).and_then(|owned| owned.holding.as_mut()) else {
            return Ok(true);
        };
        let position = holding.answers;
        if position > end {
            let why = format!(
                "position {position} is past the end of {answers}, {end}: the topic is not the one it was"
            );
            self.refuse(of, why);
            return Ok(false);
        }
        if position < first && first.0 > 0 && position.0 > 0 {
            tracing::error!(
                partition = %answers, from = position.0, to = first.0,
                "answers were deleted before they were decided"
            );
        }
        holding.answers = position.max(first);
        Ok(true)
    }
}
