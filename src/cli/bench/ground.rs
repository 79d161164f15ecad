//! The topics that are measured on: made for one turn with names of their own, looked at, and deleted after it. Limits:
//! nothing that was there before is touched.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{BenchError, PARTITIONS};
use crate::cli::issue;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing may come while a topic is read to its end.
const SILENCE: Duration = Duration::from_secs(10);

/// Where the topics of this run are.
pub(super) struct Ground {
    client: ClientConfig,
    bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    prefix: String,
}

impl Ground {
    /// A ground on the cluster at an address.
    pub(super) fn new(bootstrap: &str) -> Result<Self, BenchError> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", bootstrap).set("log.connection.close", "false");
        Ok(Self {
            admin: client.create()?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            // Topic names may hold all that an id is made of.
            prefix: format!("countersign-bench-{}", issue::random_id()?),
            bootstrap: bootstrap.to_owned(),
            client,
        })
    }

    /// Where the brokers are.
    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A client's settings.
    pub(super) fn client(&self) -> ClientConfig {
        self.client.clone()
    }

    /// A name that begins as all of this run do.
    pub(super) fn name(&self, turn: &str, kind: &str) -> String {
        format!("{}.{turn}.{kind}", self.prefix)
    }

    /// Makes topics, each with some settings.
    pub(super) fn make(&self, topics: &[(&str, &[(&str, &str)])]) -> Result<(), BenchError> {
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, settings)| {
                let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(-1));
                // What was measured is gone soon, so that a long run does not fill the disk.
                let topic = topic.set("file.delete.delay.ms", "1000");
                settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let made = self.runtime.block_on(self.admin.create_topics(&new, &options()))?;
        if let Some((topic, why)) = made.into_iter().find_map(Result::err) {
            return Err(BenchError::Topic { topic, why: why.to_string() });
        }
        let look: BaseConsumer = self.client.create()?;
        let deadline = Instant::now() + PATIENCE;
        for (name, _) in topics {
            // Made is not yet known to every broker, nor to have leaders.
            let is_known = || -> Result<bool, KafkaError> {
                let metadata = look.fetch_metadata(Some(name), PATIENCE)?;
                Ok(metadata.topics().iter().any(|topic| {
                    let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0);
                    topic.name() == *name && led.count() == PARTITIONS as usize
                }))
            };
            while !is_known()? {
                if Instant::now() > deadline {
                    return Err(BenchError::Waiting {
                        what: format!("topic `{name}`"),
                        seconds: PATIENCE.as_secs(),
                    });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Takes topics away. What the cluster does not let anybody delete stays there: it has been measured all the same.
    pub(super) fn delete(&self, topics: &[&str]) {
        let _ = self.runtime.block_on(self.admin.delete_topics(topics, &options()));
    }

    /// How far a group has come in a topic that it read from its beginning.
    pub(super) fn progress(&self, group: &str, topic: &str) -> Result<Progress, BenchError> {
        let mut client = self.client();
        // Uncommitted: what is committed so far is asked for, not what will be when an open transaction has ended.
        client.set("group.id", group).set("isolation.level", "read_uncommitted");
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(topic, 0, PARTITIONS - 1);
        Ok(Progress { consumer: client.create()?, partitions })
    }

    /// How many committed records a topic holds.
    pub(super) fn count(&self, topic: &str) -> Result<u64, BenchError> {
        let mut client = self.client();
        client
            .set("group.id", "countersign-bench")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = client.create()?;
        consumer.assign(&from_the_beginning(topic)?)?;
        let (mut count, mut open) = (0, (0..PARTITIONS).collect::<BTreeSet<i32>>());
        while !open.is_empty() {
            match consumer.poll(SILENCE) {
                Some(Ok(_)) => count += 1,
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    let what = format!("the end of topic `{topic}`");
                    return Err(BenchError::Waiting { what, seconds: SILENCE.as_secs() });
                }
            }
        }
        Ok(count)
    }
}

/// Every partition of a topic, from its first record.
pub(super) fn from_the_beginning(topic: &str) -> Result<TopicPartitionList, BenchError> {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    Ok(list)
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// How far a group has come.
pub(super) struct Progress {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Progress {
    /// How many records it is done with, by the positions that it has committed.
    pub(super) fn done(&self) -> Result<u64, BenchError> {
        let deadline = Instant::now() + PATIENCE;
        let committed = loop {
            match self.consumer.committed_offsets(self.partitions.clone(), PATIENCE) {
                Ok(committed) => break committed,
                // The group is new, or its coordinator has only begun.
                Err(error) if is_of_a_coordinator(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        };
        let positions = committed.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(position) => u64::try_from(position).ok(),
            _ => None,
        });
        Ok(positions.sum())
    }
}

fn is_of_a_coordinator(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotCoordinator | Code::CoordinatorLoadInProgress | Code::CoordinatorNotAvailable)
    )
}
