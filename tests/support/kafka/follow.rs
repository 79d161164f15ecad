//! Following a topic as a bystander: what has come since the last look, committed records alone. Limits: from the beginning
//! of the topic, with the partitions that it has then.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Broker;
use super::topics::{Record, partitions_of};

/// How long a look waits for the next record.
const LOOK: Duration = Duration::from_millis(20);

/// A reader that stays.
pub struct Follower(BaseConsumer);

impl Broker {
    /// Begins to follow a topic.
    pub fn follow(&self, topic: &str) -> Follower {
        let reader = self.reader("read_committed");
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions_of(&reader, topic) {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an assignment");
        }
        reader.assign(&assignment).expect("the partitions are assigned");
        Follower(reader)
    }
}

impl Follower {
    /// What has come since the last look.
    pub fn take(&self) -> Vec<Record> {
        let mut records = Vec::new();
        loop {
            match self.0.poll(LOOK) {
                Some(Ok(message)) => records.push(Record::from(&message)),
                // One that does not pass shows in what never comes.
                Some(Err(KafkaError::PartitionEOF(_) | KafkaError::MessageConsumption(_))) => {}
                Some(Err(error)) => panic!("following: {error}"),
                None => return records,
            }
        }
    }
}
