//! One broker, of the test's own: started again, stopped, away for long, with a full disk, and with a quota. The gates wait and go
//! on. Limits: a disk is full as far as the broker can tell: its files may not grow.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{LONG_STOP, faults, pause};
use crate::gate::{Dice, GateProcess, Load, Plan, Site, alone, wait_for};
use crate::support::kafka::request::limit_writes;
use crate::support::kafka::{apart, broker};

/// How long the broker is away: minutes, where faults are asked for.
fn away() -> Duration {
    Duration::from_secs(if faults().is_some() { 180 } else { 20 })
}

/// Longer than the broker takes to write the markers of a transaction whose end it has been asked for.
const ENDED: Duration = Duration::from_secs(2);

/// Does that to the broker while the gates stand still: with transactions open, but none of them about to end. A cluster that starts anew
/// with one about to end may never write its markers (`docs/guarantees.md`, "Where the promises end"); then what it wrote, and its
/// positions, stay undecided for all readers. Where other brokers are there meanwhile, as in the storm, that does not happen.
fn between_ends(gates: &[&GateProcess], strike: impl FnOnce()) {
    gates.iter().for_each(|gate| gate.pause());
    sleep(ENDED);
    strike();
    gates.iter().for_each(|gate| gate.resume());
}

fn site(broker: &'static crate::support::kafka::Broker) -> Arc<Site> {
    Arc::new(Site::new(broker, Plan { batch: 200, ..Plan::default() }))
}

#[test]
fn gates_wait_for_a_broker_that_is_away_and_go_on_without_loss() {
    let _alone = alone();
    let Some((broker, mut node)) = apart("gates wait for a broker that is away and go on without loss")
    else {
        return;
    };
    let site = site(broker);
    let load = Load::start(&site, Dice::new("faults::one_broker"), 6);
    // One that comes back to its partitions, and one without a name.
    let mut gates = [site.start_ready(Some("one")), site.start_ready(None)];
    for time in [Duration::ZERO, away()] {
        between_ends(&gates.each_ref(), || node.kill());
        sleep(time);
        let began = Instant::now();
        node.restart();
        site.wait_caught_up();
        println!(
            "one_broker: killed and away for {time:?}: caught up {:?} after it was asked back",
            began.elapsed()
        );
    }
    node.pause();
    sleep(LONG_STOP);
    node.resume();
    let began = Instant::now();
    site.wait_caught_up();
    println!("one_broker: stopped for {LONG_STOP:?}: caught up {:?} after", began.elapsed());
    for gate in &mut gates {
        gate.wait_ready();
    }
    let ledger = load.stop();
    ledger.settle(&site);
    println!("one_broker: {} records", ledger.len());
    for gate in gates {
        gate.terminate();
    }
}

#[test]
fn a_full_disk_of_the_broker_loses_and_doubles_nothing() {
    let _alone = alone();
    let Some((broker, mut node)) = apart("a full disk of the broker loses and doubles nothing") else {
        return;
    };
    let site = site(broker);
    let load = Load::start(&site, Dice::new("faults::full_disk"), 6);
    let gate = site.start_ready(Some("one"));
    wait_for("some decisions", || (site.decided() > 200).then_some(()));
    // Less than the longest of its files has by now: writing on fails in the middle of it. A broker without a disk ends.
    between_ends(&[&gate], || {
        node.limit_files(64 * 1024);
        node.wait_ended();
    });
    node.restart();
    site.wait_caught_up();
    let ledger = load.stop();
    ledger.settle(&site);
    gate.terminate();
}

#[test]
fn a_gate_that_a_quota_slows_down_loses_and_doubles_nothing() {
    let _alone = alone();
    let Some(broker) = broker("a gate that a quota slows down loses and doubles nothing") else { return };
    let site = site(broker);
    let mut dice = Dice::new("faults::quota");
    let name = broker.unique("slow");
    let named = format!("\"client.id\" = \"{name}\"\n[gate]");
    site.write("countersign.toml", &site.read("countersign.toml").replacen("[gate]", &named, 1));
    let load = Load::start(&site, dice.another(), 6);
    let gate = site.start_ready(Some("one"));
    site.wait_caught_up();
    // A tenth of what comes in: the broker keeps the gate waiting for longer than a transaction may stay open.
    assert!(limit_writes(broker.bootstrap(), &name, Some(40_000.0)), "the broker takes a quota");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        pause(&mut dice, 500, 500);
    }
    let behind: i64 = broker.ends(&site.commands).values().sum::<i64>() - site.decided();
    assert!(limit_writes(broker.bootstrap(), &name, None), "the broker takes it back");
    let ledger = load.stop();
    ledger.settle(&site);
    println!("quota: {} records, {behind} behind at the end of it", ledger.len());
    assert!(behind > 0, "the quota did not slow the gate down");
    gate.terminate();
}
