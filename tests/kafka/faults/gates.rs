//! Gates that come and go, that share a name, and that stand still until others have taken their work over, all of it under load.
//! Limits: brokers are well here.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use super::pause;
use crate::gate::{Dice, GateProcess, Load, Plan, Site, alone, wait_for};
use crate::support::kafka::broker;

/// Longer than a session (6 s) and a transaction (5 s) together: by then another has the partitions and their work.
const STANDSTILL: Duration = Duration::from_secs(13);
const VISITS: u32 = 6;

fn site(test: &str) -> Option<Arc<Site>> {
    Some(Arc::new(Site::new(
        broker(test)?,
        Plan { batch: 200, partitions: 6, trickles: true, ..Plan::default() },
    )))
}

#[test]
fn gates_that_join_and_leave_all_the_time_lose_and_double_nothing() {
    let _alone = alone();
    let Some(site) = site("gates that join and leave all the time lose and double nothing") else { return };
    let mut dice = Dice::new("faults::gates");
    let load = Load::start(&site, dice.another(), 10);
    let mut gates = vec![site.start_ready(None)];
    for visit in 0..VISITS {
        gates.push(site.start(None));
        pause(&mut dice, 300, 1_500);
        // Whoever is there the longest leaves; every third does not say so.
        let mut leaves = gates.remove(0);
        if visit % 3 == 2 {
            leaves.kill();
        } else {
            leaves.wait_ready();
            leaves.terminate();
        }
    }
    let ledger = load.stop();
    ledger.settle(&site);
    println!("gates: {} records, {VISITS} came and {VISITS} went", ledger.len());
    for mut gate in gates {
        gate.wait_ready();
        gate.terminate();
    }
}

/// The gate has found out that another has its name, and says so.
pub(super) fn expect_replaced(site: &Site, mut gate: GateProcess) {
    assert_ne!(gate.wait(), 0, "a gate whose name another has taken ends as one that has failed");
    let said = String::from_utf8_lossy(&site.output()).into_owned();
    let told = ["membership has ended", "was replaced by another"];
    assert!(told.iter().any(|words| said.contains(words)), "it says why it ends");
}

#[test]
fn of_two_gates_with_one_name_the_older_ends_and_says_so() {
    let _alone = alone();
    let Some(site) = site("of two gates with one name the older ends and says so") else { return };
    let mut dice = Dice::new("faults::one_name");
    let load = Load::start(&site, dice.another(), 10);
    let mut gate = site.start_ready(Some("one"));
    for _ in 0..2 {
        pause(&mut dice, 300, 700);
        let newer = site.start(Some("one"));
        expect_replaced(&site, gate);
        gate = newer;
        gate.wait_ready();
    }
    let ledger = load.stop();
    ledger.settle(&site);
    gate.terminate();
}

#[test]
fn of_two_gates_with_one_name_one_stays_even_if_the_other_stood_still() {
    let _alone = alone();
    let Some(site) = site("of two gates with one name one stays even if the other stood still") else {
        return;
    };
    let load = Load::start(&site, Dice::new("faults::standstill"), 10);
    let mut gates = [site.start_ready(Some("one")), site.start_ready(Some("two"))];
    gates[0].pause();
    sleep(STANDSTILL);
    let mut newer = site.start_ready(Some("one"));
    gates[0].resume();
    let older_ended = wait_for("one of the two to end", || match (gates[0].ended(), newer.ended()) {
        (None, None) => None,
        (ended, _) => Some(ended.is_some()),
    });
    let [older, mut other] = gates;
    let (ended, mut stayed) = if older_ended { (older, newer) } else { (newer, older) };
    expect_replaced(&site, ended);
    // Long enough for what is left of a quarrel: sessions of both are over.
    sleep(STANDSTILL);
    for gate in [&mut stayed, &mut other] {
        gate.wait_ready();
    }
    let ledger = load.stop();
    ledger.settle(&site);
    stayed.terminate();
    other.terminate();
}

/// Stops a gate where it stands, with a transaction open.
fn stop_within_a_transaction(site: &Site, gate: &GateProcess) {
    wait_for("a gate that stands still within a transaction", || {
        wait_for("an open transaction", || (!site.broker.is_settled(&site.audit)).then_some(()));
        gate.pause();
        // A commit may have been on its way.
        sleep(Duration::from_millis(100));
        if site.broker.is_settled(&site.audit) {
            gate.resume();
            return None;
        }
        Some(())
    });
}

#[test]
fn a_gate_that_goes_on_after_another_took_over_doubles_nothing() {
    let _alone = alone();
    let Some(site) = site("a gate that goes on after another took over doubles nothing") else { return };
    let load = Load::start(&site, Dice::new("faults::zombie"), 10);
    let mut zombie = site.start_ready(None);
    let mut other = site.start_ready(None);
    stop_within_a_transaction(&site, &zombie);
    sleep(STANDSTILL);
    site.wait_caught_up();
    zombie.resume();
    site.wait_caught_up();
    // Both work again, side by side.
    for gate in [&mut zombie, &mut other] {
        gate.wait_ready();
    }
    let ledger = load.stop();
    ledger.settle(&site);
    zombie.terminate();
    other.terminate();
}
