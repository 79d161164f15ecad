//! `--wait`: a command says when no gate decides without what it has written, who is missing until then, and that nobody is
//! there where nobody is.

use serde_json::Value;

use super::{office, run};
use crate::gate::{Expect, Ledger, Sender};
use crate::support::kafka::broker;

/// How each gate stands, sorted.
fn states(told: &Value) -> Vec<&str> {
    let gates = told["gates"].as_array().expect("gates").iter();
    let mut states: Vec<&str> = gates.map(|gate| gate["state"].as_str().expect("a state")).collect();
    states.sort_unstable();
    states
}

#[test]
fn a_wait_ends_when_every_gate_that_is_there_has_taken_it_in_and_names_those_that_have_not() {
    let Some(broker) = broker("a wait ends when every gate has taken in what was written") else { return };
    let (site, _topics) = office(broker, &["workflows", "revocations", "fleet"]);
    let revoke = |arguments: &[&str]| {
        run(&site, &[&["revoke", "--signing-key", "keys/admin.jwk", "--wait"], arguments].concat())
    };
    let alone = revoke(&["--subject", "bob"]).all(3);
    assert_eq!((&alone[0]["state"], &alone[1]["wait"]), (&"in_force".into(), &"no_gate".into()));

    let (one, two) = (site.start_ready(Some("one")), site.start_ready(Some("two")));
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    ledger.decide(&site, vec![sender.allowed()]);
    let told = revoke(&["--transaction", "txn-1"]).all(0);
    assert_eq!((&told[1]["wait"], states(&told[1])), (&"acknowledged".into(), vec!["taken_in", "taken_in"]));
    ledger.decide(&site, vec![sender.asks("pay", "inv-7", Expect::Deny("revoked"))]);

    two.pause();
    let waited = revoke(&["--workflow", "job-1", "--id", "r-1", "--timeout", "2s"]);
    assert!(waited.error.contains("\"waiting_for\":[{"), "{}", waited.error);
    assert!(waited.error.contains("\"instance\":\"two\""), "{}", waited.error);
    let waited = waited.all(3);
    assert_eq!((&waited[1]["wait"], states(&waited[1])), (&"timed_out".into(), vec!["behind", "taken_in"]));
    two.resume();
    let told = run(&site, &["revoke", "wait", "r-1"]).all(0);
    assert_eq!((&told[0]["id"], states(&told[1])), (&"r-1".into(), vec!["taken_in", "taken_in"]));
    assert_eq!(run(&site, &["revoke", "wait", "r-2"]).code, 2, "there is nothing to wait for");
    one.terminate();
    two.terminate();
}
