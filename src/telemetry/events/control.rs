//! What becomes of the topics that the gate follows: how far and how freshly they are read, and what of them is not applied.
//! Limits: places, numbers, and what is wrong in our own words or Cedar's; no token and no key.

use std::time::Duration;

use opentelemetry::KeyValue;

use crate::authorize::ids::{Coordinates, Topic};
use crate::telemetry::status::{Entries, View};
use crate::telemetry::{Fact, Telemetry};

/// The followed topics have been read to their end for the first time.
#[derive(Debug)]
pub struct ControlRead {
    /// How long that took.
    pub took: Duration,
    /// Records that were taken in.
    pub records: u64,
}

impl ControlRead {
    /// Writes the log line.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(
            name: "control_read",
            took_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            records = self.records,
            "control topics are read to their end"
        );
    }
}

/// How old the view of the followed topics is, and how much they say.
#[derive(Debug)]
pub struct ControlViewed<'a> {
    /// The oldest part.
    pub part: &'a str,
    /// Its age; `None` where it has not been read to its end yet.
    pub age: Option<Duration>,
    /// How old it may be.
    pub limit: Duration,
    /// How much is known.
    pub entries: Entries,
}

impl ControlViewed<'_> {
    /// Shows it in the status and in the gauges.
    pub fn emit(&self, telemetry: &Telemetry) {
        let view = View::new(self.part, self.age, self.limit, self.entries);
        telemetry.inner.status.viewed(view);
    }
}

/// The view has become too old to decide by. Emit it once; [`ViewCurrent`] ends it.
#[derive(Debug)]
pub struct ViewStale<'a> {
    /// What is too old, and how old.
    pub problem: &'a str,
}

impl ViewStale<'_> {
    /// Writes the log line.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::warn!(name: "view_stale", problem = self.problem, "the view of the control topics is too old");
    }
}

/// The view is current again.
#[derive(Debug)]
pub struct ViewCurrent;

impl ViewCurrent {
    /// Writes the log line.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(name: "view_current", "the view of the control topics is current again");
    }
}

/// The followed topics cannot be read, or nothing can be written to them. Emit it once for each problem.
#[derive(Debug)]
pub struct ControlAway<'a> {
    /// The broker's, or the client's, words.
    pub problem: &'a str,
}

impl ControlAway<'_> {
    /// Writes the log line.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::warn!(name: "control_away", problem = self.problem, "control topics are out of reach");
    }
}

/// A record of a followed topic is in force.
#[derive(Debug)]
pub struct FactApplied<'a> {
    /// What it is about.
    pub fact: Fact,
    /// Where it stands.
    pub at: &'a Coordinates,
    /// What it has changed.
    pub change: &'a str,
}

impl FactApplied<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        count(telemetry, self.fact, "applied");
        tracing::debug!(
            name: "fact_applied",
            fact = self.fact.as_str(),
            topic = self.at.topic.as_str(),
            partition = self.at.partition.0,
            offset = self.at.offset.0,
            change = self.change,
            "fact applied"
        );
    }
}

/// A record of a followed topic is not applied: it cannot be verified, or it does not fit.
#[derive(Debug)]
pub struct FactRefused<'a> {
    /// What it is about.
    pub fact: Fact,
    /// Where it stands.
    pub at: &'a Coordinates,
    /// What is wrong with it.
    pub problem: &'a str,
}

impl FactRefused<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        count(telemetry, self.fact, "refused");
        tracing::error!(
            name: "fact_refused",
            fact = self.fact.as_str(),
            topic = self.at.topic.as_str(),
            partition = self.at.partition.0,
            offset = self.at.offset.0,
            problem = self.problem,
            "fact not applied"
        );
    }
}

/// A followed topic has more partitions than before; the new ones are followed too.
#[derive(Debug)]
pub struct ControlGrew<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// Its partition count now.
    pub partitions: i32,
}

impl ControlGrew<'_> {
    /// Writes the log line.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(
            name: "control_grew",
            topic = self.topic.as_str(),
            partitions = self.partitions,
            "a control topic has grown"
        );
    }
}

fn count(telemetry: &Telemetry, fact: Fact, result: &'static str) {
    let labels = [KeyValue::new("fact", fact.as_str()), KeyValue::new("result", result)];
    telemetry.inner.instruments.facts.add(1, &labels);
}
