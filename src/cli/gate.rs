//! A whole gate from a configuration: what it watches, its topics, its lanes and its HTTP face, started in that order and
//! stopped in the reverse. `run` and the demo start gates by this alone. Limits: it installs no log subscriber and takes
//! no signal; that is for the process.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::authorize::engine::Engine;
use crate::authorize::ids::Topic;
use crate::authorize::replay::window_ms;
use crate::authorize::route::Route;
use crate::cli::clock;
use crate::config::{Config, Delivery, KafkaProperties, Problems, RouteSettings, Settings, Start};
use crate::control::{self, Control, WatchError, Watcher};
use crate::serve::{ServeError, Server};
use crate::stream::admin::{self, AdminError, SourceTopic, TopicProblem, TopicsReport};
use crate::stream::deciding::{EngineDecider, Gatework};
use crate::stream::gate::{Gate, GateError, GateSettings, StartError};
use crate::stream::kafka::settings as kafka;
use crate::stream::lane::{self, LaneSettings, Source, TopicLimits};
use crate::telemetry::Telemetry;
use crate::telemetry::events::{GateStarted, TopicCreated, TopicWarned};
use crate::wire::audit::{AuditCodec, AuditCodecError};

/// Tokens that are kept once their signatures are verified, at most.
const CACHED_TOKENS: usize = 100_000;
/// After how long a broker aborts a transaction that its gate no longer ends.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How often in a row a producer that was refused as replaced is made anew before its lane gives up.
const FENCED_TRIES: u32 = 10;

/// Why a gate did not start.
#[derive(Debug, thiserror::Error)]
pub enum GateFailure {
    /// Keys, policies or entities are wrong.
    #[error("{0}")]
    Problems(Problems),
    /// Topics are missing or do not fit together.
    #[error("{}", listed(.0))]
    Topics(Vec<TopicProblem>),
    /// The audit schema does not parse: a broken build.
    #[error(transparent)]
    Codec(#[from] AuditCodecError),
    /// Files cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The lanes cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Health and metrics cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The machine's clock stands before 1970.
    #[error("the clock of this machine stands before 1970")]
    Clock,
}

fn listed(problems: &[TopicProblem]) -> String {
    let lines = problems.iter().map(|problem| format!("{problem}\n  help: {}", problem.help()));
    lines.collect::<Vec<_>>().join("\n")
}

/// A running gate. Dropping it asks its lanes to stop and does not wait.
#[derive(Debug)]
pub struct RunningGate {
    lanes: Gate,
    server: Option<Server>,
    watcher: Watcher,
}

impl RunningGate {
    /// Starts everything. A broker that does not answer is waited for until `give_up` says otherwise; topics that are
    /// missing, keys that do not load and policies that do not validate are refused.
    ///
    /// # Errors
    /// [`GateFailure`]; nothing is left running.
    pub fn start(
        config: Config,
        telemetry: &Telemetry,
        give_up: &dyn Fn(&AdminError) -> bool,
    ) -> Result<Option<Self>, GateFailure> {
        let (gate, routes, settings) = config.into_parts();
        let now = clock::now().ok_or(GateFailure::Clock)?;
        let sources = control::Sources {
            trust: settings.trust.clone(),
            policies: settings.policy.path.clone(),
            offer: control::offer(&settings.routes, &settings.policy.subject_type),
        };
        let control =
            Arc::new(Control::load(sources, telemetry.clone(), now).map_err(GateFailure::Problems)?);
        let codec = Arc::new(AuditCodec::new()?);
        let Some(topics) = topics(&settings, telemetry, give_up)? else { return Ok(None) };

        let (realm, id) = (gate.realm.clone(), gate.id.clone());
        let work = Gatework {
            engine: Arc::new(Engine::new(gate, CACHED_TOKENS)),
            routes: Arc::new(by_source(&routes)),
            codec,
            snapshots: control.snapshots(),
            telemetry: telemetry.clone(),
        };
        let watcher = Watcher::start(Arc::clone(&control), || {
            clock::now().unwrap_or(crate::authorize::ids::UnixMillis(0))
        })?;
        let server = match settings.listen {
            Some(address) => Some(Server::start(address, telemetry.clone())?),
            None => None,
        };
        let lanes = lane_settings(&settings, &topics);
        GateStarted { realm: &realm, gate: &id, lanes: lanes.lanes }.emit(telemetry);
        let lanes = Gate::start(&lanes, telemetry, |_| EngineDecider::new(work.clone()))?;
        Ok(Some(Self { lanes, server, watcher }))
    }

    /// Where health and metrics are served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// Asks for another look at keys and policies.
    pub fn reload(&self) -> control::Reload {
        self.watcher.reload()
    }

    /// Whether a lane has ended that nobody asked to.
    pub fn failed(&self) -> bool {
        self.lanes.failed()
    }

    /// Finishes or aborts the batches in hand, leaves the group, and waits for it. What made lanes end before stands in
    /// the list.
    pub fn stop(self) -> Vec<GateError> {
        self.lanes.stop();
        let errors = self.lanes.join();
        if let Some(server) = self.server {
            server.stop();
        }
        errors
    }
}

/// The topics of every route, looked at and, where they are the gate's own, made. `None` where `give_up` has had enough of
/// a broker that does not answer.
fn topics(
    settings: &Settings,
    telemetry: &Telemetry,
    give_up: &dyn Fn(&AdminError) -> bool,
) -> Result<Option<TopicsReport>, GateFailure> {
    let properties = properties(&settings.kafka);
    let sources = source_topics(&settings.routes);
    let report = loop {
        match admin::inspect(&properties, &sources, true) {
            Ok(report) => break report,
            Err(error) if give_up(&error) => return Ok(None),
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
    };
    for (topic, partitions) in &report.made {
        TopicCreated { topic, partitions: *partitions }.emit(telemetry);
    }
    for warning in &report.warnings {
        TopicWarned { warning: &warning.to_string() }.emit(telemetry);
    }
    if report.problems.is_empty() { Ok(Some(report)) } else { Err(GateFailure::Topics(report.problems)) }
}

/// The librdkafka properties of a person, secrets included.
pub fn properties(kafka: &KafkaProperties) -> BTreeMap<String, String> {
    kafka.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Every source topic of the routes, with what goes with it.
pub fn source_topics(routes: &[RouteSettings]) -> Vec<SourceTopic> {
    let mut sources = Vec::new();
    for settings in routes {
        let route = &settings.route;
        for (topic, replay) in &settings.replay_topics {
            sources.push(SourceTopic {
                topic: topic.clone(),
                replay: replay.clone(),
                window: proof_window(route),
                max_queue_time: Duration::from_secs(route.max_queue_time_s.into()),
                trust_create_time: route.trust_create_time,
                targets: vec![route.to.clone(), route.denied.clone(), route.audit.clone()],
            });
        }
    }
    sources
}

fn proof_window(route: &Route) -> Duration {
    Duration::from_millis(u64::try_from(window_ms(route)).unwrap_or(0))
}

fn by_source(routes: &[Arc<Route>]) -> HashMap<Topic, Arc<Route>> {
    routes
        .iter()
        .flat_map(|route| route.from.iter().map(|topic| (topic.clone(), Arc::clone(route))))
        .collect()
}

fn lane_settings(settings: &Settings, topics: &TopicsReport) -> GateSettings {
    let mut sources = BTreeMap::new();
    let mut targets = Vec::new();
    for route in &settings.routes {
        for (topic, replay) in &route.replay_topics {
            let source = Source {
                route: route.route.name.clone(),
                replay: replay.clone(),
                start: match route.start {
                    Start::Earliest => lane::Start::Earliest,
                    Start::Latest => lane::Start::Latest,
                },
                window: proof_window(&route.route),
            };
            sources.insert(topic.clone(), source);
        }
        for topic in [&route.route.to, &route.route.denied, &route.route.audit] {
            if !targets.contains(topic) {
                targets.push(topic.clone());
            }
        }
    }
    let limit = |(topic, facts): (&Topic, &admin::TopicFacts)| {
        let limits =
            TopicLimits { max_bytes: facts.max_bytes, compacted: facts.compacted.unwrap_or_default() };
        (topic.clone(), limits)
    };
    GateSettings {
        properties: properties(&settings.kafka),
        group: settings.group.clone(),
        instance: settings.instance.clone(),
        nonce: Uuid::now_v7().simple().to_string(),
        lanes: settings.lanes.get(),
        delivery: match settings.delivery {
            Delivery::ExactlyOnce => kafka::Delivery::ExactlyOnce,
            Delivery::AtLeastOnce => kafka::Delivery::AtLeastOnce,
        },
        lane: LaneSettings {
            lane: 0,
            sources,
            targets,
            limits: topics.facts.iter().map(limit).collect(),
            batch: settings.batch.max_records,
            linger: settings.batch.linger,
            transaction_timeout: TRANSACTION_TIMEOUT,
            fenced_tries: FENCED_TRIES,
        },
    }
}
