//! A gate dies in the middle of a transaction. What it left open hides the partition from its successor, who ends it. What nobody
//! is known to have opened it cannot end: that holds back the partition, and no other.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::gate::{Ledger, PATIENCE, Plan, Sender, Site, alone, wait_for};
use crate::support::kafka::{Broker, broker};

/// Enough that one transaction follows another for a while.
const BACKLOG: usize = 2_000;

#[test]
fn a_successor_under_the_same_name_ends_what_a_dead_gate_left_open() {
    let Some(broker) = broker("a successor under the same name ends an open transaction") else { return };
    let _alone = alone();
    let site = site(broker);
    take_over(&site, Some("one"), "the same name");
}

#[test]
fn a_successor_under_another_name_ends_what_a_dead_gate_left_open() {
    let Some(broker) = broker("a successor under another name ends an open transaction") else { return };
    let _alone = alone();
    let site = site(broker);
    take_over(&site, None, "another name");
}

#[test]
fn a_transaction_that_nobody_ends_holds_back_its_own_partition_alone() {
    let Some(broker) = broker("a transaction that nobody ends holds back one partition") else { return };
    let site = Site::new(broker, Plan { lanes: 1, ..Plan::default() });
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let gate = site.start_ready(None);
    ledger.decide(&site, (0..40).map(|_| sender.allowed()).collect());
    let before = site.broker.count(&site.to);
    gate.terminate();
    let stranger = unsettle(&site, 0);
    let places: Vec<(i32, i64)> = (0..40).map(|_| ledger.post(&site, sender.allowed())).collect();
    let others = places.iter().filter(|(partition, _)| *partition != 0).count();
    assert!(0 < others && others < places.len(), "records on both sides");
    let gate = site.start(None);
    wait_for("the other partitions", || (site.broker.count(&site.to) >= before + others).then_some(()));
    assert_eq!(site.broker.count(&site.to), before + others, "what is held back is not decided");
    stranger.abort_transaction(PATIENCE).expect("an end");
    ledger.settle(&site);
    gate.terminate();
}

/// Opens a transaction that has sent a position of a source partition, by somebody whom no position names.
fn unsettle(site: &Site, partition: i32) -> BaseProducer {
    let client = || site.broker.client();
    let member: BaseConsumer = client().set("group.id", &site.group).create().expect("a consumer");
    let group = member.group_metadata().expect("a group");
    let mut settings = client();
    settings.set("transactional.id", site.broker.unique("nobody")).set("transaction.timeout.ms", "300000");
    let producer: BaseProducer = settings.create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("an id");
    producer.begin_transaction().expect("a transaction");
    let mut positions = TopicPartitionList::new();
    positions.add_partition_offset(&site.commands, partition, Offset::Offset(0)).expect("a position");
    producer.send_offsets_to_transaction(&positions, &group, PATIENCE).expect("a position that is taken");
    producer
}

fn site(broker: &'static Broker) -> Site {
    Site::new(broker, Plan { partitions: 1, lanes: 1, batch: 400, trickles: true, ..Plan::default() })
}

fn take_over(site: &Site, instance: Option<&str>, what: &str) {
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let died = die_within_a_transaction(site, instance, &mut sender, &mut ledger);
    let successor = site.start(instance);
    wait_for("the end of the open transaction", || site.broker.is_settled(&site.audit).then_some(()));
    let settled = died.elapsed();
    ledger.send(site, (0..50).map(|_| sender.allowed()).collect());
    ledger.settle(site);
    println!(
        "orphan, {what}: {} records, settled after {settled:?}, decided after {:?}",
        ledger.len(),
        died.elapsed()
    );
    successor.terminate();
}

/// Starts gates on a backlog and kills them until one has left a transaction open; the moment of its death.
fn die_within_a_transaction(
    site: &Site,
    instance: Option<&str>,
    sender: &mut Sender,
    ledger: &mut Ledger,
) -> Instant {
    for _ in 0..10 {
        ledger.send(site, (0..BACKLOG).map(|_| sender.allowed()).collect());
        let gate = site.start(instance);
        wait_for("an open transaction", || (!site.broker.is_settled(&site.audit)).then_some(()));
        gate.kill();
        let died = Instant::now();
        // A commit may have been on its way.
        std::thread::sleep(Duration::from_millis(100));
        if !site.broker.is_settled(&site.audit) {
            return died;
        }
    }
    panic!("no gate died within a transaction");
}
