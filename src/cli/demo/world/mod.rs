//! Where the story happens: a broker, its topics, a folder of configurations, keys and policies, and two real gates that
//! follow what changes. Limits: what gates have taken in is read from their own status, in this process.

mod broker;
mod files;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use serde_json::Value;

use self::broker::{Broker, ROUTES};
use super::DemoError;
use super::cast::Cast;
use super::post::{Envelope, Post};
use crate::authorize::ids::Topic;
use crate::authorize::trust::Trust;
use crate::cli::gate::RunningGate;
use crate::cli::interrupt::Flag;
use crate::config::{Config, Delivery};
use crate::control::TrustSource;
use crate::telemetry::{Entries, GateStatus, SnapshotKind, Telemetry};

/// Partitions of every topic of a route.
pub(super) const PARTITIONS: i32 = 4;
/// A gate joins its group in about 3 s; a cold machine takes longer.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Everything that runs.
pub(super) struct World {
    // Dropped in this order: gates before the broker, the folder last.
    gates: Vec<(&'static str, RunningGate, Telemetry)>,
    post: Post,
    broker: Broker,
    trust: Trust,
    stop: Flag,
    folder: tempfile::TempDir,
}

impl World {
    pub(super) fn start(bootstrap: Option<&str>, cast: &Cast, stop: &Flag) -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new().prefix("countersign-demo-").tempdir()?;
        cast.write(folder.path())?;
        let broker = Broker::new(bootstrap)?;
        let mut world = Self {
            gates: Vec::new(),
            post: Post::new(broker.client())?,
            broker,
            trust: Trust::new([].into()),
            stop: stop.clone(),
            folder,
        };
        world.broker.make_topics()?;
        files::write(world.folder(), &world.broker)?;
        world.gates = world.start_gates()?;
        world.wait_until("is ready", |_, status| status.is_ready())?;
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
        self.broker.bootstrap()
    }

    /// Whether outcomes happen exactly once.
    pub(super) fn is_exactly_once(&self) -> bool {
        !self.broker.is_embedded()
    }

    /// The folder of configurations, keys and policies.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What workers trust.
    pub(super) fn trust(&self) -> Trust {
        self.trust.clone()
    }

    /// Where workers ask in the middle of a job.
    pub(super) fn access(&self) -> Result<SocketAddr, DemoError> {
        self.gates.iter().find_map(|(_, gate, _)| gate.access()).ok_or(DemoError::NoAccess)
    }

    /// A topic of the story.
    pub(super) fn topic(&self, stem: &str, kind: &str) -> Result<Topic, DemoError> {
        self.broker.topic(stem, kind)
    }

    /// The topics of a kind, one of each route.
    pub(super) fn topics(&self, kind: &str) -> Result<Vec<Topic>, DemoError> {
        ROUTES.iter().map(|route| self.topic(route, kind)).collect()
    }

    /// A client's settings.
    pub(super) fn client(&self) -> ClientConfig {
        self.broker.client()
    }

    /// Whoever sends records one by one.
    pub(super) fn post(&self) -> &Post {
        &self.post
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
        let before = self.each(version);
        change(self.folder.path())?;
        for (_, gate, _) in &self.gates {
            gate.reload().now();
        }
        self.wait_until("has seen the new keys", |gate, status| before.get(gate) != Some(&version(status)))
    }

    /// Puts everybody and everything that policies look at into the topic of entities.
    pub(super) fn populate(&self) -> Result<(), DemoError> {
        let facts = files::entities()?.into_iter().map(|(key, value)| (key, value.into_bytes()));
        self.say("entities", facts.collect(), |entries| entries.entities)
    }

    /// Puts one more entity there.
    pub(super) fn put_entity(&self, entity: &Value) -> Result<(), DemoError> {
        let fact = (files::key_of(entity)?, entity.to_string().into_bytes());
        self.say("entities", vec![fact], |entries| entries.entities)
    }

    /// Writes facts that `count` counts, and waits until every gate has taken all of them in.
    pub(super) fn say(
        &self,
        kind: &str,
        facts: Vec<(String, Vec<u8>)>,
        count: impl Fn(&Entries) -> usize,
    ) -> Result<(), DemoError> {
        let known = |status: &GateStatus| status.view.as_ref().map_or(0, |view| count(&view.entries));
        let (before, more) = (self.each(known), facts.len());
        for (key, value) in facts {
            self.write(kind, key, value)?;
        }
        self.wait_until("has taken in what was said", |gate, status| {
            before.get(gate).is_some_and(|before| known(status) >= before + more)
        })
    }

    /// Writes a fact to a control topic, and waits for nobody.
    pub(super) fn write(&self, kind: &str, key: String, value: Vec<u8>) -> Result<(), DemoError> {
        let topic = self.topic("control", kind)?;
        let (key, value) = (key.into(), value.into());
        self.post.send(&Envelope { topic, partition: Some(0), key, value, headers: Vec::new() }).map(drop)
    }

    fn each<T>(&self, of: impl Fn(&GateStatus) -> T) -> Vec<T> {
        self.gates.iter().map(|(_, _, telemetry)| of(&telemetry.status())).collect()
    }

    fn wait_until(&self, what: &str, done: impl Fn(usize, &GateStatus) -> bool) -> Result<(), DemoError> {
        let begun = Instant::now();
        for (at, (name, gate, telemetry)) in self.gates.iter().enumerate() {
            loop {
                let status = telemetry.status();
                if done(at, &status) {
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

    /// Stops the gates in good order, and takes the topics of this run away from a real cluster.
    pub(super) fn stop(mut self) -> Result<(), DemoError> {
        let errors: Vec<_> = self.gates.drain(..).flat_map(|(_, gate, _)| gate.stop()).collect();
        self.broker.delete_topics();
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
