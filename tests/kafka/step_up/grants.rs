//! Grants that a sender brings, with two gates and with kills: each is spent by one record, whichever gate meets it.

use countersign::authorize::step_up::{Challenge, Status};

use super::PLAN;
use super::office::Office;
use super::stories::History;
use crate::gate::{Dice, Expect, GateProcess, Ledger, Plan, Sender, Sent, Site, alone, wait_for};
use crate::support::kafka::NewRecord;

const ROUNDS: usize = 4;
const INVALID: Expect = Expect::Deny("step_up_invalid");
const NAMES: [&str; 2] = ["one", "two"];

fn start(site: &Site) -> [GateProcess; 2] {
    let mut gates = NAMES.map(|name| site.start(Some(name)));
    gates.iter_mut().for_each(GateProcess::wait_ready);
    gates
}

/// A record that is held, with its challenge.
fn held(office: &Office, ledger: &mut Ledger, sent: &Sent, resource: &str) -> Challenge {
    let place = ledger.post(&office.site, sent.clone());
    office.wait_at(resource, place, Status::Open)
}

#[test]
fn a_grant_is_spent_by_one_record_over_kills_and_takeovers() {
    let test = "a grant that a sender brings is spent by one record over kills and takeovers";
    let Some(office) = Office::new(test, Plan { partitions: 2, lanes: 1, ..PLAN }) else { return };
    let _alone = alone();
    let site = &office.site;
    let mut dice = Dice::new("grants");
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let mut gates = start(site);
    let forwarded = site.broker.follow(&site.to);
    let mut seen = 0;
    for round in 0..ROUNDS {
        let asked = sender.of_key(round as u64, "inv-big", Expect::AsAnswered);
        let challenge = held(&office, &mut ledger, &asked, "inv-big");
        // The approver hands it to the sender.
        let grant = office.sign(&challenge, "carol", "approve", &challenge.digest, &format!("g-{round}"));
        let again = |expect| sender.once_more(&asked, "inv-big", &grant, expect);

        // Good in the partition that its challenge names, nowhere else; and not used up there.
        let mut elsewhere = again(INVALID);
        elsewhere.record = NewRecord { partition: Some(1 - challenge.partition), ..elsewhere.record };
        ledger.post(site, elsewhere);
        site.wait_decided(ledger.len());

        ledger.send(site, vec![again(Expect::Forward), again(INVALID), again(INVALID)]);
        if round % 2 == 0 {
            // Right after the forward is there for all to see.
            wait_for("the record with the grant to go on", || {
                seen += forwarded.take().len();
                (seen > 2 * round).then_some(())
            });
        } else {
            std::thread::sleep(std::time::Duration::from_millis(dice.below(60)));
        }
        gates.into_iter().for_each(GateProcess::kill);
        gates = start(site);
        ledger.post(site, again(INVALID));

        // The other gate takes the partition over, and has seen nothing of it.
        let [first, second] = gates;
        let (leaves, mut stays) = if round % 2 == 0 { (first, second) } else { (second, first) };
        leaves.terminate();
        stays.wait_ready();
        ledger.post(site, again(INVALID));
        site.wait_decided(ledger.len());
        stays.terminate();
        gates = start(site);

        // As an answer it is worth nothing any more; another's approval releases the held one.
        office.write(&challenge, grant);
        office.approve(&challenge, "dave", &format!("d-{round}"));
        office.wait_at("inv-big", (challenge.partition, challenge.offset), Status::Released);
    }
    for gate in gates {
        gate.terminate();
    }
    ledger.settle(site);
    let told = History::of(&office).check();
    assert_eq!((told.brought, told.effects["spent"], told.ends["forward"]), (ROUNDS, ROUNDS, ROUNDS));
}

#[test]
fn an_approval_that_was_not_used_is_good_for_the_same_request_once() {
    let test = "an approval that came too late is good for the same request once";
    let Some(office) = Office::new(test, Plan { partitions: 2, lanes: 1, ..PLAN }) else { return };
    let site = &office.site;
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let mut gate = site.start_ready(Some("one"));

    // Nobody has answered in time; the approval that comes then is good for the request still.
    let brief = sender.of_key(0, "inv-brief", Expect::AsAnswered);
    let expired = held(&office, &mut ledger, &brief, "inv-brief");
    let place = (expired.partition, expired.offset);
    office.wait_at("inv-brief", place, Status::Expired);
    let late = office.sign(&expired, "carol", "approve", &expired.digest, "l-1");
    office.write(&expired, late.clone());
    office.wait_strays(1);
    let other = NewRecord { value: Some(b"{}".to_vec()), ..brief.record.clone() };
    let other = Sent { record: other, ..brief.clone() };
    let refusal = office.sign(&expired, "dave", "refuse", &expired.digest, "l-2");
    let by_requester = office.sign(&expired, "alice", "approve", &expired.digest, "l-3");
    ledger.decide(
        site,
        vec![
            sender.once_more(&brief, "inv-brief", &refusal, INVALID),
            sender.once_more(&brief, "inv-brief", &by_requester, INVALID),
            // Another request, and another step-up, although the same person approves of the same record.
            sender.once_more(&other, "inv-brief", &late, INVALID),
            sender.once_more(&brief, "inv-both", &late, INVALID),
            sender.once_more(&brief, "inv-brief", &late, Expect::Forward),
            sender.once_more(&brief, "inv-brief", &late, INVALID),
        ],
    );

    // One that was counted is spent with the record that it was counted for.
    let big = sender.of_key(1, "inv-big", Expect::AsAnswered);
    let challenge = held(&office, &mut ledger, &big, "inv-big");
    let counted = office.sign(&challenge, "carol", "approve", &challenge.digest, "c-1");
    office.write(&challenge, counted.clone());
    office.wait_at("inv-big", (challenge.partition, challenge.offset), Status::Released);
    gate.kill();
    gate = site.start_ready(Some("one"));
    ledger.decide(site, vec![sender.once_more(&big, "inv-big", &counted, INVALID)]);

    // One of two: it counts, and the record is held for the other.
    let both = sender.of_key(0, "inv-both", Expect::AsAnswered);
    let first = held(&office, &mut ledger, &both, "inv-both");
    let grant = office.sign(&first, "erin", "approve", &first.digest, "e-1");
    let with_one = sender.once_more(&both, "inv-both", &grant, Expect::AsAnswered);
    let second = held(&office, &mut ledger, &with_one, "inv-both");
    assert_eq!(second.answers.len(), 1);
    gate.kill();
    office.approve(&second, "dave", "e-2");
    gate = site.start_ready(Some("one"));
    office.wait_at("inv-both", (second.partition, second.offset), Status::Released);
    office.answer(&first, "carol", "refuse", &first.digest, "e-3");
    office.wait_at("inv-both", (first.partition, first.offset), Status::Refused);
    ledger.wait_ended(site);
    gate.terminate();
    ledger.settle(site);
    let told = History::of(&office).check();
    assert_eq!(told.brought, 1);
}
