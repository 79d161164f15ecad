//! A whole gate from a configuration: what it watches, its topics, its lanes and its HTTP face, started in that order and
//! stopped in the reverse. `run` and the demo start gates by this alone. Limits: it installs no log subscriber and takes
//! no signal; that is for the process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::approvals::{ApprovalsFailure, RunningApprovals};
use crate::authorize::engine::Engine;
use crate::authorize::ids::{Topic, UnixMillis, WorkloadId};
use crate::authorize::route::{Route, WorkflowRule};
use crate::cli::certificates::{Certificates, both};
use crate::cli::clock;
use crate::config::{
    AccessSettings, ClientCertificates, Config, Problems, RouteSettings, Settings, TlsSettings,
};
use crate::control::signals::{Publisher, PublisherError, reach_of};
use crate::control::{
    self, Control, EntitiesFrom, FollowError, FollowSettings, Follower, Hears, WatchError, Watcher,
};
use crate::serve::tls::{Clients, Tls};
use crate::serve::{self, ServeError, Server};
use crate::stream::admin::{self, AdminError, TopicProblem, TopicsReport};
use crate::stream::breaker::TryAgain;
use crate::stream::deciding::{EngineDecider, Gatework};
use crate::stream::desk::{DeskStartError, RunningDesk};
use crate::stream::freshness::Freshness;
use crate::stream::gate::{Gate, GateError, GateSettings, StartError};
use crate::telemetry::Telemetry;
use crate::telemetry::events::{GateStarted, TopicCreated, TopicWarned};
use crate::wire::outgoing::{Codecs, EffectsError};

/// Tokens that are kept once their signatures are verified, at most.
const CACHED_TOKENS: usize = 100_000;

/// How long a topic may be missing before a gate refuses to start: brokers learn of a topic that was just made one after
/// the other.
const SETTLING: Duration = Duration::from_secs(3);

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
    Codec(#[from] EffectsError),
    /// Control topics cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// Files cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The lanes cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Approvers cannot be served.
    #[error(transparent)]
    Approvals(#[from] ApprovalsFailure),
    /// The desk for access evaluations cannot be started.
    #[error(transparent)]
    Desk(#[from] DeskStartError),
    /// Work in flight cannot be told anything.
    #[error(transparent)]
    Publish(#[from] PublisherError),
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
    // In this order: answers under way end before the desk that they wait for.
    access: Option<(Server, RunningDesk)>,
    lanes: Gate,
    server: Option<Server>,
    approvals: Option<RunningApprovals>,
    watcher: Watcher,
    follower: Option<Follower>,
    /// After the follower, which tells it: what was told last still goes out.
    publisher: Option<Publisher>,
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
            entities: EntitiesFrom::of(&settings.control),
            offer: control::offer(&settings.routes, &settings.policy.subject_type),
        };
        let certificates = Certificates::load(&settings, now);
        let control = Control::load(sources, telemetry.clone(), now);
        let (control, certificates) = both(control, certificates).map_err(GateFailure::Problems)?;
        let control = Arc::new(control.with_certificates(certificates.all().cloned(), now));
        let codecs = Arc::new(Codecs::new()?);
        let longest = control.policies().value().bundle.longest_hold_s();
        let Some(topics) = topics(&settings, longest, telemetry, give_up)? else { return Ok(None) };

        let (realm, id) = (gate.realm.clone(), gate.id.clone());
        let follows = settings.control.followed().next().is_some();
        let freshness =
            if follows { Freshness::within(settings.control.max_staleness) } else { Freshness::default() };
        let work = Gatework {
            engine: Arc::new(Engine::new(gate, CACHED_TOKENS)),
            routes: Arc::new(by_source(&routes)),
            codecs,
            snapshots: control.snapshots(),
            freshness: freshness.clone(),
            telemetry: telemetry.clone(),
        };
        let watcher = Watcher::start(Arc::clone(&control), now_or_never)?;
        let server = match settings.listen {
            Some(address) => Some(Server::start(address, telemetry.clone())?),
            None => None,
        };
        let approvals = settings.approvals.as_ref();
        let tls = certificates.approvals.clone().map(|certificate| Tls::new(certificate, None));
        let tls = tls.transpose().map_err(ServeError::from)?;
        let approvals =
            approvals.map(|of| RunningApprovals::start(of, tls, &settings, &work, &routes)).transpose()?;
        let nonce = Uuid::now_v7().simple().to_string();
        let publisher = publish(&settings, &work, &nonce)?;
        let follower = match follows {
            true => {
                Some(follow(&settings, (&id, &nonce), &control, freshness, telemetry, publisher.as_ref())?)
            }
            false => None,
        };
        let lanes = GateSettings::new(&settings, &topics.facts, nonce);
        GateStarted { realm: &realm, gate: &id, lanes: lanes.lanes }.emit(telemetry);
        let access = settings
            .access
            .as_ref()
            .map(|access| start_access(access, &certificates, &lanes, &work))
            .transpose()?;
        let lanes = Gate::start(&lanes, telemetry, |_| EngineDecider::new(work.clone()))?;
        Ok(Some(Self { access, lanes, server, approvals, watcher, follower, publisher }))
    }

    /// Where health and metrics are served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// Where approvers are served.
    pub fn approvals(&self) -> Option<SocketAddr> {
        self.approvals.as_ref().map(RunningApprovals::address)
    }

    /// Asks routes that have stopped because of their denials to try again.
    pub fn try_again(&self) -> TryAgain {
        self.lanes.try_again()
    }

    /// Where access evaluations are answered.
    pub fn access(&self) -> Option<SocketAddr> {
        self.access.as_ref().map(|(server, _)| server.address())
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
        drop(self.approvals);
        drop(self.access);
        self.lanes.stop();
        let errors = self.lanes.join();
        // A gate that did not end in order may have left something open: the others wait until it cannot be any more.
        if errors.is_empty()
            && let Some(follower) = self.follower
        {
            follower.stop_in_order();
        }
        // What the follower told last still goes out.
        drop(self.publisher);
        if let Some(server) = self.server {
            server.stop();
        }
        errors
    }
}

/// The desk and the HTTP face of access evaluations.
fn start_access(
    access: &AccessSettings,
    certificates: &Certificates,
    gate: &GateSettings,
    work: &Gatework,
) -> Result<(Server, RunningDesk), GateFailure> {
    let known = |tls: &TlsSettings| tls.clients == ClientCertificates::Spiffe;
    let clients = access.tls.as_ref().filter(|tls| known(tls));
    let clients = clients.map(|_| Clients::new(Arc::clone(&work.snapshots), now_or_never));
    let tls = certificates.access.clone().map(|certificate| Tls::new(certificate, clients));
    let tls = tls.transpose().map_err(ServeError::from)?;
    let route = Arc::clone(&access.route);
    let desk = RunningDesk::start(gate, Arc::clone(&route), access.answers.clone(), work.clone())?;
    let url = access.url.clone();
    let server = serve::access::start(access.listen, url, tls, route, work.clone(), desk.desk())?;
    Ok((server, desk))
}

/// Where work in flight is told what has come into force, if the configuration names a topic for that.
fn publish(settings: &Settings, work: &Gatework, nonce: &str) -> Result<Option<Publisher>, PublisherError> {
    let Some(topic) = settings.control.signals.clone() else { return Ok(None) };
    let instance = settings.member.instance.clone().unwrap_or_else(|| nonce.to_owned());
    let reached = reach_of(work.freshness.clone(), now_or_never);
    let (engine, telemetry) = (Arc::clone(&work.engine), work.telemetry.clone());
    Publisher::start(&settings.kafka, topic, engine, instance, telemetry, reached).map(Some)
}

/// Begins to follow the control topics.
fn follow(
    settings: &Settings,
    (gate, nonce): (&WorkloadId, &str),
    control: &Arc<Control>,
    freshness: Freshness,
    telemetry: &Telemetry,
    publisher: Option<&Publisher>,
) -> Result<Follower, FollowError> {
    let looks_at_workflows = |route: &RouteSettings| route.route.workflow == WorkflowRule::Registered;
    let follow = FollowSettings {
        properties: settings.kafka.clone(),
        group: settings.member.group.clone(),
        control: settings.control.clone(),
        gate: gate.clone(),
        instance: settings.member.instance.clone().unwrap_or_else(|| nonce.to_owned()),
        may_forget_ended: settings.routes.iter().all(looks_at_workflows),
    };
    let hears =
        publisher.map_or_else(|| Box::new(|_| ()) as Hears, |publisher| publisher.hears(now_or_never));
    Follower::start(follow, Arc::clone(control), freshness, telemetry.clone(), now_or_never, hears)
}

/// The present moment; where the clock stands before 1970, a moment at which everything is from the future.
fn now_or_never() -> UnixMillis {
    clock::now().unwrap_or(UnixMillis(0))
}

/// The topics of every route, looked at and, where they are the gate's own, made. `None` where `give_up` has had enough of
/// a broker that does not answer.
fn topics(
    settings: &Settings,
    longest_hold_s: Option<u32>,
    telemetry: &Telemetry,
    give_up: &dyn Fn(&AdminError) -> bool,
) -> Result<Option<TopicsReport>, GateFailure> {
    let mut sources = admin::source_topics(&settings.routes);
    admin::hold_for(&mut sources, Duration::from_secs(longest_hold_s.unwrap_or(0).into()));
    let others = admin::Others::of(settings);
    let mut missing_since = None;
    let report = loop {
        let report = match admin::inspect(&settings.kafka, &sources, &others, true) {
            Ok(report) => report,
            Err(error) if give_up(&error) => return Ok(None),
            Err(_) => {
                std::thread::sleep(Duration::from_secs(1));
                continue;
            }
        };
        for (topic, partitions) in &report.made {
            TopicCreated { topic, partitions: *partitions }.emit(telemetry);
        }
        let missing = |problem: &TopicProblem| matches!(problem, TopicProblem::Missing { .. });
        let is_young = missing_since.get_or_insert_with(Instant::now).elapsed() < SETTLING;
        if !report.problems.iter().any(missing) || !is_young {
            break report;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    for warning in &report.warnings {
        TopicWarned { warning: &warning.to_string() }.emit(telemetry);
    }
    if report.problems.is_empty() { Ok(Some(report)) } else { Err(GateFailure::Topics(report.problems)) }
}

fn by_source(routes: &[Arc<Route>]) -> HashMap<Topic, Arc<Route>> {
    routes
        .iter()
        .flat_map(|route| route.from.iter().map(|topic| (topic.clone(), Arc::clone(route))))
        .collect()
}
