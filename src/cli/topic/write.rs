//! Writing one record and waiting until the brokers have it. Limits: an idempotent producer with `acks=all`, so a retry
//! writes nothing twice; as safe as the topic's `min.insync.replicas`.

use std::sync::mpsc::{self, Sender};

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::{SILENCE, TopicClient, TopicError};
use crate::authorize::ids::{Coordinates, Partition};

type Fate = Result<(i32, i64), KafkaError>;

/// Takes the fate of the one record.
struct Receipt(Sender<Fate>);

impl ClientContext for Receipt {}

impl ProducerContext for Receipt {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        let fate = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        // The one who waits for it has given up, and said so.
        let _ = self.0.send(fate);
    }
}

impl TopicClient<'_> {
    /// Writes one record to that partition; without a value it is a tombstone. Returns once all in-sync replicas have it.
    ///
    /// # Errors
    /// It was not taken, or nobody knows whether it was.
    pub fn write(
        &self,
        partition: Partition,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Coordinates, TopicError> {
        let (sender, fate) = mpsc::channel();
        let mut client = self.client.clone();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("allow.auto.create.topics", "false");
        if client.get("message.timeout.ms").is_none() {
            client.set("message.timeout.ms", SILENCE.as_millis().to_string());
        }
        let producer: BaseProducer<Receipt> =
            client.create_with_context(Receipt(sender)).map_err(|cause| self.writing(cause))?;
        let mut message = BaseRecord::<[u8], [u8]>::to(self.topic.as_str()).partition(partition.0).key(key);
        message.payload = value;
        producer.send(message).map_err(|(cause, _)| self.writing(cause))?;
        producer.flush(SILENCE * 2).map_err(|cause| self.writing(cause))?;
        let timed_out = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        let (partition, offset) =
            fate.try_recv().unwrap_or(Err(timed_out)).map_err(|cause| self.writing(cause))?;
        Ok(self.at(partition, offset))
    }
}
