//! `order = "key"`: what comes after a held record of its key waits behind it, over a gate that is killed.

use countersign::authorize::step_up::Status;

use super::stories::History;
use super::{Office, PLAN};
use crate::gate::{Expect, Ledger, Plan, Sender, wait_for};

#[test]
fn records_of_one_key_come_out_in_their_order_behind_a_held_one_over_kills() {
    let test = "records of one key come out in their order behind a held one over kills";
    let plan = Plan { partitions: 2, lanes: 1, route: "skew = \"1s\"\norder = \"key\"", ..PLAN };
    let Some(office) = Office::new(test, plan) else { return };
    let site = &office.site;
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let mut gate = site.start_ready(Some("office"));
    // Keys 0 and 2 stand in one partition, key 1 in the other.
    let mut of = |key, resource| sender.of_key(key, resource, Expect::AsAnswered);
    let records = vec![
        of(0, "inv-both"),
        of(0, "inv-7"),
        of(2, "inv-7"),
        of(0, "inv-big"),
        of(0, "inv-8"),
        of(1, "inv-7"),
        of(0, "inv-9"),
    ];
    let values: Vec<_> = records.iter().map(|sent| sent.record.value.clone()).collect();
    let forwarded = || {
        let records = site.broker.read_stable(&site.to).into_iter();
        let places = records.map(|record| {
            let at = values.iter().position(|value| *value == record.value).expect("it was sent");
            (record.partition, at)
        });
        places.collect::<Vec<_>>()
    };
    ledger.send(site, records);
    let both = office.wait("inv-both", Status::Open);
    site.wait_decided(7);
    assert_eq!(forwarded(), [(0, 2), (1, 5)], "other keys overtake");
    gate.kill();
    gate = site.start_ready(Some("office"));
    office.approve(&both, "carol", "o-1");
    office.approve(&both, "dave", "o-2");
    // Dead again while the queue moves on.
    wait_for("the first to go on", || (forwarded().len() > 2).then_some(()));
    gate.kill();
    gate = site.start_ready(Some("office"));
    let big = office.wait("inv-big", Status::Open);
    assert_eq!(forwarded(), [(0, 2), (0, 0), (0, 1), (1, 5)], "no further than the next one that is held");
    // One more of the key, while it is held.
    let last = sender.of_key(0, "inv-7", Expect::AsAnswered);
    ledger.send(site, vec![last]);
    site.wait_decided(8);
    gate.kill();
    office.answer(&big, "carol", "refuse", &big.digest, "o-3");
    gate = site.start_ready(Some("office"));
    ledger.wait_ended(site);
    gate.terminate();
    let of_key: Vec<_> = site
        .broker
        .read_to_end(&site.to)
        .into_iter()
        .filter(|record| record.key.as_deref() == Some(b"inv-0"))
        .map(|record| record.value)
        .collect();
    assert_eq!(of_key.len(), 5);
    assert_eq!(of_key[..4], [0, 1, 4, 6].map(|at| values[at].clone()));
    ledger.settle(site);
    let told = History::of(&office).check();
    assert_eq!(told.ends, [("forward".to_owned(), 1), ("step_up_refused".to_owned(), 1)].into());
}
