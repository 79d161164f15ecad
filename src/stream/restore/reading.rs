//! Reading back what is remembered of a partition: its replay partition from the window on, its holds partition from the
//! beginning, each up to the lane's own barrier. Limits: what the records mean is the decider's.

use std::time::Duration;

use super::{BARRIER_KEY, ENTRIES_KEY};
use crate::authorize::ids::{Position, Topic};
use crate::authorize::record::Record;
use crate::stream::assignment::{Purpose, Reading, Span, Stage};
use crate::stream::clock::Clock;
use crate::stream::decider::{Decider, Remembered as _};
use crate::stream::lane::Lane;
use crate::stream::log::{Log, LogError, TopicPartition};

/// How long one step may read back before the lane polls again.
const READ_STEP: Duration = Duration::from_millis(50);

/// Which of the two topics a record read back is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Replay,
    Holds,
}

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    fn start_reading(&mut self) -> Result<(), LogError> {
        let mut from = Vec::new();
        for (of, owned) in &self.owned {
            let Stage::Reading(reading) = &owned.stage else { continue };
            let mut read = |topic: Topic, span: Span| {
                if !span.is_done() {
                    from.push((TopicPartition { topic, partition: of.partition }, span.next));
                }
            };
            read(self.replay_topic(of)?, reading.replay);
            if let (Some(topics), Some(span)) = (self.hold_topics(of), reading.holds) {
                read(topics.holds.clone(), span);
            }
        }
        self.log.read_back(&from)?;
        self.reading_back = true;
        Ok(())
    }

    /// Reads on, for a short while.
    pub(super) fn read(&mut self) -> Result<(), LogError> {
        if self.stages(|stage| matches!(stage, Stage::Reading(_))).is_empty() {
            return Ok(());
        }
        if !self.reading_back {
            self.start_reading()?;
        }
        let began = self.clock.elapsed();
        while self.clock.elapsed().saturating_sub(began) < READ_STEP {
            // Where the reader stands after a failure is not known: it begins anew at what has not been read.
            let record =
                self.log.next_back(Duration::from_millis(10)).inspect_err(|_| self.reading_back = false)?;
            let Some(record) = record else { break };
            self.took_back(&record);
        }
        if self.stages(|stage| matches!(stage, Stage::Reading(_))).is_empty() {
            self.log.read_back(&[])?;
        }
        Ok(())
    }

    /// The source partition that a record read back is remembered of.
    fn remembers(&self, record: &Record) -> Option<(TopicPartition, Memory)> {
        let topic = &record.source.topic;
        self.settings.sources.iter().find_map(|(source, settings)| {
            let is_holds = settings.holding.as_ref().is_some_and(|topics| topics.holds == *topic);
            let memory = if is_holds {
                Memory::Holds
            } else if settings.replay == *topic {
                Memory::Replay
            } else {
                return None;
            };
            Some((TopicPartition { topic: source.clone(), partition: record.source.partition }, memory))
        })
    }

    fn took_back(&mut self, record: &Record) {
        let Some((of, memory)) = self.remembers(record) else { return };
        let Some(owned) = self.owned.get_mut(&of) else { return };
        let Stage::Reading(reading) = &mut owned.stage else { return };
        let span = match (memory, &mut reading.holds) {
            (Memory::Replay, _) => &mut reading.replay,
            (Memory::Holds, Some(span)) => span,
            (Memory::Holds, None) => return,
        };
        let offset = record.source.offset;
        if offset.0 < span.next.0 {
            return;
        }
        // What lies behind the barrier was written after it, by nobody who is of concern here.
        let is_past = span.is_done();
        span.next = offset.next();
        if is_past {
            return;
        }
        match (reading.clone(), memory) {
            (reading @ Reading { purpose: Purpose::Restore(position), .. }, memory) => {
                self.restored(&of, record, memory, &reading, position);
            }
            (reading, Memory::Replay) => self.probed(&of, record, reading),
            (_, Memory::Holds) => {}
        }
    }

    /// Takes a record into the memory of a partition; with the last one the partition is restored.
    fn restored(
        &mut self,
        of: &TopicPartition,
        record: &Record,
        memory: Memory,
        reading: &Reading,
        position: Position,
    ) {
        let Some(owned) = self.owned.get_mut(of) else { return };
        let is_own = record.key.as_deref() == Some(BARRIER_KEY);
        let offset = record.source.offset;
        let loaded = match memory {
            Memory::Holds if is_own => Ok(()),
            Memory::Holds => owned.state.load_hold(record),
            Memory::Replay if record.key.as_deref() == Some(ENTRIES_KEY) => owned
                .state
                .load(record.value.as_deref().unwrap_or_default())
                .map(|newest| owned.remember(offset, newest)),
            Memory::Replay => {
                owned.passed(offset);
                Ok(())
            }
        };
        if let Err(error) = loaded {
            self.refuse(of, format!("record {} does not read: {error}", record.source));
            return;
        }
        if !reading.is_done() {
            return;
        }
        let (held, left) =
            (owned.state.held() as u64, owned.holding.as_ref().and_then(|holding| holding.left));
        match left {
            Some(left) if left != held => self.refuse(
                of,
                format!("{left} records were held and {held} were read back: the holds topic is not the one it was"),
            ),
            _ => self.enter(of, Stage::Restored(position)),
        }
    }

    /// Looks for traces of earlier work in a replay partition.
    fn probed(&mut self, of: &TopicPartition, record: &Record, reading: Reading) {
        let Purpose::Probe { position, traces } = reading.purpose else { return };
        let key = record.key.as_deref();
        let traces = traces || key == Some(ENTRIES_KEY) || key == Some(BARRIER_KEY);
        if !reading.replay.is_done() {
            let purpose = Purpose::Probe { position, traces };
            self.enter(of, Stage::Reading(Reading { purpose, ..reading }));
        } else if traces {
            self.nothing_beside(of, position, reading.missing);
        } else {
            if let Some(owned) = self.owned.get_mut(of) {
                owned.passed(record.source.offset);
            }
            self.enter(of, Stage::Opening(position));
        }
    }
}
