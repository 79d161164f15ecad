//! Three brokers: the one in charge of each kind of thing is killed and started again, and stopped for longer than a transaction
//! may stay open, while a load runs. Limits: one node at a time; two of three must be there for anything to be written.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Instant;

use super::LONG_STOP;
use crate::gate::{Dice, Load, Plan, Site, alone};
use crate::support::kafka::{Led, cluster};

#[test]
fn three_brokers_that_lose_the_one_in_charge_lose_and_double_no_record() {
    let _alone = alone();
    let Some(mut cluster) = cluster("three brokers that lose the one in charge lose no record") else {
        return;
    };
    let site = Arc::new(Site::new(cluster.broker, Plan { batch: 200, ..Plan::default() }));
    let load = Load::start(&site, Dice::new("faults::cluster"), 6);
    let gate = site.start_ready(Some("one"));
    let writer = format!("{}.one-0", site.group);
    let in_charge = [
        ("a source partition", Led::Partition(&site.commands, 0)),
        ("a destination partition", Led::Partition(&site.to, 1)),
        ("the group", Led::Group(&site.group)),
        ("the transactions", Led::Transactions(&writer)),
    ];
    for (what, of) in in_charge {
        let id = cluster.leader(of);
        let began = Instant::now();
        cluster.node(id).kill();
        site.wait_caught_up();
        let without = began.elapsed();
        assert_ne!(cluster.leader(of), id, "somebody else is in charge of {what}");
        cluster.node(id).restart();
        cluster.wait_whole();
        println!("cluster: node {id}, in charge of {what}, killed: caught up without it after {without:?}");

        let id = cluster.leader(of);
        cluster.node(id).pause();
        sleep(LONG_STOP);
        cluster.node(id).resume();
        let began = Instant::now();
        site.wait_caught_up();
        cluster.wait_whole();
        println!(
            "cluster: node {id}, in charge of {what}, stopped for {LONG_STOP:?}: caught up {:?} after",
            began.elapsed()
        );
    }
    let ledger = load.stop();
    ledger.settle(&site);
    let metrics = gate.metrics();
    let told = metrics.lines().filter(|line| !line.starts_with('#'));
    let told: Vec<&str> = told.filter(|line| line.contains("abort") || line.contains("replaced")).collect();
    println!("cluster: {} records\n{}", ledger.len(), told.join("\n"));
    gate.terminate();
}
