//! Two producers in turn: while what one has written is committed, on a thread of its own, the other takes the records of the
//! next transaction. Limits: what a failure means is the lane's; this keeps the order in which records reach a partition.
//!
//! INVARIANT: no record of a transaction is sent before every record of the one before it has been answered, since two
//! producers have no order between them. And no transaction is handed over before the one before it was finished with
//! success: otherwise the second could happen without the first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::producer::{Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::PATIENCE;
use super::callbacks::Reports;
use super::fault::rewind;
use super::settings::KafkaSettings;
use super::writer::{self, Writer};
use crate::stream::kafka_ffi;
use crate::stream::log::{Finished, LogError, ProducerFate, Receipts, Refusal, Tag};
use crate::wire::outgoing::Outgoing;

/// The producers of one lane.
pub(super) struct Turns {
    /// One for each transactional id.
    writers: Vec<Writer>,
    /// Which of them has the newest transaction.
    turn: usize,
    /// The transaction that is being committed.
    handed: Option<Handed>,
    /// Records of the open transaction that wait until those of the one before have been answered.
    waiting: Vec<(Tag, Outgoing)>,
}

/// A transaction that is being committed.
struct Handed {
    writer: usize,
    /// What the thread that commits it and the lane tell each other.
    shared: Arc<Shared>,
    /// When the lane stops waiting.
    until: Instant,
    answer: mpsc::Receiver<(Result<(), LogError>, Duration)>,
}

#[derive(Default)]
struct Shared {
    /// All of its records have been answered.
    flushed: AtomicBool,
    /// Nobody waits for it any more.
    given_up: AtomicBool,
}

impl Turns {
    pub(super) fn new(settings: &KafkaSettings) -> Self {
        let writers = settings.writers.iter().map(|id| Writer::new(settings.clone(), id.clone())).collect();
        Self { writers, turn: 0, handed: None, waiting: Vec::new() }
    }

    /// Makes every producer that is not there.
    pub(super) fn ready(&mut self) -> Result<(), LogError> {
        self.writers.iter_mut().try_for_each(Writer::ready)
    }

    /// Whether one of them has this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.writers.iter().any(|writer| writer.id() == id)
    }

    /// Ends what another id has left open.
    pub(super) fn fence(&self, id: &str) -> Result<(), LogError> {
        self.current("fence")?.fence(id)
    }

    fn current(&self, call: &'static str) -> Result<&Writer, LogError> {
        self.writers.get(self.turn).ok_or_else(|| rewind(call, "there is no producer", ProducerFate::Unclear))
    }

    fn current_mut(&mut self, call: &'static str) -> Result<&mut Writer, LogError> {
        let nobody = || rewind(call, "there is no producer", ProducerFate::Unclear);
        self.writers.get_mut(self.turn).ok_or_else(nobody)
    }

    /// Opens a transaction on the producer that did not have the last one: the broker may still be writing the markers of
    /// that.
    pub(super) fn begin(&mut self) -> Result<(), LogError> {
        const CALL: &str = "begin";
        self.turn = (self.turn + 1) % self.writers.len().max(1);
        if self.handed.as_ref().is_some_and(|handed| handed.writer == self.turn) {
            return Err(rewind(CALL, "the only producer is committing", ProducerFate::Usable));
        }
        self.waiting.clear();
        self.current_mut(CALL)?.begin()
    }

    pub(super) fn append(&mut self, tag: Tag, record: &Outgoing) -> Result<(), LogError> {
        if self.handed.as_ref().is_some_and(|handed| !handed.shared.flushed.load(Ordering::Acquire)) {
            self.waiting.push((tag, record.clone()));
            return Ok(());
        }
        self.send_waiting()?;
        self.current_mut("append")?.append(tag, record)
    }

    fn send_waiting(&mut self) -> Result<(), LogError> {
        for (tag, record) in std::mem::take(&mut self.waiting) {
            self.current_mut("append")?.append(tag, &record)?;
        }
        Ok(())
    }

    /// Commits the open transaction on a thread of its own: its records are answered, then its positions sent, then its end.
    ///
    /// INVARIANT: the lane does not wait for the client without a bound, which may never answer ([`writer::send_positions`]). A
    /// thread that is given up is left behind with its producer, which the next one of its id fences.
    pub(super) fn hand_over(
        &mut self,
        list: TopicPartitionList,
        group: ConsumerGroupMetadata,
    ) -> Result<(), LogError> {
        const CALL: &str = "commit";
        if self.handed.is_some() {
            return Err(rewind(CALL, "the transaction before is not finished", ProducerFate::Usable));
        }
        self.send_waiting()?;
        let writer = self.current(CALL)?;
        let (producer, began) = (writer.share(CALL)?, Instant::now());
        let deadline = began + writer.patience();
        let shared = Arc::new(Shared::default());
        let (told, answer) = mpsc::channel();
        let theirs = shared.clone();
        let ending = move || {
            let ended = end(&producer, &list, &group, deadline, &theirs);
            // Let go before the lane goes on: it may destroy the producer next.
            drop(producer);
            let _ = told.send((ended, began.elapsed()));
        };
        thread::Builder::new()
            .name("commit".to_owned())
            .spawn(ending)
            .map_err(|error| rewind(CALL, &format!("no thread: {error}"), ProducerFate::Usable))?;
        self.handed = Some(Handed { writer: self.turn, shared, until: deadline + PATIENCE, answer });
        Ok(())
    }

    /// Waits for the transaction that was handed over.
    pub(super) fn finish(&mut self) -> Result<Finished, LogError> {
        const CALL: &str = "commit";
        let Some(handed) = self.handed.take() else {
            return Err(rewind(CALL, "nothing was handed over", ProducerFate::Usable));
        };
        let left = handed.until.saturating_duration_since(Instant::now());
        let (result, took) = handed.answer.recv_timeout(left).unwrap_or_else(|_| {
            handed.shared.given_up.store(true, Ordering::Release);
            (Err(rewind(CALL, "the client does not answer", ProducerFate::Unclear)), left)
        });
        let receipts = match self.writers.get_mut(handed.writer) {
            Some(writer) => writer.ended(result)?,
            None => return Err(rewind(CALL, "there is no producer", ProducerFate::Unclear)),
        };
        Ok(Finished { receipts, took })
    }

    /// At-least-once: what was sent is answered.
    pub(super) fn settle(&mut self) -> Result<Receipts, LogError> {
        self.current_mut("commit")?.settle()
    }

    /// Aborts whatever is open, the older first.
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        const CALL: &str = "abort";
        self.waiting.clear();
        if self.handed.is_some() {
            return Err(rewind(CALL, "a transaction is being committed", ProducerFate::Unclear));
        }
        let count = self.writers.len();
        for step in 1..=count {
            self.writers.get_mut((self.turn + step) % count).map_or(Ok(()), Writer::abort)?;
        }
        Ok(())
    }

    pub(super) fn refusals(&mut self) -> Vec<Refusal> {
        self.writers.iter_mut().flat_map(Writer::refusals).collect()
    }

    /// Destroys every producer. One that is committing goes with its thread.
    pub(super) fn discard(&mut self) {
        self.waiting.clear();
        if let Some(handed) = self.handed.take() {
            handed.shared.given_up.store(true, Ordering::Release);
        }
        self.writers.iter_mut().for_each(Writer::discard);
    }
}

/// Ends a transaction, on a thread of its own.
fn end(
    producer: &ThreadedProducer<Reports>,
    list: &TopicPartitionList,
    group: &ConsumerGroupMetadata,
    deadline: Instant,
    shared: &Shared,
) -> Result<(), LogError> {
    // Where this takes too long the flag stays down: the commit will say what is wrong.
    if kafka_ffi::flush(producer.client(), deadline.saturating_duration_since(Instant::now())) {
        shared.flushed.store(true, Ordering::Release);
    }
    if list.count() > 0 {
        writer::send_positions(producer, list, group, deadline)?;
    }
    if shared.given_up.load(Ordering::Acquire) {
        return Err(rewind("commit", "nobody waits for it any more", ProducerFate::Unclear));
    }
    writer::commit(producer, deadline)
}
