//! The gate is killed without warning again and again while records come in, and every record still has its one outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gate::{Dice, Load, Plan, Site, alone};
use crate::support::kafka::broker;

const KILLS: u32 = 10;

#[test]
fn a_gate_killed_ten_times_under_load_loses_and_doubles_nothing() {
    let Some(broker) = broker("a gate killed ten times under load loses and doubles nothing") else { return };
    let _alone = alone();
    let site = Arc::new(Site::new(broker, Plan { batch: 200, trickles: true, ..Plan::default() }));
    let mut dice = Dice::new("kill_nine");
    let load = Load::start(&site, dice.another(), 12);
    let mut gate = site.start(Some("one"));
    let mut open = 0;
    for kill in 0..KILLS {
        // One of four dies while it still starts and restores; the others in the middle of their work.
        let pause = if kill % 4 == 3 { dice.below(400) } else { 200 + dice.below(900) };
        if kill % 4 != 3 {
            gate.wait_ready();
        }
        std::thread::sleep(Duration::from_millis(pause));
        gate.kill();
        open += u32::from(!site.broker.is_settled(&site.audit));
        gate = site.start(Some("one"));
    }
    let ledger = load.stop();
    let began = Instant::now();
    ledger.settle(&site);
    println!(
        "kill_nine: {} records, {KILLS} kills, {open} of them within a transaction; the rest took {:?}",
        ledger.len(),
        began.elapsed()
    );
    gate.terminate();
}
