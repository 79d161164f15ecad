//! `countersign.toml` and `COUNTERSIGN_...` variables, read into typed settings, with every mistake reported at once.
//! Limits: it reads the file and the gate's key; key sets and policies are `control`'s, which watches them, and topics
//! are the broker's word.

mod access;
mod approvals;
mod breaker;
mod control;
mod document;
mod holding;
mod item;
mod kafka;
mod problem;
mod route;
mod sections;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::access::AccessSettings;
pub use self::approvals::{ApprovalSettings, OidcKeys, OidcSettings};
pub use self::breaker::{BreakerSettings, Share};
pub use self::control::{ApproverFiles, ControlSettings, IssuerFiles, OtherFiles};
pub use self::kafka::KafkaProperties;
pub use self::problem::{Problem, Problems, Report, Source, source};
pub use self::route::{RouteSettings, Start};
pub use self::sections::readable_by_others;
pub use self::tls::{ClientCertificates, TlsSettings};

use self::access::read_access;
use self::approvals::read_approvals;
use self::control::{read_administrators, read_approvers, read_control, read_transmitters};
use self::document::{Parsed, Reading};
use self::sections::{read_batch, read_gate, read_http, read_mask, read_policy, read_telemetry, read_trust};
use crate::authorize::ids::{Realm, TrustDomain, WorkloadId};
use crate::authorize::jose::{Algorithm, SigningKey};
use crate::authorize::route::{Gate, Route};

/// A whole configuration, free of mistakes.
#[derive(Debug)]
pub struct Config {
    /// The realm of the cluster.
    pub realm: Realm,
    /// Who the gate is.
    pub gate: GateIdentity,
    /// Everything else.
    pub settings: Settings,
}

/// Who a gate is: `id` and `key` of `[gate]`.
#[derive(Debug)]
pub struct GateIdentity {
    /// Its identifier.
    pub id: WorkloadId,
    /// The file of its private key, a JWK.
    pub key_file: PathBuf,
    /// The key in it.
    key: SigningKey,
}

impl GateIdentity {
    /// The gate's private key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }
}

/// How a gate takes part in its group: the rest of `[gate]`.
#[derive(Debug, Clone)]
pub struct Member {
    /// A name that stays the same over restarts: static membership and stable transactional ids.
    pub instance: Option<String>,
    /// How many lanes it runs.
    pub lanes: NonZeroUsize,
    /// Its consumer group.
    pub group: String,
    /// What holds when it is killed.
    pub delivery: Delivery,
}

/// A configuration without the gate's key: what runs beside the decision.
#[derive(Debug)]
pub struct Settings {
    /// How the gate takes part in its group.
    pub member: Member,
    /// How many records share a transaction.
    pub batch: Batch,
    /// What every Kafka client is told.
    pub kafka: KafkaProperties,
    /// Where the keys are of everybody whose signatures count.
    pub trust: TrustFiles,
    /// The topics that are followed.
    pub control: ControlSettings,
    /// Where the policies are.
    pub policy: PolicySettings,
    /// Where health and metrics are served; `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// Where approvers answer over HTTP; `None` is nowhere.
    pub approvals: Option<ApprovalSettings>,
    /// Where access evaluations are answered; `None` is nowhere.
    pub access: Option<AccessSettings>,
    /// Where OpenTelemetry data go; `None` is nowhere.
    pub otlp_endpoint: Option<String>,
    /// Which log lines are written, and how.
    pub log: LogSettings,
    /// The routes, at least one.
    pub routes: Vec<RouteSettings>,
}

/// What holds when a gate is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Every record has one outcome and one audit record.
    ExactlyOnce,
    /// Every record has at least one of each.
    AtLeastOnce,
}

/// `[batch]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// The most records of one transaction.
    pub max_records: usize,
    /// How long a batch that is not full waits for more.
    pub linger: Duration,
}

/// Whose signatures count, as files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustFiles {
    /// The key files of each trust domain.
    pub domains: BTreeMap<TrustDomain, DomainFiles>,
    /// Those of everybody else.
    pub others: OtherFiles,
}

impl TrustFiles {
    /// Every file, in no order that matters.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let domains = self.domains.values().flat_map(|domain| {
            [Some(&domain.bundle), domain.token_service.as_ref(), domain.gates.as_ref()].into_iter().flatten()
        });
        let OtherFiles { transmitters, administrators, approvers } = &self.others;
        let transmitters = transmitters.values().map(|issuer| &issuer.keys);
        let approvers = approvers.values().map(|approvers| &approvers.issuer.keys);
        domains.chain(transmitters).chain(administrators).chain(approvers).map(PathBuf::as_path)
    }
}

/// `[trust."<domain>"]`. An absent file is an empty key set: nothing is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainFiles {
    /// The SPIFFE bundle.
    pub bundle: PathBuf,
    /// The keys of the token service.
    pub token_service: Option<PathBuf>,
    /// The keys of the gates.
    pub gates: Option<PathBuf>,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
}

/// `[policy]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    /// The folder of policies, schema and entities.
    pub path: PathBuf,
    /// The entity type of subjects.
    pub subject_type: String,
}

/// `log` and `log_format` of `[telemetry]`: which log lines are written, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// Directives as `tracing-subscriber` reads them, such as `info` or `countersign=debug,warn`; empty is `info`.
    pub filter: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For a person; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What could be read, mistakes included.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, unless a problem stops the gate.
    pub config: Option<Config>,
    /// The key files of the tables that could be read, also beside mistakes elsewhere.
    pub trust: TrustFiles,
    /// The topics that are followed, as far as they could be read.
    pub control: ControlSettings,
    /// The policy folder, also beside mistakes elsewhere.
    pub policy: Option<PolicySettings>,
    /// The routes that could be read.
    pub routes: Vec<RouteSettings>,
    /// Everything that is wrong.
    pub problems: Problems,
}

impl Config {
    /// Reads a configuration that has no mistake.
    ///
    /// # Errors
    /// Every problem of the file and of the gate's key. Warnings alone are no error; [`Loaded::read`] keeps them.
    pub fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let loaded = Loaded::read(path, environment);
        loaded.config.ok_or(loaded.problems)
    }

    /// The gate and its routes, as the decision needs them; the configuration keeps the rest.
    pub fn into_parts(self) -> (Gate, Vec<Arc<Route>>, Settings) {
        let gate = Gate { id: self.gate.id, realm: self.realm, key: self.gate.key };
        let routes = self.settings.routes.iter().map(|route| Arc::clone(&route.route)).collect();
        (gate, routes, self.settings)
    }
}

impl Loaded {
    /// Reads as much of a configuration as can be read.
    pub fn read(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &Zeroizing::new(text), environment),
            Err(error) => Self {
                config: None,
                trust: TrustFiles::default(),
                control: ControlSettings::default(),
                policy: None,
                routes: Vec::new(),
                problems: Problem::error(format!("the configuration cannot be read: {error}"))
                    .within(path.display().to_string())
                    .help("name it with `--config`, or run where `countersign.toml` is")
                    .into(),
            },
        }
    }

    fn parse(path: &Path, text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let parsed = Parsed::new(text);
        let source = problem::source(path, kafka::without_secrets(text, &parsed));
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let reading = Reading::new(Arc::clone(&source), environment);
        let mut root = reading.root(&parsed);

        let realm = root.need("realm", "name the cluster or environment, such as `realm = \"prod\"`");
        let realm = realm.and_then(|item| item.parse::<Realm>());
        let gate = read_gate(root.table("gate"), &base);
        let batch = read_batch(root.table("batch"));
        let kafka = KafkaProperties::read(&reading, root.table("kafka"));
        let trust = TrustFiles {
            domains: read_trust(root.table("trust"), &base),
            others: OtherFiles {
                transmitters: read_transmitters(root.table("transmitters"), &base),
                administrators: read_administrators(root.table("administrators"), &base),
                approvers: read_approvers(root.table("approvers"), &base),
            },
        };
        let policy = read_policy(root.table("policy"), &base);
        let mask = read_mask(root.table("audit"));
        let listen = read_http(root.table("http"));
        let approvals = read_approvals(root.table("approvals"), &base);
        let (otlp_endpoint, log) = read_telemetry(root.table("telemetry"));
        let tables = root.tables("route");
        if tables.is_empty() {
            root.report(
                Problem::error("there is no route")
                    .help("write `[[route]]` with `name`, `from`, `to`, `denied`, `audit` and `require`"),
            );
        }
        let routes = route::read_all(tables, &mask);
        let holds = routes.iter().any(|settings| settings.route.holding.is_some());
        if holds && gate.as_ref().is_some_and(|(_, member)| member.delivery == Delivery::AtLeastOnce) {
            root.report(
                Problem::error("`delivery = \"at_least_once\"` while a route holds records").help(
                    "a held record could be released twice: use exactly_once, or take `challenges` away",
                ),
            );
        }
        let control = read_control(root.table("control"), &routes, &trust.others);
        let access = read_access(root.table("access"), &base, &routes, &control);
        root.finish();

        let problems = reading.finish();
        let complete = !problems.stop();
        let (trust_kept, control_kept, policy_kept) = (trust.clone(), control.clone(), policy.clone());
        let config = match (complete, realm, gate, policy) {
            (true, Some(realm), Some((gate, member)), Some(policy)) => Some(Config {
                realm,
                gate,
                settings: Settings {
                    member,
                    batch,
                    kafka,
                    trust,
                    control,
                    policy,
                    listen,
                    approvals,
                    access,
                    otlp_endpoint,
                    log,
                    routes: routes.clone(),
                },
            }),
            _ => None,
        };
        Self { config, trust: trust_kept, control: control_kept, policy: policy_kept, routes, problems }
    }
}

#[cfg(test)]
mod tests;
