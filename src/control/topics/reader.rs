//! Reads the followed topics: every partition from its beginning, committed records only, also partitions that are added
//! later. Limits: it brings records; what they say is for others. One consumer, without a group.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::view::View;
use crate::authorize::record::Record;
use crate::config::KafkaProperties;
use crate::stream::freshness::Instants;
use crate::stream::kafka::client::{self, Quiet};
use crate::stream::kafka::record;
use crate::stream::log::TopicPartition;

/// After so long without anything of a partition in which a pulse stands it is read again: the client is said not to
/// go on with each, at times, when a broker comes back, and to tell nobody (librdkafka, its issue 5153, open).
const SILENT_AFTER: Duration = Duration::from_secs(15);
/// How long the client may take to send reading elsewhere; no broker is asked.
const SEEK_WITHIN: Duration = Duration::from_secs(1);

/// The consumer.
pub(super) struct Reader(BaseConsumer<Quiet>);

impl Reader {
    /// A consumer that reads nothing yet. No broker is asked for anything.
    pub(super) fn new(properties: &KafkaProperties, group: &str) -> Result<Self, KafkaError> {
        let mut config = client::settings(properties, &[]);
        config
            // Needed by the client; nothing is joined and nothing is committed.
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            // A position that is gone means that the topic is no longer the one that was read.
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "50");
        Ok(Self(config.create_with_context(Quiet)?))
    }

    /// Reads these partitions too, each from its beginning.
    pub(super) fn add(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for of in partitions {
            list.add_partition_offset(of.topic.as_str(), of.partition.0, Offset::Beginning)?;
        }
        self.0.incremental_assign(&list)
    }

    /// Reads on where the client has stopped doing so.
    pub(super) fn read_on(&self, view: &mut View) -> Result<(), KafkaError> {
        for (of, next) in view.silent(SILENT_AFTER, Instants::now()) {
            tracing::warn!(
                partition = %of, %next,
                "nothing comes of a partition although a pulse stands there: it is read again"
            );
            // Where nothing has been read, the first of its records may have been deleted.
            let at = if next.0 == 0 { Offset::Beginning } else { Offset::Offset(next.0) };
            self.0.seek(of.topic.as_str(), of.partition.0, at, SEEK_WITHIN)?;
        }
        Ok(())
    }

    /// The next record, or what stands in the way.
    pub(super) fn next(&self, wait: Duration) -> Result<Option<Record>, KafkaError> {
        match self.0.poll(wait) {
            None => Ok(None),
            // No broker has a topic whose name is not legal.
            Some(Ok(message)) => Ok(record(&message).ok()),
            Some(Err(error)) => Err(error),
        }
    }
}
