//! The broker of the story, embedded or a real cluster, and its topics. Limits: topics of a real cluster are made for this
//! run alone, with names of their own, and deleted in the end; what else runs there is left alone.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::PARTITIONS;
use crate::authorize::ids::Topic;
use crate::cli::demo::DemoError;
use crate::cli::issue;

/// The first parts of the topics' names: the routes, and what is followed.
pub(super) const STEMS: [&str; 4] = ["invoices", "legacy", "ledger", "control"];
/// The routes.
pub(super) const ROUTES: [&str; 3] = ["invoices", "legacy", "ledger"];
/// What every route needs of others.
const KINDS: [&str; 4] = ["commands", "authorized", "denied", "audit"];
/// What gates make for themselves, where they may.
const REPLAY: &str = "commands.replay";
const HOLDING: [&str; 4] = ["challenges", "commands.holds", "commands.answers", "access.answers"];
const CONTROL: [&str; 5] = ["workflows", "revocations", "entities", "fleet", "signals"];
const PATIENCE: Duration = Duration::from_secs(30);

/// Where records lie.
pub(super) struct Broker {
    place: Place,
    /// What all of its topics' names begin with.
    prefix: String,
}

enum Place {
    Embedded(MockCluster<'static, DefaultProducerContext>),
    Cluster { bootstrap: String },
}

impl Broker {
    /// The cluster at an address, or an embedded broker.
    pub(super) fn new(bootstrap: Option<&str>) -> Result<Self, DemoError> {
        Ok(match bootstrap {
            None => Self { place: Place::Embedded(MockCluster::new(1)?), prefix: String::new() },
            Some(address) => Self {
                place: Place::Cluster { bootstrap: address.to_owned() },
                // Topic names may hold all that an id is made of.
                prefix: format!("countersign-demo-{}.", issue::random_id()?),
            },
        })
    }

    /// Where the brokers are.
    pub(super) fn bootstrap(&self) -> String {
        match &self.place {
            Place::Embedded(cluster) => cluster.bootstrap_servers(),
            Place::Cluster { bootstrap } => bootstrap.clone(),
        }
    }

    /// Whether it is this process's own.
    pub(super) fn is_embedded(&self) -> bool {
        matches!(self.place, Place::Embedded(_))
    }

    /// A topic of the story.
    pub(super) fn topic(&self, stem: &str, kind: &str) -> Result<Topic, DemoError> {
        Ok(Topic::parse(&self.name(stem, kind))?)
    }

    /// What all of its topics' names begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A client's settings.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.bootstrap()).set("log.connection.close", "false");
        client
    }

    /// Makes the topics that gates do not make for themselves.
    pub(super) fn make_topics(&self) -> Result<(), DemoError> {
        if let Place::Embedded(cluster) = &self.place {
            // The embedded broker takes no administrator's requests, so the gates' own topics are made here too.
            for name in self.names(&KINDS).into_iter().chain(self.own_names()) {
                cluster.create_topic(&name, PARTITIONS, 1)?;
            }
            for kind in CONTROL {
                cluster.create_topic(&self.name("control", kind), 1, 1)?;
            }
            return Ok(());
        }
        let names = self.names(&KINDS);
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| {
                let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(-1));
                let is_source = name.ends_with(".commands");
                if is_source { topic.set("message.timestamp.type", "LogAppendTime") } else { topic }
            })
            .collect();
        let made = self.admin(async |admin, options| admin.create_topics(&topics, options).await)?;
        match made.into_iter().find_map(Result::err) {
            Some((topic, why)) => Err(DemoError::Topic { topic, why: why.to_string() }),
            None => Ok(()),
        }
    }

    /// Takes all topics of this run away from a real cluster.
    pub(super) fn delete_topics(&self) {
        if self.is_embedded() {
            return;
        }
        let control = CONTROL.iter().map(|kind| self.name("control", kind));
        let names: Vec<String> =
            self.names(&KINDS).into_iter().chain(self.own_names()).chain(control).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // What the cluster does not let anybody delete stays there: the story has been told all the same.
        let _ = self.admin(async |admin, options| admin.delete_topics(&names, options).await);
    }

    fn name(&self, stem: &str, kind: &str) -> String {
        format!("{}{stem}.{kind}", self.prefix)
    }

    fn names(&self, kinds: &[&str]) -> Vec<String> {
        ROUTES.iter().flat_map(|route| kinds.iter().map(move |kind| self.name(route, kind))).collect()
    }

    /// What gates make for themselves, of each partition of their sources.
    fn own_names(&self) -> impl Iterator<Item = String> {
        let holding = HOLDING.iter().map(|kind| self.name("invoices", kind));
        self.names(&[REPLAY]).into_iter().chain(holding)
    }

    fn admin<T>(
        &self,
        ask: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> Result<T, KafkaError>,
    ) -> Result<T, DemoError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        Ok(runtime.block_on(ask(&admin, &options))?)
    }
}
