//! Looking at topics: whether they are there, and whether they fit together. Limits: what is missing is made by [`super::make`].

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{
    AdminError, AnswersTopic, HoldingTopics, PATIENCE, SLACK, SourceTopic, TopicFacts, TopicProblem,
    TopicWarning, TopicsReport, is_compacted, millis, must_keep,
};
use crate::authorize::ids::Topic;
use crate::config::KafkaProperties;

/// How much larger a held record may be than it was in its source.
const KEPT_OVERHEAD: usize = 16 * 1024;

/// Partitions of the answers to what was asked over HTTP, where the gate makes them: gates spread over them.
const DESK_PARTITIONS: i32 = 4;

/// The settings with which the gate makes a topic of answers.
fn answers_settings(keep: Duration) -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "delete".to_owned()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("retention.ms", millis(keep + SLACK).to_string()),
    ]
}

/// A look at the topics of one cluster.
pub(super) struct Look {
    pub(super) admin: AdminClient<DefaultClientContext>,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) tool: String,
    pub(super) configs: String,
    pub(super) settings: BTreeMap<Topic, BTreeMap<String, String>>,
    /// How long one question about settings may take.
    patience: Duration,
    /// Why settings were not told, once a question about them has had no answer: the next ones would have none either.
    silent: Option<String>,
    pub(super) report: TopicsReport,
}

/// As long as any request may take, where a person says so and it is less.
fn patience(properties: &KafkaProperties) -> Duration {
    let said = properties.get("socket.timeout.ms").and_then(|text| text.parse().ok());
    said.map_or(PATIENCE, |ms| PATIENCE.min(Duration::from_millis(ms)))
}

impl Look {
    /// A look through a client with this configuration.
    pub(super) fn new(
        config: &ClientConfig,
        bootstrap: &str,
        properties: &KafkaProperties,
    ) -> Result<Self, AdminError> {
        Ok(Self {
            admin: config.create()?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            tool: format!("kafka-topics.sh --bootstrap-server {bootstrap}"),
            configs: format!("kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics"),
            settings: BTreeMap::new(),
            patience: patience(properties),
            silent: None,
            report: TopicsReport::default(),
        })
    }

    /// What was found.
    pub(super) fn into_report(self) -> TopicsReport {
        self.report
    }

    /// Everything that goes with one source.
    pub(super) fn source(&mut self, source: &SourceTopic, make: bool) -> Result<(), AdminError> {
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
            (None, Some(needs)) => {
                let keeps = millis(must_keep(source) + SLACK).to_string();
                let settings = vec![
                    ("cleanup.policy", "delete".to_owned()),
                    ("retention.ms", keeps),
                    ("message.timestamp.type", "LogAppendTime".to_owned()),
                ];
                self.make(&source.replay, needs, &settings, make)?;
            }
            _ => {}
        }
        match (&source.holding, count) {
            (Some(topics), Some(needs)) => self.holding(source, topics, needs, make),
            _ => Ok(()),
        }
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
            let command = self.alter(&replay, &format!("retention.ms={}", millis(must_keep(source) + SLACK)));
            self.problem(TopicProblem::Retention { replay, has_ms, needs_ms, command });
        }
    }

    /// What held records need: challenges, holds and answers.
    fn holding(
        &mut self,
        source: &SourceTopic,
        topics: &HoldingTopics,
        needs: i32,
        make: bool,
    ) -> Result<(), AdminError> {
        let compacted = vec![("cleanup.policy", "compact".to_owned())];
        let mut holds = compacted.clone();
        // A held record comes with the key that it is kept under.
        let largest = self.report.facts.get(&source.topic).and_then(|facts| facts.max_bytes);
        holds.extend(largest.map(|bytes| ("max.message.bytes", (bytes + KEPT_OVERHEAD).to_string())));
        let answers = answers_settings(topics.keep);
        for (topic, settings, is_paired) in [
            (&topics.challenges, compacted, false),
            (&topics.holds, holds, true),
            (&topics.answers, answers, true),
        ] {
            match self.see(topic)? {
                None => self.make(topic, needs, &settings, make)?,
                Some(has) if is_paired && has < needs => {
                    self.grow(&source.topic, topic, (has, needs), make)?
                }
                Some(_) => {}
            }
        }
        for topic in [&topics.challenges, &topics.holds] {
            if self.settings.get(topic).is_some_and(|settings| !is_compacted(settings)) {
                let command = self.alter(topic, "cleanup.policy=compact");
                self.problem(TopicProblem::NotCompacted { topic: topic.clone(), command });
            }
        }
        self.answers(&topics.answers, topics.keep);
        Ok(())
    }

    /// The answers to what was asked over HTTP: each desk reads one partition.
    pub(super) fn desk_answers(&mut self, answers: &AnswersTopic, make: bool) -> Result<(), AdminError> {
        if self.see(&answers.topic)?.is_none() {
            self.make(&answers.topic, DESK_PARTITIONS, &answers_settings(answers.keep), make)?;
        }
        self.answers(&answers.topic, answers.keep);
        Ok(())
    }

    /// An existing answers topic keeps every answer as long as something may wait for it, with the broker's own stamp.
    fn answers(&mut self, answers: &Topic, keep: Duration) {
        let answers = answers.clone();
        let Some(settings) = self.settings.get(&answers).cloned() else { return };
        if is_compacted(&settings) {
            let command = self.alter(&answers, "cleanup.policy=delete");
            self.problem(TopicProblem::Compacted { topic: answers.clone(), command });
        }
        if settings.get("message.timestamp.type").is_some_and(|kind| kind == "CreateTime") {
            let command = self.alter(&answers, "message.timestamp.type=LogAppendTime");
            self.problem(TopicProblem::NotStamped { answers: answers.clone(), command });
        }
        let needs_ms = millis(keep);
        let retention = settings.get("retention.ms").and_then(|text| text.parse::<i64>().ok());
        if let Some(has_ms) = retention.filter(|kept| *kept >= 0 && *kept < needs_ms) {
            let command = self.alter(&answers, &format!("retention.ms={}", millis(keep + SLACK)));
            self.problem(TopicProblem::AnswersRetention { answers, has_ms, needs_ms, command });
        }
    }

    /// How many partitions a topic has, its settings looked at where it is there; `None` where it is not.
    pub(super) fn see(&mut self, topic: &Topic) -> Result<Option<i32>, AdminError> {
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
                // (`rdkafka_error_code` has no code of an administrator's request.)
                if matches!(
                    error,
                    KafkaError::AdminOp(
                        RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut
                    )
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

    pub(super) fn problem(&mut self, problem: TopicProblem) {
        if !self.report.problems.contains(&problem) {
            self.report.problems.push(problem);
        }
    }
}
