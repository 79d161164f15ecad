//! A topic as a command sees it: the last record of each key, read to the topic's end, and one more record, written with
//! `acks=all`. Limits: it reads beside every group, sees committed records alone, and keeps what is asked for in memory.

mod read;
mod write;

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use super::issue;
use crate::authorize::ids::{InvalidName, Topic};

pub use read::View;

/// How long a broker may be silent before a command gives up on it.
const SILENCE: Duration = Duration::from_secs(30);

/// A topic on a cluster.
#[derive(Debug)]
pub struct TopicClient<'c> {
    client: &'c ClientConfig,
    topic: &'c Topic,
}

/// Why a topic could not be read or written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TopicError {
    /// It is not there.
    #[error("the topic `{0}` is not there")]
    #[diagnostic(help("`countersign check --online` names every topic that is missing"))]
    Missing(Topic),
    /// The broker, or librdkafka, refuses to have it read.
    #[error("cannot read `{topic}`: {cause}")]
    Read {
        /// The topic.
        topic: Topic,
        /// What the client says.
        cause: KafkaError,
    },
    /// The broker, or librdkafka, refuses to have it written.
    #[error("cannot write to `{topic}`: {cause}")]
    Write {
        /// The topic.
        topic: Topic,
        /// What the client says.
        cause: KafkaError,
    },
    /// No end in sight.
    #[error("`{0}` could not be read to its end within {silence} s", silence = SILENCE.as_secs())]
    Silent(Topic),
    /// The broker names a topic as no topic can be called.
    #[error("the {0}")]
    Name(#[from] InvalidName),
    /// No random bytes for a client's name.
    #[error(transparent)]
    Random(#[from] issue::GenerateError),
}

impl<'c> TopicClient<'c> {
    /// That topic of the cluster that `client` reaches.
    pub fn new(client: &'c ClientConfig, topic: &'c Topic) -> Self {
        Self { client, topic }
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        self.topic
    }

    fn reading(&self, cause: KafkaError) -> TopicError {
        TopicError::Read { topic: self.topic.clone(), cause }
    }

    fn writing(&self, cause: KafkaError) -> TopicError {
        TopicError::Write { topic: self.topic.clone(), cause }
    }
}
