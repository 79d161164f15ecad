//! Commands against running gates: what a person says on the command line decides the next record, at whichever gate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{office_of, run};
use crate::gate::{Expect, GateProcess, Ledger, Plan, Sender, Site, alone, audits};
use crate::support::kafka::broker;
use countersign::authorize::text::Text;

const PARTITIONS: i32 = 6;
const GATES: usize = 3;
/// Rounds of the last test.
const ROUNDS: usize = 4;

/// Runs a command that waits, and makes sure that this many gates have acknowledged.
fn acknowledged(site: &Site, gates: usize, arguments: &[&str]) {
    let lines = run(site, &[arguments, &["--wait"]].concat()).all(0);
    let told = lines.last().expect("a last line");
    let states: Vec<&Value> =
        told["gates"].as_array().expect("gates").iter().map(|gate| &gate["state"]).collect();
    assert_eq!((&told["wait"], states), (&"acknowledged".into(), vec![&Value::from("taken_in"); gates]));
}

#[test]
fn what_is_said_of_a_workflow_or_an_entity_decides_the_next_record() {
    let Some(broker) = broker("what is said on the command line decides the next record") else { return };
    let plan = Plan { route: "workflow = \"registered\"", ..Plan::default() };
    let (site, _topics) = office_of(broker, plan, &["workflows", "revocations", "entities", "fleet"]);
    let schema = site.read("policies/schema.cedarschema");
    let held = schema.replace("entity Invoice;", "entity Invoice { held?: Bool };");
    site.write("policies/schema.cedarschema", &held);
    let forbid =
        "@id(\"held\") forbid (principal, action, resource) when { resource has held && resource.held };";
    site.write("policies/policies.cedar", &format!("{}\n{forbid}", site.read("policies/policies.cedar")));
    let gate = site.start_ready(None);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let say = |arguments: &[&str]| acknowledged(&site, 1, arguments);
    let mut next = |expect| ledger.decide(&site, vec![sender.of_workflow("job-1", expect)]);

    next(Expect::Deny("workflow_unknown"));
    say(&["workflow", "start", "job-1", "--type", "payout", "--owner", "o", "--step", "pay"]);
    next(Expect::Forward);
    say(&["workflow", "step", "job-1", "book"]);
    next(Expect::Deny("workflow_out_of_step"));
    say(&["workflow", "step", "job-1", "book", "--allow", "book", "--allow", "pay"]);
    next(Expect::Forward);
    say(&["workflow", "suspend", "job-1"]);
    next(Expect::Deny("workflow_out_of_step"));
    say(&["workflow", "resume", "job-1"]);
    next(Expect::Forward);

    let invoice = |held| {
        format!(r#"{{"uid":{{"type":"Invoice","id":"inv-7"}},"attrs":{{"held":{held}}},"parents":[]}}"#)
    };
    site.write("held.json", &invoice("true"));
    say(&["entity", "put", "held.json"]);
    next(Expect::Deny("forbidden"));
    site.write("free.json", &invoice("false"));
    say(&["entity", "put", "free.json"]);
    next(Expect::Forward);
    say(&["entity", "put", "held.json"]);
    next(Expect::Deny("forbidden"));
    say(&["entity", "delete", "Invoice::\"inv-7\""]);
    next(Expect::Forward);

    say(&["workflow", "end", "job-1", "--as", "cancelled"]);
    next(Expect::Deny("workflow_ended"));
    gate.terminate();
}

/// "New enemy", by command: traffic goes on in every partition while somebody revokes.
#[test]
fn what_is_sent_after_a_revoke_that_waited_is_forwarded_by_no_gate() {
    let Some(broker) = broker("what is sent after `revoke --wait` is never forwarded") else { return };
    let _alone = alone();
    let plan = Plan { partitions: PARTITIONS, lanes: 1, ..Plan::default() };
    let (site, _topics) = office_of(broker, plan, &["revocations", "fleet"]);
    let mut gates: Vec<GateProcess> = (0..GATES).map(|_| site.start(None)).collect();
    gates.iter_mut().for_each(GateProcess::wait_ready);
    let mut sender = Sender::new(&site);
    // One record to each partition, of that job.
    let send = |sender: &mut Sender, job: &str| -> BTreeSet<(i32, i64)> {
        let records: Vec<_> =
            (0..PARTITIONS).map(|_| sender.of_workflow(job, Expect::Deny("revoked")).record).collect();
        let places: BTreeSet<_> = site.writer.write(&site.commands, &records).into_iter().collect();
        let partitions: BTreeSet<i32> = places.iter().map(|(partition, _)| *partition).collect();
        assert_eq!(partitions.len(), records.len(), "one in each partition");
        places
    };
    let (mut before, mut after) = (Vec::new(), BTreeSet::new());
    let revoke = ["revoke", "--signing-key", "keys/admin.jwk"];
    for round in 0..=ROUNDS {
        let job = format!("job-{round}");
        // The last one takes the rights of everybody who was let through so far.
        let what = if round < ROUNDS { ["--workflow", &job] } else { ["--subject", "alice"] };
        // Let through before anybody revokes, however slow the machine is.
        let mut meanwhile = send(&mut sender, &job);
        let known = after.len() + before.iter().map(BTreeSet::len).sum::<usize>();
        site.wait_decided(known + meanwhile.len());
        let is_revoked = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let mut sender = Sender::new(&site);
                let mut places = BTreeSet::new();
                while !is_revoked.load(Ordering::Acquire) {
                    places.extend(send(&mut sender, &job));
                    std::thread::sleep(Duration::from_millis(10));
                }
                places
            });
            acknowledged(&site, GATES, &[&revoke[..], &what].concat());
            after.extend(send(&mut sender, &job));
            is_revoked.store(true, Ordering::Release);
            sending.join().expect("no panic")
        });
        meanwhile.extend(sent);
        before.push(meanwhile);
    }
    site.wait_decided(after.len() + before.iter().map(BTreeSet::len).sum::<usize>());
    for gate in gates {
        gate.terminate();
    }

    let decided: BTreeMap<(i32, i64), Option<Text>> = audits(&site)
        .into_iter()
        .map(|audit| ((audit.record.partition, audit.record.offset), audit.record.reason))
        .collect();
    for place in &after {
        assert_eq!(decided[place].as_deref(), Some("revoked"), "{place:?} was let through");
    }
    for (round, places) in before.iter().enumerate() {
        let forwarded = places.iter().filter(|place| decided[*place].is_none()).count();
        assert!(forwarded > 0, "round {round} has shown nothing: all of it was denied from the start");
    }
}
