//! What becomes of lanes: the partitions they gain and lose, and whether they can go on. Limits: names and numbers of
//! the broker, and its words.

use std::time::Duration;

use opentelemetry::KeyValue;

use super::micros;
use crate::telemetry::{Telemetry, TopicPartition};

/// A lane was given partitions; none at all also means that it has joined.
#[derive(Debug)]
pub struct LaneAssigned<'a> {
    /// The lane.
    pub lane: usize,
    /// What it gained; nothing is decided there before [`PartitionRestored`].
    pub partitions: &'a [TopicPartition],
}

impl LaneAssigned<'_> {
    /// Logs it, counts the partitions and shows the lane as restoring.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.assigned(self.lane, self.partitions);
        moved(telemetry, self.partitions, "gained");
        tracing::info!(
            name: "lane_assigned",
            lane = self.lane,
            partitions = written(self.partitions),
            "lane gained partitions"
        );
    }
}

/// A lane gave partitions back, or found that they were taken from it.
#[derive(Debug)]
pub struct LaneRevoked<'a> {
    /// The lane.
    pub lane: usize,
    /// What is gone.
    pub partitions: &'a [TopicPartition],
    /// Whether they were lost, rather than given back in good order.
    pub lost: bool,
}

impl LaneRevoked<'_> {
    /// Logs it, counts the partitions and forgets their gauges.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.revoked(self.lane, self.partitions);
        let partitions = written(self.partitions);
        if self.lost {
            moved(telemetry, self.partitions, "lost");
            tracing::warn!(name: "lane_revoked", lane = self.lane, partitions, lost = true, "lane lost partitions");
        } else {
            moved(telemetry, self.partitions, "given_back");
            tracing::info!(
                name: "lane_revoked",
                lane = self.lane,
                partitions,
                lost = false,
                "lane gave partitions back"
            );
        }
    }
}

/// A gained partition's state has been read back; from here on the lane decides its records.
#[derive(Debug)]
pub struct PartitionRestored<'a> {
    /// The lane.
    pub lane: usize,
    /// The partition.
    pub partition: &'a TopicPartition,
    /// Proofs that were read back.
    pub replay_entries: usize,
    /// How long it took.
    pub took: Duration,
}

impl PartitionRestored<'_> {
    /// Logs it, records the time and shows the partition as restored.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.restored(self.lane, self.partition, self.replay_entries as u64);
        telemetry.inner.instruments.restore_duration.record(self.took.as_secs_f64(), &[]);
        tracing::info!(
            name: "partition_restored",
            lane = self.lane,
            topic = self.partition.0.as_str(),
            partition = self.partition.1.0,
            replay_entries = self.replay_entries,
            took_us = micros(self.took),
            "partition restored"
        );
    }
}

/// A lane cannot reach its broker. Emit it once; [`LaneResumed`] ends it.
#[derive(Debug)]
pub struct BrokerAway<'a> {
    /// The lane.
    pub lane: usize,
    /// What the client library said.
    pub problem: &'a str,
}

impl BrokerAway<'_> {
    /// Logs and counts it, and shows the lane as away.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.away(self.lane, self.problem);
        telemetry.inner.instruments.broker_away.add(1, &[]);
        tracing::warn!(name: "broker_away", lane = self.lane, problem = self.problem, "broker is away");
    }
}

/// A lane holds back on purpose. [`LaneResumed`] ends it.
#[derive(Debug)]
pub struct LanePaused<'a> {
    /// The lane.
    pub lane: usize,
    /// Why, for an operator.
    pub reason: &'a str,
}

impl LanePaused<'_> {
    /// Logs it and shows the lane as paused.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.paused(self.lane, self.reason);
        tracing::warn!(name: "lane_paused", lane = self.lane, reason = self.reason, "lane paused");
    }
}

/// How the breaker of a route stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerIs<'a> {
    /// The route stops. Holds why.
    Open(&'a str),
    /// A few records are tried.
    Trying,
    /// The route goes on.
    Closed,
}

/// The breaker of a route has moved in a lane.
#[derive(Debug)]
pub struct BreakerMoved<'a> {
    /// The lane.
    pub lane: usize,
    /// The route.
    pub route: &'a str,
    /// How it stands now.
    pub is: BreakerIs<'a>,
}

impl BreakerMoved<'_> {
    /// Logs and counts it, and shows the gate as not ready while the route does not go on.
    pub fn emit(&self, telemetry: &Telemetry) {
        let (lane, route) = (self.lane, self.route);
        telemetry.inner.status.breaker(lane, route, self.is);
        match self.is {
            BreakerIs::Open(reason) => {
                let labels = [KeyValue::new("route", route.to_owned())];
                telemetry.inner.instruments.breaker_opened.add(1, &labels);
                tracing::error!(name: "breaker_opened", lane, route, reason, "route stopped: too much of it is denied");
            }
            BreakerIs::Trying => {
                tracing::warn!(name: "breaker_trying", lane, route, "stopped route tries a few records");
            }
            BreakerIs::Closed => {
                tracing::info!(name: "breaker_closed", lane, route, "route goes on");
            }
        }
    }
}

/// A lane goes on after it was paused or its broker was away.
#[derive(Debug)]
pub struct LaneResumed {
    /// The lane.
    pub lane: usize,
}

impl LaneResumed {
    /// Logs it and shows the lane as running.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.resumed(self.lane);
        tracing::info!(name: "lane_resumed", lane = self.lane, "lane resumed");
    }
}

/// A lane has ended: in good order, or because it cannot go on.
#[derive(Debug)]
pub struct LaneStopped<'a> {
    /// The lane.
    pub lane: usize,
    /// What ended it; `None` is a shutdown that was asked for.
    pub problem: Option<&'a str>,
}

impl LaneStopped<'_> {
    /// Logs it and shows the lane as stopped.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.stopped(self.lane, self.problem.unwrap_or("shut down"));
        match self.problem {
            Some(problem) => tracing::error!(name: "lane_stopped", lane = self.lane, problem, "lane failed"),
            None => tracing::info!(name: "lane_stopped", lane = self.lane, "lane stopped"),
        }
    }
}

fn moved(telemetry: &Telemetry, partitions: &[TopicPartition], direction: &'static str) {
    let labels = [KeyValue::new("direction", direction)];
    telemetry.inner.instruments.partitions_moved.add(partitions.len() as u64, &labels);
}

fn written(partitions: &[TopicPartition]) -> String {
    let names: Vec<String> =
        partitions.iter().map(|(topic, partition)| format!("{topic}/{partition}")).collect();
    names.join(" ")
}
