//! `countersign.toml` and `COUNTERSIGN_...` variables, read into typed settings, with every mistake reported at once.
//! Limits: it reads the file and the gate's key; key sets and policies are `control`'s, which watches them, and topics
//! are the broker's word.

mod document;
mod kafka;
mod problem;
mod route;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::kafka::KafkaProperties;
pub use self::problem::{Problem, Problems, Report, Source, source};
pub use self::route::{RouteSettings, Start};

use self::document::{Parsed, Reading, Table};
use crate::authorize::ids::{Realm, TrustDomain, WorkloadId};
use crate::authorize::jose::{Algorithm, SigningKey};
use crate::authorize::route::{Gate, Route};

/// A whole configuration, free of mistakes.
#[derive(Debug)]
pub struct Config {
    /// The realm of the cluster.
    pub realm: Realm,
    /// The gate itself.
    pub gate: GateSettings,
    /// How many records share a transaction.
    pub batch: Batch,
    /// What every Kafka client is told.
    pub kafka: KafkaProperties,
    /// Where the keys of each trust domain are.
    pub trust: BTreeMap<TrustDomain, DomainFiles>,
    /// Where the policies are.
    pub policy: PolicySettings,
    /// Where health and metrics are served; `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// Where OpenTelemetry data go; `None` is nowhere.
    pub otlp_endpoint: Option<String>,
    /// Which log lines are written, and how.
    pub log: LogSettings,
    /// The routes, at least one.
    pub routes: Vec<RouteSettings>,
}

/// `[gate]`.
#[derive(Debug)]
pub struct GateSettings {
    /// Its identifier.
    pub id: WorkloadId,
    /// The file of its private key, a JWK.
    pub key_file: PathBuf,
    /// The key in it.
    key: SigningKey,
    /// A name that stays the same over restarts: static membership and stable transactional ids.
    pub instance: Option<String>,
    /// How many lanes it runs.
    pub lanes: NonZeroUsize,
    /// Its consumer group.
    pub group: String,
    /// What holds when it is killed.
    pub delivery: Delivery,
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
    /// The key files of the domains whose table could be read, also beside mistakes elsewhere.
    pub trust: BTreeMap<TrustDomain, DomainFiles>,
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
        let gate = Gate { id: self.gate.id.clone(), realm: self.realm, key: self.gate.key };
        let routes = self.routes.iter().map(|route| Arc::clone(&route.route)).collect();
        let settings = Settings {
            instance: self.gate.instance,
            lanes: self.gate.lanes,
            group: self.gate.group,
            delivery: self.gate.delivery,
            batch: self.batch,
            kafka: self.kafka,
            trust: self.trust,
            policy: self.policy,
            listen: self.listen,
            otlp_endpoint: self.otlp_endpoint,
            log: self.log,
            routes: self.routes,
        };
        (gate, routes, settings)
    }
}

/// A configuration without the gate's key: what runs beside the decision.
#[derive(Debug)]
pub struct Settings {
    /// See [`GateSettings::instance`].
    pub instance: Option<String>,
    /// See [`GateSettings::lanes`].
    pub lanes: NonZeroUsize,
    /// See [`GateSettings::group`].
    pub group: String,
    /// See [`GateSettings::delivery`].
    pub delivery: Delivery,
    /// See [`Config::batch`].
    pub batch: Batch,
    /// See [`Config::kafka`].
    pub kafka: KafkaProperties,
    /// See [`Config::trust`].
    pub trust: BTreeMap<TrustDomain, DomainFiles>,
    /// See [`Config::policy`].
    pub policy: PolicySettings,
    /// See [`Config::listen`].
    pub listen: Option<SocketAddr>,
    /// See [`Config::otlp_endpoint`].
    pub otlp_endpoint: Option<String>,
    /// See [`Config::log`].
    pub log: LogSettings,
    /// See [`Config::routes`].
    pub routes: Vec<RouteSettings>,
}

impl Loaded {
    /// Reads as much of a configuration as can be read.
    pub fn read(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &Zeroizing::new(text), environment),
            Err(error) => Self {
                config: None,
                trust: BTreeMap::new(),
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
        let trust = read_trust(root.table("trust"), &base);
        let policy = read_policy(root.table("policy"), &base);
        let mask = read_mask(root.table("audit"));
        let listen = read_http(root.table("http"));
        let (otlp_endpoint, log) = read_telemetry(root.table("telemetry"));
        let tables = root.tables("route");
        if tables.is_empty() {
            root.report(
                Problem::error("there is no route")
                    .help("write `[[route]]` with `name`, `from`, `to`, `denied`, `audit` and `require`"),
            );
        }
        let routes = route::read_all(tables, &mask);
        root.finish();

        let problems = reading.finish();
        let complete = !problems.stop();
        let (trust_kept, policy_kept) = (trust.clone(), policy.clone());
        let config = match (complete, realm, gate, policy) {
            (true, Some(realm), Some(gate), Some(policy)) => Some(Config {
                realm,
                gate,
                batch,
                kafka,
                trust,
                policy,
                listen,
                otlp_endpoint,
                log,
                routes: routes.clone(),
            }),
            _ => None,
        };
        Self { config, trust: trust_kept, policy: policy_kept, routes, problems }
    }
}

fn read_gate(mut table: Table<'_, '_>, base: &Path) -> Option<GateSettings> {
    let id = table.need("id", "the gate's own identifier, such as \"spiffe://example.org/gate/payments\"");
    let id = id.and_then(|item| item.parse::<WorkloadId>());
    let key = table.need("key", "the file of the gate's private key; `countersign keys` makes one");
    let key = key.and_then(|item| {
        let file = base.join(item.text()?);
        match read_key(&file) {
            Ok(key) => {
                if let Some(warning) = readable_by_others(&file) {
                    item.report(warning);
                }
                if key.kid().is_none() {
                    item.report(
                        Problem::warning("the gate's key has no `kid`")
                            .help("without one a worker can verify only while there is a single gate key"),
                    );
                }
                Some((file, key))
            }
            Err(problem) => {
                item.report(problem);
                None
            }
        }
    });
    let instance = table.take("instance").and_then(|item| {
        let text = item.text()?;
        if is_name(&text) {
            Some(text)
        } else {
            item.report(Problem::error(
                "`gate.instance` may hold only letters, digits, `.`, `_` and `-`, at most 100",
            ));
            None
        }
    });
    let lanes = table.take("lanes").and_then(|item| item.integer(1, 256));
    let lanes = lanes.and_then(|lanes| NonZeroUsize::new(usize::try_from(lanes).ok()?));
    let group = table.take("group").and_then(|item| item.text().map(|text| (item, text)));
    let group = match (group, &id) {
        (Some((item, text)), _) if text.is_empty() => {
            item.report(Problem::error("`gate.group` is empty"));
            None
        }
        (Some((_, text)), _) => Some(text),
        (None, id) => id.as_ref().map(default_group),
    };
    let delivery = table.take("delivery").and_then(|item| {
        item.choose(&[("exactly_once", Delivery::ExactlyOnce), ("at_least_once", Delivery::AtLeastOnce)])
    });
    table.finish();
    let (key_file, key) = key?;
    Some(GateSettings {
        id: id?,
        key_file,
        key,
        instance,
        lanes: lanes.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
        group: group?,
        delivery: delivery.unwrap_or(Delivery::ExactlyOnce),
    })
}

impl GateSettings {
    /// The gate's private key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }
}

/// `countersign.` and the path of the gate's identifier: two gates of one name share their work.
fn default_group(id: &WorkloadId) -> String {
    let path = id.as_str().splitn(4, '/').nth(3).unwrap_or_default();
    format!("countersign.{}", path.replace('/', "."))
}

fn read_key(file: &Path) -> Result<SigningKey, Problem> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        Problem::error(format!("the key file `{shown}` cannot be read: {error}"))
            .help("paths are relative to the configuration file; `countersign keys` makes a key")
    })?;
    SigningKey::from_jwk(&text).map_err(|error| {
        Problem::error(format!("the key file `{shown}` holds no usable private key: {error}"))
            .help("it is a private JWK with `alg` ES256, EdDSA, RS256 or PS256")
    })
}

#[cfg(unix)]
fn readable_by_others(file: &Path) -> Option<Problem> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        Problem::warning(format!("everybody on this machine may use the key file `{}`", file.display()))
            .help("take the rights away: `chmod o-rwx`")
    })
}

#[cfg(not(unix))]
fn readable_by_others(_: &Path) -> Option<Problem> {
    None
}

fn read_batch(mut table: Table<'_, '_>) -> Batch {
    let max_records = table.take("max_records").and_then(|item| item.integer(1, 100_000));
    // A batch must end well before its transaction times out after 5 s.
    let linger = table.take("linger").and_then(|item| item.duration(Duration::ZERO, Duration::from_secs(1)));
    table.finish();
    Batch {
        max_records: max_records.and_then(|count| usize::try_from(count).ok()).unwrap_or(1000),
        linger: linger.unwrap_or(Duration::from_millis(5)),
    }
}

fn read_trust(mut table: Table<'_, '_>, base: &Path) -> BTreeMap<TrustDomain, DomainFiles> {
    let mut domains = BTreeMap::new();
    let entries = table.rest();
    if entries.is_empty() {
        table.report(
            Problem::error("no trust domain is configured, so no record could pass")
                .help("write `[trust.\"example.org\"]` with `bundle`, `token_service` and `gates`"),
        );
    }
    for (name, _, item) in entries {
        let domain = match TrustDomain::parse(name) {
            Ok(domain) => domain,
            Err(error) => {
                item.report(
                    Problem::error(format!("`{name}`: {error}"))
                        .help("write the domain in quotes: `[trust.\"example.org\"]`"),
                );
                continue;
            }
        };
        let Some(mut table) = item.into_table() else { continue };
        let bundle = table.need("bundle", "the file of the domain's SPIFFE bundle, a JWK set");
        let bundle = bundle.and_then(|item| item.text()).map(|file| base.join(file));
        let file = |item: document::Item<'_, '_>| item.text().map(|file| base.join(file));
        let token_service = table.take("token_service").and_then(file);
        let gates = table.take("gates").and_then(file);
        let algorithms = table.take("algorithms").and_then(|item| {
            let words = Algorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
            let found: Vec<_> = item.list()?.iter().filter_map(|entry| entry.choose(&words)).collect();
            if found.is_empty() {
                item.report(Problem::error(
                    "`algorithms` is empty, so no token of the domain could be verified",
                ));
            }
            Some(found)
        });
        table.finish();
        if let Some(bundle) = bundle {
            let algorithms = algorithms.unwrap_or_else(|| Algorithm::DEFAULT.to_vec());
            domains.insert(domain, DomainFiles { bundle, token_service, gates, algorithms });
        }
    }
    table.finish();
    domains
}

fn read_policy(mut table: Table<'_, '_>, base: &Path) -> Option<PolicySettings> {
    let path = table.need("path", "the folder of policies (*.cedar), schema.cedarschema and entities.json");
    let path = path.and_then(|item| item.text());
    let subject_type = table.take("subject_type").and_then(|item| item.text());
    table.finish();
    Some(PolicySettings {
        path: base.join(path?),
        subject_type: subject_type.unwrap_or_else(|| "User".to_owned()),
    })
}

fn read_mask(mut table: Table<'_, '_>) -> Vec<String> {
    let mask = table.take("mask").and_then(|item| {
        let paths = item.list()?;
        let checked = paths.iter().filter_map(|item| {
            let path = item.text()?;
            if path.is_empty() || path.split('.').any(str::is_empty) {
                item.report(
                    Problem::error(format!("`{path}` is no path into the context"))
                        .help("write dotted names, such as \"transaction.details.card\""),
                );
                return None;
            }
            Some(path)
        });
        Some(checked.collect())
    });
    table.finish();
    mask.unwrap_or_default()
}

/// Loopback unless somebody says otherwise: what is served names topics and policies.
fn read_http(mut table: Table<'_, '_>) -> Option<SocketAddr> {
    let listen = table.take("listen");
    table.finish();
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    let Some(item) = listen else { return Some(default) };
    let text = item.text()?;
    if text == "off" {
        return None;
    }
    let address = text.parse().ok();
    if address.is_none() {
        item.report(
            Problem::error(format!("`{text}` is no address to listen on"))
                .help("write an address and a port, such as \"127.0.0.1:9464\", or \"off\""),
        );
    }
    address
}

fn read_telemetry(mut table: Table<'_, '_>) -> (Option<String>, LogSettings) {
    let endpoint = table.take("otlp_endpoint").and_then(|item| {
        let text = item.text()?;
        // Spans name topics and senders, so a password in the address would be the smaller leak: neither is sent far.
        let host = text.strip_prefix("http://").unwrap_or_default();
        if !host.is_empty() && !host.starts_with('/') && !host.contains(['@', '?', '#', ' ']) {
            return Some(text);
        }
        item.report(
            Problem::error(format!("`{text}` is no OTLP endpoint"))
                .help("write the base address of a collector nearby, OTLP over HTTP without TLS: \"http://localhost:4318\""),
        );
        None
    });
    let filter = table.take("log").and_then(|item| item.text());
    let format = table
        .take("log_format")
        .and_then(|item| item.choose(&[("human", LogFormat::Human), ("json", LogFormat::Json)]));
    table.finish();
    let log = LogSettings {
        filter: filter.unwrap_or_else(|| "info".to_owned()),
        format: format.unwrap_or(LogFormat::Human),
    };
    (endpoint, log)
}

/// Names that stand in transactional ids and metric labels.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests;
