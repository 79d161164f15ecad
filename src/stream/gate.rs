//! A gate's lanes: started together, watched, stopped together. Limits: what they decide with is handed in; a lane that
//! fails ends alone, and [`Gate::failed`] says so: whether the process goes on is its owner's choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::admin::{TopicFacts, window};
use super::breaker::TryAgain;
use super::clock::SystemClock;
use super::decider::Decider;
use super::desk::{DeskSettings, PeopleSettings};
use super::kafka::KafkaLog;
use super::kafka::settings::{KafkaSettings, writer_prefix};
use super::lane::{HoldTopics, Lane, LaneError, LaneSettings, Source, Stop, TopicLimits};
use super::log::LogError;
use crate::authorize::ids::Topic;
use crate::authorize::route::Route;
use crate::config::{Delivery, KafkaProperties, RouteSettings, Settings};
use crate::telemetry::Telemetry;
use crate::telemetry::events::LaneStopped;

/// What the lanes of a gate have in common.
#[derive(Debug, Clone)]
pub struct GateSettings {
    /// librdkafka properties as a person wrote them.
    pub properties: KafkaProperties,
    /// The consumer group.
    pub group: String,
    /// The gate's stable name among those of its group; `None` for one that may be started any number of times.
    pub instance: Option<String>,
    /// What makes the ids of a gate without `instance` its own: handed in, never used twice.
    pub nonce: String,
    /// How many lanes; at least 1.
    pub lanes: usize,
    /// Exactly once, or not.
    pub delivery: Delivery,
    /// How each lane works; its `lane` is set here.
    pub lane: LaneSettings,
}

/// After how long the broker aborts a transaction that its gate no longer ends.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// So many batches more than one are taken in at once where a backlog is there.
const BATCHES_AHEAD: usize = 3;
/// How often in a row a producer that was refused as replaced is made anew.
const FENCED_TRIES: u32 = 10;

impl GateSettings {
    /// What the configuration says, with what was found of the topics; `nonce` is used by no other gate, ever.
    pub fn new(settings: &Settings, facts: &BTreeMap<Topic, TopicFacts>, nonce: String) -> Self {
        let mut sources = BTreeMap::new();
        let mut targets = Vec::new();
        for RouteSettings { route, start, replay_topics, breaker } in &settings.routes {
            for (topic, replay) in replay_topics {
                let source = Source {
                    route: route.name.to_string(),
                    replay: replay.clone(),
                    audit: route.audit.clone(),
                    denied: route.denied.clone(),
                    breaker: *breaker,
                    start: *start,
                    window: window(route),
                    holding: hold_topics(route, topic),
                };
                sources.insert(topic.clone(), source);
            }
            targets.extend([route.to.clone(), route.denied.clone(), route.audit.clone()]);
            targets.extend(route.holding.iter().map(|holding| holding.challenges.clone()));
        }
        targets.sort();
        targets.dedup();
        let limits = facts.iter().map(|(topic, facts)| {
            let limits =
                TopicLimits { max_bytes: facts.max_bytes, compacted: facts.compacted.unwrap_or(false) };
            (topic.clone(), limits)
        });
        Self {
            properties: settings.kafka.clone(),
            group: settings.member.group.clone(),
            instance: settings.member.instance.clone(),
            nonce,
            lanes: settings.member.lanes.get(),
            delivery: settings.member.delivery,
            lane: LaneSettings {
                lane: 0,
                sources,
                targets,
                limits: limits.collect(),
                batch: settings.batch.max_records,
                ahead: BATCHES_AHEAD,
                linger: settings.batch.linger,
                transaction_timeout: TRANSACTION_TIMEOUT,
                fenced_tries: FENCED_TRIES,
                try_again: TryAgain::default(),
            },
        }
    }

    fn batch_bytes(&self) -> Option<(usize, usize)> {
        let of_source = |source: &'_ Source| {
            let holds = source.holding.as_ref().map(|topics| topics.holds.clone());
            std::iter::once(source.replay.clone()).chain(holds)
        };
        let kept: Vec<Topic> = self.lane.sources.values().flat_map(of_source).collect();
        let written = self.lane.targets.iter().chain(&kept);
        let sizes: Vec<usize> = written.filter_map(|topic| self.lane.limits.get(topic)?.max_bytes).collect();
        Some((*sizes.iter().min()?, *sizes.iter().max()?))
    }

    /// The name that no other gate of the group has.
    fn name(&self) -> &str {
        self.instance.as_deref().unwrap_or(&self.nonce)
    }

    /// Where this gate's desk writes, by the rules of `route`, and where people answer what it asks.
    pub(super) fn desk(&self, route: Arc<Route>, answers: Option<Topic>) -> DeskSettings {
        let limits = |topic: &Topic| self.lane.limits.get(topic).copied().unwrap_or_default();
        let people = route.holding.as_ref().zip(answers).map(|(holding, answers)| PeopleSettings {
            limits: limits(&holding.challenges),
            challenges: holding.challenges.clone(),
            answers,
        });
        DeskSettings { limits: limits(&route.audit), people, name: self.name().to_owned(), route }
    }

    /// The connection of its desk, which never joins the group.
    pub(super) fn desk_kafka(&self) -> KafkaSettings {
        KafkaSettings {
            member: None,
            writers: vec![format!("{}{}-desk", writer_prefix(&self.group), self.name())],
            topics: Vec::new(),
            ..self.kafka(0)
        }
    }

    /// The transactional ids of a lane: two, since one transaction is written while the one before is committed.
    fn writers(&self, lane: usize) -> Vec<String> {
        let one = format!("{}{}-{lane}", writer_prefix(&self.group), self.name());
        match self.delivery {
            Delivery::ExactlyOnce => vec![format!("{one}-a"), format!("{one}-b")],
            Delivery::AtLeastOnce => vec![one],
        }
    }

    fn kafka(&self, lane: usize) -> KafkaSettings {
        KafkaSettings {
            properties: self.properties.clone(),
            group: self.group.clone(),
            member: self.instance.as_ref().map(|instance| format!("{instance}-{lane}")),
            is_first: lane == 0,
            writers: self.writers(lane),
            topics: self.lane.sources.keys().cloned().collect(),
            delivery: self.delivery,
            batch_bytes: self.batch_bytes(),
            transaction_timeout: self.lane.transaction_timeout,
        }
    }
}

/// Where the held records of a source topic and their answers stand, by its route.
fn hold_topics(route: &Route, source: &Topic) -> Option<HoldTopics> {
    let holding = route.holding.as_ref()?;
    Some(HoldTopics {
        holds: holding.holds.get(source)?.clone(),
        answers: holding.answers.get(source)?.clone(),
        skew: Duration::from_secs(route.skew_s.into()),
    })
}

/// Why a gate could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// librdkafka refuses the properties.
    #[error("the Kafka clients cannot be made: {0}")]
    Clients(#[from] LogError),
    /// The system gives no thread.
    #[error("a lane's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A gate's running lanes. Dropping it asks them to stop and does not wait.
#[derive(Debug)]
pub struct Gate {
    stop: Stop,
    try_again: TryAgain,
    lanes: Vec<JoinHandle<Result<(), LaneError>>>,
}

impl Gate {
    /// Starts every lane, each with a decider of its own. No broker needs to be there yet: lanes wait for it.
    ///
    /// # Errors
    /// [`StartError`] where the clients cannot be made: then no lane runs.
    pub fn start<D>(
        settings: &GateSettings,
        telemetry: &Telemetry,
        mut decider: impl FnMut(usize) -> D,
    ) -> Result<Self, StartError>
    where
        D: Decider + Send + 'static,
        D::State: Send,
    {
        let stop = Stop::default();
        // All clients first: a mistake in the properties shows before anything has begun.
        let logs = (0..settings.lanes.max(1))
            .map(|lane| KafkaLog::new(settings.kafka(lane)))
            .collect::<Result<Vec<_>, _>>()?;
        let try_again = settings.lane.try_again.clone();
        let mut gate = Self { stop: stop.clone(), try_again, lanes: Vec::with_capacity(logs.len()) };
        for (number, log) in logs.into_iter().enumerate() {
            let lane_settings = LaneSettings { lane: number, ..settings.lane.clone() };
            let mut lane =
                Lane::new(log, decider(number), SystemClock::start(), lane_settings, telemetry.clone());
            let (stop, fallen) = (stop.clone(), Fallen { lane: number, telemetry: telemetry.clone() });
            gate.lanes.push(std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
                let fallen = fallen;
                let result = lane.run(&stop);
                drop(lane);
                std::mem::forget(fallen);
                result
            })?);
        }
        Ok(gate)
    }

    /// Asks every lane to finish or abort the batch in hand and to leave its group.
    pub fn stop(&self) {
        self.stop.ask();
    }

    /// A handle with which somebody else can stop it.
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Asks routes that have stopped because of their denials to try again.
    pub fn try_again(&self) -> TryAgain {
        self.try_again.clone()
    }

    /// Whether no lane runs any more.
    pub fn ended(&self) -> bool {
        self.lanes.iter().all(JoinHandle::is_finished)
    }

    /// Whether a lane has ended although nobody asked it to.
    pub fn failed(&self) -> bool {
        !self.stop.asked() && self.lanes.iter().any(JoinHandle::is_finished)
    }

    /// Waits for every lane, and returns why those ended that were not asked to: an empty list is an end in good order.
    pub fn join(mut self) -> Vec<GateError> {
        std::mem::take(&mut self.lanes)
            .into_iter()
            .enumerate()
            .filter_map(|(lane, thread)| match thread.join() {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(GateError::Lane { lane, error }),
                Err(_) => Some(GateError::Panic { lane }),
            })
            .collect()
    }

    /// Waits until no lane runs, or for at most `time`; whether none does.
    pub fn wait(&self, time: Duration) -> bool {
        let deadline = std::time::Instant::now() + time;
        while !self.ended() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.ended()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.ask();
    }
}

/// Why a lane ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// It could not go on.
    #[error("lane {lane}: {error}")]
    Lane {
        /// Which.
        lane: usize,
        /// Why.
        error: LaneError,
    },
    /// A fault of the program. Its transaction is aborted by the broker.
    #[error("lane {lane} has panicked")]
    Panic {
        /// Which.
        lane: usize,
    },
}

/// Says that a lane has stopped where its thread unwinds.
struct Fallen {
    lane: usize,
    telemetry: Telemetry,
}

impl Drop for Fallen {
    fn drop(&mut self) {
        LaneStopped { lane: self.lane, problem: Some("the lane has panicked") }.emit(&self.telemetry);
    }
}
