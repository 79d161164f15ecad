//! Making the gate's own topics, and letting them grow with their source. Limits: nothing that exists is changed in any other
//! way; where the broker does not allow it, the command that does it is told.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::look::Look;
use super::{AdminError, PATIENCE, TopicProblem};
use crate::authorize::ids::Topic;

/// How long a broker may take to hear of the settings of a topic that it knows.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// Partitions that are suggested where nothing says how many.
const SUGGESTED_PARTITIONS: i32 = 12;

impl Look {
    /// Makes a topic of the gate's own, or says that it would be made.
    pub(super) fn make(
        &mut self,
        topic: &Topic,
        partitions: i32,
        settings: &[(&str, String)],
        make: bool,
    ) -> Result<(), AdminError> {
        if !make {
            self.report.would_make.push((topic.clone(), partitions));
            return Ok(());
        }
        // -1 is the broker's own default, which fits its number of nodes.
        let mut new = NewTopic::new(topic.as_str(), partitions, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let results = self.runtime.block_on(self.admin.create_topics([&new], &options()))?;
        let refused = results.into_iter().find_map(Result::err).map(|(_, code)| code);
        match refused {
            // Another gate of the group was faster.
            None | Some(RDKafkaErrorCode::TopicAlreadyExists) => {
                self.await_partitions(topic, 1)?;
                self.await_settings(topic, settings)?;
                if refused.is_none() {
                    self.report.made.push((topic.clone(), partitions));
                }
            }
            Some(code) => {
                // A list of values stands in brackets, so that the tool does not take its comma for the next setting.
                let bracketed =
                    |value: &str| if value.contains(',') { format!("[{value}]") } else { value.to_owned() };
                let text: Vec<String> =
                    settings.iter().map(|(name, value)| format!("{name}={}", bracketed(value))).collect();
                let text: Vec<&str> = text.iter().map(String::as_str).collect();
                let command = self.create(topic, Some(partitions), &text);
                self.problem(TopicProblem::NotMade { topic: topic.clone(), why: code.to_string(), command });
            }
        }
        Ok(())
    }

    /// Lets a topic of the gate's own grow to the number of its source's partitions.
    pub(super) fn grow(
        &mut self,
        source: &Topic,
        topic: &Topic,
        (has, needs): (i32, i32),
        make: bool,
    ) -> Result<(), AdminError> {
        if !make {
            self.report.would_make.push((topic.clone(), needs));
            return Ok(());
        }
        let count = usize::try_from(needs).unwrap_or(usize::MAX);
        let more = NewPartitions::new(topic.as_str(), count);
        let results = self.runtime.block_on(self.admin.create_partitions([&more], &options()))?;
        self.report.facts.remove(topic);
        if self.await_partitions(topic, needs)? {
            // Another gate of the group may have been faster.
            if results.iter().all(Result::is_ok) {
                self.report.made.push((topic.clone(), needs));
            }
        } else {
            let command = format!("{} --alter --topic {topic} --partitions {needs}", self.tool);
            let (topic, of) = (source.clone(), topic.clone());
            self.problem(TopicProblem::TooFew { topic, of, has, needs, command });
        }
        Ok(())
    }

    /// Waits until the broker has heard of so many partitions; whether it has.
    fn await_partitions(&mut self, topic: &Topic, needs: i32) -> Result<bool, AdminError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.see(topic)?.is_some_and(|count| count >= needs) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.report.facts.remove(topic);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the broker that is asked has heard of what a new topic was made with: it may know the topic before. One that
    /// somebody else has made otherwise stays as it is, and is judged by what it is.
    fn await_settings(&mut self, topic: &Topic, wanted: &[(&str, String)]) -> Result<(), AdminError> {
        let deadline = Instant::now() + HEARD_WITHIN;
        loop {
            // Settings that are not told cannot be waited for.
            let Some(found) = self.settings.get(topic) else { return Ok(()) };
            let is_there = |(name, value): &(&str, String)| found.get(*name) == Some(value);
            if wanted.iter().all(is_there) || Instant::now() >= deadline {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
            self.report.facts.remove(topic);
            self.see(topic)?;
        }
    }

    pub(super) fn create(&self, topic: &Topic, partitions: Option<i32>, settings: &[&str]) -> String {
        let partitions = partitions.unwrap_or(SUGGESTED_PARTITIONS);
        let settings: String = settings.iter().map(|setting| format!(" --config {setting}")).collect();
        format!("{} --create --topic {topic} --partitions {partitions}{settings}", self.tool)
    }

    pub(super) fn alter(&self, topic: &Topic, setting: &str) -> String {
        format!("{} --entity-name {topic} --add-config {setting}", self.configs)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}
