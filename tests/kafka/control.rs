//! What changes while records are decided: known before the first decision, followed after, and by no gate forgotten once all
//! have acknowledged it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use countersign::authorize::ids::Coordinates;
use countersign::authorize::standing::Status;
use countersign::control::fleet::GateState;
use rdkafka::Timestamp;

use crate::gate::{Expect, Followed, GateProcess, Ledger, Plan, Sender, Site, alone, audits, wait_for};
use crate::support::kafka::broker;
use countersign::authorize::text::Text;

const REVOKED: Expect = Expect::Deny("revoked");
const ENDED: Expect = Expect::Deny("workflow_ended");

#[test]
fn what_was_said_before_the_start_decides_the_first_record_and_what_is_said_later_the_next() {
    let Some(broker) = broker("control topics are read to their end before the first decision") else {
        return;
    };
    let site = Site::new(broker, Plan::default());
    let followed = Followed::new(&site, "10s", false);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    followed.workflow("job-1", Status::Running);
    followed.workflow("job-2", Status::Completed);
    followed.workflow("job-1", Status::Cancelled);
    // Waiting already when the gate starts.
    ledger.send(
        &site,
        vec![sender.of_workflow("job-1", ENDED), sender.of_workflow("job-2", ENDED), sender.allowed()],
    );
    let mut gate = site.start_ready(None);
    ledger.settle(&site);

    let mut fleet = followed.fleet();
    ledger.decide(&site, vec![sender.of_workflow("job-3", Expect::Forward)]);
    let ended = followed.workflow("job-3", Status::Failed);
    let progress = followed.wait_acknowledged(&mut fleet, &ended);
    assert_eq!(progress.gates.len(), 1);
    ledger.decide(&site, vec![sender.of_workflow("job-3", ENDED), sender.allowed()]);

    let revoked = followed.revoke("subject", "alice");
    followed.wait_acknowledged(&mut fleet, &revoked);
    ledger.decide(&site, vec![sender.asks("pay", "inv-7", REVOKED)]);
    // A revocation that is in force is not taken away by a tombstone.
    let key = site
        .broker
        .read_to_end(&followed.revocations)
        .into_iter()
        .find_map(|record| record.value.and(record.key));
    let key = String::from_utf8(key.expect("the revocation's key")).expect("text");
    let tombstone = followed.write(&followed.revocations, &key, None);
    let states: Vec<_> =
        followed.progress(&mut fleet, &tombstone).gates.iter().map(|gate| gate.state).collect();
    assert_eq!(states, [GateState::Refused]);
    ledger.decide(&site, vec![sender.asks("pay", "inv-8", REVOKED)]);
    assert_eq!(gate.status()["view"]["refused"], 1);
    gate.terminate();

    // A workflow that ended stays ended in a gate that starts anew, and positions stand in every audit record.
    ledger.send(&site, vec![sender.of_workflow("job-3", REVOKED)]);
    let gate = site.start_ready(None);
    ledger.settle(&site);
    let positions = |audit: &countersign::authorize::audit::AuditRecord, name: &str| {
        let found = audit.control.iter().find(|control| control.name == name).expect("the topic's positions");
        let pairs = found.version.split(',').filter_map(|pair| pair.split_once(':'));
        pairs.map(|(of, at)| (of.parse().expect("a partition"), at.parse().expect("a position"))).collect()
    };
    for audit in audits(&site) {
        let known: BTreeMap<i32, i64> = positions(&audit.record, "workflows");
        assert_eq!(known.len(), 2, "{known:?}");
        let known: BTreeMap<i32, i64> = positions(&audit.record, "revocations");
        if audit.record.reason.as_deref() == Some("revoked") {
            assert!(known[&0] > revoked.offset.0, "decided by what it had not read: {known:?}");
        }
    }
    // One that has left in order is waited for no more.
    gate.terminate();
    let after = followed.revoke("subject", "bob");
    assert!(followed.wait_acknowledged(&mut fleet, &after).gates.is_empty());
}

#[test]
fn a_revocation_that_cannot_be_verified_is_told_and_applied_once_its_key_is_known() {
    let Some(broker) = broker("a revocation that cannot be verified is told and applied later") else {
        return;
    };
    let site = Site::new(broker, Plan::default());
    let followed = Followed::new(&site, "10s", false);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let mut gate = site.start_ready(None);
    let mut fleet = followed.fleet();
    let unknown = followed.revoke_by_seed(22, "subject", "alice");
    wait_for("the revocation to be refused", || (gate.status()["view"]["refused"] == 1).then_some(()));
    ledger.decide(&site, vec![sender.allowed()]);
    let refused = followed.progress(&mut fleet, &unknown);
    assert!(!refused.is_acknowledged() && refused.gates[0].state == GateState::Refused, "{refused:?}");
    // Others are acknowledged all the same.
    let other = followed.revoke("subject", "bob");
    followed.wait_acknowledged(&mut fleet, &other);
    assert!(gate.metrics().contains("countersign_facts_held{held=\"refused\""), "{}", gate.metrics());

    followed.administrators(&[21, 22]);
    gate.hang_up();
    followed.wait_acknowledged(&mut fleet, &unknown);
    ledger.decide(&site, vec![sender.asks("pay", "inv-7", REVOKED)]);
    assert_eq!(gate.status()["view"]["refused"], 0);
    gate.terminate();
}

#[test]
fn a_gate_whose_view_is_too_old_decides_nothing_until_it_is_current_again() {
    let Some(broker) = broker("a gate whose view is too old decides nothing") else { return };
    let site = Site::new(broker, Plan::default());
    let followed = Followed::new(&site, "3s", false);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let mut gate = site.start_ready(None);
    ledger.decide(&site, vec![sender.allowed()]);
    // No pulse fits any more, so that none comes back.
    broker.alter_topic(&followed.revocations, "max.message.bytes", "1");
    let said = wait_for("the lanes to pause", || {
        let status = gate.status();
        let lanes = status["lanes"].as_array().expect("lanes").clone();
        let paused = lanes.iter().all(|lane| lane["state"] == "paused");
        (paused && status["ready"] == false).then_some(lanes[0]["reason"].to_string())
    });
    assert!(said.contains(&followed.revocations), "{said}");
    ledger.send(&site, (0..20).map(|_| sender.allowed()).collect());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(site.decided(), 1, "nothing is decided by an old view");
    broker.alter_topic(&followed.revocations, "max.message.bytes", "1000000");
    gate.wait_ready();
    ledger.settle(&site);
    gate.terminate();
}

#[test]
fn entities_are_followed_one_by_one() {
    let Some(broker) = broker("entities are followed one by one") else { return };
    let site = Site::new(broker, Plan::default());
    let followed = Followed::new(&site, "10s", true);
    let entities = followed.entities.clone().expect("a topic");
    let schema = site
        .read("policies/schema.cedarschema")
        .replace("entity Invoice;", "entity Invoice { held?: Bool };");
    site.write("policies/schema.cedarschema", &schema);
    let policies = format!(
        "{}\n@id(\"held\") forbid (principal, action, resource) when {{ resource has held && resource.held }};",
        crate::gate::POLICIES
    );
    site.write("policies/policies.cedar", &policies);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let invoice = |id: &str, held: &str| {
        format!(
            r#"{{"uid": {{"type": "Invoice", "id": "{id}"}}, "attrs": {{"held": {held}}}, "parents": []}}"#
        )
        .into_bytes()
    };
    followed.write(&entities, "Invoice::\"inv-1\"", Some(invoice("inv-1", "true")));
    let mut gate = site.start_ready(None);
    let mut fleet = followed.fleet();
    let held = Expect::Deny("forbidden");
    ledger
        .decide(&site, vec![sender.asks("pay", "inv-1", held), sender.asks("pay", "inv-2", Expect::Forward)]);
    let put = followed.write(&entities, "Invoice::\"inv-2\"", Some(invoice("inv-2", "true")));
    followed.wait_acknowledged(&mut fleet, &put);
    ledger.decide(&site, vec![sender.asks("pay", "inv-2", held)]);
    // One that does not fit is told; the one before it stays.
    let bad = followed.write(&entities, "Invoice::\"inv-2\"", Some(invoice("inv-2", "7")));
    let progress = followed.progress(&mut fleet, &bad);
    assert_eq!(progress.gates[0].state, GateState::Refused);
    assert_eq!(gate.status()["view"]["refused"], 1);
    ledger.decide(&site, vec![sender.asks("pay", "inv-2", held)]);
    let deleted = followed.write(&entities, "Invoice::\"inv-2\"", None);
    followed.wait_acknowledged(&mut fleet, &deleted);
    ledger
        .decide(&site, vec![sender.asks("pay", "inv-2", Expect::Forward), sender.asks("pay", "inv-1", held)]);
    assert_eq!(gate.status()["view"]["entities"], 1);
    gate.terminate();
}

/// Rounds of the next test; `COUNTERSIGN_TEST_ROUNDS` says another number, for figures that more than a few stand behind.
const ROUNDS: usize = 20;

fn how_many() -> usize {
    let said = std::env::var("COUNTERSIGN_TEST_ROUNDS").ok();
    said.map_or(ROUNDS, |said| said.parse().expect("a number of rounds"))
}

/// "New enemy": whoever acts after a revocation was acknowledged is never let through, by whichever gate.
#[test]
fn what_is_sent_after_every_gate_has_acknowledged_a_revocation_is_never_forwarded() {
    let Some(broker) = broker("what is sent after a revocation was acknowledged is never forwarded") else {
        return;
    };
    let _alone = alone();
    let plan = Plan {
        partitions: 6,
        lanes: 1,
        denied: &[("message.timestamp.type", "LogAppendTime")],
        ..Plan::default()
    };
    let site = Site::new(broker, plan);
    let followed = Followed::new(&site, "10s", false);
    let mut gates: Vec<GateProcess> = (0..3).map(|_| site.start(None)).collect();
    gates.iter_mut().for_each(GateProcess::wait_ready);
    let of_gate = wait_for("the partitions to be shared evenly", || owned(&mut gates));
    let (mut sender, mut fleet) = (Sender::new(&site), followed.fleet());
    let mut rounds = Vec::new();
    for round in 0..how_many() {
        let job = format!("job-{round}");
        let mut before = BTreeSet::new();
        // Work is under way while it is revoked.
        let send = |sender: &mut Sender, places: &mut BTreeSet<(i32, i64)>| {
            let records: Vec<_> = (0..6).map(|_| sender.of_workflow(&job, REVOKED).record).collect();
            places.extend(site.writer.write(&site.commands, &records));
        };
        for _ in 0..5 {
            send(&mut sender, &mut before);
            std::thread::sleep(Duration::from_millis(10));
        }
        let revoked = followed.revoke("workflow", &job);
        let asked = Instant::now();
        loop {
            send(&mut sender, &mut before);
            let progress = fleet.progress(&revoked, Duration::from_millis(10)).expect("the fleet");
            if progress.is_acknowledged() {
                assert_eq!(progress.gates.len(), 3, "{progress:?}");
                break;
            }
            assert!(asked.elapsed() < crate::gate::PATIENCE, "{progress:?}");
        }
        let acknowledged = asked.elapsed();
        let mut after = BTreeSet::new();
        send(&mut sender, &mut after);
        send(&mut sender, &mut after);
        rounds.push(Round { revoked, acknowledged, before, after });
    }
    let sent: usize = rounds.iter().map(|round| round.before.len() + round.after.len()).sum();
    site.wait_decided(sent);
    for gate in gates {
        gate.terminate();
    }

    let decided: BTreeMap<(i32, i64), Option<Text>> = audits(&site)
        .into_iter()
        .map(|audit| ((audit.record.partition, audit.record.offset), audit.record.reason))
        .collect();
    for (number, round) in rounds.iter().enumerate() {
        for place in &round.after {
            assert_eq!(decided[place].as_deref(), Some("revoked"), "round {number}, {place:?}: let through");
        }
        let forwarded = round.before.iter().filter(|place| decided[*place].is_none()).count();
        assert!(forwarded > 0, "round {number} has shown nothing: all of it was denied from the start");
    }
    tell(&site, &followed, &rounds, &of_gate);
}

struct Round {
    revoked: Coordinates,
    acknowledged: Duration,
    before: BTreeSet<(i32, i64)>,
    after: BTreeSet<(i32, i64)>,
}

/// Which gate owns each partition of the commands, once those of both sources are shared evenly: two gates at least then
/// have some of the commands, while the third may have those of the other source alone.
fn owned(gates: &mut [GateProcess]) -> Option<BTreeMap<i32, usize>> {
    let mut of_gate = BTreeMap::new();
    for (number, gate) in gates.iter_mut().enumerate() {
        let status = gate.status();
        let partitions = status["lanes"][0]["partitions"].as_array()?.clone();
        if partitions.iter().filter(|of| of["restored"] == true).count() != 4 {
            return None;
        }
        let mine = partitions
            .iter()
            .filter(|of| of["topic"].as_str().is_some_and(|topic| topic.starts_with("gate-commands")));
        of_gate.extend(mine.filter_map(|of| Some((i32::try_from(of["partition"].as_i64()?).ok()?, number))));
    }
    (of_gate.len() == 6).then_some(of_gate)
}

/// Shows how long it took, by the broker's clock, from a revocation to the first denial and to the first of the last gate.
fn tell(site: &Site, followed: &Followed<'_>, rounds: &[Round], of_gate: &BTreeMap<i32, usize>) {
    let at = |timestamp: Timestamp| timestamp.to_millis().expect("a timestamp");
    let appended: BTreeMap<i64, i64> = site
        .broker
        .read_to_end(&followed.revocations)
        .iter()
        .map(|record| (record.offset, at(record.timestamp)))
        .collect();
    let mut denied: BTreeMap<(i32, i64), i64> = BTreeMap::new();
    for record in site.broker.read_to_end(&site.denied) {
        let number = |name: &str| record.header(name).and_then(|text| text.parse::<i64>().ok());
        if let (Some(partition), Some(offset)) = (number("original-partition"), number("original-offset")) {
            denied.insert((i32::try_from(partition).expect("a partition"), offset), at(record.timestamp));
        }
    }
    let (mut first, mut last, mut acknowledged) = (Vec::new(), Vec::new(), Vec::new());
    for round in rounds {
        let mut by_gate: BTreeMap<usize, i64> = BTreeMap::new();
        for place in round.before.iter().chain(&round.after) {
            if let Some(at) = denied.get(place) {
                let least = by_gate.entry(of_gate[&place.0]).or_insert(*at);
                *least = (*at).min(*least);
            }
        }
        let revoked = appended[&round.revoked.offset.0];
        first.extend(by_gate.values().min().map(|at| at - revoked));
        last.extend(by_gate.values().max().map(|at| at - revoked));
        acknowledged.push(i64::try_from(round.acknowledged.as_millis()).expect("fits"));
    }
    for (what, times) in [
        ("first denial", &mut first),
        ("the last gate that has work", &mut last),
        ("acknowledged", &mut acknowledged),
    ] {
        times.sort_unstable();
        let (count, most) = (times.len(), times[times.len() - 1]);
        let (half, all_but_one) = (times[count / 2], times[count * 99 / 100]);
        println!(
            "revocation to {what}: p50 {half} ms, p99 {all_but_one} ms, most {most} ms, of {count} rounds"
        );
    }
}
