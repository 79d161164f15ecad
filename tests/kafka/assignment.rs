//! What the client does with a partition that it has just been given: it is read from where the lane says, wherever the
//! client itself would have begun. And with one that it had: no position of it is sent by a client that the group has given up.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use countersign::authorize::ids::{Position, Topic};
use countersign::config::{Delivery, KafkaProperties};
use countersign::stream::kafka::KafkaLog;
use countersign::stream::kafka::settings::{KafkaSettings, writer_prefix};
use countersign::stream::log::{Committed, Event, Log as _, LogError, Mark, ProducerFate, TopicPartition};

use crate::support::kafka::{Broker, NewRecord, broker};

/// The client asks for the end of a partition again half a second after an answer that came too late.
const LATER: Duration = Duration::from_millis(1500);

fn settings(broker: &Broker, topic: &str) -> KafkaSettings {
    let group = broker.unique("assignment");
    let mut properties = KafkaProperties::default();
    properties.set("bootstrap.servers", broker.bootstrap());
    KafkaSettings {
        properties,
        writers: vec![format!("{}one", writer_prefix(&group))],
        group,
        member: None,
        is_first: true,
        topics: vec![Topic::parse(topic).expect("a topic")],
        delivery: Delivery::ExactlyOnce,
        batch_bytes: None,
        transaction_timeout: Duration::from_secs(5),
    }
}

/// Joins the group and waits for the first partitions.
fn gain(log: &mut KafkaLog) -> Vec<TopicPartition> {
    log.join().expect("the lane joins");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "no partition");
        match log.poll(Duration::from_millis(50)).expect("a working client") {
            Event::Assigned(had) if !had.is_empty() => return had,
            _ => {}
        }
    }
}

#[test]
fn a_partition_just_gained_is_read_from_where_the_lane_says() {
    const PARTITIONS: i32 = 16;
    let Some(broker) = broker("a partition just gained is read from where the lane says") else { return };
    let topic = broker.create_topic("assignment", PARTITIONS, &[]);
    let one =
        |partition| NewRecord { partition: Some(partition), value: Some(vec![1]), ..NewRecord::default() };
    broker.produce(&topic, &(0..PARTITIONS).map(one).collect::<Vec<_>>());
    let mut log = KafkaLog::new(settings(broker, &topic)).expect("clients");
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

/// A lane that did not ask the group for too long still has its batch in hand, and in its client no member id any more.
#[test]
fn a_client_that_the_group_has_given_up_sends_no_position() {
    let Some(broker) = broker("a client that the group has given up sends no position") else { return };
    let topic = broker.create_topic("given-up", 1, &[]);
    let mut settings = settings(broker, &topic);
    settings.properties.set("max.poll.interval.ms", "6000");
    settings.properties.set("session.timeout.ms", "6000");
    let mut log = KafkaLog::new(settings).expect("clients");
    let had = gain(&mut log);
    let marks = [Mark { of: had[0].clone(), position: Position(7), metadata: String::new() }];
    log.begin().expect("a transaction");
    log.hand_over(&marks).expect("a member's positions");
    log.finish().expect("they are committed");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !log.has_left() {
        assert!(Instant::now() < deadline, "the group gives nobody up");
        sleep(Duration::from_millis(50));
    }
    log.begin().expect("a transaction");
    let marks = [Mark { position: Position(3), ..marks[0].clone() }];
    let sent = log.hand_over(&marks).and_then(|()| log.finish());
    assert!(matches!(sent, Err(LogError::AbortAndRewind { producer: ProducerFate::Usable, .. })), "{sent:?}");
    log.abort().expect("nothing was written");
    let stands = log.committed(&had, Duration::from_secs(5)).expect("an answer");
    assert!(matches!(stands[&had[0]], Committed::At(Position(7), _)), "{stands:?}");
}

/// The client that is thrown out does not always say that it has lost anything. What the lane still took for its own it would go
/// on with once it has joined anew, from where it stood before: over what the other has committed meanwhile.
#[test]
fn a_lane_that_another_of_its_name_throws_out_hears_that_all_is_lost() {
    let Some(broker) = broker("a lane that another of its name throws out hears that all is lost") else {
        return;
    };
    let topic = broker.create_topic("thrown-out", 6, &[]);
    let named = KafkaSettings { member: Some("one-0".to_owned()), ..settings(broker, &topic) };
    let mut older = KafkaLog::new(named.clone()).expect("clients");
    let mut had = gain(&mut older);
    had.sort();
    let mut newer = KafkaLog::new(named).expect("clients");
    let mut taken = gain(&mut newer);
    taken.sort();
    assert_eq!(taken, had, "the other has what this one had");
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut lost, mut ended) = (None, false);
    while !ended {
        assert!(Instant::now() < deadline, "it does not end: {lost:?}");
        // The other goes on, or it would be none.
        let event = newer.poll(Duration::from_millis(20));
        assert!(matches!(event, Ok(Event::Idle)), "whoever is thrown out throws nobody out: {event:?}");
        match older.poll(Duration::from_millis(50)) {
            Ok(Event::Lost(mut partitions)) => {
                partitions.sort();
                assert!(lost.replace(partitions).is_none(), "once");
            }
            Ok(_) | Err(LogError::Retriable(_)) => {}
            Err(error) => ended = matches!(error, LogError::Fatal(_)),
        }
    }
    assert_eq!(lost, Some(had), "all is lost before it ends");
}

/// Of two members by name one dies between learning what it must give up and saying that it has: it comes back under its name
/// without a rebalance, so nobody goes on with the one that was under way, and what was to change hands belongs to nobody.
#[test]
fn partitions_that_a_broken_rebalance_has_left_to_nobody_are_found() {
    const PARTITIONS: i32 = 4;
    let Some(broker) = broker("partitions that a broken rebalance has left to nobody are found") else {
        return;
    };
    let topic = broker.create_topic("left-over", PARTITIONS, &[]);
    let settings = settings(broker, &topic);
    let named = |name: &str| {
        let writers = vec![format!("{}{name}", writer_prefix(&settings.group))];
        let settings = KafkaSettings { member: Some(name.to_owned()), writers, ..settings.clone() };
        let mut log = KafkaLog::new(settings).expect("clients");
        log.join().expect("the lane joins");
        log
    };
    let hold = |log: &mut KafkaLog, has: &mut BTreeSet<TopicPartition>| -> Option<bool> {
        let event = log.poll(Duration::from_millis(50));
        match event.unwrap_or_else(|error| panic!("{error}")) {
            Event::Assigned(gained) => has.extend(gained),
            Event::Revoked(gone) | Event::Lost(gone) => has.retain(|of| !gone.contains(of)),
            _ => return None,
        }
        Some(has.is_empty())
    };
    let deadline = Instant::now() + Duration::from_secs(90);
    let (mut one, mut has_one) = (named("one"), BTreeSet::new());
    while has_one.len() < 4 {
        assert!(Instant::now() < deadline, "no partitions");
        hold(&mut one, &mut has_one);
    }
    // The first does not hear of the rebalance that the second brings.
    let (mut other, mut has_other) = (named("other"), BTreeSet::new());
    while hold(&mut other, &mut has_other).is_none() {
        assert!(Instant::now() < deadline, "the other does not join");
    }
    assert!(has_other.is_empty(), "it waits for what the first has to give up");
    drop(one);
    let (mut one, mut has_one) = (named("one"), BTreeSet::new());
    let began = Instant::now();
    while has_one.len() + has_other.len() < 4 {
        assert!(Instant::now() < deadline, "{has_one:?} and {has_other:?} of {PARTITIONS}");
        hold(&mut one, &mut has_one);
        hold(&mut other, &mut has_other);
    }
    println!("left over for {:?}", began.elapsed());
    assert!(has_one.is_disjoint(&has_other));
}
