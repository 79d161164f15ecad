//! Starts Apache Kafka from its Maven artifacts, one node or three, on free loopback ports and in a folder of its own. Limits:
//! what a node can be made to suffer stands in `node`, what a cluster can be asked in `cluster`.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Unavailable;
use super::jars::{binary_name, jars, work_dir};
use super::node::{Ground, Node, free_ports};
use super::process::Watched;

/// Another process may take a port between our look and the broker's bind.
const ATTEMPTS: u32 = 3;

/// The broker that the tests of this binary share: its bootstrap address, and the node that must be kept as long as it is
/// needed. Its log outlives it.
pub(super) fn shared() -> Result<(String, Node), Unavailable> {
    let log = work_dir()?.join(format!("broker-{}.log", binary_name()));
    let mut nodes = start(1, Some(log))?;
    let node = nodes.remove(0);
    Ok((node.address.clone(), node))
}

/// So many nodes of one new cluster, all of them ready.
pub(super) fn start(count: usize, log: Option<PathBuf>) -> Result<Vec<Node>, Unavailable> {
    let jars = jars()?;
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match start_once(&jars, count, log.as_ref()) {
            Ok(nodes) => return Ok(nodes),
            Err(cause) => last = cause,
        }
    }
    Err(Unavailable::Failed(last))
}

fn start_once(jars: &std::path::Path, count: usize, log: Option<&PathBuf>) -> Result<Vec<Node>, String> {
    let dir = tempfile::Builder::new()
        .prefix("countersign-kafka-")
        .tempdir()
        .map_err(|error| format!("cannot make a folder for the broker: {error}"))?;
    let folder = Watched::folder(dir.path()).map_err(|error| format!("cannot run sh: {error}"))?;
    // From here on the folder is the watch's to remove.
    let dir = dir.keep();
    let ports = free_ports(count)?;
    let cluster_id = cluster_id();
    let folder = Arc::new(folder);
    let lasting = log.is_some();
    let ground = Ground { jars, dir: &dir, folder, cluster_id: &cluster_id, nodes: &ports, lasting };
    let started: Result<Vec<Node>, String> =
        (1..).take(count).map(|id| Node::start(&ground, id, log.cloned())).collect();
    let mut nodes = started?;
    for node in &mut nodes {
        node.wait_ready()?;
    }
    Ok(nodes)
}

fn cluster_id() -> String {
    // Version 7 starts with the time, hence never with the `-` that would read as an option.
    URL_SAFE_NO_PAD.encode(uuid::Uuid::now_v7().as_bytes())
}
