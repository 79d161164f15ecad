//! Writes answers to challenges into the answers topics, in the partition that the challenge names (contract, section 7).
//! Limits: an answer that the broker has not confirmed within seconds is reported as such, and may stand there all the
//! same; the lane counts the first of an approver's answers alone.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use crate::authorize::ids::{Coordinates, Offset, Partition, Topic};
use crate::authorize::route::Route;
use crate::authorize::step_up::{Asker, ChallengeId};
use crate::config::KafkaProperties;
use crate::stream::kafka::client::{self, Quiet};

/// How long an answer may be under way.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);

/// Where answers are read, by who asked.
#[derive(Debug, Clone, Default)]
pub struct AnswerTopics {
    lanes: BTreeMap<Topic, Topic>,
    desks: Option<Topic>,
}

impl AnswerTopics {
    /// Of these routes, and of what is asked over HTTP: `answers` of `[access]`.
    pub fn of<'r>(routes: impl IntoIterator<Item = &'r Route>, desks: Option<Topic>) -> Self {
        let holding = routes.into_iter().filter_map(|route| route.holding.as_ref());
        Self { lanes: holding.flat_map(|holding| holding.answers.clone()).collect(), desks }
    }

    /// Where answers to that challenge are read; `None` where nothing of this configuration has asked it.
    pub fn place(&self, id: &ChallengeId) -> Option<(&Topic, Partition)> {
        let topic = match &id.asker {
            Asker::Lane(source) => self.lanes.get(source),
            Asker::Desk(_) => self.desks.as_ref(),
        };
        Some((topic?, id.partition))
    }
}

/// Why an answer was not written, as far as is known: the client's words.
#[derive(Debug, thiserror::Error)]
#[error("the answer was not confirmed: {0}")]
pub struct AnswerLost(pub String);

/// The producer cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("answers cannot be written: {0}")]
pub struct AnswersError(#[from] KafkaError);

/// What comes of an answer, in time.
pub type Writing<'a> = Pin<Box<dyn Future<Output = Result<Coordinates, AnswerLost>> + Send + 'a>>;

/// Where answers are written.
pub trait AnswerLog: Send + Sync {
    /// Writes one answer and waits until it is safe. Gives where it stands.
    fn write<'a>(
        &'a self,
        topic: &'a Topic,
        partition: Partition,
        challenge: &'a str,
        answer: &'a str,
    ) -> Writing<'a>;
}

/// The producer.
pub struct AnswerWriter(FutureProducer<Quiet>);

impl std::fmt::Debug for AnswerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerWriter").finish_non_exhaustive()
    }
}

impl AnswerWriter {
    /// A producer; no broker is asked for anything yet.
    ///
    /// # Errors
    /// librdkafka does not take the properties.
    pub fn new(properties: &KafkaProperties) -> Result<Self, AnswersError> {
        let mut config = client::settings(properties, &[]);
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("message.timeout.ms", GIVEN_UP_AFTER.as_millis().to_string());
        Ok(Self(config.create_with_context(Quiet)?))
    }
}

impl AnswerLog for AnswerWriter {
    fn write<'a>(
        &'a self,
        topic: &'a Topic,
        partition: Partition,
        challenge: &'a str,
        answer: &'a str,
    ) -> Writing<'a> {
        Box::pin(async move {
            let record =
                FutureRecord::to(topic.as_str()).partition(partition.0).key(challenge).payload(answer);
            let sent = self.0.send(record, Timeout::After(GIVEN_UP_AFTER)).await;
            let delivered = sent.map_err(|(error, _)| AnswerLost(error.to_string()))?;
            Ok(Coordinates {
                topic: topic.clone(),
                partition: Partition(delivered.partition),
                offset: Offset(delivered.offset),
            })
        })
    }
}
