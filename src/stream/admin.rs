//! The topics of a gate before its lanes start: whether they are there, whether they fit together, and the gate's own
//! made where they are missing. Limits: it changes nothing that exists; what a person has to do is said with the command
//! that does it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::authorize::ids::Topic;
use crate::authorize::replay::window_ms;
use crate::authorize::route::Route;
use crate::config::{KafkaProperties, RouteSettings};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much longer than it must a replay topic that the gate makes keeps its records: clocks differ.
const SLACK: Duration = Duration::from_secs(3600);
/// Partitions that are suggested where nothing says how many.
const SUGGESTED_PARTITIONS: i32 = 12;

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
            })
            .collect::<Vec<_>>()
    };
    routes.iter().flat_map(of_route).collect()
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
            | Self::Partitions { command, .. }
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
    /// What was made: the topic and its partition count.
    pub made: Vec<(Topic, i32)>,
    /// What would be made by a gate that starts, where nothing may be made now.
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
    make: bool,
) -> Result<TopicsReport, AdminError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut config = ClientConfig::new();
    config.set("allow.auto.create.topics", "false").set("log.connection.close", "false");
    for (name, value) in properties.iter() {
        config.set(name, value);
    }
    let bootstrap = properties.get("bootstrap.servers").unwrap_or("localhost:9092").to_owned();
    let mut look = Look {
        admin: config.create()?,
        runtime,
        tool: format!("kafka-topics.sh --bootstrap-server {bootstrap}"),
        configs: format!("kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics"),
        settings: BTreeMap::new(),
        patience: patience(properties),
        silent: None,
        report: TopicsReport::default(),
    };
    for source in sources {
        look.source(source, make)?;
    }
    Ok(look.report)
}

struct Look {
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    tool: String,
    configs: String,
    settings: BTreeMap<Topic, BTreeMap<String, String>>,
    /// How long one question about settings may take.
    patience: Duration,
    /// Why settings were not told, once a question about them has had no answer: the next ones would have none either.
    silent: Option<String>,
    report: TopicsReport,
}

/// As long as any request may take, where a person says so and it is less.
fn patience(properties: &KafkaProperties) -> Duration {
    let said = properties.get("socket.timeout.ms").and_then(|text| text.parse().ok());
    said.map_or(PATIENCE, |ms| PATIENCE.min(Duration::from_millis(ms)))
}

impl Look {
    fn source(&mut self, source: &SourceTopic, make: bool) -> Result<(), AdminError> {
        let count = self.see(&source.topic)?;
        if let Some(settings) = self.settings.get(&source.topic) {
            if is_compacted(settings) {
                let command = self.alter(&source.topic, "cleanup.policy=delete");
                self.problem(TopicProblem::Compacted { topic: source.topic.clone(), command });
            } else if settings.get("message.timestamp.type").is_some_and(|kind| kind == "CreateTime")
                && !source.trust_create_time
            {
                let command = self.alter(&source.topic, "message.timestamp.type=LogAppendTime");
                self.report.warnings.push(TopicWarning::CreateTime { topic: source.topic.clone(), command });
            }
        }
        if count.is_none() {
            let command = self.create(&source.topic, None, &["message.timestamp.type=LogAppendTime"]);
            self.problem(TopicProblem::Missing { topic: source.topic.clone(), command });
        }
        for (place, target) in source.targets.iter().enumerate() {
            if self.see(target)?.is_none() {
                // Workers then judge a countersignature when the broker took the record, however long it waited.
                let settings: &[&str] =
                    if place == 0 { &["message.timestamp.type=LogAppendTime"] } else { &[] };
                let command = self.create(target, count, settings);
                self.problem(TopicProblem::Missing { topic: target.clone(), command });
            }
        }
        match (self.see(&source.replay)?, count) {
            (Some(has), Some(needs)) => self.replay(source, has, needs),
            (None, Some(needs)) => self.make_replay(source, needs, make)?,
            _ => {}
        }
        Ok(())
    }

    /// An existing replay topic has to fit its source.
    fn replay(&mut self, source: &SourceTopic, has: i32, needs: i32) {
        let replay = source.replay.clone();
        if has < needs {
            let command = format!("{} --alter --topic {replay} --partitions {needs}", self.tool);
            let topic = source.topic.clone();
            self.problem(TopicProblem::Partitions { topic, replay: replay.clone(), has, needs, command });
        }
        let Some(settings) = self.settings.get(&replay) else { return };
        let retention = settings.get("retention.ms").and_then(|text| text.parse::<i64>().ok());
        if is_compacted(settings) {
            let command = self.alter(&replay, "cleanup.policy=delete");
            self.problem(TopicProblem::Compacted { topic: replay.clone(), command });
        }
        let needs_ms = millis(must_keep(source));
        if let Some(has_ms) = retention.filter(|kept| *kept >= 0 && *kept < needs_ms) {
            let command = self.alter(&replay, &format!("retention.ms={}", millis(kept_for(source))));
            self.problem(TopicProblem::Retention { replay, has_ms, needs_ms, command });
        }
    }

    fn make_replay(&mut self, source: &SourceTopic, partitions: i32, make: bool) -> Result<(), AdminError> {
        let replay = &source.replay;
        if !make {
            self.report.would_make.push((replay.clone(), partitions));
            return Ok(());
        }
        let retention = millis(kept_for(source)).to_string();
        let settings = [
            ("cleanup.policy", "delete"),
            ("retention.ms", &retention),
            ("message.timestamp.type", "LogAppendTime"),
        ];
        // -1 is the broker's own default, which fits its number of nodes.
        let mut topic = NewTopic::new(replay.as_str(), partitions, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let results = self.runtime.block_on(self.admin.create_topics([&topic], &options))?;
        let refused = results.into_iter().find_map(Result::err).map(|(_, code)| code);
        match refused {
            // Another gate of the group was faster.
            None | Some(RDKafkaErrorCode::TopicAlreadyExists) => {
                let deadline = Instant::now() + PATIENCE;
                while self.see(replay)?.is_none() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(50));
                }
                if refused.is_none() {
                    self.report.made.push((replay.clone(), partitions));
                }
            }
            Some(code) => {
                let text: Vec<String> =
                    settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let text: Vec<&str> = text.iter().map(String::as_str).collect();
                let command = self.create(replay, Some(partitions), &text);
                self.problem(TopicProblem::NotMade { topic: replay.clone(), why: code.to_string(), command });
            }
        }
        Ok(())
    }

    /// How many partitions a topic has, its settings looked at where it is there; `None` where it is not.
    fn see(&mut self, topic: &Topic) -> Result<Option<i32>, AdminError> {
        if let Some(facts) = self.report.facts.get(topic) {
            return Ok(Some(facts.partitions));
        }
        let metadata = self.admin.inner().fetch_metadata(Some(topic.as_str()), PATIENCE)?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic.as_str() && found.error().is_none())
            .and_then(|found| i32::try_from(found.partitions().len()).ok())
            .filter(|count| *count > 0);
        let Some(partitions) = found else { return Ok(None) };
        let mut facts = TopicFacts { partitions, ..TopicFacts::default() };
        match self.describe(topic) {
            Ok(settings) => {
                facts.max_bytes = settings.get("max.message.bytes").and_then(|text| text.parse().ok());
                facts.compacted = Some(is_compacted(&settings));
                self.settings.insert(topic.clone(), settings);
            }
            Err(why) => self.report.warnings.push(TopicWarning::Unseen { topic: topic.clone(), why }),
        }
        self.report.facts.insert(topic.clone(), facts);
        Ok(Some(partitions))
    }

    fn describe(&mut self, topic: &Topic) -> Result<BTreeMap<String, String>, String> {
        if let Some(why) = &self.silent {
            return Err(why.clone());
        }
        let options = AdminOptions::new().request_timeout(Some(self.patience));
        let asked = [ResourceSpecifier::Topic(topic.as_str())];
        let answered =
            self.runtime.block_on(self.admin.describe_configs(&asked, &options)).map_err(|error| {
                let why = error.to_string();
                // A broker that does not answer this question, as the embedded one, is not asked for every topic.
                let code = error.rdkafka_error_code();
                if matches!(
                    code,
                    Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut)
                ) {
                    self.silent = Some(why.clone());
                }
                why
            })?;
        let named = OwnedResourceSpecifier::Topic(topic.to_string());
        for resource in answered {
            let ConfigResource { specifier, entries } = resource.map_err(|code| code.to_string())?;
            if specifier == named {
                return Ok(entries
                    .into_iter()
                    .filter_map(|entry| Some((entry.name, entry.value?)))
                    .collect());
            }
        }
        Err("no answer".to_owned())
    }

    fn problem(&mut self, problem: TopicProblem) {
        if !self.report.problems.contains(&problem) {
            self.report.problems.push(problem);
        }
    }

    fn create(&self, topic: &Topic, partitions: Option<i32>, settings: &[&str]) -> String {
        let partitions = partitions.unwrap_or(SUGGESTED_PARTITIONS);
        let settings: String = settings.iter().map(|setting| format!(" --config {setting}")).collect();
        format!("{} --create --topic {topic} --partitions {partitions}{settings}", self.tool)
    }

    fn alter(&self, topic: &Topic, setting: &str) -> String {
        format!("{} --entity-name {topic} --add-config {setting}", self.configs)
    }
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

fn kept_for(source: &SourceTopic) -> Duration {
    must_keep(source) + SLACK
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
