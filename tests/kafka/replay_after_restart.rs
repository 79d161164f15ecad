//! A proof is used once, whatever happens to the gate in between.

use std::time::Duration;

use crate::gate::{Ledger, Plan, Sender, Site};
use crate::support::kafka::broker;

#[test]
fn a_copy_of_an_earlier_record_is_refused_after_a_restart() {
    let Some(broker) = broker("a copy of an earlier record is refused after a restart") else { return };
    let site = Site::new(broker, Plan::default());
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let originals: Vec<_> = (0..100).map(|_| sender.allowed()).collect();
    ledger.send(&site, originals.clone());
    let gate = site.start_ready(Some("one"));
    site.wait_decided(ledger.len());
    gate.terminate();
    // An end in good order, then a death; each time copies come while nobody is there, and once it is there again.
    ledger.send(&site, originals[..40].iter().map(|sent| sent.copy()).collect());
    let gate = site.start_ready(Some("one"));
    ledger.send(&site, originals[40..60].iter().map(|sent| sent.copy()).collect());
    site.wait_decided(ledger.len());
    gate.kill();
    ledger.send(&site, originals[60..80].iter().map(|sent| sent.copy()).collect());
    let gate = site.start_ready(Some("one"));
    ledger.send(&site, originals[80..].iter().map(|sent| sent.copy()).collect());
    ledger.settle(&site);
    gate.terminate();
}

/// The window of the memory is 3 s here. A gate that forgot by its own clock would take every copy in a backlog for new.
#[test]
fn a_copy_deep_in_a_backlog_is_refused_although_both_are_old() {
    let Some(broker) = broker("a copy deep in a backlog is refused although both are old") else { return };
    let route = "proof_life = \"3s\"\nskew = \"0s\"";
    let site = Site::new(broker, Plan { partitions: 1, lanes: 1, batch: 20, route, ..Plan::default() });
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    for _ in 0..3 {
        let originals: Vec<_> = (0..60).map(|_| sender.short_lived(3, 0)).collect();
        let copies: Vec<_> = originals.iter().map(|sent| sent.copy()).collect();
        // Copies come batches after their originals, and within their life.
        ledger.send(&site, originals);
        ledger.send(&site, copies);
        // What comes now comes after the window of these: they may be forgotten before it is decided.
        std::thread::sleep(Duration::from_millis(3_500));
    }
    let gate = site.start_ready(Some("one"));
    // Dies somewhere in the backlog: the rest is decided by what was restored.
    site.wait_decided(30);
    gate.kill();
    let gate = site.start_ready(Some("one"));
    ledger.settle(&site);
    gate.terminate();
}
