//! A record that cannot be read, since its bytes on the broker's disk are not those that were written. The gate stops its partition
//! there, says where, and goes on with the others; it passes nothing over. Limits: what is damaged is of a source topic.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::gate::{Ledger, Plan, Sender, Site, Source, alone, wait_for};
use crate::support::kafka::apart;

const FIRST_SEGMENT: &str = "00000000000000000000.log";
/// Base offset and length stand in front of a batch; the length counts what follows it.
const PREFIX: u64 = 12;

/// Changes the last byte of the batch that begins at that offset.
fn damage(log: &Path, offset: i64) {
    let segment = log.join(FIRST_SEGMENT);
    let file = OpenOptions::new().read(true).write(true).open(&segment).expect("a segment");
    let (mut at, mut prefix) = (0, [0; 12]);
    loop {
        file.read_exact_at(&mut prefix, at).expect("another batch");
        let (base, length) = prefix.split_at(8);
        let length: u64 = u32::from_be_bytes(length.try_into().expect("four bytes")).into();
        let end = at + PREFIX + length;
        if i64::from_be_bytes(base.try_into().expect("eight bytes")) == offset {
            let mut last = [0];
            file.read_exact_at(&mut last, end - 1).expect("a byte");
            file.write_all_at(&[last[0] ^ 1], end - 1).expect("a byte");
            return;
        }
        at = end;
    }
}

#[test]
fn a_record_that_cannot_be_read_stops_its_partition_loudly_and_no_other() {
    let _alone = alone();
    let Some((broker, mut node)) = apart("a record that cannot be read stops its partition and no other")
    else {
        return;
    };
    let site = Site::new(broker, Plan { partitions: 2, lanes: 1, batch: 50, ..Plan::default() });
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let mut gate = site.start_ready(Some("one"));
    ledger.decide(&site, (0..20).map(|_| sender.allowed()).collect());
    gate.terminate();
    // Each a batch of its own.
    let places: Vec<(i32, i64)> = (0..60).map(|_| ledger.post(&site, sender.allowed())).collect();
    let (_, bad) = *places.iter().filter(|(partition, _)| *partition == 0).nth(10).expect("enough records");
    let ends = broker.ends(&site.commands);
    node.end();
    damage(&node.log_of(&site.commands, 0), bad);
    node.restart();

    let standing =
        |partition| broker.committed(&site.group, &site.commands).get(&partition).map(|at| at.position);
    for again in [false, true] {
        gate = site.start(Some("one"));
        wait_for("the other partition to be decided", || {
            (standing(1) == ends.get(&1).copied()).then_some(())
        });
        let status = wait_for("a gate that says where it stopped", || {
            let status = gate.status().to_string();
            status.contains(&format!("offset {bad} cannot be read")).then_some(status)
        });
        assert!(status.contains(&format!("partition {}/0 is stopped", site.commands)), "{status}");
        assert_eq!(standing(0), Some(bad), "all before it is decided, and nothing behind it; again: {again}");
        ledger.check(&site);
        gate.terminate();
    }

    // What a person can do about it.
    broker.delete_records(&site.commands, 0, bad + 1);
    ledger.lost(Source::Commands, 0, bad);
    gate = site.start_ready(Some("one"));
    wait_for("everything else to be decided", || (standing(0) == ends.get(&0).copied()).then_some(()));
    ledger.check(&site);
    gate.terminate();
}
