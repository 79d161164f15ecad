//! `bench copy`: what a gate is measured against. It reads a topic and writes each record to another, with one header more
//! of about the size of a countersignature, and decides nothing; by lanes, clients and transactions as a gate has them.
//! Limits: a process of the bench's own; it ends at the first trouble that a real program would have to outlive, but for
//! a partition that moves.

mod lane;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BenchError;
use crate::authorize::ids::Topic;
use crate::cli::{Exit, interrupt};
use crate::config::{Delivery, KafkaProperties};
use crate::stream::gate::TRANSACTION_TIMEOUT;
use crate::stream::kafka::settings::KafkaSettings;

/// What Kafka takes as a batch of records unless it is told otherwise.
const LARGEST_BATCH: usize = 1_048_588;

/// The arguments of `bench copy`.
#[derive(Debug, clap::Args)]
pub(super) struct Copy {
    /// What to copy, as JSON
    settings: PathBuf,
}

/// What is copied, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CopySettings {
    /// Where the brokers are.
    pub(super) bootstrap: String,
    /// The consumer group.
    pub(super) group: String,
    /// The topic that is read.
    pub(super) from: String,
    /// The topic that is written to.
    pub(super) to: String,
    /// Where each record leaves another of 600 bytes, as an audit record is; `None` is nowhere.
    pub(super) audit: Option<String>,
    /// Records in one transaction, at most.
    pub(super) batch: usize,
    /// How long a batch waits for more records, in milliseconds.
    pub(super) linger_ms: u64,
    /// Threads, each with a consumer.
    pub(super) lanes: usize,
    /// What becomes of a batch.
    pub(super) guarantee: Guarantee,
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Guarantee {
    /// Sent, answered, and its positions committed after.
    AtLeastOnce,
    /// In a transaction; the next begins when it has been committed.
    ExactlyOnce,
    /// In transactions of two producers in turn: while one commits, the next batch is sent by the other.
    ExactlyOnceInTurn,
}

impl CopySettings {
    /// The clients of one lane: told what a gate's are.
    fn kafka(&self, lane: usize) -> Result<KafkaSettings, BenchError> {
        let mut properties = KafkaProperties::default();
        properties.set("bootstrap.servers", self.bootstrap.as_str());
        let turns = if self.guarantee == Guarantee::ExactlyOnceInTurn { 2 } else { 1 };
        Ok(KafkaSettings {
            properties,
            group: self.group.clone(),
            member: None,
            is_first: true,
            // Other processes of the group have other numbers.
            writers: (0..turns)
                .map(|turn| format!("{}.{}-{lane}-{turn}", self.group, std::process::id()))
                .collect(),
            topics: vec![Topic::parse(&self.from)?],
            delivery: match self.guarantee {
                Guarantee::AtLeastOnce => Delivery::AtLeastOnce,
                _ => Delivery::ExactlyOnce,
            },
            batch_bytes: Some((LARGEST_BATCH, LARGEST_BATCH)),
            transaction_timeout: TRANSACTION_TIMEOUT,
        })
    }

    fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }
}

impl Copy {
    /// Copies until it is told to end.
    pub(super) fn run(&self) -> Result<Exit, BenchError> {
        let settings: CopySettings = serde_json::from_slice(&std::fs::read(&self.settings)?)?;
        let stop = interrupt::flag()?;
        std::thread::scope(|scope| {
            let (settings, stop) = (&settings, &stop);
            let lanes: Vec<_> = (0..settings.lanes.max(1))
                .map(|lane| scope.spawn(move || lane::run(settings, &settings.kafka(lane)?, stop)))
                .collect();
            lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or(Err(BenchError::Panicked)))
        })?;
        Ok(Exit::Done)
    }
}
