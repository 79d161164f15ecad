//! Reads one challenges topic: every partition from its beginning, committed records only, also partitions that are added
//! later. Limits: a problem with the broker is waited out; one consumer, without a group.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset as Start, TopicPartitionList};

use crate::authorize::ids::{Coordinates, Offset, Partition, Topic};
use crate::config::KafkaProperties;
use crate::stream::kafka::client::{self, Quiet};

/// How long one poll waits: a stop takes no longer.
const POLL: Duration = Duration::from_millis(200);
/// How often it is looked whether topics have grown, or are there by now.
const LOOK: Duration = Duration::from_secs(30);
/// The same while one is missing.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(1);
/// How long one question about a topic may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// One record of a challenges topic.
pub(super) struct Read {
    pub(super) source: Coordinates,
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
}

pub(super) struct Reader {
    consumer: BaseConsumer<Quiet>,
    topic: Topic,
    /// How many of its partitions are read; 0 until it has been seen.
    partitions: i32,
    /// Partitions whose end has not been seen yet.
    behind: BTreeSet<i32>,
    next_look: Instant,
}

impl Reader {
    pub(super) fn new(properties: &KafkaProperties, group: &str, topic: Topic) -> Result<Self, KafkaError> {
        let mut config = client::settings(properties, &[]);
        config
            // Needed by the client; nothing is joined and nothing is committed.
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            // A topic that was made anew is read anew.
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "50");
        Ok(Self {
            consumer: config.create_with_context(Quiet)?,
            topic,
            partitions: 0,
            behind: BTreeSet::new(),
            next_look: Instant::now(),
        })
    }

    /// Whether everything that stood in the topic has been read.
    pub(super) fn is_at_end(&self) -> bool {
        self.partitions > 0 && self.behind.is_empty()
    }

    /// The next record, if one comes soon.
    pub(super) fn next(&mut self) -> Option<Read> {
        if Instant::now() >= self.next_look {
            self.look();
        }
        let message = match self.consumer.poll(POLL)? {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(partition)) => {
                self.behind.remove(&partition);
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, "a challenges topic cannot be read for the moment");
                return None;
            }
        };
        let source = Coordinates {
            topic: self.topic.clone(),
            partition: Partition(message.partition()),
            offset: Offset(message.offset()),
        };
        let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        Some(Read { source, key, value: message.payload().map(<[u8]>::to_vec) })
    }

    fn look(&mut self) {
        let count = self.count();
        let mut list = TopicPartitionList::new();
        for partition in self.partitions..count {
            if list.add_partition_offset(self.topic.as_str(), partition, Start::Beginning).is_ok() {
                self.behind.insert(partition);
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.incremental_assign(&list)
        {
            tracing::error!(%error, "the challenges cannot be read");
        }
        self.partitions = count.max(self.partitions);
        let wait = if self.partitions == 0 { LOOK_FOR_MISSING } else { LOOK };
        self.next_look = Instant::now() + wait;
    }

    fn count(&self) -> i32 {
        let Ok(metadata) = self.consumer.fetch_metadata(Some(self.topic.as_str()), PATIENCE) else {
            return 0;
        };
        let found = metadata.topics().iter().find(|found| found.name() == self.topic.as_str());
        found.map_or(0, |found| i32::try_from(found.partitions().len()).unwrap_or(i32::MAX))
    }
}
