//! Lanes that run on a real broker with a decider that copies: what is under test is the stream, not the decision.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign::authorize::ids::{Digest, Partition, Position, Topic, UnixMillis};
use countersign::authorize::merkle::Range;
use countersign::authorize::record::Header;
use countersign::config::{Delivery, KafkaProperties, Start};
use countersign::stream::admin::{Others, SourceTopic, TopicWarning, inspect};
use countersign::stream::breaker::TryAgain;
use countersign::stream::clock::SystemClock;
use countersign::stream::decider::{
    DecideError, Decider, Delivery as Tried, Input, PartitionCounts, Remembered, ReplayBatch,
};
use countersign::stream::kafka::KafkaLog;
use countersign::stream::kafka::settings::{KafkaSettings, writer_prefix};
use countersign::stream::kafka_ffi;
use countersign::stream::lane::{Lane, LaneError, LaneSettings, Source, Stop};
use countersign::stream::log::{Log as _, TopicPartition};
use countersign::telemetry::{LaneState, LaneStatus, Telemetry};
use countersign::wire::outgoing::{Effects, Outgoing};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

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
        Self::with_destination(broker, partitions, &[])
    }

    fn with_destination(broker: &'static Broker, partitions: i32, settings: &[(&str, &str)]) -> Self {
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

    fn kafka(&self, name: &str, member: Option<&str>) -> KafkaSettings {
        let mut properties = KafkaProperties::default();
        properties.set("bootstrap.servers", self.broker.bootstrap());
        KafkaSettings {
            properties,
            group: self.group.clone(),
            member: member.map(str::to_owned),
            writer: format!("{}{name}", writer_prefix(&self.group)),
            topics: vec![topic(&self.from)],
            delivery: Delivery::ExactlyOnce,
            batch_bytes: None,
            transaction_timeout: Duration::from_secs(5),
        }
    }

    fn settings(&self) -> LaneSettings {
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
            linger: Duration::from_millis(5),
            transaction_timeout: Duration::from_secs(5),
            fenced_tries: 5,
            try_again: TryAgain::default(),
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

    /// Waits for the end that it comes to by itself.
    fn thread_ended(mut self) -> Result<(), LaneError> {
        let thread = self.thread.take().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "it still runs: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
        thread.join().expect("no panic")
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
    /// How long it thinks about the first record of [`THOUGHT_OF`].
    thinks: Option<Duration>,
}

const THOUGHT_OF: [u32; 4] = [150, 151, 450, 451];

impl Copier {
    fn new(route: &Route) -> Self {
        Self { to: topic(&route.to), audit: topic(&route.audit), thinks: None }
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
        input: Input<'_>,
        _counts: &dyn PartitionCounts,
        state: &mut Seen,
    ) -> Result<Effects, DecideError> {
        let Input::Record(record, tried) = input else { unreachable!("nothing is held") };
        let value = record.value.as_deref().unwrap_or_default().to_vec();
        if THOUGHT_OF.iter().any(|number| value == number.to_be_bytes()) {
            std::thread::sleep(self.thinks.take().unwrap_or_default());
        }
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
            headers: vec![Header::new("leaf", leaf.to_string())],
        };
        Ok(Effects { outcome: Some(outcome), kept: Vec::new(), told: Vec::new(), audit: Some(audit) })
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

#[test]
fn what_a_dead_lane_left_open_is_ended_by_its_successor() {
    let Some(broker) = broker("what a dead lane left open is ended by its successor") else { return };
    let route = Route::new(broker, 1);
    route.produce(0..100, 1);
    let lane = route.run("a", None);
    route.wait_for(100);
    lane.stop().expect("an end in good order");

    // The same writer again, as it stands when it is killed in the middle of a batch.
    let mut client = broker.client();
    client.set("transactional.id", format!("{}a", writer_prefix(&route.group)));
    let dead: BaseProducer = client.set("transaction.timeout.ms", "60000").create().expect("a producer");
    dead.init_transactions(PATIENCE).expect("init");
    dead.begin_transaction().expect("begin");
    let orphan = BaseRecord::<[u8], [u8]>::to(&route.to).partition(0).payload(b"orphan");
    dead.send(orphan).map_err(|(error, _)| error).expect("send");
    let consumer: BaseConsumer = broker.client().set("group.id", &route.group).create().expect("a consumer");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&route.from, 0, Offset::Offset(5_000)).expect("an offset");
    let group = consumer.group_metadata().expect("group metadata");
    dead.send_offsets_to_transaction(&offsets, &group, PATIENCE).expect("offsets");

    let began = Instant::now();
    let lane = route.run("b", None);
    lane.wait_ready(1);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "ready after {took:?}, and the broker would have taken a minute");
    route.produce(100..200, 1);
    route.wait_for(200);
    lane.stop().expect("an end in good order");
    assert!(dead.commit_transaction(PATIENCE).is_err(), "the dead lane's producer is fenced");
    route.expect_exactly(0..200);
}

#[test]
fn a_second_lane_of_one_instance_takes_over_and_the_first_ends() {
    let Some(broker) = broker("a second lane of one instance takes over and the first ends") else { return };
    let route = Route::new(broker, 2);
    let first = route.run("i-0", Some("i-0"));
    first.wait_ready(2);
    route.produce(0..500, 2);
    route.wait_for(500);
    let second = route.run("i-0", Some("i-0"));
    let ended = first.thread_ended();
    assert!(matches!(ended, Err(LaneError::Membership(_) | LaneError::Producer { .. })), "{ended:?}");
    second.wait_ready(2);
    route.produce(500..700, 2);
    route.wait_for(700);
    second.stop().expect("an end in good order");
    route.expect_exactly(0..700);
}

/// Its process is well and its heartbeats go on, and yet it does not ask the group for longer than `max.poll.interval.ms`.
#[test]
fn a_lane_that_the_group_gives_up_while_it_decides_doubles_nothing_and_comes_back() {
    let Some(broker) = broker("a lane that the group gives up while it decides doubles nothing") else {
        return;
    };
    let route = Route::new(broker, 2);
    for member in [None, Some("m-0")] {
        let mut kafka = route.kafka("m-0", member);
        // (A person may not: the gate owns it, at a minute.)
        kafka.properties.set("max.poll.interval.ms", "6000");
        // Its readers have a session of the same length, though they never join.
        kafka.properties.set("session.timeout.ms", "6000");
        let slow = Copier { thinks: Some(Duration::from_secs(9)), ..Copier::new(&route) };
        let first = route.run_with(kafka, slow);
        first.wait_ready(2);
        let second = route.run("m-1", member.map(|_| "m-1"));
        first.wait_ready(1);
        second.wait_ready(1);
        let before: u32 = if member.is_some() { 300 } else { 0 };
        route.produce(before..before + 300, 2);
        if member.is_none() {
            // The other takes over what the slow one has. (Of one with a name the session has to end first.)
            second.wait_ready(2);
        }
        route.wait_for(if member.is_some() { 600 } else { 300 });
        first.wait_ready(1);
        first.stop().expect("it still runs, and ends in good order");
        second.stop().expect("an end in good order");
    }
    route.expect_exactly(0..600);
}

#[test]
fn a_lane_that_leaves_in_order_is_succeeded_at_once() {
    let Some(broker) = broker("a lane that leaves in order is succeeded at once") else { return };
    let route = Route::new(broker, 2);
    for member in [None, Some("s")] {
        let first = route.run("s-0", member.map(|_| "s-0"));
        first.wait_ready(2);
        let second = route.run("s-1", member.map(|_| "s-1"));
        second.wait_ready(1);
        let began = Instant::now();
        first.stop().expect("an end in good order");
        second.wait_ready(2);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "{member:?}: {took:?}, and a session is 6 s");
        second.stop().expect("an end in good order");
    }
}

#[test]
fn a_record_that_the_destination_refuses_stops_nothing() {
    let Some(broker) = broker("a record that the destination refuses stops nothing") else { return };
    let route = Route::with_destination(broker, 1, &[("max.message.bytes", "20000")]);
    let large = NewRecord { partition: Some(0), value: Some(vec![b'x'; 30_000]), ..NewRecord::default() };
    route.produce(0..150, 1);
    broker.produce(&route.from, std::slice::from_ref(&large));
    route.produce(150..200, 1);
    let lane = route.run("a", None);
    route.wait_for(201);
    lane.stop().expect("an end in good order");
    let out = broker.read_to_end(&route.to);
    let bare: Vec<usize> = (0..out.len()).filter(|at| out[*at].key.as_deref() == Some(b"bare")).collect();
    assert_eq!((out.len(), bare), (201, vec![150]));
    assert_eq!(broker.count(&route.audit), 201);
}

#[test]
fn bytes_pass_as_they_are() {
    let Some(broker) = broker("bytes pass as they are") else { return };
    let route = Route::new(broker, 1);
    let header = |name: &'static [u8], value: Option<&'static [u8]>| Header {
        name: Bytes::from_static(name),
        value: value.map(Bytes::from_static),
    };
    let headers = [
        header(b"\xff\xfe", Some(b"\x00\xff")),
        header(b"twice", Some(b"1")),
        header(b"twice", None),
        header(b"", Some(b"")),
    ];
    let producer: BaseProducer = broker.client().create().expect("a producer");
    let owned = kafka_ffi::to_send(&headers).expect("headers");
    let record = BaseRecord::<[u8], [u8]>::to(&route.from).partition(0).key(b"").timestamp(1_700_000_000_000);
    producer.send(record.headers(owned)).map_err(|(error, _)| error).expect("send");
    producer.flush(PATIENCE).expect("flush");
    let lane = route.run("a", None);
    lane.wait_ready(1);
    // The test's own reader takes header names for text, so another lane's log reads what came out.
    let mut kafka = route.kafka("reader", None);
    kafka.group = broker.unique("reader");
    let mut log = KafkaLog::new(kafka).expect("clients");
    let to = TopicPartition { topic: topic(&route.to), partition: Partition(0) };
    log.read_back(&[(to, Position(0))]).expect("a reader");
    let deadline = Instant::now() + PATIENCE;
    let read = loop {
        assert!(Instant::now() < deadline, "nothing came out");
        if let Ok(Some(read)) = log.next_back(Duration::from_millis(100)) {
            break read;
        }
    };
    assert_eq!(read.headers, headers);
    assert_eq!((read.key.as_deref(), read.value.as_deref()), (Some(&b""[..]), None));
    assert_eq!(read.timestamp, Some(UnixMillis(1_700_000_000_000)));
    lane.stop().expect("an end in good order");
}

#[test]
fn topics_are_checked_and_the_gates_own_made() {
    let Some(broker) = broker("topics are checked and the gate's own made") else { return };
    let compacted = broker.create_topic("admin-compacted", 1, &[("cleanup.policy", "compact")]);
    let from = broker.create_topic("admin-from", 3, &[]);
    let to = broker.create_topic("admin-to", 3, &[("max.message.bytes", "5000")]);
    let (replay, missing) = (broker.unique("admin-replay"), broker.unique("admin-missing"));
    let short = broker.create_topic("admin-short", 1, &[("retention.ms", "1000")]);
    let source = |from: &str, replay: &str, target: &str| SourceTopic {
        topic: topic(from),
        replay: topic(replay),
        window: Duration::from_secs(360),
        max_queue_time: Duration::from_secs(60),
        trust_create_time: false,
        targets: vec![topic(target)],
        holding: None,
    };
    let mut properties = KafkaProperties::default();
    properties.set("bootstrap.servers", broker.bootstrap());

    let looked =
        inspect(&properties, &[source(&from, &replay, &to)], &Others::default(), false).expect("an answer");
    assert_eq!(looked.would_make, [(topic(&replay), 3)]);
    let made =
        inspect(&properties, &[source(&from, &replay, &to)], &Others::default(), true).expect("an answer");
    assert_eq!((made.made, made.problems), (vec![(topic(&replay), 3)], Vec::new()));
    assert!(matches!(made.warnings[..], [TopicWarning::CreateTime { .. }]));
    let facts = made.facts[&topic(&to)];
    assert_eq!((facts.partitions, facts.max_bytes, facts.compacted), (3, Some(5000), Some(false)));
    let again =
        inspect(&properties, &[source(&from, &replay, &to)], &Others::default(), true).expect("an answer");
    assert_eq!((again.made, again.problems), (Vec::new(), Vec::new()));

    let bad = inspect(
        &properties,
        &[source(&compacted, &replay, &missing), source(&from, &short, &to)],
        &Others::default(),
        true,
    )
    .expect("an answer");
    let said: Vec<String> = bad.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            format!("topic `{compacted}` is compacted"),
            format!("topic `{missing}` is not there"),
            format!("topic `{short}` has 1 partitions and `{from}`, whose proofs it remembers, has 3"),
            format!(
                "topic `{short}` keeps records for 1000 ms, and a copy of a proof can come 420000 ms later"
            ),
        ]
    );
    assert!(bad.problems[1].help().contains(&format!("--create --topic {missing} --partitions 1")));
}

#[test]
fn at_least_once_copies_everything_on_the_mock() {
    let host: BaseProducer = rdkafka::ClientConfig::new()
        .set("test.mock.num.brokers", "1")
        .set("bootstrap.servers", "unused:1")
        .create()
        .expect("a client with a mock cluster");
    kafka_ffi::set_mock_rebalance_delay(host.client(), Duration::ZERO);
    let mock = host.client().mock_cluster().expect("a mock cluster");
    // The route outlives the test, as its lanes' threads may.
    let broker: &'static Broker = Box::leak(Box::new(Broker::at(mock.bootstrap_servers())));
    let names = ["from", "to", "audit", "replay"];
    for name in names {
        mock.create_topic(name, 2, 1).expect("a topic");
    }
    let [from, to, audit, replay] = names.map(str::to_owned);
    let route = Route { broker, from, to, audit, replay, group: "demo".into() };
    let settings = |name| KafkaSettings { delivery: Delivery::AtLeastOnce, ..route.kafka(name, None) };
    route.produce(0..500, 2);
    let lane = route.run_with(settings("a"), Copier::new(&route));
    route.wait_for(500);
    lane.stop().expect("an end in good order");
    route.produce(500..600, 2);
    let lane = route.run_with(settings("b"), Copier::new(&route));
    route.wait_for(600);
    lane.stop().expect("an end in good order");
    route.expect_exactly(0..600);
}
