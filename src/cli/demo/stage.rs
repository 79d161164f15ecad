//! Tells one situation after the other: sends a record, waits for its outcome, and holds it against what is told.
//! Limits: one record at a time, so that each row of the table stands for itself.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use super::DemoError;
use super::observer::{Observer, Outcome};
use super::table;
use super::world::World;
use crate::authorize::decision::Reason;
use crate::authorize::ids::{Coordinates, Offset, Partition, Topic};
use crate::authorize::record::Header;
use crate::stream::kafka_ffi;
use crate::worker::Received;

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

/// What is told of a situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Forwarded,
    Denied(Reason),
}

/// A situation and how it ended.
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) title: &'static str,
    pub(super) told: Told,
    pub(super) forwarded: bool,
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) policies: Vec<String>,
}

impl Row {
    /// Whether it ended as told.
    pub(super) fn is_as_told(&self) -> bool {
        match self.told {
            Told::Forwarded => self.forwarded,
            Told::Denied(reason) => !self.forwarded && self.reason.as_deref() == Some(reason.as_str()),
        }
    }
}

/// Where the story is told.
pub(super) struct Stage<'s> {
    pub(super) world: &'s World,
    observer: &'s Observer,
    post: Post,
    out: Option<&'s mut dyn Write>,
    colored: bool,
    sent: u64,
    surprises: Vec<String>,
}

impl<'s> Stage<'s> {
    pub(super) fn new(
        world: &'s World,
        observer: &'s Observer,
        out: Option<&'s mut dyn Write>,
        colored: bool,
    ) -> Result<Self, DemoError> {
        let mut stage =
            Self { world, observer, post: Post::new(world)?, out, colored, sent: 0, surprises: Vec::new() };
        if let Some(out) = stage.out.as_deref_mut() {
            table::head(out)?;
        }
        Ok(stage)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn surprises(&self) -> Vec<String> {
        self.surprises.clone()
    }

    /// Tells one situation. What was received by the next worker, if it was forwarded; and where the record stood.
    pub(super) fn tell(
        &mut self,
        title: &'static str,
        told: Told,
        envelope: &Envelope,
    ) -> Result<(Option<Received>, Coordinates), DemoError> {
        self.world.go_on()?;
        let at = self.post.send(envelope)?;
        self.sent += 1;
        let seen = self.observer.wait(&at)?;
        let (received, forwarded) = match seen.outcome {
            Some(Outcome::Forwarded(received)) => (Some(*received), true),
            _ => (None, false),
        };
        let audit = seen.audit;
        let row = Row {
            number: self.sent,
            title,
            told,
            forwarded,
            reason: audit.as_ref().and_then(|audit| audit.reason.clone()),
            detail: audit.as_ref().and_then(|audit| audit.detail.clone()),
            policies: audit.map(|audit| audit.policies).unwrap_or_default(),
        };
        if !row.is_as_told() {
            self.surprises.push(format!("situation {}: {title}", row.number));
        }
        if let Some(out) = self.out.as_deref_mut() {
            table::row(out, &row, self.colored)?;
        }
        Ok((received, at))
    }
}

/// Sends records one by one and says where each of them stands.
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
    pub(super) fn new(world: &World) -> Result<Self, DemoError> {
        let (sender, receipts) = mpsc::channel();
        let producer = world
            .client()
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .create_with_context(Receipts(sender))?;
        Ok(Self { producer, receipts })
    }

    fn send(&self, envelope: &Envelope) -> Result<Coordinates, DemoError> {
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
