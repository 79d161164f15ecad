//! A site: unique topics on the broker, and a folder with a development trust domain, policies and a configuration.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use countersign::authorize::ids::{Realm, Topic, TrustDomain};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse};
use countersign::authorize::trust::{Domain, Trust};
use countersign::worker::Verifier;

use super::process::GateProcess;
use super::sender::Source;
use super::wait_or_tell;
use crate::support::kafka::{Broker, Writer};

pub const REALM: &str = "test";

/// What differs between sites.
#[derive(Clone)]
pub struct Plan {
    pub partitions: i32,
    pub lanes: usize,
    pub batch: usize,
    /// Whether records go out one by one, as they are decided: a transaction is then open for a while, for whoever wants a gate
    /// to die in one. Else they go when it ends.
    pub trickles: bool,
    /// Further lines of the signed route.
    pub route: &'static str,
    /// Settings of the destination and of the dead-letter topic.
    pub to: &'static [(&'static str, &'static str)],
    pub denied: &'static [(&'static str, &'static str)],
}

impl Default for Plan {
    fn default() -> Self {
        Self { partitions: 4, lanes: 2, batch: 500, trickles: false, route: "", to: &[], denied: &[] }
    }
}

/// Topics, keys, policies and a configuration that no other test shares.
pub struct Site {
    pub broker: &'static Broker,
    pub plan: Plan,
    pub commands: String,
    pub legacy: String,
    pub to: String,
    pub denied: String,
    pub audit: String,
    pub group: String,
    pub writer: Writer,
    folder: tempfile::TempDir,
    verifier: OnceLock<Verifier>,
    logs: Mutex<Vec<PathBuf>>,
}

const SCHEMA: &str = "
entity Workload;
entity User;
entity Invoice;
action pay, refund, audit appliesTo {
  principal: [Workload],
  resource: [Invoice],
  context: {
    now: datetime,
    message: { topic: String, partition: Long, offset: Long, accepted_at: datetime, queued: duration, redrives: Long },
    transaction?: {
      id: String, scope: Set<String>, requester: String, issued_at: datetime, expires_at: datetime,
    },
    provenance: {
      proven: Bool, gated: Bool, from?: String, depth: Long, origin: Workload, senders: Set<Workload>,
    },
  },
};
";

pub const POLICIES: &str = r#"
@id("payer-may-pay")
permit (principal == Workload::"spiffe://example.org/agent/payer", action == Action::"pay", resource is Invoice)
when { context has transaction && context.transaction.scope.contains("payments.pay") };

@id("settler-continues")
permit (principal == Workload::"spiffe://example.org/agent/settler", action == Action::"pay", resource is Invoice)
when { context.provenance.gated && context.provenance.origin == Workload::"spiffe://example.org/agent/payer" };

@id("erp-may-pay")
permit (principal == Workload::"spiffe://example.org/legacy/erp", action == Action::"pay", resource is Invoice);

@id("frozen")
forbid (principal, action, resource == Invoice::"inv-frozen");

@id("overflows")
forbid (principal, action == Action::"audit", resource)
when { 9223372036854775807 + context.message.partition + 1 > 0 };
"#;

impl Site {
    pub fn new(broker: &'static Broker, plan: Plan) -> Self {
        let source =
            |stem| broker.create_topic(stem, plan.partitions, &[("message.timestamp.type", "LogAppendTime")]);
        let site = Self {
            broker,
            commands: source("gate-commands"),
            legacy: source("gate-legacy"),
            to: broker.create_topic("gate-to", plan.partitions, plan.to),
            denied: broker.create_topic("gate-denied", plan.partitions, plan.denied),
            audit: broker.create_topic("gate-audit", plan.partitions, &[]),
            group: broker.unique("gate"),
            writer: broker.writer(),
            folder: tempfile::tempdir().expect("a folder"),
            verifier: OnceLock::new(),
            logs: Mutex::default(),
            plan,
        };
        site.command(&["keys", "trust-domain", ".", "--domain", "example.org", "--alg", "EdDSA"]);
        fs::create_dir(site.path("policies")).expect("a folder");
        site.write("policies/schema.cedarschema", SCHEMA);
        site.write("policies/policies.cedar", POLICIES);
        site.write("countersign.toml", &site.configuration());
        site.verifier();
        site
    }

    fn configuration(&self) -> String {
        let Self { commands, legacy, to, denied, audit, group, .. } = self;
        let Plan { lanes, batch, route, .. } = &self.plan;
        let linger = if self.plan.trickles { "\"linger.ms\" = \"5\"" } else { "" };
        let topics = format!("to = \"{to}\"\ndenied = \"{denied}\"\naudit = \"{audit}\"");
        format!(
            r#"realm = "{REALM}"
[kafka]
"bootstrap.servers" = "{bootstrap}"
{linger}
[gate]
id = "spiffe://example.org/gate/payments"
key = "keys/gate.jwk"
lanes = {lanes}
group = "{group}"
[batch]
max_records = {batch}
[trust."example.org"]
bundle = "trust/example.org.json"
token_service = "trust/token-service.jwks"
gates = "trust/gates.jwks"
[policy]
path = "policies/"
[http]
listen = "127.0.0.1:0"
[[route]]
name = "payments"
from = ["{commands}"]
{topics}
require = ["workload", "transaction"]
{route}
[[route]]
name = "legacy"
from = ["{legacy}"]
{topics}
require = []
unproven = "spiffe://example.org/legacy/erp"
[route.map]
action = "value.do"
resource = "{{'type': 'Invoice', 'id': value.invoice}}"
"#,
            bootstrap = self.broker.bootstrap(),
        )
    }

    /// The topic that such a record goes to.
    pub fn topic(&self, source: Source) -> &str {
        match source {
            Source::Commands => &self.commands,
            Source::Legacy => &self.legacy,
        }
    }

    /// A file of the site's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file of the site")
    }

    /// Writes a file as careful tools do: a reader sees the old or the new one, never half of it.
    pub fn write(&self, name: &str, text: &str) {
        let partial = self.path(".partial");
        fs::write(&partial, text).expect("a file of the site");
        fs::rename(partial, self.path(name)).expect("a file of the site");
    }

    /// Runs a command of the program in the folder.
    pub fn command(&self, arguments: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a gate; with `instance` one that comes back to its own partitions.
    pub fn start(&self, instance: Option<&str>) -> GateProcess {
        let log = {
            let mut logs = self.logs.lock().expect("no panic");
            let log = self.path(&format!("gate-{}.log", logs.len()));
            logs.push(log.clone());
            log
        };
        GateProcess::start(self.folder.path(), instance, log)
    }

    /// Starts a gate and waits until it decides.
    pub fn start_ready(&self, instance: Option<&str>) -> GateProcess {
        let mut gate = self.start(instance);
        gate.wait_ready();
        gate
    }

    /// Everything that the gates of this site have written to their output.
    pub fn output(&self) -> Vec<u8> {
        let logs = self.logs.lock().expect("no panic");
        logs.iter().flat_map(|log| fs::read(log).unwrap_or_default()).collect()
    }

    /// How many records have an outcome, by the stable committed positions.
    pub fn decided(&self) -> i64 {
        [&self.commands, &self.legacy]
            .into_iter()
            .flat_map(|topic| self.broker.committed(&self.group, topic).into_values())
            .map(|committed| committed.position)
            .sum()
    }

    /// Waits until so many records have an outcome.
    pub fn wait_decided(&self, count: usize) {
        let count = i64::try_from(count).expect("a count");
        let decided = || (self.decided() >= count).then_some(());
        wait_or_tell(&format!("{count} records to be decided"), decided, || self.describe());
    }

    /// Waits until everything that is in the sources now has an outcome.
    pub fn wait_caught_up(&self) {
        let sources = [&self.commands, &self.legacy].map(|topic| (topic, self.broker.ends(topic)));
        let caught_up = || {
            let is_done = |(topic, ends): &(&String, BTreeMap<i32, i64>)| {
                let committed = self.broker.committed(&self.group, topic);
                ends.iter().all(|(partition, end)| {
                    *end == 0 || committed.get(partition).is_some_and(|found| found.position >= *end)
                })
            };
            sources.iter().all(is_done).then_some(())
        };
        wait_or_tell("the gates to catch up", caught_up, || self.describe());
    }

    /// Who is in the group, and how far each partition of the sources has been decided.
    pub fn describe(&self) -> String {
        let mut told = self.broker.describe(&self.group);
        for topic in [&self.commands, &self.legacy] {
            let committed = self.broker.committed(&self.group, topic);
            for (partition, end) in self.broker.ends(topic) {
                let position = committed.get(&partition).map(|found| found.position);
                told.push_str(&format!("\n    {topic}/{partition}: decided up to {position:?} of {end}"));
            }
        }
        told
    }

    /// Shows the end of what the last gates have written.
    pub fn tell(&self) {
        let logs = self.logs.lock().map(|logs| logs.clone()).unwrap_or_default();
        for log in &logs[logs.len().saturating_sub(4)..] {
            eprintln!("--- the end of {}:\n{}", log.display(), end_of(log, 60));
        }
    }

    /// What a worker verifies countersignatures with: the keys that the site began with.
    pub fn verifier(&self) -> &Verifier {
        self.verifier.get_or_init(|| self.make_verifier())
    }

    fn make_verifier(&self) -> Verifier {
        let keys = |name: &str, of| KeySet::from_jwks(&self.read(name), of).expect("a key set");
        let domain = Domain {
            algorithms: vec![Algorithm::EdDsa],
            bundle: keys("trust/example.org.json", KeyUse::WitIssuer),
            token_service: keys("trust/token-service.jwks", KeyUse::Any),
            gates: keys("trust/gates.jwks", KeyUse::Any),
        };
        let name = TrustDomain::parse("example.org").expect("a trust domain");
        Verifier::new(Realm::parse(REALM).expect("a realm"), Trust::new(BTreeMap::from([(name, domain)])))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}

/// The last lines of a gate's log, but for what it says of each record and batch, and for what is said again at once.
pub fn end_of(file: &Path, count: usize) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let is_work =
        |line: &&str| line.contains("DEBUG record decided") || line.contains("DEBUG batch committed");
    let mut lines: Vec<&str> = text.lines().filter(|line| !is_work(line)).collect();
    // Each begins with its moment.
    lines.dedup_by_key(|line| line.split_once(' ').map_or(*line, |(_, said)| said));
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A name as the library's type.
pub fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a topic name")
}
