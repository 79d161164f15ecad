//! A proof is used once, whichever gate meets it.

use crate::gate::{Ledger, Plan, Sender, Site};
use crate::support::kafka::broker;

#[test]
fn a_copy_of_an_earlier_record_is_refused_after_another_gate_has_taken_over() {
    let Some(broker) = broker("a copy of an earlier record is refused after a takeover") else { return };
    // One partition: who has it has decided, and the other has seen nothing of it.
    let site = Site::new(broker, Plan { partitions: 1, lanes: 1, ..Plan::default() });
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let originals: Vec<_> = (0..90).map(|_| sender.allowed()).collect();
    let copies = |range: std::ops::Range<usize>| originals[range].iter().map(|sent| sent.copy()).collect();
    let first = site.start_ready(None);
    ledger.send(&site, originals.clone());
    site.wait_decided(ledger.len());

    let second = site.start_ready(None);
    first.terminate();
    ledger.send(&site, copies(0..30));
    site.wait_decided(ledger.len());

    let third = site.start_ready(None);
    second.kill();
    ledger.send(&site, copies(30..60));
    site.wait_decided(ledger.len());

    // Back and forth: what the third has taken over the fourth must find as well.
    let fourth = site.start_ready(None);
    third.terminate();
    ledger.send(&site, copies(60..90));
    ledger.settle(&site);
    fourth.terminate();
}
