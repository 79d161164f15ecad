//! What a consumer brings: records, changes of assignment, and errors, of which a broker that is away makes many. Limits: what an
//! error means is `membership`'s and `unreadable`'s.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};

use super::KafkaLog;
use super::convert::to_record;
use super::unreadable::is_damage;
use crate::authorize::ids::Topic;
use crate::stream::kafka_ffi;
use crate::stream::log::{Event, LogError};

/// Errors that one look passes over, at most: far more than a client makes between two looks.
const AT_ONCE: usize = 10_000;

/// Whether an error is about a connection or a broker, and says nothing of what has been read.
pub(super) fn passes(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumption(code) if *code != Code::AutoOffsetReset && !is_damage(*code))
}

/// The next thing that a consumer brings, the last error only where nothing else has come. INVARIANT: errors that pass are
/// taken all at once. While brokers are away there are several a second, each in the queue before whatever comes after;
/// a lane that waits a little after each of them would still be at it minutes after the brokers are back.
pub(super) fn look<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    mut wait: Duration,
) -> Option<KafkaResult<BorrowedMessage<'_>>> {
    let mut told = None;
    for _ in 0..AT_ONCE {
        match consumer.poll(wait) {
            Some(Err(error)) if passes(&error) => {
                told = Some(Err(error));
                wait = Duration::ZERO;
            }
            Some(other) => return Some(other),
            None => break,
        }
    }
    told
}

impl KafkaLog {
    /// The next event. INVARIANT: what is assigned here is what the lane was told that it has, whatever the client thinks.
    pub(super) fn next_event(&mut self, wait: Duration) -> Result<Event, LogError> {
        let event = self.look_for_event(wait)?;
        match &event {
            Event::Assigned(partitions) => {
                self.assigned.extend(partitions.iter().cloned());
                self.namesakes.is_called(kafka_ffi::member_id(self.consumer.client()));
            }
            Event::Revoked(partitions) | Event::Lost(partitions) => {
                self.assigned.retain(|of| !partitions.contains(of));
                self.reading.retain(|of, _| !partitions.contains(of));
            }
            Event::Idle | Event::Record(_) | Event::Unreadable(..) | Event::Silent(_) => {}
        }
        Ok(event)
    }

    fn look_for_event(&mut self, wait: Duration) -> Result<Event, LogError> {
        if let Some(event) = self.consumer.context().next() {
            return Ok(event);
        }
        if self.namesakes.is_doubted() {
            return self.settle_name(wait);
        }
        self.look_after_group()?;
        if let Some(record) = self.held.take() {
            return Ok(Event::Record(record));
        }
        self.look_for_silence();
        if let Some(event) = self.consumer.context().next() {
            return Ok(event);
        }
        let looked = match look(&self.consumer, wait) {
            None => None,
            Some(Ok(message)) => {
                let name = message.topic();
                let topic = self.topics.get(name).cloned().or_else(|| Topic::parse(name).ok());
                Some(Ok(topic.map(|topic| to_record(&message, topic))))
            }
            Some(Err(error)) => Some(Err(error)),
        };
        let event = self.consumer.context().next();
        match looked {
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
            Some(Err(error)) => match event {
                Some(event) if passes(&error) => Ok(event),
                Some(event) => {
                    self.consumer.context().push_front(event);
                    self.failed(&error)
                }
                None => self.failed(&error),
            },
        }
    }
}
