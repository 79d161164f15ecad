//! One producer of a lane, and the transaction that is open on it. Limits: it does not know the group; the group's metadata is
//! handed in with the positions.

use std::sync::Arc;
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

/// A producer with one transactional id.
pub(super) struct Writer {
    settings: KafkaSettings,
    id: String,
    producer: Option<Arc<ThreadedProducer<Reports>>>,
    /// Whether a transaction, or in at-least-once mode a batch, has begun and not ended.
    is_open: bool,
    refusals: Vec<Refusal>,
    /// Of the first record of the transaction that was not delivered: its topic, and why.
    undelivered: Option<String>,
}

impl Writer {
    pub(super) fn new(settings: KafkaSettings, id: String) -> Self {
        Self { settings, id, producer: None, is_open: false, refusals: Vec::new(), undelivered: None }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// How long the end of a transaction may take.
    pub(super) fn patience(&self) -> Duration {
        self.settings.transaction_timeout + PATIENCE
    }

    fn exactly_once(&self) -> bool {
        self.settings.delivery == Delivery::ExactlyOnce
    }

    fn producer(&self, call: &'static str) -> Result<&ThreadedProducer<Reports>, LogError> {
        let producer = self.producer.as_deref();
        producer.ok_or_else(|| rewind(call, "there is no producer", ProducerFate::Unclear))
    }

    /// The producer, for the thread that ends its transaction.
    pub(super) fn share(&self, call: &'static str) -> Result<Arc<ThreadedProducer<Reports>>, LogError> {
        let producer = self.producer.clone();
        producer.ok_or_else(|| rewind(call, "there is no producer", ProducerFate::Unclear))
    }

    /// A producer of this id: making it ends whatever another of the same id has left open.
    fn make(&self, id: &str) -> Result<ThreadedProducer<Reports>, LogError> {
        let config = self.settings.producer(id);
        let producer: ThreadedProducer<Reports> = config
            .create_with_context(Reports::default())
            .map_err(|error| fatal("create producer", &error))?;
        if self.exactly_once() {
            producer.init_transactions(self.patience()).map_err(|error| match &error {
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
            self.producer = Some(Arc::new(self.make(&self.id)?));
        }
        Ok(())
    }

    /// Ends what another id has left open.
    pub(super) fn fence(&self, writer: &str) -> Result<(), LogError> {
        self.make(writer).map(drop)
    }

    pub(super) fn begin(&mut self) -> Result<(), LogError> {
        const CALL: &str = "begin";
        let producer = self.producer(CALL)?;
        if self.exactly_once() {
            producer.begin_transaction().map_err(|error| classify(CALL, &error))?;
        }
        self.is_open = true;
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

    /// The end of the transaction was answered.
    pub(super) fn ended(&mut self, result: Result<(), LogError>) -> Result<Receipts, LogError> {
        self.is_open &= result.is_err();
        let receipts = self.collect();
        match (result, self.undelivered.take()) {
            (Ok(()), _) => Ok(receipts),
            (Err(LogError::AbortAndRewind { cause, producer }), Some(why)) => {
                Err(rewind(cause.call, &format!("{} ({why})", cause.detail), producer))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// At-least-once: what was sent is answered.
    pub(super) fn settle(&mut self) -> Result<Receipts, LogError> {
        const CALL: &str = "commit";
        self.is_open = false;
        let producer = self.producer(CALL)?;
        if !kafka_ffi::flush(producer.client(), self.patience()) {
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

    /// Aborts the open transaction. Without one, nothing.
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        let producer = self.producer("abort")?;
        let result = if self.exactly_once() {
            producer.abort_transaction(self.patience()).map_err(|error| classify("abort", &error))
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
        self.is_open = false;
        self.collect();
        self.producer = None;
    }
}

/// Adds positions to the open transaction of a producer, in the name of this member of the group. Where the group's
/// coordinator goes away in the middle of it, the client may never return, whatever time it was given (librdkafka 2.12).
pub(super) fn send_positions(
    producer: &ThreadedProducer<Reports>,
    list: &TopicPartitionList,
    group: &ConsumerGroupMetadata,
    deadline: Instant,
) -> Result<(), LogError> {
    const CALL: &str = "send positions";
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match producer.send_offsets_to_transaction(list, group, left) {
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

/// Commits the open transaction of a producer.
pub(super) fn commit(producer: &ThreadedProducer<Reports>, deadline: Instant) -> Result<(), LogError> {
    // However late it is: it is given a moment, and its answer is clear.
    let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
    kafka_ffi::commit_transaction(producer.client(), left).map_err(|told| classify_told("commit", &told))
}
