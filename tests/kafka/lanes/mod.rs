//! Lanes that run on a real broker with a decider that copies: what is under test is the stream, not the decision.

mod in_turn;
mod route;

use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign::authorize::ids::{Partition, Position, UnixMillis};
use countersign::authorize::record::Header;
use countersign::config::{Delivery, KafkaProperties};
use countersign::stream::admin::{Others, SourceTopic, TopicWarning, inspect};
use countersign::stream::kafka::KafkaLog;
use countersign::stream::kafka::settings::{KafkaSettings, writer_prefix};
use countersign::stream::kafka_ffi;
use countersign::stream::lane::LaneError;
use countersign::stream::log::{Log as _, TopicPartition};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::support::kafka::{Broker, NewRecord, broker};

use self::route::{Copier, PATIENCE, Route, topic};

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
    client.set("transactional.id", format!("{}a-a", writer_prefix(&route.group)));
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
