//! A gate that is asked to end does so at once and in good order, in the middle of its work.

use std::time::Duration;

use crate::gate::{Dice, Ledger, Plan, Sender, Site, alone, wait_for};
use crate::support::kafka::broker;

/// Generous: what is in hand is one batch, which takes parts of a second.
const PROMPT: Duration = Duration::from_secs(15);

#[test]
fn a_gate_asked_to_end_under_load_ends_promptly_and_loses_and_doubles_nothing() {
    let Some(broker) = broker("a gate asked to end under load ends promptly") else { return };
    let _alone = alone();
    let site = Site::new(broker, Plan { batch: 100, ..Plan::default() });
    let (mut sender, mut ledger, mut dice) = (Sender::new(&site), Ledger::default(), Dice::new("shutdown"));
    ledger.send(&site, (0..4_000).map(|_| sender.any(&mut dice)).collect());
    let mut cut_short = 0;
    for _ in 0..3 {
        let before = site.decided();
        let gate = site.start(Some("one"));
        wait_for("some decisions", || (site.decided() > before).then_some(()));
        let took = gate.terminate();
        println!("shutdown: after {} of {} records, in {took:?}", site.decided(), ledger.len());
        assert!(took < PROMPT, "{took:?}");
        cut_short += u32::from(site.decided() < i64::try_from(ledger.len()).expect("a count"));
        // What is decided by now is exact, and nothing is left open.
        assert!(site.broker.is_settled(&site.audit));
        ledger.check(&site);
    }
    assert!(cut_short > 0, "no gate had work left");
    let gate = site.start(Some("one"));
    ledger.settle(&site);
    gate.terminate();
}
