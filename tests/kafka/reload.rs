//! What stands on disk changes while the gate runs: what is good decides from then on, what is bad changes nothing.

use crate::gate::{Expect, GateProcess, Ledger, POLICIES, Plan, Sender, Sent, Site, audits, wait_for};
use crate::support::kafka::broker;

#[test]
fn a_changed_policy_decides_and_a_bad_one_changes_nothing() {
    let Some(broker) = broker("a changed policy decides and a bad one changes nothing") else { return };
    let site = Site::new(broker, Plan::default());
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let mut gate = site.start_ready(None);
    let (first, stale) = gate.snapshot("policy");
    assert!(!stale);
    ledger
        .decide(&site, vec![sender.allowed(), sender.asks("refund", "inv-7", Expect::Deny("not_permitted"))]);

    let refunds = "@id(\"refunds\") permit (principal, action == Action::\"refund\", resource);";
    site.write("policies/policies.cedar", &format!("{POLICIES}\n{refunds}\n"));
    let second = wait_for("the new policies", || {
        let (version, _) = gate.snapshot("policy");
        (version != first).then_some(version)
    });
    ledger.decide(&site, vec![sender.allowed(), sender.asks("refund", "inv-7", Expect::Forward)]);

    site.write(
        "policies/policies.cedar",
        &format!("{POLICIES}\n{refunds}\npermit (principal, action, resource"),
    );
    wait_for("the bad policies to be refused", || gate.snapshot("policy").1.then_some(()));
    assert_eq!(gate.snapshot("policy").0, second);
    ledger.decide(
        &site,
        vec![
            sender.asks("refund", "inv-8", Expect::Forward),
            sender.asks("refund", "inv-frozen", Expect::Deny("forbidden")),
        ],
    );

    // Mended: the old policies again, by a signal this time.
    site.write("policies/policies.cedar", POLICIES);
    gate.hang_up();
    wait_for("the old policies", || (gate.snapshot("policy") == (first.clone(), false)).then_some(()));
    ledger
        .decide(&site, vec![sender.allowed(), sender.asks("refund", "inv-7", Expect::Deny("not_permitted"))]);
    gate.terminate();

    // The audit records name the bundle that decided.
    let bundles: Vec<String> = {
        let mut audits: Vec<_> = audits(&site).into_iter().map(|audit| audit.record).collect();
        audits.sort_by_key(|audit| (audit.decided, audit.leaf_index));
        audits.into_iter().map(|audit| audit.bundle.to_string()).collect()
    };
    let expected = [&first, &first, &second, &second, &second, &second, &first, &first];
    assert_eq!(bundles.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_key_taken_out_of_the_bundle_ends_trust_at_once() {
    let Some(broker) = broker("a key taken out of the bundle ends trust at once") else { return };
    let site = Site::new(broker, Plan::default());
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let mut gate = site.start_ready(None);
    // Many, so that every token of the sender is verified and remembered.
    let allowed = |sender: &mut Sender| (0..40).map(|_| sender.allowed()).collect::<Vec<Sent>>();
    ledger.decide(&site, allowed(&mut sender));

    let bundle = site.read("trust/example.org.json");
    let service = site.read("trust/token-service.jwks");
    // Another's key, so that the domain still has one.
    site.write("trust/example.org.json", &service.replace("\"kid\"", "\"use\": \"wit-svid\", \"kid\""));
    reload(&site, &mut gate);
    let refused = allowed(&mut sender).into_iter().map(|sent| sent.expecting(Expect::Deny("issuer_unknown")));
    ledger.decide(&site, refused.collect());

    site.write("trust/example.org.json", &bundle);
    reload(&site, &mut gate);
    ledger.decide(&site, allowed(&mut sender));

    // The token service's key: the WIT is good, the Txn-Token is not.
    site.write("trust/token-service.jwks", &site.read("trust/gates.jwks"));
    reload(&site, &mut gate);
    let refused = allowed(&mut sender).into_iter().map(|sent| sent.expecting(Expect::Deny("issuer_unknown")));
    ledger.decide(&site, refused.collect());
    site.write("trust/token-service.jwks", &service);
    ledger.check(&site);
    gate.terminate();
}

fn reload(_site: &Site, gate: &mut GateProcess) {
    let (before, _) = gate.snapshot("trust");
    gate.hang_up();
    wait_for("the changed keys", || (gate.snapshot("trust").0 != before).then_some(()));
}
