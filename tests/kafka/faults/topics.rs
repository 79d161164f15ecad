//! A topic of the route that is not there: before the gate starts, and while it runs. Limits: what was in a topic goes with it, so
//! it is one that nothing has been written to.

use crate::gate::{Expect, Ledger, Plan, Sender, Sent, Site, wait_for};
use crate::support::kafka::{Broker, broker};

fn site(broker: &'static Broker) -> Site {
    Site::new(broker, Plan { partitions: 2, lanes: 1, batch: 50, ..Plan::default() })
}

#[test]
fn a_gate_without_a_topic_of_its_route_does_not_start_and_says_which() {
    let Some(broker) = broker("a gate without a topic of its route does not start") else { return };
    let site = site(broker);
    let mut sender = Sender::new(&site);
    let mut ledger = Ledger::default();
    ledger.send(&site, (0..20).map(|_| sender.allowed()).collect());
    broker.delete_topic(&site.to);
    let mut gate = site.start(Some("one"));
    assert_ne!(gate.wait(), 0, "it fails");
    let said = String::from_utf8_lossy(&site.output()).into_owned();
    assert!(
        said.contains(&site.to) && said.contains("--create"),
        "it names the topic and the command: {said}"
    );
    assert_eq!(site.decided(), 0);
    broker.create_named(&site.to, 2, &[]);
    let gate = site.start_ready(Some("one"));
    ledger.settle(&site);
    gate.terminate();
}

/// Deletes a topic while a gate runs that has written to others only; `into` and `beside` make what goes to it and what does not.
fn delete_while_running(
    broker: &'static Broker,
    topic: fn(&Site) -> &String,
    into: fn(&mut Sender) -> Sent,
    beside: fn(&mut Sender) -> Sent,
) {
    let site = site(broker);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let mut gate = site.start_ready(Some("one"));
    ledger.decide(&site, (0..100).map(|_| beside(&mut sender)).collect());
    let topic = topic(&site).clone();
    broker.delete_topic(&topic);
    // In the middle of a batch: nothing of what stands around it is visible without it.
    let both = |sender: &mut Sender| [beside(sender), into(sender), beside(sender)];
    ledger.send(&site, (0..40).flat_map(|_| both(&mut sender)).collect());
    let status = wait_for("a gate that is not ready", || {
        let status = gate.status();
        (status["ready"] == false && status["not_ready"].to_string().contains(&topic)).then_some(status)
    });
    println!("topics: {}", status["not_ready"]);
    assert!(site.decided() < 220, "what has no place is not decided");
    broker.create_named(&topic, 2, &[]);
    ledger.settle(&site);
    gate.wait_ready();
    gate.terminate();
}

#[test]
fn a_gate_whose_destination_is_gone_waits_for_it_loudly_and_goes_on() {
    let Some(broker) = broker("a gate whose destination is gone waits for it") else { return };
    delete_while_running(
        broker,
        |site| &site.to,
        Sender::allowed,
        |sender| sender.asks("refund", "inv-7", Expect::Deny("not_permitted")),
    );
}

#[test]
fn a_gate_whose_dead_letter_topic_is_gone_waits_for_it_loudly_and_goes_on() {
    let Some(broker) = broker("a gate whose dead-letter topic is gone waits for it") else { return };
    let denied = |sender: &mut Sender| sender.asks("refund", "inv-7", Expect::Deny("not_permitted"));
    delete_while_running(broker, |site| &site.denied, denied, Sender::allowed);
}
