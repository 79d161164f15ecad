//! What becomes of the gate itself: its start and end, its topics, and the snapshots that decide. Limits: a problem with
//! a snapshot is told in words that hold no key.

use std::net::SocketAddr;

use opentelemetry::KeyValue;

use crate::authorize::ids::{Realm, Topic, WorkloadId};
use crate::telemetry::{SnapshotKind, Telemetry};

/// The gate is about to start this many lanes; `/readyz` waits for all of them.
#[derive(Debug)]
pub struct GateStarted<'a> {
    /// The realm it serves.
    pub realm: &'a Realm,
    /// The gate's own identifier.
    pub gate: &'a WorkloadId,
    /// How many lanes it runs.
    pub lanes: usize,
}

impl GateStarted<'_> {
    /// Writes the log line and expects the lanes.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.expect_lanes(self.lanes);
        tracing::info!(
            name: "gate_started",
            realm = self.realm.as_str(),
            gate = self.gate.as_str(),
            lanes = self.lanes,
            version = env!("CARGO_PKG_VERSION"),
            "gate started"
        );
    }
}

/// One of the gate's HTTP interfaces is served.
#[derive(Debug)]
pub struct ServerListening {
    /// Which: `health and metrics`, ...
    pub what: &'static str,
    /// The address, with its real port.
    pub address: SocketAddr,
}

impl ServerListening {
    /// Writes the log line.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(name: "server_listening", address = %self.address, "{} are served", self.what);
    }
}

/// The gate has ended in good order.
#[derive(Debug)]
pub struct GateStopped;

impl GateStopped {
    /// Writes the log line.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(name: "gate_stopped", "gate stopped");
    }
}

/// A new snapshot decides from the next batch on.
#[derive(Debug)]
pub struct SnapshotLoaded<'a> {
    /// Which.
    pub snapshot: SnapshotKind,
    /// Its version or digest.
    pub version: &'a str,
}

impl SnapshotLoaded<'_> {
    /// Logs and counts it, and starts its age.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.loaded(self.snapshot, self.version);
        count_load(telemetry, self.snapshot, "loaded");
        tracing::info!(
            name: "snapshot_loaded",
            snapshot = self.snapshot.as_str(),
            version = self.version,
            "snapshot loaded"
        );
    }
}

/// What was offered as a new snapshot is not fit to decide; the last good one stays.
#[derive(Debug)]
pub struct SnapshotRefused<'a> {
    /// Which.
    pub snapshot: SnapshotKind,
    /// What is wrong with it: never the text of a key.
    pub problem: &'a str,
}

impl SnapshotRefused<'_> {
    /// Logs and counts it, and shows the snapshot as stale.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.status.refused(self.snapshot);
        count_load(telemetry, self.snapshot, "refused");
        tracing::error!(
            name: "snapshot_refused",
            snapshot = self.snapshot.as_str(),
            problem = self.problem,
            "snapshot refused; the last good one stays"
        );
    }
}

/// The gate made a topic of its own that was missing.
#[derive(Debug)]
pub struct TopicCreated<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// Its partition count.
    pub partitions: i32,
}

impl TopicCreated<'_> {
    /// Logs it.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(
            name: "topic_created",
            topic = self.topic.as_str(),
            partitions = self.partitions,
            "topic created"
        );
    }
}

/// A topic is there and works, but a person should know something about it.
#[derive(Debug)]
pub struct TopicWarned<'a> {
    /// What, with advice.
    pub warning: &'a str,
}

impl TopicWarned<'_> {
    /// Logs it.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::warn!(name: "topic_warned", warning = self.warning, "a topic needs a look");
    }
}

/// The gate cannot look at its topics yet, since no broker answers; it goes on trying.
#[derive(Debug)]
pub struct BrokerAwaited<'a> {
    /// The broker's, or the client's, words.
    pub problem: &'a str,
}

impl BrokerAwaited<'_> {
    /// Logs it.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::warn!(name: "broker_awaited", problem = self.problem, "no broker answers; waiting");
    }
}

fn count_load(telemetry: &Telemetry, snapshot: SnapshotKind, result: &'static str) {
    let labels = [KeyValue::new("snapshot", snapshot.as_str()), KeyValue::new("result", result)];
    telemetry.inner.instruments.snapshot_loads.add(1, &labels);
}
