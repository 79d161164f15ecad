//! How a lane works, what asks it to end, and why it may end unasked. Limits: plain values; the configuration fills them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::authorize::ids::Topic;
use crate::config::{BreakerSettings, Start};
use crate::stream::breaker::TryAgain;
use crate::stream::log::Cause;
use crate::wire::outgoing::Outgoing;

/// What a lane must know of a source topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The route that reads it.
    pub route: String,
    /// Its replay topic, with as many partitions.
    pub replay: Topic,
    /// The topic of its audit records.
    pub audit: Topic,
    /// Where what is denied of it goes.
    pub denied: Topic,
    /// When its route stops rather than deny more; `None` is never.
    pub breaker: Option<BreakerSettings>,
    /// Where it begins.
    pub start: Start,
    /// How long a proof is remembered.
    pub window: Duration,
    /// Where its held records and their answers stand; `None` where its route does not hold.
    pub holding: Option<HoldTopics>,
}

/// Where the held records of a source topic and their answers stand, each with as many partitions as the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldTopics {
    /// The topic that keeps them.
    pub holds: Topic,
    /// The topic of the answers, stamped by the broker.
    pub answers: Topic,
    /// By how much the broker's clock and the gate's may differ.
    pub skew: Duration,
}

/// What a topic takes, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicLimits {
    /// The largest batch of records, in bytes.
    pub max_bytes: Option<usize>,
    /// Whether a null key is refused.
    pub compacted: bool,
}

impl TopicLimits {
    /// What a batch and a record cost beside their bytes, at most (Kafka's record batch, version 2).
    const OVERHEAD: usize = 61 + 32;
    const HEADER_OVERHEAD: usize = 10;

    /// Why the topic will not take this record, if that is certain.
    pub(in crate::stream) fn refuse(self, record: &Outgoing) -> Option<&'static str> {
        if self.compacted && record.key.is_none() {
            return Some("the topic is compacted and the record has no key");
        }
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = record
            .headers
            .iter()
            .map(|header| header.name.len() + length(&header.value) + Self::HEADER_OVERHEAD)
            .sum();
        let size = Self::OVERHEAD + length(&record.key) + length(&record.value) + headers;
        self.max_bytes.filter(|max| size > *max).map(|_| "the record is larger than the topic takes")
    }
}

/// How a lane works.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// The lane's number in its gate.
    pub lane: usize,
    /// The source topics.
    pub sources: BTreeMap<Topic, Source>,
    /// The topics that outcomes and audit records go to.
    pub targets: Vec<Topic>,
    /// What those topics take. A record that one will not take is found before it is sent; without an entry, by the
    /// broker's refusal.
    pub limits: BTreeMap<Topic, TopicLimits>,
    /// Records in one transaction, at most; at least 1.
    pub batch: usize,
    /// So many batches more are taken in at once where their records are there already: each is decided while the one before is
    /// committed.
    pub ahead: usize,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// After how long the broker aborts a transaction. A batch that takes a quarter of it to decide is cut short.
    pub transaction_timeout: Duration,
    /// How often in a row a producer that was refused as replaced is made anew.
    pub fenced_tries: u32,
    /// Asks routes that have stopped to try again.
    pub try_again: TryAgain,
}

impl LaneSettings {
    /// Every topic whose partition count matters, once.
    pub(super) fn topics(&self) -> BTreeSet<Topic> {
        let mut topics: BTreeSet<Topic> = self.targets.iter().cloned().collect();
        for (topic, source) in &self.sources {
            topics.extend([topic.clone(), source.replay.clone()]);
            topics.extend(
                source.holding.iter().flat_map(|topics| [topics.holds.clone(), topics.answers.clone()]),
            );
        }
        topics
    }
}

/// Asks lanes to end.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks for the end: the batch in hand is committed or aborted, and the group left.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }
    /// Whether the end was asked for.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a lane ended without being asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// Its membership is gone: another lane has the same instance name, or the group refuses it.
    #[error("the lane's membership has ended: {0}")]
    Membership(Cause),
    /// Its producer was refused again and again: another lane writes with the same id.
    #[error("the lane's producer was replaced by another {tries} times in a row: {cause}")]
    Producer {
        /// How often.
        tries: u32,
        /// The last refusal.
        cause: Cause,
    },
}
