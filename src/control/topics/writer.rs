//! Writes what a gate says on control topics: its pulses and its announcements. The broker's answers come back with the
//! moment at which each was sent. Counts partitions, too. Limits: a record that is not answered within seconds is given up, since the next one says
//! more.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use crate::authorize::ids::{Offset, Partition, Topic};
use crate::config::KafkaProperties;
use crate::stream::freshness::Instants;
use crate::stream::kafka::client::{self, reports_to_the_log};
use crate::stream::log::TopicPartition;

/// How long one question about a topic may take: while it waits, nothing is read.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a record may be under way.
const GIVEN_UP_AFTER_MS: &str = "5000";

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// A pulse.
    Pulse,
    /// An announcement to the fleet.
    Announcement,
}

/// The broker's answer to one record.
#[derive(Debug)]
pub(super) struct Answer {
    /// What it was.
    pub(super) what: Written,
    /// When it was handed over to be sent.
    pub(super) sent: Instants,
    /// Where it stands, or why it does not.
    pub(super) result: Result<(TopicPartition, Offset), String>,
}

/// Answers that nobody has asked for yet.
#[derive(Default)]
struct Answers(Mutex<Vec<Answer>>);

reports_to_the_log!(Answers);

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<(Written, Instants)>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (what, sent) = *opaque;
        let result = match delivered {
            Ok(message) => Topic::parse(message.topic())
                .map(|topic| {
                    let of = TopicPartition { topic, partition: Partition(message.partition()) };
                    (of, Offset(message.offset()))
                })
                .map_err(|error| error.to_string()),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Answer { what, sent, result });
    }
}

/// The producer.
pub(super) struct Writer {
    properties: KafkaProperties,
    producer: BaseProducer<Answers>,
}

impl Writer {
    /// A producer; no broker is asked for anything yet.
    pub(super) fn new(properties: &KafkaProperties) -> Result<Self, KafkaError> {
        Ok(Self { properties: properties.clone(), producer: make(properties)? })
    }

    /// How many partitions a topic has. Asked here, since a broker answers one request of a connection after the other, and on
    /// the reader's it would wait until the fetch under way has brought something.
    pub(super) fn count(&self, topic: &Topic) -> Result<i32, String> {
        let asked = self.producer.client().fetch_metadata(Some(topic.as_str()), PATIENCE);
        let metadata = asked.map_err(|error| error.to_string())?;
        let found =
            metadata.topics().iter().find(|found| found.name() == topic.as_str() && found.error().is_none());
        let count = found.map_or(0, |found| found.partitions().len());
        match i32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(format!("topic `{topic}` cannot be seen")),
        }
    }

    /// Hands a record over to be sent. One that cannot be is given up: its answer says so.
    pub(super) fn write(&self, what: Written, of: &TopicPartition, key: &str, value: Option<&[u8]>) {
        let sent = Instants::now();
        let mut record =
            BaseRecord::<str, [u8], _>::with_opaque_to(of.topic.as_str(), Box::new((what, sent)))
                .partition(of.partition.0)
                .key(key);
        record.payload = value;
        if let Err((error, _)) = self.producer.send(record) {
            let answer = Answer { what, sent, result: Err(error.to_string()) };
            self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        }
    }

    /// The answers that have come. A producer that is of no more use is made anew.
    pub(super) fn answers(&mut self) -> Result<Vec<Answer>, KafkaError> {
        self.producer.poll(Duration::ZERO);
        let answers =
            std::mem::take(&mut *self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner));
        if self.producer.client().fatal_error().is_some() {
            self.producer = make(&self.properties)?;
        }
        Ok(answers)
    }

    /// Waits until everything is answered, for at most that long.
    pub(super) fn finish(&self, within: Duration) {
        if let Err(error) = self.producer.flush(within) {
            tracing::debug!(%error, "the last announcement was not answered");
        }
    }
}

fn make(properties: &KafkaProperties) -> Result<BaseProducer<Answers>, KafkaError> {
    client::settings(properties, &[])
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("retry.backoff.ms", "10")
        .set("message.timeout.ms", GIVEN_UP_AFTER_MS)
        .create_with_context(Answers::default())
}
