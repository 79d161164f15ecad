//! What the client does with a partition that it has just been given: it is read from where the lane says, wherever the
//! client itself would have begun.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use countersign::authorize::ids::{Position, Topic};
use countersign::config::{Delivery, KafkaProperties};
use countersign::stream::kafka::KafkaLog;
use countersign::stream::kafka::settings::{KafkaSettings, writer_prefix};
use countersign::stream::log::{Event, Log as _, TopicPartition};

use crate::support::kafka::{NewRecord, broker};

/// The client asks for the end of a partition again half a second after an answer that came too late.
const LATER: Duration = Duration::from_millis(1500);

#[test]
fn a_partition_just_gained_is_read_from_where_the_lane_says() {
    const PARTITIONS: i32 = 16;
    let Some(broker) = broker("a partition just gained is read from where the lane says") else { return };
    let topic = broker.create_topic("assignment", PARTITIONS, &[]);
    let one =
        |partition| NewRecord { partition: Some(partition), value: Some(vec![1]), ..NewRecord::default() };
    broker.produce(&topic, &(0..PARTITIONS).map(one).collect::<Vec<_>>());
    let group = broker.unique("assignment");
    let mut properties = KafkaProperties::default();
    properties.set("bootstrap.servers", broker.bootstrap());
    let mut log = KafkaLog::new(KafkaSettings {
        properties,
        writers: vec![format!("{}one", writer_prefix(&group))],
        group,
        member: None,
        topics: vec![Topic::parse(&topic).expect("a topic")],
        delivery: Delivery::ExactlyOnce,
        batch_bytes: None,
        transaction_timeout: Duration::from_secs(5),
    })
    .expect("clients");
    log.join().expect("the lane joins");
    let mut waiting: Vec<TopicPartition> = Vec::new();
    let mut read = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut gained = None;
    while gained.is_none_or(|at: Instant| at.elapsed() < LATER) {
        assert!(Instant::now() < deadline, "no partitions");
        // At once, while what the client does with them by itself may still be under way.
        waiting.retain(|of| log.resume_at(of, Position(0)).is_err());
        match log.poll(Duration::from_millis(1)).expect("a working client") {
            Event::Assigned(partitions) => {
                gained = Some(Instant::now());
                waiting = partitions;
            }
            Event::Record(record) => drop(read.insert(record.source.partition.0)),
            _ => {}
        }
    }
    let missing: Vec<i32> = (0..PARTITIONS).filter(|partition| !read.contains(partition)).collect();
    assert!(missing.is_empty(), "the first record of partitions {missing:?} was passed over");
    log.leave();
}
