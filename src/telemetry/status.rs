//! What the gate is doing right now: its lanes, their partitions and the snapshots that decide. Written by events,
//! read by the gauges and by `/readyz`. Limits: names and numbers of the configuration and the broker only; nothing
//! that a sender chose is kept here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::events::BreakerIs;
use crate::authorize::ids::{Partition, Topic};

/// The three things that decide beside the record itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SnapshotKind {
    /// Keys of the trust domains.
    Trust,
    /// The policy bundle and its schema.
    Policy,
    /// The entity store.
    Entities,
}

impl SnapshotKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Trust, Self::Policy, Self::Entities];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Policy => "policy",
            Self::Entities => "entities",
        }
    }
}

/// What a record of a followed topic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fact {
    /// How a workflow stands.
    Workflow,
    /// What is revoked.
    Revocation,
    /// An entity.
    Entity,
}

impl Fact {
    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Revocation => "revocation",
            Self::Entity => "entity",
        }
    }
}

/// How much of the followed topics is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entries {
    /// Workflows that run or are suspended.
    pub live_workflows: usize,
    /// Workflows that have ended.
    pub ended_workflows: usize,
    /// Revocations.
    pub revocations: usize,
    /// Entities.
    pub entities: usize,
    /// Records that were read and could not be applied.
    pub refused: usize,
}

impl Entries {
    /// Each number with its name.
    pub(super) fn named(&self) -> [(&'static str, usize); 5] {
        [
            ("live_workflows", self.live_workflows),
            ("ended_workflows", self.ended_workflows),
            ("revocations", self.revocations),
            ("entities", self.entities),
            ("refused", self.refused),
        ]
    }
}

/// The view of the followed topics, as it stands at the moment of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStatus {
    /// Its oldest part.
    pub part: String,
    /// The age of that; `None` where it has not been read to its end yet.
    pub age: Option<Duration>,
    /// Whether that is too old to decide by.
    pub stale: bool,
    /// How much is kept.
    pub entries: Entries,
}

/// The view as it was last said to be.
#[derive(Debug)]
pub(super) struct View {
    part: String,
    /// How old it was, and when that was said.
    age: Option<(Duration, Instant)>,
    limit: Duration,
    entries: Entries,
}

impl View {
    pub(super) fn new(part: &str, age: Option<Duration>, limit: Duration, entries: Entries) -> Self {
        let age = age.map(|age| (age, Instant::now()));
        Self { part: part.to_owned(), age, limit, entries }
    }

    fn status(&self) -> ViewStatus {
        let age = self.age.map(|(age, since)| age + since.elapsed());
        let stale = age.is_none_or(|age| age > self.limit);
        ViewStatus { part: self.part.clone(), age, stale, entries: self.entries }
    }
}

/// What a lane is doing, as metrics and `/readyz` say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneState {
    /// It has not been given its partitions yet.
    Joining,
    /// It reads back the state of partitions that it gained; it decides nothing there yet.
    Restoring,
    /// It decides.
    Running,
    /// It holds back on purpose; the reason says why.
    Paused,
    /// It cannot reach its broker.
    Away,
    /// It has ended.
    Stopped,
}

impl LaneState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Joining, Self::Restoring, Self::Running, Self::Paused, Self::Away, Self::Stopped];

    /// The name in metrics and in the body of `/readyz`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Restoring => "restoring",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Away => "away",
            Self::Stopped => "stopped",
        }
    }
}

/// A topic and one of its partitions.
pub type TopicPartition = (Topic, Partition);

/// One partition that a lane owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The route that reads it; known from the first progress on.
    pub route: Option<String>,
    /// Whether its state has been read back.
    pub restored: bool,
    /// Records between what is committed and the end of the partition; `None` until known.
    pub lag: Option<u64>,
    /// Proofs remembered for it.
    pub replay_entries: u64,
    /// What is held of it; `None` where the route does not hold, or before it is known.
    pub held: Option<HeldStatus>,
}

/// What is held of a partition, as of its last commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldStatus {
    /// Records, those that wait behind another included.
    pub records: u64,
    /// How long ago the first of them was asked about.
    pub oldest: Option<Duration>,
}

/// One lane, as it stands at the moment of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// The lane's number, from 0.
    pub lane: usize,
    /// What it is doing.
    pub state: LaneState,
    /// Why it is paused, away or stopped.
    pub reason: Option<String>,
    /// What it owns.
    pub partitions: BTreeMap<TopicPartition, PartitionStatus>,
}

/// A route that has stopped in a lane because of its denials, and perhaps goes on again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerStatus {
    /// The lane.
    pub lane: usize,
    /// The route.
    pub route: String,
    /// Why it does not go on, or that it is being tried; `None` where it goes on.
    pub reason: Option<String>,
}

/// One snapshot, as it stands at the moment of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// Which.
    pub kind: SnapshotKind,
    /// The version that decides; `None` before the first load.
    pub version: Option<String>,
    /// Time since that version was loaded.
    pub age: Option<Duration>,
    /// Whether something newer was offered and refused since.
    pub stale: bool,
}

/// The gate as a whole, at the moment of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateStatus {
    /// Every lane that the configuration asks for, in order.
    pub lanes: Vec<LaneStatus>,
    /// Routes that have once stopped in a lane because of their denials.
    pub breakers: Vec<BreakerStatus>,
    /// The three snapshots.
    pub snapshots: Vec<SnapshotStatus>,
    /// The view of the followed topics; `None` where none is followed.
    pub view: Option<ViewStatus>,
    /// Why the gate is not ready; empty when it is.
    pub not_ready: Vec<String>,
}

impl GateStatus {
    /// Whether every lane has joined and restored what it owns, and every snapshot is loaded.
    pub fn is_ready(&self) -> bool {
        self.not_ready.is_empty()
    }
}

/// The shared picture. Locks are held for a few map operations and never across IO.
#[derive(Debug, Default)]
pub(super) struct Status {
    picture: Mutex<Picture>,
}

#[derive(Debug, Default)]
struct Picture {
    started: bool,
    lanes: BTreeMap<usize, Lane>,
    snapshots: BTreeMap<SnapshotKind, Loaded>,
    view: Option<View>,
    /// By lane and route.
    breakers: BTreeMap<(usize, String), Option<String>>,
}

#[derive(Debug, Default)]
struct Lane {
    phase: Phase,
    partitions: BTreeMap<TopicPartition, PartitionStatus>,
}

/// What the lane last said of itself; whether it restores follows from its partitions.
#[derive(Debug, Default)]
enum Phase {
    #[default]
    Joining,
    Joined,
    Paused(String),
    Away(String),
    Stopped(String),
}

#[derive(Debug)]
struct Loaded {
    version: String,
    at: Instant,
    stale: bool,
}

impl Status {
    /// The gate as it stands now.
    pub(super) fn read(&self) -> GateStatus {
        let picture = self.lock();
        let lanes: Vec<LaneStatus> =
            picture.lanes.iter().map(|(number, lane)| lane.status(*number)).collect();
        let snapshots: Vec<SnapshotStatus> =
            SnapshotKind::ALL.into_iter().map(|kind| snapshot_status(kind, &picture.snapshots)).collect();
        let mut not_ready = Vec::new();
        if !picture.started {
            not_ready.push("the gate has not started its lanes".to_owned());
        }
        for lane in lanes.iter().filter(|lane| lane.state != LaneState::Running) {
            let state = lane.state.as_str();
            not_ready.push(match &lane.reason {
                Some(reason) => format!("lane {} is {state}: {reason}", lane.lane),
                None => format!("lane {} is {state}", lane.lane),
            });
        }
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.version.is_none()) {
            not_ready.push(format!("no {} snapshot is loaded", snapshot.kind.as_str()));
        }
        let view = picture.view.as_ref().map(View::status);
        if let Some(view) = view.as_ref().filter(|view| view.stale) {
            not_ready.push(match view.age {
                Some(age) => format!("the view of {} is {:.1} s old", view.part, age.as_secs_f64()),
                None => format!("{} has not been read to its end yet", view.part),
            });
        }
        let breakers: Vec<BreakerStatus> = picture
            .breakers
            .iter()
            .map(|((lane, route), reason)| BreakerStatus {
                lane: *lane,
                route: route.clone(),
                reason: reason.clone(),
            })
            .collect();
        for BreakerStatus { lane, route, reason } in &breakers {
            let Some(reason) = reason else { continue };
            not_ready.push(format!("route `{route}` has stopped in lane {lane}: {reason}"));
        }
        GateStatus { lanes, breakers, snapshots, view, not_ready }
    }

    pub(super) fn expect_lanes(&self, lanes: usize) {
        let mut picture = self.lock();
        picture.started = true;
        for number in 0..lanes {
            picture.lanes.entry(number).or_default();
        }
    }

    pub(super) fn assigned(&self, lane: usize, gained: &[TopicPartition]) {
        self.lane(lane, |lane| {
            lane.phase = Phase::Joined;
            for partition in gained {
                lane.partitions.insert(partition.clone(), PartitionStatus::default());
            }
        });
    }

    pub(super) fn revoked(&self, lane: usize, gone: &[TopicPartition]) {
        self.lane(lane, |lane| {
            for partition in gone {
                lane.partitions.remove(partition);
            }
        });
    }

    pub(super) fn restored(&self, lane: usize, partition: &TopicPartition, replay_entries: u64) {
        self.partition(lane, partition, |status| {
            status.restored = true;
            status.replay_entries = replay_entries;
        });
    }

    pub(super) fn progress(
        &self,
        lane: usize,
        partition: &TopicPartition,
        route: &str,
        lag: Option<u64>,
        replay_entries: u64,
        held: Option<HeldStatus>,
    ) {
        self.partition(lane, partition, |status| {
            status.held = held;
            if status.route.as_deref() != Some(route) {
                status.route = Some(route.to_owned());
            }
            status.lag = lag.or(status.lag);
            status.replay_entries = replay_entries;
        });
    }

    pub(super) fn paused(&self, lane: usize, reason: &str) {
        self.lane(lane, |lane| lane.phase = Phase::Paused(reason.to_owned()));
    }

    pub(super) fn away(&self, lane: usize, problem: &str) {
        self.lane(lane, |lane| lane.phase = Phase::Away(problem.to_owned()));
    }

    /// The lane goes on after a pause or after its broker was away.
    pub(super) fn resumed(&self, lane: usize) {
        self.lane(lane, |lane| lane.phase = Phase::Joined);
    }

    pub(super) fn stopped(&self, lane: usize, reason: &str) {
        self.lane(lane, |lane| {
            lane.phase = Phase::Stopped(reason.to_owned());
            lane.partitions.clear();
        });
        self.lock().breakers.retain(|(of, _), _| *of != lane);
    }

    pub(super) fn breaker(&self, lane: usize, route: &str, is: BreakerIs<'_>) {
        let reason = match is {
            BreakerIs::Open(reason) => Some(reason.to_owned()),
            BreakerIs::Trying => Some("a few records are being tried".to_owned()),
            BreakerIs::Closed => None,
        };
        self.lock().breakers.insert((lane, route.to_owned()), reason);
    }

    pub(super) fn loaded(&self, kind: SnapshotKind, version: &str) {
        let loaded = Loaded { version: version.to_owned(), at: Instant::now(), stale: false };
        self.lock().snapshots.insert(kind, loaded);
    }

    pub(super) fn refused(&self, kind: SnapshotKind) {
        if let Some(loaded) = self.lock().snapshots.get_mut(&kind) {
            loaded.stale = true;
        }
    }

    pub(super) fn viewed(&self, view: View) {
        self.lock().view = Some(view);
    }

    fn lane(&self, number: usize, change: impl FnOnce(&mut Lane)) {
        change(self.lock().lanes.entry(number).or_default());
    }

    /// Changes a partition that the lane owns; what it has lost meanwhile is not brought back.
    fn partition(&self, lane: usize, partition: &TopicPartition, change: impl FnOnce(&mut PartitionStatus)) {
        self.lane(lane, |lane| {
            if let Some(status) = lane.partitions.get_mut(partition) {
                change(status);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Picture> {
        // A panic elsewhere leaves plain data behind: every change is one assignment or map operation.
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn status(&self, number: usize) -> LaneStatus {
        let restored = self.partitions.values().all(|partition| partition.restored);
        let (state, reason) = match &self.phase {
            Phase::Joining => (LaneState::Joining, None),
            Phase::Joined if restored => (LaneState::Running, None),
            Phase::Joined => (LaneState::Restoring, None),
            Phase::Paused(reason) => (LaneState::Paused, Some(reason.clone())),
            Phase::Away(reason) => (LaneState::Away, Some(reason.clone())),
            Phase::Stopped(reason) => (LaneState::Stopped, Some(reason.clone())),
        };
        LaneStatus { lane: number, state, reason, partitions: self.partitions.clone() }
    }
}

fn snapshot_status(kind: SnapshotKind, snapshots: &BTreeMap<SnapshotKind, Loaded>) -> SnapshotStatus {
    let loaded = snapshots.get(&kind);
    SnapshotStatus {
        kind,
        version: loaded.map(|loaded| loaded.version.clone()),
        age: loaded.map(|loaded| loaded.at.elapsed()),
        stale: loaded.is_some_and(|loaded| loaded.stale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> TopicPartition {
        (Topic::parse("payments.commands").unwrap(), Partition(number))
    }

    fn all_snapshots(status: &Status) {
        for kind in SnapshotKind::ALL {
            status.loaded(kind, "v1");
        }
    }

    #[test]
    fn a_gate_that_has_not_started_is_not_ready() {
        let status = Status::default();
        all_snapshots(&status);
        assert!(!status.read().is_ready());
    }

    #[test]
    fn a_gate_is_ready_when_every_lane_has_restored_and_every_snapshot_is_loaded() {
        let status = Status::default();
        status.expect_lanes(2);
        status.assigned(0, &[partition(0), partition(1)]);
        status.assigned(1, &[]);
        status.restored(0, &partition(0), 7);
        assert_eq!(status.read().lanes[0].state, LaneState::Restoring);
        status.restored(0, &partition(1), 0);
        assert_eq!(status.read().not_ready.len(), 3, "the snapshots are missing");
        all_snapshots(&status);
        assert!(status.read().is_ready());
    }

    #[test]
    fn a_partition_gained_again_must_be_restored_again() {
        let status = Status::default();
        status.assigned(0, &[partition(0)]);
        status.restored(0, &partition(0), 7);
        status.revoked(0, &[partition(0)]);
        status.assigned(0, &[partition(0)]);
        assert_eq!(status.read().lanes[0].state, LaneState::Restoring);
    }

    #[test]
    fn progress_on_a_lost_partition_does_not_bring_it_back() {
        let status = Status::default();
        status.assigned(0, &[partition(0)]);
        status.revoked(0, &[partition(0)]);
        status.progress(0, &partition(0), "payments", Some(3), 9, None);
        assert!(status.read().lanes[0].partitions.is_empty());
    }

    #[test]
    fn a_view_that_is_too_old_or_not_complete_keeps_the_gate_from_being_ready() {
        let status = Status::default();
        all_snapshots(&status);
        status.expect_lanes(0);
        let part = "`c.revocations/0`";
        let limit = Duration::from_secs(10);
        let viewed = |age: Option<u64>| {
            status.viewed(View::new(part, age.map(Duration::from_secs), limit, Entries::default()));
            status.read().not_ready
        };
        assert!(viewed(Some(1)).is_empty());
        assert!(viewed(None)[0].contains("`c.revocations/0` has not been read"));
        assert!(viewed(Some(11))[0].contains("the view of `c.revocations/0` is 11."));
    }

    #[test]
    fn a_refused_snapshot_leaves_the_last_good_one_and_says_so() {
        let status = Status::default();
        status.loaded(SnapshotKind::Policy, "v1");
        status.refused(SnapshotKind::Policy);
        let policy = status.read().snapshots.into_iter().find(|s| s.kind == SnapshotKind::Policy).unwrap();
        assert_eq!((policy.version.as_deref(), policy.stale), (Some("v1"), true));
    }
}
