//! One gate, one held record at a time: what people answer decides, at that moment, over restarts.

use countersign::authorize::step_up::Status;

use super::office::answer;
use super::stories::History;
use super::{Office, PLAN};
use crate::gate::{Expect, Ledger, Sender, wait_for, wire};

#[test]
fn a_held_record_ends_as_it_is_answered_over_restarts_and_once() {
    let Some(office) = Office::new("a whole gate holds, asks, takes in answers and decides again", PLAN)
    else {
        return;
    };
    let site = &office.site;
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let mut gate = site.start_ready(Some("office"));
    let sent = sender.asks("pay", "inv-big", Expect::AsAnswered);
    ledger.send(site, vec![sent.clone()]);
    let big = office.wait("inv-big", Status::Open);
    assert_eq!(big.step_ups[0].message, "Pay inv-big for alice?");
    assert!(site.broker.read_to_end(&site.to).is_empty(), "nothing goes on before somebody has approved");

    // Who asked for it, another request, and somebody whom no policy lets answer.
    office.approve(&big, "alice", "a-1");
    office.answer(&big, "carol", "approve", "bm90IHRoaXMgb25l", "a-2");
    office.approve(&big, "mallory", "a-3");
    wait_for("three answers to be taken in", || (office.story(&big).len() == 4).then_some(()));
    gate.kill();
    gate = site.start_ready(Some("office"));
    let carol = office.sign(&big, "carol", "approve", &big.digest, "a-4");
    office.write(&big, carol.clone());
    office.wait("inv-big", Status::Released);
    office.write(&big, carol);
    office.answer(&big, "dave", "refuse", &big.digest, "a-5");
    office.wait_strays(2);
    let expected =
        ["hold", "answer requester", "answer invalid", "answer not_permitted", "answer counted", "forward"];
    assert_eq!(office.story(&big), expected);

    let released = site.broker.read_to_end(&site.to);
    assert_eq!(released.len(), 1, "{released:?}");
    assert_eq!(released[0].value, sent.record.value);
    let received = wire(&site.to, &released[0]);
    site.verifier().verify(&received).expect("a countersignature that holds");
    let release = office.release(&big);
    assert_eq!(
        (&release.discharged[..], &release.approvers[..]),
        (&["big".to_owned()][..], &["User::\"carol\"".to_owned()][..])
    );

    // Two must approve of this one; what nobody answers in time is denied, with its reason.
    ledger.send(site, vec![sender.asks("pay", "inv-both", Expect::AsAnswered)]);
    let both = office.wait("inv-both", Status::Open);
    office.approve(&both, "carol", "b-1");
    wait_for("the first approval", || (office.story(&both).len() == 2).then_some(()));
    gate.terminate();
    gate = site.start_ready(None);
    office.approve(&both, "dave", "b-2");
    office.wait("inv-both", Status::Released);
    assert_eq!(office.release(&both).approvers, ["User::\"carol\"", "User::\"dave\""]);
    ledger.send(site, vec![sender.asks("pay", "inv-brief", Expect::AsAnswered)]);
    let brief = office.wait("inv-brief", Status::Expired);
    assert_eq!(office.story(&brief), ["hold", "deny step_up_timed_out"]);
    gate.terminate();
    ledger.settle(site);
    History::of(&office).check();
}

#[test]
fn a_refused_record_is_denied_and_nothing_that_is_said_later_changes_that() {
    let test = "a refused record is denied and nothing that is said later changes that";
    let Some(office) = Office::new(test, PLAN) else { return };
    let site = &office.site;
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let mut gate = site.start_ready(Some("office"));
    ledger.send(site, vec![sender.asks("pay", "inv-both", Expect::AsAnswered)]);
    let both = office.wait("inv-both", Status::Open);
    // Whom no policy lets answer, and who asked, cannot refuse either.
    office.answer(&both, "mallory", "refuse", &both.digest, "r-1");
    office.answer(&both, "alice", "refuse", &both.digest, "r-2");
    office.approve(&both, "dave", "r-3");
    wait_for("three answers to be taken in", || (office.story(&both).len() == 4).then_some(()));
    // All at once: what comes after the refusal is taken in before the record is decided.
    gate.kill();
    let said =
        |who, decision, jti| answer(&both, office.sign(&both, who, decision, &both.digest, jti).into_bytes());
    office.write_all(vec![
        said("carol", "refuse", "r-4"),
        said("erin", "approve", "r-5"),
        said("carol", "approve", "r-6"),
        said("erin", "refuse", "r-7"),
    ]);
    gate = site.start_ready(Some("office"));
    let refused = wait_for("the record to be denied", || {
        let found = office.challenges("inv-both").pop()?;
        found.decision_id.is_some().then_some(found)
    });
    assert_eq!((refused.status, refused.reason.as_deref()), (Status::Refused, Some("step_up_refused")));
    office.approve(&both, "erin", "r-8");
    office.answer(&both, "carol", "refuse", &both.digest, "r-9");
    office.wait_strays(2);
    gate.terminate();

    let expected = [
        "hold",
        "answer not_permitted",
        "answer requester",
        "answer counted",
        "answer counted",
        "answer contradictory",
        "answer contradictory",
        "answer late",
        "deny step_up_refused",
    ];
    assert_eq!(office.story(&both), expected);
    assert!(site.broker.read_to_end(&site.to).is_empty());
    let denied = site.broker.read_to_end(&site.denied);
    assert_eq!((denied.len(), denied[0].header("denied-reason")), (1, Some("step_up_refused")));
    assert_eq!(denied[0].header("decision-id"), refused.decision_id.as_deref());
    ledger.settle(site);
    History::of(&office).check();
}
