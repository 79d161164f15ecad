//! The writing side of a lane: one producer, and the transaction that is open on it. Limits: it does not know the group; the
//! group's metadata is handed in with the positions.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::PATIENCE;
use super::callbacks::{Reports, pack, refused};
use super::fault::{classify, classify_told, fatal, fate, retriable, rewind};
use super::settings::KafkaSettings;
use crate::config::Delivery;
use crate::stream::kafka_ffi;
use crate::stream::log::{LogError, ProducerFate, Receipts, Refusal, Tag};
use crate::wire::outgoing::Outgoing;

/// Between two tries of a call that the client asks to repeat.
const PAUSE: Duration = Duration::from_millis(10);

/// The producer of one lane.
pub(super) struct Writer {
    settings: KafkaSettings,
    producer: Option<Arc<ThreadedProducer<Reports>>>,
    refusals: Vec<Refusal>,
    /// Of the first record of the transaction that was not delivered: its topic, and why.
    undelivered: Option<String>,
}

impl Writer {
    pub(super) fn new(settings: KafkaSettings) -> Self {
        Self { settings, producer: None, refusals: Vec::new(), undelivered: None }
    }

    fn exactly_once(&self) -> bool {
        self.settings.delivery == Delivery::ExactlyOnce
    }

    fn producer(&self, call: &'static str) -> Result<&ThreadedProducer<Reports>, LogError> {
        self.producer.as_deref().ok_or_else(|| rewind(call, "there is no producer", ProducerFate::Unclear))
    }

    /// A producer of this id: making it ends whatever another of the same id has left open.
    fn make(&self, id: &str) -> Result<ThreadedProducer<Reports>, LogError> {
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

    /// Makes the producer, unless there is one.
    pub(super) fn ready(&mut self) -> Result<(), LogError> {
        if self.producer.is_none() {
            self.producer = Some(Arc::new(self.make(&self.settings.writer)?));
        }
        Ok(())
    }

    /// Ends what another id has left open.
    pub(super) fn fence(&self, writer: &str) -> Result<(), LogError> {
        self.make(writer).map(drop)
    }

    pub(super) fn begin(&self) -> Result<(), LogError> {
        const CALL: &str = "begin";
        let producer = self.producer(CALL)?;
        if self.exactly_once() {
            producer.begin_transaction().map_err(|error| classify(CALL, &error))?;
        }
        Ok(())
    }

    pub(super) fn append(&mut self, tag: Tag, record: &Outgoing) -> Result<(), LogError> {
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

    /// Adds positions to the open transaction, in the name of this member of the group.
    ///
    /// INVARIANT: the lane does not wait for the client without a bound. Where the group's coordinator goes away in the middle
    /// of it, the call may never return, whatever time it was given (librdkafka 2.12). So another thread makes it, and is left
    /// behind with that producer, which the next one of its id fences.
    pub(super) fn send_positions(
        &self,
        list: &TopicPartitionList,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<(), LogError> {
        const CALL: &str = "send positions";
        let deadline = Instant::now() + self.settings.transaction_timeout;
        loop {
            let Some(producer) = self.producer.clone() else {
                return Err(rewind(CALL, "there is no producer", ProducerFate::Unclear));
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let (told, answer) = mpsc::channel();
            let (list, group) = (list.clone(), Arc::clone(group));
            let asked = std::thread::Builder::new().name("send-positions".to_owned()).spawn(move || {
                let sent = producer.send_offsets_to_transaction(&list, &group, left);
                // Let go before the lane goes on: it may destroy the producer next.
                drop(producer);
                // Nobody listens any more where it took too long.
                let _ = told.send(sent);
            });
            asked.map_err(|error| rewind(CALL, &error.to_string(), ProducerFate::Usable))?;
            let Ok(answer) = answer.recv_timeout(left + PATIENCE) else {
                return Err(rewind(CALL, "the client does not answer", ProducerFate::Unclear));
            };
            match answer {
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

    /// Commits the open transaction.
    pub(super) fn commit(&mut self) -> Result<Receipts, LogError> {
        const CALL: &str = "commit";
        let within = self.settings.transaction_timeout + PATIENCE;
        let result = kafka_ffi::commit_transaction(self.producer(CALL)?.client(), within);
        let receipts = self.collect();
        result.map(|()| receipts).map_err(|mut told| {
            if let Some(why) = &self.undelivered {
                told.text = format!("{} ({why})", told.text);
            }
            classify_told(CALL, &told)
        })
    }

    /// At-least-once: what was sent is answered.
    pub(super) fn settle(&mut self) -> Result<Receipts, LogError> {
        const CALL: &str = "commit";
        let producer = self.producer(CALL)?;
        if !kafka_ffi::flush(producer.client(), self.settings.transaction_timeout + PATIENCE) {
            return Err(rewind(CALL, "the broker did not take all records in time", ProducerFate::Unclear));
        }
        let failed = producer.client().context().lock().failed.first().map(|(_, code)| code.to_string());
        let receipts = self.collect();
        match failed {
            None => Ok(receipts),
            Some(failed) => {
                let fatal = self.producer.as_ref().and_then(|producer| producer.client().fatal_error());
                let fate = if fatal.is_some() { ProducerFate::Unclear } else { ProducerFate::Usable };
                Err(rewind(CALL, &failed, fate))
            }
        }
    }

    /// Aborts the open transaction.
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
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

    /// Takes in what delivery reports have said.
    fn collect(&mut self) -> Receipts {
        let Some(producer) = &self.producer else { return Receipts::new() };
        let mut reports = producer.client().context().lock();
        let failed = std::mem::take(&mut reports.failed);
        let offsets = std::mem::take(&mut reports.offsets);
        let undelivered = reports.why.take();
        drop(reports);
        self.undelivered = undelivered;
        self.refusals.extend(refused(&failed));
        offsets.into_iter().collect()
    }

    pub(super) fn refusals(&mut self) -> Vec<Refusal> {
        self.collect();
        std::mem::take(&mut self.refusals)
    }

    pub(super) fn discard(&mut self) {
        self.collect();
        self.producer = None;
    }
}
