//! `revoke`: what no gate would apply is not written, and the list says how each revocation stands.

use super::{office, run};
use crate::support::kafka::{NewRecord, broker};

#[test]
fn a_revocation_is_verified_written_listed_and_ended() {
    let Some(broker) = broker("a revocation is verified, written, listed and ended") else { return };
    let (site, topics) = office(broker, &["revocations"]);
    let revoke = |arguments: &[&str]| run(&site, &[&["revoke"], arguments].concat());
    let payer = "spiffe://example.org/agent/payer";
    let sign = ["--signing-key", "keys/admin.jwk"];

    let wrong = revoke(&["--workload", payer, "--signing-key", "keys/other.jwk"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.error.contains("no gate would apply this revocation"), "{}", wrong.error);
    assert_eq!(revoke(&[&["--workload", "no identifier"], &sign[..]].concat()).code, 1);
    assert_eq!(revoke(&[&["--subject", "a", "--token", "b"], &sign[..]].concat()).code, 1, "one thing");
    assert_eq!(revoke(&["--subject", "alice"]).code, 1, "nobody signs");
    let waits = revoke(&[&["--subject", "alice", "--wait"], &sign[..]].concat());
    assert_eq!(waits.code, 1);
    assert!(waits.error.contains("names no topic on which gates say"), "{}", waits.error);
    assert_eq!(revoke(&[&["--subject", "a", "--timeout", "1s"], &sign[..]].concat()).code, 1, "nobody waits");
    assert_eq!(broker.count(&topics[0]), 0);

    let written = revoke(&[&["--workload", payer, "--reason", "left"], &sign[..]].concat()).one(0);
    assert_eq!(written["targets"][0]["kind"], "workload");
    let id = written["id"].as_str().unwrap();
    assert_eq!(broker.read_to_end(&topics[0])[0].key.as_deref(), Some(id.as_bytes()));
    let subject = ["--subject", "alice", "--not-before", "now", "--until", "2020-01-01T00:00:00Z"];
    assert_eq!(revoke(&[&subject[..], &sign[..]].concat()).one(0)["state"], "ended");
    let strange =
        NewRecord { key: Some(b"x".to_vec()), value: Some(b"a.b.c".to_vec()), ..NewRecord::default() };
    broker.produce(&topics[0], &[strange]);
    let listed = revoke(&["list"]).all(2);
    let state = |state: &str| listed.iter().filter(|line| line["state"] == state).count();
    assert_eq!((state("in_force"), state("ended"), state("unverifiable")), (1, 1, 1), "{listed:?}");
    assert_eq!(revoke(&["show", id]).one(0)["reason"], "left");
    assert!(revoke(&["show", "x"]).one(2)["problem"].is_string());
    assert_eq!(revoke(&["show", "y"]).code, 2);

    // In the place of the first one, ended now.
    let end = ["--workload", payer, "--id", id, "--until", "2020-01-01T00:00:00Z"];
    assert_eq!(revoke(&[&end[..], &sign[..]].concat()).one(0)["state"], "ended");
    assert_eq!(revoke(&["show", id]).one(0)["state"], "ended");
}
