//! The broker that is measured on: one that a person names, or one Apache Kafka node (KRaft, broker and controller in one)
//! on free loopback ports and in a folder of its own, ended with this process. Limits: one node says nothing of
//! replication.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::child::Child;
use super::{BenchError, jars};

/// A broker is up in 5 s on an idle machine; two busy cores have been seen to take 30.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Another process may take a port between our look and the broker's bind.
const ATTEMPTS: u32 = 3;
const READY: &str = "Kafka Server started";

/// A broker, and its process where it is this program's own.
pub(super) struct Broker {
    bootstrap: String,
    process: Option<Child>,
}

impl Broker {
    /// The broker at an address.
    pub(super) fn at(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned(), process: None }
    }

    /// A new one. `behind` is the port of something that stands between it and those who bootstrap there: what is
    /// advertised to them.
    pub(super) fn start(
        jars: Option<&Path>,
        logs: &Path,
        behind: Option<Behind>,
    ) -> Result<Self, BenchError> {
        let jars = jars::folder(jars)?;
        let log = logs.join("broker.log");
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match start_once(&jars, &log, behind)? {
                Ok(broker) => return Ok(broker),
                Err(words) => last = words,
            }
        }
        Err(BenchError::Broker(last))
    }

    /// Where it is.
    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The time that it has spent on processors, where it is this program's own.
    pub(super) fn cpu(&self) -> Option<Duration> {
        self.process.as_ref()?.cpu()
    }
}

/// A second door of the broker that is reached by a detour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    /// Where the broker itself listens for it.
    pub(super) port: u16,
    /// What it tells clients to connect to.
    pub(super) advertised: u16,
}

/// One try: a broker, or why it did not start.
fn start_once(jars: &Path, log: &Path, behind: Option<Behind>) -> Result<Result<Broker, String>, BenchError> {
    let folder = tempfile::Builder::new().prefix("countersign-bench-").tempdir()?;
    let (port, controller) = (free_port()?, free_port()?);
    let properties = folder.path().join("server.properties");
    fs::write(&properties, server_properties(port, controller, behind, &folder.path().join("data")))?;
    let (class_path, properties) = (format!("{}/*", jars.display()), properties.display().to_string());
    let formatted = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-cp", &class_path, "kafka.tools.StorageTool"])
        .args(["format", "-t", &cluster_id(), "-c", &properties])
        .output()?;
    if !formatted.status.success() {
        return Ok(Err(String::from_utf8_lossy(&formatted.stderr).into_owned()));
    }
    let java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", &class_path, "kafka.Kafka", &properties];
    let mut process = Child::start(&java, &[], Some(folder.path()), log)?;
    // From here on the folder is removed by whoever watches the process.
    let _ = folder.keep();
    let deadline = Instant::now() + READY_WITHIN;
    while !fs::read_to_string(log).is_ok_and(|text| text.contains(READY)) {
        if process.ended()?.is_some() || Instant::now() > deadline {
            return Ok(Err(process.last_words()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Ok(Broker { bootstrap: format!("127.0.0.1:{port}"), process: Some(process) }))
}

fn server_properties(port: u16, controller: u16, behind: Option<Behind>, data: &Path) -> String {
    let (mut listeners, mut advertised, mut protocols) =
        (format!("PLAINTEXT://127.0.0.1:{port}"), format!("PLAINTEXT://127.0.0.1:{port}"), String::new());
    if let Some(Behind { port, advertised: told }) = behind {
        listeners += &format!(",BEHIND://127.0.0.1:{port}");
        advertised += &format!(",BEHIND://127.0.0.1:{told}");
        protocols = ",BEHIND:PLAINTEXT".to_owned();
    }
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}
log.dirs={}
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
",
        data.display()
    )
}

/// A port of the loopback that nobody listens on.
pub(super) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn cluster_id() -> String {
    // Version 7 starts with the time, hence never with the `-` that would read as an option.
    URL_SAFE_NO_PAD.encode(uuid::Uuid::now_v7().as_bytes())
}
