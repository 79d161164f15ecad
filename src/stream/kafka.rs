//! The seam over rdkafka: one consumer, one producer, and readers made when a partition is gained. Limits: it classifies
//! what goes wrong and leaves it to the lane what to do; `unsafe` stands in [`super::kafka_ffi`].

mod callbacks;
mod convert;
mod fault;
pub mod settings;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

pub use self::convert::record;

use self::callbacks::{Membership, Reports, pack, refused};
use self::convert::{list_of, positions, read_committed, to_record};
use self::fault::{classify, classify_told, fatal, fate, retriable, rewind};
use self::settings::KafkaSettings;
use super::kafka_ffi::{self};
use super::log::{
    Cause, Committed, Event, Log, LogError, Mark, ProducerFate, Receipts, Refusal, Tag, TopicPartition,
};
use crate::authorize::ids::{Position, Topic};
use crate::authorize::record::Record;
use crate::config::Delivery;
use crate::wire::outgoing::Outgoing;

/// How long one request to a broker may take where nothing else bounds it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries of a call that the client asks to repeat.
const PAUSE: Duration = Duration::from_millis(10);

/// The log of one lane, in Kafka.
pub struct KafkaLog {
    settings: KafkaSettings,
    // INVARIANT: the consumer is dropped first, while everything it calls back into is alive.
    consumer: BaseConsumer<Membership>,
    producer: Option<ThreadedProducer<Reports>>,
    held: Option<Record>,
    open: Option<Open>,
    back: Option<BaseConsumer>,
    /// Sees what is not committed; of use only to find out what a dead lane has left open.
    raw: Option<BaseConsumer>,
    refusals: Vec<Refusal>,
    topics: BTreeMap<String, Topic>,
    subscribed: bool,
}

/// A transaction, or in at-least-once mode a batch.
struct Open {
    group: ConsumerGroupMetadata,
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
        Ok(Self {
            settings,
            consumer,
            producer: None,
            held: None,
            open: None,
            back: None,
            raw: None,
            refusals: Vec::new(),
            topics,
            subscribed: false,
        })
    }

    fn exactly_once(&self) -> bool {
        self.settings.delivery == Delivery::ExactlyOnce
    }

    fn producer(&self, call: &'static str) -> Result<&ThreadedProducer<Reports>, LogError> {
        self.producer.as_ref().ok_or_else(|| rewind(call, "there is no producer", ProducerFate::Unclear))
    }

    fn make_producer(&self, id: &str) -> Result<ThreadedProducer<Reports>, LogError> {
        let config = self.settings.producer(id);
        let producer: ThreadedProducer<Reports> = config
            .create_with_context(Reports::default())
            .map_err(|error| fatal("create producer", &error))?;
        if self.exactly_once() {
            let within = self.settings.transaction_timeout + PATIENCE;
            producer.init_transactions(within).map_err(|error| match &error {
                KafkaError::Transaction(told) if told.is_fatal() => {
                    rewind("init transactions", &told.string(), fate(told.code()))
                }
                _ => retriable("init transactions", &error),
            })?;
        }
        Ok(producer)
    }

    fn topic(&mut self, name: &str) -> Option<Topic> {
        if let Some(known) = self.topics.get(name) {
            return Some(known.clone());
        }
        let topic = Topic::parse(name).ok()?;
        self.topics.insert(name.to_owned(), topic.clone());
        Some(topic)
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let topic = self.topic(message.topic())?;
        Some(to_record(message, topic))
    }

    fn collect(&mut self) -> Receipts {
        let Some(producer) = &self.producer else { return Receipts::new() };
        let mut reports = producer.client().context().lock();
        let failed = std::mem::take(&mut reports.failed);
        let offsets = std::mem::take(&mut reports.offsets);
        drop(reports);
        self.refusals.extend(refused(&failed));
        offsets.into_iter().collect()
    }

    /// At-least-once: what was sent is answered, then the positions are committed by the consumer.
    fn commit_at_least_once(&mut self, marks: &[Mark]) -> Result<Receipts, LogError> {
        const CALL: &str = "commit";
        let producer = self.producer(CALL)?;
        if !kafka_ffi::flush(producer.client(), self.settings.transaction_timeout + PATIENCE) {
            return Err(rewind(CALL, "the broker did not take all records in time", ProducerFate::Unclear));
        }
        let failed = producer.client().context().lock().failed.first().map(|(_, code)| code.to_string());
        let receipts = self.collect();
        if let Some(failed) = failed {
            let producer = match self.producer.as_ref().and_then(|producer| producer.client().fatal_error()) {
                Some(_) => ProducerFate::Unclear,
                None => ProducerFate::Usable,
            };
            return Err(rewind(CALL, &failed, producer));
        }
        if marks.is_empty() {
            return Ok(receipts);
        }
        let list = positions(marks)?;
        match self.consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => Ok(receipts),
            Err(error) => Err(rewind(CALL, &error.to_string(), ProducerFate::Usable)),
        }
    }
}

impl Log for KafkaLog {
    fn join(&mut self) -> Result<(), LogError> {
        // The ids first: what a predecessor left open must end before its partitions are asked for.
        if self.producer.is_none() {
            let id = self.settings.writer.clone();
            self.producer = Some(self.make_producer(&id)?);
        }
        if !self.subscribed {
            let names: Vec<&str> = self.settings.topics.iter().map(Topic::as_str).collect();
            self.consumer.subscribe(&names).map_err(|error| retriable("subscribe", &error))?;
            self.subscribed = true;
        }
        Ok(())
    }

    fn poll(&mut self, wait: Duration) -> Result<Event, LogError> {
        const CALL: &str = "poll";
        if let Some(event) = self.consumer.context().next() {
            return Ok(event);
        }
        if let Some(record) = self.held.take() {
            return Ok(Event::Record(record));
        }
        let polled = match self.consumer.poll(wait) {
            None => None,
            Some(Ok(message)) => {
                let name = message.topic();
                let topic = self.topics.get(name).cloned().or_else(|| Topic::parse(name).ok());
                Some(Ok(topic.map(|topic| to_record(&message, topic))))
            }
            Some(Err(error)) => Some(Err(error)),
        };
        let event = self.consumer.context().next();
        match polled {
            None => Ok(event.unwrap_or(Event::Idle)),
            Some(Ok(record)) => match (event, record) {
                // A change of assignment that was served inside this poll comes before the record.
                (Some(event), record) => {
                    self.held = record;
                    Ok(event)
                }
                (None, Some(record)) => Ok(Event::Record(record)),
                (None, None) => Ok(Event::Idle),
            },
            Some(Err(error)) => {
                if let Some(event) = event {
                    self.consumer.context().push_front(event);
                }
                Err(match &error {
                    KafkaError::MessageConsumptionFatal(_) => {
                        let detail = self.consumer.client().fatal_error();
                        let text = detail.map_or_else(|| error.to_string(), |(_, text)| text);
                        LogError::Fatal(Cause { call: CALL, detail: text })
                    }
                    KafkaError::MessageConsumption(Code::AutoOffsetReset) => {
                        rewind(CALL, "a position is outside of what the topic holds", ProducerFate::Usable)
                    }
                    _ => match self.consumer.client().fatal_error() {
                        Some((_, text)) => LogError::Fatal(Cause { call: CALL, detail: text }),
                        None => retriable(CALL, &error),
                    },
                })
            }
        }
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.consumer.pause(&list_of(partitions)).map_err(|error| retriable("pause", &error))
    }

    fn resume_at(&mut self, partition: &TopicPartition, position: Position) -> Result<(), LogError> {
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
        let group = self
            .consumer
            .group_metadata()
            .ok_or_else(|| LogError::Fatal(Cause { call: CALL, detail: "there is no group".into() }))?;
        if self.exactly_once() {
            self.producer(CALL)?.begin_transaction().map_err(|error| classify(CALL, &error))?;
        } else {
            self.producer(CALL)?;
        }
        self.open = Some(Open { group, marks: Vec::new() });
        Ok(())
    }

    fn append(&mut self, tag: Tag, record: &Outgoing) -> Result<(), LogError> {
        const CALL: &str = "append";
        let producer = self.producer(CALL)?;
        let deadline = Instant::now() + self.settings.transaction_timeout;
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic.as_str(), pack(tag))
            .partition(record.partition.0);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        if let Some(at) = record.timestamp {
            message = message.timestamp(at.0);
        }
        if !record.headers.is_empty() {
            let headers = kafka_ffi::to_send(&record.headers)
                .ok_or_else(|| rewind(CALL, "no memory for headers", ProducerFate::Usable))?;
            message = message.headers(headers);
        }
        loop {
            match producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) if Instant::now() < deadline => {
                    message = back;
                    std::thread::sleep(PAUSE / 10);
                }
                Err((KafkaError::MessageProduction(Code::MessageSizeTooLarge), _)) => {
                    let why = "the client's `message.max.bytes` is smaller than the record".to_owned();
                    self.refusals.push(Refusal { tag, why: why.clone(), certain: true });
                    return Err(rewind(CALL, &why, ProducerFate::Usable));
                }
                Err((error, _)) => {
                    let fate = match producer.client().fatal_error() {
                        Some((code, _)) => fate(code),
                        None => ProducerFate::Usable,
                    };
                    return Err(rewind(CALL, &error.to_string(), fate));
                }
            }
        }
    }

    fn send_positions(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        const CALL: &str = "send positions";
        if !self.exactly_once() {
            if let Some(open) = &mut self.open {
                open.marks = marks.to_vec();
            }
            return Ok(());
        }
        let list = positions(marks)?;
        let deadline = Instant::now() + self.settings.transaction_timeout;
        let producer = self.producer(CALL)?;
        let Some(open) = &self.open else {
            return Err(rewind(CALL, "no transaction is open", ProducerFate::Usable));
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match producer.send_offsets_to_transaction(&list, &open.group, left) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(told))
                    if told.is_retriable() && !told.txn_requires_abort() && !left.is_zero() =>
                {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(classify(CALL, &error)),
            }
        }
    }

    fn commit(&mut self) -> Result<Receipts, LogError> {
        const CALL: &str = "commit";
        let Some(open) = self.open.take() else {
            return Err(rewind(CALL, "no transaction is open", ProducerFate::Usable));
        };
        if !self.exactly_once() {
            return self.commit_at_least_once(&open.marks);
        }
        let within = self.settings.transaction_timeout + PATIENCE;
        let result = kafka_ffi::commit_transaction(self.producer(CALL)?.client(), within);
        let receipts = self.collect();
        match result {
            Ok(()) => Ok(receipts),
            Err(told) => {
                self.open = Some(open);
                Err(classify_told(CALL, &told))
            }
        }
    }

    fn abort(&mut self) -> Result<(), LogError> {
        if self.open.take().is_none() {
            return Ok(());
        }
        let producer = self.producer("abort")?;
        let result = if self.exactly_once() {
            producer
                .abort_transaction(self.settings.transaction_timeout + PATIENCE)
                .map_err(|error| classify("abort", &error))
        } else {
            kafka_ffi::flush(producer.client(), PATIENCE);
            Ok(())
        };
        self.collect();
        result
    }

    fn refusals(&mut self) -> Vec<Refusal> {
        self.collect();
        std::mem::take(&mut self.refusals)
    }

    fn discard(&mut self) {
        self.collect();
        self.open = None;
        self.producer = None;
    }

    fn renew(&mut self) -> Result<(), LogError> {
        // Destroyed before its successor is made: two of one id would fence each other.
        self.discard();
        let id = self.settings.writer.clone();
        self.producer = Some(self.make_producer(&id)?);
        Ok(())
    }

    fn writers(&self) -> Vec<String> {
        if self.exactly_once() { vec![self.settings.writer.clone()] } else { Vec::new() }
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
        const CALL: &str = "read unsettled positions";
        let handle: BaseConsumer =
            self.settings.outsider("read_uncommitted").create().map_err(|error| fatal(CALL, &error))?;
        let list = handle
            .committed_offsets(list_of(partitions), PATIENCE)
            .map_err(|error| retriable(CALL, &error))?;
        Ok(kafka_ffi::metadata(&list).into_iter().filter_map(|bytes| String::from_utf8(bytes).ok()).collect())
    }

    fn fence(&mut self, writer: &str) -> Result<(), LogError> {
        if writer == self.settings.writer {
            return self.renew();
        }
        // Group metadata may be written by whoever may commit to the group: only ids of this group are ours to end.
        if !writer.starts_with(&self.settings.writer_prefix()) {
            return Ok(());
        }
        self.make_producer(writer).map(drop)
    }

    fn bounds(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        self.consumer
            .fetch_watermarks(of.topic.as_str(), of.partition.0, PATIENCE)
            .map(|(low, high)| (Position(low), Position(high)))
            .map_err(|error| retriable("read bounds", &error))
    }

    fn ends(&mut self, of: &TopicPartition) -> Result<(Position, Position), LogError> {
        const CALL: &str = "read ends";
        let raw = match self.raw.take() {
            Some(raw) => raw,
            None => self
                .settings
                .outsider("read_uncommitted")
                .create()
                .map_err(|error| fatal("create reader", &error))?,
        };
        // The end first: what is settled by the time of the second answer was settled up to that end.
        let end = raw.fetch_watermarks(of.topic.as_str(), of.partition.0, PATIENCE);
        self.raw = Some(raw);
        let (_, end) = end.map_err(|error| retriable(CALL, &error))?;
        let (_, stable) = self.bounds(of)?;
        Ok((stable, Position(end)))
    }

    fn rest(&mut self) {
        self.raw = None;
    }

    fn read_back(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        const CALL: &str = "read back";
        if from.is_empty() {
            self.back = None;
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(from.len());
        for (of, position) in from {
            list.add_partition_offset(
                of.topic.as_str(),
                of.partition.0,
                KafkaOffset::Offset(position.0.max(0)),
            )
            .map_err(|error| fatal(CALL, &error))?;
        }
        let back = match self.back.take() {
            Some(back) => back,
            None => self
                .settings
                .outsider("read_committed")
                .create()
                .map_err(|error| fatal("create reader", &error))?,
        };
        back.assign(&list).map_err(|error| retriable(CALL, &error))?;
        self.back = Some(back);
        Ok(())
    }

    fn next_back(&mut self, wait: Duration) -> Result<Option<Record>, LogError> {
        let Some(back) = self.back.take() else { return Ok(None) };
        let next = match back.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => Ok(self.record(&message)),
            Some(Err(error)) => Err(retriable("read back", &error)),
        };
        self.back = Some(back);
        next
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
    }

    fn has_left(&self) -> bool {
        !kafka_ffi::is_member(self.consumer.client())
    }
}
