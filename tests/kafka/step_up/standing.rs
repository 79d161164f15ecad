//! The new enemy of a held record: an approval does not help whoever was revoked, or whose workflow has ended, before the
//! record was released.

use countersign::authorize::step_up::{Challenge, Status};

use super::stories::History;
use super::{Office, PLAN};
use crate::gate::{Expect, Followed, Ledger, Plan, Sender, wait_for};

/// Waits until the record of that challenge has ended; its reason.
fn ended(office: &Office, challenge: &Challenge) -> Option<String> {
    let place = (challenge.partition, challenge.offset);
    let end = wait_for("a held record to end", || {
        let all = office.challenges(&challenge.resource.id).into_iter();
        let mut of_it = all.filter(|other| (other.partition, other.offset) == place);
        of_it.find(|other| other.decision_id.is_some())
    });
    let expected = if end.reason.is_some() { Status::Denied } else { Status::Released };
    assert_eq!(end.status, expected);
    end.reason
}

#[test]
fn an_approved_record_is_not_released_once_its_subject_is_revoked_or_its_workflow_has_ended() {
    let test = "an approved record is not released once its subject is revoked or its workflow has ended";
    let Some(office) = Office::new(test, Plan { lanes: 1, ..PLAN }) else { return };
    let site = &office.site;
    let followed = Followed::new(site, "10s", false);
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let hold = |ledger: &mut Ledger, sent| {
        let place = ledger.post(site, sent);
        office.wait_at("inv-big", place, Status::Open)
    };
    followed.workflow("job-1", countersign::authorize::standing::Status::Running);
    let mut gates = [site.start_ready(Some("one")), site.start_ready(Some("two"))];
    let mut fleet = followed.fleet();

    // Its workflow ends while it is held.
    let of_job = hold(&mut ledger, sender.in_workflow("job-1", "inv-big", Expect::AsAnswered));
    let cancelled = followed.workflow("job-1", countersign::authorize::standing::Status::Cancelled);
    followed.wait_acknowledged(&mut fleet, &cancelled);
    office.approve(&of_job, "carol", "s-1");
    assert_eq!(ended(&office, &of_job).as_deref(), Some("workflow_ended"));

    // Approved before the revocation, and not decided yet: the gates are away in between.
    let first = hold(&mut ledger, sender.asks("pay", "inv-big", Expect::AsAnswered));
    let some: Vec<Challenge> =
        (0..8).map(|_| hold(&mut ledger, sender.asks("pay", "inv-big", Expect::AsAnswered))).collect();
    let untouched = hold(&mut ledger, sender.asks("pay", "inv-big", Expect::AsAnswered));
    office.approve(&untouched, "carol", "s-2");
    assert_eq!(ended(&office, &untouched), None, "released: nothing is revoked yet");
    for gate in gates {
        gate.kill();
    }
    office.approve(&first, "carol", "s-3");
    followed.revoke("transaction", "txn-other");
    followed.revoke("subject", "alice");
    gates = [site.start_ready(Some("one")), site.start_ready(Some("two"))];
    assert_eq!(ended(&office, &first).as_deref(), Some("revoked"));

    // Approved after it, at either gate.
    for (n, challenge) in some.iter().enumerate() {
        office.approve(challenge, "dave", &format!("s-4-{n}"));
    }
    for challenge in &some {
        assert_eq!(ended(&office, challenge).as_deref(), Some("revoked"));
    }
    for gate in gates {
        gate.terminate();
    }
    ledger.settle(site);
    assert_eq!(site.broker.read_to_end(&site.to).len(), 1);
    let told = History::of(&office).check();
    assert_eq!(told.ends["revoked"], 9);
}

/// The window between an approval and a release is open until every gate has acknowledged the revocation, no longer.
#[test]
fn what_is_approved_after_every_gate_has_acknowledged_a_revocation_is_never_released() {
    let test = "what is approved after every gate has acknowledged a revocation is never released";
    let Some(office) = Office::new(test, Plan { lanes: 1, ..PLAN }) else { return };
    let site = &office.site;
    let followed = Followed::new(site, "10s", false);
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let gates = [site.start_ready(None), site.start_ready(None)];
    let mut fleet = followed.fleet();
    let sent = (0..60).map(|_| sender.asks("pay", "inv-big", Expect::AsAnswered)).collect();
    ledger.send(site, sent);
    let held = wait_for("every record to be held", || {
        let held = office.challenges("inv-big");
        (held.len() == 60).then_some(held)
    });
    // Half of them are approved while the revocation is on its way, the others once it has arrived everywhere.
    let (before, after) = held.split_at(30);
    let mut revoked = None;
    for (n, challenge) in before.iter().enumerate() {
        office.approve(challenge, "carol", &format!("w-{n}"));
        if n == 14 {
            revoked = Some(followed.revoke("subject", "alice"));
        }
    }
    followed.wait_acknowledged(&mut fleet, &revoked.expect("half way"));
    for (n, challenge) in after.iter().enumerate() {
        office.approve(challenge, "carol", &format!("x-{n}"));
    }
    let of = |all: &[Challenge]| all.iter().filter(|one| ended(&office, one).is_none()).count();
    let (early, late) = (of(before), of(after));
    println!(
        "step_up: of 30 approved before the acknowledgement {early} were released, of 30 after it {late}"
    );
    assert_eq!(late, 0, "released after every gate knew");
    for gate in gates {
        gate.terminate();
    }
    ledger.settle(site);
    let told = History::of(&office).check();
    assert_eq!(told.ends["revoked"], 60 - early);
}
