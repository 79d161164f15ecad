//! Sends records and tells where each of them stands. Limits: an idempotent producer, so a retry writes nothing twice;
//! records of one partition keep their order.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use super::{Output, ProduceError, shown};
use crate::producer::{Headers, Outgoing};

/// Where a line's record stands, or why nowhere.
struct Report {
    number: u64,
    fate: Result<(String, i32, i64), KafkaError>,
}

struct Reporter(Sender<Report>);

impl ClientContext for Reporter {}

impl ProducerContext for Reporter {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Self::DeliveryOpaque) {
        let fate = match result {
            Ok(message) => Ok((message.topic().to_owned(), message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody listens only once the run has failed, and then its error is the one that counts.
        let _ = self.0.send(Report { number: *number, fate });
    }
}

/// Records on their way.
pub(super) struct Sending<'o> {
    producer: ThreadedProducer<Reporter>,
    reports: Receiver<Report>,
    out: &'o mut Output,
    undelivered: Option<ProduceError>,
}

/// How long the last records may take to arrive. librdkafka itself gives a record up after its `message.timeout.ms`.
const LAST: Duration = Duration::from_secs(310);

impl<'o> Sending<'o> {
    pub(super) fn start(client: &ClientConfig, out: &'o mut Output) -> Result<Self, ProduceError> {
        let (sender, reports) = mpsc::channel();
        let mut client = client.clone();
        client.set("enable.idempotence", "true");
        if client.get("linger.ms").is_none() {
            client.set("linger.ms", "5");
        }
        let producer = client.create_with_context(Reporter(sender)).map_err(ProduceError::Client)?;
        Ok(Self { producer, reports, out, undelivered: None })
    }

    pub(super) fn send(
        &mut self,
        number: u64,
        record: &Outgoing<'_>,
        headers: Headers,
    ) -> Result<(), ProduceError> {
        let mut message = BaseRecord::with_opaque_to(record.topic.as_str(), Box::new(number))
            .headers(OwnedHeaders::from(headers));
        message.key = record.key;
        message.payload = record.value;
        message.partition = record.partition.map(|partition| partition.0);
        loop {
            self.report()?;
            if let Some(error) = self.undelivered.take() {
                return Err(error);
            }
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((problem, _)) => return Err(ProduceError::Undelivered { number, problem }),
            }
        }
    }

    /// Waits until the fate of every record is known.
    pub(super) fn finish(mut self) -> Result<(), ProduceError> {
        let flushed = self.producer.flush(LAST);
        self.report()?;
        if let Some(error) = self.undelivered {
            return Err(error);
        }
        flushed.map_err(ProduceError::Client)
    }

    fn report(&mut self) -> Result<(), ProduceError> {
        while let Ok(Report { number, fate }) = self.reports.try_recv() {
            match fate {
                Ok((topic, partition, offset)) => {
                    let line = shown(self.out.format(), number, &topic, partition, offset);
                    writeln!(self.out.data(), "{line}")?;
                }
                Err(problem) => {
                    self.undelivered.get_or_insert(ProduceError::Undelivered { number, problem });
                }
            }
        }
        Ok(())
    }
}
