//! Which partition it is that holds something that cannot be read: the client tells that there is one, and rdkafka not which. Limits:
//! it looks at what stands next in each partition, and nowhere else.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::convert::{list_of, partitions_of};
use super::fault::{retriable, rewind};
use super::readers::{made, starting, timed_out};
use super::silence::ahead;
use super::{KafkaLog, PATIENCE};
use crate::authorize::ids::Position;
use crate::stream::log::{Event, LogError, ProducerFate, TopicPartition};

const CALL: &str = "read";

/// Whether the client says so of records that are not what was written, or that it does not understand.
pub(super) fn is_damage(code: Code) -> bool {
    matches!(code, Code::BadMessage | Code::BadCompression | Code::NotImplemented)
}

impl KafkaLog {
    /// Finds the partitions in which something that cannot be read stands next, and gives them up. INVARIANT: a partition in
    /// which something was damaged is never read on from where the client then stands: librdkafka 2.12 goes on behind a batch
    /// that fails its check at a place that nobody knows.
    pub(super) fn find_unreadable(&mut self) -> Result<Event, LogError> {
        let assigned = self.consumer.assignment().map_err(|error| retriable(CALL, &error))?;
        let passed = self.consumer.position().map_err(|error| retriable(CALL, &error))?;
        // One that is given up is not looked at before reading is sent there again.
        let mut reading = ahead(&self.reading, &passed);
        let mut found = Vec::new();
        for of in partitions_of(&assigned) {
            let Some(next) = reading.remove(&of) else { continue };
            if let Some(why) = self.probe(&of, next)? {
                found.push((of, next, why));
            }
        }
        if found.is_empty() {
            // Damaged on its way, it seems: everything is read again from where it stands.
            return Err(rewind(CALL, "records came damaged", ProducerFate::Usable));
        }
        for (of, next, why) in found {
            self.reading.remove(&of);
            let list = list_of(std::slice::from_ref(&of));
            self.consumer.pause(&list).map_err(|error| retriable(CALL, &error))?;
            let why = format!(
                "what stands at offset {next} cannot be read ({why}): have it restored from another replica, or delete the \
                 records up to it with kafka-delete-records.sh, and start the gate again"
            );
            self.consumer.context().push_back(Event::Unreadable(of, why));
        }
        Ok(self.consumer.context().next().unwrap_or(Event::Idle))
    }

    /// Why what stands next there cannot be read; `None` where it can, or nothing stands there.
    fn probe(&self, of: &TopicPartition, next: Position) -> Result<Option<String>, LogError> {
        let prober = made(&self.settings.prober())?;
        prober.assign(&starting([(of, &next)])?).map_err(|error| retriable(CALL, &error))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match prober.poll(Duration::from_millis(100)) {
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(KafkaError::MessageConsumption(code))) if is_damage(code) => {
                    return Ok(Some(code.to_string()));
                }
                _ if Instant::now() < deadline => {}
                Some(Err(error)) => return Err(retriable(CALL, &error)),
                None => return Err(retriable(CALL, &timed_out())),
            }
        }
    }
}
