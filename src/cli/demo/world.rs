//! Where the story happens: a broker, its topics, a folder of configurations, keys and policies, and two real gates.
//! Limits: topics of a real cluster are made for this run alone, with names of their own, and deleted in the end.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::DemoError;
use super::cast::Cast;
use crate::authorize::ids::Topic;
use crate::authorize::trust::Trust;
use crate::cli::gate::RunningGate;
use crate::cli::interrupt::Flag;
use crate::cli::issue;
use crate::config::{Config, Delivery};
use crate::control::TrustSource;
use crate::telemetry::{GateStatus, SnapshotKind, Telemetry};

const FILES: [(&str, &str); 7] = [
    ("invoices.toml", include_str!("../../../examples/demo/invoices.toml")),
    ("ledger.toml", include_str!("../../../examples/demo/ledger.toml")),
    ("policies/schema.cedarschema", include_str!("../../../examples/demo/policies/schema.cedarschema")),
    ("policies/invoices.cedar", include_str!("../../../examples/demo/policies/invoices.cedar")),
    ("policies/ledger.cedar", include_str!("../../../examples/demo/policies/ledger.cedar")),
    ("policies/legacy.cedar", include_str!("../../../examples/demo/policies/legacy.cedar")),
    ("policies/entities.json", include_str!("../../../examples/demo/policies/entities.json")),
];
const ROUTES: [&str; 3] = ["invoices", "legacy", "ledger"];
const KINDS: [&str; 5] = ["commands", "authorized", "denied", "audit", "commands.replay"];
/// Partitions of every topic.
pub(super) const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);
/// A gate joins its group in about 3 s; a cold machine takes longer.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Everything that runs.
pub(super) struct World {
    // Dropped in this order: gates before the broker, the folder last.
    gates: Vec<(&'static str, RunningGate, Telemetry)>,
    broker: Broker,
    prefix: String,
    trust: Trust,
    stop: Flag,
    folder: tempfile::TempDir,
}

enum Broker {
    Embedded(MockCluster<'static, DefaultProducerContext>),
    Cluster { bootstrap: String },
}

impl World {
    pub(super) fn start(bootstrap: Option<&str>, cast: &Cast, stop: &Flag) -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new().prefix("countersign-demo-").tempdir()?;
        cast.write(folder.path())?;
        let (broker, prefix) = match bootstrap {
            None => (Broker::Embedded(MockCluster::new(1)?), String::new()),
            Some(address) => {
                // Topic names may hold all that an id is made of.
                let prefix = format!("countersign-demo-{}.", issue::random_id()?);
                (Broker::Cluster { bootstrap: address.to_owned() }, prefix)
            }
        };
        let mut world = Self {
            gates: Vec::new(),
            broker,
            prefix,
            trust: Trust::new([].into()),
            stop: stop.clone(),
            folder,
        };
        world.make_topics()?;
        world.write_files()?;
        world.gates = world.start_gates()?;
        world.wait_until("is ready", GateStatus::is_ready)?;
        Ok(world)
    }

    /// Both at once: each looks at its topics first, which takes its time.
    fn start_gates(&mut self) -> Result<Vec<(&'static str, RunningGate, Telemetry)>, DemoError> {
        let mut configs = Vec::new();
        for name in ["invoices", "ledger"] {
            let path = self.folder.path().join(format!("{name}.toml"));
            let mut config = Config::load(&path, []).map_err(DemoError::Config)?;
            if !self.is_exactly_once() {
                // Said here and not in the file: a configuration that holds records is refused with it.
                config.settings.member.delivery = Delivery::AtLeastOnce;
            }
            self.trust = TrustSource::read(&config.settings.trust).load().map_err(DemoError::Config)?;
            configs.push((name, config));
        }
        std::thread::scope(|scope| {
            let starting: Vec<_> = configs
                .into_iter()
                .map(|(name, config)| scope.spawn(move || start_gate(name, config)))
                .collect();
            starting.into_iter().map(|gate| gate.join().unwrap_or(Err(DemoError::Panicked))).collect()
        })
    }

    /// Where the brokers are.
    pub(super) fn bootstrap(&self) -> String {
        match &self.broker {
            Broker::Embedded(cluster) => cluster.bootstrap_servers(),
            Broker::Cluster { bootstrap } => bootstrap.clone(),
        }
    }

    /// Whether outcomes happen exactly once.
    pub(super) fn is_exactly_once(&self) -> bool {
        matches!(self.broker, Broker::Cluster { .. })
    }

    /// The folder of configurations, keys and policies.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What workers trust.
    pub(super) fn trust(&self) -> Trust {
        self.trust.clone()
    }

    /// A topic of the story.
    pub(super) fn topic(&self, route: &str, kind: &str) -> Result<Topic, DemoError> {
        Ok(Topic::parse(&format!("{}{route}.{kind}", self.prefix))?)
    }

    /// The topics of a kind, one of each route.
    pub(super) fn topics(&self, kind: &str) -> Result<Vec<Topic>, DemoError> {
        ROUTES.iter().map(|route| self.topic(route, kind)).collect()
    }

    /// A client's settings.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.bootstrap()).set("log.connection.close", "false");
        client
    }

    /// Ends the story where somebody asked for that.
    pub(super) fn go_on(&self) -> Result<(), DemoError> {
        if self.stop.is_set() { Err(DemoError::Interrupted) } else { Ok(()) }
    }

    /// Whether a gate has ended by itself.
    pub(super) fn failed(&self) -> bool {
        self.gates.iter().any(|(_, gate, _)| gate.failed())
    }

    /// Does something to the trust of the gates, and waits until each of them has seen it.
    pub(super) fn change_trust(
        &self,
        change: impl FnOnce(&Path) -> Result<(), DemoError>,
    ) -> Result<(), DemoError> {
        let before: Vec<_> =
            self.gates.iter().map(|(_, _, telemetry)| version(&telemetry.status())).collect();
        change(self.folder.path())?;
        for (_, gate, _) in &self.gates {
            gate.reload().now();
        }
        self.wait_until("has seen the new keys", |status| !before.contains(&version(status)))
    }

    fn wait_until(&self, what: &str, done: impl Fn(&GateStatus) -> bool) -> Result<(), DemoError> {
        let begun = Instant::now();
        for (name, gate, telemetry) in &self.gates {
            loop {
                let status = telemetry.status();
                if done(&status) {
                    break;
                }
                self.go_on()?;
                if gate.failed() || begun.elapsed() > READY_WITHIN {
                    let why = format!("it never said that it {what}; {}", status.not_ready.join(", "));
                    return Err(DemoError::NotReady { gate: name, seconds: begun.elapsed().as_secs(), why });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn write_files(&self) -> Result<(), DemoError> {
        fs::create_dir_all(self.folder.path().join("policies"))?;
        for (name, text) in FILES {
            let mut text = text.to_owned();
            if name.ends_with(".toml") {
                text = text.replace("localhost:9092", &self.bootstrap());
                for route in ROUTES {
                    text = text.replace(&format!("\"{route}."), &format!("\"{}{route}.", self.prefix));
                }
                if !self.is_exactly_once() {
                    // The embedded broker leaves questions about settings unanswered: they need not be waited for long.
                    text = text.replace("[kafka]", "[kafka]\n\"socket.timeout.ms\" = \"2000\"");
                }
            }
            fs::write(self.folder.path().join(name), text)?;
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = (String, bool)> {
        ROUTES.iter().flat_map(move |route| {
            KINDS.iter().map(move |kind| (format!("{}{route}.{kind}", self.prefix), *kind == "commands"))
        })
    }

    fn make_topics(&self) -> Result<(), DemoError> {
        if let Broker::Embedded(cluster) = &self.broker {
            // The embedded broker takes no administrator's requests, so the gates' own topics are made here too.
            for (name, _) in self.names() {
                cluster.create_topic(&name, PARTITIONS, 1)?;
            }
            return Ok(());
        }
        let names: Vec<(String, bool)> =
            self.names().filter(|(name, _)| !name.ends_with(".replay")).collect();
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|(name, source)| {
                let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(-1));
                if *source { topic.set("message.timestamp.type", "LogAppendTime") } else { topic }
            })
            .collect();
        let made = self.admin(async |admin, options| admin.create_topics(&topics, options).await)?;
        match made.into_iter().find_map(Result::err) {
            Some((topic, why)) => Err(DemoError::Topic { topic, why: why.to_string() }),
            None => Ok(()),
        }
    }

    fn admin<T>(
        &self,
        ask: impl AsyncFnOnce(
            &AdminClient<DefaultClientContext>,
            &AdminOptions,
        ) -> Result<T, rdkafka::error::KafkaError>,
    ) -> Result<T, DemoError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        Ok(runtime.block_on(ask(&admin, &options))?)
    }

    /// Stops the gates in good order, and takes the topics of this run away from a real cluster.
    pub(super) fn stop(mut self) -> Result<(), DemoError> {
        let errors: Vec<_> = self.gates.drain(..).flat_map(|(_, gate, _)| gate.stop()).collect();
        if self.is_exactly_once() {
            let names: Vec<String> = self.names().map(|(name, _)| name).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            // What the cluster does not let anybody delete stays there: the story has been told all the same.
            let _ = self.admin(async |admin, options| admin.delete_topics(&names, options).await);
        }
        if errors.is_empty() { Ok(()) } else { Err(DemoError::Stopped(errors)) }
    }
}

fn start_gate(
    name: &'static str,
    config: Config,
) -> Result<(&'static str, RunningGate, Telemetry), DemoError> {
    let telemetry = Telemetry::off();
    let away = RefCell::new(String::new());
    let started = RunningGate::start(config, &telemetry, &|error| {
        *away.borrow_mut() = error.to_string();
        true
    })?;
    match started {
        Some(gate) => Ok((name, gate, telemetry)),
        None => Err(DemoError::NotReady { gate: name, seconds: 0, why: away.into_inner() }),
    }
}

fn version(status: &GateStatus) -> Option<String> {
    status.snapshots.iter().find(|s| s.kind == SnapshotKind::Trust).and_then(|s| s.version.clone())
}
