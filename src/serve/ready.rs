//! The body of `/readyz`: the state of each lane, partition and snapshot, and why the gate is not ready. Limits: the
//! names of its members are an interface and change only by addition.

use serde::Serialize;

use crate::telemetry::{
    Entries, GateStatus, LaneStatus, PartitionStatus, SnapshotStatus, TopicPartition, ViewStatus,
};

/// The whole body.
#[derive(Debug, Serialize)]
pub(super) struct Body {
    ready: bool,
    not_ready: Vec<String>,
    lanes: Vec<Lane>,
    snapshots: Vec<Snapshot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<View>,
}

#[derive(Debug, Serialize)]
struct View {
    oldest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<f64>,
    stale: bool,
    live_workflows: usize,
    ended_workflows: usize,
    revocations: usize,
    entities: usize,
    refused: usize,
}

#[derive(Debug, Serialize)]
struct Lane {
    lane: usize,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    restored: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
    replay_entries: u64,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    snapshot: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<f64>,
    stale: bool,
}

impl From<GateStatus> for Body {
    fn from(status: GateStatus) -> Self {
        Self {
            ready: status.is_ready(),
            not_ready: status.not_ready,
            lanes: status.lanes.into_iter().map(Lane::from).collect(),
            snapshots: status.snapshots.into_iter().map(Snapshot::from).collect(),
            view: status.view.map(View::from),
        }
    }
}

impl From<LaneStatus> for Lane {
    fn from(lane: LaneStatus) -> Self {
        Self {
            lane: lane.lane,
            state: lane.state.as_str(),
            reason: lane.reason,
            partitions: lane.partitions.into_iter().map(Partition::from).collect(),
        }
    }
}

impl From<(TopicPartition, PartitionStatus)> for Partition {
    fn from(((topic, partition), status): (TopicPartition, PartitionStatus)) -> Self {
        Self {
            topic: topic.to_string(),
            partition: partition.0,
            restored: status.restored,
            lag: status.lag,
            replay_entries: status.replay_entries,
        }
    }
}

impl From<SnapshotStatus> for Snapshot {
    fn from(snapshot: SnapshotStatus) -> Self {
        Self {
            snapshot: snapshot.kind.as_str(),
            version: snapshot.version,
            age_seconds: snapshot.age.map(|age| age.as_secs_f64()),
            stale: snapshot.stale,
        }
    }
}

impl From<ViewStatus> for View {
    fn from(view: ViewStatus) -> Self {
        let Entries { live_workflows, ended_workflows, revocations, entities, refused } = view.entries;
        Self {
            oldest: view.part,
            age_seconds: view.age.map(|age| age.as_secs_f64()),
            stale: view.stale,
            live_workflows,
            ended_workflows,
            revocations,
            entities,
            refused,
        }
    }
}
