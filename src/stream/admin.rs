//! The topics of a gate before its lanes start: whether they are there, whether they fit together, and the gate's own
//! made where they are missing. Limits: it changes nothing that exists; what a person has to do is said with the command
//! that does it.

mod control;
mod look;
mod make;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

pub use self::control::{ControlKind, ControlTopic, control_topics};

use self::look::Look;
use crate::authorize::ids::Topic;
use crate::authorize::replay::window_ms;
use crate::authorize::route::Route;
use crate::config::{AccessSettings, KafkaProperties, RouteSettings, Settings};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much longer than it must a replay topic that the gate makes keeps its records: clocks differ.
const SLACK: Duration = Duration::from_secs(3600);
/// How much longer than a hold the answers to it are kept.
const ANSWERS_SLACK: Duration = Duration::from_secs(86_400);

/// A source topic and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTopic {
    /// The topic.
    pub topic: Topic,
    /// Its replay topic, the gate's own.
    pub replay: Topic,
    /// How long a proof is remembered, by moments of acceptance.
    pub window: Duration,
    /// How long a record may wait to be decided. A copy may be decided that much later than its original, so replay
    /// records are kept for this and the window.
    pub max_queue_time: Duration,
    /// Whether the route takes a producer's own timestamp for the moment of acceptance.
    pub trust_create_time: bool,
    /// Where its outcomes and audit records go: the destination first.
    pub targets: Vec<Topic>,
    /// What its held records need; `None` where its route does not hold.
    pub holding: Option<HoldingTopics>,
}

/// The topics of a source topic whose route holds: the gate's own, but for what others read and write in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingTopics {
    /// Where challenges are published; compacted, so that the last state of each stays readable.
    pub challenges: Topic,
    /// Where held records are kept; compacted, with as many partitions as the source.
    pub holds: Topic,
    /// Where answers come from; stamped by the broker, with as many partitions as the source.
    pub answers: Topic,
    /// How long answers must be kept: no hold of the route lasts longer, nor any that [`hold_for`] was told of.
    pub keep: Duration,
}

impl HoldingTopics {
    fn of(route: &Route, source: &Topic) -> Option<Self> {
        let holding = route.holding.as_ref()?;
        Some(Self {
            challenges: holding.challenges.clone(),
            holds: holding.holds.get(source)?.clone(),
            answers: holding.answers.get(source)?.clone(),
            keep: keep(holding.hold_s),
        })
    }
}

/// The source topics of these routes, with all that belongs to them.
pub fn source_topics(routes: &[RouteSettings]) -> Vec<SourceTopic> {
    let of_route = |settings: &RouteSettings| {
        let route = settings.route.clone();
        settings
            .replay_topics
            .iter()
            .map(|(topic, replay)| SourceTopic {
                topic: topic.clone(),
                replay: replay.clone(),
                window: window(&route),
                max_queue_time: Duration::from_secs(route.max_queue_time_s.into()),
                trust_create_time: route.trust_create_time,
                targets: vec![route.to.clone(), route.denied.clone(), route.audit.clone()],
                holding: HoldingTopics::of(&route, topic),
            })
            .collect::<Vec<_>>()
    };
    routes.iter().flat_map(of_route).collect()
}

/// Lets answers be kept for records that are held that long, as policies may ask, where a route's own hold is shorter.
pub fn hold_for(sources: &mut [SourceTopic], longest: Duration) {
    for topics in sources.iter_mut().filter_map(|source| source.holding.as_mut()) {
        topics.keep = topics.keep.max(longest + ANSWERS_SLACK);
    }
}

/// The topics of a gate that belong to no source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// Those that every gate follows, and those that it tells others by.
    pub control: Vec<ControlTopic>,
    /// That of answers to what was asked over HTTP.
    pub answers: Option<AnswersTopic>,
}

/// The topic of answers to what was asked over HTTP; stamped by the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswersTopic {
    /// The topic.
    pub topic: Topic,
    /// How long answers must be kept: nothing waits longer where the policies do not say so.
    pub keep: Duration,
}

impl Others {
    /// Those that a configuration names.
    pub fn of(settings: &Settings) -> Self {
        let answers = settings.access.as_ref().and_then(AnswersTopic::of);
        Self { control: control_topics(&settings.control), answers }
    }
}

impl AnswersTopic {
    fn of(access: &AccessSettings) -> Option<Self> {
        let holding = access.route.holding.as_ref()?;
        Some(Self { topic: access.answers.clone()?, keep: keep(holding.hold_s) })
    }
}

/// How long answers to what is held so long are kept.
fn keep(hold_s: u32) -> Duration {
    Duration::from_secs(hold_s.into()) + ANSWERS_SLACK
}

/// How long a proof is remembered on a route.
pub(super) fn window(route: &Route) -> Duration {
    Duration::from_millis(u64::try_from(window_ms(route)).unwrap_or(0))
}

/// What was found of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicFacts {
    /// How many partitions it has.
    pub partitions: i32,
    /// The size in bytes of the largest batch of records that it takes; `None` where the broker would not say.
    pub max_bytes: Option<usize>,
    /// Whether it is compacted, so that it takes no null key; `None` where the broker would not say.
    pub compacted: Option<bool>,
}

/// Something that keeps a gate from starting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicProblem {
    /// A topic of a person's is not there.
    #[error("topic `{topic}` is not there")]
    Missing {
        /// Which.
        topic: Topic,
        /// Makes it.
        command: String,
    },
    /// A topic of the gate's own is not there, and the broker does not let the gate make it.
    #[error("topic `{topic}` is not there and could not be made: {why}")]
    NotMade {
        /// Which.
        topic: Topic,
        /// The broker's words.
        why: String,
        /// Makes it.
        command: String,
    },
    /// A compacted topic forgets the records that replay memory speaks of, and takes no position for granted.
    #[error("topic `{topic}` is compacted")]
    Compacted {
        /// Which.
        topic: Topic,
        /// Changes it.
        command: String,
    },
    /// A fact holds until it is replaced, however long that takes.
    #[error("control topic `{topic}` deletes what is old, so that a fact would be forgotten by time alone")]
    Forgets {
        /// Which.
        topic: Topic,
        /// Changes it.
        command: String,
    },
    /// How long a gate has said nothing is told by the broker's clock alone.
    #[error("control topic `{topic}` has the gates' own timestamps")]
    Timestamps {
        /// Which.
        topic: Topic,
        /// Changes it.
        command: String,
    },
    /// The replay topic must have a partition for each of the source's.
    #[error("topic `{replay}` has {has} partitions and `{topic}`, whose proofs it remembers, has {needs}")]
    Partitions {
        /// The source topic.
        topic: Topic,
        /// Its replay topic.
        replay: Topic,
        /// How many that has.
        has: i32,
        /// How many it needs.
        needs: i32,
        /// Changes it.
        command: String,
    },
    /// Control topics and what held records need must be compacted: retention would forget what still holds.
    #[error("topic `{topic}` is not compacted, and what it keeps must not be forgotten with time")]
    NotCompacted {
        /// Which.
        topic: Topic,
        /// Changes it.
        command: String,
    },
    /// The topics of held records and answers must have a partition for each of the source's.
    #[error("topic `{of}` has {has} partitions and `{topic}`, whose held records need it, has {needs}")]
    TooFew {
        /// The source topic.
        topic: Topic,
        /// The topic with too few.
        of: Topic,
        /// How many it has.
        has: i32,
        /// How many it needs.
        needs: i32,
        /// Changes it.
        command: String,
    },
    /// Whether an answer came in time must be the broker's word.
    #[error(
        "topic `{answers}` has the senders' own timestamps, and an answer counts by when the broker took it"
    )]
    NotStamped {
        /// Which.
        answers: Topic,
        /// Changes it.
        command: String,
    },
    /// The answers topic forgets answers to what is still held.
    #[error(
        "topic `{answers}` keeps records for {has_ms} ms, and a record can be held for {needs_ms} ms less a day"
    )]
    AnswersRetention {
        /// Which.
        answers: Topic,
        /// How long it keeps records.
        has_ms: i64,
        /// How long it must.
        needs_ms: i64,
        /// Changes it.
        command: String,
    },
    /// The replay topic forgets proofs that are still good.
    #[error(
        "topic `{replay}` keeps records for {has_ms} ms, and a copy of a proof can come {needs_ms} ms later"
    )]
    Retention {
        /// Which.
        replay: Topic,
        /// How long it keeps records.
        has_ms: i64,
        /// How long it must.
        needs_ms: i64,
        /// Changes it.
        command: String,
    },
}

impl TopicProblem {
    /// What a person can run.
    pub fn help(&self) -> &str {
        match self {
            Self::Missing { command, .. }
            | Self::NotMade { command, .. }
            | Self::Compacted { command, .. }
            | Self::Forgets { command, .. }
            | Self::Timestamps { command, .. }
            | Self::Partitions { command, .. }
            | Self::NotCompacted { command, .. }
            | Self::TooFew { command, .. }
            | Self::NotStamped { command, .. }
            | Self::AnswersRetention { command, .. }
            | Self::Retention { command, .. } => command,
        }
    }
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicWarning {
    /// Nobody but the sender says when such a record was sent.
    #[error(
        "topic `{topic}` has the senders' own timestamps: a record counts as accepted when the gate decides it, so one \
         that waits longer than its tokens live is denied; to change that: {command}"
    )]
    CreateTime {
        /// Which.
        topic: Topic,
        /// Changes it.
        command: String,
    },
    /// The broker does not let the gate look at its settings.
    #[error("the settings of topic `{topic}` cannot be read ({why}); whether it is fit was not checked")]
    Unseen {
        /// Which.
        topic: Topic,
        /// The broker's words.
        why: String,
    },
}

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicsReport {
    /// Every topic that is there.
    pub facts: BTreeMap<Topic, TopicFacts>,
    /// What was made, or made to grow: the topic and its partition count.
    pub made: Vec<(Topic, i32)>,
    /// What would be made, or made to grow, by a gate that starts, where nothing may be made now.
    pub would_make: Vec<(Topic, i32)>,
    /// What keeps the gate from starting.
    pub problems: Vec<TopicProblem>,
    /// What a person should know.
    pub warnings: Vec<TopicWarning>,
}

/// Why the topics could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The client cannot be made, or no broker answers.
    #[error("no answer from Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The system gives no event loop.
    #[error("cannot wait for Kafka: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Looks at every topic, and makes the gate's own where they are missing and `make` says so.
///
/// # Errors
/// [`AdminError`] where nobody answers; what is wrong with topics stands in the report.
pub fn inspect(
    properties: &KafkaProperties,
    sources: &[SourceTopic],
    others: &Others,
    make: bool,
) -> Result<TopicsReport, AdminError> {
    let mut config = ClientConfig::new();
    config.set("allow.auto.create.topics", "false").set("log.connection.close", "false");
    for (name, value) in properties.iter() {
        config.set(name, value);
    }
    let bootstrap = properties.get("bootstrap.servers").unwrap_or("localhost:9092").to_owned();
    let mut look = Look::new(&config, &bootstrap, properties)?;
    for source in sources {
        look.source(source, make)?;
    }
    for topic in &others.control {
        look.control(topic, make)?;
    }
    if let Some(answers) = &others.answers {
        look.desk_answers(answers, make)?;
    }
    Ok(look.into_report())
}

fn is_compacted(settings: &BTreeMap<String, String>) -> bool {
    settings
        .get("cleanup.policy")
        .is_some_and(|policy| policy.split(',').any(|part| part.trim() == "compact"))
}

/// A copy that is decided later than this after its original is too old, or outside of the proof's life.
fn must_keep(source: &SourceTopic) -> Duration {
    source.window + source.max_queue_time
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_the_longest_hold_that_a_route_or_a_policy_asks_for() {
        let topic = |name: &str| Topic::parse(name).unwrap();
        let of = |holding| SourceTopic {
            topic: topic("c"),
            replay: topic("c.replay"),
            window: Duration::ZERO,
            max_queue_time: Duration::ZERO,
            trust_create_time: false,
            targets: Vec::new(),
            holding,
        };
        let hour = Duration::from_secs(3600);
        let topics = HoldingTopics {
            challenges: topic("c.challenges"),
            holds: topic("c.holds"),
            answers: topic("c.answers"),
            keep: hour + ANSWERS_SLACK,
        };
        let mut sources = [of(Some(topics)), of(None)];
        let keep = |sources: &[SourceTopic]| sources[0].holding.as_ref().map(|topics| topics.keep);
        hold_for(&mut sources, hour / 2);
        assert_eq!(keep(&sources), Some(hour + ANSWERS_SLACK), "the route's own hold");
        hold_for(&mut sources, 48 * hour);
        assert_eq!(keep(&sources), Some(48 * hour + ANSWERS_SLACK), "a policy's");
        assert_eq!(sources[1].holding, None);
    }
}
