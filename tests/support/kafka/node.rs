//! One node of Apache Kafka (KRaft, broker and controller in one): formatted once, started, stopped, killed and started again on
//! what it has written. It ends with this value, or with this process. Limits: it knows nothing of what is on it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::process::{Process, Watched};

/// A broker is up in 5 s on an idle machine; two busy cores have been seen to take 30.
const READY_WITHIN: Duration = Duration::from_secs(120);
const READY: &str = "Kafka Server started";
/// Ports below those that the system gives to clients: a node that is away must not lose its port to one, and a client that
/// tries again and again must not end up connected to itself.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// Where a node listens: brokers' port, controllers' port.
pub(super) type Ports = (u16, u16);

/// A node of a cluster.
pub struct Node {
    /// From 1.
    pub id: i32,
    /// Where clients reach it.
    pub address: String,
    java: Vec<String>,
    dir: PathBuf,
    log: PathBuf,
    runs: u32,
    process: Option<Process>,
    /// Removed with the last node in it.
    _folder: Arc<Watched>,
}

/// What nodes of one cluster have in common.
pub(super) struct Ground<'a> {
    pub(super) jars: &'a Path,
    pub(super) dir: &'a Path,
    pub(super) folder: Arc<Watched>,
    pub(super) cluster_id: &'a str,
    pub(super) nodes: &'a [Ports],
    /// Whether they are to last, rather than to be started again and again.
    pub(super) lasting: bool,
}

impl Node {
    /// Formats the storage of node `id` and starts it, without waiting for it.
    pub(super) fn start(ground: &Ground<'_>, id: i32, log: Option<PathBuf>) -> Result<Self, String> {
        let dir = ground.dir.join(format!("node-{id}"));
        let own =
            usize::try_from(id - 1).ok().and_then(|place| ground.nodes.get(place)).ok_or("no such node")?;
        fs::create_dir(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let properties = dir.join("server.properties");
        fs::write(&properties, server_properties(id, ground.nodes, &dir.join("data")))
            .map_err(|error| format!("cannot write {}: {error}", properties.display()))?;
        let class_path = format!("{}/*", ground.jars.display());
        let formatted = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp", &class_path, "kafka.tools.StorageTool"])
            .args(["format", "-t", ground.cluster_id, "-c"])
            .arg(&properties)
            .output()
            .map_err(|error| format!("cannot run java: {error}"))?;
        if !formatted.status.success() {
            return Err(format!("formatting storage failed: {}", String::from_utf8_lossy(&formatted.stderr)));
        }
        let log = log.unwrap_or_else(|| dir.join("log"));
        let address = format!("127.0.0.1:{}", own.0);
        let mut java: Vec<String> = ["java", "-Xmx512m", "-XX:+UseSerialGC"].map(str::to_owned).to_vec();
        if !ground.lasting {
            // The compiler that is quick to begin.
            java.push("-XX:TieredStopAtLevel=1".to_owned());
        }
        java.extend([
            "-cp".to_owned(),
            class_path,
            "kafka.Kafka".to_owned(),
            properties.display().to_string(),
        ]);
        let folder = Arc::clone(&ground.folder);
        let mut node = Self { id, address, java, dir, log, runs: 0, process: None, _folder: folder };
        node.launch()?;
        Ok(node)
    }

    /// Runs it on what it has written before.
    fn launch(&mut self) -> Result<(), String> {
        self.runs += 1;
        let own = self.dir.join(format!("run-{}", self.runs));
        fs::create_dir(&own).map_err(|error| format!("cannot make {}: {error}", own.display()))?;
        let program: Vec<&str> = self.java.iter().map(String::as_str).collect();
        let process = Process::start(&program, &own, &self.log);
        self.process = Some(process.map_err(|error| format!("cannot run sh: {error}"))?);
        Ok(())
    }

    /// Waits until it takes requests.
    pub(super) fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if fs::read_to_string(&self.log).is_ok_and(|text| text.contains(READY)) {
                return Ok(());
            }
            if self.process.as_mut().is_none_or(|process| process.ended().is_some()) {
                return Err(format!("node {} ended while it started\n{}", self.id, self.said()));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "node {} was not ready within {READY_WITHIN:?}\n{}",
                    self.id,
                    self.said()
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of its log.
    pub(super) fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("the end of {}:\n{}", self.log.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

#[allow(dead_code, reason = "not every binary breaks a broker")]
impl Node {
    /// Whether its process is there, stopped or not.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// `kill -9`; returns when it is gone. One that has ended by itself is gone already.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again on what it has written, and waits until it takes requests.
    pub fn restart(&mut self) {
        assert!(!self.is_running(), "node {} still runs", self.id);
        self.launch().and_then(|()| self.wait_ready()).unwrap_or_else(|cause| panic!("{cause}"));
    }

    /// Stops the process where it stands, until [`Node::resume`].
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a stopped process go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a node that runs").signal(signal);
    }

    /// See [`Process::limit_files`]; until it is started again.
    pub fn limit_files(&self, bytes: u64) {
        self.process.as_ref().expect("a node that runs").limit_files(bytes);
    }

    /// Asks for an end in good order, and waits for it.
    pub fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        self.wait_ended();
    }

    /// Waits until it has ended by itself.
    pub fn wait_ended(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        while self.is_running() {
            assert!(Instant::now() < deadline, "node {} did not end\n{}", self.id, self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where it keeps the log of a partition.
    pub fn log_of(&self, topic: &str, partition: i32) -> PathBuf {
        self.dir.join("data").join(format!("{topic}-{partition}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- node {}: {}", self.id, self.said());
        }
    }
}

/// Free ports for so many nodes.
pub(super) fn free_ports(nodes: usize) -> Result<Vec<Ports>, String> {
    // Held until all are found, so that none is found twice. Where to look first differs from
    // call to call (a v7 id ends in chance): others look too.
    let span = u128::from(PORTS.end - PORTS.start);
    let first = u16::try_from(uuid::Uuid::now_v7().as_u128() % span).map_err(|error| error.to_string())?;
    let all = (PORTS.start + first..PORTS.end).chain(PORTS.start..PORTS.start + first);
    let found: Vec<(TcpListener, u16)> = all
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok().map(|listener| (listener, port)))
        .take(2 * nodes)
        .collect();
    if found.len() < 2 * nodes {
        return Err("no free loopback ports".to_owned());
    }
    Ok(found.chunks_exact(2).map(|pair| (pair[0].1, pair[1].1)).collect())
}

fn server_properties(id: i32, nodes: &[Ports], data: &Path) -> String {
    let voters: Vec<String> =
        (1..).zip(nodes).map(|(id, (_, controller))| format!("{id}@127.0.0.1:{controller}")).collect();
    let (port, controller) =
        usize::try_from(id - 1).ok().and_then(|place| nodes.get(place)).copied().unwrap_or_default();
    let copies = nodes.len();
    let in_sync = copies.div_ceil(2);
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=4
offsets.topic.replication.factor={copies}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
",
        voters = voters.join(","),
        data = data.display()
    )
}
