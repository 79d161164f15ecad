//! Lanes on the log in memory: what the promises mean, under a plan of faults.

mod breaker;
mod holding;
mod in_turn;
mod positions;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::breaker::TryAgain;
use super::checkpoint::Checkpoint;
use super::decider::{DecideError, Decider, Delivery, Input, PartitionCounts, Remembered, ReplayBatch};
use super::lane::{Lane, LaneError, LaneSettings, Source, TopicLimits};
use super::log::TopicPartition;
use super::memory::{Cluster, Faults, ManualClock, MemoryLog};
use crate::authorize::ids::{Digest, Partition, Position, Topic, UnixMillis};
use crate::authorize::merkle::Range;
use crate::authorize::record::{Header, Record};
use crate::config::{BreakerSettings, Start};
use crate::telemetry::{LaneState, Telemetry};
use crate::wire::outgoing::{Effects, Outgoing};

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn part(name: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic(name), partition: Partition(partition) }
}

/// Copies records, and remembers their values as proofs.
struct Copier;

#[derive(Default)]
struct Seen {
    kept: BTreeSet<Vec<u8>>,
    tree: Range,
    /// What each open batch adds, and the tree as it leaves it; oldest first.
    open: VecDeque<(Vec<Vec<u8>>, Range)>,
}

impl Seen {
    fn has(&self, value: &Vec<u8>) -> bool {
        self.kept.contains(value) || self.open.iter().any(|(added, _)| added.contains(value))
    }
}

impl Remembered for Seen {
    fn fresh(_window: Duration) -> Self {
        Self::default()
    }
    fn begin(&mut self) {
        assert!(self.open.len() < 2, "a third open batch");
        let tree = self.open.back().map_or(&self.tree, |(_, tree)| tree);
        self.open.push_back((Vec::new(), tree.clone()));
    }
    fn commit(&mut self) {
        let (added, tree) = self.open.pop_front().unwrap();
        self.kept.extend(added);
        self.tree = tree;
    }
    fn abort(&mut self) {
        self.open.clear();
    }
    fn replay_batch(&self) -> Option<ReplayBatch> {
        let (added, _) = self.open.back()?;
        (!added.is_empty()).then(|| ReplayBatch {
            value: added.join(&b','),
            oldest: UnixMillis(i64::MIN),
            newest: UnixMillis(i64::MAX),
        })
    }
    fn load(&mut self, value: &[u8]) -> Result<UnixMillis, DecideError> {
        self.kept.extend(value.split(|byte| *byte == b',').map(<[u8]>::to_vec));
        Ok(UnixMillis(i64::MAX))
    }
    fn forget(&mut self, _before: UnixMillis) {}
    fn remembered(&self) -> usize {
        self.kept.len()
    }
    fn tree(&self) -> (u64, Vec<Digest>) {
        let tree = self.open.back().map_or(&self.tree, |(_, tree)| tree);
        (tree.size(), tree.peaks().to_vec())
    }
    fn restore_tree(&mut self, size: u64, peaks: Vec<Digest>) -> Result<(), DecideError> {
        self.tree = Range::restore(size, peaks).map_err(|error| DecideError(error.to_string()))?;
        Ok(())
    }
}

impl Decider for Copier {
    type State = Seen;
    fn open_batch(&mut self, _now: UnixMillis) {}
    fn decide(
        &mut self,
        input: Input<'_>,
        _counts: &dyn PartitionCounts,
        state: &mut Seen,
    ) -> Result<Effects, DecideError> {
        let Input::Record(record, delivery) = input else { unreachable!("nothing is held") };
        let value = record.value.as_deref().unwrap().to_vec();
        if value == b"undecidable" {
            return Err(DecideError("no".into()));
        }
        let again = state.has(&value);
        let (key, kept) = match delivery {
            Delivery::Open if again => ("again", true),
            Delivery::Open => ("copied", true),
            Delivery::Undeliverable(_) => ("undeliverable", true),
            Delivery::Bare(_) => ("bare", false),
        };
        let (added, tree) = state.open.back_mut().unwrap();
        let leaf = tree.append(record.source.to_string().as_bytes());
        let denied =
            matches!(delivery, Delivery::Undeliverable(_) | Delivery::Bare(_)) || value.starts_with(b"no");
        if !again {
            added.push(value);
        }
        let outgoing = |name, key: String, value| Outgoing {
            topic: topic(name),
            partition: record.source.partition,
            timestamp: None,
            key: Some(Bytes::from(key)),
            value,
            headers: vec![Header::new("leaf", leaf.to_string())],
        };
        Ok(Effects {
            outcome: Some(outgoing(
                if denied { "denied" } else { "to" },
                key.to_owned(),
                record.value.clone().filter(|_| kept),
            )),
            kept: Vec::new(),
            told: Vec::new(),
            audit: Some(outgoing("audit", record.source.to_string(), record.value.clone())),
        })
    }
}

/// A cluster with the topics of one route, two partitions each.
struct World {
    cluster: Cluster,
    clock: ManualClock,
    telemetry: Telemetry,
    start: Start,
    limits: BTreeMap<Topic, TopicLimits>,
    breaker: Option<BreakerSettings>,
    try_again: TryAgain,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::default();
        for name in ["from", "to", "denied", "audit", "replay"] {
            cluster.create(&topic(name), 2);
        }
        Self {
            cluster,
            clock: ManualClock::default(),
            telemetry: Telemetry::off(),
            start: Start::Earliest,
            limits: BTreeMap::new(),
            breaker: None,
            try_again: TryAgain::default(),
        }
    }

    fn settings(&self, member: usize) -> LaneSettings {
        let source = Source {
            route: "r".into(),
            replay: topic("replay"),
            audit: topic("audit"),
            denied: topic("denied"),
            breaker: self.breaker,
            start: self.start,
            window: Duration::from_secs(360),
            holding: None,
        };
        LaneSettings {
            lane: member,
            sources: BTreeMap::from([(topic("from"), source)]),
            targets: vec![topic("to"), topic("denied"), topic("audit")],
            limits: self.limits.clone(),
            batch: 4,
            ahead: 3,
            linger: Duration::from_millis(1),
            transaction_timeout: Duration::from_secs(5),
            fenced_tries: 1_000,
            try_again: self.try_again.clone(),
        }
    }

    fn lane(&self, member: usize, faults: Faults) -> Lane<MemoryLog, Copier, ManualClock> {
        let settings = self.settings(member);
        let log = MemoryLog::new(&self.cluster, &self.clock, member, faults);
        let mut lane = Lane::new(log, Copier, self.clock.clone(), settings, self.telemetry.clone());
        while let Err(error) = lane.join() {
            lane.recover(error).unwrap();
        }
        lane
    }

    fn produce(&self, values: std::ops::Range<usize>) {
        for n in values {
            self.cluster.produce(&part("from", (n % 2) as i32), format!("v{n}").as_bytes());
        }
    }

    fn sources(&self) -> [TopicPartition; 2] {
        [part("from", 0), part("from", 1)]
    }

    /// Every value copied exactly once and in order, one audit record each, leaves and positions in step.
    fn expect_exactly(&self, values: usize) {
        for partition in 0..2usize {
            let of = |name| part(name, partition as i32);
            let expected: Vec<String> =
                (0..values).filter(|n| n % 2 == partition).map(|n| format!("v{n}")).collect();
            let text = |records: Vec<Record>| -> Vec<String> {
                records
                    .iter()
                    .map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap())
                    .collect()
            };
            let out = self.cluster.read(&of("to"));
            assert!(out.iter().all(|record| record.key.as_deref() == Some(b"copied")), "met itself");
            assert_eq!(text(out), expected);
            let audit = self.cluster.read(&of("audit"));
            let leaves: Vec<_> =
                audit.iter().map(|record| record.headers[0].value.clone().unwrap()).collect();
            let numbers: Vec<_> = (0..leaves.len()).map(|n| Bytes::from(n.to_string())).collect();
            assert_eq!(leaves, numbers);
            assert_eq!(text(audit), expected);
            let proofs: Vec<String> = self
                .cluster
                .read(&of("replay"))
                .iter()
                .filter(|record| record.key.as_deref() == Some(b"entries"))
                .flat_map(|record| {
                    String::from_utf8(record.value.clone().unwrap().to_vec())
                        .unwrap()
                        .split(',')
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(proofs, expected);
            let (position, metadata) = self.cluster.position(&of("from")).unwrap();
            assert_eq!(position, Position(expected.len() as i64));
            let checkpoint = Checkpoint::decode(&metadata).unwrap().unwrap();
            assert_eq!(checkpoint.leaves, expected.len() as u64);
        }
    }

    fn state(&self, lane: usize) -> (LaneState, String) {
        let status = self.telemetry.status().lanes.into_iter().find(|status| status.lane == lane).unwrap();
        (status.state, status.reason.unwrap_or_default())
    }
}

fn rounds(lane: &mut Lane<MemoryLog, Copier, ManualClock>, count: usize) -> Result<(), LaneError> {
    (0..count).try_for_each(|_| lane.round())
}

/// Forty records under faults, then without; returns the trace.
fn run_under_faults(seed: u64) -> String {
    let world = World::new();
    world.produce(0..40);
    let mut lane = world.lane(1, Faults::seeded(seed, 60));
    world.cluster.assign(1, &world.sources());
    rounds(&mut lane, 60).unwrap();
    lane.log.faults = Faults::none();
    rounds(&mut lane, 40).unwrap();
    world.expect_exactly(40);
    lane.log.trace.borrow().clone()
}

#[test]
fn one_seed_gives_one_trace() {
    let (first, second) = (run_under_faults(7), run_under_faults(7));
    assert!(first == second, "two runs of one seed differ");
    assert!(first.contains("Some("), "the plan has no fault");
    assert_ne!(first, run_under_faults(8));
}

#[test]
fn every_record_is_decided_exactly_once_whatever_fails() {
    let mut kinds = BTreeSet::new();
    for seed in 0..400 {
        for line in run_under_faults(seed).lines().filter(|line| line.contains("Some(")) {
            kinds.insert(line.to_owned());
        }
    }
    for struck in
        ["commit Some(LostAnswer)", "commit Some(LostRequest)", "abort Some(Fenced)", "renew Some(Retriable)"]
    {
        assert!(kinds.contains(struck), "{struck} was never tried: {kinds:?}");
    }
}

#[test]
fn a_dead_lane_is_succeeded_exactly_wherever_it_stopped() {
    for seed in 0..200 {
        let world = World::new();
        world.produce(0..30);
        // It dies with whatever it has open: the plan stops it at a different call each time.
        let mut first = world.lane(1, Faults::seeded(seed, 80));
        world.cluster.assign(1, &world.sources());
        rounds(&mut first, 4 + usize::try_from(seed % 13).unwrap()).unwrap();
        world.produce(30..40);
        let mut second = world.lane(2, Faults::seeded(seed + 1, 30));
        world.cluster.kill(1, 2);
        // The zombie goes on as long as it can, beside its successor.
        if let Err(error) = first.decide_batch() {
            let _ = first.recover(error);
        }
        rounds(&mut second, 40).unwrap();
        second.log.faults = Faults::none();
        // What was left open before any position was sent ends only when the broker ends it.
        rounds(&mut second, 600).unwrap();
        first.log.faults = Faults::none();
        assert!(matches!(first.round(), Err(LaneError::Membership(_))));
        world.expect_exactly(40);
    }
}

#[test]
fn a_partition_that_is_handed_over_in_order_goes_on_exactly() {
    for seed in 0..100 {
        let world = World::new();
        world.produce(0..30);
        let mut first = world.lane(1, Faults::seeded(seed, 40));
        let mut second = world.lane(2, Faults::seeded(seed + 1, 40));
        world.cluster.assign(1, &world.sources());
        rounds(&mut first, usize::try_from(seed % 17).unwrap()).unwrap();
        world.cluster.assign(2, &[part("from", 1)]);
        for _ in 0..30 {
            first.round().unwrap();
            second.round().unwrap();
        }
        world.produce(30..40);
        (first.log.faults, second.log.faults) = (Faults::none(), Faults::none());
        for _ in 0..30 {
            first.round().unwrap();
            second.round().unwrap();
        }
        world.expect_exactly(40);
        assert_eq!((first.owned.len(), second.owned.len()), (1, 1));
    }
}

#[test]
fn a_refused_record_is_denied_and_a_refused_dead_letter_loses_its_value() {
    for silently in [false, true] {
        let world = World::new();
        world.produce(0..8);
        world.cluster.refuse(&topic("to"), b"v3", silently);
        world.cluster.refuse(&topic("to"), b"v4", silently);
        world.cluster.refuse(&topic("denied"), b"v4", silently);
        let mut lane = world.lane(1, Faults::none());
        world.cluster.assign(1, &world.sources());
        rounds(&mut lane, 40).unwrap();
        let denied = |partition| {
            let records = world.cluster.read(&part("denied", partition));
            records.into_iter().map(|record| (record.key.unwrap(), record.value)).collect::<Vec<_>>()
        };
        assert_eq!(denied(1), [(Bytes::from("undeliverable"), Some(Bytes::from("v3")))]);
        assert_eq!(denied(0), [(Bytes::from("bare"), None)]);
        let copied: usize = (0..2).map(|partition| world.cluster.read(&part("to", partition)).len()).sum();
        let audited: usize =
            (0..2).map(|partition| world.cluster.read(&part("audit", partition)).len()).sum();
        assert_eq!((copied, audited), (6, 8));
    }
}

#[test]
fn what_a_topic_is_known_not_to_take_is_never_sent() {
    let mut world = World::new();
    world.limits.insert(topic("to"), TopicLimits { max_bytes: Some(200), compacted: false });
    world.produce(0..2);
    world.cluster.produce(&part("from", 0), &[b'x'; 300]);
    let mut lane = world.lane(1, Faults::none());
    world.cluster.assign(1, &world.sources());
    rounds(&mut lane, 20).unwrap();
    assert_eq!(world.cluster.read(&part("denied", 0)).len(), 1);
    assert_eq!(world.cluster.read(&part("to", 0)).len(), 1);
    assert!(!lane.log.trace.borrow().contains("flush"));
}

#[test]
fn a_refused_audit_record_or_a_fault_of_the_gate_stops_its_partition_alone() {
    for fault in [&b"unaudited"[..], b"undecidable"] {
        let world = World::new();
        world.cluster.refuse(&topic("audit"), b"unaudited", false);
        world.produce(0..4);
        world.cluster.produce(&part("from", 0), fault);
        let mut lane = world.lane(1, Faults::none());
        world.cluster.assign(1, &world.sources());
        rounds(&mut lane, 20).unwrap();
        world.produce(5..6);
        rounds(&mut lane, 20).unwrap();
        assert_eq!(world.cluster.read(&part("to", 1)).len(), 3, "the other partition goes on");
        assert!(
            world.cluster.read(&part("to", 0)).iter().all(|record| record.value.as_deref() != Some(fault))
        );
        let (state, reason) = world.state(1);
        assert_eq!(state, LaneState::Paused);
        assert!(reason.starts_with("partition from/0 is stopped"), "{reason}");
    }
}

#[test]
fn a_lane_whose_producer_is_replaced_again_and_again_ends() {
    let world = World::new();
    world.produce(0..4);
    let mut lane = world.lane(1, Faults::none());
    lane.settings.fenced_tries = 3;
    world.cluster.assign(1, &world.sources());
    let mut other = MemoryLog::new(&world.cluster, &world.clock, 9, Faults::none());
    let ended = (0..200).find_map(|_| {
        let result = lane.round();
        for writer in ["writer-1-a", "writer-1-b"] {
            super::log::Log::fence(&mut other, writer).unwrap();
        }
        result.err()
    });
    assert!(matches!(ended, Some(LaneError::Producer { tries: 3, .. })), "{ended:?}");
    assert!(world.cluster.read(&part("to", 0)).is_empty());
}
