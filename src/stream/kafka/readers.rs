//! What a lane reads beside its group: state read back, answers, payloads of held records, and where partitions end.
//! Limits: each reader is made when it is first needed; none ever joins the group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::PATIENCE;
use super::aside::SideClient;
use super::callbacks::{Reader, reader};
use super::convert::{list_of, to_record};
use super::fault::{fatal, retriable};
use super::polling::{look, passes};
use super::settings::KafkaSettings;
use super::silence::{Silence, ahead};
use crate::authorize::ids::{Offset, Position, Topic};
use crate::authorize::record::Record;
use crate::stream::kafka_ffi;
use crate::stream::log::{LogError, TopicPartition};

/// A payload that stands so many offsets further on is sought, not read up to.
const NEAR: i64 = 64;

/// The readers of one lane.
pub(super) struct Readers {
    settings: KafkaSettings,
    client: SideClient,
    names: BTreeMap<String, Topic>,
    back: Option<Following>,
    /// Sees what is not committed; of use only to find out what a dead lane has left open.
    raw: Option<Reader>,
    answers: Option<Following>,
    kept: Option<Reader>,
}

/// A reader that goes on from where it was sent, for long.
struct Following {
    reader: Reader,
    from: BTreeMap<TopicPartition, Position>,
    silence: Silence,
}

impl Following {
    fn new(
        reader: Reader,
        from: BTreeMap<TopicPartition, Position>,
        silence: Silence,
    ) -> Result<Self, LogError> {
        reader.assign(&starting(&from)?).map_err(|error| retriable("follow", &error))?;
        Ok(Self { reader, from, silence })
    }

    /// The same with another reader, by those settings, where this one has stopped reading what is there.
    fn alive(
        mut self,
        settings: &KafkaSettings,
        config: fn(&KafkaSettings) -> ClientConfig,
    ) -> Result<Self, LogError> {
        if self.silence.find(&self.reader, &self.from).is_empty() {
            return Ok(self);
        }
        let passed = self.reader.position().map_err(|error| retriable("follow", &error))?;
        // How long each has been silent is not forgotten.
        Self::new(made(&config(settings))?, ahead(&self.from, &passed), self.silence)
    }

    fn next(&self, wait: Duration) -> Result<Option<BorrowedMessage<'_>>, LogError> {
        look(&self.reader, wait).transpose().map_err(|error| retriable("follow", &error))
    }
}

/// What is read back from replay topics and of held records.
fn reads_back(settings: &KafkaSettings) -> ClientConfig {
    settings.outsider("read_committed")
}

impl Readers {
    pub(super) fn new(settings: KafkaSettings, client: SideClient) -> Self {
        Self { settings, client, names: BTreeMap::new(), back: None, raw: None, answers: None, kept: None }
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let name = message.topic();
        let topic = match self.names.get(name) {
            Some(known) => known.clone(),
            None => {
                let topic = Topic::parse(name).ok()?;
                self.names.insert(name.to_owned(), topic.clone());
                topic
            }
        };
        Some(to_record(message, topic))
    }

    pub(super) fn unsettled_metadata(&self, partitions: &[TopicPartition]) -> Result<Vec<String>, LogError> {
        const CALL: &str = "read unsettled positions";
        let handle = made(&self.settings.outsider("read_uncommitted"))?;
        let list = handle
            .committed_offsets(list_of(partitions), PATIENCE)
            .map_err(|error| retriable(CALL, &error))?;
        Ok(kafka_ffi::metadata(&list).into_iter().filter_map(|bytes| String::from_utf8(bytes).ok()).collect())
    }

    /// Where a partition ends, what is not committed included.
    pub(super) fn raw_end(&mut self, of: &TopicPartition) -> Result<Position, LogError> {
        let raw = match self.raw.take() {
            Some(raw) => raw,
            None => made(&self.settings.outsider("read_uncommitted"))?,
        };
        let end = raw.fetch_watermarks(of.topic.as_str(), of.partition.0, PATIENCE);
        self.raw = Some(raw);
        let (_, end) = end.map_err(|error| retriable("read ends", &error))?;
        Ok(Position(end))
    }

    pub(super) fn rest(&mut self) {
        self.raw = None;
    }

    pub(super) fn read_back(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        let before = self.back.take();
        if !from.is_empty() {
            let reader = match before {
                Some(back) => back.reader,
                None => made(&reads_back(&self.settings))?,
            };
            self.back =
                Some(Following::new(reader, from.iter().cloned().collect(), Silence::new(&self.client))?);
        }
        Ok(())
    }

    pub(super) fn next_back(&mut self, wait: Duration) -> Result<Option<Record>, LogError> {
        let Some(back) = self.back.take() else { return Ok(None) };
        let back = back.alive(&self.settings, reads_back)?;
        let next = back.next(wait).map(|message| message.and_then(|message| self.record(&message)));
        self.back = Some(back);
        next
    }

    /// INVARIANT: with a new reader each time. One that is given its partitions anew tells for a moment how far it had come
    /// before (librdkafka 2.12 resets that on another thread), and a hold would be out of time with its answers unread.
    pub(super) fn follow_answers(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.answers = None;
        if !from.is_empty() {
            let reader = made(&self.settings.follower())?;
            self.answers =
                Some(Following::new(reader, from.iter().cloned().collect(), Silence::new(&self.client))?);
        }
        Ok(())
    }

    pub(super) fn next_answer(&mut self) -> Result<Option<Record>, LogError> {
        let Some(answers) = self.answers.take() else { return Ok(None) };
        let answers = answers.alive(&self.settings, KafkaSettings::follower)?;
        let next =
            answers.next(Duration::ZERO).map(|message| message.and_then(|message| self.record(&message)));
        self.answers = Some(answers);
        next
    }

    /// The client that reads the answers, to break it.
    #[cfg(test)]
    pub(super) fn answers_reader(&self) -> &Reader {
        &self.answers.as_ref().expect("answers are followed").reader
    }

    pub(super) fn answers_seen(&self, of: &TopicPartition) -> Result<Option<Position>, LogError> {
        let Some(answers) = &self.answers else { return Ok(None) };
        let list = answers.reader.position().map_err(|error| retriable("read answers", &error))?;
        Ok(list.find_partition(of.topic.as_str(), of.partition.0).and_then(|found| match found.offset() {
            KafkaOffset::Offset(at) => Some(Position(at)),
            _ => None,
        }))
    }

    /// Reads uncommitted: what is asked for is known to be committed, and a transaction that somebody has left open must
    /// not hide it.
    pub(super) fn fetch(
        &mut self,
        of: &TopicPartition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        let kept = match self.kept.take() {
            Some(kept) => kept,
            None => made(&self.settings.picker())?,
        };
        let found = self.pick(&kept, of, offsets);
        // Without partitions it asks the broker for nothing while nobody needs it.
        let rested = kept.unassign().map_err(|error| retriable("fetch payloads", &error));
        self.kept = Some(kept);
        let found = found?;
        rested.map(|()| found)
    }

    fn pick(
        &mut self,
        kept: &Reader,
        of: &TopicPartition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        const CALL: &str = "fetch payloads";
        let deadline = Instant::now() + PATIENCE;
        let mut found = Vec::with_capacity(offsets.len());
        // A record that was read and lies at or past what is wanted next, and the offset that will be read next.
        let (mut ahead, mut next): (Option<Record>, Option<i64>) = (None, None);
        for wanted in offsets {
            let is_near = |next: i64| (next..=next + NEAR).contains(&wanted.0);
            if ahead.is_none() && !next.is_some_and(is_near) {
                let list = starting([(of, &Position(wanted.0))])?;
                kept.assign(&list).map_err(|error| retriable(CALL, &error))?;
                next = Some(wanted.0);
            }
            while ahead.as_ref().is_none_or(|record| record.source.offset < *wanted) {
                match kept.poll(deadline.saturating_duration_since(Instant::now())) {
                    Some(Ok(message)) => {
                        next = Some(message.offset() + 1);
                        ahead = self.record(&message);
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        found.resize(offsets.len(), None);
                        return Ok(found);
                    }
                    // Old news too: this reader is looked at only when it is needed.
                    Some(Err(error)) if passes(&error) && Instant::now() < deadline => {}
                    Some(Err(error)) => return Err(retriable(CALL, &error)),
                    None => return Err(retriable(CALL, &timed_out())),
                }
            }
            found.push(ahead.take_if(|record| record.source.offset == *wanted));
        }
        Ok(found)
    }
}

pub(super) fn timed_out() -> KafkaError {
    KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut)
}

pub(super) fn made(config: &ClientConfig) -> Result<Reader, LogError> {
    reader(config).map_err(|error| fatal("create reader", &error))
}

pub(super) fn starting<'a>(
    from: impl IntoIterator<Item = (&'a TopicPartition, &'a Position)>,
) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    for (of, position) in from {
        let at = KafkaOffset::Offset(position.0.max(0));
        list.add_partition_offset(of.topic.as_str(), of.partition.0, at)
            .map_err(|error| fatal("read from", &error))?;
    }
    Ok(list)
}
