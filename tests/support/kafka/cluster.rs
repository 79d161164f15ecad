//! Three brokers, and who leads what: partitions by the metadata, groups and transactions by what the brokers themselves answer.
//! Limits: one node is out at a time, since two of three must be there for anything to be written.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::Broker;
use super::node::Node;
use super::request::{Coordinated, coordinator, limit_writes};

/// The bound of every wait here: a node that comes back may have to wait for two busy cores.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of one question to nodes of which one may be stopped.
const ASK: Duration = Duration::from_secs(10);

/// The nodes of a cluster. It ends with this value.
pub struct Cluster {
    pub broker: &'static Broker,
    nodes: Vec<Node>,
}

/// Something of which one node is in charge.
#[derive(Clone, Copy, Debug)]
pub enum Led<'a> {
    Partition(&'a str, i32),
    Group(&'a str),
    Transactions(&'a str),
}

impl Cluster {
    pub(super) fn new(broker: &'static Broker, nodes: Vec<Node>) -> Self {
        Self { broker, nodes }
    }

    /// The node of that id.
    pub fn node(&mut self, id: i32) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("a node of the cluster")
    }

    /// How many bytes a second each client of a gate may write to each broker, or any number.
    pub fn limit_writes(&self, bytes: Option<f64>) {
        let took = self.nodes.iter().any(|node| limit_writes(&node.address, "countersign", bytes));
        assert!(took, "no broker takes a quota");
    }

    /// Who is in charge of it.
    pub fn leader(&self, of: Led<'_>) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = match of {
                Led::Partition(topic, partition) => self.leader_of(topic, partition),
                Led::Group(id) => self.coordinator(Coordinated::Group, id),
                Led::Transactions(id) => self.coordinator(Coordinated::Transactions, id),
            };
            match found {
                Some(id) => return id,
                None => assert!(Instant::now() < deadline, "nobody is in charge of {of:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn leader_of(&self, topic: &str, partition: i32) -> Option<i32> {
        let reader: BaseConsumer = self.broker.client().create().expect("a consumer");
        let metadata = reader.fetch_metadata(Some(topic), ASK).ok()?;
        let found = metadata.topics().iter().find(|known| known.name() == topic)?;
        let of = found.partitions().iter().find(|known| known.id() == partition)?;
        Some(of.leader()).filter(|leader| self.nodes.iter().any(|node| node.id == *leader))
    }

    fn coordinator(&self, what: Coordinated, id: &str) -> Option<i32> {
        self.nodes.iter().find_map(|node| coordinator(&node.address, what, id))
    }

    /// Waits until every copy of every partition is in sync: then any one node can be lost.
    pub fn wait_whole(&mut self) {
        let reader: BaseConsumer = self.broker.client().create().expect("a consumer");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lacking = match reader.fetch_metadata(None, ASK) {
                Ok(metadata) => metadata.topics().iter().find_map(|topic| {
                    let lacks = topic.partitions().iter().find(|of| of.isr().len() < of.replicas().len())?;
                    Some(format!(
                        "{}/{} has {:?} of {:?} in sync",
                        topic.name(),
                        lacks.id(),
                        lacks.isr(),
                        lacks.replicas()
                    ))
                }),
                Err(error) => Some(error.to_string()),
            };
            let Some(lacking) = lacking else { return };
            if Instant::now() > deadline {
                let said: Vec<String> = self.nodes.iter().map(Node::said).collect();
                panic!("the cluster did not become whole: {lacking}\n{}", said.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
