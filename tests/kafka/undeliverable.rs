//! A record that the destination cannot take becomes a dead letter, without its value where that topic cannot take it
//! either. It keeps nobody else from being delivered.

use crate::gate::{Expect, Ledger, Plan, Sender, Sent, Site};
use crate::support::kafka::{Broker, broker};

const SMALL: &[(&str, &str)] = &[("max.message.bytes", "20000")];
const LARGE: usize = 60_000;
const UNDELIVERABLE: &str = "undeliverable";

/// Two large ones among many, all of one partition and so of one batch.
fn among_others(sender: &mut Sender, large: Expect) -> Vec<Sent> {
    let mut records: Vec<Sent> = (0..80).map(|_| sender.allowed()).collect();
    records.insert(20, sender.large(LARGE, large));
    records.insert(60, sender.large(LARGE + 1, large));
    records
}

fn decide(broker: &'static Broker, plan: Plan, large: Expect) {
    let site = Site::new(broker, Plan { partitions: 1, lanes: 1, ..plan });
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    ledger.send(&site, among_others(&mut sender, large));
    let gate = site.start_ready(Some("one"));
    ledger.settle(&site);
    gate.terminate();
}

#[test]
fn a_record_too_large_for_the_destination_becomes_a_dead_letter() {
    let Some(broker) = broker("a record too large for the destination becomes a dead letter") else { return };
    decide(broker, Plan { to: SMALL, ..Plan::default() }, Expect::Deny(UNDELIVERABLE));
}

#[test]
fn a_record_too_large_for_the_dead_letters_too_is_written_without_its_value() {
    let Some(broker) = broker("a record too large for the dead letters is written bare") else { return };
    decide(broker, Plan { to: SMALL, denied: SMALL, ..Plan::default() }, Expect::Bare(UNDELIVERABLE));
}

#[test]
fn a_record_denied_anyway_and_too_large_for_the_dead_letters_is_written_without_its_value() {
    let Some(broker) = broker("a denied record too large for the dead letters is written bare") else {
        return;
    };
    let site = Site::new(broker, Plan { partitions: 1, lanes: 1, denied: SMALL, ..Plan::default() });
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let mut records = among_others(&mut sender, Expect::Forward);
    // The copies are replays; their dead letters are too large.
    let copies: Vec<Sent> = records.iter().map(Sent::copy).collect();
    records.extend(copies.into_iter().map(|copy| {
        let is_large = copy.record.value.as_ref().is_some_and(|value| value.len() >= LARGE);
        if is_large { copy.expecting(Expect::Bare("replayed")) } else { copy }
    }));
    ledger.send(&site, records);
    let gate = site.start_ready(Some("one"));
    ledger.settle(&site);
    gate.terminate();
}

/// The gate knows the limits that topics had when it started; here the broker alone knows.
#[test]
fn a_record_that_only_the_broker_refuses_becomes_a_dead_letter() {
    let Some(broker) = broker("a record that only the broker refuses becomes a dead letter") else { return };
    let site = Site::new(broker, Plan { partitions: 1, lanes: 1, ..Plan::default() });
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let gate = site.start_ready(Some("one"));
    for topic in [&site.to, &site.denied] {
        broker.alter_topic(topic, SMALL[0].0, SMALL[0].1);
    }
    ledger.send(&site, among_others(&mut sender, Expect::Bare(UNDELIVERABLE)));
    ledger.settle(&site);
    gate.terminate();
}
