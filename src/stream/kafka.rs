//! The seam over rdkafka: one consumer, producers in turn, and readers made when a partition is gained. Limits: it classifies
//! what goes wrong and leaves it to the lane what to do; `unsafe` stands in [`super::kafka_ffi`].

mod aside;
mod callbacks;
pub mod client;
mod convert;
mod fault;
mod left_over;
mod membership;
mod polling;
mod readers;
pub mod settings;
mod silence;
mod turns;
mod unreadable;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

pub use self::convert::record;
pub use self::left_over::assignment;

use self::aside::SideClient;
use self::callbacks::Membership;
use self::convert::{list_of, positions, read_committed};
use self::fault::{fatal, retriable, rewind};
use self::left_over::Watch;
use self::membership::Namesakes;
use self::readers::Readers;
use self::settings::KafkaSettings;
use self::silence::Silence;
use self::turns::Turns;
use super::kafka_ffi;
use super::log::{
    Cause, Committed, Event, Finished, Log, LogError, Mark, ProducerFate, Receipts, Refusal, Tag,
    TopicPartition,
};
use crate::authorize::ids::{Offset, Position, Topic};
use crate::authorize::record::Record;
use crate::config::Delivery;
use crate::wire::outgoing::Outgoing;

/// How long one request to a broker may take where nothing else bounds it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The log of one lane, in Kafka.
pub struct KafkaLog {
    settings: KafkaSettings,
    // INVARIANT: the consumer is dropped first, while everything it calls back into is alive.
    consumer: BaseConsumer<Membership>,
    writers: Turns,
    held: Option<Record>,
    open: Option<Open>,
    /// At-least-once: what came of the batch that was handed over.
    settled: Option<Result<Finished, LogError>>,
    readers: Readers,
    topics: BTreeMap<String, Topic>,
    subscribed: bool,
    /// The partitions that the lane was told it has.
    assigned: BTreeSet<TopicPartition>,
    watch: Watch,
    /// Others with this lane's name.
    namesakes: Namesakes,
    /// The partitions that are being read, and where reading was sent last.
    reading: BTreeMap<TopicPartition, Position>,
    silence: Silence,
}

/// A transaction, or in at-least-once mode a batch.
struct Open {
    group: ConsumerGroupMetadata,
    /// The lane was a member of its group when it began.
    is_member: bool,
    marks: Vec<Mark>,
}

impl KafkaLog {
    /// The clients of a lane. No broker is asked for anything yet.
    pub fn new(settings: KafkaSettings) -> Result<Self, LogError> {
        let consumer = settings
            .consumer()
            .create_with_context(Membership::default())
            .map_err(|error| fatal("create consumer", &error))?;
        let topics = settings.topics.iter().map(|topic| (topic.to_string(), topic.clone())).collect();
        let beside = SideClient::new(settings.clone());
        Ok(Self {
            readers: Readers::new(settings.clone(), beside.clone()),
            writers: Turns::new(&settings),
            settings,
            consumer,
            held: None,
            open: None,
            settled: None,
            topics,
            subscribed: false,
            assigned: BTreeSet::new(),
            watch: Watch::new(&beside),
            namesakes: Namesakes::default(),
            reading: BTreeMap::new(),
            silence: Silence::new(&beside),
        })
    }

    fn exactly_once(&self) -> bool {
        self.settings.delivery == Delivery::ExactlyOnce
    }

    fn take_open(&mut self) -> Result<Open, LogError> {
        let nothing = || rewind("commit", "no transaction is open", ProducerFate::Usable);
        self.open.take().ok_or_else(nothing)
    }

    /// At-least-once: what was sent is answered, then the positions are committed by the consumer.
    fn commit_at_least_once(&mut self, marks: &[Mark]) -> Result<Receipts, LogError> {
        let receipts = self.writers.settle()?;
        if marks.is_empty() {
            return Ok(receipts);
        }
        let list = positions(marks)?;
        match self.consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => Ok(receipts),
            Err(error) => Err(rewind("commit", &error.to_string(), ProducerFate::Usable)),
        }
    }
}

impl Log for KafkaLog {
    fn join(&mut self) -> Result<(), LogError> {
        // The ids first: what a predecessor left open must end before its partitions are asked for.
        self.writers.ready()?;
        self.subscribe()
    }

    fn poll(&mut self, wait: Duration) -> Result<Event, LogError> {
        self.next_event(wait)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.reading.retain(|of, _| !partitions.contains(of));
        self.consumer.pause(&list_of(partitions)).map_err(|error| retriable("pause", &error))
    }

    fn resume_at(&mut self, partition: &TopicPartition, position: Position) -> Result<(), LogError> {
        self.reading.insert(partition.clone(), position);
        // A seek makes whatever was fetched before it outdated, so no record of the old place can come any more.
        let at = KafkaOffset::Offset(position.0);
        let sought = self.consumer.seek(partition.topic.as_str(), partition.partition.0, at, PATIENCE);
        if sought.is_err() {
            // A partition whose position was out of range is not fetched any more and takes no seek: it is given up and
            // taken anew.
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(partition.topic.as_str(), partition.partition.0, at)
                .map_err(|error| fatal("seek", &error))?;
            // An earlier try may have got this far.
            let _ = self.consumer.incremental_unassign(&list);
            self.consumer.incremental_assign(&list).map_err(|error| retriable("seek", &error))?;
        }
        self.consumer
            .resume(&list_of(std::slice::from_ref(partition)))
            .map_err(|error| retriable("resume", &error))
    }

    fn begin(&mut self) -> Result<(), LogError> {
        const CALL: &str = "begin";
        // Before and after: a client that has left, and has joined again meanwhile, has another id.
        let before = kafka_ffi::member_id(self.consumer.client());
        let group = self
            .consumer
            .group_metadata()
            .ok_or_else(|| LogError::Fatal(Cause { call: CALL, detail: "there is no group".into() }))?;
        let is_member = before.is_some() && before == kafka_ffi::member_id(self.consumer.client());
        self.writers.begin()?;
        self.open = Some(Open { group, is_member, marks: Vec::new() });
        Ok(())
    }

    fn append(&mut self, tag: Tag, record: &Outgoing) -> Result<(), LogError> {
        self.writers.append(tag, record)
    }

    fn send_positions(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        match &mut self.open {
            Some(open) => open.marks = marks.to_vec(),
            None => return Err(rewind("send positions", "no transaction is open", ProducerFate::Usable)),
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Receipts, LogError> {
        let marks = self.open.as_mut().map(|open| std::mem::take(&mut open.marks)).unwrap_or_default();
        self.hand_over(&marks)?;
        self.finish().map(|finished| finished.receipts)
    }

    fn hand_over(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        let open = self.take_open()?;
        if !self.exactly_once() {
            let began = Instant::now();
            let settled = self.commit_at_least_once(marks);
            self.settled = Some(settled.map(|receipts| Finished { receipts, took: began.elapsed() }));
            return Ok(());
        }
        // INVARIANT: positions are sent by a member only. A client that lost first its generation and then its member id would send
        // neither, and what comes without either a broker takes unchecked (KIP-447), whoever has the partitions by then.
        if !marks.is_empty() && !open.is_member {
            self.open = Some(open);
            return Err(rewind("commit", "the lane is no member of its group", ProducerFate::Usable));
        }
        self.writers.hand_over(positions(marks)?, open.group)
    }

    fn finish(&mut self) -> Result<Finished, LogError> {
        match self.settled.take() {
            Some(settled) => settled,
            None => self.writers.finish(),
        }
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.open = None;
        self.writers.abort()
    }

    fn refusals(&mut self) -> Vec<Refusal> {
        self.writers.refusals()
    }

    fn discard(&mut self) {
        self.open = None;
        self.settled = None;
        self.writers.discard();
    }

    fn renew(&mut self) -> Result<(), LogError> {
        // Destroyed before its successor is made: two of one id would fence each other.
        self.discard();
        self.writers.ready()
    }

    fn writers(&self) -> Vec<String> {
        if self.exactly_once() { self.settings.writers.clone() } else { Vec::new() }
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        wait: Duration,
    ) -> Result<BTreeMap<TopicPartition, Committed>, LogError> {
        match self.consumer.committed_offsets(list_of(partitions), wait) {
            Ok(list) => read_committed(&list, partitions),
            // The client asks again and again while a position is unstable, until the time is over.
            Err(KafkaError::MetadataFetch(
                Code::OperationTimedOut | Code::RequestTimedOut | Code::UnstableOffsetCommit,
            )) => Ok(partitions.iter().map(|of| (of.clone(), Committed::Unsettled)).collect()),
            Err(error) => Err(retriable("read committed positions", &error)),
        }
    }

    fn unsettled_metadata(&mut self, partitions: &[TopicPartition]) -> Result<Vec<String>, LogError> {
        self.readers.unsettled_metadata(partitions)
    }

    fn fence(&mut self, writer: &str) -> Result<(), LogError> {
        if self.writers.has(writer) {
            return self.renew();
        }
        // Group metadata may be written by whoever may commit to the group: only ids of this group are ours to end.
        if !writer.starts_with(&self.settings.writer_prefix()) {
            return Ok(());
        }
        self.writers.fence(writer)
    }

    fn bounds(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        self.consumer
            .fetch_watermarks(of.topic.as_str(), of.partition.0, PATIENCE)
            .map(|(low, high)| (Position(low), Position(high)))
            .map_err(|error| retriable("read bounds", &error))
    }

    fn ends(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        // The end first: what is settled by the time of the second answer was settled up to that end.
        let end = self.readers.raw_end(of)?;
        let (_, stable) = self.bounds(of)?;
        Ok((stable, end))
    }

    fn rest(&mut self) {
        self.readers.rest();
    }

    fn read_back(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.readers.read_back(from)
    }

    fn next_back(&mut self, wait: Duration) -> Result<Option<Record>, LogError> {
        self.readers.next_back(wait)
    }

    fn follow_answers(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.readers.follow_answers(from)
    }

    fn next_answer(&mut self) -> Result<Option<Record>, LogError> {
        self.readers.next_answer()
    }

    fn answers_seen(&mut self, of: &TopicPartition) -> Result<Option<Position>, LogError> {
        self.readers.answers_seen(of)
    }

    fn fetch(&mut self, of: &TopicPartition, offsets: &[Offset]) -> Result<Vec<Option<Record>>, LogError> {
        self.readers.fetch(of, offsets)
    }

    fn partition_count(&mut self, topic: &Topic) -> Result<i32, LogError> {
        const CALL: &str = "read metadata";
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic.as_str()), PATIENCE)
            .map_err(|error| retriable(CALL, &error))?;
        let count = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic.as_str() && found.error().is_none())
            .map_or(0, |found| found.partitions().len());
        match i32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(LogError::Retriable(Cause {
                call: CALL,
                detail: format!("topic `{topic}` cannot be seen"),
            })),
        }
    }

    fn known_end(&self, of: &TopicPartition) -> Option<Position> {
        kafka_ffi::known_end(self.consumer.client(), &of.topic, of.partition.0).map(Position)
    }

    fn leave(&mut self) {
        self.consumer.unsubscribe();
        self.subscribed = false;
        self.namesakes.needs_none();
        self.watch.stays_away();
    }

    fn has_left(&self) -> bool {
        kafka_ffi::member_id(self.consumer.client()).is_none()
    }
}
