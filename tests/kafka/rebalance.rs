//! Gates join and leave while records come in, in good order and not, and every record still has its one outcome.

use std::sync::Arc;
use std::time::Duration;

use crate::gate::{Dice, Load, Plan, Site, alone};
use crate::support::kafka::broker;

#[test]
fn gates_that_join_and_leave_under_load_lose_and_double_nothing() {
    let Some(broker) = broker("gates that join and leave under load lose and double nothing") else { return };
    let _alone = alone();
    let site = Arc::new(Site::new(broker, Plan { batch: 200, partitions: 6, ..Plan::default() }));
    let mut dice = Dice::new("rebalance");
    let load = Load::start(&site, dice.another(), 10);
    let mut pause = || std::thread::sleep(Duration::from_millis(500 + dice.below(1_000)));
    let first = site.start_ready(None);
    pause();
    let second = site.start_ready(None);
    pause();
    let third = site.start_ready(None);
    pause();
    // One leaves in good order, one dies, one comes in between.
    second.terminate();
    pause();
    third.kill();
    let fourth = site.start(None);
    pause();
    first.terminate();
    let mut fourth = fourth;
    fourth.wait_ready();
    pause();
    let ledger = load.stop();
    ledger.settle(&site);
    println!("rebalance: {} records", ledger.len());
    fourth.terminate();
}
