//! Twenty thousand records of every kind through one gate: each has the outcome that the contract gives it, once, and no
//! signature of a token is left anywhere but where workers need it.

use std::collections::HashSet;
use std::time::Instant;

use crate::gate::{Dice, Ledger, Plan, Sender, Site, alone};
use crate::support::kafka::broker;

const RECORDS: usize = 20_000;

#[test]
fn twenty_thousand_mixed_records_have_their_outcome_once_and_leave_no_signature() {
    let Some(broker) = broker("20,000 mixed records have their outcome once") else { return };
    let _alone = alone();
    let site = Site::new(broker, Plan::default());
    let (mut sender, mut ledger, mut dice) = (Sender::new(&site), Ledger::default(), Dice::new("mixed_20k"));
    ledger.send(&site, sender.each());
    let gate = site.start_ready(None);
    let began = Instant::now();
    while ledger.len() < RECORDS {
        let portion = (RECORDS - ledger.len()).min(1_000);
        ledger.send(&site, (0..portion).map(|_| sender.any(&mut dice)).collect());
    }
    site.wait_decided(RECORDS);
    println!("mixed_20k: decided after {:?}; {}", began.elapsed(), ledger.summary());
    let metrics = gate.metrics();
    assert!(metrics.contains("countersign_"), "{metrics}");
    gate.terminate();
    ledger.settle(&site);
    expect_no_signature(&site, &ledger, &metrics);
}

fn expect_no_signature(site: &Site, ledger: &Ledger, metrics: &str) {
    let search = Search::new(ledger.signatures());
    assert!(search.signatures.len() > RECORDS / 2, "{} signatures to look for", search.signatures.len());
    // The search does find: the source holds every one.
    let source = site.broker.read_to_end(&site.commands);
    assert!(source.iter().flat_map(|record| &record.headers).any(|(_, value)| search.finds(value)));
    for topic in [&site.denied, &site.audit] {
        for record in site.broker.read_to_end(topic) {
            let at = format!("{topic}/{}/{}", record.partition, record.offset);
            assert!(!search.finds(&record.key), "a signature in the key of {at}");
            assert!(!search.finds(&record.value), "a signature in the value of {at}");
            for (name, value) in &record.headers {
                assert!(!search.finds(value), "a signature in `{name}` of {at}");
            }
        }
    }
    let output = site.output();
    assert!(!output.is_empty(), "the gate says something");
    assert!(!search.finds(&Some(output)), "a signature in the gate's output");
    assert!(!search.finds(&Some(metrics.as_bytes().to_vec())), "a signature in the metrics");
}

/// Looks for the beginnings of many signatures at once.
struct Search {
    signatures: HashSet<[u8; 16]>,
    /// By the first three bytes: most places are passed over without hashing.
    begins: Vec<bool>,
}

impl Search {
    fn new(signatures: HashSet<[u8; 16]>) -> Self {
        let mut begins = vec![false; 1 << 24];
        for signature in &signatures {
            begins[place(signature)] = true;
        }
        Self { signatures, begins }
    }

    fn finds(&self, bytes: &Option<Vec<u8>>) -> bool {
        let bytes = bytes.as_deref().unwrap_or_default();
        bytes.windows(16).any(|window| {
            self.begins[place(window)]
                && window.first_chunk::<16>().is_some_and(|begin| self.signatures.contains(begin))
        })
    }
}

fn place(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
}
