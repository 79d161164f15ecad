//! `tail`: outcomes as they come, countersignatures verified. Limits: it reads destinations and dead-letter topics
//! without a group, from partitions that were there when it began; what a dead letter says is signed by nobody.

mod outcome;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as Start, TopicPartitionList};

use super::cluster::{ClusterArgs, ClusterError};
use super::{Exit, Format, Output, interrupt, issue};
use crate::authorize::ids::{InvalidName, Topic};
use crate::authorize::trust::Trust;
use crate::config::{Config, Problems};
use crate::control::TrustSource;
use crate::stream::kafka::record;
use crate::worker::Verifier;

pub use outcome::Outcome;

/// Show outcomes as they come, with their countersignatures verified
///
/// Reads the destination and dead-letter topics of a configuration's routes until it is interrupted. Ends with 2 if a
/// countersignature did not hold.
#[derive(Debug, clap::Args)]
pub struct Tail {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Only the routes of these names
    #[arg(long = "route", value_name = "NAME")]
    routes: Vec<String>,
    /// Begin at the first records that are there, not with the next to come
    #[arg(long)]
    from_beginning: bool,
    /// End after so many outcomes
    #[arg(long, value_name = "N")]
    max: Option<u64>,
}

/// Why outcomes cannot be shown.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TailError {
    /// The cluster is not known.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cluster(#[from] ClusterError),
    /// Without a configuration there are no routes.
    #[error("routes, and the keys of gates, stand in a configuration")]
    #[diagnostic(help("give `--config FILE`"))]
    NoConfig,
    /// The key files of the configuration have mistakes.
    #[error("the trust of the configuration cannot be used: {0}")]
    Trust(Problems),
    /// There is no route of that name.
    #[error("the configuration has no route `{0}`")]
    NoRoute(String),
    /// A topic is not there.
    #[error("the topic `{0}` is not there")]
    #[diagnostic(help("`countersign check --online` names every topic that is missing"))]
    NoTopic(Topic),
    /// A topic of the broker has no legal name.
    #[error("the {0}")]
    Name(#[from] InvalidName),
    /// The broker, or librdkafka, refuses.
    #[error("cannot read from Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The output could not be written, or interruption not be waited for.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// No random bytes for a client's name.
    #[error(transparent)]
    Random(#[from] issue::GenerateError),
}

/// What is read: where permitted and where denied records go.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Destinations.
    pub authorized: BTreeSet<Topic>,
    /// Dead-letter topics.
    pub denied: BTreeSet<Topic>,
}

const POLL: Duration = Duration::from_millis(100);
const METADATA: Duration = Duration::from_secs(20);

impl Tail {
    /// Shows outcomes: 0 in the end, 2 if a countersignature did not hold.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn run(&self, out: &mut Output) -> Result<Exit, TailError> {
        let cluster = self.cluster.resolve()?;
        let config = cluster.config.as_ref().ok_or(TailError::NoConfig)?;
        let watched = self.watched(config)?;
        let trust: Trust = TrustSource::read(&config.settings.trust).load().map_err(TailError::Trust)?;
        let verifier = Verifier::new(cluster.realm.clone(), trust);
        let mut client = cluster.client.clone();
        let consumer: BaseConsumer = client
            .set("group.id", format!("countersign-tail-{}", issue::random_id()?))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .create()?;
        let start = if self.from_beginning { Start::Beginning } else { Start::End };
        assign(&consumer, &watched, start)?;
        let stop = interrupt::flag()?;
        let mut exit = Exit::Done;
        let mut left = self.max.unwrap_or(u64::MAX);
        while left > 0 && !stop.is_set() {
            let Some(message) = consumer.poll(POLL) else {
                out.data().flush()?;
                continue;
            };
            let outcome = Outcome::of(&record(&message?)?, &watched, &verifier);
            if matches!(outcome, Outcome::Unverified { .. }) {
                exit = Exit::No;
            }
            match out.format() {
                Format::Json => out.json_line(&outcome)?,
                Format::Human => writeln!(out.data(), "{outcome}")?,
            }
            left -= 1;
        }
        Ok(exit)
    }

    fn watched(&self, config: &Config) -> Result<Watched, TailError> {
        let names: BTreeSet<&str> = config.settings.routes.iter().map(|r| r.route.name.as_str()).collect();
        if let Some(unknown) = self.routes.iter().find(|name| !names.contains(name.as_str())) {
            return Err(TailError::NoRoute(unknown.clone()));
        }
        let mut watched = Watched::default();
        for route in config.settings.routes.iter().map(|settings| Arc::clone(&settings.route)) {
            if self.routes.is_empty() || self.routes.iter().any(|name| route.name == *name) {
                watched.authorized.insert(route.to.clone());
                watched.denied.insert(route.denied.clone());
            }
        }
        Ok(watched)
    }
}

fn assign(consumer: &BaseConsumer, watched: &Watched, start: Start) -> Result<(), TailError> {
    let mut list = TopicPartitionList::new();
    for topic in watched.authorized.union(&watched.denied) {
        let metadata = consumer.fetch_metadata(Some(topic.as_str()), METADATA)?;
        let partitions = metadata.topics().iter().find(|found| found.name() == topic.as_str());
        let partitions = partitions.map(|found| found.partitions()).unwrap_or_default();
        if partitions.is_empty() {
            return Err(TailError::NoTopic(topic.clone()));
        }
        for partition in partitions {
            list.add_partition_offset(topic.as_str(), partition.id(), start)?;
        }
    }
    consumer.assign(&list)?;
    Ok(())
}
