//! A route whose policies were rolled out wrong stops, and goes on once they have been put right.

use std::time::Duration;

use crate::gate::{Expect, POLICIES, Plan, Sender, Site, alone, wait_for};
use crate::support::kafka::broker;

const RECORDS: usize = 400;

/// Of the signed route.
const BREAKER: &str = "[route.breaker]\ndenied_in_a_row = 20\ndenied_percent = 95\nof = 100\nprobe = 5\n";

#[test]
fn a_route_under_a_wrong_policy_stops_before_its_source_is_empty_and_goes_on_when_that_is_put_right() {
    let Some(broker) = broker("a route under a wrong policy stops") else { return };
    let _alone = alone();
    let site = Site::new(broker, Plan { partitions: 2, lanes: 1, batch: 10, ..Plan::default() });
    let text = site.read("countersign.toml");
    let at = text.rfind("[[route]]").expect("the second route");
    let (signed, other) = text.split_at(at);
    site.write("countersign.toml", &format!("{signed}{BREAKER}{other}"));
    site.write(
        "policies/policies.cedar",
        &format!("{POLICIES}\n@id(\"oops\") forbid (principal, action == Action::\"pay\", resource);"),
    );
    let mut gate = site.start_ready(None);
    let mut sender = Sender::new(&site);
    let records: Vec<_> = (0..RECORDS).map(|_| sender.asks("pay", "inv-7", Expect::Forward).record).collect();
    site.writer.write(&site.commands, &records);
    let why = wait_for("the route to stop", || {
        let status = gate.status();
        (status["ready"] == false).then(|| status["not_ready"].to_string())
    });
    assert!(why.contains("has stopped in lane 0") && why.contains("were denied"), "{why}");
    // The transaction behind the one that reaches the bound was decided meanwhile, and is still to come or has come.
    let mut denied = 0;
    wait_for("nothing more to come", || {
        std::thread::sleep(Duration::from_millis(500));
        let before = std::mem::replace(&mut denied, site.broker.read_to_end(&site.denied).len());
        (before == denied).then_some(())
    });
    assert!((20..=39).contains(&denied), "{denied}: twenty in a row, in transactions of ten");
    assert!(gate.metrics().contains("countersign_breaker_open{route="), "{}", gate.metrics());

    // Asked to try while nothing has changed, it denies a few more and stops again.
    gate.hang_up();
    wait_for("a few to be tried", || {
        (site.broker.read_to_end(&site.denied).len() == denied + 5).then_some(())
    });

    let loaded = gate.snapshot("policy").0;
    site.write("policies/policies.cedar", POLICIES);
    wait_for("the policies to be read again", || (gate.snapshot("policy").0 != loaded).then_some(()));
    gate.hang_up();
    site.wait_decided(RECORDS);
    gate.wait_ready();
    gate.terminate();
    assert_eq!(site.broker.read_to_end(&site.denied).len(), denied + 5);
    assert_eq!(site.broker.read_to_end(&site.to).len(), RECORDS - denied - 5, "each of the others, once");
}
