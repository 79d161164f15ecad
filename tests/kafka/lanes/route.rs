//! A route of one source topic, and lanes on it with a decider that copies. Limits: nothing is held.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign::authorize::ids::{Digest, Partition, Topic, UnixMillis};
use countersign::authorize::merkle::Range;
use countersign::authorize::record::Header;
use countersign::config::{Delivery, KafkaProperties, Start};
use countersign::stream::breaker::TryAgain;
use countersign::stream::clock::SystemClock;
use countersign::stream::decider::{
    DecideError, Decider, Delivery as Tried, Input, PartitionCounts, Remembered, ReplayBatch,
};
use countersign::stream::kafka::KafkaLog;
use countersign::stream::kafka::settings::{KafkaSettings, writer_prefix};
use countersign::stream::lane::{Lane, LaneError, LaneSettings, Source, Stop};
use countersign::telemetry::{LaneState, LaneStatus, Telemetry};
use countersign::wire::outgoing::{Effects, Outgoing};

use crate::support::kafka::{Broker, NewRecord};

/// The bound of every wait here.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The topics of one route, each with its own name on the broker.
pub struct Route {
    pub broker: &'static Broker,
    pub from: String,
    pub to: String,
    pub audit: String,
    pub replay: String,
    pub group: String,
}

impl Route {
    pub fn new(broker: &'static Broker, partitions: i32) -> Self {
        Self::with_destination(broker, partitions, &[])
    }

    pub fn with_destination(broker: &'static Broker, partitions: i32, settings: &[(&str, &str)]) -> Self {
        let make = |stem| broker.create_topic(stem, partitions, &[]);
        Self {
            broker,
            from: make("lanes-from"),
            to: broker.create_topic("lanes-to", partitions, settings),
            audit: make("lanes-audit"),
            replay: make("lanes-replay"),
            group: broker.unique("lanes"),
        }
    }

    pub fn kafka(&self, name: &str, member: Option<&str>) -> KafkaSettings {
        let mut properties = KafkaProperties::default();
        properties.set("bootstrap.servers", self.broker.bootstrap());
        KafkaSettings {
            properties,
            group: self.group.clone(),
            member: member.map(str::to_owned),
            is_first: true,
            writers: ["a", "b"].map(|turn| format!("{}{name}-{turn}", writer_prefix(&self.group))).into(),
            topics: vec![topic(&self.from)],
            delivery: Delivery::ExactlyOnce,
            batch_bytes: None,
            transaction_timeout: Duration::from_secs(5),
        }
    }

    pub fn settings(&self) -> LaneSettings {
        let source = Source {
            route: "lanes".into(),
            replay: topic(&self.replay),
            audit: topic(&self.audit),
            denied: topic("denied"),
            breaker: None,
            start: Start::Earliest,
            window: Duration::from_secs(360),
            holding: None,
        };
        LaneSettings {
            lane: 0,
            sources: BTreeMap::from([(topic(&self.from), source)]),
            targets: vec![topic(&self.to), topic(&self.audit)],
            limits: BTreeMap::new(),
            batch: 100,
            ahead: 3,
            linger: Duration::from_millis(5),
            transaction_timeout: Duration::from_secs(5),
            fenced_tries: 20,
            try_again: TryAgain::default(),
        }
    }

    pub fn run(&self, name: &str, member: Option<&str>) -> Running {
        self.run_with(self.kafka(name, member), Copier::new(self))
    }

    pub fn run_with(&self, kafka: KafkaSettings, copier: Copier) -> Running {
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

    pub fn produce(&self, values: std::ops::Range<u32>, partitions: i32) {
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
    pub fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.broker.read_stable(&self.to).len() < count {
            assert!(Instant::now() < deadline, "{count} records did not come in {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every value exactly once, in order in its partition, with exactly one audit record.
    pub fn expect_exactly(&self, values: std::ops::Range<u32>) {
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
pub struct Running {
    stop: Stop,
    telemetry: Telemetry,
    thread: Option<JoinHandle<Result<(), LaneError>>>,
}

impl Running {
    pub fn status(&self) -> Option<LaneStatus> {
        self.telemetry.status().lanes.into_iter().next()
    }

    pub fn wait(&self, what: &str, until: impl Fn(&LaneStatus) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.status().is_some_and(|status| until(&status)) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn wait_ready(&self, partitions: usize) {
        self.wait("ready", |lane| lane.state == LaneState::Running && lane.partitions.len() == partitions);
    }

    /// Waits for the end that it comes to by itself.
    pub fn thread_ended(mut self) -> Result<(), LaneError> {
        let thread = self.thread.take().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "it still runs: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
        thread.join().expect("no panic")
    }

    pub fn stop(mut self) -> Result<(), LaneError> {
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
pub struct Copier {
    pub to: Topic,
    pub audit: Topic,
    /// How long it thinks about the first record of [`THOUGHT_OF`].
    pub thinks: Option<Duration>,
}

const THOUGHT_OF: [u32; 4] = [150, 151, 450, 451];

impl Copier {
    pub fn new(route: &Route) -> Self {
        Self { to: topic(&route.to), audit: topic(&route.audit), thinks: None }
    }
}

#[derive(Default)]
pub struct Seen {
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
        let tree = self.open.back().map_or(&self.tree, |(_, tree)| tree);
        self.open.push_back((Vec::new(), tree.clone()));
    }
    fn commit(&mut self) {
        let (added, tree) = self.open.pop_front().expect("a batch is open");
        self.kept.extend(added);
        self.tree = tree;
    }
    fn abort(&mut self) {
        self.open.clear();
    }
    fn replay_batch(&self) -> Option<ReplayBatch> {
        let (added, _) = self.open.back()?;
        (!added.is_empty()).then(|| ReplayBatch {
            value: added.concat(),
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
        let Input::Record(record, tried) = input else { unreachable!("nothing is held") };
        let value = record.value.as_deref().unwrap_or_default().to_vec();
        if THOUGHT_OF.iter().any(|number| value == number.to_be_bytes()) {
            std::thread::sleep(self.thinks.take().unwrap_or_default());
        }
        let again = state.has(&value);
        let (added, tree) = state.open.back_mut().expect("a batch is open");
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
            added.push(value);
        }
        let audit = Outgoing {
            topic: self.audit.clone(),
            partition: Partition(record.source.partition.0),
            timestamp: None,
            key: Some(Bytes::from(record.source.to_string())),
            value: None,
            headers: vec![Header::new("leaf", leaf.to_string())],
        };
        Ok(Effects { outcome: Some(outcome), kept: Vec::new(), told: Vec::new(), audit: Some(audit) })
    }
}

pub fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a topic name")
}
