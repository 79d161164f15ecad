//! What is asked of people about evaluations, and what their answers do, rule by rule; `model` runs random histories. Limits:
//! one caller; the desk's transactions are marks that are settled or taken back.

mod model;

use serde_json::json;
use uuid::Uuid;

use super::people::People;
use super::tests::{about_itself, body};
use super::*;
use crate::authorize::audit::AuditRecord;
use crate::authorize::ids::Partition;
use crate::authorize::limits::MAX_ASKED_BYTES;
use crate::authorize::record::Record;
use crate::authorize::step_up::{Challenge, Docket, Status};

const DESK: Uuid = Uuid::from_u128(0xd);

/// A desk without a log.
struct Desk {
    people: People,
    docket: Docket,
    told: Vec<Challenge>,
}

impl Desk {
    fn new() -> Self {
        Self::with(Docket::new(DESK, Partition(3)))
    }

    fn with(docket: Docket) -> Self {
        Self { people: People::new(), docket, told: Vec::new() }
    }

    fn pay(&mut self, invoice: &str) -> Evaluated {
        self.settle(self.people.pays(invoice))
    }

    fn settle(&mut self, evaluated: Evaluated) -> Evaluated {
        let (evaluated, told) = evaluated.settle(&mut self.docket);
        self.told.extend(told);
        evaluated
    }

    /// Asks for it the first time: the challenge.
    fn ask(&mut self, invoice: &str) -> Challenge {
        let before = self.told.len();
        assert_eq!(self.pay(invoice).denied, Some(Reason::StepUpRequired));
        assert_eq!(self.told.len(), before + 1, "asked before");
        self.told.last().unwrap().clone()
    }

    fn take(&mut self, answer: &Record) -> Option<AuditRecord> {
        let People { world, .. } = &self.people;
        let moment = self.people.moment();
        let (audit, told) = self.docket.take(world.engine.gate(), &world.route, answer, &moment)?;
        self.told.extend(told);
        Some(audit)
    }

    /// The effect of an answer.
    fn reply(&mut self, challenge: &Challenge, who: &str, decision: &str) -> String {
        let answer = self.people.answers(challenge, who, decision);
        self.take(&answer).unwrap().answer.unwrap().effect
    }

    fn wait(&mut self, seconds: i64) {
        self.people.now.0 += seconds * 1000;
    }

    /// What is due once every answer up to now was read.
    fn tick(&mut self) -> Vec<Status> {
        let told = self.docket.tick(self.people.now, self.people.now, 100);
        self.told.extend(told.iter().cloned());
        told.into_iter().map(|challenge| challenge.status).collect()
    }
}

fn obligation(evaluated: &Evaluated) -> Asking {
    evaluated.reply.context.as_ref().unwrap().obligations[0].properties.clone()
}

#[test]
fn a_person_is_asked_once_however_often_the_caller_asks() {
    let mut desk = Desk::new();
    let first = desk.pay("large");
    let asked = desk.told[0].clone();
    assert_eq!(
        (asked.status, asked.topic.as_str(), asked.partition, asked.offset),
        (Status::Open, "", 3, -1)
    );
    assert_eq!(asked.step_ups[0].message, "Pay large for alice?");
    assert!(asked.id.starts_with(&format!("http:{DESK}:3:")), "{}", asked.id);
    let properties = obligation(&first);
    assert_eq!(
        (properties.challenge.as_deref(), properties.digest.as_deref()),
        (Some(&*asked.id), Some(&*asked.digest))
    );
    assert_eq!(
        (first.audit.challenge.as_deref(), first.audit.hold_until),
        (Some(&*asked.id), Some(asked.hold_until))
    );
    assert_eq!(
        (first.audit.outcome.as_str(), first.audit.reason.as_deref()),
        ("deny", Some("step_up_required"))
    );
    for _ in 0..3 {
        desk.wait(1);
        assert_eq!(obligation(&desk.pay("large")), properties);
    }
    assert_eq!(desk.told.len(), 1, "nothing new is told");
    // What differs is asked for itself.
    assert_ne!(desk.ask("other").id, asked.id);
    assert!(desk.pay("small").reply.decision, "nobody needs to be asked");
    assert_eq!(desk.docket.len(), 2);
}

#[test]
fn an_approval_allows_once_and_the_audit_says_by_whom() {
    let mut desk = Desk::new();
    let asked = desk.ask("large");
    for (who, decision, effect) in
        [("alice", "approve", "requester"), ("mallory", "approve", "not_permitted")]
    {
        assert_eq!(desk.reply(&asked, who, decision), effect);
    }
    let other = Challenge { digest: desk.ask("other").digest, ..asked.clone() };
    assert_eq!(desk.reply(&other, "carol", "approve"), "invalid");
    assert_eq!(desk.pay("large").denied, Some(Reason::StepUpRequired));
    let answer = desk.people.answers(&asked, "carol", "approve");
    let audit = desk.take(&answer).unwrap();
    assert_eq!(
        (audit.outcome.as_str(), audit.topic.as_str(), audit.partition, audit.offset),
        ("answer", "", -1, -1)
    );
    assert_eq!(audit.challenge.as_deref(), Some(&*asked.id));
    assert_eq!(audit.answer.unwrap().approver.as_deref(), Some("User::\"carol\""));
    assert_eq!(desk.told.last().unwrap().status, Status::Approved);
    assert_eq!(desk.reply(&asked, "carol", "approve"), "second");
    assert_eq!(desk.reply(&asked, "dave", "refuse"), "contradictory");
    assert_eq!(desk.reply(&asked, "dave", "approve"), "late");
    let allowed = desk.pay("large");
    assert!(allowed.reply.decision && allowed.denied.is_none());
    let audit = &allowed.audit;
    assert_eq!(
        (audit.outcome.as_str(), audit.reason.as_deref(), audit.detail.as_deref()),
        ("allow", None, None)
    );
    assert_eq!(audit.challenge.as_deref(), Some(&*asked.id));
    assert_eq!(
        (&audit.discharged[..], &audit.approvers[..]),
        (&["large".to_owned()][..], &["User::\"carol\"".to_owned()][..])
    );
    assert_eq!((&audit.policies[..], &audit.step_ups[..]), (&["all".into()][..], &["large".to_owned()][..]));
    let released = desk.told.last().unwrap();
    assert_eq!(
        (released.status, released.decision_id.as_deref()),
        (Status::Released, Some(&*audit.decision_id))
    );
    // Once: the next is another challenge, and an answer to the first names nothing any more.
    assert_ne!(desk.ask("large").id, asked.id);
    assert_eq!(desk.reply(&asked, "dave", "approve"), "stray");
}

#[test]
fn a_refusal_stands_until_the_hold_is_over() {
    let mut desk = Desk::new();
    let asked = desk.ask("large");
    assert_eq!(desk.reply(&asked, "carol", "refuse"), "counted");
    let refused = desk.told.last().unwrap().clone();
    assert_eq!((refused.status, refused.reason.as_deref()), (Status::Refused, Some("step_up_refused")));
    assert!(refused.decision_id.is_some());
    assert_eq!(desk.reply(&asked, "dave", "approve"), "contradictory");
    for _ in 0..2 {
        let denied = desk.pay("large");
        assert_eq!(denied.denied, Some(Reason::StepUpRefused));
        assert!(denied.reply.context.unwrap().obligations.is_empty(), "there is nothing left to do");
        assert_eq!(denied.audit.approvers, ["User::\"carol\""]);
    }
    desk.wait(601);
    assert_eq!(desk.tick(), [], "its end has been told");
    assert_ne!(desk.ask("large").id, asked.id);
    // Also where the timer has not come yet.
    let again = desk.told.last().unwrap().clone();
    assert_eq!(desk.reply(&again, "carol", "refuse"), "counted");
    desk.wait(601);
    assert_ne!(desk.ask("large").id, again.id);
}

#[test]
fn as_many_as_are_asked_for_must_approve_and_an_approval_runs_out() {
    let mut desk = Desk::new();
    let asked = desk.ask("two");
    assert_eq!(desk.reply(&asked, "carol", "approve"), "counted");
    assert_eq!(desk.pay("two").denied, Some(Reason::StepUpRequired));
    desk.wait(200);
    assert_eq!(desk.reply(&asked, "dave", "approve"), "counted");
    // The first is good for five minutes, and the tolerance.
    desk.wait(131);
    let waits = desk.pay("two");
    assert_eq!(
        (waits.denied, obligation(&waits).challenge),
        (Some(Reason::StepUpRequired), Some(asked.id.clone()))
    );
    assert_eq!(desk.told.last().unwrap().status, Status::Open);
    assert_eq!(desk.reply(&asked, "carol", "approve"), "counted");
    assert_eq!(desk.pay("two").audit.approvers, ["User::\"carol\"", "User::\"dave\""]);
    // It makes room for another as well while nobody asks.
    let asked = desk.ask("large");
    assert_eq!(desk.reply(&asked, "carol", "approve"), "counted");
    desk.wait(331);
    assert_eq!(desk.reply(&asked, "dave", "approve"), "counted");
    assert_eq!(desk.pay("large").audit.approvers, ["User::\"dave\""]);
}

#[test]
fn nothing_ends_before_the_answers_that_came_in_time_were_read() {
    let mut desk = Desk::new();
    let asked = desk.ask("large");
    desk.wait(599);
    let in_time = desk.people.answers(&asked, "carol", "approve");
    desk.wait(3);
    assert_eq!(
        desk.docket.tick(desk.people.now, UnixMillis(asked.hold_until), 100).len(),
        1,
        "a reminder alone"
    );
    assert_eq!(desk.pay("large").denied, Some(Reason::StepUpRequired));
    assert_eq!(desk.reply(&asked, "dave", "approve"), "late");
    assert_eq!(desk.take(&in_time).unwrap().answer.unwrap().effect, "counted");
    // An approval is good for its own time, though the hold is over.
    desk.wait(60);
    assert_eq!(desk.tick(), []);
    assert!(desk.pay("large").reply.decision);

    let asked = desk.ask("brief");
    assert_eq!(desk.tick(), []);
    desk.wait(61);
    assert_eq!(desk.tick(), [Status::Expired]);
    let expired = desk.told.last().unwrap();
    assert_eq!(
        (expired.reason.as_deref(), expired.decision_id.as_deref()),
        (Some("step_up_timed_out"), None)
    );
    assert_ne!(desk.ask("brief").id, asked.id);
}

#[test]
fn answers_to_another_desk_are_left_to_it() {
    let mut desk = Desk::new();
    let asked = desk.ask("large");
    let elsewhere = |id: String| Challenge { id, ..asked.clone() };
    let uuid = asked.id.rsplit(':').next().unwrap();
    for id in [
        format!("http:{}:3:{uuid}", Uuid::from_u128(9)),
        format!("payments.commands:3:{uuid}"),
        "x".to_owned(),
    ] {
        let answer = desk.people.answers(&elsewhere(id), "carol", "approve");
        assert!(desk.take(&answer).is_none());
    }
    let noise = Record { value: Some("noise".into()), ..desk.people.answers(&asked, "carol", "approve") };
    assert!(desk.take(&noise).is_none());
    // What names this desk is its own, whatever else it says.
    let unknown = elsewhere(format!("http:{DESK}:3:{}", Uuid::from_u128(77)));
    assert_eq!(desk.reply(&unknown, "carol", "approve"), "stray");
}

#[test]
fn what_was_not_committed_is_given_back() {
    let mut desk = Desk::new();
    let mark = desk.docket.mark();
    let lost = desk.ask("large");
    desk.docket.undo(mark);
    assert!(desk.docket.is_empty() && desk.docket.next_end().is_none());
    let asked = desk.ask("large");
    assert_ne!(asked.id, lost.id);
    desk.docket.settle();
    assert_eq!(desk.reply(&asked, "carol", "approve"), "counted");
    desk.docket.undo(0);
    assert_eq!(desk.pay("large").denied, Some(Reason::StepUpRequired), "the approval was taken back");
    assert_eq!(desk.reply(&asked, "carol", "approve"), "counted");
    desk.docket.settle();
    let mark = desk.docket.mark();
    assert!(desk.pay("large").reply.decision);
    assert_eq!(desk.pay("large").denied, Some(Reason::StepUpRequired), "one gets it");
    desk.docket.undo(mark);
    assert!(desk.pay("large").reply.decision, "its use was taken back");
}

#[test]
fn a_full_docket_asks_nobody_and_a_greedy_caller_is_bounded() {
    for (most, of_caller) in [(2, 5), (5, 2)] {
        let mut desk = Desk::with(Docket::bounded(DESK, Partition(0), most, of_caller));
        let (large, _) = (desk.ask("large"), desk.ask("other"));
        let denied = desk.pay("two");
        assert_eq!((denied.denied, obligation(&denied).challenge), (Some(Reason::StepUpRequired), None));
        assert_eq!((denied.audit.challenge, denied.audit.step_ups), (None, vec!["two".to_owned()]));
        assert_eq!(desk.docket.len(), 2);
        // What was asked before goes on, and what ends makes room.
        assert_eq!(desk.reply(&large, "carol", "approve"), "counted");
        assert!(desk.pay("large").reply.decision);
        desk.ask("two");
    }
    let mut desk = Desk::new();
    let mut long = about_itself("pay", ("Invoice", "large"));
    long["action"]["properties"] = json!({"note": "x".repeat(MAX_ASKED_BYTES)});
    let evaluated = desk.people.asks(&long);
    assert_eq!(obligation(&desk.settle(evaluated)).challenge, None, "more than anybody reads");
}

#[test]
fn nobody_is_asked_about_somebody_else() {
    let mut desk = Desk::new();
    let other = body(("User", "bob"), json!({"name": "pay"}), json!({"type": "Invoice", "id": "large"}));
    let denied = desk.people.asks(&other);
    let denied = desk.settle(denied);
    assert_eq!((denied.denied, obligation(&denied).challenge), (Some(Reason::StepUpRequired), None));
    assert!(desk.docket.is_empty());
}

#[test]
fn when_the_desk_ends_what_is_open_ends_with_it() {
    let mut desk = Desk::new();
    let (approved, refused) = (desk.ask("large"), desk.ask("other"));
    let open = desk.ask("two");
    desk.reply(&approved, "carol", "approve");
    desk.reply(&refused, "carol", "refuse");
    let mut ended = desk.docket.close(desk.people.now);
    ended.sort_by(|a, b| a.id.cmp(&b.id));
    let mut expected = [approved.id, open.id];
    expected.sort();
    assert_eq!(ended.iter().map(|challenge| challenge.id.clone()).collect::<Vec<_>>(), expected);
    assert!(ended.iter().all(|challenge| challenge.status == Status::Expired));
    assert!(desk.docket.is_empty());
}
