//! Sends records one by one and says where each of them stands. Limits: what they say was signed elsewhere.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use super::DemoError;
use crate::authorize::ids::{Coordinates, Offset, Partition, Topic};
use crate::authorize::record::Header;
use crate::stream::kafka_ffi;

/// A record as it goes out, perhaps after somebody has had his hands on it.
#[derive(Clone)]
pub(super) struct Envelope {
    pub(super) topic: Topic,
    /// `None` lets the key choose.
    pub(super) partition: Option<i32>,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) headers: Vec<Header>,
}

/// The producer of everybody in the story.
pub(super) struct Post {
    producer: ThreadedProducer<Receipts>,
    receipts: Receiver<Result<Coordinates, KafkaError>>,
}

struct Receipts(Sender<Result<Coordinates, KafkaError>>);

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        let receipt = match result {
            Ok(message) => Topic::parse(message.topic())
                .map(|topic| Coordinates {
                    topic,
                    partition: Partition(message.partition()),
                    offset: Offset(message.offset()),
                })
                .map_err(|_| KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTopic)),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody listens only once the story has ended.
        let _ = self.0.send(receipt);
    }
}

/// How long the broker may take to answer for a record.
const RECEIPT: Duration = Duration::from_secs(30);

impl Post {
    pub(super) fn new(mut client: ClientConfig) -> Result<Self, DemoError> {
        let (sender, receipts) = mpsc::channel();
        let producer = client
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .create_with_context(Receipts(sender))?;
        Ok(Self { producer, receipts })
    }

    /// Sends a record and waits for where it stands.
    pub(super) fn send(&self, envelope: &Envelope) -> Result<Coordinates, DemoError> {
        self.hand_over(envelope)?;
        let receipt = self.receipts.recv_timeout(RECEIPT);
        Ok(receipt.map_err(|_| KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))??)
    }

    /// Hands a record over without waiting for the broker's answer, which [`Post::check`] looks at.
    pub(super) fn hand_over(&self, envelope: &Envelope) -> Result<(), DemoError> {
        let headers = kafka_ffi::to_send(&envelope.headers)
            .ok_or(KafkaError::MessageProduction(RDKafkaErrorCode::Fail))?;
        let mut record = BaseRecord::to(envelope.topic.as_str())
            .key(&*envelope.key)
            .payload(&*envelope.value)
            .headers(headers);
        record.partition = envelope.partition;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// The first record that the broker did not take, if there is one.
    pub(super) fn check(&self) -> Result<(), DemoError> {
        while let Ok(receipt) = self.receipts.try_recv() {
            receipt?;
        }
        Ok(())
    }

    /// Waits until the broker has answered for every record.
    pub(super) fn flush(&self) -> Result<(), DemoError> {
        self.producer.flush(RECEIPT)?;
        self.check()
    }
}
