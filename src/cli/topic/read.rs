//! Reading a topic to its end. Limits: the end is where the topic stood when its partitions said so; what is written
//! meanwhile may or may not be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset as Start, TopicPartitionList};

use super::{SILENCE, TopicClient, TopicError};
use crate::authorize::ids::{Coordinates, Offset, Partition};
use crate::authorize::record::Record;
use crate::authorize::route::Partitioner;
use crate::cli::issue;
use crate::stream::kafka::record;

const POLL: Duration = Duration::from_millis(100);
const METADATA: Duration = Duration::from_secs(20);
/// What gates write to see how fresh their view is; nothing to anybody else.
const PULSE: &[u8] = b"pulse/";

/// What a topic held when it was read.
#[derive(Debug, Default)]
pub struct View {
    /// How many partitions it has.
    pub partitions: i32,
    /// The last record of each key that was asked for, tombstones included. One that stands in two partitions is
    /// here by its later timestamp.
    pub last: BTreeMap<Bytes, Record>,
}

impl View {
    fn take(&mut self, record: Record) {
        let Some(key) = record.key.clone() else { return };
        let is_older = self.last.get(&key).is_some_and(|known| {
            known.source.partition != record.source.partition && record.timestamp < known.timestamp
        });
        if !is_older {
            self.last.insert(key, record);
        }
    }

    /// The partition of a key: where it stands already, since its first writer may have chosen in another way; else
    /// where the Java client would put it.
    pub fn home(&self, key: &[u8]) -> Partition {
        match self.last.get(key) {
            Some(record) => record.source.partition,
            None => Partition(Partitioner::Murmur2.partition(key, self.partitions)),
        }
    }

    /// The values that stand, with their records; what was deleted is left out.
    pub fn values(&self) -> impl Iterator<Item = (&Record, &Bytes)> {
        self.last.values().filter_map(|record| Some((record, record.value.as_ref()?)))
    }
}

impl TopicClient<'_> {
    /// Reads the topic to its end and keeps the last record of each key that is `wanted`.
    ///
    /// # Errors
    /// The topic is missing, or its end was not reached.
    pub fn read(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<View, TopicError> {
        let consumer = self.consumer()?;
        let partitions = self.partitions(&consumer)?;
        let mut view = View { partitions, ..View::default() };
        self.follow(&consumer, (0..partitions).map(|partition| (partition, Start::Beginning)), |record| {
            let is_wanted = |key: &Bytes| !key.starts_with(PULSE) && wanted(key);
            if record.key.as_ref().is_some_and(is_wanted) {
                view.take(record);
            }
        })?;
        Ok(view)
    }

    /// Every record of a key that compaction has left, in order, and the partition that it lives in.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_history(&self, key: &[u8]) -> Result<(Vec<Record>, Partition), TopicError> {
        let consumer = self.consumer()?;
        let partitions = self.partitions(&consumer)?;
        let mut view = View { partitions, ..View::default() };
        let mut records = Vec::new();
        self.follow(&consumer, (0..partitions).map(|partition| (partition, Start::Beginning)), |record| {
            if record.key.as_deref() == Some(key) {
                records.push(record.clone());
                view.take(record);
            }
        })?;
        let home = view.home(key);
        records.retain(|record| record.source.partition == home);
        Ok((records, home))
    }

    /// The records of one partition that follow `after` and come before `before`, in order.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_between(
        &self,
        partition: Partition,
        after: Option<Offset>,
        before: Offset,
    ) -> Result<Vec<Record>, TopicError> {
        let start = after.map_or(Start::Beginning, |offset| Start::Offset(offset.0 + 1));
        let mut records = Vec::new();
        self.follow(&self.consumer()?, [(partition.0, start)], |record| {
            if record.source.offset < before {
                records.push(record);
            }
        })?;
        Ok(records)
    }

    fn consumer(&self) -> Result<BaseConsumer, TopicError> {
        let mut client = self.client.clone();
        client
            .set("group.id", format!("countersign-reader-{}", issue::random_id()?))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false")
            .set("enable.partition.eof", "true");
        if client.get("fetch.wait.max.ms").is_none() {
            client.set("fetch.wait.max.ms", "50");
        }
        client.create().map_err(|cause| self.reading(cause))
    }

    fn partitions(&self, consumer: &BaseConsumer) -> Result<i32, TopicError> {
        let metadata = consumer
            .fetch_metadata(Some(self.topic.as_str()), METADATA)
            .map_err(|cause| self.reading(cause))?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic.as_str());
        let count = found.map_or(0, |found| found.partitions().len());
        match i32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(TopicError::Missing(self.topic.clone())),
        }
    }

    /// Hands every record to `take` until each partition has come to its end.
    fn follow(
        &self,
        consumer: &BaseConsumer,
        starts: impl IntoIterator<Item = (i32, Start)>,
        mut take: impl FnMut(Record),
    ) -> Result<(), TopicError> {
        let mut list = TopicPartitionList::new();
        let mut open = BTreeSet::new();
        for (partition, start) in starts {
            list.add_partition_offset(self.topic.as_str(), partition, start)
                .map_err(|cause| self.reading(cause))?;
            open.insert(partition);
        }
        consumer.assign(&list).map_err(|cause| self.reading(cause))?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            match consumer.poll(POLL) {
                None if heard.elapsed() > SILENCE => return Err(TopicError::Silent(self.topic.clone())),
                None => continue,
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(cause)) => return Err(self.reading(cause)),
                Some(Ok(message)) => {
                    if open.contains(&message.partition()) {
                        take(record(&message)?);
                    }
                }
            }
            heard = Instant::now();
        }
        Ok(())
    }

    /// Where a record of the topic stands.
    pub(super) fn at(&self, partition: i32, offset: i64) -> Coordinates {
        Coordinates { topic: self.topic.clone(), partition: Partition(partition), offset: Offset(offset) }
    }
}
