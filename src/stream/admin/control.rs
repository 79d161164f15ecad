//! The control topics before a gate starts: made where they are missing, looked at where they are there. Limits: as for every
//! topic, nothing that exists is changed.

use super::look::Look;
use super::{AdminError, TopicProblem, is_compacted};
use crate::authorize::ids::Topic;
use crate::config::ControlSettings;

/// Partitions of a control topic that the gate makes: it is read whole by every gate, so more of them spread no load.
const PARTITIONS: i32 = 1;
/// How long a segment grows before it can be compacted. Each gate writes a record a second, and all of it is read at each
/// start.
const SEGMENT: (&str, &str) = ("segment.ms", "3600000");
/// How long what is said once a second, or of the moment, is kept.
const RETENTION: (&str, &str) = ("retention.ms", "86400000");

/// What a control topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    /// Facts that hold until they are replaced: nothing may be forgotten by time.
    Facts,
    /// What gates have taken in: by the broker's clock.
    Fleet,
    /// What the work in flight is told.
    Signals,
}

/// A control topic of the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlTopic {
    /// The topic.
    pub topic: Topic,
    /// What it is for.
    pub kind: ControlKind,
}

/// The control topics that a configuration names.
pub fn control_topics(control: &ControlSettings) -> Vec<ControlTopic> {
    let facts = control.followed().map(|topic| (topic, ControlKind::Facts));
    let fleet = control.fleet.iter().map(|topic| (topic, ControlKind::Fleet));
    let signals = control.signals.iter().map(|topic| (topic, ControlKind::Signals));
    let all = facts.chain(fleet).chain(signals);
    all.map(|(topic, kind)| ControlTopic { topic: topic.clone(), kind }).collect()
}

impl ControlKind {
    /// The settings with which the gate makes such a topic.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        const OF_THE_BROKER: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
        match self {
            Self::Facts => &[("cleanup.policy", "compact"), SEGMENT],
            Self::Fleet | Self::Signals => {
                &[("cleanup.policy", "compact,delete"), RETENTION, SEGMENT, OF_THE_BROKER]
            }
        }
    }
}

impl Look {
    /// Looks at a control topic, and makes it where it is missing and `make` says so.
    pub(super) fn control(&mut self, control: &ControlTopic, make: bool) -> Result<(), AdminError> {
        let topic = &control.topic;
        if self.see(topic)?.is_none() {
            let settings: Vec<_> =
                control.kind.settings().iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            return self.make(topic, PARTITIONS, &settings, make);
        }
        let Some(settings) = self.settings.get(topic) else { return Ok(()) };
        let policy = settings.get("cleanup.policy").cloned().unwrap_or_default();
        let is_of_the_broker =
            settings.get("message.timestamp.type").is_none_or(|kind| kind == "LogAppendTime");
        if !is_compacted(settings) {
            let wanted = control.kind.settings().first().map_or("compact", |(_, policy)| policy);
            let command = self.alter(topic, &format!("cleanup.policy=[{wanted}]"));
            self.problem(TopicProblem::NotCompacted { topic: topic.clone(), command });
        } else if control.kind == ControlKind::Facts && policy.contains("delete") {
            let command = self.alter(topic, "cleanup.policy=compact");
            self.problem(TopicProblem::Forgets { topic: topic.clone(), command });
        }
        if control.kind == ControlKind::Fleet && !is_of_the_broker {
            let command = self.alter(topic, "message.timestamp.type=LogAppendTime");
            self.problem(TopicProblem::Timestamps { topic: topic.clone(), command });
        }
        Ok(())
    }
}
