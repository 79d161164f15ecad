//! What librdkafka calls back: changes of assignment on the lane's own thread, delivery reports on the producer's. Both
//! are kept until the lane asks. Limits: nothing is decided here, and nothing is waited for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::client::{Quiet, reports_to_the_log};
use super::convert::partitions_of;
use crate::authorize::ids::Offset;
use crate::stream::log::{Event, Refusal, Tag};

/// The consumer's side of the callback: it gives partitions up and takes them, and leaves word for the lane.
#[derive(Default)]
pub(super) struct Membership {
    events: Mutex<VecDeque<Event>>,
}

impl Membership {
    pub(super) fn next(&self) -> Option<Event> {
        lock(&self.events).pop_front()
    }
    pub(super) fn push_back(&self, event: Event) {
        lock(&self.events).push_back(event);
    }
    pub(super) fn push_front(&self, event: Event) {
        lock(&self.events).push_front(event);
    }
}

reports_to_the_log!(Membership, Reports);

/// A reader that never joins the group.
pub(super) type Reader = BaseConsumer<Quiet>;

/// That reader, by its settings.
pub(super) fn reader(config: &ClientConfig) -> KafkaResult<Reader> {
    config.create_with_context(Quiet)
}

impl ConsumerContext for Membership {
    /// Runs on the lane's thread, inside `poll`. INVARIANT: the lane has nothing to commit then (see [`Log`]), so a
    /// partition can be given up at once; the lane drops what it had read of it when it takes the event, before anything else.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = partitions_of(list);
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // They start paused, so nothing comes before the lane has restored their state and seeks. A record that slips
            // through is of a partition that is not ready, and the lane drops it.
            // INVARIANT: at a number, never at `End` or `Beginning`. Those the client looks up; an answer that the pause or
            // the seek has made outdated it asks for again half a second later, and the second answer moves the reading
            // there, past all that lies between (librdkafka 2.12, `rd_kafka_toppar_offset_retry`).
            let started = list
                .set_all_offsets(KafkaOffset::Offset(0))
                .and_then(|()| assign(consumer, list))
                .and_then(|()| if partitions.is_empty() { Ok(()) } else { consumer.pause(list) });
            if let Err(error) = started {
                tracing::error!(%error, "partitions could not be taken");
            }
            // None at all is news too: the lane has joined.
            lock(&self.events).push_back(Event::Assigned(partitions));
        } else {
            let lost = consumer.assignment_lost();
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::error!(%error, "partitions could not be given up");
            }
            if !partitions.is_empty() {
                let event = if lost { Event::Lost(partitions) } else { Event::Revoked(partitions) };
                lock(&self.events).push_back(event);
            }
        }
    }
}

/// Takes partitions, those too that the client still has from before: with one of them it would take none.
fn assign(consumer: &BaseConsumer<Membership>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    consumer.incremental_assign(list).or_else(|_| {
        for element in list.elements() {
            let mut one = TopicPartitionList::new();
            one.add_partition(element.topic(), element.partition());
            let _ = consumer.incremental_unassign(&one);
        }
        consumer.incremental_assign(list)
    })
}

/// What delivery reports said, kept until the lane asks.
#[derive(Default)]
pub(super) struct Reports(Mutex<Reported>);

#[derive(Default)]
pub(super) struct Reported {
    pub(super) failed: Vec<(Tag, Code)>,
    pub(super) offsets: Vec<(Tag, Offset)>,
    /// Of the first that failed: its topic, and why.
    pub(super) why: Option<String>,
}

impl Reports {
    pub(super) fn lock(&self) -> MutexGuard<'_, Reported> {
        lock(&self.0)
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match (result, unpack(opaque)) {
            // A record that the broker took twice and kept once is told without its offset.
            (Ok(message), tag) if tag.wants_receipt() && message.offset() >= 0 => {
                self.lock().offsets.push((tag, Offset(message.offset())));
            }
            (Ok(_), _) => {}
            (Err((error, message)), tag) => {
                let mut reported = self.lock();
                reported.why.get_or_insert_with(|| format!("`{}`: {error}", message.topic()));
                reported.failed.push((tag, error.rdkafka_error_code().unwrap_or(Code::Unknown)));
            }
        }
    }
}

/// Which of the failed records the broker will never take. The broker names the culprits of a batch (KIP-467) by
/// marking the innocent with a code of their own; without that, all records of a batch carry the code, and which of
/// them it is must be found out.
pub(super) fn refused(failed: &[(Tag, Code)]) -> Vec<Refusal> {
    let suspects: Vec<&(Tag, Code)> = failed
        .iter()
        .filter(|(_, code)| {
            matches!(
                code,
                Code::MessageSizeTooLarge
                    | Code::MessageBatchTooLarge
                    | Code::InvalidTimestamp
                    | Code::InvalidRecord
            )
        })
        .collect();
    let named = failed.iter().any(|(_, code)| *code == Code::InvalidDifferentRecord);
    let certain = suspects.len() == 1 || named;
    suspects.iter().map(|(tag, code)| Refusal { tag: *tag, why: code.to_string(), certain }).collect()
}

/// How many bits of an opaque number say the kind of tag.
const KIND_BITS: u32 = 3;

pub(super) fn pack(tag: Tag) -> usize {
    let (index, kind) = match tag {
        Tag::Outcome(index) => (index, 0),
        Tag::Audit(index) => (index, 1),
        Tag::Told(index) => (index, 2),
        Tag::Kept(index) => (index, 3),
        Tag::Payload(index) => (index, 4),
        Tag::Barrier(index) => (index, 5),
        Tag::Replay(index) => (index, 6),
    };
    (index << KIND_BITS) | kind
}

pub(super) fn unpack(opaque: usize) -> Tag {
    let index = opaque >> KIND_BITS;
    match opaque & ((1 << KIND_BITS) - 1) {
        0 => Tag::Outcome(index),
        1 => Tag::Audit(index),
        2 => Tag::Told(index),
        3 => Tag::Kept(index),
        4 => Tag::Payload(index),
        5 => Tag::Barrier(index),
        _ => Tag::Replay(index),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is replaced whole, never half: a panic elsewhere leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
