//! People who are asked over HTTP, through a whole gate: what they answer decides the next ask, once, and with the gate all of
//! it ends.

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::step_up::{Challenge, Status};
use countersign::worker::access::Answer;

use crate::access::{answered, client, pay, site};
use crate::gate::{Approvers, Site, audits, told, wait_for};
use crate::support::kafka::broker;

const POLICIES: &str = r#"
@id("brief") @step_up("manager") @hold("2s") forbid (principal, action == Action::"pay", resource == Invoice::"inv-brief");
"#;

fn challenge(answer: &Answer) -> String {
    assert_eq!((answer.decision, answer.reason.as_deref()), (false, Some("step_up_required")));
    answer.step_up.as_ref().expect("an obligation").challenge.clone().expect("a challenge")
}

/// The audit records about a challenge, in order: outcome, reason, and the effect of an answer.
fn story(site: &Site, challenge: &Challenge) -> Vec<String> {
    let of_it = |audit: &AuditRecord| audit.challenge.as_deref() == Some(&challenge.id);
    let audits = audits(site).into_iter().map(|audit| audit.record);
    audits.filter(of_it).map(|audit| told(&audit)).collect()
}

#[test]
fn an_approval_over_http_is_used_once_and_ends_with_its_gate() {
    let Some(broker) = broker("an approval over HTTP is used once and ends with its gate") else { return };
    let site = site(broker, "skew = \"1s\"");
    let approvers = Approvers::join(&site);
    site.write("policies/policies.cedar", &format!("{}{POLICIES}", site.read("policies/policies.cedar")));
    let gate = site.start_ready(Some("one"));
    let client_of_one = client(&site, &gate);

    // Asked once, answered, allowed once.
    let first = challenge(&answered(&client_of_one, &pay("inv-large")));
    assert_eq!(challenge(&client_of_one.ask(&pay("inv-large")).expect("an answer")), first);
    let asked = approvers.wait(&site, "inv-large", Status::Open);
    assert_eq!((&asked.id, asked.topic.as_str(), asked.offset), (&first, "", -1));
    assert_eq!(asked.step_ups[0].message, "Pay it?");
    approvers.answer(&site, &asked, "mallory", "approve");
    approvers.answer(&site, &asked, "carol", "approve");
    approvers.wait(&site, "inv-large", Status::Approved);
    let allowed = client_of_one.ask(&pay("inv-large")).expect("an answer");
    assert!(allowed.decision);
    let released = approvers.wait(&site, "inv-large", Status::Released);
    assert_eq!(released.decision_id, allowed.decision_id);
    let second = challenge(&client_of_one.ask(&pay("inv-large")).expect("an answer"));
    assert_ne!(second, first);
    let expected =
        ["deny step_up_required", "deny step_up_required", "answer not_permitted", "answer counted", "allow"];
    assert_eq!(story(&site, &asked), expected);

    // Refused, and refused it stays.
    let asked = approvers.wait(&site, "inv-large", Status::Open);
    assert_eq!(asked.id, second);
    approvers.answer(&site, &asked, "dave", "refuse");
    approvers.wait(&site, "inv-large", Status::Refused);
    for _ in 0..2 {
        let refused = client_of_one.ask(&pay("inv-large")).expect("an answer");
        assert_eq!((refused.decision, refused.reason.as_deref()), (false, Some("step_up_refused")));
    }
    approvers.answer(&site, &asked, "carol", "approve");
    wait_for("the late answer", || (story(&site, &asked).len() == 5).then_some(()));
    let expected = [
        "deny step_up_required",
        "answer counted",
        "deny step_up_refused",
        "deny step_up_refused",
        "answer contradictory",
    ];
    assert_eq!(story(&site, &asked), expected);

    // Nobody answers: a timer ends it, and the next ask is another.
    let brief = challenge(&client_of_one.ask(&pay("inv-brief")).expect("an answer"));
    assert_eq!(approvers.wait(&site, "inv-brief", Status::Expired).id, brief);
    let brief = challenge(&client_of_one.ask(&pay("inv-brief")).expect("an answer"));

    // Another gate of the same site asks for itself, and takes in nothing of the first.
    let other = site.start_ready(Some("two"));
    let client_of_two = client(&site, &other);
    let elsewhere = challenge(&answered(&client_of_two, &pay("inv-brief")));
    assert_ne!(elsewhere, brief);
    other.terminate();
    let ended = || {
        let asked = approvers.asked(&site, "inv-brief");
        asked.into_iter().find(|challenge| challenge.id == elsewhere).expect("it was asked")
    };
    assert_eq!(ended().status, Status::Expired, "a clean end ends what is open");

    // What a killed gate has asked is void: the approval counts for nothing.
    let large = "inv-later";
    let lost = challenge(&client_of_one.ask(&pay(large)).expect("an answer"));
    let asked = approvers.wait(&site, large, Status::Open);
    assert_eq!(asked.id, lost);
    approvers.answer(&site, &asked, "carol", "approve");
    approvers.wait(&site, large, Status::Approved);
    gate.kill();
    let gate = site.start_ready(Some("one"));
    let client_of_one = client(&site, &gate);
    let again = challenge(&answered(&client_of_one, &pay(large)));
    assert_ne!(again, lost);
    approvers.approve_at_terminal(&site, &approvers.wait(&site, large, Status::Open), "dave");
    gate.terminate();
    let statuses: Vec<Status> = approvers.asked(&site, large).iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [Status::Approved, Status::Expired], "nobody came for it");
    let counted = audits(&site).into_iter().filter(|audit| audit.record.outcome == "answer").count();
    assert_eq!(counted, 6, "each answer once");
}
