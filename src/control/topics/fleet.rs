//! Who has taken in what: reads the `fleet` topic for those who must know when a fact is in force at every gate. Limits: it
//! knows gates by what they announce; one that follows nothing, or announces elsewhere, is not seen.
//!
//! A gate announces itself before it reads, and reads what the brokers have before it decides: so whoever reads the fleet to
//! its end after a fact was written has seen every gate that may decide without it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::announcement::Announcement;
use super::reader::Reader;
use super::view::View;
use super::writer::{Writer, Written};
use crate::authorize::ids::{Coordinates, Partition, Position, Topic};
use crate::authorize::record::{Record, TimestampType};
use crate::config::KafkaProperties;
use crate::stream::freshness::Instants;
use crate::stream::log::TopicPartition;

/// Between two probes, by which the reader knows that it has read to the end and what time it is at the broker.
const PROBE_EACH: Duration = Duration::from_millis(250);
/// How long one look at the topic waits.
const LOOK: Duration = Duration::from_millis(5);

/// Why the fleet cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The clients cannot be made.
    #[error("the Kafka clients cannot be made: {0}")]
    Clients(KafkaError),
    /// The topic cannot be read or written to.
    #[error("the fleet cannot be asked: {0}")]
    Topic(String),
    /// Silence is told by the broker's clock alone.
    #[error(
        "topic `{topic}` has the gates' own timestamps: set its `message.timestamp.type` to `LogAppendTime`"
    )]
    Timestamps {
        /// Which.
        topic: Topic,
    },
}

/// Where a gate stands with one fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateState {
    /// Everything that it decides from now on knows it.
    TakenIn,
    /// Not yet.
    Behind,
    /// It has said nothing for so long that it can have nothing open from before.
    Silent,
    /// It has read the record and not applied it: a revocation that it cannot verify, say.
    Refused,
    /// It does not follow the topic, and decides without it.
    NotFollowing,
}

/// One gate's instance and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateProgress {
    /// The gate's identifier.
    pub gate: String,
    /// The instance.
    pub instance: String,
    /// Where it stands.
    pub state: GateState,
}

/// How far a fact has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether the fleet was read to an end that lies after the fact. Before that, gates may be missing.
    pub is_known: bool,
    /// Every gate that is known, by instance.
    pub gates: Vec<GateProgress>,
}

impl Progress {
    /// Whether no gate decides without the fact any more.
    pub fn is_acknowledged(&self) -> bool {
        let done = |gate: &GateProgress| matches!(gate.state, GateState::TakenIn | GateState::Silent);
        self.is_known && self.gates.iter().all(done)
    }
}

/// A reader of the fleet.
pub struct Fleet {
    topic: Topic,
    key: String,
    reader: Reader,
    writer: Writer,
    view: View,
    gates: Gates,
    next_probe: Option<Instant>,
    /// What is asked about, and since when.
    asked: Option<(Coordinates, Instants)>,
    /// What stood in the way last.
    problem: Option<String>,
}

impl Fleet {
    /// A reader that has read nothing yet. `nonce` is used by nobody else.
    ///
    /// # Errors
    /// The clients cannot be made.
    pub fn open(properties: &KafkaProperties, topic: Topic, nonce: &str) -> Result<Self, FleetError> {
        Ok(Self {
            topic,
            key: format!("probe/{nonce}"),
            reader: Reader::new(properties, "countersign.fleet").map_err(FleetError::Clients)?,
            writer: Writer::new(properties).map_err(FleetError::Clients)?,
            view: View::new(false),
            gates: Gates::default(),
            next_probe: None,
            asked: None,
            problem: None,
        })
    }

    /// How far the record at `at` has come, as soon as every gate has taken it in, at the latest after `wait`. Ask only
    /// after the broker has taken that record; ask again for as long as it matters.
    ///
    /// # Errors
    /// The topic could not be read or written to in all that time, or has no timestamps of the broker.
    pub fn progress(&mut self, at: &Coordinates, wait: Duration) -> Result<Progress, FleetError> {
        let since = match &self.asked {
            Some((asked, since)) if asked == at => *since,
            _ => {
                let now = Instants::now();
                self.asked = Some((at.clone(), now));
                now
            }
        };
        let deadline = Instant::now() + wait;
        loop {
            self.turn()?;
            let is_known = self.view.oldest().as_of.is_some_and(|as_of| !as_of.is_before(since));
            let progress = Progress { is_known, gates: self.gates.progress(at) };
            if progress.is_acknowledged() || Instant::now() >= deadline {
                return match self.problem.take() {
                    Some(problem) if !is_known => Err(FleetError::Topic(problem)),
                    _ => Ok(progress),
                };
            }
        }
    }

    fn turn(&mut self) -> Result<(), FleetError> {
        if self.next_probe.is_none_or(|at| Instant::now() >= at) {
            self.next_probe = Some(Instant::now() + PROBE_EACH);
            if let Err(problem) = self.probe() {
                self.problem = Some(problem);
            }
        }
        let mut next = self.reader.next(LOOK);
        while let Ok(Some(record)) = next {
            self.view.read(&TopicPartition::of(&record), record.source.offset, Instants::now());
            if !self.gates.read(&record) {
                return Err(FleetError::Timestamps { topic: self.topic.clone() });
            }
            next = self.reader.next(Duration::ZERO);
        }
        if let Err(error) = next.map(drop).and_then(|()| self.reader.read_on(&mut self.view)) {
            self.problem = Some(error.to_string());
        }
        for answer in self.writer.answers().map_err(FleetError::Clients)? {
            match answer.result {
                Ok((of, offset)) => self.view.pulsed(&of, offset, answer.sent),
                Err(problem) => self.problem = Some(problem),
            }
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), String> {
        let asked = Instants::now();
        let count = self.writer.count(&self.topic)?;
        let missing = self.view.missing(&self.topic, count);
        if !missing.is_empty() {
            self.reader.add(&missing).map_err(|error| error.to_string())?;
            missing.into_iter().for_each(|of| self.view.follow(of, Position(0)));
        }
        self.view.counted(asked);
        for of in self.view.followed() {
            self.writer.write(Written::Pulse, of, &self.key, None);
        }
        Ok(())
    }
}

/// What each instance said last, and the broker's clock.
#[derive(Debug, Default)]
struct Gates {
    last: BTreeMap<String, Said>,
    now: BTreeMap<Partition, i64>,
}

#[derive(Debug)]
struct Said {
    partition: Partition,
    at: i64,
    /// `None` where it could not be read: nobody knows what that gate has taken in.
    announcement: Option<Announcement>,
}

impl Gates {
    /// Takes in one record; false where its timestamp is not the broker's.
    fn read(&mut self, record: &Record) -> bool {
        let (TimestampType::LogAppendTime, Some(at)) = (record.timestamp_type, record.timestamp) else {
            return false;
        };
        let now = self.now.entry(record.source.partition).or_insert(at.0);
        *now = at.0.max(*now);
        let Some(key) = record.key.as_ref().and_then(|key| std::str::from_utf8(key).ok()) else {
            return true;
        };
        let Some(value) = &record.value else {
            self.last.remove(key);
            return true;
        };
        let announcement = Announcement::decode(value).ok();
        // Where the topic has grown, an instance's key may stand in two partitions: the newer one counts.
        if self.last.get(key).is_none_or(|said| said.at <= at.0) {
            self.last
                .insert(key.to_owned(), Said { partition: record.source.partition, at: at.0, announcement });
        }
        true
    }

    fn progress(&self, fact: &Coordinates) -> Vec<GateProgress> {
        let of = |(instance, said): (&String, &Said)| {
            let silence = self.now.get(&said.partition).map_or(0, |now| now - said.at);
            let silence = u64::try_from(silence).unwrap_or(0);
            let state =
                match said.announcement.as_ref().map(|said| (said.is_past(fact), said.silent_after_ms)) {
                    Some((Some(true), _)) => GateState::TakenIn,
                    Some((_, after)) if silence > after => GateState::Silent,
                    Some((None, _)) => GateState::NotFollowing,
                    Some((Some(false), _))
                        if said.announcement.as_ref().is_some_and(|said| said.has_refused(fact)) =>
                    {
                        GateState::Refused
                    }
                    Some((Some(false), _)) | None => GateState::Behind,
                };
            let gate = said.announcement.as_ref().map(|said| said.gate.clone()).unwrap_or_default();
            GateProgress { gate, instance: instance.clone(), state }
        };
        self.last.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::ids::{Offset, UnixMillis};
    use crate::control::topics::pins::{Taken, TakenIn};

    fn record(key: &str, at: i64, value: Option<Vec<u8>>) -> Record {
        Record {
            source: place("c.fleet", 0),
            timestamp: Some(UnixMillis(at)),
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(key.to_owned().into()),
            value: value.map(Into::into),
            headers: Vec::new(),
        }
    }

    fn place(topic: &str, offset: i64) -> Coordinates {
        Coordinates { topic: Topic::parse(topic).unwrap(), partition: Partition(0), offset: Offset(offset) }
    }

    fn said(instance: &str, follows: &str, position: i64) -> Option<Vec<u8>> {
        let topic = Topic::parse(follows).unwrap();
        let positions = [(Partition(0), Position(position))].into_iter().collect();
        let taken = Taken::from([(topic.clone(), TakenIn { positions, refused: Vec::new() })]);
        let silent = Duration::from_secs(25);
        let followed = [&topic].into_iter();
        Some(Announcement::new("spiffe://d/g", instance, UnixMillis(0), silent, followed, &taken).encode())
    }

    #[test]
    fn a_fact_is_acknowledged_when_every_gate_is_past_it_silent_or_gone() {
        let fact = place("c.revocations", 7);
        let mut gates = Gates::default();
        let states =
            |gates: &Gates| gates.progress(&fact).into_iter().map(|gate| gate.state).collect::<Vec<_>>();
        assert!(gates.read(&record("a", 1_000, said("a", "c.revocations", 8))));
        assert!(gates.read(&record("b", 1_000, said("b", "c.revocations", 7))));
        assert!(gates.read(&record("c", 1_000, said("c", "c.workflows", 9))));
        assert!(gates.read(&record("d", 1_000, Some(b"{".to_vec()))));
        use GateState::{Behind, NotFollowing, Silent, TakenIn};
        assert_eq!(states(&gates), [TakenIn, Behind, NotFollowing, Behind]);
        // The probe's own timestamp is the broker's clock.
        assert!(gates.read(&record("probe/x", 26_000, None)));
        assert_eq!(states(&gates), [TakenIn, Behind, NotFollowing, Behind], "25 s are not more than 25 s");
        assert!(gates.read(&record("probe/x", 26_001, None)));
        assert_eq!(
            states(&gates),
            [TakenIn, Silent, Silent, Behind],
            "who cannot be read never counts as silent"
        );
        assert!(gates.read(&record("d", 27_000, None)));
        assert!(gates.read(&record("b", 27_000, said("b", "c.revocations", 8))));
        assert_eq!(states(&gates), [TakenIn, TakenIn, Silent]);
        let of = |is_known| Progress { is_known, gates: gates.progress(&fact) };
        assert!(of(true).is_acknowledged() && !of(false).is_acknowledged());
    }

    #[test]
    fn timestamps_that_are_not_the_brokers_are_refused() {
        let mut of_gate = record("a", 1_000, said("a", "c.revocations", 8));
        of_gate.timestamp_type = TimestampType::CreateTime;
        assert!(!Gates::default().read(&of_gate));
    }
}
