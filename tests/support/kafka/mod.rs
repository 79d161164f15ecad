//! A real Apache Kafka for tests: one broker for a test binary, handed out only after it was seen to tell the truth
//! about transactions. A machine that cannot run one says loudly which test it skipped and why; where `CI` is set, that
//! is a failure.
//!
//! ```ignore
//! let Some(broker) = support::kafka::broker("a denied record reaches the dead letters") else { return };
//! let topic = broker.create_topic("commands", 8, &[("message.timestamp.type", "LogAppendTime")]);
//! ```

mod cluster;
mod follow;
mod jars;
mod launch;
mod node;
mod process;
pub mod request;
mod topics;
pub mod truth;

use std::env;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

#[allow(unused_imports, reason = "not every binary breaks a broker")]
pub use cluster::{Cluster, Led};
pub use follow::Follower;
pub use node::Node;
pub use process::{Process, Watched};
pub use topics::{Committed, NewRecord, Record, Writer};

/// The environment variable with the bootstrap address of a broker to use instead of starting one.
const ADDRESS_VARIABLE: &str = "COUNTERSIGN_TEST_KAFKA";

/// A running broker and the way to talk to it.
pub struct Broker {
    bootstrap: String,
    /// How many copies of each partition there are.
    copies: i32,
    /// Present where this process started the broker; its end is the broker's end.
    _node: Option<Node>,
}

/// Why there is no broker.
pub enum Unavailable {
    /// This machine lacks what a broker needs: a reason to skip.
    Missing(String),
    /// It should have worked: a reason to fail.
    Failed(String),
}

/// The broker that all tests of this binary share, or `None` where `test` has to be skipped.
///
/// # Panics
/// If a broker should be there and is not, if it lies about transactions, or if `CI` is set and none can be had.
pub fn broker(test: &str) -> Option<&'static Broker> {
    let broker = unexamined_broker(test)?;
    if let Err(lies) = truth::of_shared(broker).believable() {
        panic!("the broker does not keep Kafka's promises, so nothing tested on it can be believed:\n{lies}");
    }
    Some(broker)
}

/// The shared broker, whether it tells the truth or not: for the tests that report on just that.
pub fn unexamined_broker(test: &str) -> Option<&'static Broker> {
    static SHARED: OnceLock<Result<Broker, Unavailable>> = OnceLock::new();
    match SHARED.get_or_init(Broker::start) {
        Ok(broker) => Some(broker),
        Err(Unavailable::Failed(cause)) => panic!("no Kafka broker: {cause}"),
        Err(Unavailable::Missing(what)) if must_not_skip() => {
            panic!("`{test}` needs a Kafka broker and CI never skips: {what}")
        }
        Err(Unavailable::Missing(what)) => {
            skip(test, what);
            None
        }
    }
}

/// A broker of its own for a test that ends it: with the node, or `None` where `test` has to be skipped.
#[allow(dead_code, reason = "not every binary ends a broker")]
pub fn apart(test: &str) -> Option<(&'static Broker, Node)> {
    let node = had(test, launch::start(1, None))?.remove(0);
    Some((Box::leak(Box::new(Broker::at(node.address.clone()))), node))
}

/// The three brokers that all tests of this binary share, one test at a time, found to tell the truth; or `None` where `test` has
/// to be skipped. Whoever has had them before has left them whole, or has failed.
#[allow(dead_code, reason = "not every binary needs three")]
pub fn cluster(test: &str) -> Option<MutexGuard<'static, Cluster>> {
    static SHARED: Mutex<Option<&'static Mutex<Cluster>>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = match *shared {
        Some(cluster) => cluster,
        None => shared.insert(Box::leak(Box::new(Mutex::new(new_cluster(test)?)))),
    };
    drop(shared);
    Some(cluster.lock().expect("a test that had the three brokers before has failed"))
}

fn new_cluster(test: &str) -> Option<Cluster> {
    let nodes = had(test, launch::start(3, None))?;
    let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
    let broker: &'static Broker =
        Box::leak(Box::new(Broker { bootstrap: addresses.join(","), copies: 3, _node: None }));
    let mut cluster = Cluster::new(broker, nodes);
    cluster.wait_whole();
    if let Err(lies) = truth::of(broker).believable() {
        panic!(
            "three brokers do not keep Kafka's promises, so nothing tested on them can be believed:\n{lies}"
        );
    }
    Some(cluster)
}

/// What was started, or `None` where `test` has to be skipped.
fn had<T>(test: &str, started: Result<T, Unavailable>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(Unavailable::Failed(cause)) => panic!("no Kafka broker: {cause}"),
        Err(Unavailable::Missing(what)) if must_not_skip() => {
            panic!("`{test}` needs a Kafka broker and CI never skips: {what}")
        }
        Err(Unavailable::Missing(what)) => {
            skip(test, &what);
            None
        }
    }
}

impl Broker {
    /// The broker named in the environment, or a new one that ends with this process.
    pub fn start() -> Result<Self, Unavailable> {
        match env::var(ADDRESS_VARIABLE) {
            Ok(bootstrap) if !bootstrap.is_empty() => Ok(Self::at(bootstrap)),
            _ => {
                let (bootstrap, node) = launch::shared()?;
                Ok(Self { _node: Some(node), ..Self::at(bootstrap) })
            }
        }
    }

    /// A broker that something else keeps running.
    pub fn at(bootstrap: String) -> Self {
        Self { bootstrap, copies: 1, _node: None }
    }

    /// The address for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

fn must_not_skip() -> bool {
    env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false")
}

fn skip(test: &str, what: &str) {
    // Written past the test harness, which shows what a passing test prints to nobody.
    let _ = writeln!(
        std::io::stderr().lock(),
        "\n!!! SKIPPED: {test}\n!!! it needs Apache Kafka, and {what}\n!!! `scripts/setup --tests` installs what is \
         missing, or set {ADDRESS_VARIABLE} to the address of a broker\n"
    );
}
