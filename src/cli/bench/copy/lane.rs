//! One thread of a copy: its consumer, its one or two producers, and batch after batch. Limits: a batch of which a
//! partition has moved away is dropped and read again; every other trouble ends it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{CopySettings, Guarantee};
use crate::cli::bench::BenchError;
use crate::cli::interrupt::Flag;
use crate::stream::kafka::settings::KafkaSettings;
use crate::stream::kafka_ffi::{self, TransactionError};

type Producer = ThreadedProducer<DefaultProducerContext>;

const IDLE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(10);
/// About what a countersignature weighs.
const HEADER: [u8; 500] = [b'c'; 500];
/// About what an audit record weighs.
const AUDIT: [u8; 600] = [b'a'; 600];

/// Notes that partitions have moved.
#[derive(Default)]
struct Moves(AtomicBool);

impl ClientContext for Moves {}

impl ConsumerContext for Moves {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if !matches!(rebalance, Rebalance::Assign(_)) {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// Copies until it is told to end.
pub(super) fn run(settings: &CopySettings, kafka: &KafkaSettings, stop: &Flag) -> Result<(), BenchError> {
    let mut client = kafka.consumer();
    // A gate finds its place by itself.
    client.set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer<Moves> = client.create_with_context(Moves::default())?;
    let producers = kafka
        .writers
        .iter()
        .map(|id| {
            let producer: Producer = kafka.producer(id).create()?;
            if settings.guarantee != Guarantee::AtLeastOnce {
                producer.init_transactions(PATIENCE)?;
            }
            Ok(producer)
        })
        .collect::<Result<Vec<Producer>, BenchError>>()?;
    consumer.subscribe(&[&settings.from])?;
    let lane = Lane { settings, consumer, producers };
    std::thread::scope(|scope| {
        let (to_commit, commits) = mpsc::channel::<usize>();
        let (answer, answers) = mpsc::channel();
        let producers = &lane.producers;
        scope.spawn(move || commit_each(producers, &commits, &answer));
        // The channel's end is the committing thread's end.
        let commits = Commits { to_commit, answers, open: false };
        lane.copy(commits, stop)
    })
}

/// Commits the transaction of each producer that is named, in order.
fn commit_each(
    producers: &[Producer],
    commits: &Receiver<usize>,
    answer: &Sender<Result<(), TransactionError>>,
) {
    for turn in commits {
        let Some(producer) = producers.get(turn) else { return };
        if answer.send(kafka_ffi::commit_transaction(producer.client(), PATIENCE)).is_err() {
            return;
        }
    }
}

/// Commits that go on beside the next batch: one at a time.
struct Commits {
    to_commit: Sender<usize>,
    answers: Receiver<Result<(), TransactionError>>,
    open: bool,
}

impl Commits {
    fn begin(&mut self, turn: usize) -> Result<(), BenchError> {
        self.open = true;
        self.to_commit.send(turn).map_err(|_| BenchError::Panicked)
    }

    /// Waits for the answer to the last one.
    fn wait(&mut self) -> Result<(), BenchError> {
        if std::mem::take(&mut self.open) {
            let answer = self.answers.recv().map_err(|_| BenchError::Panicked)?;
            answer.map_err(|told| BenchError::Copy(told.text))?;
        }
        Ok(())
    }
}

struct Lane<'s> {
    settings: &'s CopySettings,
    consumer: BaseConsumer<Moves>,
    producers: Vec<Producer>,
}

impl Lane<'_> {
    fn copy(&self, mut commits: Commits, stop: &Flag) -> Result<(), BenchError> {
        let mut turn = 0;
        while !stop.is_set() {
            let batch = self.fill()?;
            if batch.is_empty() {
                continue;
            }
            if self.consumer.context().0.swap(false, Ordering::AcqRel) {
                self.read_again(&batch);
                continue;
            }
            let Some(producer) = self.producers.get(turn) else { return Ok(()) };
            match self.settings.guarantee {
                Guarantee::AtLeastOnce => {
                    batch.iter().try_for_each(|message| self.write(producer, message))?;
                    self.flush(producer)?;
                    match self.consumer.commit(&ends(&batch)?, CommitMode::Sync) {
                        // The group has moved on meanwhile: these are read again, by this one or another.
                        Err(KafkaError::ConsumerCommit(
                            RDKafkaErrorCode::IllegalGeneration
                            | RDKafkaErrorCode::RebalanceInProgress
                            | RDKafkaErrorCode::UnknownMemberId,
                        )) => {}
                        committed => committed?,
                    }
                }
                Guarantee::ExactlyOnce => {
                    if self.send(producer, &batch)? {
                        kafka_ffi::commit_transaction(producer.client(), PATIENCE)
                            .map_err(|told| BenchError::Copy(told.text))?;
                    }
                }
                Guarantee::ExactlyOnceInTurn => {
                    producer.begin_transaction()?;
                    batch.iter().try_for_each(|message| self.write(producer, message))?;
                    // All of it is in the log before anything of the next batch, so that order is kept.
                    self.flush(producer)?;
                    commits.wait()?;
                    if self.send_positions(producer, &batch)? {
                        commits.begin(turn)?;
                        turn = (turn + 1) % self.producers.len();
                    }
                }
            }
        }
        commits.wait()
    }

    /// Reads until the batch is full, its linger is over, or nothing comes.
    fn fill(&self) -> Result<Vec<BorrowedMessage<'_>>, BenchError> {
        let mut batch = Vec::with_capacity(self.settings.batch);
        let mut opened = None;
        while batch.len() < self.settings.batch.max(1) {
            let wait = opened
                .map_or(IDLE, |opened: Instant| self.settings.linger().saturating_sub(opened.elapsed()));
            match self.consumer.poll(wait) {
                Some(message) => {
                    batch.push(message?);
                    opened.get_or_insert_with(Instant::now);
                }
                None if opened.is_none_or(|opened| opened.elapsed() >= self.settings.linger()) => break,
                None => {}
            }
        }
        Ok(batch)
    }

    /// Sends a batch in a transaction, its positions included; false where it was aborted, to be read again.
    fn send(&self, producer: &Producer, batch: &[BorrowedMessage<'_>]) -> Result<bool, BenchError> {
        producer.begin_transaction()?;
        batch.iter().try_for_each(|message| self.write(producer, message))?;
        self.send_positions(producer, batch)
    }

    fn send_positions(&self, producer: &Producer, batch: &[BorrowedMessage<'_>]) -> Result<bool, BenchError> {
        let group =
            self.consumer.group_metadata().ok_or_else(|| BenchError::Copy("there is no group".to_owned()))?;
        match producer.send_offsets_to_transaction(&ends(batch)?, &group, PATIENCE) {
            Ok(()) => Ok(true),
            // The group has moved on meanwhile.
            Err(KafkaError::Transaction(told)) if told.txn_requires_abort() => {
                producer.abort_transaction(PATIENCE)?;
                self.read_again(batch);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn flush(&self, producer: &Producer) -> Result<(), BenchError> {
        if kafka_ffi::flush(producer.client(), PATIENCE) {
            Ok(())
        } else {
            Err(BenchError::Copy("the broker did not take all records in time".to_owned()))
        }
    }

    /// Goes back to where a batch began, in the partitions that are still this lane's.
    fn read_again(&self, batch: &[BorrowedMessage<'_>]) {
        let mut first = BTreeMap::new();
        for message in batch {
            first.entry(message.partition()).or_insert(message.offset());
        }
        for (partition, offset) in first {
            // One that has moved away takes no seek: its new owner begins where this group has committed.
            let _ = self.consumer.seek(&self.settings.from, partition, Offset::Offset(offset), PATIENCE);
        }
    }

    fn write(&self, producer: &Producer, message: &BorrowedMessage<'_>) -> Result<(), BenchError> {
        let headers =
            message.headers().map_or_else(OwnedHeaders::new, rdkafka::message::BorrowedHeaders::detach);
        let headers = headers.insert(Header { key: "copied", value: Some(&HEADER[..]) });
        let record = BaseRecord::to(&self.settings.to)
            .partition(message.partition())
            .key(message.key().unwrap_or_default())
            .payload(message.payload().unwrap_or_default())
            .headers(headers);
        hand_over(producer, record)?;
        if let Some(audit) = &self.settings.audit {
            let record: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(audit).partition(message.partition()).payload(&AUDIT);
            hand_over(producer, record)?;
        }
        Ok(())
    }
}

/// Hands a record to a producer, when it has room.
fn hand_over(producer: &Producer, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), BenchError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Where each partition of a batch goes on.
fn ends(batch: &[BorrowedMessage<'_>]) -> Result<TopicPartitionList, BenchError> {
    let mut ends = BTreeMap::new();
    for message in batch {
        ends.insert((message.topic(), message.partition()), message.offset() + 1);
    }
    let mut list = TopicPartitionList::with_capacity(ends.len());
    for ((topic, partition), position) in ends {
        list.add_partition_offset(topic, partition, Offset::Offset(position))?;
    }
    Ok(list)
}
