//! A gate dies in the middle of a transaction. What it left open hides the partition from its successor, who ends it.

use std::time::{Duration, Instant};

use crate::gate::{Ledger, Plan, Sender, Site, alone, wait_for};
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
