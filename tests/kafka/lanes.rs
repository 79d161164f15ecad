//! Lanes that run on a real broker with a decider that copies: what is under test is the stream, not the decision.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign::authorize::ids::{Digest, Partition, Topic, UnixMillis};
use countersign::authorize::merkle::Range;
use countersign::authorize::record::Record as Read;
use countersign::stream::clock::SystemClock;
use countersign::stream::decider::{
    DecideError, Decider, Delivery as Tried, PartitionCounts, Remembered, ReplayBatch,
};
use countersign::stream::kafka::KafkaLog;
use countersign::stream::kafka::settings::{Delivery, KafkaSettings, writer_prefix};
use countersign::stream::lane::{Lane, LaneError, LaneSettings, Source, Start, Stop};
use countersign::telemetry::{LaneState, LaneStatus, Telemetry};
use countersign::wire::outgoing::{Effects, Outgoing};

use crate::support::kafka::{Broker, NewRecord, broker};

/// The bound of every wait here.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topics of one route, each with its own name on the broker.
struct Route {
    broker: &'static Broker,
    from: String,
    to: String,
    audit: String,
    replay: String,
    group: String,
}

impl Route {
    fn new(broker: &'static Broker, partitions: i32) -> Self {
        let make = |stem| broker.create_topic(stem, partitions, &[]);
        Self {
            broker,
            from: make("lanes-from"),
            to: make("lanes-to"),
            audit: make("lanes-audit"),
            replay: make("lanes-replay"),
            group: broker.unique("lanes"),
        }
    }

    fn kafka(&self, name: &str, member: Option<&str>) -> KafkaSettings {
        KafkaSettings {
            properties: BTreeMap::from([(
                "bootstrap.servers".to_owned(),
                self.broker.bootstrap().to_owned(),
            )]),
            group: self.group.clone(),
            member: member.map(str::to_owned),
            writer: format!("{}{name}", writer_prefix(&self.group)),
            topics: vec![topic(&self.from)],
            delivery: Delivery::ExactlyOnce,
            transaction_timeout: Duration::from_secs(5),
        }
    }

    fn settings(&self) -> LaneSettings {
        let source = Source {
            route: "lanes".into(),
            replay: topic(&self.replay),
            start: Start::Earliest,
            window: Duration::from_secs(360),
        };
        LaneSettings {
            lane: 0,
            sources: BTreeMap::from([(topic(&self.from), source)]),
            targets: vec![topic(&self.to), topic(&self.audit)],
            limits: BTreeMap::new(),
            batch: 100,
            linger: Duration::from_millis(5),
            transaction_timeout: Duration::from_secs(5),
            fenced_tries: 5,
        }
    }

    fn run(&self, name: &str, member: Option<&str>) -> Running {
        self.run_with(self.kafka(name, member), Copier::new(self))
    }

    fn run_with(&self, kafka: KafkaSettings, copier: Copier) -> Running {
        let (stop, telemetry) = (Stop::default(), Telemetry::off());
        let settings = self.settings();
        let thread = std::thread::spawn({
            let (stop, telemetry) = (stop.clone(), telemetry.clone());
            move || {
                let log = KafkaLog::new(kafka).expect("clients");
                Lane::new(log, copier, SystemClock::start(), settings, telemetry).run(&stop)
            }
        });
        Running { stop, telemetry, thread: Some(thread) }
    }

    fn produce(&self, values: std::ops::Range<u32>, partitions: i32) {
        let record = |n: u32| NewRecord {
            partition: Some(n.cast_signed() % partitions),
            key: Some(n.to_be_bytes().to_vec()),
            value: Some(n.to_be_bytes().to_vec()),
            headers: vec![("n".into(), Some(n.to_string().into_bytes()))],
            ..NewRecord::default()
        };
        self.broker.produce(&self.from, &values.map(record).collect::<Vec<_>>());
    }

    /// Waits until so many records are visible in the destination.
    fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.broker.read_stable(&self.to).len() < count {
            assert!(Instant::now() < deadline, "{count} records did not come in {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every value exactly once, in order in its partition, with exactly one audit record.
    fn expect_exactly(&self, values: std::ops::Range<u32>) {
        let out = self.broker.read_to_end(&self.to);
        let read = |value: &Option<Vec<u8>>| {
            u32::from_be_bytes(value.as_deref().unwrap_or_default().try_into().expect("a number"))
        };
        let mut found: Vec<u32> = out.iter().map(|record| read(&record.value)).collect();
        for pair in out.windows(2) {
            if pair[0].partition == pair[1].partition {
                assert!(read(&pair[0].value) < read(&pair[1].value), "order within a partition");
            }
        }
        found.sort_unstable();
        assert_eq!(found, values.clone().collect::<Vec<_>>());
        let audit = self.broker.read_to_end(&self.audit);
        let sources: BTreeSet<_> = audit.iter().map(|record| record.key.clone()).collect();
        assert_eq!((audit.len(), sources.len()), (found.len(), found.len()), "one audit record each");
        // The audit tree's leaves have no gap and no double, whoever wrote them.
        for partition in audit.iter().map(|record| record.partition).collect::<BTreeSet<_>>() {
            let leaves: Vec<&str> = audit
                .iter()
                .filter(|record| record.partition == partition)
                .filter_map(|record| record.header("leaf"))
                .collect();
            let expected: Vec<String> = (0..leaves.len()).map(|leaf| leaf.to_string()).collect();
            assert_eq!(leaves, expected, "leaves of partition {partition}");
        }
    }
}

/// A lane on a thread of its own.
struct Running {
    stop: Stop,
    telemetry: Telemetry,
    thread: Option<JoinHandle<Result<(), LaneError>>>,
}

impl Running {
    fn status(&self) -> Option<LaneStatus> {
        self.telemetry.status().lanes.into_iter().next()
    }

    fn wait(&self, what: &str, until: impl Fn(&LaneStatus) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.status().is_some_and(|status| until(&status)) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_ready(&self, partitions: usize) {
        self.wait("ready", |lane| lane.state == LaneState::Running && lane.partitions.len() == partitions);
    }

    fn stop(mut self) -> Result<(), LaneError> {
        self.stop.ask();
        self.thread.take().expect("it runs").join().expect("no panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.ask();
    }
}

/// Copies every record and remembers its value as a proof: a value that comes again from elsewhere is not copied.
struct Copier {
    to: Topic,
    audit: Topic,
}

impl Copier {
    fn new(route: &Route) -> Self {
        Self { to: topic(&route.to), audit: topic(&route.audit) }
    }
}

#[derive(Default)]
struct Seen {
    kept: BTreeSet<Vec<u8>>,
    open: Vec<Vec<u8>>,
    tree: Range,
    open_tree: Option<Range>,
}

impl Remembered for Seen {
    fn fresh(_window: Duration) -> Self {
        Self::default()
    }
    fn begin(&mut self) {
        self.open_tree = Some(self.tree.clone());
    }
    fn commit(&mut self) {
        self.kept.extend(self.open.drain(..));
        self.tree = self.open_tree.take().unwrap_or_default();
    }
    fn abort(&mut self) {
        self.open.clear();
        self.open_tree = None;
    }
    fn replay_batch(&self) -> Option<ReplayBatch> {
        (!self.open.is_empty()).then(|| ReplayBatch {
            value: self.open.concat(),
            oldest: UnixMillis(i64::MIN),
            newest: UnixMillis(i64::MAX),
        })
    }
    fn load(&mut self, value: &[u8]) -> Result<UnixMillis, DecideError> {
        self.kept.extend(value.chunks(4).map(<[u8]>::to_vec));
        Ok(UnixMillis(i64::MAX))
    }
    fn forget(&mut self, _before: UnixMillis) {}
    fn remembered(&self) -> usize {
        self.kept.len()
    }
    fn tree(&self) -> (u64, Vec<Digest>) {
        let tree = self.open_tree.as_ref().unwrap_or(&self.tree);
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
        record: &Read,
        tried: &Tried,
        _counts: &dyn PartitionCounts,
        state: &mut Seen,
    ) -> Result<Effects, DecideError> {
        let value = record.value.as_deref().unwrap_or_default().to_vec();
        let again = state.kept.contains(&value) || state.open.contains(&value);
        let tree = state.open_tree.get_or_insert_default();
        let leaf = tree.append(record.source.to_string().as_bytes());
        let mut outcome = Outgoing {
            topic: self.to.clone(),
            partition: record.source.partition,
            timestamp: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        };
        match tried {
            Tried::Open => {}
            Tried::Undeliverable(_) => outcome.key = Some(Bytes::from_static(b"undeliverable")),
            Tried::Bare(_) => {
                outcome.key = Some(Bytes::from_static(b"bare"));
                outcome.value = None;
            }
        }
        if again {
            outcome.key = Some(Bytes::from_static(b"again"));
        } else if value.len() == 4 {
            state.open.push(value);
        }
        let audit = Outgoing {
            topic: self.audit.clone(),
            partition: Partition(record.source.partition.0),
            timestamp: None,
            key: Some(Bytes::from(record.source.to_string())),
            value: None,
            headers: vec![countersign::authorize::record::Header::new("leaf", leaf.to_string())],
        };
        Ok(Effects { outcome, audit })
    }
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a topic name")
}

#[test]
fn a_lane_copies_exactly_once_and_goes_on_where_it_stopped() {
    let Some(broker) = broker("a lane copies exactly once and goes on where it stopped") else { return };
    let route = Route::new(broker, 4);
    route.produce(0..2_000, 4);
    let lane = route.run("a", None);
    route.wait_for(2_000);
    lane.stop().expect("an end in good order");
    route.produce(2_000..2_100, 4);
    let lane = route.run("b", None);
    route.wait_for(2_100);
    lane.stop().expect("an end in good order");
    route.expect_exactly(0..2_100);
    let committed = broker.committed(&route.group, &route.from);
    assert!(committed.values().all(|committed| committed.metadata.starts_with("cs1.")));
    assert_eq!(committed.len(), 4);
}

#[test]
fn two_lanes_share_and_hand_over_without_loss_or_double() {
    let Some(broker) = broker("two lanes share and hand over without loss or double") else { return };
    let route = Route::new(broker, 4);
    let first = route.run("a", None);
    first.wait_ready(4);
    route.produce(0..1_000, 4);
    let second = route.run("b", None);
    route.produce(1_000..2_000, 4);
    first.wait_ready(2);
    second.wait_ready(2);
    route.produce(2_000..3_000, 4);
    first.stop().expect("an end in good order");
    second.wait_ready(4);
    route.produce(3_000..3_500, 4);
    route.wait_for(3_500);
    second.stop().expect("an end in good order");
    route.expect_exactly(0..3_500);
}

#[test]
fn a_proof_is_remembered_over_a_restart() {
    let Some(broker) = broker("a proof is remembered over a restart") else { return };
    let route = Route::new(broker, 1);
    route.produce(0..300, 1);
    let lane = route.run("a", None);
    route.wait_for(300);
    lane.stop().expect("an end in good order");
    let lane = route.run("b", None);
    route.produce(299..301, 1);
    route.wait_for(302);
    lane.stop().expect("an end in good order");
    let out = broker.read_to_end(&route.to);
    let keys: Vec<_> = out[300..].iter().map(|record| record.key.clone()).collect();
    assert_eq!(keys, [Some(b"again".to_vec()), Some(300u32.to_be_bytes().to_vec())]);
}
