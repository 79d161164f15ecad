//! What a lane tells librdkafka: a person's properties first, then those on which the promises rest. Limits: it checks
//! nothing; the configuration refuses properties that belong to the gate.

use std::time::Duration;

use rdkafka::config::ClientConfig;

use super::client;
use crate::authorize::ids::Topic;
use crate::config::{Delivery, KafkaProperties};

/// librdkafka's own bound of a batch and of a record, unless it is told otherwise.
const LARGEST_BATCH: usize = 1_000_000;
/// The largest record that librdkafka can be told to send.
const LARGEST_MESSAGE: usize = 1_000_000_000;

/// How long the group waits for a member of which nothing is heard: the shortest that a broker takes by default.
pub const SESSION: Duration = Duration::from_secs(6);

/// The connection of one lane.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// librdkafka properties as a person wrote them.
    pub properties: KafkaProperties,
    /// The consumer group.
    pub group: String,
    /// `<instance>-<lane>` for static membership; `None` for dynamic.
    pub member: Option<String>,
    /// This is the gate's first lane: it finds out for all of them whether another gate has their name.
    pub is_first: bool,
    /// The transactional ids, one for each producer; they begin with [`KafkaSettings::writer_prefix`].
    pub writers: Vec<String>,
    /// The source topics of all routes.
    pub topics: Vec<Topic>,
    /// Exactly once, or not.
    pub delivery: Delivery,
    /// The smallest and the largest batch of records that a topic written to takes, in bytes, as far as it is known. A
    /// larger batch would be refused whole, whichever record it is that makes it so.
    pub batch_bytes: Option<(usize, usize)>,
    /// After how long the broker aborts a transaction by itself.
    pub transaction_timeout: Duration,
}

impl KafkaSettings {
    /// What every transactional id of this group begins with.
    pub fn writer_prefix(&self) -> String {
        writer_prefix(&self.group)
    }

    /// The member of the group: a dead lane's partitions wait for [`SESSION`].
    pub fn consumer(&self) -> ClientConfig {
        let session = SESSION.as_millis().to_string();
        let mut config = self.reader(
            "read_committed",
            &[
                ("session.timeout.ms", session.as_str()),
                ("heartbeat.interval.ms", "300"),
                ("max.poll.interval.ms", "60000"),
            ],
        );
        config.set("partition.assignment.strategy", "cooperative-sticky");
        if let Some(member) = &self.member {
            config.set("group.instance.id", member);
        }
        config
    }

    /// A handle that reads beside the group and never joins it.
    pub fn outsider(&self, isolation: &str) -> ClientConfig {
        let mut config = self.reader(isolation, &[]);
        // What retention took away was outside of the window.
        config.set("auto.offset.reset", "earliest");
        config
    }

    /// A reader that looks whether what stands at a position can be read.
    pub fn prober(&self) -> ClientConfig {
        let mut config = self.outsider("read_committed");
        config.set("enable.partition.eof", "true").set("queued.min.messages", "1");
        config
    }

    /// A reader of answers: few and small, and none of them is to be read long before it is decided.
    pub fn follower(&self) -> ClientConfig {
        let mut config = self.outsider("read_committed");
        config.set("queued.min.messages", "1000").set("queued.max.messages.kbytes", "1024");
        config
    }

    /// A reader of single records at known offsets: it reads little ahead and does not wait for more.
    pub fn picker(&self) -> ClientConfig {
        let mut config = self.outsider("read_uncommitted");
        config
            .set("enable.partition.eof", "true")
            .set("queued.min.messages", "1")
            .set("fetch.message.max.bytes", "262144")
            .set("fetch.wait.max.ms", "5");
        config
    }

    fn reader(&self, isolation: &str, more: &[(&str, &str)]) -> ClientConfig {
        let defaults = [
            &[
                ("fetch.wait.max.ms", "100"),
                ("fetch.error.backoff.ms", "50"),
                ("fetch.queue.backoff.ms", "20"),
            ],
            more,
        ];
        let mut config = client::settings(&self.properties, &defaults.concat());
        config
            .set("group.id", &self.group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            // What was damaged on its way or on a disk is found, not decided.
            .set("check.crcs", "true")
            .set("auto.offset.reset", "error");
        config
    }

    /// The writer with transactional id `id`. Without the short back-off, the first record after a commit meets the
    /// broker still writing markers and waits 100 ms. Records linger until they fill a batch or their transaction ends, which
    /// sends them whatever the linger is: with a short one, a lane that decides a record in 100 us sends a batch for each.
    pub fn producer(&self, id: &str) -> ClientConfig {
        let defaults = [("linger.ms", "500"), ("retry.backoff.ms", "1"), ("retry.backoff.max.ms", "100")];
        let mut config = client::settings(&self.properties, &defaults);
        config.set("enable.idempotence", "true");
        if let Some((smallest, largest)) = self.batch_bytes {
            config.set("batch.size", smallest.clamp(1, LARGEST_BATCH).to_string());
            if self.properties.get("message.max.bytes").is_none() && largest > LARGEST_BATCH {
                config.set("message.max.bytes", largest.min(LARGEST_MESSAGE).to_string());
            }
        }
        if self.delivery == Delivery::ExactlyOnce {
            config
                .set("transactional.id", id)
                .set("transaction.timeout.ms", self.transaction_timeout.as_millis().to_string());
        }
        config
    }
}

/// What every transactional id of a group begins with.
pub fn writer_prefix(group: &str) -> String {
    format!("{group}.")
}
