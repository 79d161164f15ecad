//! What a lane tells librdkafka: a person's properties first, then those on which the promises rest. Limits: it checks
//! nothing; the configuration refuses properties that are [`RESERVED`].

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;

use crate::authorize::ids::Topic;

/// Whether outcome, audit record and position are one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// One transaction a batch.
    ExactlyOnce,
    /// Written first, then the position: a failure in between writes again.
    AtLeastOnce,
}

/// Properties that a person may not set, since the gate's promises rest on its own values.
pub const RESERVED: &[&str] = &[
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "heartbeat.interval.ms",
    "isolation.level",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// The connection of one lane.
#[derive(Clone)]
pub struct KafkaSettings {
    /// librdkafka properties as a person wrote them; values may be secrets.
    pub properties: BTreeMap<String, String>,
    /// The consumer group.
    pub group: String,
    /// `<instance>-<lane>` for static membership; `None` for dynamic.
    pub member: Option<String>,
    /// The transactional id; begins with [`KafkaSettings::writer_prefix`].
    pub writer: String,
    /// The source topics of all routes.
    pub topics: Vec<Topic>,
    /// Exactly once, or not.
    pub delivery: Delivery,
    /// After how long the broker aborts a transaction by itself.
    pub transaction_timeout: Duration,
}

impl std::fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The names of properties are no secret; their values can be.
        f.debug_struct("KafkaSettings")
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("group", &self.group)
            .field("writer", &self.writer)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl KafkaSettings {
    /// What every transactional id of this group begins with.
    pub fn writer_prefix(&self) -> String {
        writer_prefix(&self.group)
    }

    /// Defaults, which a person's properties override; what must hold is set after them.
    fn base(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "countersign")
            .set("log.connection.close", "false")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("allow.auto.create.topics", "false");
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// The member of the group. The session is the shortest that a broker takes by default: a dead lane's partitions
    /// wait that long.
    pub fn consumer(&self) -> ClientConfig {
        let mut config = self.reader("read_committed");
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "300")
            .set("max.poll.interval.ms", "60000");
        if let Some(member) = &self.member {
            config.set("group.instance.id", member);
        }
        config
    }

    /// A handle that reads beside the group and never joins it.
    pub fn outsider(&self, isolation: &str) -> ClientConfig {
        let mut config = self.reader(isolation);
        // What retention took away was outside of the window.
        config.set("auto.offset.reset", "earliest");
        config
    }

    fn reader(&self, isolation: &str) -> ClientConfig {
        let mut config = self.base(&[
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "50"),
            ("fetch.queue.backoff.ms", "20"),
        ]);
        config
            .set("group.id", &self.group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error");
        config
    }

    /// The writer with transactional id `id`. Without the short back-off, the first record after a commit meets the
    /// broker still writing markers and waits 100 ms.
    pub fn producer(&self, id: &str) -> ClientConfig {
        let mut config =
            self.base(&[("linger.ms", "5"), ("retry.backoff.ms", "1"), ("retry.backoff.max.ms", "100")]);
        config.set("enable.idempotence", "true");
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
